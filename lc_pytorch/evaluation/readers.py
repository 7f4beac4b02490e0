"""Files to embed, and how each kind is read: like evaluation items of a data set, one side at a time.

A recording of ten pairs is one file here, and a broken picture costs no voice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from facevox.batch import MEDIA_READER
from facevox.errors import UserError
from facevox.files import read_image
from facevox.media.sound import checked_rate
from lc_pytorch.datasets.face_voice import normalise_sound, read_voice
from lc_pytorch.datasets.transforms import ImageTransform, rgb_values

if TYPE_CHECKING:
    from lc_pytorch.datasets.pairs import FilePair
    from lc_pytorch.models.store import TrainedModel

MOST_SAMPLES = 10_000_000  # of a voice, unless it is asked for: ten minutes at 16 kHz


@dataclass(frozen=True)
class MediaFiles:
    """Files of one kind, each with its person.

    Attributes:
        kind: `face`, `voice` or `mel`.
        files: N, each once.
        identities: N normalised names.
        load: Reads a file as the model expects it, without any randomness: (3, H, W), (T,) or (n_mels, T),
            float32. Raises for a bad file. It is sent to worker processes.
        settings: All that an embedding depends on besides file and weights, as plain values.
    """

    kind: str
    files: Sequence[Path]
    identities: Sequence[str]
    load: Callable[[Path], Tensor]
    settings: Mapping[str, object]


@dataclass(frozen=True)
class FaceReader:
    """Reads a picture: (3, H, W) float32, normalised."""

    transform: ImageTransform

    def __call__(self, file: Path) -> Tensor:
        return self.transform(read_image(file))

    def settings(self) -> dict[str, object]:
        """All that the result depends on besides the file, as plain values."""
        return asdict(self.transform)


@dataclass(frozen=True)
class VoiceReader:
    """Reads the middle of a recording; a short one is repeated: (T,) float32.

    Attributes:
        duration_s: Length of that middle part.
        rate_hz: Of the samples.
        is_normalised: Whether samples are scaled to mean 0 and variance 1.
    """

    duration_s: float
    rate_hz: int
    is_normalised: bool = True

    def __call__(self, file: Path) -> Tensor:
        num_samples = round(self.duration_s * self.rate_hz)
        samples = read_voice(file, num_samples, self.rate_hz, lambda total: max(total - num_samples, 0) // 2)
        return torch.from_numpy(normalise_sound(samples) if self.is_normalised else samples)

    def settings(self) -> dict[str, object]:
        """All that the result depends on besides the file, as plain values."""
        return {**asdict(self), "media_reader": MEDIA_READER}


def make_face_reader(trained: TrainedModel) -> FaceReader:
    """The reader of pictures that a model expects, from its config.json.

    Raises:
        UserError: The config.json lacks something.
    """
    data = trained.config["data"]
    try:
        return FaceReader(
            ImageTransform(
                image_size=int(data["image_size"]),
                image_mean=rgb_values(data["image_mean"]),
                image_std=rgb_values(data["image_std"]),
                resample=int(data.get("resample", ImageTransform.resample)),
            )
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _broken(trained, error) from None


def _broken(trained: TrainedModel, error: Exception) -> UserError:
    name = f"{error.args[0]} missing" if isinstance(error, KeyError) else str(error)
    return UserError(f"{trained.model_dir}/config.json: data: {name}; restore the file")


def make_readers(
    trained: TrainedModel, audio_duration_sec: float | None = None, target_sr: int | None = None
) -> tuple[FaceReader, VoiceReader]:
    """The readers of faces and voices that a model expects, from its config.json.

    Args:
        trained: The model.
        audio_duration_sec: Length of the voices in seconds, instead of that of the training.
        target_sr: In Hz; only compared with that of the training.

    Raises:
        UserError: A model of spectrograms, a config.json that lacks something, or another rate.
    """
    if trained.kind != "face_voice":
        raise UserError(
            f"--model_dir {trained.model_dir}: a model of kind {trained.kind}; one of faces and sound is "
            "expected here (for spectrograms: scripts/hq/evaluate_hq_voxceleb.py)"
        )
    data = trained.config["data"]
    try:
        rate_hz = checked_rate(int(data["target_sr"]), "target_sr")
        duration_s = float(data["audio_duration_sec"] if audio_duration_sec is None else audio_duration_sec)
        if audio_duration_sec is None and duration_s * rate_hz > MOST_SAMPLES:
            raise ValueError(f"{duration_s:g} s at {rate_hz} Hz are too long a voice (--audio_duration_sec)")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _broken(trained, error) from None
    if target_sr is not None and target_sr != rate_hz:
        raise UserError(f"--target_sr {target_sr}: this model hears {rate_hz} Hz; use --target_sr {rate_hz}")
    if not 0 < duration_s <= 3600:
        raise UserError(f"--audio_duration_sec {duration_s:g}: above 0 and up to 3600 is expected")
    return make_face_reader(trained), VoiceReader(duration_s, rate_hz, bool(data.get("do_normalize", True)))


def media_of_pairs(
    pairs: Sequence[FilePair], face_reader: FaceReader, voice_reader: VoiceReader
) -> tuple[MediaFiles, MediaFiles]:
    """The distinct faces and the distinct voices of pairs, in order of first appearance.

    Raises:
        UserError: A file is listed with two people.
    """
    faces = _distinct((pair.face, pair.identity) for pair in pairs)
    voices = _distinct((pair.voice, pair.identity) for pair in pairs)
    return (
        MediaFiles("face", list(faces), list(faces.values()), face_reader, face_reader.settings()),
        MediaFiles("voice", list(voices), list(voices.values()), voice_reader, voice_reader.settings()),
    )


def _distinct(items: Iterable[tuple[Path, str]]) -> dict[Path, str]:
    identity_of: dict[Path, str] = {}
    for file, identity in items:
        if identity_of.setdefault(file, identity) != identity:
            raise UserError(
                f"{file} is listed with two people, {identity_of[file]} and {identity}: choose one by "
                "--identity_csv or --identity_regex"
            )
    return identity_of
