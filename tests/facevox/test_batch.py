"""The batch runner: resumption, shards, bad items, dying workers, locks, signals."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import batch_jobs
import pytest
from batch_jobs import config_of, items_of

from facevox import cli, signals
from facevox.batch import FileItem, Item, run_batch
from facevox.batch_options import BatchOptions
from facevox.errors import UserError
from facevox.locks import OutputLock
from facevox.logs import on_console
from facevox.manifest import (
    ManifestWriter,
    find_manifests,
    load_manifest,
    read_manifest,
)
from facevox.shards import merge_manifests

PROGRAM = Path(batch_jobs.__file__)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.txt").write_text(f"text {number}", encoding="utf-8")
    return folder


def table_of(output_dir: Path) -> list[dict[str, str]]:
    with (output_dir / "upper.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def times_done(output_dir: Path) -> Counter[str]:
    return Counter((output_dir / "log").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("workers", [0, 2])
def test_each_item_is_done_once_and_listed_in_order(source: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out, workers=workers))
    assert (summary.done, summary.failed, summary.exit_code) == (12, 0, 0)
    rows = table_of(out)
    assert [row["file"] for row in rows] == [f"{number:02d}.txt" for number in range(12)]
    assert {row["status"] for row in rows} == {"done"}
    assert (out / "03.txt.out").read_text(encoding="utf-8") == "TEXT 3"
    assert set(times_done(out).values()) == {1}
    assert not list(out.rglob("*.lock"))


def test_second_run_skips_what_is_finished(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    before = (out / "upper.csv").read_bytes()
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert (summary.done, summary.skipped) == (0, 12)
    assert (out / "upper.csv").read_bytes() == before


def test_log_grows_with_each_run_and_not_with_the_failures(source: Path, tmp_path: Path) -> None:
    for number in range(40):
        (source / f"x{number}.txt").write_text("bad", encoding="utf-8")
    out = tmp_path / "out"
    for index in range(2):
        with on_console():
            run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
        lines = (out / "manifests" / "log.txt").read_text(encoding="utf-8").splitlines()
        texts = [line.split(" - ", 3)[3] for line in lines]
        assert len(texts) == (index + 1) * 10
    assert [text for text in texts if "to do" in text] == [
        "upper: 52 items, 0 finished before, 52 to do",
        "upper: 52 items, 12 finished before, 40 to do",
    ]
    assert texts[2].startswith("upper: 12 done, 0 skipped (finished before), 40 failed")
    assert texts[8:10] == ["  … and 35 more failed", f"  table: {out / 'upper.csv'}"]


def test_each_part_of_an_array_has_its_own_log(source: Path, tmp_path: Path) -> None:
    for index in range(2):
        config = config_of(tmp_path / "out", num_shards=2, shard_index=index)
        run_batch(batch_jobs.Upper(), items_of(source), config)
    names = [path.name for path in sorted((tmp_path / "out" / "manifests").glob("*.txt"))]
    assert names == ["log.shard-0000-of-0002.txt", "log.shard-0001-of-0002.txt"]


def test_refused_run_says_why_in_the_log(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    with pytest.raises(UserError):
        run_batch(batch_jobs.Upper(), items_of(source), config_of(out, settings={"case": "lower"}))
    last = (out / "manifests" / "log.txt").read_text(encoding="utf-8").splitlines()[-1]
    assert " - ERROR - ended: " in last
    assert "results made with other settings" in last


@pytest.mark.parametrize("harm", ["input changed", "output gone", "output cut"])
def test_item_is_done_again_when_its_input_or_output_changed(source: Path, tmp_path: Path, harm: str) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    if harm == "input changed":
        (source / "05.txt").write_text("another text", encoding="utf-8")
    elif harm == "output gone":
        (out / "05.txt.out").unlink()
    else:
        (out / "05.txt.out").write_text("", encoding="utf-8")
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert (summary.done, summary.skipped) == (1, 11)
    assert times_done(out)["05.txt"] == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_item_is_recorded_with_its_reason_and_ends_nothing(
    source: Path, tmp_path: Path, workers: int, logged: pytest.LogCaptureFixture
) -> None:
    (source / "04.txt").write_text("bad", encoding="utf-8")
    out = tmp_path / "out"
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out, workers=workers))
    assert (summary.done, summary.failed, summary.exit_code) == (11, 1, 1)
    assert table_of(out)[4] == {
        "file": "04.txt",
        "length": "",
        "status": "failed",
        "reason": "04.txt: holds the word bad",
    }
    assert "04.txt: holds the word bad" in logged.text


def test_failed_item_is_tried_again_by_the_next_run(source: Path, tmp_path: Path) -> None:
    (source / "04.txt").write_text("bad", encoding="utf-8")
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    (source / "04.txt").write_text("good", encoding="utf-8")
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert (summary.done, summary.skipped, summary.failed) == (1, 11, 0)
    assert table_of(out)[4]["status"] == "done"


@pytest.mark.parametrize(("workers", "chunk_size"), [(0, 1), (2, 1), (2, 4)])
def test_crash_of_a_worker_fails_the_item_it_was_at_and_no_other(
    source: Path, tmp_path: Path, workers: int, chunk_size: int
) -> None:
    (source / "04.txt").write_text("crash", encoding="utf-8")
    out = tmp_path / "out"
    config = config_of(out, workers=workers, debug=False, chunk_size=chunk_size)
    summary = run_batch(batch_jobs.Upper(), items_of(source), config)
    assert (summary.done, summary.failed) == (11, 1)
    assert "signal 9" in table_of(out)[4]["reason"]


@pytest.mark.parametrize("workers", [0, 2])
def test_item_that_hangs_is_given_up(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (source / "04.txt").write_text("hang", encoding="utf-8")
    batch_jobs.limit_only(monkeypatch, "04.txt")
    out = tmp_path / "out"
    config = config_of(out, workers=workers, debug=False, item_timeout_s=1.0)
    summary = run_batch(batch_jobs.Upper(), items_of(source), config)
    assert (summary.done, summary.failed) == (11, 1)
    assert "given up" in table_of(out)[4]["reason"]


@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk_ends_the_batch_with_one_line_and_is_not_blamed_on_the_item(
    source: Path, tmp_path: Path, workers: int
) -> None:
    (source / "04.txt").write_text("full", encoding="utf-8")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"No space left.*run the same command again"):
        run_batch(batch_jobs.Upper(), items_of(source), config_of(out, workers=workers))
    (source / "04.txt").write_text("fits", encoding="utf-8")
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert set(times_done(out).values()) == {1}


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_weights_in_a_worker_reach_the_user_as_one_line(
    source: Path, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(UserError, match=r"weights.bin: no such file"):
        run_batch(batch_jobs.Refusing(), items_of(source), config_of(tmp_path / "out", workers=workers))


def test_workers_that_die_while_starting_end_the_run(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keep dying while they start"):
        run_batch(batch_jobs.DyingAtStart(), items_of(source), config_of(tmp_path / "out", workers=1))


def test_other_settings_in_the_same_folder_are_refused_and_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    other = config_of(out, settings={"case": "lower"})
    with pytest.raises(UserError, match=r"case was upper, is lower.*--overwrite"):
        run_batch(batch_jobs.Upper(), items_of(source), other)
    again = config_of(out, settings={"case": "lower"}, overwrite=True)
    assert run_batch(batch_jobs.Upper(), items_of(source), again).done == 12


def test_interrupted_overwrite_is_continued_and_not_begun_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    config = config_of(out, overwrite=True)
    run_batch(batch_jobs.Upper(), items_of(source)[:5], config)
    # Cut the end-of-run line off: that is how the file looks after kill -9.
    path = find_manifests(out, "upper")[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    summary = run_batch(batch_jobs.Upper(), items_of(source), config)
    assert (summary.done, summary.skipped) == (7, 5)


def test_half_a_last_line_is_cut_off(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source)[:6], config_of(out))
    path = find_manifests(out, "upper")[0]
    path.write_bytes(path.read_bytes() + b'{"item":"06.txt","status":"do')
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert (summary.done, summary.skipped) == (6, 6)
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line)


def test_four_shards_joined_equal_one_run(source: Path, tmp_path: Path) -> None:
    (source / "07.txt").write_text("bad", encoding="utf-8")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(whole))
    for index in range(4):
        config = config_of(parts, num_shards=4, shard_index=index)
        run_batch(batch_jobs.Upper(), items_of(source), config)
    merge_manifests(parts, "upper")
    assert (parts / "upper.csv").read_bytes() == (whole / "upper.csv").read_bytes()
    keys = ("item", "status", "reason", "outputs", "rows", "fingerprint")
    one = [[record[key] for key in keys] for record in read_manifest(whole, "upper")]
    four = [[record[key] for key in keys] for record in read_manifest(parts, "upper")]
    assert one == four


def test_merge_says_which_shard_is_missing_or_unfinished(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in (0, 2):
        run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=3, shard_index=index))
    with pytest.raises(UserError, match="still missing: 1"):
        merge_manifests(out, "upper")
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=3, shard_index=1))
    path = find_manifests(out, "upper")[1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="not finished"):
        merge_manifests(out, "upper")


def test_another_number_of_shards_goes_on_with_what_is_done(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=3, shard_index=0))
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert (summary.done, summary.skipped) == (8, 4)
    assert len(table_of(out)) == 12


def test_shard_index_past_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="numbered 0 to 3"):
        config_of(tmp_path, num_shards=4, shard_index=4)


def test_shard_options_come_from_a_slurm_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUM_SHARDS", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "5")
    parser = cli.make_parser("x")
    cli.add_options(parser, BatchOptions)
    args = parser.parse_args([])
    assert (args.num_shards, args.shard_index) == (4, 2)


def test_dry_run_counts_estimates_and_writes_nothing(
    source: Path, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out, dry_run=True))
    shown = logged.text
    assert summary.exit_code == 0
    assert "12 items, 0 finished before, 12 to do" in shown
    assert "MB on disk" in shown
    assert not out.exists()


def test_no_items_make_an_empty_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_batch(batch_jobs.Upper(), [], config_of(out)).exit_code == 0
    assert (out / "upper.csv").read_text(encoding="utf-8") == "file,length,status,reason\n"


def test_names_with_newline_quotes_korean_and_bytes_survive_the_table(source: Path, tmp_path: Path) -> None:
    names = ["-x.txt", 'a "b" c.txt', "줄\n바꿈.txt", os.fsdecode(b"latin-\xe9.txt")]
    for name in names:
        (source / name).write_text("some text", encoding="utf-8")
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out, workers=1))
    with (out / "upper.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        listed = {row["file"] for row in csv.DictReader(file) if row["status"] == "done"}
    assert set(names) <= listed


def test_later_manifest_format_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    path = find_manifests(out, "upper")[0]
    path.write_bytes(path.read_bytes().replace(b'"facevox_manifest":1', b'"facevox_manifest":2', 1))
    with pytest.raises(UserError, match="manifest format 2"):
        load_manifest(path)


def make_wait(source: Path, first: int) -> None:
    """Items from this number on wait for `let_go`."""
    for number in range(first, 12):
        (source / f"{number:02d}.txt").write_text(f"wait {number}", encoding="utf-8")


def let_go(out: Path) -> None:
    (out / "go").touch()


def start(source: Path, out: Path, workers: int, num_done: int) -> subprocess.Popen[str]:
    """A batch in a process of its own; returns when so many items are done. The others wait."""
    make_wait(source, num_done)
    command = [sys.executable, str(PROGRAM), str(source), str(out), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (out / "log").exists() and times_done(out).total() >= num_done)
    except BaseException:
        process.kill()
        raise
    return process


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_signal_ends_the_run_after_the_current_item_with_75(
    source: Path, tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    out = tmp_path / "out"
    process = start(source, out, workers, 2)
    process.send_signal(number)
    let_go(out)
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert f"stopped by {number.name}" in shown
    done = times_done(out)
    assert 2 <= len(done) < 12
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert summary.skipped == len(done)
    assert set(times_done(out).values()) == {1}
    assert len(times_done(out)) == 12


def test_item_that_takes_too_long_after_a_signal_is_left_for_the_next_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    make_wait(source, 3)
    monkeypatch.setitem(signals.PATIENCE_S, "SIGTERM", 0.3)

    def stop() -> None:
        wait_until(lambda: (out / "log").exists() and times_done(out).total() >= 3)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    start_s = time.monotonic()
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out, workers=2))
    thread.join()
    assert time.monotonic() - start_s < 60  # and not for ever: nobody lets them go
    assert (summary.stopped, summary.done, summary.failed) == ("SIGTERM", 3, 0)
    assert not list(out.glob(".*.tmp"))
    let_go(out)
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out, workers=2)).skipped == 3
    assert set(times_done(out).values()) == {1}


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_run_is_taken_over_and_every_item_ends_whole(
    source: Path, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out"
    process = start(source, out, workers, 3)
    process.kill()
    process.wait()
    let_go(out)
    again = subprocess.run(
        [sys.executable, str(PROGRAM), str(source), str(out), str(workers)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0, again.stderr
    assert f"taking over from process {process.pid}" in again.stdout
    assert "skipped" in again.stdout
    assert [row["status"] for row in table_of(out)] == ["done"] * 12
    for number in range(12):
        word = "TEXT" if number < 3 else "WAIT"
        assert (out / f"{number:02d}.txt.out").read_text(encoding="utf-8") == f"{word} {number}"
    # An orphaned worker may still finish the one item it was at.
    wait_until(lambda: not [path for path in out.rglob(".*") if path.name.endswith(".tmp")])


def test_second_run_at_once_is_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(source, out, 0, 1)
    try:
        second = subprocess.run(
            [sys.executable, str(PROGRAM), str(source), str(out), "0"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert second.returncode == 2
        assert len(second.stderr.strip().splitlines()) == 1
        assert f"another run is writing there (process {process.pid}" in second.stderr
        config = config_of(out, num_shards=2, shard_index=0)
        with pytest.raises(UserError, match="another run is writing there"):
            run_batch(batch_jobs.Upper(), items_of(source), config)
    finally:
        process.kill()
        process.communicate()


def test_items_without_a_file_are_remembered_too(tmp_path: Path) -> None:
    class Counting(batch_jobs.Upper):
        def process(self, item: Item) -> batch_jobs.Outcome:
            return batch_jobs.Outcome(rows=[{"length": int(item.name)}])

    items = [Item(f"{n}", "") for n in range(3)]
    assert run_batch(Counting(), items, config_of(tmp_path / "out")).done == 3
    assert run_batch(Counting(), items, config_of(tmp_path / "out")).skipped == 3


def planned(folder: Path, **outputs: str) -> list[FileItem]:
    return [FileItem(name, str(folder / name), output) for name, output in sorted(outputs.items())]


class ToPlan(batch_jobs.Upper):
    """Writes each input to the name that was planned for it, and as many further files as it has words."""

    def process(self, item: FileItem) -> batch_jobs.Outcome:
        text = Path(item.path).read_text(encoding="utf-8")
        if "bad" in text:
            raise UserError("holds the word bad")
        names = [item.output, *(f"{item.output}.{n}" for n in range(len(text.split()) - 1))]
        for name in names:
            (self.output_dir / name).write_text(text, encoding="utf-8")
        return batch_jobs.Outcome(rows=[{"length": len(text)}], outputs=names)


def test_manifest_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    """As it was written when the planned file was a key of the item's payload."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (out / "manifests").mkdir(parents=True)
    lines = [
        '{"facevox_manifest":1,"program":"upper","settings":{"case":"upper"},"table":"upper.csv",'
        '"columns":["file","length"],"item_column":"file","overwrite":false}',
        '{"run":{"started":true,"num_total":3,"inputs":"f323c23c6589bc9b"}}',
    ]
    for name in ("a", "b", "c"):
        (source / name).write_text("1", encoding="utf-8")
        os.utime(source / name, ns=(1_700_000_000_000_000_000,) * 2)
        (out / f"{name}.jpg").write_text("1", encoding="utf-8")
        lines.append(
            f'{{"item":"{name}","status":"done","reason":"","outputs":[["{name}.jpg",1]],'
            '"rows":[{"length":1}],"seconds":0.0001,"fingerprint":[1,1700000000000000000],"at":1796001289.498}'
        )
    (out / "manifests" / "upper.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = run_batch(ToPlan(), planned(source, a="a.jpg", b="b.jpg", c="other.jpg"), config_of(out))
    assert (summary.skipped, summary.done) == (2, 1)
    assert not (out / "c.jpg").exists()
    assert (out / "other.jpg").exists()


def test_name_that_a_new_input_takes_over_is_written_again_for_both(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "v.mp4").write_text("first", encoding="utf-8")
    run_batch(ToPlan(), planned(source, **{"v.mp4": "v.jpg"}), config_of(out))
    (source / "v.avi").write_text("second", encoding="utf-8")
    items = planned(source, **{"v.avi": "v.jpg", "v.mp4": "v_mp4.jpg"})
    assert run_batch(ToPlan(), items, config_of(out)).done == 2
    assert (out / "v.jpg").read_text(encoding="utf-8") == "second"
    assert (out / "v_mp4.jpg").read_text(encoding="utf-8") == "first"


@pytest.mark.parametrize("how", ["input changed", "overwrite"])
def test_files_of_an_item_that_fails_or_shrinks_on_redoing_are_removed(tmp_path: Path, how: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a").write_text("one two three", encoding="utf-8")
    (source / "b").write_text("one two", encoding="utf-8")
    items = planned(source, a="a.jpg", b="b.jpg")
    run_batch(ToPlan(), items, config_of(out))
    assert {p.name for p in out.glob("*.jpg*")} == {"a.jpg", "a.jpg.0", "a.jpg.1", "b.jpg", "b.jpg.0"}
    (source / "a").write_text("one two", encoding="utf-8")
    (source / "b").write_text("bad", encoding="utf-8")
    run_batch(ToPlan(), items, config_of(out, overwrite=how == "overwrite"))
    assert {p.name for p in out.glob("*.jpg*")} == {"a.jpg", "a.jpg.0"}


def test_newest_record_counts_when_shards_and_whole_runs_alternate(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in range(2):
        run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=2, shard_index=index))
    (source / "04.txt").write_text("bad", encoding="utf-8")
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out)).failed == 1
    assert table_of(out)[4]["status"] == "failed"
    (source / "04.txt").write_text("good", encoding="utf-8")
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out)).done == 1
    merge_manifests(out, "upper")
    assert table_of(out)[4]["status"] == "done"
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out)).skipped == 12


def test_whole_overwrite_does_away_with_shards_of_other_settings(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in range(2):
        run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=2, shard_index=index))
    other = {"settings": {"case": "lower"}}
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out, overwrite=True, **other)).done == 12
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out, **other)).skipped == 12


def test_merge_refuses_shards_that_saw_other_inputs(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=2, shard_index=0))
    (source / "000.txt").write_text("came later", encoding="utf-8")
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=2, shard_index=1))
    with pytest.raises(UserError, match="had other inputs"):
        merge_manifests(out, "upper")
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=2, shard_index=0))
    merge_manifests(out, "upper")
    assert len(table_of(out)) == 13


def test_merge_refuses_while_a_run_is_at_work(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in range(2):
        run_batch(batch_jobs.Upper(), items_of(source), config_of(out, num_shards=2, shard_index=index))
    for name in ("upper.lock", "upper.shard-0001-of-0002.lock"):
        with OutputLock(out / "manifests" / name), pytest.raises(UserError, match="another run is writing"):
            merge_manifests(out, "upper")


def test_row_of_an_input_that_is_gone_stays_while_its_file_does(source: Path, tmp_path: Path) -> None:
    (source / "04.txt").write_text("bad", encoding="utf-8")
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    (source / "04.txt").unlink()
    (source / "05.txt").unlink()
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    listed = {row["file"]: row["status"] for row in table_of(out)}
    assert "04.txt" not in listed
    assert listed["05.txt"] == "done"


def test_carriage_return_in_a_name_does_not_break_the_table(source: Path, tmp_path: Path) -> None:
    (source / "a\rb.txt").write_text("text", encoding="utf-8")
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert {row["status"] for row in table_of(out)} == {"done"}
    assert "a\rb.txt" in {row["file"] for row in table_of(out)}


def test_two_writers_of_a_manifest_lose_no_line(tmp_path: Path) -> None:
    header = config_of(tmp_path).header
    whole = {"status": "done", "reason": "", "outputs": [], "rows": [], "fingerprint": 0}
    with ManifestWriter(tmp_path / "m.jsonl", header, 0) as first:
        first.append({"item": "a", **whole})
        kept = load_manifest(tmp_path / "m.jsonl")
        assert kept is not None
        with ManifestWriter(tmp_path / "m.jsonl", header, kept.end) as second:
            second.append({"item": "b", **whole})
            first.append({"item": "c", **whole})
            second.append({"item": "d", **whole})
    manifest = load_manifest(tmp_path / "m.jsonl")
    assert manifest is not None
    assert set(manifest.offsets) == {"a", "b", "c", "d"}


def test_input_that_changes_while_it_is_worked_on_is_done_again(source: Path, tmp_path: Path) -> None:
    class Changing(batch_jobs.Upper):
        def process(self, item: Item) -> batch_jobs.Outcome:
            outcome = super().process(item)
            if item.name == "03.txt":
                Path(item.path).write_text("grown meanwhile", encoding="utf-8")
            return outcome

    out = tmp_path / "out"
    run_batch(Changing(), items_of(source), config_of(out))
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out)).done == 1
    assert (out / "03.txt.out").read_text(encoding="utf-8") == "GROWN MEANWHILE"


def test_dead_run_of_another_split_is_cleared_away_and_said(
    source: Path, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    (out / "manifests").mkdir(parents=True)
    with OutputLock(out / "manifests" / "upper.shard-0000-of-0002.lock") as lock:
        content = lock.path.read_text(encoding="utf-8")
        token = lock.token
    owner = {**json.loads(content), "pid": 2**22 + 1}
    (out / "manifests" / "upper.shard-0000-of-0002.lock").write_text(json.dumps(owner), encoding="utf-8")
    (out / f".{token}-7-0.tmp").write_text("half", encoding="utf-8")
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert "taking over from process" in logged.text
    assert not list(out.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("number", "delay_s"),
    [
        (signal.SIGTERM, 0.15),
        (signal.SIGINT, 0.0),
        (signal.SIGINT, 0.15),
        pytest.param(signal.SIGINT, 0.4, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 0.3, marks=pytest.mark.slow),
    ],
)
def test_signal_to_the_whole_group_while_workers_start_gives_75(
    source: Path, tmp_path: Path, number: signal.Signals, delay_s: float
) -> None:
    out = tmp_path / "out"
    make_wait(source, 0)
    command = [sys.executable, str(PROGRAM), str(source), str(out), "4"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (out / "manifests").exists() or not list((out / "manifests").glob("*.jsonl")):
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(delay_s)
    os.killpg(process.pid, number)
    let_go(out)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert b"Traceback" not in errors  # of a worker


def items_with_further(folder: Path) -> list[Item]:
    """Items of one text each; that of "b" is made from a second file too, where it is there."""
    further = sorted(str(path) for path in (folder / "more").glob("b.*"))
    return [
        Item(name, str(folder / name), further_paths=tuple(further) if name == "b" else ())
        for name in ("a", "b")
    ]


@pytest.mark.parametrize("harm", ["added", "replaced", "other name", "taken away", "touched by nobody"])
def test_item_is_done_again_when_a_further_input_changed(tmp_path: Path, harm: str) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    more = folder / "more"
    more.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / name).write_text(name, encoding="utf-8")
    if harm != "added":
        (more / "b.wav").write_text("one", encoding="utf-8")
    run_batch(batch_jobs.Upper(), items_with_further(folder), config_of(out))
    if harm in ("added", "replaced"):
        (more / "b.wav").write_text("another", encoding="utf-8")
    elif harm == "other name":
        (more / "b.wav").rename(more / "b.flac")  # same size and time
    elif harm == "taken away":
        (more / "b.wav").unlink()
    summary = run_batch(batch_jobs.Upper(), items_with_further(folder), config_of(out))
    is_changed = harm != "touched by nobody"
    assert (summary.done, summary.skipped) == ((1, 1) if is_changed else (0, 2))
    assert times_done(out) == {"a": 1, "b": 1 + is_changed}
    assert run_batch(batch_jobs.Upper(), items_with_further(folder), config_of(out)).skipped == 2


def test_fingerprint_of_a_single_input_stays_as_manifests_have_it(source: Path, tmp_path: Path) -> None:
    """Size and time, and nothing else: folders that were filled before further inputs counted stay done."""
    out = tmp_path / "out"
    run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    status = (source / "03.txt").stat()
    record = next(record for record in read_manifest(out, "upper") if record["item"] == "03.txt")
    assert record["fingerprint"] == [status.st_size, status.st_mtime_ns]


def test_nobody_there_is_finished_and_no_failure(source: Path, tmp_path: Path, logged) -> None:
    (source / "03.txt").write_text("nobody", encoding="utf-8")
    out = tmp_path / "out"
    summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert (summary.done, summary.nobody, summary.failed, summary.exit_code) == (11, {"no_face": 1}, 0, 0)
    assert "upper: 11 done, 0 skipped (finished before), 1 no_face, 0 failed in" in logged.text
    row = table_of(out)[3]
    assert (row["file"], row["status"], row["reason"]) == ("03.txt", "no_face", "nobody there")
    again = run_batch(batch_jobs.Upper(), items_of(source), config_of(out))
    assert (again.skipped, again.num_tried, again.num_nobody, again.exit_code) == (12, 0, 1, 0)
    assert "12 skipped (finished before, 1 of them without a result), 0 failed" in logged.text
    assert [row["status"] for row in table_of(out)].count("no_face") == 1
    (source / "03.txt").write_text("somebody", encoding="utf-8")
    assert run_batch(batch_jobs.Upper(), items_of(source), config_of(out)).done == 1


def test_nobody_anywhere_is_told_with_the_settings(source: Path, tmp_path: Path, logged) -> None:
    for path in source.iterdir():
        path.write_text("nobody", encoding="utf-8")
    for _ in range(2):
        summary = run_batch(batch_jobs.Upper(), items_of(source), config_of(tmp_path / "out"))
        assert (summary.exit_code, summary.is_empty) == (1, True)
        assert "upper: no item gave a result; made with case upper" in logged.text
    parts = tmp_path / "parts"
    for index in range(2):  # a shard may well hold nobody; the join tells
        config = config_of(parts, num_shards=2, shard_index=index)
        assert run_batch(batch_jobs.Upper(), items_of(source), config).exit_code == 0
    assert merge_manifests(parts, "upper").is_empty


@pytest.mark.parametrize(("max_failed", "code"), [(0.0, 1), (0.2, 1), (0.3, 0), (1.0, 0)])
def test_a_share_of_the_items_may_fail(source: Path, tmp_path: Path, max_failed: float, code: int) -> None:
    for number, text in enumerate(["bad", "bad", "bad", "nobody", "nobody"]):
        (source / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    for _ in range(2):  # also when all that is left to do are the failed ones
        config = config_of(tmp_path / "out", max_failed=max_failed)
        summary = run_batch(batch_jobs.Upper(), items_of(source), config)
        assert (summary.failed, summary.exit_code) == (3, code)  # of ten, without nobody
    for index in range(2):
        config = config_of(tmp_path / "parts", num_shards=2, shard_index=index)
        run_batch(batch_jobs.Upper(), items_of(source), config)
    assert merge_manifests(tmp_path / "parts", "upper").has_failed(max_failed) == bool(code)


def test_a_run_of_failures_alone_is_told_whatever_may_fail(source: Path, tmp_path: Path) -> None:
    for path in source.iterdir():
        path.write_text("bad", encoding="utf-8")
    config = config_of(tmp_path / "out", max_failed=1.0)
    assert run_batch(batch_jobs.Upper(), items_of(source), config).exit_code == 1
    with pytest.raises(UserError, match="--max_failed: 2"):
        config_of(tmp_path / "out", max_failed=2)
