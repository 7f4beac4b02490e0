"""Masked faces with mel spectrograms of HQ VoxCeleb.

In training a person is one item: every epoch draws a face and a spectrogram of that person, and a crop of the
spectrogram, all from (seed, epoch, person) alone. In evaluation the items are a few fixed pairs of each
person, with crops from the middle. A shorter spectrogram is repeated, never padded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from facevox.errors import UserError, one_line
from facevox.files import read_image
from facevox.training.batches import EpochBatches, make_loader
from lc_pytorch.choices import DATASET_TYPES, SETS
from lc_pytorch.datasets.base import PairDataset, item_generator
from lc_pytorch.datasets.splits import Part
from lc_pytorch.datasets.transforms import ImageTransform, create_data_transforms
from lc_pytorch.hq.mels import FRAMES_PER_S, SURVEY_FILES, crop, read_mel, survey
from lc_pytorch.hq.options import DEFAULT_DURATION_S, PAIRS_PER_IDENTITY
from lc_pytorch.hq.split import HQSplit, load_split
from lc_pytorch.hq.tree import Files, Tree, same_people, scan_tree

logger = logging.getLogger(__name__)

_Content = TypeVar("_Content")


@dataclass(frozen=True, kw_only=True)
class MelSettings:
    """Settings by which spectrograms become the model's input; kept in config.json.

    Attributes:
        num_mels: Bands.
        num_frames: Frames of a crop, 100 a second.
        mel_mean, mel_std: Values are normalised by them: (mel - mel_mean) / mel_std.
    """

    num_mels: int
    num_frames: int
    mel_mean: float
    mel_std: float

    def __post_init__(self) -> None:
        if self.num_mels < 1 or self.num_frames < 1 or not self.mel_std > 0:
            raise UserError(
                f"{self.num_mels} mels, {self.num_frames} frames, deviation {self.mel_std:g}: mels and "
                "frames of at least 1 and a deviation above 0 are expected"
            )

    def as_config(self) -> dict[str, object]:
        """Plain values for config.json."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MelSettings:
        """The settings in the "data" part of a config.json; its other entries are ignored.

        Raises:
            UserError: The config.json is not that of a model for spectrograms.
        """
        try:
            return cls(
                num_mels=int(config["num_mels"]),
                num_frames=int(config["num_frames"]),
                mel_mean=float(config["mel_mean"]),
                mel_std=float(config["mel_std"]),
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"config.json: no settings of spectrograms in it ({one_line(error)}); is this a model for "
                "HQ VoxCeleb?"
            ) from None


@dataclass(frozen=True, kw_only=True)
class HQPerson:
    """Somebody with all of their files, of vox1 and vox2 together. `identity` is the normalised name."""

    identity: str
    faces: Files
    mels: Files


class HQVoxCelebDataset(PairDataset):
    """Items are {"face": (3, H, W) float32, "mel": (num_mels, num_frames) float32, normalised}.

    Args:
        people: Each with at least one face and one spectrogram.
        image_transform: The picture transform that the face encoder expects. A `DeviceTransform` leaves most
            of its work to the device, in batches of `collate`.
        mels: How spectrograms are cut and normalised.
        pairs_per_identity: None: one item per person, drawn again in every epoch (training). A number: at
            most that many fixed pairs of each person (evaluation).
        seed: Of all that is drawn.

    Raises:
        UserError: There are people without files.
    """

    second: ClassVar[str] = "mel"

    def __init__(
        self,
        people: Sequence[HQPerson],
        image_transform: ImageTransform,
        mels: MelSettings,
        *,
        pairs_per_identity: int | None = None,
        seed: int = 0,
    ) -> None:
        without = [person.identity for person in people if not (person.faces and person.mels)]
        if without:
            raise UserError(f"{len(without)} people without faces or mels, such as {without[0]!r}")
        if pairs_per_identity is not None and pairs_per_identity < 1:
            raise UserError(f"pairs_per_identity {pairs_per_identity}: at least 1 is expected")
        self.people = list(people)
        self.mels = mels
        # (person, face, mel) of each item; in training the last two are used by evaluation only.
        self._items = [
            (number, face, mel)
            for number, person in enumerate(self.people)
            for face, mel in fixed_pairs(len(person.faces), len(person.mels), pairs_per_identity or 1)
        ]
        self._is_drawn = pairs_per_identity is None
        super().__init__([self.people[number].identity for number, _, _ in self._items], seed=seed)
        self.image_transform, self.collate = image_transform, image_transform.collate

    def load(self, index: int, epoch: int | None) -> dict[str, Tensor]:
        """One item; see `PairDataset.load`."""
        face_file, mel_file = self.files(index, epoch)
        rng = None if epoch is None else item_generator(self.seed, epoch, index, "face")
        face = self.image_transform.item(_read(read_image, face_file), rng)
        position = 0.5 if epoch is None else self._draws(epoch, index)[2]
        return face | {"mel": load_mel(mel_file, self.mels, position)}

    def files(self, index: int, epoch: int | None) -> tuple[Path, Path]:
        """The face and the spectrogram of an item in an epoch (None: in evaluation)."""
        number, face, mel = self._items[index]
        person = self.people[number]
        if epoch is not None and self._is_drawn:
            face_draw, mel_draw, _ = self._draws(epoch, index)
            face, mel = int(face_draw * len(person.faces)), int(mel_draw * len(person.mels))
        return person.faces[face], person.mels[mel]

    def describe(self, index: int, epoch: int | None = None) -> str:
        """The item's person, and its files in an epoch (None: in evaluation)."""
        face, mel = self.files(index, epoch)
        return f"{self.identities[index]}: {face} with {mel}"

    def _draws(self, epoch: int, index: int) -> tuple[float, float, float]:
        """Numbers in [0, 1) that choose the face, the spectrogram, and the position of its crop."""
        face, mel, position = item_generator(self.seed, epoch, index, "voice").random(3)
        return float(face), float(mel), float(position)


def load_mel(path: Path, settings: MelSettings, position: float = 0.5) -> Tensor:
    """(num_mels, num_frames) float32 of a file, normalised.

    Args:
        path: The file.
        settings: How it is cut and normalised.
        position: 0 to below 1, from the first possible crop to the last; 0.5 is the middle.

    Raises:
        UserError: It cannot be used.
    """
    mel = _read(lambda file: read_mel(file, settings.num_mels), path)
    cut = crop(mel, settings.num_frames, position)
    return torch.from_numpy((cut - np.float32(settings.mel_mean)) / np.float32(settings.mel_std))


def fixed_pairs(num_faces: int, num_mels: int, limit: int) -> list[tuple[int, int]]:
    """At most `limit` different (face, mel), spread over all files of a person; the scarcer kind repeats."""
    count = min(limit, max(num_faces, num_mels))
    return [(_spread(k, count, num_faces), _spread(k, count, num_mels)) for k in range(count)]


def _spread(number: int, count: int, num_files: int) -> int:
    return number * num_files // count if num_files >= count else number % num_files


def _read(read: Callable[[Path], _Content], path: Path) -> _Content:
    try:
        return read(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}") from None


def list_people(
    tree: Tree, split: HQSplit, part: Part, sets: Sequence[str] = SETS
) -> tuple[list[HQPerson], list[str]]:
    """The people of a part with all of their files in `sets`, sorted, and lines on people who are missing.

    Names are compared normalised, so a folder may have another spelling than the split; an id and a name
    are one person where the tables say so. Somebody in two parts of the split is left out of this one if the
    other comes first (test, then val): nobody is trained on and tested.
    """
    persons = same_people(tree.root, split.all_names())

    def identities(part: Part, sets: Sequence[str]) -> set[str]:
        return {persons.get(name, name) for name in split.identities(part, sets)}

    names = identities(part, sets)
    before: set[str] = set()
    for other in ("test", "val", "train"):
        if other == part:
            break
        before |= identities(other, SETS)  # of both sets, also where the training has one of them
    faces: dict[str, Files] = {}
    mels: dict[str, Files] = {}
    for set_name in sets:
        for person in tree.people.get(set_name, {}).values():
            identity = persons.get(person.identity, person.identity)
            if identity in names:
                faces[identity] = faces.get(identity, Files()) + person.faces
                mels[identity] = mels.get(identity, Files()) + person.mels
    counts: Counter[str] = Counter()
    people = []
    for identity in sorted(names):
        if identity in before:
            counts["are in another part of the split too, and left out of this one"] += 1
        elif identity not in faces:
            counts["have no folder"] += 1
        elif not (faces[identity] and mels[identity]):
            counts["have no faces or no mels"] += 1
        else:
            people.append(HQPerson(identity=identity, faces=faces[identity], mels=mels[identity]))
    return people, [f"{part}: {count} of {len(names)} people {fact}" for fact, count in counts.items()]


def measure_mels(
    people: Sequence[HQPerson], audio_duration_sec: float, num_mels: int | None = None
) -> tuple[MelSettings, list[str]]:
    """The settings for these people's spectrograms, and lines about the files.

    Mean and deviation are those of a sample, spread over the people: the same people, the same numbers.

    Args:
        people: Those who are trained on.
        audio_duration_sec: Length of a crop in seconds, of 100 frames each.
        num_mels: Bands, where the files leave them open.

    Raises:
        UserError: A length out of range, or nothing that can be read.
    """
    num_frames = round(audio_duration_sec * FRAMES_PER_S) if 0 < audio_duration_sec <= 3600 else 0
    if num_frames < 1:
        raise UserError(f"--audio_duration_sec {audio_duration_sec:g}: 0.01 to 3600 seconds are possible")
    # The same number of files from each person, spread over theirs. With more people than SURVEY_FILES it is
    # one each, and `survey` takes some of them.
    each = max(SURVEY_FILES // max(len(people), 1), 1)
    files = [
        person.mels[_spread(k, min(each, len(person.mels)), len(person.mels))]
        for person in people
        for k in range(min(each, len(person.mels)))
    ]
    sample = survey(files, num_mels)
    settings = MelSettings(
        num_mels=sample.num_mels, num_frames=num_frames, mel_mean=sample.mean, mel_std=sample.std
    )
    return settings, sample.lines()


def load_people(
    split_json_path: str | Path, dataset_type: str = "vox2", *, converted_dir: str | Path | None = None
) -> tuple[dict[Part, list[HQPerson]], list[str]]:
    """The people of each part of split.json, whose folder is the root of the data; and notes for the user.

    Args:
        split_json_path: The split.
        dataset_type: "vox1", "vox2" or "both".
        converted_dir: Output folder of convert_mels.py where it is not the root.

    Raises:
        UserError: No split (the message names the program that makes one), no such type, or nobody to train
            on.
    """
    if dataset_type not in DATASET_TYPES:
        raise UserError(f"--dataset_type {dataset_type!r}: it should be one of {', '.join(DATASET_TYPES)}")
    sets = DATASET_TYPES[dataset_type]
    split = load_split(split_json_path)
    tree = scan_tree(Path(split_json_path).parent, sets, converted_dir=converted_dir)
    notes = list(tree.notes)
    parts: dict[Part, list[HQPerson]] = {}
    for part in get_args(Part):
        parts[part], missing = list_people(tree, split, part, sets)
        notes += missing
    if not parts["train"]:
        raise UserError(
            f"{split_json_path}: nobody to train on in {dataset_type} "
            f"({'; '.join(notes) or 'the lists are empty'}); use another --dataset_type or another split"
        )
    return parts, notes


def create_hq_voxceleb_dataloaders(
    split_json_path: str | Path,
    dataset_type: str = "vox2",
    batch_size: int = 16,
    *,
    audio_duration_sec: float = DEFAULT_DURATION_S,
    num_workers: int = 0,
    image_transform: ImageTransform | None = None,
    mels: MelSettings | None = None,
    pairs_per_identity: int = PAIRS_PER_IDENTITY,
    seed: int = 0,
) -> dict[str, DataLoader[dict[str, Tensor]]]:
    """Loaders "train", "val" and "test": batches of "mel" (B, M, T), "face" (B, 3, H, W), "identity" (B,).

    Each pass over "train" is the next epoch: another order, other files and crops, the incomplete last batch
    left out. "val" and "test" have the same items every time; they are empty where the split has nobody.

    Args:
        split_json_path: split.json in the root of the data.
        dataset_type: "vox1", "vox2" or "both".
        batch_size: B.
        audio_duration_sec: Length of the spectrograms in seconds, 100 frames each; T is 100 times this.
        num_workers: Processes that load; 0: this one.
        image_transform: The picture transform that the face encoder expects; None: that of ViT-Base.
        mels: How spectrograms are cut and normalised, by a trained model; None: measured on the people of
            "train", and logged.
        pairs_per_identity: Fixed pairs of each person in "val" and "test", at most.
        seed: Of order, files and crops.

    Raises:
        UserError: No split (the message names the program that makes one), or nobody to train on.
    """
    parts, notes = load_people(split_json_path, dataset_type)
    if mels is None:
        mels, facts = measure_mels(parts["train"], audio_duration_sec)
        notes += facts
    for note in notes:
        logger.info(note)
    transform = image_transform or create_data_transforms()[0]
    train_set = HQVoxCelebDataset(parts["train"], transform, mels, seed=seed)
    cpu = torch.device("cpu")
    train_batches = _NextEpochBatches(len(train_set), batch_size, seed=seed)
    loaders = {"train": make_loader(train_set, train_batches, num_workers=num_workers, device=cpu)}
    for part in ("val", "test"):
        items = HQVoxCelebDataset(
            parts[part], transform, mels, pairs_per_identity=pairs_per_identity, seed=seed
        )
        in_order = BatchSampler(SequentialSampler(items), batch_size, drop_last=False)
        loaders[part] = make_loader(items, in_order, num_workers=num_workers, device=cpu)
    return loaders


class _NextEpochBatches(EpochBatches):
    """Batches that begin another epoch with every pass, for loops that know nothing of epochs."""

    _next_epoch = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # A generator: its body waits until the first batch is asked for. A loader with workers makes two
        # iterators at its start and uses one of them; a plain method would skip an epoch.
        self.start(self._next_epoch)
        self._next_epoch += 1
        yield from super().__iter__()
