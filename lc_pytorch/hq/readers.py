"""The files of HQ people for embedding: faces and spectrograms, one side at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from lc_pytorch.datasets.transforms import ImageTransform
from lc_pytorch.evaluation.readers import FaceReader, MediaFiles
from lc_pytorch.hq.dataset import HQPerson, MelSettings, fixed_pairs, load_mel
from lc_pytorch.hq.options import PAIRS_PER_IDENTITY


@dataclass(frozen=True)
class MelReader:
    """Reads the middle of a spectrogram, (num_mels, num_frames) float32, normalised; repeats a short one."""

    mels: MelSettings

    def __call__(self, file: Path) -> Tensor:
        return load_mel(file, self.mels)

    def settings(self) -> dict[str, object]:
        """All that the result depends on besides the file, as plain values."""
        return asdict(self.mels)


def media_of_people(
    people: Sequence[HQPerson],
    transform: ImageTransform,
    mels: MelSettings,
    pairs_per_identity: int = PAIRS_PER_IDENTITY,
) -> tuple[MediaFiles, MediaFiles]:
    """The faces and the spectrograms of `HQVoxCelebDataset`'s evaluation items, each file once.

    Args:
        people: The people whose files are embedded.
        transform: The picture transform that the face encoder expects.
        mels: How spectrograms are cut and normalised.
        pairs_per_identity: Pairs of each person at most; no more files of a kind come from one person.
    """
    faces: list[tuple[Path, str]] = []
    voices: list[tuple[Path, str]] = []
    for person in people:
        pairs = fixed_pairs(len(person.faces), len(person.mels), pairs_per_identity)
        # A dict keeps the order and drops the repetitions of the scarcer kind.
        faces += [(person.faces[k], person.identity) for k in dict.fromkeys(face for face, _ in pairs)]
        voices += [(person.mels[k], person.identity) for k in dict.fromkeys(mel for _, mel in pairs)]
    face_reader, mel_reader = FaceReader(transform), MelReader(mels)
    return (
        MediaFiles("face", *_columns(faces), face_reader, face_reader.settings()),
        MediaFiles("mel", *_columns(voices), mel_reader, mel_reader.settings()),
    )


def _columns(rows: Sequence[tuple[Path, str]]) -> tuple[list[Path], list[str]]:
    return [file for file, _ in rows], [identity for _, identity in rows]
