"""Embedding models: DeepFace's equal DeepFace, ONNX files of several shapes, clear refusals."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from face_models import make_onnx

from facevox.errors import UserError
from lc_pytorch.faces import embedders
from lc_pytorch.faces.embedders import MODEL_NAMES, find_model, make_embedder, weight_file
from lc_pytorch.faces.onnx_models import METADATA_KEY

SOME_FACES = [
    np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    for seed, shape in enumerate([(160, 120, 3), (40, 64, 3), (200, 200, 3), (7, 5, 3)])
]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def expected_vectors(faces, mean, deviation):
    """The small network in NumPy."""
    pixels = (np.stack(faces).astype(np.float64) - np.array(mean)) / np.array(deviation)
    patches = pixels.transpose(0, 3, 1, 2).reshape(len(faces), 3, 4, 28, 4, 28).mean(axis=(3, 5))
    projection = np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32)
    return unit(patches.reshape(len(faces), -1) @ projection)


ALIGNED = [np.random.default_rng(s).integers(0, 256, (112, 112, 3), dtype=np.uint8) for s in range(5)]


@pytest.mark.parametrize("batch", [1, 2, "batch"])
@pytest.mark.parametrize(
    ("preprocessing", "mean", "deviation"),
    [
        ("insightface", [127.5] * 3, [127.5] * 3),
        ("imagenet", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
        ("raw", [0.0] * 3, [1.0] * 3),
    ],
)
@pytest.mark.numeric
def test_onnx_vectors_equal_numpys_whatever_the_batch(tmp_path, batch, preprocessing, mean, deviation):
    file = make_onnx(tmp_path / "model.onnx", batch=batch)
    vectors = make_embedder(file, preprocessing=preprocessing).embed(ALIGNED)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected_vectors(ALIGNED, mean, deviation), atol=1e-5)


def test_auto_preprocessing_reads_the_metadata_then_the_graph(tmp_path):
    plain = find_model(make_onnx(tmp_path / "plain.onnx"))
    own = find_model(make_onnx(tmp_path / "own.onnx", own_normalisation=True))
    named = find_model(make_onnx(tmp_path / "named.onnx", metadata={METADATA_KEY: "imagenet"}))
    assert (plain.preprocessing, own.preprocessing, named.preprocessing) == ("insightface", "raw", "imagenet")
    asked = find_model(tmp_path / "named.onnx", preprocessing="raw")
    assert asked.preprocessing == "raw"
    assert asked.key != named.key
    odd = make_onnx(tmp_path / "odd.onnx", metadata={METADATA_KEY: "caffe"})
    with pytest.raises(UserError, match="caffe"):
        find_model(odd)


def test_the_key_follows_the_content_of_the_file_and_not_its_place(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    first = find_model(make_onnx(tmp_path / "model.onnx"))
    copy = find_model(make_onnx(tmp_path / "elsewhere" / "model.onnx"))
    other = find_model(make_onnx(tmp_path / "model.onnx", num_values=9))
    assert first.key == copy.key != other.key
    assert first.default_threshold is None
    assert first.num_aligned_points == 5
    assert "insightface" in first.description


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"no model at all"),
        lambda path: path.write_bytes(b""),
        lambda path: make_onnx(path, channels=1),
    ],
)
def test_a_file_that_is_no_face_embedding_model_is_refused_in_one_line(tmp_path, make):
    file = tmp_path / "model.onnx"
    make(file)
    with pytest.raises(UserError, match=r"model\.onnx") as caught:
        find_model(file)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_valid_ones_and_a_missing_file_is_named():
    with pytest.raises(UserError, match="Facenet, Facenet512, VGG-Face, OpenFace"):
        find_model("FaceNet")
    with pytest.raises(UserError, match=r"nowhere\.onnx: no such file"):
        find_model("nowhere.onnx")
    with pytest.raises(UserError, match="insightface, imagenet, raw"):
        find_model("Facenet", preprocessing="caffe")


def test_missing_weights_are_asked_for_once_and_named_with_their_folder(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setattr("lc_pytorch.faces.weights.answers", lambda url: bool(asked.append(url)))
    with pytest.raises(UserError) as caught:
        find_model("Facenet")
    assert len(asked) == 1
    text = str(caught.value)
    assert "facenet_weights.pth" in text
    assert str(tmp_path / ".deepface" / "weights") in text
    assert "make weights" in text
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_a_package_that_is_missing_names_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install insightface"):
        find_model("Buffalo_L")


def random_weights(home: Path, name: str, make) -> Path:
    """Random weights of one of DeepFace's networks where DeepFace looks for them."""
    import torch

    torch.manual_seed(0)
    file = home / ".deepface" / "weights" / weight_file(name).name
    file.parent.mkdir(parents=True, exist_ok=True)
    network = make()
    for buffer_name, buffer in network.named_buffers():
        if buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture
def deepface_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    modeling, _ = embedders._import_deepface()
    modeling.cached_models = {task: {} for task in modeling.AVAILABLE_MODELS}
    yield tmp_path
    modeling.cached_models = {task: {} for task in modeling.AVAILABLE_MODELS}


def network_of(name):
    if name == "DeepID":
        from deepface.models.facial_recognition.pytorch.DeepID import DeepIdNet

        return DeepIdNet
    from deepface.models.facial_recognition.pytorch.Facenet import InceptionResNetV1

    return InceptionResNetV1


@pytest.mark.parametrize("name", ["DeepID", "Facenet"])
def test_vectors_equal_those_of_deepface_represent(deepface_home, name):
    random_weights(deepface_home, name, network_of(name))
    model = find_model(name)
    faces = SOME_FACES if name == "DeepID" else SOME_FACES[:2]  # Facenet takes seconds
    vectors = model.load().embed(faces)
    from deepface import DeepFace

    for face, vector in zip(faces, vectors, strict=True):
        theirs = DeepFace.represent(
            np.ascontiguousarray(face[..., ::-1]), model_name=name, detector_backend="skip"
        )
        np.testing.assert_allclose(vector, unit(np.array(theirs[0]["embedding"])), atol=2e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    np.testing.assert_allclose(model.load("cpu").embed(SOME_FACES[:1])[0], vectors[0], atol=2e-5)


def test_the_key_of_a_deepface_model_follows_its_weights(deepface_home):
    file = random_weights(deepface_home, "DeepID", network_of("DeepID"))
    before = find_model("DeepID").key
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:16] in before
    file.write_bytes(file.read_bytes() + b"x")
    assert find_model("DeepID").key != before


def test_broken_weights_are_refused_and_never_replaced_by_random_ones(deepface_home):
    file = deepface_home / ".deepface" / "weights" / "deepid_weights.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xfehalf a download")
    with pytest.raises(UserError, match=r"deepid_weights\.pth is broken"):
        find_model("DeepID").load()
    file.write_bytes(b"<html>half a download</html>")
    with pytest.raises(UserError, match=r"deepid_weights\.pth is a web page: the download failed"):
        find_model("DeepID").load()
    (pointer := deepface_home / "face.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"face\.onnx: a Git LFS pointer, not the file itself: run git lfs"):
        find_model(pointer)


def test_tables_equal_those_of_deepface(deepface_home):
    import importlib
    import inspect

    from deepface.config.threshold import thresholds
    from deepface.modules.modeling import AVAILABLE_MODELS

    assert set(MODEL_NAMES) == set(AVAILABLE_MODELS["facial_recognition"])
    for name in MODEL_NAMES:
        model = embedders._DEEPFACE_MODELS[name]
        assert model.threshold == thresholds[name]["cosine"]
        sources = AVAILABLE_MODELS["facial_recognition"][name]
        source = inspect.getsource(
            importlib.import_module((sources.get("pytorch") or sources["any"]).rpartition(".")[0])
        )
        assert Path(model.weight_file).name in source
        assert f"self.input_shape = {model.input_size}" in source
        assert all(url in source for url in model.weights.urls)


def test_tensorflow_is_not_imported_and_the_home_folder_stays_empty(tmp_path):
    """In a process of its own: TensorFlow may be imported here already."""
    make_onnx(tmp_path / "model.onnx")
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import sys; from lc_pytorch.faces.embedders import *; from lc_pytorch.faces import embedders\n"
        "find_model(sys.argv[1]).load(); embedders._import_deepface()\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model.onnx")],
        check=True,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[3],
    )
    assert list(home.iterdir()) == []


def test_a_vector_of_zeros_comes_out_as_nan(tmp_path):
    file = make_onnx(tmp_path / "model.onnx")
    vectors = make_embedder(file, preprocessing="raw").embed([np.zeros((112, 112, 3), np.uint8), ALIGNED[0]])
    assert np.isnan(vectors[0]).all()
    assert np.isfinite(vectors[1]).all()


@pytest.mark.real_data
def test_a_real_model_tells_people_apart_with_either_preprocessing(real_data_dir):
    from facevox.faces import align_five_points
    from facevox.files import read_image
    from lc_pytorch.faces.face_locator import FaceLocator

    files = [
        real_data_dir / "faces" / "mux" / person / f"{person}_{number}.jpg"
        for person, numbers in (("Laura_Bush", ("0022", "0025")), ("Andre_Agassi", ("0016", "0018")))
        for number in numbers
    ]
    with FaceLocator() as locator:
        faces = [align_five_points(image, locator.find(image).points) for image in map(read_image, files)]
    for preprocessing in ("insightface", "imagenet"):
        model = find_model(real_data_dir / "weights" / "MobileFaceNet.onnx", preprocessing=preprocessing)
        vectors = model.load().embed(faces)
        assert vectors.shape == (4, 128)
        similarity = vectors @ vectors.T
        assert min(similarity[0, 1], similarity[2, 3]) > 0.5
        assert similarity[:2, 2:].max() < 0.3
