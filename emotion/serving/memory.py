"""Memory with a descriptor instead of a name, which other processes get by that descriptor.

The system frees it when the last process that has it ends, however that ends: nothing stays in /dev/shm.
"""

import contextlib
import mmap
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from emotion.serving.refusals import Refusal


class MemoryFile:
    """A file without a name in memory, for decoders that need a path; Linux only.

    The path is valid in this process alone, as long as the file is open.

    Args:
        descriptor: Of such a file in another process, as it came from there; None: a new one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        is_new = descriptor is None
        self.descriptor = os.memfd_create("upload", os.MFD_CLOEXEC) if descriptor is None else descriptor
        self.size = 0 if is_new else os.fstat(self.descriptor).st_size

    @property
    def path(self) -> Path:
        """Path of the file; each time it is opened, reading begins at its start."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    def write(self, data: bytes) -> None:
        """Appends bytes."""
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                done += os.write(self.descriptor, rest[done:])
        self.size += len(data)

    def read(self) -> bytes:
        """All bytes."""
        return os.pread(self.descriptor, self.size, 0)

    def close(self) -> None:
        """Releases the memory."""
        os.close(self.descriptor)


@contextlib.contextmanager
def memory_file() -> Iterator[MemoryFile]:
    """A `MemoryFile` as a context, closed at the end.

    Raises:
        Refusal: The system has no such files (needs_linux).
    """
    if not hasattr(os, "memfd_create"):
        raise Refusal("needs_linux")
    file = MemoryFile()
    try:
        yield file
    finally:
        file.close()


class SharedBlock:
    """Bytes that several processes have; pages that nobody wrote take no memory.

    Args:
        size: In bytes.
    """

    def __init__(self, size: int) -> None:
        self.descriptor = _anonymous_descriptor()
        os.ftruncate(self.descriptor, size)
        self.bytes = mmap.mmap(self.descriptor, size)

    def __del__(self) -> None:
        os.close(self.descriptor)  # `bytes` has one of its own, which ends with the last array of it


def _anonymous_descriptor() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoder", os.MFD_CLOEXEC)
    import _posixshmem  # what multiprocessing.shared_memory uses, whose tracker would report this block

    name = f"/facevox-{secrets.token_hex(8)}"
    descriptor: int = _posixshmem.shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    _posixshmem.shm_unlink(name)
    return descriptor
