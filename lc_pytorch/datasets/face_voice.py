"""Face pictures with voice recordings, as the encoders take them.

A voice is always exactly `audio_duration_sec` long: cut out of a longer recording, and a shorter one repeated
from its start as often as needed. Never padded with silence and never masked: an embedding must not depend on
what else is in its batch, and wav2vec2-base takes padding for sound. Of wav, flac and ogg files only the part
that is used is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from facevox.errors import UserError, one_line
from facevox.files import read_image
from facevox.media import Downmix, MediaError, checked_rate, probe, read_audio
from facevox.sound_choice import PLAYED
from lc_pytorch.datasets.base import PairDataset, item_generator
from lc_pytorch.datasets.pairs import FilePair, identity_of_paths
from lc_pytorch.datasets.transforms import ImageTransform, create_data_transforms

if TYPE_CHECKING:
    from transformers import Wav2Vec2FeatureExtractor

# libsndfile finds any sample of these at once; other containers are decoded by facevox.media.
SEEKABLE_SUFFIXES = frozenset({".wav", ".flac", ".ogg"})
# Read on both sides of a crop that is resampled: soxr's longest filter at a third of the rate spans 20 ms.
MARGIN_S = 0.1
MOST_SOUND_S = 3600.0  # read of a recording whose header has no length
_MAX_FRAMES = 2**40  # where a header has no length, libsndfile returns a larger number
VOICES_OF = ("clip", "person")
# What picks the first sample: (samples of the whole recording) → 0 to total - 1.
ChooseStart = Callable[[int], int]


class FaceVoiceDataset(PairDataset):
    """Pairs of a face picture and a voice recording.

    Items are {"face": (3, H, W) float32, "voice": (T,) float32}, T = audio_duration_sec * target_sr.
    """

    second: ClassVar[str] = "voice"

    def __init__(
        self,
        file_pairs: Sequence[FilePair | tuple[str | Path, str | Path]],
        processor: Wav2Vec2FeatureExtractor | None = None,
        image_transform: ImageTransform | None = None,
        *,
        audio_duration_sec: float = 5.0,
        target_sr: int = 16000,
        identities: Sequence[str] | None = None,
        voice_of: str = "clip",
        seed: int = 0,
    ) -> None:
        """Stores the paths; no file is read yet.

        Args:
            file_pairs: `FilePair`s, or (face file, voice file).
            processor: Input of the voice encoder (its rate, whether each crop is brought to mean 0 and
                variance 1); None: that of wav2vec2-base.
            image_transform: Input of the face encoder; None: that of ViT-Base. A `DeviceTransform` leaves
                most of its work to the device, in batches of `collate`.
            audio_duration_sec: Length of the voices in seconds.
            target_sr: Their rate in Hz.
            identities: Person of each pair. None: that of the FilePair; for plain tuples the folder above
                `faces/` or `voices/` in the paths, or else the stem of the face file.
            voice_of: The voice of a face in training: that of its own "clip", or in every epoch one of the
                "person", drawn from all of that person's pairs. Then a model cannot learn which room or
                microphone goes with which light.
            seed: Seed of crops and augmentation.

        Raises:
            UserError: Lengths, rates or the number of identities do not fit.
        """
        pairs = [_file_pair(pair) for pair in file_pairs]
        if identities is None:
            identities = [pair.identity for pair in pairs]
        if len(identities) != len(pairs):
            raise UserError(f"{len(identities)} identities for {len(pairs)} pairs; one each is expected")
        super().__init__(identities, seed=seed)
        self._faces = _PathTable(pair.face for pair in pairs)
        self._voices = _PathTable(pair.voice for pair in pairs)
        if processor is None or image_transform is None:
            default_transform, default_processor = create_data_transforms()
            processor = default_processor if processor is None else processor
            image_transform = default_transform if image_transform is None else image_transform
        self.image_transform, self.collate = image_transform, image_transform.collate
        # Not the processor itself: a spawned worker would spend seconds on importing transformers.
        self._is_normalised = _checked_normalisation(processor, target_sr)
        if not 0 < audio_duration_sec <= 3600 or round(audio_duration_sec * target_sr) < 1:
            raise UserError(f"--audio_duration_sec {audio_duration_sec:g}: above 0, up to 3600, is expected")
        if voice_of not in VOICES_OF:
            raise UserError(f"--voice_of is {voice_of!r}: it should be one of {', '.join(VOICES_OF)}")
        self.voice_of = voice_of
        self.target_sr = target_sr
        self.audio_duration_sec = audio_duration_sec
        self.num_samples = round(audio_duration_sec * target_sr)

    def pair(self, index: int) -> FilePair:
        """The files and the identity of an item."""
        return FilePair(self._faces[index], self._voices[index], self.identities[index])

    def load(self, index: int, epoch: int | None) -> dict[str, Tensor]:
        """{"face", "voice"} of one item, as `PairDataset.load` describes it."""
        face_rng = None if epoch is None else item_generator(self.seed, epoch, index, "face")
        voice_rng = None if epoch is None else item_generator(self.seed, epoch, index, "voice")
        face = self.image_transform.item(_read_face(self._faces[index]), face_rng)
        samples = read_voice(
            self._voices[self._voice_index(index, voice_rng)],
            self.num_samples,
            self.target_sr,
            self._choose_start(voice_rng),
        )
        if self._is_normalised:
            samples = normalise_sound(samples)
        return face | {"voice": torch.from_numpy(samples)}

    def _voice_index(self, index: int, rng: np.random.Generator | None) -> int:
        """Index of the pair whose voice goes with the face of `index`."""
        if rng is None or self.voice_of == "clip":
            return index
        order, starts = self._pairs_by_person
        number = self.identity_numbers[index]
        return int(order[rng.integers(starts[number], starts[number + 1])])

    @cached_property
    def _pairs_by_person(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All pairs in the order of their people, and the first position of each person in that order."""
        counts = np.bincount(self.identity_numbers, minlength=len(self.identity_names))
        order = np.argsort(self.identity_numbers, kind="stable")
        return order, np.concatenate([[0], np.cumsum(counts)])

    def describe(self, index: int, epoch: int | None = None) -> str:
        """The two files of an item."""
        rng = None if epoch is None else item_generator(self.seed, epoch, index, "voice")
        return f"{self._faces[index]} with {self._voices[self._voice_index(index, rng)]}"

    def _choose_start(self, rng: np.random.Generator | None) -> ChooseStart:
        def choose(total: int) -> int:
            if rng is None:
                return max(total - self.num_samples, 0) // 2
            # A recording that is repeated may begin anywhere.
            return int(rng.integers(total if total < self.num_samples else total - self.num_samples + 1))

        return choose


class _PathTable:
    """Paths in one block of memory.

    A million Path objects take a gigabyte; and every loader process that reads them gets its own copy,
    because reading an object writes its reference count.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._text = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __getitem__(self, index: int) -> Path:
        return Path(os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]].tobytes()))


def _file_pair(pair: FilePair | tuple[str | Path, str | Path]) -> FilePair:
    if isinstance(pair, FilePair):
        return pair
    face, voice = (Path(file) for file in pair)
    return FilePair(face, voice, identity_of_paths(face, voice) or face.stem)


def _checked_normalisation(processor: object, target_sr: int) -> bool:
    """True if the voice encoder takes normalised sound; a UserError where it takes another kind of input."""
    rate_hz, is_normalised = (getattr(processor, name, None) for name in ("sampling_rate", "do_normalize"))
    if rate_hz is None or is_normalised is None or getattr(processor, "feature_size", 1) != 1:
        raise UserError(
            f"processor: a Wav2Vec2FeatureExtractor for waveforms is expected, not {type(processor).__name__}"
        )
    if rate_hz != target_sr:
        raise UserError(
            f"--target_sr {target_sr}: the voice model takes sound of {rate_hz} Hz; use --target_sr {rate_hz}"
        )
    return bool(is_normalised)


def _read_face(path: Path) -> NDArray[np.uint8]:
    try:
        return read_image(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}") from None


def normalise_sound(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T,) float32 with mean 0 and variance 1, as `Wav2Vec2FeatureExtractor` with `do_normalize` does it."""
    normalised: NDArray[np.float32] = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    return normalised


def read_voice(path: Path, num_samples: int, rate_hz: int, choose_start: ChooseStart) -> NDArray[np.float32]:
    """(num_samples,) float32 mono sound in [-1, 1] from a file, from the sample that `choose_start` picks.

    Channels are mixed as `facevox.media` mixes them, other rates resampled. A recording that is shorter is
    repeated. What libsndfile cannot read, whatever its name is, FFmpeg may.

    Args:
        path: Path of the recording.
        num_samples: Length of the result, at `rate_hz`.
        rate_hz: Sample rate of the result.
        choose_start: Returns the first sample for a length of the whole recording (samples at `rate_hz`).

    Raises:
        UserError: The file cannot be read or has no sample.
    """
    try:
        if path.suffix.lower() in SEEKABLE_SUFFIXES:
            return _read_seekable(path, num_samples, rate_hz, choose_start)
        return _read_container(path, num_samples, rate_hz, choose_start)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path}: not a readable sound file: {error.error_string}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}") from None


def _fault(path: Path) -> str:
    """Reason why the file cannot be opened or is empty, or ""; libsndfile reports only "system error"."""
    try:
        with path.open("rb") as file:
            return "" if file.read(1) else "the file is empty (0 bytes)"
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return error.strerror or one_line(error)


def _read_seekable(
    path: Path, num_samples: int, rate_hz: int, choose_start: ChooseStart
) -> NDArray[np.float32]:
    try:
        opened = soundfile.SoundFile(os.fsencode(path))  # bytes: names that are not UTF-8 work too
    except soundfile.LibsndfileError:
        if fault := _fault(path):
            raise UserError(f"{path}: {fault}") from None
        return _read_container(path, num_samples, rate_hz, choose_start)
    with opened as file:
        file_hz = checked_rate(file.samplerate, path)
        # Of more than two channels libsndfile does not tell which is which; a recorder that lost its power
        # leaves a length of 0.
        if not file.seekable() or file.channels > 2 or not 0 < file.frames < _MAX_FRAMES:
            return _read_container(path, num_samples, rate_hz, choose_start)
        total = math.ceil(file.frames * rate_hz / file_hz)
        start = choose_start(total)
        if total <= num_samples:
            return _repeated(
                _resampled(_read(file, path, 0, file.frames), file_hz, rate_hz), start, num_samples
            )
        # Reading starts at a sample that is on both clocks: the crop is then that of the resampled whole.
        step_in, step_out = _common_steps(file_hz, rate_hz)
        margin_in = 0 if file_hz == rate_hz else math.ceil(MARGIN_S * file_hz)
        before = max(start * file_hz // rate_hz - margin_in, 0) // step_in
        first_in, first_out = before * step_in, before * step_out
        end_in = min(math.ceil((start + num_samples) * file_hz / rate_hz) + margin_in, file.frames)
        block = _resampled(_read(file, path, first_in, end_in - first_in), file_hz, rate_hz)
        return block[start - first_out : start - first_out + num_samples]


def _common_steps(file_hz: int, rate_hz: int) -> tuple[int, int]:
    """Samples of either rate from one point in time that is on both clocks to the next."""
    common = math.gcd(file_hz, rate_hz)
    return file_hz // common, rate_hz // common


def _read(file: soundfile.SoundFile, path: Path, first: int, count: int) -> NDArray[np.float32]:
    file.seek(first)
    samples = file.read(count, dtype="float32", always_2d=True)
    if len(samples) < count:
        raise UserError(
            f"{path}: breaks off after {first + len(samples)} of {file.frames} samples; replace the file"
        )
    # Damaged float files hold NaN; one of them would spread through the whole voice.
    samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    if samples.shape[1] == 1:
        mono: NDArray[np.float32] = samples[:, 0]
        return mono
    downmix = Downmix(PLAYED, ["FL", "FR"], file.samplerate, [], path)
    return np.concatenate([*downmix.mix(samples), *downmix.rest()])


def _resampled(samples: NDArray[np.float32], file_hz: int, rate_hz: int) -> NDArray[np.float32]:
    """The sound at `rate_hz`, ceil(n * rate_hz / file_hz) samples of it."""
    if file_hz == rate_hz:
        return samples
    resampled: NDArray[np.float32] = soxr.resample(samples, file_hz, rate_hz)
    # soxr rounds the length; ours was promised to `choose_start`.
    missing = math.ceil(len(samples) * rate_hz / file_hz) - len(resampled)
    return np.pad(resampled, (0, missing), "edge") if missing > 0 else resampled


def _repeated(samples: NDArray[np.float32], start: int, num_samples: int) -> NDArray[np.float32]:
    """`num_samples` from `start` on; after its end the sound begins again."""
    return samples.take(np.arange(start, start + num_samples), mode="wrap")


def _read_container(
    path: Path, num_samples: int, rate_hz: int, choose_start: ChooseStart
) -> NDArray[np.float32]:
    duration_s = probe(path).duration_s
    total = int(duration_s * rate_hz)
    if total > num_samples:
        start = choose_start(total)
        samples = read_audio(path, rate_hz, start / rate_hz, num_samples / rate_hz)
        if len(samples) == num_samples:
            return samples
    # It is short, or its headers have no length, or a wrong one: read it all, but not weeks of silence.
    try:
        samples = read_audio(path, rate_hz, duration_s=max(MOST_SOUND_S, num_samples / rate_hz))
    except MediaError:
        if duration_s == 0 and path.suffix.lower() in SEEKABLE_SUFFIXES:
            raise UserError(f"{path}: holds no sound (0 samples)") from None
        raise
    if not len(samples):
        raise UserError(f"{path}: holds no sound (0 samples)")
    start = choose_start(len(samples))
    if len(samples) <= num_samples:
        return _repeated(samples, start, num_samples)
    return samples[start : start + num_samples]
