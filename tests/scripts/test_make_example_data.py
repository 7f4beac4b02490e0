"""scripts/demo/make_example_data.py from its options to the files."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from program_help import light_help

from facevox import cli
from facevox.media import iter_frames, probe, read_audio

SMALL = ["--num_people", "2", "--clips_per_person", "2", "--clip_s", "0.6", "--fps", "20", "--size", "128"]


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("demo/make_example_data")


@pytest.fixture(scope="module")
def small_set(script, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    assert cli.run(script.main, ["--output_dir", str(folder), *SMALL, "--debug"]) == 0
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    kept = (p for p in sorted(folder.rglob("*")) if p.is_file() and "manifests" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def test_every_documented_file_is_there(small_set):
    names = set(_files(small_set))
    for person in ("id0000", "id0001"):
        for clip in ("0001", "0002"):
            assert f"videos/{person}/{clip}.mp4" in names
            assert f"voices/{person}/{clip}.wav" in names
            assert f"vox/{person}/voices/{clip}.wav" in names
            assert sum(name.startswith(f"vox/{person}/faces/{clip}/") for name in names) == 3
        assert sum(f"/mel_spectrograms/Example_{person[2:]}/" in name for name in names) == 2
        assert sum(f"/masked_faces/Example_{person[2:]}/" in name for name in names) == 2 * 3
    assert {"hq/vox1/vox1_meta.csv", "hq/vox2/full_vox2_meta.csv"} <= names
    assert {"metadata.json", "vox/metadata.json", "people.csv"} <= names


def test_video_is_h264_and_aac_at_the_wanted_rate_and_length(small_set):
    video = small_set / "videos" / "id0000" / "0001.mp4"
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
    info = probe(video)
    assert (info.width, info.height) == (128, 128)
    frames = list(iter_frames(video))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(12) / 20, abs=1e-6)
    wav = read_audio(small_set / "voices" / "id0000" / "0001.wav")
    assert len(wav) == round(0.6 * 16_000)
    sound = read_audio(video)[: len(wav)]
    assert np.corrcoef(sound, wav[: len(sound)])[0, 1] > 0.95  # the same sound, at the same time


def test_metadata_tells_the_law_and_each_frame(small_set):
    meta = json.loads((small_set / "metadata.json").read_text(encoding="utf-8"))
    assert meta["law"]["correlation"] == 0.92
    assert [person["name"] for person in meta["people"]] == ["id0000", "id0001"]
    for clip in (clip for person in meta["people"] for clip in person["clips"]):
        assert (
            len(clip["opening"]) == len(clip["spread"]) == len(clip["loudness"]) == len(clip["vowels"]) == 12
        )
        assert all(0 <= value <= 1 for value in clip["opening"])


def test_vox_tree_is_what_its_metadata_say(small_set):
    vox = json.loads((small_set / "vox" / "metadata.json").read_text(encoding="utf-8"))
    assert list(vox) == ["id0000", "id0001"]
    named = {
        path for clips in vox.values() for clip in clips.values() for path in (*clip["faces"], clip["voice"])
    }
    there = {str(p.relative_to(small_set / "vox")) for p in (small_set / "vox").rglob("*.*")} - {
        "metadata.json"
    }
    assert named == there


@pytest.mark.slow
@pytest.mark.numeric
def test_workers_and_the_number_of_people_do_not_change_a_byte(script, small_set, tmp_path):
    more = [*SMALL, "--workers", "2", "--num_people", "3"]
    assert cli.run(script.main, ["--output_dir", str(tmp_path), *more]) == 0
    made = _files(tmp_path)
    for name, content in _files(small_set).items():
        if name not in ("metadata.json", "vox/metadata.json", "people.csv") and not name.endswith(
            "_meta.csv"
        ):
            assert made[name] == content, name


def test_another_seed_gives_other_people(script, small_set, tmp_path):
    options = [*SMALL, "--debug", "--num_people", "1", "--seed", "1"]
    assert cli.run(script.main, ["--output_dir", str(tmp_path), *options]) == 0
    name = "vox/id0000/voices/0001.wav"
    assert (tmp_path / name).read_bytes() != (small_set / name).read_bytes()


def test_second_run_makes_only_what_is_missing(script, small_set, capsys):
    before = {p: p.stat().st_mtime_ns for p in (small_set / "videos").rglob("*.mp4")}
    lost = small_set / "videos" / "id0001" / "0002.mp4"
    content = lost.read_bytes()
    lost.unlink()
    assert cli.run(script.main, ["--output_dir", str(small_set), *SMALL, "--debug"]) == 0
    assert "1 done, 1 skipped" in capsys.readouterr().out
    assert lost.read_bytes() == content
    after = {p: p.stat().st_mtime_ns for p in (small_set / "videos").rglob("*.mp4")}
    assert {p for p in after if after[p] == before[p]} == {p for p in before if "id0000" in p.parts}


def test_only_the_wanted_shape_is_written(script, tmp_path):
    options = [*SMALL, "--debug", "--num_people", "1", "--shape", "vox"]
    assert cli.run(script.main, ["--output_dir", str(tmp_path), *options]) == 0
    assert (tmp_path / "vox" / "metadata.json").is_file()
    assert not (tmp_path / "videos").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clip_s", "0.1"], "--clip_s: '0.1'"),
        (["--fps", "100"], "--fps: '100'"),
        (["--size", "129"], "--size: '129'"),
        (["--num_people", "0"], "--num_people"),
        (["--shape", "hologram"], "--shape"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_bad_option_is_named_in_one_line(script, tmp_path, capsys, options, words):
    assert cli.run(script.main, ["--output_dir", str(tmp_path / "new"), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "new").exists()


def test_all_faults_of_the_options_are_told_at_once(script, tmp_path, capsys):
    options = ["--clip_s", "0.1", "--size", "7"]
    assert cli.run(script.main, ["--output_dir", str(tmp_path / "new"), *options]) == 2
    error = capsys.readouterr().err
    assert "--clip_s" in error
    assert "--size" in error


def test_help_loads_nothing_heavy_and_tells_every_option():
    text = light_help("scripts/demo/make_example_data.py")
    for option in (
        "--num_people",
        "--clips_per_person",
        "--clip_s",
        "--fps",
        "--seed",
        "--shape",
        "--workers",
    ):
        assert option in text


def test_people_are_faces_who_speak(load_script, example_data_dir):
    """The bars of benchmarks/example_data.py on the small set of the test session."""
    measure = load_script("benchmarks/example_data")
    clips = measure.read_clips(example_data_dir, 8)
    figures = measure.speech_figures(clips)
    found, correlation = figures[0], figures[1]
    assert found.value >= 0.95
    assert correlation.value > 0.5
    frames = [frame for clip in clips for frame in clip.frames[::8]]
    assert measure.cascade_figure(frames).value >= 0.95
    assert measure.correlation_of_traits(clips)["face_length"] > 0.7


@pytest.mark.slow
def test_people_are_told_apart_by_a_real_face_embedder(
    load_script, example_data_dir, real_data_dir, monkeypatch
):
    monkeypatch.setenv("FACEVOX_TEST_DATA", str(real_data_dir))
    measure = load_script("benchmarks/example_data")
    auc = measure.embedding_figures(measure.read_clips(example_data_dir, 8), step=6)[0]
    assert auc.value >= 0.9
