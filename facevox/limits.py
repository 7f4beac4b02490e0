"""Limits to the memory that a foreign file may take in a process.

A library that is refused memory raises MemoryError, or ends the process, which its parent then reports: never
does the machine run out of memory, which would end other processes first.
"""

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from facevox.errors import UserError

# Beyond what the process has when it starts to read: an ordinary photograph or film takes a tenth.
SPARE_BYTES = 1_000_000_000
HEAVY_SPARE_BYTES = 4_000_000_000  # with TensorFlow or torch, which get their working memory late
FILE_FACTOR = 8  # an honest large file needs some times its size ...
MOST_FOR_FILE_BYTES = 1_000_000_000  # ... up to here: archives and films are read in parts
OUT_OF_MEMORY = "needs more memory than a file of its size may take"
OUT_OF_MEMORY_CODE = 77  # exit code of a process that the watchdog ended
_WATCH_S = 0.05
_HEAVY = ("torch", "tensorflow")
_STATUS = Path("/proc/self/status")


def spare_bytes(file_bytes: int, least: int = SPARE_BYTES) -> int:
    """Memory that reading a file of `file_bytes` may take in this process.

    Args:
        file_bytes: Its size.
        least: For a small file.
    """
    if any(name in sys.modules for name in _HEAVY):
        least = max(least, HEAVY_SPARE_BYTES)
    return least + min(FILE_FACTOR * file_bytes, MOST_FOR_FILE_BYTES)


class MemoryLimit:
    """Limits what this process takes beyond its present memory.

    On Linux the system refuses more (RLIMIT_DATA: private memory that can be written, without the address
    space that allocators and thread stacks only reserve). Elsewhere a thread ends the process, with
    OUT_OF_MEMORY_CODE, once its memory has grown beyond. A process with CUDA has no limit: its driver maps
    all of the card's memory.

    Args:
        end: Called by that thread; ends the process.
    """

    def __init__(self, end: Callable[[], None] = lambda: os._exit(OUT_OF_MEMORY_CODE)) -> None:
        self._end = end
        self._has_limit = not _has_cuda()
        self._is_kernels = _data_bytes() is not None
        self._base_bytes = _data_bytes() or _peak_bytes()
        self._most_bytes = 0  # of the watchdog
        if self._has_limit and not self._is_kernels:
            threading.Thread(target=self._watch, daemon=True, name="memory watchdog").start()

    def set(self, spare: int) -> None:
        """Allows `spare` bytes more than at the start."""
        if not self._has_limit:
            return
        most = self._base_bytes + spare
        if self._is_kernels:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))
        else:
            # The peak never falls: after a large file only what exceeds it is noticed.
            self._most_bytes = most

    def _watch(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            if self._most_bytes and _peak_bytes() > self._most_bytes:
                self._end()
                return


@contextlib.contextmanager
def memory_limit(*paths: str | Path, least: int = SPARE_BYTES) -> Iterator[None]:
    """Limits the memory that one item may take in this process, where the system can do that.

    Args:
        paths: The item's files.
        least: As in `spare_bytes`.

    Raises:
        UserError: It needs more.
    """
    if _data_bytes() is None or _has_cuda():
        yield
        return
    former = resource.getrlimit(resource.RLIMIT_DATA)
    MemoryLimit().set(spare_bytes(largest_bytes(paths), least))
    try:
        yield
    except MemoryError:
        raise UserError(f"{paths[0]}: {OUT_OF_MEMORY}") from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, former)


def largest_bytes(paths: Iterable[str | Path]) -> int:
    """Bytes of the largest of some files; 0 where there is none."""
    sizes = [0]
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            sizes.append(Path(path).stat().st_size)
    return max(sizes)


def _data_bytes() -> int | None:
    """The memory that RLIMIT_DATA counts; None where the system does not limit it."""
    return _status_bytes("VmData") if sys.platform == "linux" else None


def _peak_bytes() -> int:
    # Linux passes the peak of a process on to those that it starts, except for this one.
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _status_bytes(name: str) -> int | None:
    try:
        return int(_STATUS.read_text().split(f"{name}:")[1].split()[0]) << 10
    except (OSError, IndexError, ValueError):
        return None


def _has_cuda() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
