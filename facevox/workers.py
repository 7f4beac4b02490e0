"""Worker processes for batches: spawned, and replaced when they die or hang.

With concurrent.futures one crash of a decoder would break the whole pool and lose every item in flight, and
a hanging item could not be ended.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from facevox.errors import NobodyError, UserError, disk_fault, one_line
from facevox.files import remove_temporaries, set_run_token
from facevox.limits import OUT_OF_MEMORY, OUT_OF_MEMORY_CODE, MemoryLimit, largest_bytes, spare_bytes
from facevox.native_silence import native_silence
from facevox.signals import STOP_SIGNALS, ignore_stop_signals
from facevox.signs import set_listener

START_TIMEOUT_S = 300.0  # imports from a cold network disk take minutes
CLOSE_PATIENCE_S = 10.0
MAX_START_FAILURES = 3  # workers that die one after the other before any item is done
# A second chunk waits in each worker's pipe while items take less than this: it hides the round trip
# without delaying a stop.
PREFETCH_BELOW_S = 0.2
LARGE_BLOCK_BYTES = 31 << 20  # below 32 MB, the highest threshold that glibc adopts by itself
KEPT = "kept"  # outcome of an unchecked item that does not have to be done again


@dataclass(frozen=True)
class Item:
    """A unit of work; a task that needs more information derives its own kind of item.

    Attributes:
        name: Unique; the key in the manifest.
        path: Path of its file, or "".
        output: The file that was planned for it, relative to the output folder; None where none was. An item
            is done again when this is not among its files, and a file is removed when it is no item's.
        further_paths: Other files that it is made from (the sound of a video): an item is done again when one
            of them is added, removed or replaced.
        is_unchecked: It was finished with an older media reader, and is done again only if that read one of
            its files otherwise.
    """

    name: str
    path: str
    output: str | None = None
    further_paths: tuple[str, ...] = ()
    is_unchecked: bool = False


@dataclass(frozen=True)
class FileItem(Item):
    """An item for which a file is always planned."""

    output: str


ItemT = TypeVar("ItemT", bound=Item)
_ItemT = TypeVar("_ItemT", bound=Item, contravariant=True)


@dataclass
class Outcome:
    """Result of an item: rows for the table, files written (relative to the output folder)."""

    rows: Sequence[Mapping[str, object]] = ()
    outputs: list[str] = field(default_factory=list)
    status: str = "done"  # or "failed", or that of a `NobodyError`, or KEPT
    reason: str = ""
    changes: list[str] = field(default_factory=list)  # why an unchecked item was done again

    @classmethod
    def without_result(cls, reason: str | BaseException) -> "Outcome":
        """Of an item that failed, or in which nobody is (`NobodyError`), with the reason in one line."""
        status = reason.status if isinstance(reason, NobodyError) else "failed"
        if isinstance(reason, MemoryError):
            return cls(status=status, reason=OUT_OF_MEMORY)
        return cls(status=status, reason=reason if isinstance(reason, str) else one_line(reason))


class Job(Protocol[_ItemT]):
    """The work of a worker; see `facevox.batch.Task`."""

    @property
    def spare_bytes(self) -> int: ...
    def open(self, output_dir: Path) -> None: ...
    def process_chunk(self, items: Sequence[_ItemT]) -> Iterator[Outcome]: ...
    def close(self) -> None: ...


Result = tuple[ItemT, Outcome, float]  # seconds of work


def raise_if_disk_full(error: BaseException) -> None:
    """Raises UserError for errors after which every other item would fail too; a new run continues then."""
    if fault := disk_fault(error):
        raise UserError(fault) from None


def run_in_process(
    job: Job[ItemT], output_dir: Path, chunks: Iterable[list[ItemT]]
) -> Iterator[Result[ItemT]]:
    """Processes the chunks in this process, one after the other."""
    with native_silence():
        job.open(output_dir)
        try:
            for chunk in chunks:
                yield from _timed(job, chunk)
        finally:
            job.close()


def _timed(job: Job[ItemT], chunk: Sequence[ItemT]) -> Iterator[Result[ItemT]]:
    start_s = time.monotonic()
    outcomes = job.process_chunk(chunk)
    for item in chunk:
        outcome = next(outcomes)
        now_s = time.monotonic()
        yield item, outcome, now_s - start_s
        start_s = now_s


def reuse_large_blocks() -> None:
    """Lets this process keep the memory of large arrays, pictures above all, for the next ones.

    glibc requests each large block from the system, page by page, until a block of this size has been freed
    once; then it keeps and reuses them (mallopt(3), M_MMAP_THRESHOLD). Saves up to a quarter of the processor
    time per picture.
    """
    bytes(LARGE_BLOCK_BYTES)


def _worker_main(pipe: Connection, job: Job[ItemT], output_dir: Path, token: str) -> None:
    """Runs in a worker: opens the job, then receives chunks and sends outcomes until the pipe closes."""
    ignore_stop_signals()
    reuse_large_blocks()
    set_run_token(token)
    with native_silence(), contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            job.open(output_dir)
        except Exception as error:
            pipe.send(("refused", one_line(error, 2000), isinstance(error, UserError)))
            return
        lock = threading.Lock()  # signs of life may come from a thread of the job

        def send(*message: object) -> None:
            with lock:
                pipe.send(message)

        set_listener(lambda: send("alive"))
        limit = MemoryLimit()
        send("ready")
        while (chunk := pipe.recv()) is not None:
            paths = [path for item in chunk for path in (item.path, *item.further_paths) if path]
            limit.set(spare_bytes(largest_bytes(paths), job.spare_bytes))
            try:
                for _, outcome, seconds in _timed(job, chunk):
                    send("outcome", outcome, seconds)
            except UserError as error:  # the disk is full: the batch ends
                send("refused", one_line(error, 2000), True)
                return
        job.close()


class _Worker(Generic[ItemT]):
    """The parent's side of a worker process."""

    def __init__(self, context: SpawnContext, job: Job[ItemT], output_dir: Path, token: str) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_worker_main, args=(theirs, job, output_dir, token), daemon=True, name="facevox worker"
        )
        self.process.start()
        theirs.close()
        self.is_ready = False
        self.pending: deque[ItemT] = deque()  # sent, no outcome yet, in order
        self.chunk_sizes: deque[int] = deque()  # items of each chunk that have no outcome yet
        self.last_sign_s = time.monotonic()

    def send(self, chunk: list[ItemT]) -> None:
        if not self.pending:
            self.last_sign_s = time.monotonic()
        self.pending.extend(chunk)
        self.chunk_sizes.append(len(chunk))
        with contextlib.suppress(OSError):  # a dead worker is noticed by its sentinel
            self.pipe.send(chunk)

    def finished_one(self) -> ItemT:
        self.last_sign_s = time.monotonic()
        self.chunk_sizes[0] -= 1
        if self.chunk_sizes[0] == 0:
            self.chunk_sizes.popleft()
        return self.pending.popleft()

    def limit_s(self, item_timeout_s: float) -> float:
        if not self.is_ready:
            return START_TIMEOUT_S
        return item_timeout_s * max(self.chunk_sizes[0], 1) if self.pending else float("inf")

    def ask_to_end(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(None)

    def end(self, patience_s: float = 0.0) -> None:
        self.process.join(patience_s)
        self.process.kill()
        self.process.join()
        self.pipe.close()


class WorkerPool(Generic[ItemT]):
    """Runs a job in worker processes; a context manager that ends them.

    Args:
        job: Picklable; opened in each worker.
        output_dir: Given to `job.open`.
        num_workers: At least 1.
        token: Names the workers' temporary files (see `facevox.files`).
        item_timeout_s: An item that makes no progress for longer is failed and its worker replaced.
    """

    def __init__(
        self, job: Job[ItemT], output_dir: Path, num_workers: int, token: str, item_timeout_s: float
    ) -> None:
        # Spawn: a fork would share ZIP handles and MediaPipe graphs, and crash.
        self._context = multiprocessing.get_context("spawn")
        self._make: Callable[[], _Worker[ItemT]] = lambda: _Worker(self._context, job, output_dir, token)
        self._num_workers = num_workers
        self._item_timeout_s = item_timeout_s
        self._workers: list[_Worker[ItemT]] = []
        self._output_dir, self._token = output_dir, token
        self._has_replaced = False
        self._start_failures = 0
        self._mean_s = 0.0
        self._refusal: Exception | None = None

    def __enter__(self) -> "WorkerPool[ItemT]":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            for worker in self._workers:
                worker.ask_to_end()  # all before the first wait, so that they close their jobs in parallel
        for worker in self._workers:
            worker.end(CLOSE_PATIENCE_S if kind is None else 0.0)
        if self._has_replaced:
            remove_temporaries(self._output_dir, self._token)  # of workers that were killed as they wrote

    def _start(self) -> None:
        # Each worker gets its share of the cores for libraries that start threads.
        threads = str(max((os.cpu_count() or 1) // self._num_workers, 1))
        names = [
            n for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if n not in os.environ
        ]
        os.environ.update(dict.fromkeys(names, threads))
        # Blocked while the process starts, and so in the new process until it ignores them: schedulers
        # signal the whole group, and a worker that it kills during its imports would look like a broken one.
        resource_tracker.ensure_running()  # it would start with the first worker, and lift the block then
        former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._workers.append(self._make())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
            for name in names:
                del os.environ[name]

    def run(
        self,
        chunks: Iterable[list[ItemT]],
        should_stop: Callable[[], bool],
        must_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Result[ItemT]]:
        """Distributes the chunks and yields the results, in the order of finishing.

        When `should_stop` becomes true, the chunks in the workers are finished and no others are started;
        when `must_stop` does, they are given up, without a result.

        Raises:
            UserError: A worker refuses to start (missing weights), the workers keep dying while they
                start, or the disk is full.
        """
        source = iter(chunks)
        retries: deque[list[ItemT]] = deque()  # chunks of workers that died
        exhausted = False
        while True:
            stopping = should_stop() or self._refusal is not None
            if stopping and must_stop():
                self._give_up()
                return
            # At the start, or after workers died: a new one for each chunk, up to their number.
            while not stopping and len(self._workers) < self._num_workers and not (exhausted and not retries):
                first = retries.popleft() if retries else next(source, None)
                if first is None:
                    exhausted = True
                    break
                self._start()
                self._workers[-1].send(first)
            for worker in self._workers:
                # Never a second chunk of several: one that fills the pipe would block both sides for good.
                is_small = not worker.chunk_sizes or worker.chunk_sizes[0] == 1
                depth = 2 if worker.is_ready and is_small and self._mean_s < PREFETCH_BELOW_S else 1
                while not stopping and len(worker.chunk_sizes) < depth:
                    chunk = retries.popleft() if retries else next(source, None)
                    if chunk is None:
                        exhausted = True
                        break
                    worker.send(chunk)
            if not any(worker.pending for worker in self._workers):
                if self._refusal is not None:
                    raise self._refusal
                if stopping or (exhausted and not retries):
                    return
                continue  # the last worker died and left chunks to do again
            yield from self._collect(retries)

    def _give_up(self) -> None:
        for worker in [worker for worker in self._workers if worker.pending]:
            self._workers.remove(worker)
            worker.end()
            self._has_replaced = True

    def _collect(self, retries: deque[list[ItemT]]) -> Iterator[Result[ItemT]]:
        """Waits for a message or the end of any worker, and yields the outcomes that came."""
        # Half a second at most: nothing else wakes us for a worker that hangs, or for a signal to stop.
        connection.wait([w.pipe for w in self._workers] + [w.process.sentinel for w in self._workers], 0.5)
        for worker in list(self._workers):
            yield from self._receive(worker)
            silent_s = time.monotonic() - worker.last_sign_s
            if silent_s > worker.limit_s(self._item_timeout_s):
                reason = f"made no progress for {silent_s:.0f} s and was given up"
                yield from self._replace(worker, retries, reason)
            elif not worker.process.is_alive():
                yield from self._receive(worker)  # what it sent before it died
                code = worker.process.exitcode or 0
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                is_memory = code == OUT_OF_MEMORY_CODE
                reason = OUT_OF_MEMORY if is_memory else f"the worker process died on it ({how})"
                yield from self._replace(worker, retries, reason)

    def _receive(self, worker: _Worker[ItemT]) -> Iterator[Result[ItemT]]:
        while True:
            try:
                if not worker.pipe.poll():
                    return
                message = worker.pipe.recv()
            except (EOFError, OSError):
                return
            if message[0] == "alive":
                worker.last_sign_s = time.monotonic()
            elif message[0] == "ready":
                worker.is_ready, worker.last_sign_s = True, time.monotonic()
            elif message[0] == "refused":
                error = (
                    UserError(message[1])
                    if message[2]
                    else RuntimeError(f"a worker cannot start: {message[1]}")
                )
                if not worker.is_ready:
                    raise error
                self._refusal = error  # the outcomes of the other workers are still collected
                worker.pending.clear()
                worker.chunk_sizes.clear()
            else:
                self._start_failures = 0
                self._mean_s += 0.1 * (message[2] - self._mean_s)
                yield worker.finished_one(), message[1], message[2]

    def _replace(
        self, worker: _Worker[ItemT], retries: deque[list[ItemT]], reason: str
    ) -> Iterator[Result[ItemT]]:
        """Ends a dead or hanging worker: its current item has failed, its others go to new workers."""
        seconds = time.monotonic() - worker.last_sign_s
        self._workers.remove(worker)
        worker.end()
        self._has_replaced = True
        pending = list(worker.pending)
        if not worker.is_ready:
            self._start_failures += 1
            if self._start_failures >= MAX_START_FAILURES:
                raise UserError(f"worker processes keep dying while they start: {reason}; --debug shows more")
        elif worker.chunk_sizes and worker.chunk_sizes[0] == 1:
            yield pending.pop(0), Outcome.without_result(reason), seconds
        # Of a chunk of several items any may be the culprit: tried one by one, it fails alone.
        retries.extend([item] for item in pending)
