"""Vectors of faces on the disk: append-only files, so that many processes can write at the same time.

Each process appends to its own file, `vectors-<random>.bin`: a header (8 bytes `FVVECT01`, then the
number of values as little-endian uint32), then records of fixed size: the 32-byte key of the face, 5 float32
facts (`FACTS`), the float32 vector. A record that a crash cut short is ignored.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from facevox.errors import UserError

MAGIC = b"FVVECT01"
HEADER_BYTES = len(MAGIC) + 4
KEY_BYTES = 32  # SHA-256
MAX_SIZE = 1_000_000  # numbers of a vector
FACTS = ("is_detected", "sharpness", "size", "frontality", "confidence")


class VectorStore:
    """The vectors in a folder, found by key; a context manager that closes the file it appends to.

    Args:
        folder: Folder of the files; created when the first vector is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._size = 0
        self._parts: list[NDArray[np.void]] = []  # records of one file each, memory-mapped
        self._positions: dict[bytes, tuple[int, int]] = {}  # part and row, by key
        files = sorted(folder.glob("vectors-*.bin")) if folder.is_dir() else []
        for file in files:
            part = _read_records(file)
            keys = part["key"].tobytes()
            for row in range(len(part)):
                self._positions[keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]] = (len(self._parts), row)
            self._parts.append(part)

    def __contains__(self, key: bytes) -> bool:
        return key in self._positions

    def __len__(self) -> int:
        return len(self._positions)

    def facts(self, key: bytes) -> dict[str, float]:
        """The facts stored with a face."""
        part, row = self._positions[key]
        return dict(zip(FACTS, self._parts[part]["facts"][row].tolist(), strict=True))

    def vectors(self, keys: Sequence[bytes]) -> NDArray[np.float32]:
        """(N, D) vectors of `keys`, in that order.

        Raises:
            UserError: A stored vector is damaged.
        """
        positions = np.array([self._positions[key] for key in keys], np.int64).reshape(-1, 2)
        size = self._parts[positions[0, 0]]["vector"].shape[1] if len(positions) else 0
        vectors = np.empty((len(keys), size), np.float32)
        is_whole = True
        for part in np.unique(positions[:, 0]):
            is_here, stored = positions[:, 0] == part, self._parts[part]["vector"]
            if is_whole := is_whole and stored.shape[1] == size:
                vectors[is_here] = stored[positions[is_here, 1]]
        # All were written with length 1: another length is damage.
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        if not is_whole or not np.all(np.abs(norms - 1) < 1e-3):
            raise UserError(
                f"{self._folder}: stored embeddings are damaged; remove this folder and run again"
            )
        return vectors

    def append(
        self, keys: Sequence[bytes], facts: Iterable[Sequence[float]], vectors: NDArray[np.float32]
    ) -> None:
        """Writes vectors; they are with the operating system when it returns.

        They are for other processes and later runs: this object does not find them itself.
        """
        size = vectors.shape[1]
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = (self._folder / f"vectors-{secrets.token_hex(8)}.bin").open("xb", buffering=0)
            self._file.write(MAGIC + np.uint32(size).astype("<u4").tobytes())
            self._size = size
        assert size == self._size
        records = np.zeros(len(keys), _record_type(size))
        records["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
        records["facts"] = np.array(list(facts), np.float32).reshape(len(keys), len(FACTS))
        records["vector"] = vectors
        self._file.write(records.tobytes())  # one call, unbuffered: a crash leaves at most one half record

    def close(self) -> None:
        """Closes the file that is appended to, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _record_type(size: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"V{KEY_BYTES}"), ("facts", "<f4", (len(FACTS),)), ("vector", "<f4", (size,))])


def _read_records(file: Path) -> NDArray[np.void]:
    """The whole records of a file, memory-mapped; none where it was cut off before the first."""
    with file.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        return np.empty(0, _record_type(0))
    size = int(np.frombuffer(head[len(MAGIC) :], "<u4")[0])
    if not head.startswith(MAGIC) or not 0 < size <= MAX_SIZE:
        raise UserError(f"{file}: not a file of face vectors of this version; remove it and run again")
    record = _record_type(size)
    count = (file.stat().st_size - HEADER_BYTES) // record.itemsize
    if count == 0:
        return np.empty(0, record)
    return np.memmap(file, record, mode="r", offset=HEADER_BYTES, shape=(count,))
