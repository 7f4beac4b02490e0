"""The batch runner: every preprocessing program of the project runs its items through `run_batch`.

All of them behave alike: finished items are skipped and unfinished ones done again, one bad item does not
end the run, a signal stops it after the current item, shards split the work, a lock keeps a second run out,
and there is progress, a manifest (see `facevox.manifest`), a table and a summary.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, NamedTuple

from facevox.batch_options import BatchOptions
from facevox.earlier_results import Leftovers, divide, file_size, fingerprint_of, planned_outputs
from facevox.errors import ExitCode, UserError
from facevox.files import scratch_folder, set_run_token
from facevox.limits import SPARE_BYTES
from facevox.locks import OutputLock
from facevox.logs import log_file
from facevox.manifest import (
    FOLDER,
    NOBODY,
    Header,
    ItemIndex,
    Manifest,
    ManifestWriter,
    Record,
    empty_text,
    find_manifests,
    is_too_much,
    load_manifest,
    make_header,
    manifest_file,
    shard_of,
    started_record,
    status_text,
    write_table,
)
from facevox.progress import Progress, duration_text
from facevox.shards import refuse_other_splits
from facevox.signals import StopFlag
from facevox.workers import (
    KEPT,
    FileItem,
    Item,
    ItemT,
    Outcome,
    Result,
    WorkerPool,
    raise_if_disk_full,
    run_in_process,
)

__all__ = ["BatchConfig", "BatchOptions", "FileItem", "Item", "Outcome", "Summary", "Task", "run_batch"]

logger = logging.getLogger(__name__)
SAMPLE_ITEMS = 5  # measured by a dry run, for at most:
SAMPLE_LIMIT_S = 20.0
SHOWN_FAILURES = 5
# Version of what `facevox.media` reads of files; `facevox.media.changes` names the kinds that older ones read
# otherwise. Results of these are made again, others are kept.
MEDIA_READER = 2


class Task(Generic[ItemT]):
    """The work on an item of its kind; picklable, made in the parent and opened in each worker.

    A program derives from it and writes `process`, and `open` where there is something to load.
    """

    output_dir: Path
    spare_bytes = SPARE_BYTES  # memory of an item; HEAVY_SPARE_BYTES where it loads TensorFlow or torch
    detector = ""  # the detector of people and its confidence, for the message that it found nobody at all

    def check(self) -> None:
        """Checks in the parent, before any worker starts, that the work can be done.

        Raises:
            UserError: Weights or packages are missing.
        """

    def open(self, output_dir: Path) -> None:
        """Loads what the work needs; called once in the process that does it."""
        self.output_dir = output_dir

    def process(self, item: ItemT) -> Outcome:
        """Processes one item. Whatever it raises is recorded as the reason why this item failed."""
        raise NotImplementedError(f"{type(self).__name__}.process")

    def changes(self, item: ItemT) -> list[str]:
        """The kinds of an item's files that media readers before this one read otherwise, for people.

        For a program that reads media; see `facevox.media.changed_kinds`.
        """
        raise NotImplementedError(f"{type(self).__name__}.changes")

    def process_chunk(self, items: Sequence[ItemT]) -> Iterator[Outcome]:
        """Yields an outcome for each item, in order; override it for work that is faster in batches."""
        for item in items:
            changes: list[str] = []
            try:
                if item.is_unchecked and not (changes := self.changes(item)):
                    yield Outcome(status=KEPT)
                    continue
                outcome = self.process(item)
            except Exception as error:
                raise_if_disk_full(error)
                outcome = Outcome.without_result(error)
            outcome.changes = changes
            yield outcome

    def close(self) -> None:
        """Releases what `open` acquired."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig(BatchOptions):
    """Settings of a batch run.

    Attributes:
        program: Name in the manifest and in messages ("extract_faces").
        output_dir: Folder of everything that is written.
        table: Name of the CSV in it ("faces.csv").
        columns: Its columns, without `status` and `reason`.
        item_column: The column that names the item ("video").
        settings: All values that change the output, as JSON; a run with others is refused, so that one
            folder never holds a mixture.
        implied: Values of those settings that manifests of older versions do not name.
        was_default: Former defaults of those settings that are None now where the user leaves them to the
            program. A folder that was filled with them is continued.
        reads_media: Items are files that `facevox.media` reads: those of an older reader are checked.
        chunk_size: Items handed to a worker at a time.
        unit: Name of an item in messages.
        join: The command that joins shards, where merge_manifests.py is not enough.
    """

    program: str
    output_dir: Path
    table: str
    columns: Sequence[str]
    item_column: str
    settings: Mapping[str, object]
    implied: Mapping[str, object] = field(default_factory=dict)
    was_default: Mapping[str, object] = field(default_factory=dict)
    reads_media: bool = False
    chunk_size: int = 1
    unit: str = "item"
    join: str = ""

    def contradictions(self) -> list[str]:
        """Those of the options, and an output folder that is a file."""
        faults = super().contradictions()
        if self.output_dir.exists() and not self.output_dir.is_dir():
            faults.append(f"{self.output_dir}: is a file; an output folder is expected")
        return faults

    @property
    def header(self) -> Header:
        """The first line of this run's manifest."""
        return make_header(
            self.program,
            self.settings,
            self.table,
            self.columns,
            self.item_column,
            self.overwrite,
            implied=self.implied,
            was_default=self.was_default,
            media_reader=self.media_reader,
        )

    @property
    def media_reader(self) -> int:
        """Version of the media reader; 0 for a program that reads no media."""
        return MEDIA_READER if self.reads_media else 0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Result of a run.

    Attributes:
        num_items: Items of this run or shard, including those that were finished before.
        done, failed: Items of this run.
        skipped: Items that were finished before.
        num_again: Items that were finished before and done again because the media reader reads files of
            their kind otherwise now.
        again: Their numbers by kind; an item can be of several.
        seconds: Duration of the whole run.
        nobody: Items of this run in which nobody is, by status.
        num_nobody: Their number, including those of earlier runs.
        is_empty: No item has a result, from this run or an earlier one. Never set for a shard: the join
            checks it.
        max_failed: See `BatchOptions`.
        stopped: Name of the signal that ended the run early, or "".
        table: The table; None for a shard and a dry run.
        failures: The first few (item, reason).
        detector: See `Task`.
    """

    num_items: int
    done: int
    skipped: int
    failed: int
    seconds: float
    nobody: Mapping[str, int] = field(default_factory=dict)
    num_again: int = 0
    again: Mapping[str, int] = field(default_factory=dict)
    num_nobody: int = 0
    is_empty: bool = False
    max_failed: float = 0.0
    stopped: str = ""
    table: Path | None = None
    failures: tuple[tuple[str, str], ...] = ()
    detector: str = ""

    @property
    def num_tried(self) -> int:
        """Number of items that this run has processed."""
        return self.done + self.failed + sum(self.nobody.values())

    @property
    def counts(self) -> dict[str, int]:
        """Number of items of this run by status."""
        return {"done": self.done, **self.nobody, "failed": self.failed}

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the program."""
        if self.stopped:
            return ExitCode.STOPPED
        is_bad = is_too_much(self.failed, self.num_items - self.num_nobody, self.max_failed)
        return ExitCode.SOME_FAILED if is_bad or self.is_empty else ExitCode.DONE


def run_batch(task: Task[ItemT], items: Iterable[ItemT], config: BatchConfig) -> Summary:
    """Processes the items that are not done yet and returns the summary, which it also logs.

    Log messages are appended to log.txt next to the manifest meanwhile.

    Args:
        task: The work on an item.
        items: All items of the whole work, in the order of the table, whatever the shard.
        config: Settings of the run.

    Raises:
        UserError: A second run in the folder, other settings than before, a full disk, missing weights.
    """
    everything = list(items)
    mine = everything[config.shard_index :: config.num_shards]
    task.check()
    if config.dry_run:
        return _dry_run(task, everything, mine, config)
    folder = config.output_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    own_file = manifest_file(config.output_dir, config.program, config.shard_index, config.num_shards)
    # A separate log for each part of an array: lines that two machines append to one file would be lost.
    log = own_file.with_name(f"log{own_file.stem.removeprefix(config.program)}.txt")
    with StopFlag() as stop, OutputLock(own_file.with_suffix(".lock")) as lock, log_file(log):
        dead_locks = refuse_other_splits(config.output_dir, config.program, config.num_shards)
        for taken_over in (*dead_locks, lock):
            taken_over.clear_dead_run(config.program, config.output_dir)
        set_run_token(lock.token)
        try:
            return _run_locked(task, everything, mine, config, own_file, stop, lock)
        finally:
            set_run_token("")


def _run_locked(
    task: Task[ItemT],
    everything: list[ItemT],
    mine: list[ItemT],
    config: BatchConfig,
    own_file: Path,
    stop: StopFlag,
    lock: OutputLock,
) -> Summary:
    start_s = time.monotonic()
    resumed, valid, outdated = _load_earlier(config, own_file)
    planned = planned_outputs(everything)
    index = ItemIndex(valid)
    finished, todo, num_unchecked = divide(mine, index, config.output_dir, planned, config.media_reader)
    earlier = Counter(finished.values())
    again: Counter[str] = Counter()
    num_again = 0
    leftovers = Leftovers(todo, ItemIndex([*outdated, *valid]), config.output_dir, planned)
    if config.overwrite and resumed is None:
        _start_from_scratch(config)
    logger.debug(_plan_text(config, mine, finished, todo))
    if num_unchecked:
        logger.info(f"{config.program}: {_unchecked_text(config, num_unchecked)}")
    fingerprints: dict[str, object] = {}
    failures: list[tuple[str, str]] = []
    counts = Counter({"done": 0, "failed": 0})
    written: list[str] = []
    with ManifestWriter(own_file, config.header, resumed.end if resumed else 0) as writer:
        writer.append(started_record([item.name for item in everything], config.media_reader))
        part = f" [{config.shard_index}/{config.num_shards}]" if config.num_shards > 1 else ""
        with Progress(len(todo), config.program + part, config.unit) as progress:
            for item, result, seconds in _results(task, todo, config, stop, lock, fingerprints):
                outcome = _outcome_on_disk(result, config.output_dir)
                fingerprint = fingerprints.pop(item.name)
                if outcome.status == KEPT:
                    (record,) = index.records([item.name])
                    writer.append(record | {"at": round(time.time(), 3)})  # now of this media reader
                    earlier[record["status"]] += 1
                else:
                    # Before the record: killed in between, the item is only done again.
                    leftovers.remove(item, outcome)
                    writer.append(_record(item, outcome, seconds, config.output_dir, fingerprint))
                    again.update(outcome.changes)
                    num_again += bool(outcome.changes)
                counts[outcome.status] += 1
                written += outcome.outputs
                if outcome.status == "failed" and len(failures) < SHOWN_FAILURES:
                    failures.append((item.name, outcome.reason))
                progress.update(1, f"{counts['failed']} failed" if counts["failed"] else "")
        _check_lock(lock, config)
        table = _write_table(config, everything) if config.num_shards == 1 else None
        _refuse_lost(written, config)
        # A signal during the last item has stopped nothing.
        stopped = stop.signal_name if counts.total() < len(todo) else ""
        nobody = {status: counts[status] for status in NOBODY if counts[status]}
        summary = Summary(
            num_items=len(mine),
            done=counts["done"],
            skipped=len(finished) + counts[KEPT],
            again=again,
            num_again=num_again,
            failed=counts["failed"],
            seconds=time.monotonic() - start_s,
            nobody=nobody,
            num_nobody=sum(nobody.values()) + sum(earlier[status] for status in NOBODY),
            is_empty=bool(mine)
            and config.num_shards == 1
            and not stopped
            and counts["done"] + earlier["done"] == 0,
            max_failed=config.max_failed,
            stopped=stopped,
            table=table,
            failures=tuple(failures),
            detector=task.detector,
        )
        writer.append(_run_record(summary))
    _log_summary(summary, config)
    return summary


def _start_from_scratch(config: BatchConfig) -> None:
    """Removes what would contradict the new results: manifests of another number of shards, the table."""
    for path in find_manifests(config.output_dir, config.program):
        if shard_of(path)[1] != config.num_shards:
            path.unlink()
    # Its rows are of results that go one by one from here on, maybe of other settings than the new ones.
    (config.output_dir / config.table).unlink(missing_ok=True)


class _Earlier(NamedTuple):
    """Manifests of earlier runs."""

    resumed: Manifest | None  # that of this run, to be continued
    valid: list[Manifest]  # all whose records count
    outdated: list[Manifest]  # those whose records do not


def _load_earlier(config: BatchConfig, own_file: Path) -> _Earlier:
    """The manifests in the output folder.

    Raises:
        UserError: The folder was filled with other settings.
    """
    resumed: Manifest | None = None
    valid: list[Manifest] = []
    outdated: list[Manifest] = []
    for path in find_manifests(config.output_dir, config.program):
        manifest = load_manifest(path)
        if manifest is None:
            continue
        changes = manifest.differences(config.header)
        # An interrupted --overwrite is continued by the same command, not started again: else a job that
        # is preempted every hour would never end.
        is_continued = manifest.header.get("overwrite") and not manifest.is_complete and not changes
        if config.overwrite and not is_continued:
            outdated.append(manifest)
            continue
        if changes:
            raise UserError(
                f"{config.output_dir}: holds {config.program} results made with other settings "
                f"({'; '.join(changes)}); use another output folder, or --overwrite to do all again"
            )
        valid.append(manifest)
        if path == own_file:
            resumed = manifest
    return _Earlier(resumed, valid, outdated)


def _unchecked_text(config: BatchConfig, count: int) -> str:
    return (
        f"{count} {config.unit}s were finished by an older facevox; those that it read otherwise "
        "(see docs/media.md) are done again, the others are kept"
    )


def _results(
    task: Task[ItemT],
    todo: list[ItemT],
    config: BatchConfig,
    stop: StopFlag,
    lock: OutputLock,
    fingerprints: dict[str, object],
) -> Iterator[Result[ItemT]]:
    """Processes the items; the fingerprint of each item's inputs is taken before they are read."""

    def should_stop() -> bool:
        return bool(stop) or lock.lost

    def must_stop() -> bool:
        return stop.is_overdue

    def make_chunks() -> Iterator[list[ItemT]]:
        for start in range(0, len(todo), size):
            chunk = todo[start : start + size]
            fingerprints.update({item.name: fingerprint_of(item) for item in chunk})
            yield chunk

    size = config.chunk_size
    chunks = make_chunks()
    if not todo:
        return
    yield from _run_chunks(
        task, config.output_dir, chunks, -(-len(todo) // size), config, should_stop, must_stop, lock.token
    )


def _run_chunks(
    task: Task[ItemT],
    output_dir: Path,
    chunks: Iterable[list[ItemT]],
    num_chunks: int,
    options: BatchOptions,
    should_stop: Callable[[], bool],
    must_stop: Callable[[], bool] = lambda: False,
    token: str = "",
) -> Iterator[Result[ItemT]]:
    """Processes the chunks in worker processes, or in this one for `--debug`."""
    if options.debug:
        yield from run_in_process(task, output_dir, itertools.takewhile(lambda _: not should_stop(), chunks))
        return
    # At least one: a file that crashes a decoder, or never ends, must not end the batch.
    num_workers = min(max(options.workers, 1), num_chunks)
    with WorkerPool(task, output_dir, num_workers, token, options.item_timeout_s) as pool:
        yield from pool.run(chunks, should_stop, must_stop)


def _outcome_on_disk(outcome: Outcome, output_dir: Path) -> Outcome:
    """The outcome; a failure where a file of it is gone already."""
    for name in outcome.outputs:
        if file_size(output_dir / name) < 0:
            return Outcome.without_result(f"{name}: was written, and is gone from the output folder")
    return outcome


def _check_lock(lock: OutputLock, config: BatchConfig) -> None:
    """Raises UserError where the folder is another run's now."""
    if lock.lost:
        raise UserError(
            f"{config.output_dir}: another run took its lock, or it was removed; what is done is kept"
        )


def _refuse_lost(names: Sequence[str], config: BatchConfig) -> None:
    """Raises UserError where files that were written are gone: the summary is of what is on the disk."""
    lost = [name for name in names if file_size(config.output_dir / name) < 0]
    if lost:
        raise UserError(
            f"{config.output_dir}: {len(lost)} of {len(names)} files that this run has written were removed "
            f"meanwhile ({lost[0]} …); run the same command again to make them again"
        )


def _record(item: Item, outcome: Outcome, seconds: float, output_dir: Path, fingerprint: object) -> Record:
    return {
        "item": item.name,
        "status": outcome.status,
        "reason": outcome.reason,
        "outputs": [(name, file_size(output_dir / name)) for name in outcome.outputs],
        "rows": outcome.rows,
        "seconds": round(seconds, 4),
        "fingerprint": fingerprint,
        "at": round(time.time(), 3),
    }


def _run_record(summary: Summary) -> dict[str, object]:
    return {
        "run": {
            "num_items": summary.num_items,
            "done": summary.done,
            "skipped": summary.skipped,
            "failed": summary.failed,
            **summary.nobody,
            "seconds": round(summary.seconds, 3),
            "stopped": summary.stopped,
            "complete": not summary.stopped,
        }
    }


def _write_table(config: BatchConfig, everything: Sequence[Item]) -> Path:
    """Writes the table of all records. Inputs that have gone since stay in it as long as their files do."""
    loaded = (load_manifest(path) for path in find_manifests(config.output_dir, config.program))
    usable = [m for m in loaded if m is not None and not m.differences(config.header)]
    current = {item.name for item in everything}
    table = config.output_dir / config.table
    index = ItemIndex(usable)

    def is_listed(name: str, status: str) -> bool:
        # Those of an older reader that the next run still has to check would mix two kinds of values.
        is_checked = index.media_reader(name) >= config.media_reader
        return is_checked if name in current else status == "done"

    write_table(table, config.header, index, is_listed, spreadsheet_safe=config.spreadsheet_safe)
    return table


def _log_summary(summary: Summary, config: BatchConfig) -> None:
    rate = summary.num_tried / max(summary.seconds, 1e-9)
    done, *others = status_text(summary.counts).split(", ")
    num_before = summary.num_nobody - sum(summary.nobody.values())
    before = f", {num_before} of them without a result" if num_before else ""
    logger.info(
        f"{config.program}: {done}, {summary.skipped} skipped (finished before{before}), "
        f"{', '.join(others)} in {duration_text(summary.seconds)} ({rate:.1f} per second)"
    )
    if summary.again:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.again.items())
        logger.info(f"  {summary.num_again} done again, because such files are read otherwise now: {kinds}")
    for name, reason in summary.failures:
        logger.info(f"  failed: {name!r}: {reason}")
    if summary.failed > len(summary.failures):
        logger.info(f"  … and {summary.failed - len(summary.failures)} more failed")
    if summary.table is not None:
        logger.info(f"  table: {summary.table}")
    elif config.num_shards > 1:
        merge = f"python scripts/preprocessing/merge_manifests.py --output_dir {config.output_dir}"
        logger.info(
            f"  shard {config.shard_index} of {config.num_shards}; when all are done: {config.join or merge}"
        )
    if summary.is_empty:
        logger.info(empty_text(config.program, config.settings, summary.detector))
    if summary.stopped:
        rest = summary.num_items - summary.skipped - summary.num_tried
        logger.info(f"  stopped by {summary.stopped}, {rest} left; run the same command again to continue")


def _plan_text(config: BatchConfig, mine: Sized, finished: Sized, todo: Sized) -> str:
    return f"{config.program}: {len(mine)} {config.unit}s, {len(finished)} finished before, {len(todo)} to do"


def _dry_run(task: Task[ItemT], everything: list[ItemT], mine: list[ItemT], config: BatchConfig) -> Summary:
    """Logs counts, and an estimate from processing a few items in a temporary folder."""
    own_file = manifest_file(config.output_dir, config.program, config.shard_index, config.num_shards)
    valid = _load_earlier(config, own_file).valid
    finished, todo, num_unchecked = divide(
        mine, ItemIndex(valid), config.output_dir, planned_outputs(everything), config.media_reader
    )
    logger.info(_plan_text(config, mine, finished, todo))
    if num_unchecked:
        logger.info(f"  {_unchecked_text(config, num_unchecked)}")
    step = max(len(todo) // SAMPLE_ITEMS, 1)
    sample = [replace(item, is_unchecked=False) for item in todo[::step][:SAMPLE_ITEMS]]
    if sample:
        seconds, num_bytes, num_measured = 0.0, 0, 0
        # With the flag a signal ends the measurement only, and the folder is removed.
        with StopFlag() as stop, scratch_folder() as folder:
            start_s = time.monotonic()
            one_by_one = replace(config, workers=1)
            chunks = ([item] for item in sample)
            results = _run_chunks(task, folder, chunks, len(sample), one_by_one, lambda: bool(stop))
            for _, outcome, item_s in results:
                seconds += item_s
                num_measured += 1
                num_bytes += sum(max(file_size(folder / name), 0) for name in outcome.outputs)
                if stop or time.monotonic() - start_s > SAMPLE_LIMIT_S:
                    break
        total_s = seconds / num_measured * len(todo) / max(config.workers, 1)
        size_mb = num_bytes / num_measured * len(todo) / 1e6
        how = "at most" if num_unchecked else "about"
        logger.info(
            f"  {how} {duration_text(total_s)} with {max(config.workers, 1)} workers and "
            f"{size_mb:.1f} MB on disk (measured on {num_measured} {config.unit}s)"
        )
    return Summary(num_items=len(mine), done=0, skipped=len(finished), failed=0, seconds=0.0)
