"""The start of a run of `emotion/main.py`: what it needs, checked before TensorFlow is loaded."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion.classifier.pretrained import backbone_file
from emotion.classifier.train_state import STATE_FILE, TrainState, load_state
from emotion.data.samples import Samples, read_samples
from emotion.settings import Settings
from facevox.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
TRAINING_DIR, EVALUATION_DIR = "training", "evaluation"
# The settings that shape the model: with other values it is another run.
SHAPING = (
    *("CLASS_NAMES", "IMG_SIZE", "BATCH_SIZE", "VAL_STEPS", "EPOCHS_HEAD", "EPOCHS_FINETUNE"),
    *("LEARNING_RATE_HEAD", "LEARNING_RATE_FINETUNE", "DROPOUT_RATE", "WEIGHT_DECAY", "FREEZE_BN_MODE"),
    *("UNFREEZE_FROM", "MIXUP_ALPHA", "CUTMIX_ALPHA", "P_MIXUP", "P_CUTMIX", "EMA_DECAY"),
    *("EARLY_STOPPING_PATIENCE", "REDUCE_LR_PATIENCE", "REDUCE_LR_FACTOR", "CROP_MARGIN"),
    *("BACKBONE_WEIGHTS", "SEED"),
)


@dataclass(frozen=True)
class Start:
    """Data and state that a run begins with.

    Attributes:
        save_dir: Folder of the state; exists, except in a dry run.
        train, validation: The two parts.
        about: Settings and data, which must equal those of a state.
        state: Of a run that was stopped, or None.
        is_complete: The run has ended already; there is nothing to do.
    """

    save_dir: Path
    train: Samples
    validation: Samples
    about: dict[str, Any]
    state: TrainState | None
    is_complete: bool


def check_start(settings: Settings, *, overwrite: bool, dry_run: bool = False) -> Start:
    """Checks everything that a run needs, before the first slow step; with `dry_run` it makes no folder.

    Raises:
        UserError: Pictures or the backbone's weights are missing, or the folder holds another run.
    """
    train = read_samples(settings.data_dir_train, settings.class_names, what="DATA_DIR_TRAIN")
    validation = read_samples(settings.data_dir_val, settings.class_names, what="DATA_DIR_VAL")
    shaping = {name: value for name, value in settings.as_text().items() if name in SHAPING}
    about = {"settings": shaping, "data": _fingerprint(train, validation)}
    save_dir = settings.model_dir / TRAINING_DIR
    state = None if overwrite else load_state(save_dir / STATE_FILE)
    if state is None:
        backbone_file(settings.backbone_weights)
    else:
        _check_same(state.about, about, save_dir)
    if not dry_run:
        save_dir.mkdir(parents=True, exist_ok=True)
    return Start(save_dir, train, validation, about, state, bool(state and state.about["is_complete"]))


def _check_same(former: dict[str, Any], about: dict[str, Any], save_dir: Path) -> None:
    differing = [
        f"{name}={value} (was {former['settings'].get(name, 'missing')})"
        for name, value in about["settings"].items()
        if former["settings"].get(name) != value
    ]
    if former["data"] != about["data"]:
        differing.append("the pictures of DATA_DIR_TRAIN or DATA_DIR_VAL")
    if differing:
        raise UserError(
            f"{save_dir}: holds another run: {', '.join(differing)}; use the former settings, choose "
            "another MODEL_DIR, or start again with --overwrite"
        )


def _fingerprint(train: Samples, validation: Samples) -> str:
    """Sha256 of names and targets of both parts, in order."""
    digest = hashlib.sha256()
    for part in (train, validation):
        digest.update("\0".join(part.names).encode("utf-8", "surrogateescape"))
        digest.update(part.targets.tobytes())
    return digest.hexdigest()
