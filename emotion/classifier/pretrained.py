"""The backbone's first weights: ImageNet's by Keras, those in a file, or random ones."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from facevox.downloads import answers
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault

if TYPE_CHECKING:
    import keras

IMAGENET, NONE = "imagenet", "none"
# As keras.applications names, places and fetches it; the hash is Keras' own.
FILE_NAME = "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"
LARGEST_RATIO = 2  # of the bytes of all weights to those of the file: they hardly get smaller when packed
SERVER = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v3/"


def backbone_file(setting: str) -> Path | None:
    """The file that BACKBONE_WEIGHTS stands for, or None for none: from scratch.

    Nothing is imported or downloaded, so that a missing file is reported at once.

    Raises:
        UserError: The file is missing, and for ImageNet's weights no server answers.
    """
    if setting == NONE:
        return None
    if setting != IMAGENET:
        path = Path(setting).expanduser()
        if not path.is_file():
            raise UserError(
                f"BACKBONE_WEIGHTS={setting}: no such file; give imagenet, none (from scratch) or the path "
                "of MobileNetV3Large weights (.h5)"
            )
        return path
    path = imagenet_file()
    fault = file_fault(path, "weights")
    if (fault or not path.is_file()) and not answers(SERVER + FILE_NAME):
        state = f"in {path.parent} is {fault}, and" if fault else f"is not in {path.parent} and"
        raise UserError(
            f"BACKBONE_WEIGHTS=imagenet: {FILE_NAME} {state} cannot be fetched now: put "
            "it there, run `make weights` where there is a network, or train from scratch with "
            "BACKBONE_WEIGHTS=none"
        )
    return path


def imagenet_file() -> Path:
    """Path at which Keras keeps its ImageNet weights of MobileNetV3Large without the top."""
    home = os.environ.get("KERAS_HOME") or str(Path("~/.keras").expanduser())
    return Path(home, "models", FILE_NAME)


def load_backbone(backbone: "keras.Model", setting: str) -> None:
    """Puts the weights of BACKBONE_WEIGHTS into a backbone of `emotion.classifier`; none: it stays as it is.

    Raises:
        UserError: The file is missing, cannot be fetched, or is not of MobileNetV3Large.
    """
    path = backbone_file(setting)
    if path is None:
        return
    if setting == IMAGENET and (not path.is_file() or file_fault(path, "weights")):
        _fetch(path)
    try:
        _check_arrays(path)
        backbone.load_weights(path)
    except Exception as error:  # h5py and Keras raise OSError, ValueError, KeyError … on other files
        raise UserError(
            f"BACKBONE_WEIGHTS={setting}: {path} does not hold MobileNetV3Large without its top: "
            f"{file_fault(path, 'weights') or one_line(error, 120)}"
        ) from None


def _check_arrays(path: Path) -> None:
    """Refuses arrays that add up to more than the file: HDF5 states any size, packed or without any bytes."""
    import h5py

    num_bytes = 0

    def add(name: str, item: object) -> None:
        nonlocal num_bytes
        num_bytes += item.nbytes if isinstance(item, h5py.Dataset) else 0

    with h5py.File(path) as file:
        file.visititems(add)
    if num_bytes > LARGEST_RATIO * path.stat().st_size:
        raise ValueError(f"its arrays state {num_bytes} bytes, more than can be in it")


def download_imagenet() -> None:
    """Puts ImageNet's weights where Keras keeps them; Keras' errors come through."""
    import keras  # here: the functions above serve programs that do without TensorFlow

    keras.applications.MobileNetV3Large(include_top=False, weights=IMAGENET, input_shape=(224, 224, 3))


def _fetch(path: Path) -> None:
    try:
        download_imagenet()
    except Exception as error:
        raise UserError(
            f"BACKBONE_WEIGHTS=imagenet: {FILE_NAME} could not be fetched ({one_line(error, 120)}): put it "
            f"into {path.parent}, or run `make weights` where there is a network"
        ) from None
