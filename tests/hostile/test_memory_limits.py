"""Batches: memory and time of an item are limited, and an item that makes progress may take long."""

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from batch_jobs import Upper, items_of

from facevox import limits
from facevox.batch import BatchConfig, Item, Outcome, run_batch
from facevox.errors import UserError
from facevox.limits import OUT_OF_MEMORY_CODE, MemoryLimit, memory_limit, spare_bytes
from facevox.manifest import read_manifest
from facevox.signs import report_progress

GIGABYTE = 1_000_000_000


class Greedy(Upper):
    """A text that says so takes 1.5 GB, or works on for long."""

    def process(self, item: Item) -> Outcome:
        text = Path(item.path).read_text(encoding="utf-8")
        if "much" in text:
            blocks = []
            for _ in range(15):
                blocks.append(bytearray(GIGABYTE // 10))
                time.sleep(0.02)
            return Outcome(rows=[{"length": len(blocks)}])
        for _ in range(8 if "long" in text else 0):
            time.sleep(0.1)
            report_progress()
        return super().process(item)


class Watched(Greedy):
    """As on a system that does not limit memory."""

    def open(self, output_dir: Path) -> None:
        super().open(output_dir)
        limits._data_bytes = lambda: None


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Runs a job on texts; returns their reasons."""

    def run_job(job: Upper, *texts: str, **options: object) -> dict[str, str]:
        folder = tmp_path / "in"
        folder.mkdir()
        for index, text in enumerate(texts):
            (folder / f"{index}").write_text(text)
        config = BatchConfig(
            output_dir=tmp_path / "out", program="upper", table="upper.csv", columns=("file", "length"),
            item_column="file", settings={}, **{"workers": 1, **options},
        )  # fmt: skip
        run_batch(job, items_of(folder), config)
        return {record["item"]: record["reason"] for record in read_manifest(tmp_path / "out", "upper")}

    return run_job


@pytest.mark.parametrize("workers", [0, 1])
def test_item_that_takes_too_much_memory_fails_alone(
    run: Callable[..., dict[str, str]], workers: int
) -> None:
    reasons = run(Greedy(), "a", "much", "b", workers=workers)
    assert reasons == {"0": "", "1": "needs more memory than a file of its size may take", "2": ""}


def test_watchdog_ends_the_item_elsewhere(run: Callable[..., dict[str, str]]) -> None:
    reasons = run(Watched(), "a", "much", "b")
    assert reasons == {"0": "", "1": "needs more memory than a file of its size may take", "2": ""}


def test_time_limit_counts_from_the_last_progress(run: Callable[..., dict[str, str]]) -> None:
    """0.8 s of work with a limit of 0.5."""
    reasons = run(Greedy(), "long", "hang", "b", item_timeout_s=0.5)
    assert (reasons["0"], reasons["2"]) == ("", "")
    assert reasons["1"].startswith("made no progress for ")


def test_larger_files_may_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_HEAVY", ("zipfile",))
    assert spare_bytes(0) == 4 * GIGABYTE
    monkeypatch.setattr(limits, "_HEAVY", ())  # other tests load torch
    assert spare_bytes(0) == GIGABYTE
    assert spare_bytes(0, 3 * GIGABYTE) == 3 * GIGABYTE
    assert GIGABYTE < spare_bytes(30_000_000) < 1.3 * GIGABYTE
    assert spare_bytes(50 * GIGABYTE) == 2 * GIGABYTE


def test_limit_holds_and_is_lifted() -> None:
    with pytest.raises(UserError, match=r"film\.mp4: needs more memory"), memory_limit("film.mp4"):
        np.empty(6 * GIGABYTE, np.uint8)
    assert np.empty(6 * GIGABYTE, np.uint8).size  # untouched memory


def test_watchdog_calls_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(limits, "_data_bytes", lambda: None)
    monkeypatch.setattr(limits, "_WATCH_S", 0.01)
    limit = MemoryLimit(end=lambda: calls.append(OUT_OF_MEMORY_CODE))
    time.sleep(0.1)
    assert not calls
    limit.set(-1)
    for _ in range(300):
        if calls:
            break
        time.sleep(0.01)
    assert calls == [OUT_OF_MEMORY_CODE]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_unpack_without_a_bound_are_refused(tmp_path: Path, method: int) -> None:
    from emotion.classifier.train_state import load_state
    from emotion.data.aihub.archives import Archive, ArchiveError
    from emotion.live.analysis import read_about
    from lipsync.clips.clip_files import load_clip

    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in ("a.jpg", "about.npy", "source.npy", "emotion.json"):
            archive.writestr(name, bytes(100_000))
    for read in (load_state, read_about, load_clip):
        with pytest.raises(UserError, match="packed by method"):
            read(file)
    with Archive(file) as opened:
        member = opened.members()[0]
        assert "only stored and deflated" in member.obstacle
        with pytest.raises(ArchiveError, match="only stored and deflated"):
            opened.read(member.offset)
