"""Training of the lip-sync network: the task for the shared loop, the split, and the network's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from facevox.errors import UserError
from facevox.training import distributed
from facevox.training.batches import EpochBatches, make_loader
from facevox.training.distributed import World
from facevox.training.schedule import Interval
from facevox.training.seeding import RandomState, seed_everything
from facevox.training.trainer import Trainer, TrainerConfig, TrainingTask
from lipsync.clips.clock import CLOCK
from lipsync.network.estimator import KIND, SavedModel, save_model
from lipsync.network.losses import RIGHT_ROWS, Stretch, at_lags, contrast_over_time
from lipsync.network.model import LipSyncNetwork, NetworkConfig
from lipsync.network.split import PARTS, Split
from lipsync.network.takes import Take
from lipsync.network.windows import MARGIN_ROWS, SegmentDataset
from lipsync.settings import ModelSettings, Settings, TrainingSettings
from lipsync.sync.estimators import RidgeEstimator, RidgeExample
from lipsync.sync.inputs import MOUTH_CNN

BEST_FILE = "best_model.pth"
CHECKPOINT_INTERVAL = Interval(seconds=300.0)
WARMUP = 0.05  # share of all steps
CLIP_NORM = 1.0
MAX_RIDGE_FRAMES = 200_000  # 2.2 hours, for weights of 140 inputs
ACCURACY_FRAMES = 50  # stretches of 2 s


class _TrainingForward(nn.Module):
    """Both embeddings, scale and bias from one call: DDP synchronises the gradients of its outputs."""

    def __init__(self, network: LipSyncNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, face: Tensor, sound: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        network = self.network
        return network.embed_face(face), network.embed_sound(sound), network.log_scale, network.bias


class LipSyncTask(TrainingTask):
    """The network as a task for the shared loop.

    Args:
        network: On the device.
        weight_decay: On matrices.
        world: Rank and device of this process.
        validation: Segments that are the same each time; None: the best model is chosen by training loss.
        save_dir: Folder of the models; None: they are not written.
        notes: Plain values for the checkpoints.
        ridge: For the checkpoints.
    """

    def __init__(
        self,
        network: LipSyncNetwork,
        ridge: RidgeEstimator | None,
        weight_decay: float,
        world: World,
        validation: SegmentDataset | None,
        save_dir: Path | None,
        notes: Mapping[str, object],
    ) -> None:
        self.model = self.network = network
        self.weight_decay, self.world, self.validation = weight_decay, world, validation
        self.ridge, self.save_dir, self.notes = ridge, save_dir, notes
        if validation is not None:
            self.best_by = "val_loss"
        self.num_epochs_done = 0
        self._forward = distributed.wrap(_TrainingForward(network), world)

    def _stretch(self, batch: dict[str, Tensor]) -> tuple[Stretch, Tensor, Tensor]:
        moved = {name: value.to(self.world.device, non_blocking=True) for name, value in batch.items()}
        face, sound, log_scale, bias = self._forward(moved["face"], moved["sound"])
        measured, heard, voiced = (moved[name] for name in ("is_measured", "is_heard", "is_voiced"))
        return Stretch(face, sound, measured, heard, voiced, MARGIN_ROWS), log_scale, bias

    def backward(self, batch: dict[str, Tensor]) -> Tensor:
        """One forward and one backward pass; the loss needs no batch of another rank."""
        loss = contrast_over_time(*self._stretch(batch))
        torch.autograd.backward(loss)  # as loss.backward(), which has no types
        return loss.detach()

    def validate(self, epoch: int) -> dict[str, float]:
        """Loss and accuracy on the validation segments."""
        self.num_epochs_done = epoch + 1
        values = {"scale": float(self.network.log_scale.detach().exp())}
        if self.validation is None:
            return values
        randoms = RandomState()  # training after a validation draws the numbers that it would without one
        losses, hits, batch_size = [], [], 16
        for first in range(0, len(self.validation), batch_size):
            numbers = range(first, min(first + batch_size, len(self.validation)))
            items = [self.validation[0, number] for number in numbers]
            batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
            with torch.inference_mode():
                stretch, log_scale, bias = self._stretch(batch)
                losses += [float(contrast_over_time(stretch, log_scale, bias))] * len(items)
                hits += _right_offsets(stretch)
        randoms.restore()
        return values | {
            "val_loss": float(np.mean(losses)),
            "val_accuracy": float(np.mean(hits)) if hits else float("nan"),
        }

    def save(self, *, is_best: bool) -> None:
        """Writes best_model.pth or the checkpoint of this epoch, as yet without calibration."""
        if self.save_dir is not None:
            name = BEST_FILE if is_best else f"epoch_{self.num_epochs_done:04d}.pth"
            model = SavedModel(network=self.network, ridge=self.ridge, calibration=None, settings=self.notes)
            save_model(self.save_dir / name, model)


def _right_offsets(stretch: Stretch) -> list[bool]:
    """True where the offset is right to a frame in the first 2 s of each clip that has all lags in them."""
    product = torch.einsum("btd,brd->btr", stretch.face_BTD, stretch.sound_BRD)
    heard = stretch.is_heard_BR.unsqueeze(1).expand_as(product)
    near = slice(0, ACCURACY_FRAMES)
    curves = at_lags(product, stretch.margin)[:, near].mean(dim=1)
    is_whole = at_lags(heard, stretch.margin)[:, near].all(dim=2).all(dim=1)
    is_whole &= stretch.is_measured_BT[:, near].all(dim=1)
    lags = curves.argmax(dim=1) - curves.shape[1] // 2
    hits: list[bool] = (lags.abs() <= RIGHT_ROWS)[is_whole].tolist()
    return hits


def make_network(
    model: ModelSettings, num_mels: int, num_mfcc: int, mouth_px: int, seed: int
) -> LipSyncNetwork:
    """A network with fresh weights, the same for a seed."""
    seed_everything(seed)
    return LipSyncNetwork(
        NetworkConfig(
            visual_frontend=model.visual_frontend,
            temporal=model.temporal,
            hidden_dim=model.hidden_dim,
            embedding_dim=model.embedding_dim,
            dropout=model.dropout,
            num_sound_values=num_mels + num_mfcc,
            mouth_px=mouth_px,
            num_mels=num_mels,
            sound_bands=model.sound_bands,
        )
    )


def fit_ridge(takes: Sequence[Take]) -> RidgeEstimator | None:
    """The linear counterpart of a network, fitted on the same takes (of many, on some spread over all).

    None where the sound has fewer bands than it needs.
    """
    if takes[0].sound.log_mel.shape[1] < RidgeEstimator.NUM_BANDS:
        return None
    num_frames = sum(len(take.track) for take in takes)
    used = takes[:: -(-num_frames // MAX_RIDGE_FRAMES)]
    return RidgeEstimator.fit(RidgeExample(take.track, take.sound, take.offset_ms) for take in used)


def make_trainer(
    network: LipSyncNetwork,
    ridge: RidgeEstimator | None,
    takes: Sequence[Take],
    validation: Sequence[Take],
    training: TrainingSettings,
    world: World,
    *,
    run_dir: Path,
    save_dir: Path | None,
    notes: Mapping[str, object],
    resume: str = "auto",
    events_dir: Path | None = None,
) -> Trainer:
    """A trainer whose `run` trains a network, resuming an earlier run if there is one.

    Args:
        network: From `make_network`; moved to the device.
        ridge: Saved with it.
        takes: To train on.
        validation: To choose the best epoch by; may be empty: the training loss decides.
        training: Settings.
        world: Rank and device of this process.
        run_dir: For last.pth and history.
        save_dir: For the models; None: only `network` itself is trained.
        notes: Plain values that describe data and settings; a run is resumed only where they are the same
            (except for `features`).
        resume: As in `TrainerConfig`.
        events_dir: As in `TrainerConfig`.

    Raises:
        UserError: Nothing long enough to train on.
    """
    frontend = network.config.visual_frontend
    network.to(world.device)
    seed_everything(training.seed + 1 + world.rank)  # each process its own dropout
    _check_sizes([*takes, *validation], network.config)
    dataset = SegmentDataset(takes, frontend, training.seed)
    held_out = SegmentDataset(validation, frontend, training.seed, is_augmented=False) if validation else None
    for part, name in ((dataset, "training"), (held_out, "validation")):
        if part is not None and len(part) == 0:
            raise UserError(
                f"no face of {name} is seen with sound for 0.4 s, the least that can be trained on"
            )
    batches = EpochBatches(
        len(dataset), training.batch_size, seed=training.seed, rank=world.rank, world_size=world.size
    )
    if batches.batch_size < 2:
        raise UserError(f"{len(dataset)} segment to train on: at least two for each process are needed")
    task = LipSyncTask(network, ridge, training.weight_decay, world, held_out, save_dir, notes)
    # What a resumed run must have in common with the earlier one; the rest may change in between.
    lasting = asdict(training) | {"split": list(training.split)}
    for free in ("num_epochs", "checkpoint_interval", "device", "num_workers"):
        del lasting[free]
    lasting_notes = {name: value for name, value in notes.items() if name not in ("features", "clock")}
    config = TrainerConfig(
        save_dir=run_dir,
        num_epochs=training.num_epochs,
        learning_rate=training.learning_rate,
        warmup=WARMUP,
        clip_norm=CLIP_NORM,
        checkpoint_interval=CHECKPOINT_INTERVAL,
        save_interval=training.checkpoint_interval,
        resume=resume,
        kind=KIND,
        folder_option="--set paths.checkpoint_dir",
        settings={**lasting, "network": network.config.to_plain(), **lasting_notes},
        events_dir=events_dir,
    )
    loader = make_loader(dataset, batches, num_workers=training.num_workers, device=world.device)
    return Trainer(task, batches, loader, config, world)


def _check_sizes(takes: Sequence[Take], config: NetworkConfig) -> None:
    """Raises UserError where the sizes of clips differ from those of the settings, and so of the network."""
    for take in takes:
        num_values = take.sound.log_mel.shape[1] + take.sound.mfcc.shape[1]
        faults = []
        if num_values != config.num_sound_values:
            faults.append(("audio.num_mels and num_mfcc", num_values, config.num_sound_values))
        side = take.track.mouths.shape[1]
        if config.visual_frontend == MOUTH_CNN and side != config.mouth_px:
            faults.append(("data.mouth_crop_px", side, config.mouth_px))
        for name, size, expected in faults:
            raise UserError(
                f"{take.name}: processed with {size} instead of {expected}: run data_processing.py again or "
                f"give its {name}"
            )


class Notes(TypedDict):
    """Plain values that describe what a model is trained on: numbers by part, clock, hash of the split."""

    audio: dict[str, object]
    features: str
    data: dict[str, object]
    clock: int
    split_hash: str
    num_clips: dict[str, int]
    num_speakers: dict[str, int]


def notes_of(settings: Settings, split: Split, clock: int = CLOCK) -> Notes:
    """The notes of a run on these clips, the oldest of which has that clock."""
    return {
        "audio": settings.audio.sizes(),
        "features": settings.audio.features,
        "data": {"mouth_crop_px": settings.data.mouth_crop_px},
        "clock": clock,
        "split_hash": split.hash,
        "num_clips": {part: len(getattr(split, part)) for part in PARTS},
        "num_speakers": {part: len({entry.group for entry in getattr(split, part)}) for part in PARTS},
    }
