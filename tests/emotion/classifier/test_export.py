"""The three formats of the network: equal outputs in a process that knows nothing of training."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from emotion.classifier import backbone
from emotion.classifier.averaging import StatisticsProbe
from emotion.classifier.export import describe_model, export_model, make_classifier, model_name
from emotion.classifier.network import batch_norms, build_network
from emotion.scores.calibration import log_probabilities
from facevox.errors import UserError
from facevox.files import read_json

SIZE, CLASSES, TEMPERATURE = 64, ("happy", "sad", "neutral", "embarrassed", "anxiety"), 1.7
NAME = "emotion_classifier_5_classes"
FORMATS = ("tflite", "savedmodel", "h5")
# Each format in its turn with what it needs and no more: importing that is what takes the time.
LOADERS = """
import sys, traceback
import numpy as np

path, images = sys.argv[1], np.load("images.npy")

def tflite():
    from ai_edge_litert.interpreter import Interpreter
    model = Interpreter(path + ".tflite")
    index = model.get_input_details()[0]["index"]
    model.resize_tensor_input(index, images.shape)
    model.allocate_tensors()
    model.set_tensor(index, images)
    model.invoke()
    assert "tensorflow" not in sys.modules
    return model.get_tensor(model.get_output_details()[0]["index"])

def savedmodel():
    import tensorflow as tf
    model = tf.saved_model.load(path + "_savedmodel")
    return model.serve(images)

def h5():
    import keras
    model = keras.models.load_model(path + ".h5", compile=False)
    return model(images, training=False)

for load in (tflite, savedmodel, h5):
    try:
        np.save(load.__name__ + ".npy", np.asarray(load()))
    except Exception:
        traceback.print_exc()
"""


# A block of every kind: of both activations, with and without a squeeze, a stride, an added input.
SOME_BLOCKS = (*backbone.BLOCKS[1:4], *backbone.BLOCKS[9:12])


@pytest.fixture(
    scope="module",
    params=[SOME_BLOCKS, pytest.param(backbone.BLOCKS, marks=pytest.mark.slow)],
    ids=["some blocks", "all blocks"],
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, np.ndarray]:
    """The folder, pictures, and their probabilities by the network itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "BLOCKS", request.param)
        return export_small_pictures(tmp_path_factory.mktemp("models 모델"))


def export_small_pictures(folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    import tensorflow as tf

    network = build_network(SIZE, len(CLASSES), 0.25, seed=3)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
    images[1] /= 4
    images[2, :, :32] = 0
    # Statistics that fit, as a trained network's do: others blow rounding errors up from layer to layer.
    probe = StatisticsProbe(network, batch_norms(network.layers), tf.distribute.get_strategy())
    probe.update(iter([(images,)]))
    # As fine-tuning leaves a network: frozen layers would change the order of the weights in a file.
    for layer in network.layers[: len(network.layers) // 2]:
        layer.trainable = False
    last = network.get_layer("logits")
    last.kernel.assign(2 * last.kernel / np.abs(np.asarray(network(images, training=False))).max())
    logits = np.asarray(network(images, training=False))  # small enough for shares between 0 and 1
    weights = {weight.path: weight.numpy() for weight in network.weights}
    classifier = make_classifier(weights, SIZE, len(CLASSES), 0.25, TEMPERATURE)
    (folder / f"{NAME}_savedmodel").mkdir()
    (folder / f"{NAME}_savedmodel" / "of an earlier model").touch()
    export_model(classifier, describe_model(CLASSES, SIZE, 0.25, TEMPERATURE), folder)
    return folder, images, np.exp(log_probabilities(logits, TEMPERATURE))


@pytest.fixture(scope="module")
def loaded(
    exported: tuple[Path, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of what a fresh process made of the pictures with each format, and its complaints."""
    folder = tmp_path_factory.mktemp("loaded")
    np.save(folder / "images.npy", exported[1])
    done = subprocess.run(
        [sys.executable, "-c", LOADERS, str(exported[0] / NAME)],
        cwd=folder, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return folder, done.stderr


@pytest.mark.parametrize("format_name", FORMATS)
def test_format_loads_in_a_fresh_process_with_equal_outputs(
    format_name: str, exported: tuple[Path, np.ndarray, np.ndarray], loaded: tuple[Path, str]
) -> None:
    probabilities = exported[2]
    assert 0.25 < probabilities.max() < 0.9
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.01
    folder, complaints = loaded
    assert (folder / f"{format_name}.npy").is_file(), complaints[-4000:]
    np.testing.assert_allclose(np.load(folder / f"{format_name}.npy"), probabilities, atol=1e-4)


def test_every_format_carries_labels_preprocessing_and_temperature(
    exported: tuple[Path, np.ndarray, np.ndarray],
) -> None:
    import h5py

    folder = exported[0]
    about = read_json(folder / f"{NAME}.json")
    assert about["class_names"] == list(CLASSES)
    assert about["preprocessing"]["img_size"] == SIZE
    assert about["preprocessing"]["crop_margin"] == 0.25
    assert about["temperature"] == TEMPERATURE
    with h5py.File(folder / f"{NAME}.h5") as file:
        assert json.loads(file.attrs["emotion"]) == about
    assert read_json(folder / f"{NAME}_savedmodel" / "assets.extra" / "emotion.json") == about
    with zipfile.ZipFile(folder / f"{NAME}.tflite") as archive:
        assert json.loads(archive.read("emotion.json")) == about
        assert archive.read("labels.txt").decode().split() == list(CLASSES)


def test_export_leaves_nothing_but_the_model(exported: tuple[Path, np.ndarray, np.ndarray]) -> None:
    ends = (".h5", ".json", ".tflite", "_savedmodel")
    assert sorted(path.name for path in exported[0].iterdir()) == [f"{NAME}{end}" for end in ends]
    assert not (exported[0] / f"{NAME}_savedmodel" / "of an earlier model").exists()


def test_name_tells_the_number_of_classes() -> None:
    assert model_name(7) == "emotion_classifier_7_classes"


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(UserError, match="not of this network"):
        make_classifier({"conv/kernel": np.zeros(3)}, 32, 5, 0.25, 1.0)
