"""The classifier and the analyser that server and local runner share."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from face_pictures import frame_of_faces
from small_classifier import (
    CLASSES,
    MARGIN,
    NAME,
    SIZE,
    about,
    expected_probabilities,
    write_small_classifier,
)

from emotion.data.crops import cut_square, face_box, square_around
from emotion.live import analysis
from emotion.live.analysis import Classifier, FaceAnalyser, find_model, translate_labels
from facevox.errors import UserError
from facevox.mesh.face_mesh import FaceMesh


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_classifier(tmp_path_factory.mktemp("small model"))


def test_probabilities_equal_the_formula(model_path: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    crops[1] //= 3
    crops[2, ..., 0] = 255
    classifier = Classifier(model_path)
    assert classifier.class_names == CLASSES
    np.testing.assert_allclose(classifier.predict(crops), expected_probabilities(crops), atol=1e-5)
    assert classifier.predict(crops[:0]).shape == (0, 5)


def test_faces_are_cropped_as_in_training(model_path: Path) -> None:
    image = frame_of_faces(3)
    with FaceMesh(static=True, max_faces=4, heads="none") as mesh:
        boxes = sorted(face_box(landmarks) for landmarks in mesh.find(image))
    assert len(boxes) == 3
    crops = np.stack([cut_square(image, square_around(box, MARGIN), SIZE) for box in boxes])
    with FaceAnalyser(Classifier(model_path), max_faces=4) as analyser:
        faces = analyser.analyse(image, 0.0)
        again = analyser.analyse(image, 0.1)
        analyser.reset()
        anew = analyser.analyse(image, 0.2)
    for face, box in zip(faces, boxes, strict=True):
        np.testing.assert_allclose(face.box, (box.left, box.top, box.width, box.height), atol=1e-3)
    found = np.stack([face.probabilities for face in faces])
    np.testing.assert_allclose(found, expected_probabilities(crops), atol=1e-4)
    assert [face.track_id for face in faces] == [face.track_id for face in again] == [1, 2, 3]
    assert [face.track_id for face in anew] == [4, 5, 6]


def test_without_a_classifier_faces_are_found_and_nothing_is_said_of_them() -> None:
    with FaceAnalyser(None, max_faces=1) as analyser:
        (face,) = analyser.analyse(frame_of_faces(2))
        assert analyser.analyse(frame_of_faces(0)) == []
    assert (face.probabilities.shape, face.best) == ((0,), -1)


def test_newest_model_is_found_and_the_demos_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "DEMO_MODEL_DIR", tmp_path / "demo")
    models = tmp_path / "models"
    assert find_model(models) is None
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / NAME).touch()
    assert find_model(models) == tmp_path / "demo" / NAME
    models.mkdir()
    for place, name in enumerate(("emotion_classifier_7_classes.tflite", NAME, "other.tflite")):
        (models / name).touch()
        os.utime(models / name, (1000 + place, 1000 + place))
    (models / "emotion_classifier_9_classes.tflite").mkdir()
    assert find_model(models) == models / NAME


BAD_ABOUTS = {
    "another format": {"format": 2},
    "another number of classes": {"class_names": ["happy", "sad"]},
    "no names": {"class_names": 5},
    "another size": {"preprocessing": {"img_size": 64, "crop_margin": 0.25}},
    "no size": {"preprocessing": {}},
    "a size in words": {"preprocessing": {"img_size": "48", "crop_margin": 0.25}},
}


@pytest.mark.parametrize("name", BAD_ABOUTS)
def test_description_that_does_not_fit_is_an_error_that_names_the_file(name: str, tmp_path: Path) -> None:
    path = write_small_classifier(tmp_path, about(**BAD_ABOUTS[name]))
    with pytest.raises(UserError, match=NAME):
        Classifier(path)


def test_file_that_is_no_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with pytest.raises(UserError, match="no such model"):
        Classifier(path)
    for content in (b"", b"text", bytes(2000)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=NAME):
            Classifier(path)
    write_small_classifier(tmp_path, about())
    whole = path.read_bytes()
    for bad, text in (
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself"),
        (b"<html>404</html>", "a web page: the download failed"),
        (b"", r"empty \(0 bytes\)"),
        (whole[: len(whole) - 30], r"emotion\.json .* it was cut off"),
    ):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=rf"{NAME}: .*{text}"):
            Classifier(path)
    (tmp_path / "savedmodel").mkdir()
    (tmp_path / "savedmodel" / "saved_model.pb").touch()
    with pytest.raises(UserError, match=r"savedmodel: a SavedModel; give the \.tflite beside it"):
        Classifier(tmp_path / "savedmodel")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("emotion.json", " " * 2_000_000, zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="too large"):
        Classifier(path)


def test_labels_are_in_both_languages_and_unknown_classes_keep_their_names() -> None:
    assert translate_labels(["anxiety", "bored"]) == {"en": ["Anxious", "bored"], "ko": ["불안", "bored"]}


@pytest.mark.slow
def test_exported_network_answers_as_keras_does(tmp_path: Path) -> None:
    from emotion.classifier.export import describe_model, export_model
    from emotion.classifier.network import build_network, with_probabilities

    network = with_probabilities(build_network(64, 5, 0.25, seed=3), 1.5)
    export_model(network, describe_model(CLASSES, 64, 0.3, 1.5), tmp_path)
    classifier = Classifier(tmp_path / NAME)
    assert (classifier.class_names, classifier.img_size, classifier.crop_margin) == (CLASSES, 64, 0.3)
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    expected = np.asarray(network(crops.astype(np.float32), training=False))
    np.testing.assert_allclose(classifier.predict(crops), expected, atol=1e-4)


def test_face_that_fills_the_picture_is_found() -> None:
    from skimage.data import astronaut

    with FaceAnalyser(None) as analyser:
        (sighting,) = analyser.find(np.ascontiguousarray(astronaut()[80:150, 190:256])).sightings
    assert sighting.box.width > 50  # of 66; it reaches over the edge
    assert sighting.box.left < 10
