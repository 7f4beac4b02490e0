"""The options of the HQ VoxCeleb programs. Importing this costs no torch: `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from facevox.options import Options, changed, choice, number, option, path, whole
from lc_pytorch.choices import DATASET_TYPES, MEL_DTYPES, MEL_POOLINGS
from lc_pytorch.training.options import TrainConfig

DEFAULT_DURATION_S = 1.5  # 150 frames: published crops have 100 to 150
PAIRS_PER_IDENTITY = 5  # of an evaluation


@dataclass(frozen=True, kw_only=True)
class HQConfig(TrainConfig):
    """Settings of a training of masked faces with mel spectrograms."""

    split_json_path: Path = option(
        Path("./data/HQVoxCeleb/split.json"),
        path(),
        "the split; its folder is the root of the data",
        metavar="FILE",
    )
    dataset_type: str = option("vox2", choice(*DATASET_TYPES), "which part of the data")
    converted_dir: Path | None = option(
        None, path(), "output of convert_mels.py (default: next to the spectrograms)", metavar="DIR"
    )
    audio_duration_sec: float = option(
        DEFAULT_DURATION_S,
        number(is_above=True),
        "length of the crops in seconds, of 100 mel frames each",
    )
    num_mels: int | None = option(None, whole(1), "bands of the spectrograms (default: found in the files)")
    mel_pooling: str = option(
        "flatten",
        choice(*MEL_POOLINGS),
        "flatten takes one length only; attentive and statistics (mean and deviation) take any",
    )
    batch_size: int = changed(TrainConfig, "batch_size", 16)
    num_epochs: int = changed(TrainConfig, "num_epochs", 50)

    def lasting(self) -> dict[str, object]:
        """Those of the base class without the paths of the data, which may move; people and files count."""
        paths = {"split_json_path", "converted_dir"}
        return {name: value for name, value in super().lasting().items() if name not in paths}


@dataclass(frozen=True, kw_only=True)
class HQSource(Options):
    """The data of an evaluation; None: as in the training."""

    split_json_path: Path | None = option(
        None, path(), "the split (default: the one of the training)", metavar="FILE", group="data"
    )
    dataset_type: str | None = option(
        None,
        choice(*DATASET_TYPES),
        "which part of the data (default: that of the training)",
        group="data",
    )
    converted_dir: Path | None = option(
        None,
        path(),
        "output of convert_mels.py (default: that of the training)",
        metavar="DIR",
        group="data",
    )
    pairs_per_identity: int = option(
        PAIRS_PER_IDENTITY,
        whole(1),
        "faces and spectrograms of each person, at most",
        group="data",
    )


@dataclass(frozen=True, kw_only=True)
class ConversionConfig(Options):
    """Settings of the conversion of spectrograms.

    Attributes:
        num_mels: Bands of all of them.
    """

    num_mels: int
    dtype: str = option("float32", choice(*MEL_DTYPES), "float16 halves the size, to about 0.01")
