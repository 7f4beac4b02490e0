"""Folders that were filled by a version with another media reader are continued by the same command.

`older_results/` has what the first version really wrote for these videos: manifests and tables.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from bad_media import rewrite_matrix

from facevox import cli
from facevox.errors import UserError
from facevox.media import read_audio
from facevox.shards import merge_manifests

OLDER = Path(__file__).with_name("older_results")
TABLES = {"extract_faces": "faces.csv", "extract_voices": "voices.csv"}
OPTIONS = {"extract_faces": ("--detector_backend", "mediapipe"), "extract_voices": ()}
AGAIN = {
    "extract_faces": {"mirrored.mp4": "mirrored", "narrow.mp4": "pixel aspect"},
    "extract_voices": {"six.mkv": "more than two channels"},
}


def make_videos(source: Path, folder: Path) -> Path:
    """Four videos of a person who speaks: an ordinary one, a mirrored one, narrow pixels, six channels."""
    folder.mkdir()
    shutil.copy(source, folder / "ordinary.mp4")
    shutil.copy(source, folder / "mirrored.mp4")
    rewrite_matrix(folder / "mirrored.mp4", (-1, 0, 0, 1))
    with av.open(str(source)) as video, av.open(str(folder / "narrow.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)][:5]
        stream.height, stream.width = pictures[0].shape[0], pictures[0].shape[1] * 2
        stream.pix_fmt, stream.codec_context.sample_aspect_ratio = "yuv420p", Fraction(1, 2)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.repeat(picture, 2, axis=1), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    sound = np.zeros((16000, 6), np.float32)
    sound[:, 2] = read_audio(source)[:16000]
    with av.open(str(folder / "six.mkv"), "w") as output:
        track = output.add_stream("pcm_s16le", rate=16000, layout="5.1")
        packed = np.ascontiguousarray((sound * 32767).astype(np.int16).reshape(1, -1))
        block = av.AudioFrame.from_ndarray(packed, format="s16", layout="5.1")
        block.sample_rate, block.pts, block.time_base = 16000, 0, Fraction(1, 16000)
        output.mux(track.encode(block))
        output.mux(track.encode(None))
    return folder


@pytest.fixture
def videos(example_videos: Path, tmp_path: Path) -> Path:
    return make_videos(example_videos / "id0001/0001.mp4", tmp_path / "videos")


@pytest.fixture(params=sorted(TABLES))
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def script(load_script: Callable[[str], ModuleType], program: str) -> ModuleType:
    return load_script(f"preprocessing/{program}")


def older_folder(program: str, videos: Path, out: Path) -> Path:
    """What the first version left: its manifest, its table, files of the sizes that it wrote."""
    lines = (OLDER / f"{program}.jsonl").read_text(encoding="utf-8").splitlines()
    (out / "manifests").mkdir(parents=True)
    with (out / "manifests" / f"{program}.jsonl").open("w", encoding="utf-8") as file:
        for line in map(json.loads, lines):
            if "item" in line:
                status = (videos / line["item"]).stat()
                line["fingerprint"] = [status.st_size, status.st_mtime_ns]
                for name, size in line["outputs"]:
                    (out / name).write_bytes(b"\0" * size)
            file.write(json.dumps(line) + "\n")
    shutil.copy(OLDER / TABLES[program], out)
    return out


def run(script: ModuleType, program: str, videos: Path, out: Path, *options: str) -> int:
    arguments = ["--dataset_path", str(videos), "--output_dir", str(out), *OPTIONS[program], *options]
    return cli.run(script.main, [*arguments, "--debug"])


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return {row["video"]: row for row in csv.DictReader(file)}


def test_only_files_that_are_read_otherwise_are_done_again(
    script: ModuleType, program: str, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = older_folder(program, videos, tmp_path / "out"), TABLES[program]
    earlier = rows_of(out / table)
    finished = {video for video, row in earlier.items() if row["status"] == "done"}
    run(script, program, videos, out)
    text = capsys.readouterr().out
    later = rows_of(out / table)
    assert later.keys() == earlier.keys()
    assert {video for video in finished if later[video] != earlier[video]} == AGAIN[program].keys()
    assert all(f"1 {kind}" in text for kind in AGAIN[program].values())
    assert f"{len(AGAIN[program])} done again" in text
    assert f"{len(finished) - len(AGAIN[program])} skipped" in text
    if program == "extract_faces":
        assert later["narrow.mp4"]["frame_width_px"] == later["narrow.mp4"]["frame_height_px"]
        assert later["mirrored.mp4"]["status"] == "done"
    else:
        assert float(later["six.mkv"]["rms_db"]) > float(earlier["six.mkv"]["rms_db"]) + 3
    run(script, program, videos, out)
    text = capsys.readouterr().out
    assert "older" not in text
    assert "again" not in text
    assert rows_of(out / table) == later


def test_result_of_a_file_that_is_damaged_since_is_kept(
    script: ModuleType, program: str, videos: Path, tmp_path: Path
) -> None:
    status = (videos / "mirrored.mp4").stat()
    (videos / "mirrored.mp4").write_bytes(b"\0" * status.st_size)
    os.utime(videos / "mirrored.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))
    out, table = older_folder(program, videos, tmp_path / "out"), TABLES[program]
    earlier = rows_of(out / table)["mirrored.mp4"]
    run(script, program, videos, out)
    assert rows_of(out / table)["mirrored.mp4"] == earlier


def test_table_of_a_stopped_run_has_no_unchecked_rows(
    script: ModuleType,
    program: str,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, table = older_folder(program, videos, tmp_path / "out"), TABLES[program]
    from facevox import batch

    monkeypatch.setattr(batch.StopFlag, "__bool__", lambda self: True)
    run(script, program, videos, out)
    assert rows_of(out / table) == {}
    monkeypatch.undo()
    assert run(script, program, videos, out, "--dry_run") == 0
    assert "were finished by an older facevox" in capsys.readouterr().out
    run(script, program, videos, out)
    assert len(rows_of(out / table)) == 4


def test_parts_of_two_readers_are_not_joined(
    script: ModuleType, program: str, videos: Path, tmp_path: Path
) -> None:
    out = older_folder(program, videos, tmp_path / "out")
    whole = out / "manifests" / f"{program}.jsonl"
    lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    items = [line for line in lines if '"item": ' in line]
    for shard in range(2):
        part = [lines[0], lines[1], *items[shard::2], lines[-1]]
        whole.with_name(f"{program}.shard-{shard:04d}-of-0002.jsonl").write_text("".join(part))
    whole.unlink()
    merge_manifests(out, program)  # both are old: as it was
    run(script, program, videos, out, "--num_shards", "2", "--shard_index", "0")
    with pytest.raises(UserError, match=r"shard-0001-of-0002\.jsonl are of an older facevox"):
        merge_manifests(out, program)
    run(script, program, videos, out, "--num_shards", "2", "--shard_index", "1")
    merged = merge_manifests(out, program)
    assert len(rows_of(merged.table)) == 4
