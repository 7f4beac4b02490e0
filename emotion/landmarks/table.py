"""The extracted landmarks of a folder as rows, whose landmarks are read when needed.

Landmarks stay on the disk (350,000 faces take 2 GB); in memory are some numbers and names of each row.
"""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from emotion.data.aihub.names import parse_picture_name
from emotion.data.samples import Samples
from emotion.landmarks.normalisation import Integers
from emotion.landmarks.shards import NUM_POINTS, PROGRAM, TABLE, blendshapes_of
from facevox.errors import UserError
from facevox.manifest import read_settings
from facevox.mesh.face_landmarker import NUM_BLENDSHAPES
from facevox.mesh.kinds import FACE_LANDMARKER, FACE_MESH, marked_mesh
from facevox.naming import is_inside
from facevox.spreadsheets import TableReader

npy: Any = np.lib.format  # NumPy has no types for its functions
MAX_OPEN_FILES = 64  # far below the usual limit of 1024


class ShardRows:
    """The landmarks of rows, or other numbers of each, read from their shards; none stay in memory.

    Args:
        folder: Of the extraction.
        shards: Names of the shards in it.
        shard_N: Index of each row's shard.
        row_N: Index of each row in its shard.
        shape: Of the numbers of one face.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[str],
        shard_N: NDArray[np.int32],
        row_N: NDArray[np.int32],
        shape: tuple[int, ...] = (NUM_POINTS, 3),
    ) -> None:
        self._shape, self._row_bytes = shape, 4 * math.prod(shape)
        self._folder, self._shards = folder, shards
        self._shard_N, self._row_N = shard_N, row_N
        self._open: OrderedDict[int, tuple[IO[bytes], int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._row_N)

    def read(self, rows: Sequence[int] | Integers) -> NDArray[np.float32]:
        """(n, 478, 3) float32, the landmarks of `rows`, in MediaPipe's units; or (n, …) of another shape.

        Raises:
            UserError: A shard is missing, damaged or of another kind.
        """
        landmarks = np.empty((len(rows), *self._shape), np.float32)
        for index, row in enumerate(rows):
            shard = int(self._shard_N[row])
            file, start, num_rows = self._file(shard)
            position = int(self._row_N[row])
            if 0 <= position < num_rows:
                file.seek(start + position * self._row_bytes)
            data = file.read(self._row_bytes) if 0 <= position < num_rows else b""
            if len(data) != self._row_bytes:
                raise UserError(
                    f"{self._folder / self._shards[shard]}: has no row {position}; extract it again"
                )
            landmarks[index] = np.frombuffer(data, np.float32).reshape(self._shape)
        return landmarks

    def _file(self, shard: int) -> tuple[IO[bytes], int, int]:
        """The open file of a shard, where its numbers begin, and how many rows it has."""
        entry = self._open.get(shard)
        if entry is not None:
            self._open.move_to_end(shard)  # the least recently used file is closed first
            return entry
        path = self._folder / self._shards[shard]
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; extract it again") from None
        try:
            # The header alone: nothing that a pickle could hide in is ever read.
            if npy.read_magic(file) != (1, 0):
                raise ValueError("another version of the format")
            shape, is_fortran, kind = npy.read_array_header_1_0(file)
            if kind != np.float32 or is_fortran or shape[1:] != self._shape or not kind.isnative:
                raise ValueError(f"holds {kind} {shape}")
        except Exception as error:  # of a damaged header NumPy raises what its tokenizer does
            file.close()
            raise UserError(f"{path}: no shard of landmarks ({error}); extract it again") from None
        self._open[shard] = (file, file.tell(), int(shape[0]))
        if len(self._open) > MAX_OPEN_FILES:
            self._open.popitem(last=False)[1][0].close()
        return self._open[shard]

    def close(self) -> None:
        """Closes the open shards; they open again when asked for."""
        for file, _, _ in self._open.values():
            file.close()
        self._open.clear()


class MemoryRows:
    """The landmarks of rows, or other numbers of each, all in memory."""

    def __init__(self, landmarks_NPC: NDArray[np.float32]) -> None:
        self.landmarks = landmarks_NPC

    def __len__(self) -> int:
        return len(self.landmarks)

    def read(self, rows: Sequence[int] | Integers) -> NDArray[np.float32]:
        """(n, 478, 3) float32, the landmarks of `rows`; or (n, …) of another shape."""
        return self.landmarks[np.asarray(rows, np.int64)]

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class LandmarkTable:
    """N faces.

    Attributes:
        rows: Their landmarks.
        sizes: (N, 2) int32, width and height of the whole picture.
        names: (N,) archive and member.
        labels: (N,) those of the index.
        people: (N,) the person, "" if unknown.
        mesh: Of the landmarks, one of `facevox.mesh.kinds.MESHES`.
        blendshapes: (N, 52) their blendshapes; None for FaceMesh, which has none.
    """

    rows: ShardRows | MemoryRows
    sizes: NDArray[np.int32]
    names: list[str]
    labels: list[str]
    people: list[str]
    mesh: str = FACE_MESH
    blendshapes: ShardRows | MemoryRows | None = None

    def __len__(self) -> int:
        return len(self.names)

    def close(self) -> None:
        """Closes the open shards."""
        self.rows.close()
        if self.blendshapes is not None:
            self.blendshapes.close()

    def to_samples(self, class_names: Sequence[str]) -> Samples:
        """The faces as samples of a classifier; all labels must be among `class_names`.

        Each picture of an unknown person counts as another person.
        """
        labels = np.array([class_names.index(label) for label in self.labels], np.int64)
        parsed = [parse_picture_name(name) for name in self.names]
        is_named = [
            bool(person) and name is not None for person, name in zip(self.people, parsed, strict=True)
        ]
        return Samples(
            files=[Path(name) for name in self.names],
            names=self.names,
            labels=labels,
            targets=np.eye(len(class_names), dtype=np.float32)[labels],
            people=[p or f"unknown: {name}" for p, name in zip(self.people, self.names, strict=True)],
            genders=[n.gender if n and k else "" for n, k in zip(parsed, is_named, strict=True)],
            ages=np.array(
                [n.age if n and k else -1 for n, k in zip(parsed, is_named, strict=True)], np.int64
            ),
        )

    def hash(self) -> str:
        """Sha256 of names, labels and people: equal for tables of the same data."""
        digest = hashlib.sha256()
        for values in zip(self.names, self.labels, self.people, strict=True):
            digest.update("\0".join(values).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


def load_table(folder: Path, class_names: Sequence[str] = (), *, in_memory: bool = False) -> LandmarkTable:
    """The faces in an output folder of `extract.py`.

    Args:
        folder: The output folder.
        class_names: Labels to load; empty: all, also pictures without a label.
        in_memory: Read all landmarks now, 6 kB for each face; the folder may go then.

    Raises:
        UserError: No index there, or a row of it that is not of an extraction.
    """
    index = folder / TABLE
    if not index.is_file():
        raise UserError(
            f"{folder}: has no {TABLE}; run python emotion/landmarks/extract.py first, or merge its shards"
        )
    chosen = set(class_names)
    shards: dict[str, int] = {}
    numbers: list[list[int]] = []
    names, labels, people = [], [], []
    texts: dict[str, str] = {}  # labels and people repeat: one text of each
    with index.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for line, row in enumerate(TableReader(file), start=2):
            if row.get("status") != "done" or (chosen and row.get("label") not in chosen):
                continue
            try:
                shard = _checked_shard(row["shard"])
                sizes = [int(row[name]) for name in ("row", "width", "height")]
                if not all(0 <= size < 2**31 for size in sizes):
                    raise ValueError(f"sizes {sizes}"[:80])
                numbers.append([shards.setdefault(shard, len(shards)), *sizes])
                names.append(f"{row['archive']}/{row['member']}")
                labels.append(texts.setdefault(row["label"], row["label"]))
                people.append(texts.setdefault(row["person"], row["person"]))
            except (KeyError, ValueError) as error:
                raise UserError(f"{index}, row {line}: not of an extraction ({error})") from None
    table = np.array(numbers, np.int32).reshape(-1, 4)
    mesh = marked_mesh(read_settings(folder, PROGRAM), folder)
    if any((folder / blendshapes_of(name)).exists() for name in shards):
        mesh = FACE_LANDMARKER  # where the manifest was left behind
    places = (table[:, 0].copy(), table[:, 1].copy())
    rows: ShardRows | MemoryRows = ShardRows(folder, list(shards), *places)
    blendshapes: ShardRows | MemoryRows | None = None
    if mesh == FACE_LANDMARKER:
        names_of_shapes = [blendshapes_of(name) for name in shards]
        blendshapes = ShardRows(folder, names_of_shapes, *places, (NUM_BLENDSHAPES,))
    if in_memory:
        rows, blendshapes = _loaded(rows), _loaded(blendshapes) if blendshapes else None
    return LandmarkTable(rows, table[:, 2:].copy(), names, labels, people, mesh, blendshapes)


def _loaded(rows: ShardRows | MemoryRows) -> MemoryRows:
    loaded = MemoryRows(rows.read(np.arange(len(rows))))
    rows.close()
    return loaded


def _checked_shard(name: str) -> str:
    """A shard's name, checked to be in the folder.

    Raises:
        ValueError: It leads elsewhere.
    """
    if not is_inside(name) or PurePosixPath(name).suffix != ".npy":
        raise ValueError(f"shard {name!r}")
    return name
