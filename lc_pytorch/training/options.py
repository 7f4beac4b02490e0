"""The options of every contrastive training program. Importing this costs no torch: `--help` is quick."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from facevox import cli, spreadsheets
from facevox.options import (
    DEVICE,
    Kind,
    Options,
    choice,
    declared,
    number,
    option,
    path,
    required,
    switch,
    text,
    whole,
)
from facevox.training.schedule import Interval
from lc_pytorch.choices import DEFAULT_FACE_MODEL, DEFAULT_VOICE_MODEL, PICTURE_TRANSFORMS, PRECISIONS


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """Settings of a contrastive training of two towers."""

    save_dir: Path = required(path(), "folder for the model and its files", metavar="DIR")
    embedding_dim: int = option(512, whole(1), "numbers per embedding", group="training")
    temperature: float = option(
        0.07, number(is_above=True), "of the loss; where a learnable one begins", group="training"
    )
    learnable_temperature: bool = option(
        False, switch(), "learn the temperature, within 0.01 and 1", group="training"
    )
    batch_size: int = option(
        32,
        whole(2),  # one pair alone has no negative
        "pairs of a batch, in each process",
        group="training",
    )
    num_epochs: int = option(100, whole(1), "passes over the pairs", group="training")
    learning_rate: float = option(1e-4, number(is_above=True), "highest rate of AdamW", group="training")
    weight_decay: float = option(1e-4, number(), "of AdamW, on matrices only", group="training")
    warmup: float = option(
        0.05,
        number(),
        "steps in which the rate grows; below 1 a share of all steps; then half a cosine to 0",
        group="training",
    )
    clip_norm: float = option(
        1.0, number(), "longest gradient; 0: gradients are not clipped", group="training"
    )
    patience: int = option(
        0,
        whole(0),
        "epochs without a better validation after which training ends; 0: never",
        group="training",
    )
    freeze_encoders: bool = option(False, switch(), "train the projections only", group="training")
    encoder_lr_scale: float = option(
        1.0, number(), "factor on the learning rate of the encoders", group="training"
    )
    layer_decay: float = option(
        1.0,
        number(0, 1, is_above=True),
        "factor on the learning rate for each layer away from the output",
        group="training",
    )
    seed: int = option(0, whole(0), "of split, weights, batches and crops", group="training")
    device: str = option("auto", DEVICE, "where to compute", group="machine")
    precision: str = option("fp32", choice(*PRECISIONS), "of the encoders; the loss is fp32", group="machine")
    accum_freq: int = option(
        1,
        whole(1),
        "parts in which a batch goes through the encoders: less memory, same batch, same gradients",
        group="machine",
    )
    grad_checkpointing: bool = option(
        False, switch(), "compute activations twice: less memory, slower", group="machine"
    )
    compile: bool = option(False, switch(), "compile the encoders with torch.compile", group="machine")
    num_workers: int = option(
        0,
        whole(0),
        "processes that load pictures and sound; 0: none (default: usable cores up to 4, %(default)s)",
        flag_default=lambda: min(4, cli.num_cores()),
        group="machine",
    )
    picture_transforms: str = option(
        "auto",
        choice(*PICTURE_TRANSFORMS),
        "what resizes and normalises the faces of the training: pillow, in the loader processes; or "
        "torchvision, on the device. auto: torchvision on a GPU where it is installed",
        group="machine",
    )
    save_interval: int = option(5, whole(1), "epochs between two writes of the model files", group="machine")
    checkpoint_interval: Interval = option(
        Interval(seconds=600.0),
        Kind(Interval.parse, "an interval", lambda value: isinstance(value, Interval)),
        "between two writes of last.pth: steps (500) or time (30s, 10m, 2h)",
        metavar="N|TIME",
        group="machine",
    )
    resume: str = option(
        "auto",
        text(),
        "auto: resume from last.pth in --save_dir if it exists; never: start from scratch; or a checkpoint",
        metavar="auto|never|FILE",
        group="machine",
    )
    dry_run: bool = option(
        False,
        switch(),
        "count, try a few steps, report what time and disk it would take, and write nothing",
        group="machine",
    )
    spreadsheet_safe: bool = option(False, switch(), spreadsheets.HELP, group="machine")
    face_model: str = option(
        DEFAULT_FACE_MODEL,
        text(),
        "ViT: a hub id, or a folder in transformers' format",
        metavar="NAME",
        group="model",
    )
    from_scratch: bool = option(
        False,
        switch(),
        "take the shapes of the pretrained models and random weights, nothing learnt before",
        group="model",
    )

    def contradictions(self) -> list[str]:
        """More parts than pairs."""
        if self.accum_freq <= self.batch_size:
            return []
        return [f"--accum_freq is {self.accum_freq}: it should be at most --batch_size ({self.batch_size})"]

    def lasting(self) -> dict[str, object]:
        """The settings that a resumed run must share with its start, as plain values."""
        free = {
            *("save_dir", "num_epochs", "num_workers", "resume", "checkpoint_interval", "save_interval"),
            # Where faces are resized changes the numbers no more than the device does.
            *("patience", "dry_run", "picture_transforms", "device", "spreadsheet_safe"),
        }
        return {name: value for name, value in vars(self).items() if name not in free}


@dataclass(frozen=True, kw_only=True)
class FaceVoiceConfig(TrainConfig):
    """Settings of a training of faces with voices."""

    voice_model: str = option(
        DEFAULT_VOICE_MODEL,
        text(),
        "Wav2Vec2: a hub id, or a folder in transformers' format",
        metavar="NAME",
        group="model",
    )
    audio_duration_sec: float = option(
        5.0,
        number(is_above=True),
        "length of voice that the model hears, in seconds; shorter recordings are repeated",
        group="model",
    )
    target_sr: int = option(16000, whole(1), "sample rate that the voice model takes, in Hz", group="model")
    voice_of: str = option(
        "clip",
        choice("clip", "person"),
        "what goes with a face in training: the voice of its clip, or each time any of the person's",
        group="model",
    )
    test_size: float = option(
        0.2, number(0, 1), "share of the people kept for the test, never looked at here", group="people"
    )
    val_size: float = option(
        0.1,
        number(0, 1),
        "share of the people kept for choosing the best model; 0: choose by training loss",
        group="people",
    )

    def lasting(self) -> dict[str, object]:
        """Those of the base class, without the sizes of the parts: the hash of the split covers them."""
        drawn = {"test_size", "val_size"}
        return {name: value for name, value in super().lasting().items() if name not in drawn}


def add_face_voice_options(parser: cli.Parser) -> None:
    """Adds the options of `FaceVoiceConfig`, those of every training first, and those of the identities."""
    cli.add_options(parser, TrainConfig)
    cli.add_options(parser, FaceVoiceConfig, skip=[shared.name for shared in declared(TrainConfig)])
    _add_identity_options(parser.group("people"))


def _add_identity_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options that decide who the person of a pair is."""
    parser.add_argument(
        "--identity_csv",
        type=Path,
        metavar="FILE",
        help="groups.csv of deduplicate_faces.py: who each face is (default: known by the paths)",
    )
    parser.add_argument(
        "--identity_regex",
        metavar="REGEX",
        help="pattern whose group, searched for in the path, is the person (default: the folder above faces/ "
        "or voices/, else the top sub-folder, else the stem)",
    )
