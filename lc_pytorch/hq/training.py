"""Training on HQ VoxCeleb: masked faces with mel spectrograms, by the recipe of face-voice training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facevox.errors import UserError
from facevox.training.distributed import World
from facevox.training.trainer import Estimate, TrainingResult
from lc_pytorch.datasets.splits import Part, Split
from lc_pytorch.datasets.transforms import ImageTransform, create_data_transforms
from lc_pytorch.evaluation.readers import MediaFiles
from lc_pytorch.hq.dataset import (
    HQPerson,
    HQVoxCelebDataset,
    load_people,
    measure_mels,
)
from lc_pytorch.hq.options import HQConfig
from lc_pytorch.hq.readers import media_of_people
from lc_pytorch.models.hq import HQVoxCelebModel
from lc_pytorch.training.run import SPLIT_FILE, train_two_towers

KIND = "hq_voxceleb"


class _HQVoxCelebSource:
    """People of HQ VoxCeleb, as `TrainingSource` describes it."""

    kind = KIND

    def __init__(self, config: HQConfig) -> None:
        self._config = config
        self._people, self._notes = load_people(
            config.split_json_path, config.dataset_type, converted_dir=config.converted_dir
        )
        self._mels, facts = measure_mels(self._people["train"], config.audio_duration_sec, config.num_mels)
        self._notes = [*self._notes, *facts]
        self._num_files = {
            part: sum(len(person.faces) + len(person.mels) for person in people)
            for part, people in self._people.items()
        }
        self.identities: Sequence[str] = [
            person.identity for people in self._people.values() for person in people
        ]
        self.fingerprint: Mapping[str, object] = {
            "files": sum(self._num_files.values()),
            "mels": str(self._mels),
        }

    def draw_split(self) -> Split:
        names = {part: tuple(person.identity for person in people) for part, people in self._people.items()}
        return Split(train=names["train"], val=names["val"], test=names["test"])

    def items_of(self, split: Split) -> Mapping[Part, Sequence[HQPerson]]:
        config = self._config
        # The parts come from split.json of the data: the split in the folder of the run must still be equal.
        if split.hash != self.draw_split().hash:
            raise UserError(
                f"{config.save_dir / SPLIT_FILE}: {config.split_json_path} puts people into other parts than "
                "the run there; give another --save_dir, or --resume never to start from scratch"
            )
        return self._people

    def make_transform(self, image_size: int | None = None) -> ImageTransform:
        return create_data_transforms(self._config.face_model, image_size=image_size)[0]

    def make_model(self) -> HQVoxCelebModel:
        config = self._config
        return HQVoxCelebModel(
            config.embedding_dim,
            pretrained=not config.from_scratch,
            face_model=config.face_model,
            num_mels=self._mels.num_mels,
            num_frames=self._mels.num_frames,
            mel_pooling=config.mel_pooling,
            temperature=config.temperature,
            learnable_temperature=config.learnable_temperature,
        )

    def make_train_set(self, items: Sequence[HQPerson], transform: ImageTransform) -> HQVoxCelebDataset:
        return HQVoxCelebDataset(items, transform, self._mels, seed=self._config.seed)

    def list_media(
        self, items: Sequence[HQPerson], transform: ImageTransform
    ) -> tuple[MediaFiles, MediaFiles]:
        return media_of_people(items, transform, self._mels)

    def describe(self, items: Mapping[Part, Sequence[HQPerson]]) -> dict[str, object]:
        return {**self._mels.as_config(), "num_files": self._num_files}

    def facts(self, items: Mapping[Part, Sequence[HQPerson]], split: Split) -> list[str]:
        people = ", ".join(f"{part} {len(names)}" for part, names in split.parts.items())
        return [*self._notes, f"people: {people} ({self._config.dataset_type})"]


def train_hq_voxceleb(config: HQConfig, world: World) -> TrainingResult | Estimate:
    """Trains on the people of a split; see `train_two_towers`.

    Raises:
        UserError: No split (the message names the program that makes one), nobody to train on, weights that
            are missing, or a folder that belongs to another run.
    """
    return train_two_towers(lambda: _HQVoxCelebSource(config), config, world)
