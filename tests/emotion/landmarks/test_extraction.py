"""Extraction: shards and index, what killed and hung readers leave, resuming, bad archives."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import landmark_jobs
import numpy as np
import pytest
from batch_jobs import limit_only
from call_counts import count_calls
from landmark_jobs import SHARD_PICTURES, FakeJob, points_of, release_file
from long_archives import write_long_archive
from PIL import Image

from emotion.landmarks.extraction import ExtractConfig, Extraction, extract_landmarks_from_zip, run_extraction
from emotion.landmarks.shards import PROGRAM
from facevox import cli
from facevox.batch import BatchOptions
from facevox.errors import ExitCode, UserError
from facevox.manifest import find_manifests, read_manifest
from facevox.shards import merge_manifests
from facevox_demo.example.aihub import write_zip


def read_index(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def landmarks_by_member(folder: Path) -> dict[str, np.ndarray]:
    """What the index says lies where it says."""
    found = {}
    for row in read_index(folder):
        if row["status"] == "done":
            assert row["member"] not in found, "a picture is there twice"
            shard = np.load(folder / row["shard"], allow_pickle=False)
            found[row["member"]] = shard[int(row["row"])]
    return found


def shard_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").iterdir())}


def make_numbered_zip(path: Path, count: int, special: dict[int, str] | None = None) -> dict[str, bytes]:
    """An archive of `count` members named by number; `special` puts a word into some names."""
    contents = {
        f"{number:03d}{(special or {}).get(number, '')}.jpg": f"content {number}".encode()
        for number in range(count)
    }
    write_zip(path, iter(contents.items()), "utf-8")
    return contents


def extract(
    zips: list[Path], folder: Path, workers: int = 0, timeout_s: float = 60.0, **changes: Any
) -> Extraction:
    config = ExtractConfig(
        **{
            "zips": tuple(zips),
            "output_dir": folder,
            "shard_pictures": SHARD_PICTURES,
            **changes,
        }
    )
    return run_extraction(
        config, BatchOptions(workers=workers, debug=not workers, item_timeout_s=timeout_s), FakeJob
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_every_picture_lies_in_its_shard_and_row(tmp_path, workers):
    contents = make_numbered_zip(tmp_path / "중립.zip", 12)
    extraction = extract([tmp_path / "중립.zip"], tmp_path / "out", workers)
    assert extraction.exit_code == ExitCode.DONE
    assert extraction.statuses == {"done": 12}
    rows = read_index(tmp_path / "out")
    assert [row["member"] for row in rows] == list(contents)
    assert [int(row["row"]) for row in rows] == [*range(5), *range(5), 0, 1]
    assert {row["label"] for row in rows} == {"neutral"}
    found = landmarks_by_member(tmp_path / "out")
    assert found.keys() == contents.keys()
    assert all(np.array_equal(found[name], points_of(data)) for name, data in contents.items())


def test_reader_that_dies_costs_its_picture_alone_and_is_recorded(tmp_path):
    contents = make_numbered_zip(tmp_path / "a.zip", 8, {2: " crash", 6: " crash"})
    extraction = extract([tmp_path / "a.zip"], tmp_path / "out", 2)
    assert extraction.exit_code == ExitCode.SOME_FAILED
    assert extraction.statuses == {"done": 6, "failed": 2}
    reasons = {
        row["member"]: row["reason"] for row in read_index(tmp_path / "out") if row["status"] == "failed"
    }
    assert list(reasons) == ["002 crash.jpg", "006 crash.jpg"]
    assert all("the worker process died on it (signal 9)" in reason for reason in reasons.values())
    found = landmarks_by_member(tmp_path / "out")
    assert all(np.array_equal(found[name], points_of(contents[name])) for name in found)


def test_reader_that_hangs_is_given_up_and_recorded(tmp_path, monkeypatch):
    make_numbered_zip(tmp_path / "a.zip", 5, {1: " hang"})
    limit_only(monkeypatch, "001 hang.jpg")
    extraction = extract([tmp_path / "a.zip"], tmp_path / "out", 1, timeout_s=1.0)
    assert extraction.statuses == {"done": 4, "failed": 1}
    (row,) = [row for row in read_index(tmp_path / "out") if row["status"] == "failed"]
    assert row["member"] == "001 hang.jpg"
    assert "made no progress for" in row["reason"]


def test_finished_shards_are_skipped_and_shards_with_lost_pictures_are_done_again(tmp_path):
    make_numbered_zip(tmp_path / "a.zip", 15, {7: " crash"})
    assert extract([tmp_path / "a.zip"], tmp_path / "out", 1).summary.failed == 1
    again = extract([tmp_path / "a.zip"], tmp_path / "out", 1)
    assert (again.summary.skipped, again.summary.failed) == (2, 1)


def start_extraction(archive: Path, out: Path, workers: int, num_shards: int) -> "subprocess.Popen[str]":
    """The extraction in a separate process; returns when that many shards are written."""
    command = [sys.executable, landmark_jobs.__file__, str(archive), str(out), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        deadline_s = time.monotonic() + 120
        while len(list(out.glob("shards/*.npy"))) < num_shards:
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline_s, "it came to no end of a shard"
            time.sleep(0.02)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


def test_killed_run_does_at_most_one_shard_again_and_ends_as_an_uninterrupted_one(tmp_path):
    archive, out = tmp_path / "a.zip", tmp_path / "out"
    make_numbered_zip(archive, 40, {12: " wait"})  # in the third of eight shards
    process = start_extraction(archive, out, 0, 2)
    process.kill()
    process.communicate()
    written = shard_bytes(out)
    recorded = {record["item"] for record in read_manifest(out, PROGRAM)}
    assert len(written) == 2
    assert len(written) - len(recorded) in (0, 1)  # killed between the shard and its record: done again
    release_file(archive).touch()
    again = extract([archive], out)
    assert again.summary.skipped == len(recorded)
    extract([archive], tmp_path / "whole")
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")
    assert read_index(out) == read_index(tmp_path / "whole")
    assert {name: data for name, data in shard_bytes(out).items() if name in written} == written


def test_signal_ends_after_the_shard_and_the_same_command_goes_on(tmp_path):
    archive, out = tmp_path / "a.zip", tmp_path / "out"
    make_numbered_zip(archive, 40, {7: " wait"})  # in the second of eight shards
    process = start_extraction(archive, out, 1, 1)
    try:
        process.send_signal(signal.SIGTERM)
        release_file(archive).touch()
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == ExitCode.STOPPED
    assert "stopped by SIGTERM" in said
    done = len(read_index(out))
    # The second shard had begun, unless the signal came between the two.
    assert done in (SHARD_PICTURES, 2 * SHARD_PICTURES)
    assert extract([archive], out).summary.skipped == done // SHARD_PICTURES
    assert len(landmarks_by_member(out)) == 40


def test_limit_is_spread_over_archives_and_a_later_run_goes_on_without_it(tmp_path):
    for name, count in (("a", 3), ("b", 20), ("c", 20)):
        make_numbered_zip(tmp_path / f"{name}.zip", count)
    zips = [tmp_path / f"{name}.zip" for name in "abc"]
    assert extract(zips, tmp_path / "out", limit=21).statuses == {"done": 21}
    counts = [
        sum(row["archive"].endswith(f"/{name}.zip") for row in read_index(tmp_path / "out")) for name in "abc"
    ]
    assert counts == [3, 9, 9]
    whole = extract(zips, tmp_path / "out")
    assert whole.summary.skipped == 1 + 1 + 1  # all whole shards; those of 4 are shards of 5 now
    assert whole.statuses == {"done": 43}
    with pytest.raises(UserError, match=r"--limit 21: .*has 5 pictures of .*4 would replace them"):
        extract(zips, tmp_path / "out", limit=21)
    assert len(read_index(tmp_path / "out")) == 43


def test_labels_given_later_make_the_shards_anew_and_remove_the_old(tmp_path):
    make_numbered_zip(tmp_path / "a.zip", 6)
    extract([tmp_path / "a.zip"], tmp_path / "out")
    extract([tmp_path / "a.zip"], tmp_path / "out", labels=("happy",))
    assert {row["label"] for row in read_index(tmp_path / "out")} == {"happy"}
    assert len(shard_bytes(tmp_path / "out")) == 2


def test_shards_of_an_array_join_into_the_index_of_one_run(tmp_path, load_script):
    make_numbered_zip(tmp_path / "a.zip", 17)
    config = ExtractConfig(
        zips=(tmp_path / "a.zip",), output_dir=tmp_path / "out", shard_pictures=SHARD_PICTURES
    )
    for index in range(2):
        run_extraction(config, BatchOptions(num_shards=2, shard_index=index), FakeJob)
    merge = load_script("preprocessing/merge_manifests")
    assert cli.run(merge.main, ["--output_dir", str(tmp_path / "out")]) == ExitCode.DONE
    extract([tmp_path / "a.zip"], tmp_path / "whole")
    assert read_index(tmp_path / "out") == read_index(tmp_path / "whole")


def test_second_run_into_the_folder_is_refused(tmp_path):
    from facevox.locks import OutputLock

    make_numbered_zip(tmp_path / "a.zip", 3)
    extract([tmp_path / "a.zip"], tmp_path / "out")
    manifest = find_manifests(tmp_path / "out", PROGRAM)[0]
    with OutputLock(manifest.with_suffix(".lock")), pytest.raises(UserError, match="another run"):
        extract([tmp_path / "a.zip"], tmp_path / "out")


def face_bytes(aihub_dir: Path, count: int = 1) -> list[bytes]:
    files = sorted((aihub_dir / "folders").rglob("*.jpg"))[:count]
    assert len(files) == count
    return [file.read_bytes() for file in files]


def test_bad_members_are_recorded_each_with_its_reason(tmp_path, aihub_dir):
    """Real FaceMesh: a face, and next to it everything that a member can be instead."""
    from facevox.files import encode_image

    (face,) = face_bytes(aihub_dir)
    nobody = encode_image(np.full((200, 300, 3), 90, np.uint8))
    members = {
        '폴더/좋음 "1"\n.jpg': face,
        "-leading dash.jpg": face,
        unicodedata.normalize("NFD", "자모.jpg"): face,
        "text.jpg": b"this is no picture",
        "empty.jpg": b"",
        "half.jpg": face[: len(face) // 2],
        "nobody.jpg": nobody,
        "bad crc.jpg": face + b"crc",
        "secret.jpg": face + b"secret",
        "bomb.jpg": bytes(5_000_000),
        "notes.txt": b"left out",
    }
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            kind = zipfile.ZIP_DEFLATED if name == "bomb.jpg" else zipfile.ZIP_STORED
            archive.writestr(name, data, compress_type=kind)
        infos = {info.filename: info for info in archive.infolist()}
    content = bytearray(path.read_bytes())
    content[content.index(face + b"crc") + 50] ^= 1
    content[infos["secret.jpg"].header_offset + 6] |= 1
    central = content.index(b"PK\1\2", content.rindex(b"PK\1\2", 0, content.rindex(b"secret.jpg")))
    content[central + 8] |= 1
    path.write_bytes(bytes(content))
    config = ExtractConfig(zips=(path,), labels=("happy",), output_dir=tmp_path / "out")
    extraction = run_extraction(config, BatchOptions(debug=True))
    assert extraction.exit_code == ExitCode.SOME_FAILED
    rows = {row["member"]: row for row in read_index(tmp_path / "out")}
    done = [name for name, row in rows.items() if row["status"] == "done"]
    assert done == ['폴더/좋음 "1"\n.jpg', "-leading dash.jpg", "자모.jpg"]
    assert "notes.txt" not in rows
    expected = {
        "text.jpg": "not a picture",
        "empty.jpg": "0 bytes",
        "half.jpg": "broken picture",
        "nobody.jpg": "no face found",
        "bad crc.jpg": "CRC",
        "secret.jpg": "encrypted",
        "bomb.jpg": "times its size",
    }
    assert {name: text in rows[name]["reason"] for name, text in expected.items()} == dict.fromkeys(
        expected, True
    )
    assert rows["nobody.jpg"]["status"] == "no_face"
    # What cannot change is not tried again.
    again = run_extraction(config, BatchOptions(debug=True))
    assert (again.summary.skipped, again.exit_code) == (1, ExitCode.SOME_FAILED)
    # Six of nine pictures, the one with nobody in it left out.
    assert again.statuses == {"done": 3, "failed": 6, "no_face": 1}
    for share, code in ((0.66, ExitCode.SOME_FAILED), (0.67, ExitCode.DONE)):
        assert run_extraction(config, BatchOptions(debug=True, max_failed=share)).exit_code == code


def test_pictures_without_a_face_are_a_failure_only_where_there_is_no_other(tmp_path):
    grey = io.BytesIO()
    Image.fromarray(np.full((90, 120, 3), 120, np.uint8)).save(grey, "JPEG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("nobody.jpg", grey.getvalue())
    config = ExtractConfig(zips=(tmp_path / "a.zip",), output_dir=tmp_path / "out")
    extraction = run_extraction(config, BatchOptions(debug=True))
    assert extraction.exit_code == ExitCode.SOME_FAILED
    (_, text) = extraction.lines(config.output_dir)
    assert "no item gave a result; made with detector FaceMesh" in text
    shard = run_extraction(
        replace(config, output_dir=tmp_path / "parts"), BatchOptions(debug=True, num_shards=2)
    )
    assert shard.exit_code == ExitCode.DONE
    run_extraction(
        replace(config, output_dir=tmp_path / "parts"), BatchOptions(debug=True, num_shards=2, shard_index=1)
    )
    merged = merge_manifests(tmp_path / "parts", PROGRAM)
    assert (merged.counts, merged.is_empty) == ({"no_face": 1}, True)


def test_member_beyond_the_size_limit_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    from emotion.data.aihub import archives

    make_numbered_zip(tmp_path / "a.zip", 2)
    monkeypatch.setattr(
        archives.Archive.__init__, "__defaults__", (archives.ArchiveLimits(max_member_bytes=5),)
    )
    config = ExtractConfig(zips=(tmp_path / "a.zip",), output_dir=tmp_path / "out")
    assert run_extraction(config, BatchOptions(debug=True)).statuses == {"failed": 2}
    assert "at most 5 are read" in read_index(tmp_path / "out")[0]["reason"]


def test_truncated_archive_and_a_text_named_zip_are_recorded_and_the_others_read(tmp_path):
    make_numbered_zip(tmp_path / "a.zip", 3)
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:200])
    (tmp_path / "c.zip").write_text("no archive")
    extraction = extract([tmp_path / f"{name}.zip" for name in "abc"], tmp_path / "out")
    assert extraction.exit_code == ExitCode.SOME_FAILED
    assert extraction.statuses == {"failed": 2, "done": 3}
    failed = [row for row in read_index(tmp_path / "out") if row["status"] == "failed"]
    assert [Path(row["archive"]).name for row in failed] == ["b.zip", "c.zip"]
    assert all("not a readable ZIP" in row["reason"] for row in failed)


def test_failures_of_archives_that_are_not_wanted_any_more_do_not_count(tmp_path):
    make_numbered_zip(tmp_path / "a.zip", 3)
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:200])
    make_numbered_zip(tmp_path / "c.zip", 2, {1: " crash"})
    out = tmp_path / "out"

    def run(*names: str) -> tuple[dict[str, int], ExitCode]:
        extraction = extract([tmp_path / f"{name}.zip" for name in names], out, 1)
        in_index = Counter(row["status"] for row in read_index(out))
        assert extraction.statuses == in_index
        return dict(extraction.statuses), extraction.exit_code

    assert run("a", "b", "c") == ({"done": 4, "failed": 2}, ExitCode.SOME_FAILED)
    assert run("a") == ({"done": 3}, ExitCode.DONE)
    assert run("a", "b") == ({"done": 3, "failed": 1}, ExitCode.SOME_FAILED)


def test_plan_takes_calls_in_step_with_the_members_of_an_archive(tmp_path):
    from emotion.landmarks.plan import plan_shards

    counts = []
    for size in (2000, 16_000):
        path = write_long_archive(tmp_path / f"{size}.zip", size)
        plan, count = count_calls(lambda path=path: plan_shards([path]))
        assert plan.num_pictures == size
        assert len(plan.items) == -(-size // 256)
        counts.append(count)
    assert counts[1] < 8.1 * counts[0]


def test_extract_landmarks_from_zip_gives_all_faces_in_memory(aihub_dir):
    zips = sorted((aihub_dir / "archives").rglob("*원천*기쁨_TRAIN*.zip"))
    table = extract_landmarks_from_zip(zips[0], limit=3)
    assert table.labels == ["happy"] * 3
    landmarks = table.rows.read(range(3))
    assert landmarks.shape == (3, 478, 3)
    assert np.ptp(landmarks[0, :, 0]) > 0.1  # a face, in shares of the picture's width
    assert all(person for person in table.people)


@pytest.fixture
def run_extract(load_script: Callable[[str], ModuleType], tmp_path: Path) -> Callable[..., int]:
    script = load_script("emotion/landmarks/extract")

    def run(*options: object) -> int:
        return cli.run(script.main, [*map(str, options), "--log_dir", str(tmp_path / "logs")])

    return run


def test_program_reads_the_archives_of_a_folder_with_their_annotations(
    aihub_dir, run_extract, tmp_path, capsys
):
    out = tmp_path / "out"
    assert run_extract("--zips", aihub_dir / "archives", "--output_dir", out, "--debug", "--limit", 20) == 0
    rows = read_index(out)
    assert len(rows) == 20
    assert {row["status"] for row in rows} == {"done"}
    assert "20 done" in capsys.readouterr().out
    assert list((tmp_path / "logs").glob("app_*.log"))
    # All people bear AIHub's hash; labels are the annotators', who may differ from the archive's name.
    assert all(len(row["person"]) == 32 for row in rows)
    assert {row["label"] for row in rows} >= {"happy", "sad"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--zips", "nowhere.zip"], "no such file or folder: nowhere.zip"),
        (["--zips", "{tmp}/empty"], "nothing below"),
        (["--zips", "{tmp}/text.zip"], "no pictures in 1 archive;"),
        (["--zips", "{tmp}/a.zip", "--labels", "x", "y"], "2 labels for 1 of --zips"),
        (["--zips", "{tmp}/d1", "{tmp}/d2"], "are both called same/a.zip"),
        (["--zips", "{tmp}/a.zip", "--output_dir", "{tmp}/text.zip"], "is a file"),
    ],
)
def test_bad_use_ends_in_one_line_and_exit_code_2(run_extract, tmp_path, capsys, options, text):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("x")
    make_numbered_zip(tmp_path / "a.zip", 1)
    for name in ("d1", "d2"):
        (tmp_path / name / "same").mkdir(parents=True)
        make_numbered_zip(tmp_path / name / "same" / "a.zip", 1)
    given = [str(option).format(tmp=tmp_path) for option in options]
    if "--output_dir" not in given:
        given += ["--output_dir", str(tmp_path / "out")]
    assert run_extract(*given, "--debug") == ExitCode.USAGE
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert text in errors[0]


def test_unwritable_folder_ends_in_one_line(run_extract, tmp_path, capsys):
    if os.geteuid() == 0:
        target = "/proc/no/such"
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
        target = str(tmp_path / "locked" / "out")
    make_numbered_zip(tmp_path / "a.zip", 1)
    assert run_extract("--zips", tmp_path / "a.zip", "--output_dir", target, "--debug") == ExitCode.USAGE
    assert capsys.readouterr().err.count("error:") == 1
