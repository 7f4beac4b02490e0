"""Contrastive training of two towers, for any inputs: faces with sound, or faces with mels.

    result = train_contrastive(model, train_set, config, world, validate=…, save=…)

One step: the batch of all ranks goes through both towers; the loss is symmetric InfoNCE over all of it, with
samples of the same identity left out of the negatives; the optimizer is AdamW. `accum_freq` sends the batch
through the towers in parts, with the same loss and gradients; see `accumulation`.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from facevox.errors import UserError, one_line
from facevox.files import replacing
from facevox.spreadsheets import TableReader, safe_rows
from facevox.training import distributed
from facevox.training.batches import EpochBatches, make_loader
from facevox.training.distributed import World
from facevox.training.seeding import seed_everything
from facevox.training.trainer import (
    Estimate,
    ParameterGroup,
    Trainer,
    TrainerConfig,
    TrainingResult,
    TrainingTask,
)
from lc_pytorch.datasets.base import PairDataset
from lc_pytorch.datasets.device_transforms import faces_on_device
from lc_pytorch.losses import clamp_log_temperature_
from lc_pytorch.models.face_voice import TwoTowerModel
from lc_pytorch.training.accumulation import accumulated_step
from lc_pytorch.training.options import TrainConfig

logger = logging.getLogger(__name__)
BAD_FILES = "bad_files.csv"
# The two passes of an accumulated step compute the same numbers in the same order: more than rounding between
# them is a bug. bfloat16 keeps 8 bits; unit vectors then differ by up to 2**-8 in a number.
REPLAY_TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}

Batch = dict[str, Any]  # tensors; "face" may be packed for the device


class _TrainingForward(nn.Module):
    """Both embeddings and the temperature in one call: DDP synchronises what comes out of that call."""

    def __init__(self, model: TwoTowerModel, precision: str) -> None:
        super().__init__()
        self.model = model
        self._is_bf16 = precision == "bf16"

    def forward(self, faces: Tensor, voices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(faces.device.type, torch.bfloat16, enabled=self._is_bf16):
            return self.model.embed_faces(faces), self.model.embed_voices(voices), self.model.temperature


class ContrastiveTask(TrainingTask):
    """The training steps of a two-tower model, for `Trainer`.

    Args:
        model: On the device.
        second: Name of the other side in a batch: `voice` or `mel`.
        config: The settings.
        world: This process's rank and device.
        validate: Returns an epoch's validation values of the model, the same on every process; None: there
            are no people to validate on, and the best model is known by the training loss.
        save: Writes the model's files; its argument is True where this epoch is the best so far.
    """

    def __init__(
        self,
        model: TwoTowerModel,
        second: str,
        config: TrainConfig,
        world: World,
        validate: Callable[[TwoTowerModel], dict[str, float]] | None,
        save: Callable[[bool], None],
    ) -> None:
        self.model, self.towers, self.config, self.world = model, model, config, world
        self._second, self._validate, self._save = second, validate, save
        if validate is not None:
            self.best_by, self.is_best_highest = "val_auc", True
        self.bad_items: set[tuple[int, int]] = set()  # (item, epoch)
        if config.freeze_encoders:
            for encoder in model.encoders():
                encoder.requires_grad_(False)
        if config.grad_checkpointing and not config.freeze_encoders:
            _checkpoint_gradients(model.encoders())
        if config.compile:
            for encoder in model.encoders():
                encoder.compile(dynamic=False)
        self._forward = distributed.wrap(_TrainingForward(model, config.precision), world)
        self._no_sync: Callable[[], AbstractContextManager[None]] = getattr(
            self._forward, "no_sync", nullcontext
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of `parameter_groups`, by the options of the training."""
        return parameter_groups(
            self.towers,
            weight_decay=self.config.weight_decay,
            encoder_lr_scale=self.config.encoder_lr_scale,
            layer_decay=self.config.layer_decay,
        )

    def start_epoch(self) -> None:
        """Puts the model into training mode, except frozen encoders: dropout there would only add noise."""
        self.model.train()
        if self.config.freeze_encoders:
            for encoder in self.towers.encoders():
                encoder.eval()

    def backward(self, batch: Batch) -> Tensor:
        """Adds the gradients of one batch, which goes through the towers in `accum_freq` parts.

        Raises:
            RuntimeError: An encoder is not the same function in both passes: a bug.
        """
        # Where a file could not be read, the data set has put another item in its place.
        replaced = batch["index"] != batch["used_index"]
        if replaced.any():
            pairs = zip(batch["index"][replaced].tolist(), batch["epoch"][replaced].tolist(), strict=True)
            self.bad_items.update(pairs)
        device = self.world.device
        moved = [
            faces_on_device(batch["face"], device),
            batch[self._second].to(device, non_blocking=True),
        ]
        parts = list(zip(*(tensor.chunk(self.config.accum_freq) for tensor in moved), strict=True))
        result = accumulated_step(
            lambda part: self._forward(*part), parts, batch["identity"], no_sync=self._no_sync
        )
        if len(parts) > 1 and float(result.replay_error) > REPLAY_TOLERANCE[self.config.precision]:
            raise RuntimeError(
                f"the two passes of --accum_freq differ by {float(result.replay_error):.2g}: the encoders "
                "are not the same function twice"
            )
        return result.loss

    def after_step(self) -> None:
        """Keeps a learnt temperature within its bounds."""
        if self.towers.log_temperature.requires_grad:
            clamp_log_temperature_(self.towers.log_temperature)

    def validate(self, epoch: int) -> dict[str, float]:
        """The temperature, and the values of `validate` where there are people for it."""
        values = {"temperature": float(self.towers.temperature.detach())}
        return values | (self._validate(self.towers) if self._validate else {})

    def save(self, *, is_best: bool) -> None:
        """Writes the model's files by the function given to the constructor."""
        self._save(is_best)


def train_contrastive(
    model: TwoTowerModel,
    train_set: PairDataset,
    config: TrainConfig,
    world: World,
    *,
    kind: str,
    validate: Callable[[TwoTowerModel], dict[str, float]] | None,
    save: Callable[[bool], None],
    settings: Mapping[str, object],
) -> TrainingResult | Estimate:
    """Trains; resumes an earlier run of the folder where there is one.

    Args:
        model: On the CPU; built with the same seed on every process. Moved to the device.
        train_set: Its items.
        config: The settings.
        world: This process's rank and device.
        kind: Name of this training in the checkpoint.
        validate: See `ContrastiveTask`.
        save: See `ContrastiveTask`; called on the first process only.
        settings: Further values that must be the same when a run resumes (split, files).

    Returns:
        How it ended; with `dry_run`, what it would take.

    Raises:
        UserError: Too few pairs, another run in the folder, or a checkpoint that is not of this run.
    """
    model.to(world.device)
    # Each process has its own dropout; the weights have been drawn before.
    seed_everything(config.seed + 1 + world.rank)
    batches = EpochBatches(
        len(train_set), config.batch_size, seed=config.seed, rank=world.rank, world_size=world.size
    )
    if batches.batch_size < max(2, config.accum_freq):
        raise UserError(
            f"{len(train_set)} training pairs for {world.size} processes: too few for a batch of at least "
            f"{max(2, config.accum_freq)} pairs each; use more data or fewer processes"
        )
    if world.is_main and batches.batch_size < config.batch_size:
        logger.info(f"only {len(train_set)} training pairs: batches of {batches.batch_size} in each process")
    task = ContrastiveTask(model, train_set.second, config, world, validate, save)
    trainer = Trainer(
        task,
        batches,
        make_loader(
            train_set,
            batches,
            num_workers=config.num_workers,
            device=world.device,
            collate_fn=train_set.collate,
        ),
        TrainerConfig(
            save_dir=config.save_dir,
            num_epochs=config.num_epochs,
            learning_rate=config.learning_rate,
            warmup=config.warmup,
            clip_norm=config.clip_norm,
            checkpoint_interval=config.checkpoint_interval,
            save_interval=config.save_interval,
            patience=config.patience,
            resume=config.resume,
            kind=kind,
            settings=config.lasting() | dict(settings),
        ),
        world,
    )
    if config.dry_run:
        return trainer.estimate()
    result = trainer.run()
    bad_items = sorted(set().union(*distributed.gather_objects(sorted(task.bad_items))))
    if world.is_main:
        is_resumed = result.num_new_steps < result.num_steps
        _write_bad_files(config, train_set, bad_items, is_resumed)
    return result


def parameter_groups(
    model: TwoTowerModel, *, weight_decay: float, encoder_lr_scale: float, layer_decay: float
) -> list[ParameterGroup]:
    """The trainable parameters, grouped by learning rate and weight decay.

    The rate of layer l of L in an encoder is scaled by `encoder_lr_scale` × `layer_decay` ** (L - l). The
    parameters before the first layer count as one layer more; projections have the full rate.

    Source of the decay by layer: Clark et al., "ELECTRA" (2020), appendix; Bao et al., "BEiT" (2021).
    """
    depth_of: dict[int, tuple[int, int]] = {}  # id of a parameter → (its layer, layers of its encoder)
    for encoder in model.encoders():
        layers = [(parameter, _layer_number(name)) for name, parameter in encoder.named_parameters()]
        num_layers = 1 + max((layer for _, layer in layers if layer is not None), default=-1)
        # The norm outside of the layers comes after them; in a Wav2Vec2 whose layers end with their own norm
        # (no "stable" ones) it comes before.
        is_norm_first = not getattr(encoder.config, "do_stable_layer_norm", True)
        for (name, _), (parameter, layer) in zip(encoder.named_parameters(), layers, strict=True):
            is_last = layer is None and re.fullmatch(r"(encoder\.)?(layernorm|layer_norm|norm)\..*", name)
            depth = num_layers if is_last and not is_norm_first else (-1 if layer is None else layer)
            depth_of[id(parameter)] = (depth, num_layers)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        scale = 1.0
        if id(parameter) in depth_of:
            depth, num_layers = depth_of[id(parameter)]
            scale = encoder_lr_scale * layer_decay ** max(num_layers - 1 - depth, 0)
        # Biases, gains of norms and the temperature have one dimension or none: they do not decay.
        groups.setdefault((scale, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def _layer_number(name: str) -> int | None:
    """The transformer layer that a parameter of an encoder belongs to; None: it is outside of the layers."""
    match = re.search(r"(?:^|\.)layers?\.([0-9]+)\.", name)
    return int(match[1]) if match else None


def _checkpoint_gradients(encoders: Sequence[Any]) -> None:
    for encoder in encoders:
        if not getattr(encoder, "supports_gradient_checkpointing", False):
            raise UserError(
                f"--grad_checkpointing: a {encoder.config.model_type} encoder does not support it"
            )
        # The reentrant form loses the gradients where no input needs one, and DDP's hooks.
        encoder.activation_checkpointing_enable({"use_reentrant": False})


def _write_bad_files(
    config: TrainConfig, train_set: PairDataset, bad_items: Sequence[tuple[int, int]], is_resumed: bool
) -> None:
    """Lists the items replaced by others, with reasons, over all starts of a run; one row per reason."""
    file = config.save_dir / BAD_FILES
    rows_of: dict[str, list[object]] = {}
    if is_resumed and file.is_file():
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            rows_of = {row["reason"]: list(row.values()) for row in TableReader(lines)}
    if not bad_items:
        return
    for index, epoch in bad_items:
        try:
            train_set.load(index, epoch)
            reason = "readable again"
        except UserError as error:
            reason = one_line(error)
        rows_of.setdefault(reason, [index, train_set.describe(index, epoch), reason])
    with replacing(file, "w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        rows: list[list[object]] = [["item", "files", "reason"], *rows_of.values()]
        csv.writer(out).writerows(safe_rows(rows) if config.spreadsheet_safe else rows)
    num_items = len({index for index, _ in bad_items})
    logger.info(f"{num_items} pairs could not be read and were replaced by others: see {file}")
