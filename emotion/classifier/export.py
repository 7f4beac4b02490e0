"""The trained classifier in three formats that give equal probabilities, with all that a user of it needs.

    emotion_classifier_5_classes.h5           keras.models.load_model (attribute "emotion" has the JSON)
    emotion_classifier_5_classes_savedmodel/  tf.saved_model.load, `serve` (assets.extra/emotion.json)
    emotion_classifier_5_classes.tflite       ai_edge_litert, tf.lite (a ZIP with emotion.json at its end)
    emotion_classifier_5_classes.json         classes, preprocessing, temperature, versions

All take (B, S, S, 3) float32 RGB of 0–255 and give (B, C) probabilities. The temperature is a layer of the
model: applied once more it makes them wrong.
"""

import importlib.metadata
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
import tensorflow as tf
from absl import logging

from emotion.classifier.about import FORMAT, MEMBER, About
from emotion.classifier.network import build_network, with_probabilities
from emotion.classifier.train_state import Arrays, assign_all
from facevox.files import temporary_folder, write_bytes, write_json

VERSIONED = ("tensorflow", "keras", "ai-edge-litert")


def model_name(num_classes: int) -> str:
    """Name of the files, without suffix."""
    return f"emotion_classifier_{num_classes}_classes"


def describe_model(
    class_names: Sequence[str], img_size: int, crop_margin: float, temperature: float
) -> About:
    """The description that goes into the model's files.

    Args:
        class_names: In the order of the outputs.
        img_size: S, pixels.
        crop_margin: Of the square around the face box, on each side, as a share of its longer side.
        temperature: That the model applies to its logits.
    """
    return {
        "format": FORMAT,
        "architecture": "MobileNetV3Large",
        "class_names": list(class_names),
        "preprocessing": {
            "img_size": img_size,
            "colour": "RGB",
            "dtype": "float32",
            "pixel_range": [0, 255],
            "face_box": "MediaPipe FaceMesh: the box around all landmarks",
            "crop": "square about the box's centre, its longer side and a margin; edges repeated",
            "crop_margin": crop_margin,
        },
        "outputs": "probabilities; the temperature is applied inside the model",
        "temperature": temperature,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }


def make_classifier(
    weights: Arrays,
    img_size: int,
    num_classes: int,
    dropout_rate: float,
    temperature: float,
) -> keras.Model:
    """The classifier in float32 with weights by path, outside of any strategy, nothing frozen.

    Keras writes frozen layers in another order than it reads them.

    Raises:
        UserError: The weights are another network's.
    """
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        network = build_network(img_size, num_classes, dropout_rate)
        assign_all(network.weights, weights, "the best weights")
        return with_probabilities(network, temperature)
    finally:
        keras.mixed_precision.set_global_policy(policy)


def export_model(classifier: keras.Model, about: About, model_dir: Path) -> list[Path]:
    """Writes all formats; each appears whole. Returns their paths."""
    name = model_name(len(about["class_names"]))
    model_dir.mkdir(parents=True, exist_ok=True)
    paths = [model_dir / f"{name}{end}" for end in (".h5", "_savedmodel", ".tflite", ".json")]
    with temporary_folder(model_dir) as folder:
        draft, saved_model = Path(folder, "model.h5"), Path(folder, "savedmodel")
        _save_h5(classifier, about, draft)
        classifier.export(saved_model, format="tf_saved_model", verbose=False)
        write_json(saved_model / "assets.extra" / MEMBER, about)
        tflite = convert_to_tflite(saved_model, about)
        draft.replace(paths[0])
        _replace_folder(saved_model, paths[1], Path(folder, "former"))
    write_bytes(paths[2], tflite)
    write_json(paths[3], about)
    return paths


def convert_to_tflite(saved_model: Path, about: About) -> bytes:
    """A SavedModel as TFLite in float32, with `emotion.json` and `labels.txt` in a ZIP at its end.

    TFLite ignores what follows the model, and ZIP tools what precedes the archive.

    Source: TensorFlow Lite's metadata keeps its associated files in the same way.
    """
    model = tf.lite.TFLiteConverter.from_saved_model(str(saved_model)).convert()
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(MEMBER, json.dumps(about, ensure_ascii=False, indent=2))
        archive.writestr("labels.txt", "\n".join(about["class_names"]) + "\n")
    return buffer.getvalue()


def _save_h5(classifier: keras.Model, about: About, path: Path) -> None:
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # Keras calls the format legacy at each save; it is meant
    try:
        classifier.save(path)
    finally:
        logging.set_verbosity(level)
    with h5py.File(path, "a") as file:
        file.attrs["emotion"] = json.dumps(about, ensure_ascii=False)


def _replace_folder(new: Path, target: Path, former: Path) -> None:
    """`new` takes the place of the folder `target`; for a moment between, readers find none."""
    if target.exists():
        target.replace(former)
    new.replace(target)
    shutil.rmtree(former, ignore_errors=True)
