"""The program deduplicate_faces: exit codes, one-line errors, kill -9, two runs at once."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from face_models import make_onnx, pictures_below, read_groups, write_faces
from program_help import light_help

from facevox import cli

SCRIPT = "scripts/preprocessing/deduplicate_faces.py"


@pytest.fixture
def script(load_script):
    return load_script("preprocessing/deduplicate_faces")


@pytest.fixture
def faces(tmp_path):
    return write_faces(tmp_path / "faces", {f"vid_{n}.jpg": n % 5 for n in range(20)})


USED = ("--workers", "0")  # as a user has it, where the text on stderr counts


def options_for(folder, *more, threshold="0.2"):
    model = folder / "model.onnx"
    if not model.exists():
        make_onnx(model, num_values=40, batch="faces")
    out = ["--dedupe_dir", str(folder / "deduped"), "--representative_dir", str(folder / "best")]
    where = () if "--workers" in more else ("--debug",)  # in this process, unless workers are asked for
    return [
        *("--faces_dir", str(folder / "faces"), *out, "--model_name", str(model)),
        *("--threshold", threshold, *where, *more),
    ]


def one_error_line(capsys):
    text = capsys.readouterr().err.strip()
    assert "error: " in text
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_it_groups_says_what_it_did_and_returns_0(script, faces, tmp_path, capsys):
    assert cli.run(script.main, options_for(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "20 faces of 5 people, 0 failed" in said
    assert "threshold 0.2" in said
    assert "insightface preprocessing" in said
    assert str(tmp_path / "deduped" / "groups.csv") in said
    assert len(pictures_below(tmp_path / "best")) == 5


def test_left_out_faces_give_exit_code_1_and_are_named(script, faces, tmp_path, capsys):
    (faces / "broken.jpg").write_bytes(b"")
    assert cli.run(script.main, options_for(tmp_path)) == 1
    assert "'broken.jpg'" in capsys.readouterr().out


@pytest.mark.numeric
def test_worker_processes_give_the_same_groups_as_none(script, faces, tmp_path, capsys):
    assert cli.run(script.main, options_for(tmp_path, "--batch_size", "3")) == 0
    alone = read_groups(tmp_path / "deduped")
    many = options_for(tmp_path, "--workers", "2", "--batch_size", "3", "--overwrite")
    assert cli.run(script.main, many) == 0
    assert read_groups(tmp_path / "deduped") == alone


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (["--faces_dir", "/no/such/folder"], "no such folder"),
        (["--threshold", "7"], "--threshold: '7' is not"),
        (["--model_name", "FaceNet"], "Facenet, Facenet512"),
        (["--model_name", "missing.onnx"], "missing.onnx"),
        (["--shard_index", "4", "--num_shards", "4"], "--shard_index 4"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(script, faces, tmp_path, capsys, change, part):
    assert cli.run(script.main, [*options_for(tmp_path, *USED), *change]) == 2
    assert part in one_error_line(capsys)
    assert not (tmp_path / "best").exists()


def test_an_empty_folder_and_one_without_pictures_are_told_apart(script, tmp_path, capsys):
    (tmp_path / "faces").mkdir()
    assert cli.run(script.main, options_for(tmp_path, *USED)) == 2
    assert "it is empty" in one_error_line(capsys)
    (tmp_path / "faces" / "notes.txt").write_text("")
    assert cli.run(script.main, options_for(tmp_path, *USED)) == 2
    assert "1 other files" in one_error_line(capsys)


def test_missing_weights_are_asked_for_once_and_told_before_the_work(
    script, faces, tmp_path, monkeypatch, capsys
):
    asked = []
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lc_pytorch.faces.weights.answers", lambda url: bool(asked.append(url)))
    assert cli.run(script.main, [*options_for(tmp_path, *USED), "--model_name", "ArcFace"]) == 2
    assert len(asked) == 1
    assert not (tmp_path / "deduped").exists()
    text = one_error_line(capsys)
    assert "arcface_weights.pth" in text
    assert "make weights" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_may_not_be_written_is_named(script, faces, tmp_path, capsys):
    (tmp_path / "deduped").mkdir(mode=0o500)
    assert cli.run(script.main, options_for(tmp_path, *USED)) == 2
    assert "deduped" in one_error_line(capsys)


def test_an_output_folder_that_cannot_be_made_is_named(script, faces, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    below = ["--dedupe_dir", str(tmp_path / "file" / "below")]
    assert cli.run(script.main, [*options_for(tmp_path, *USED), *below]) == 2
    assert "file" in one_error_line(capsys)


def start_program(repository, arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_help_shows_an_example_and_loads_nothing_heavy():
    text = light_help(SCRIPT, "-h")
    for word in ("--representative_dir", "--no-enforce_detection", "example:", "(default: Facenet)"):
        assert word in text


@pytest.mark.parametrize("wait_for", [5, 60, 110])
def test_kill_9_at_any_moment_and_a_second_run_end_like_an_undisturbed_one(
    repository, script, tmp_path, wait_for
):
    people = {f"vid_{n}.jpg": n % 9 for n in range(80)}
    write_faces(tmp_path / "faces", people)
    arguments = options_for(tmp_path, "--batch_size", "2")
    program = start_program(repository, arguments)
    deadline_s = time.monotonic() + 120
    # Progress as anybody can see it from outside: lines of the manifest, then files.
    while time.monotonic() < deadline_s and program.poll() is None:
        manifests = list((tmp_path / "deduped").rglob("embed_faces.jsonl"))
        num_done = sum(file.read_bytes().count(b"\n") for file in manifests)
        num_done += len(pictures_below(tmp_path / "deduped")) if num_done >= 80 else 0
        if num_done >= wait_for:
            break
        time.sleep(0.002)
    program.send_signal(signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL or wait_for > 80  # the last one may have come to its end
    assert cli.run(script.main, arguments) == 0
    reference = tmp_path / "reference"
    (reference / "faces").parent.mkdir()
    (reference / "faces").symlink_to(tmp_path / "faces")
    assert cli.run(script.main, options_for(reference)) == 0
    for name in ("deduped", "best"):
        assert pictures_below(tmp_path / name) == pictures_below(reference / name)
        assert not list((tmp_path / name).rglob("*.tmp"))
    assert read_groups(tmp_path / "deduped") == read_groups(reference / "deduped")
    assert len(pictures_below(tmp_path / "best")) == 9


def test_a_second_run_at_once_is_refused(script, faces, tmp_path, capsys):
    from facevox.locks import OutputLock

    folder = tmp_path / "deduped" / "manifests"
    folder.mkdir(parents=True)
    with OutputLock(folder / "deduplicate_faces.lock"):
        assert cli.run(script.main, options_for(tmp_path, *USED)) == 2
    assert "another run is writing there" in one_error_line(capsys)


def test_a_stop_signal_while_it_copies_gives_75_and_the_next_run_ends_the_work(
    script, faces, tmp_path, monkeypatch, capsys
):
    from lc_pytorch.faces import group_files

    copied = []

    def copy_and_signal(placement):
        real_copy(placement)
        copied.append(placement)
        if len(copied) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    real_copy = group_files._copy
    with monkeypatch.context() as patch:
        patch.setattr(group_files, "_copy", copy_and_signal)
        assert cli.run(script.main, options_for(tmp_path)) == 75
    assert len(copied) == 4
    assert "run the same command again" in capsys.readouterr().out
    assert cli.run(script.main, options_for(tmp_path)) == 0
    assert len(pictures_below(tmp_path / "deduped")) == 20


@pytest.mark.real_data
def test_real_pictures_of_twenty_people(script, real_data_dir, tmp_path, capsys):
    from lc_pytorch.faces.grouping import bcubed_f1

    (tmp_path / "faces").symlink_to(real_data_dir / "faces")
    model = str(real_data_dir / "weights" / "MobileFaceNet.onnx")
    arguments = [*options_for(tmp_path, threshold="0.69"), "--model_name", model]
    assert cli.run(script.main, arguments) == 0
    rows = {name: row for name, row in read_groups(tmp_path / "deduped").items() if "/group/" not in name}
    people = [name.split("/")[1] for name in rows]
    assert len(rows) == 137
    assert bcubed_f1([row["group"] for row in rows.values()], people) >= 0.97


def test_example_people_are_grouped_better_than_by_chance(script, example_videos, tmp_path, capsys):
    """The twin of the test on real pictures: FaceMesh finds and aligns example people, no real weights."""
    from facevox.files import write_image
    from facevox.media import read_first_frame
    from lc_pytorch.faces.grouping import bcubed_f1

    for video in sorted(example_videos.rglob("*.mp4")):
        name = video.relative_to(example_videos).with_suffix(".jpg")
        write_image(tmp_path / "faces" / name, read_first_frame(video).image)
    best = chance = 0.0
    for threshold in ("0.01", "0.03", "0.06", "0.1"):
        assert cli.run(script.main, options_for(tmp_path, threshold=threshold)) == 0
        rows = read_groups(tmp_path / "deduped")
        assert len(rows) == 16
        people = np.array([name.split("/")[0] for name in rows])
        groups = [row["group"] for row in rows.values()]
        best = max(best, bcubed_f1(groups, people))
        chance = max(chance, bcubed_f1(groups, np.random.default_rng(0).permutation(people)))
    assert best > chance + 0.1
