"""The description inside an exported model: what `export` writes and `emotion.live.analysis` reads.

A module of its own, because those who read it have neither TensorFlow nor Keras.
"""

from typing import TypedDict

FORMAT = 1
MEMBER = "emotion.json"  # in the ZIP at the end of a .tflite, and in a SavedModel's assets.extra/


class Preprocessing(TypedDict):
    """The way from a picture to the model's input."""

    img_size: int
    colour: str
    dtype: str
    pixel_range: list[int]
    face_box: str
    crop: str
    crop_margin: float


class About(TypedDict):
    """Description of a model."""

    format: int
    architecture: str
    class_names: list[str]
    preprocessing: Preprocessing
    outputs: str
    temperature: float
    versions: dict[str, str]
