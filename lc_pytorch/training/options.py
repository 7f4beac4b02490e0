"""The options of every contrastive training program. Importing this costs no torch: `--help` is quick."""

from __future__ import annotations

import argparse

from facevox import cli
from facevox.errors import ExitCode
from facevox.training.interval import Interval


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the face-voice programs say of the model and of the people's split."""
    group = parser.add_argument_group("model")
    add_face_model_arguments(group)
    group.add_argument(
        "--voice_model",
        default="facebook/wav2vec2-base",
        metavar="NAME",
        help="Wav2Vec2: a hub id, or a folder in transformers' format",
    )
    group.add_argument(
        "--audio_duration_sec",
        type=cli.positive_float,
        default=5.0,
        help="length of voice that the model hears, in seconds; shorter recordings are repeated",
    )
    group.add_argument(
        "--target_sr",
        type=cli.positive_int,
        default=16000,
        help="sample rate that the voice model takes, in Hz",
    )
    group.add_argument(
        "--voice_of",
        choices=("clip", "person"),
        default="clip",
        help="what goes with a face in training: the voice of its clip, or each time any of the person's",
    )
    people = parser.add_argument_group("people")
    people.add_argument(
        "--test_size",
        type=cli.unit_float,
        default=0.2,
        help="share of the people kept for the test, never looked at here",
    )
    people.add_argument(
        "--val_size",
        type=cli.unit_float,
        default=0.1,
        help="share of the people kept for choosing the best model; 0: choose by training loss",
    )
    add_identity_arguments(people)


def add_face_model_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds which ViT, and whether with its weights."""
    parser.add_argument(
        "--face_model",
        default="google/vit-base-patch16-224-in21k",
        metavar="NAME",
        help="ViT: a hub id, or a folder in transformers' format",
    )
    parser.add_argument(
        "--from_scratch",
        action="store_true",
        help="take the shapes of the pretrained models and random weights, nothing learnt before",
    )


def add_identity_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds how the person of a pair is known."""
    parser.add_argument(
        "--identity_csv",
        metavar="FILE",
        help="groups.csv of deduplicate_faces.py: who each face is (default: known by the paths)",
    )
    parser.add_argument(
        "--identity_regex",
        metavar="REGEX",
        help="pattern whose group, searched for in the path, is the person (default: the folder above faces/ "
        "or voices/, else the top sub-folder, else the stem)",
    )


def add_training_arguments(
    parser: argparse.ArgumentParser, *, batch_size: int = 32, num_epochs: int = 100
) -> None:
    """Adds how to train; the defaults are those of the programs' documents."""
    parser.add_argument("--save_dir", required=True, metavar="DIR", help="folder for the model and its files")
    group = parser.add_argument_group("training")
    group.add_argument("--embedding_dim", type=cli.positive_int, default=512, help="numbers per embedding")
    group.add_argument(
        "--temperature",
        type=cli.positive_float,
        default=0.07,
        help="of the loss; where a learnable one begins",
    )
    group.add_argument(
        "--learnable_temperature", action="store_true", help="learn the temperature, within 0.01 and 1"
    )
    group.add_argument(
        "--batch_size", type=cli.positive_int, default=batch_size, help="pairs of a batch, in each process"
    )
    group.add_argument(
        "--num_epochs", type=cli.positive_int, default=num_epochs, help="passes over the pairs"
    )
    group.add_argument("--learning_rate", type=cli.positive_float, default=1e-4, help="highest rate of AdamW")
    group.add_argument("--weight_decay", type=_natural_float, default=1e-4, help="of AdamW, on matrices only")
    group.add_argument(
        "--warmup",
        type=_natural_float,
        default=0.05,
        help="steps in which the rate grows; below 1 a share of all steps; then half a cosine to 0",
    )
    group.add_argument(
        "--clip_norm", type=_natural_float, default=1.0, help="longest gradient; 0: gradients are not clipped"
    )
    group.add_argument(
        "--patience",
        type=cli.natural_int,
        default=0,
        help="epochs without a better validation after which training ends; 0: never",
    )
    group.add_argument("--freeze_encoders", action="store_true", help="train the projections only")
    group.add_argument(
        "--encoder_lr_scale",
        type=_natural_float,
        default=1.0,
        help="factor on the learning rate of the encoders",
    )
    group.add_argument(
        "--layer_decay",
        type=cli.unit_float,
        default=1.0,
        help="factor on the learning rate for each layer away from the output",
    )
    group.add_argument("--seed", type=cli.natural_int, default=0, help="of split, weights, batches and crops")
    _add_machine_arguments(parser)


def _add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    group.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of the encoders; the loss is fp32"
    )
    group.add_argument(
        "--accum_freq",
        type=cli.positive_int,
        default=1,
        help="parts in which a batch goes through the encoders: less memory, same batch, same gradients",
    )
    group.add_argument(
        "--grad_checkpointing", action="store_true", help="compute activations twice: less memory, slower"
    )
    group.add_argument("--compile", action="store_true", help="compile the encoders with torch.compile")
    group.add_argument(
        "--num_workers",
        type=cli.natural_int,
        default=min(4, cli.num_cores()),
        help="processes that load pictures and sound; 0: none (default: usable cores up to 4, %(default)s)",
    )
    group.add_argument(
        "--picture_transforms",
        choices=("auto", "pillow", "torchvision"),
        default="auto",
        help="what resizes and normalises the faces of the training: pillow, in the loader processes; or "
        "torchvision, on the device. auto: torchvision on a GPU where it is installed",
    )
    group.add_argument(
        "--save_interval",
        type=cli.positive_int,
        default=5,
        help="epochs between two writes of the model files",
    )
    group.add_argument(
        "--checkpoint_interval",
        type=_interval,
        default="10m",
        metavar="N|TIME",
        help="between two writes of last.pth: steps (500) or time (30s, 10m, 2h)",
    )
    group.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|FILE",
        help="auto: go on from last.pth in --save_dir if it is there; never: begin anew; or a checkpoint",
    )
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="count, try a few steps, say what time and disk it would take, and write nothing",
    )


def _natural_float(text: str) -> float:
    """`text` as a number of at least 0 (an argparse type)."""
    return 0.0 if text.strip() in ("0", "0.0") else cli.positive_float(text)


def _interval(text: str) -> Interval:
    """`text` as an interval (an argparse type)."""
    try:
        return Interval.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def exit_code(status: str) -> int:
    """The exit code for how a training ended."""
    return {"done": ExitCode.DONE, "stopped": ExitCode.STOPPED}.get(status, ExitCode.SOME_FAILED)
