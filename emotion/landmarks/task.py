"""Training of the landmark network: the rows of a split by person, and the task for the shared loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from emotion.data.samples import class_weights
from emotion.landmarks.features import Features
from emotion.landmarks.network import MODEL_FILE, LandmarkModel, LandmarkNetwork, save_model
from emotion.landmarks.normalisation import Integers
from emotion.landmarks.options import TrainConfig
from emotion.landmarks.split import Part
from emotion.scores.calibration import cross_entropy
from emotion.scores.measures import balanced_accuracy, confusion_counts
from facevox.errors import UserError
from facevox.training import distributed
from facevox.training.batches import EpochBatches
from facevox.training.distributed import World
from facevox.training.trainer import TrainingTask

logger = logging.getLogger(__name__)
# Rows of the training part on which, after each epoch, its accuracy is measured and BatchNorm's statistics
# are computed: in the first epochs the running mean lags so far behind that validation would see chance, and
# patience would end.
MEASURED_ROWS = 2048
SCORED_AT_ONCE = 1024


class PartCounts(TypedDict):
    """Counts of one part; `classes`: faces of each."""

    pictures: int
    people: int
    classes: dict[str, int]


class Notes(TypedDict):
    """Counts of both parts, as plain values.

    `interval_over` names the units that intervals draw, `unnamed` counts faces of unknown people, `data` is a
    hash.
    """

    train: PartCounts
    validation: PartCounts
    interval_over: str
    unnamed: int
    data: str


def faces_per_step(num_faces: int, config: TrainConfig, world: World) -> int:
    """Number of faces in a step of one process: the batch size, or fewer in a small set.

    Args:
        num_faces: Of the training part.
        config: Has the batch size.
        world: The processes.

    Raises:
        UserError: Fewer than two for each process, too few for BatchNorm's variance.
    """
    num = min(config.batch_size, num_faces // world.size)
    if num < 2:
        raise UserError(
            f"{num_faces} faces to train on for {world.size} processes: BatchNorm needs at least two for "
            "each; use fewer processes or add people"
        )
    return num


class BatchReader:
    """Batches of a part for the shared loop, read and normalised when their turn comes.

    Without worker processes: a batch of 64 takes 2 ms, most of it for reading.
    """

    def __init__(self, part: Part, batches: EpochBatches, features: Features) -> None:
        self._part, self._batches, self._features = part, batches, features
        self._labels = part.labels

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for keys in self._batches:
            indices = np.array([index for _, index in keys], np.int64)
            labels = torch.from_numpy(self._labels[indices])
            yield self._part.inputs(indices, self._features), labels


class LandmarkTask(TrainingTask):
    """The training of the network, for the shared loop.

    Args:
        network: On the device.
        config: Of the training.
        train, validation: The parts.
        world: This process's rank and device.
        notes: Plain values for the model's file.
        features: The network's inputs.
    """

    best_by = "val_loss"

    def __init__(
        self,
        network: LandmarkNetwork,
        config: TrainConfig,
        train: Part,
        validation: Part,
        world: World,
        notes: Notes,
        features: Features,
    ) -> None:
        self.model = self.network = network
        self.config, self.world, self.notes, self.features = config, world, notes, features
        self.weight_decay = config.weight_decay
        self.train_part, self.validation = train, validation
        self.measured = np.linspace(0, len(train) - 1, min(len(train), MEASURED_ROWS)).astype(np.int64)
        weights = np.ones(len(config.class_names), np.float32)
        if config.class_balance:
            weights = class_weights(train.labels, len(config.class_names))
        self.weights = torch.from_numpy(weights).to(world.device)
        self._forward = all_devices(network, world, faces_per_step(len(train), config, world))

    def backward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The gradient of the cross-entropy, each face weighted by its class; returns the loss."""
        inputs, labels = (part.to(self.world.device, non_blocking=True) for part in batch)
        losses = functional.cross_entropy(self._forward(inputs), labels, reduction="none")
        loss = (losses * self.weights[labels]).mean()
        torch.autograd.backward(loss)
        return loss.detach()

    def logits(self, part: Part, indices: Integers) -> NDArray[np.float32]:
        """(n, C) of some faces of a part, in evaluation mode."""
        return score_part(self.network, part, indices, self.features)

    def validate(self, epoch: int) -> dict[str, float]:
        """Loss and accuracies on the validation part, and the accuracy on rows of the training part."""
        names = self.config.class_names
        settle_norms(self.network, self.train_part.inputs(self.measured, self.features))
        logits = self.logits(self.validation, np.arange(len(self.validation)))
        labels, answers = self.validation.labels, logits.argmax(axis=1)
        train_answers = self.logits(self.train_part, self.measured).argmax(axis=1)
        values = {
            "val_loss": cross_entropy(logits, labels),
            "train_accuracy": float((train_answers == self.train_part.labels[self.measured]).mean()),
            "val_accuracy": float((answers == labels).mean()),
            "val_balanced_accuracy": float(balanced_accuracy(confusion_counts(labels, answers, len(names)))),
        }
        # Processes on unlike machines may differ in the last digit: the first one decides for all.
        first: dict[str, float] = distributed.gather_objects(values)[0]
        return first

    def save(self, *, is_best: bool) -> None:
        """Writes the model of the best epoch, as yet without its temperature."""
        if is_best:
            self.network.eval()
            save_model(self.config.save_dir / MODEL_FILE, self.saved(1.0))

    def saved(self, temperature: float) -> LandmarkModel:
        """The network as a model."""
        return LandmarkModel(
            network=self.network,
            class_names=self.config.class_names,
            features=self.features,
            temperature=temperature,
            notes=self.notes,
        )


def all_devices(network: nn.Module, world: World, num_faces: int) -> nn.Module:
    """The network on every GPU that is visible: one process for each under torchrun, else one for all.

    Where a step of `num_faces` would leave a GPU with a single one or none, fewer are used, with a message.
    """
    if world.size == 1 and world.device.type == "cuda":
        num_visible = torch.cuda.device_count()
        num_used = usable_gpus(num_faces, num_visible)
        if num_used < num_visible:
            logger.info(
                f"a step of {num_faces} faces fills {num_used} of {num_visible} GPUs (BatchNorm needs at "
                "least two faces on each); give a larger --batch_size"
            )
        if num_used > 1:
            return nn.DataParallel(network, device_ids=list(range(num_used)))
    return distributed.wrap(network, world)


def usable_gpus(num_faces: int, num_visible: int) -> int:
    """The largest number of GPUs on which DataParallel puts two or more faces each; at least 1.

    It cuts a batch into equal chunks, rounded up, and the last one gets the remaining faces: 7 on 3 GPUs are
    3, 3, 1, and 6 on 4 are 2, 2, 2.
    """
    for num_gpus in range(num_visible, 1, -1):
        chunk = -(-num_faces // num_gpus)
        if chunk >= 2 and num_faces % chunk != 1:
            return -(-num_faces // chunk)
    return 1


def settle_norms(network: LandmarkNetwork, inputs_NPC: Tensor) -> None:
    """Sets the running statistics of BatchNorm to those of (N, 478, 3) inputs, as seen without dropout."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the next batch alone counts
    with torch.no_grad():
        network(inputs_NPC.to(next(network.parameters()).device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def score_part(
    network: LandmarkNetwork,
    part: Part,
    indices: Sequence[int] | Integers,
    features: Features,
) -> NDArray[np.float32]:
    """(n, C) logits of some faces of a part; the network is left in evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    chosen = np.asarray(indices, np.int64)
    logits = []
    with torch.inference_mode():
        for first in range(0, len(chosen), SCORED_AT_ONCE):
            inputs = part.inputs(chosen[first : first + SCORED_AT_ONCE], features)
            logits.append(network(inputs.to(device)).float().cpu().numpy())
    result: NDArray[np.float32] = np.concatenate(logits)
    return result
