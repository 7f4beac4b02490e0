"""The demo's own face embedder."""

from pathlib import Path

import numpy as np
import pytest

from facevox.errors import UserError
from facevox_demo import embedder
from facevox_demo.example.face_pictures import FacePictures, load_pictures, picture_items
from facevox_demo.example.people import PersonItem
from facevox_demo.options import DemoEmbedderConfig
from lc_pytorch.faces.embedders import find_model
from lc_pytorch.faces.grouping import bcubed_f1, group_faces


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoEmbedderConfig, dict, list[float]]:
    folder = tmp_path_factory.mktemp("embedder")
    config = DemoEmbedderConfig(num_people=24, pictures_per_person=4, num_epochs=12, batch_size=32)
    task = FacePictures(config)
    task.open(folder)
    for item in picture_items(config):
        assert task.process(item).outputs
    task.close()
    losses: list[float] = []
    facts = embedder.train_and_export(folder, config, lambda epoch, loss: losses.append(loss))
    return folder, config, facts, losses


def test_pictures_are_aligned_faces(trained: tuple) -> None:
    folder, config, _, _ = trained
    images, labels = load_pictures(folder)
    assert images.shape[1:] == (112, 112, 3)
    assert images.dtype == np.uint8
    assert labels.max() + 1 == config.num_people + config.num_held_out
    assert np.bincount(labels).min() >= config.pictures_per_person - 1


def test_it_learns_and_tells_people_held_out_apart(trained: tuple) -> None:
    folder, config, facts, losses = trained
    assert losses[-1] < 0.5 * losses[0]
    images, labels = load_pictures(folder)
    held_out = labels >= config.num_people
    vectors = find_model(folder / "demo_embedder.onnx").load().embed(list(images[held_out]))
    found = bcubed_f1(group_faces(vectors, facts["threshold"]), labels[held_out])
    shuffled = np.random.default_rng(0).permutation(labels[held_out])
    assert found > 0.8
    assert found > bcubed_f1(group_faces(vectors, facts["threshold"]), shuffled) + 0.3


def test_onnx_file_gives_what_the_network_gives(trained: tuple) -> None:
    import torch

    folder, config, _, _ = trained
    images, _ = load_pictures(folder)
    torch.manual_seed(0)
    network = embedder.make_network(config.embedding_dim).eval()
    embedder.export_onnx(network, folder / "fresh.onnx")
    model = find_model(folder / "fresh.onnx")
    assert model.preprocessing == embedder.PREPROCESSING
    ours, theirs = embedder.embed(network, images[:7]), model.load().embed(list(images[:7]))
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_halving_ahead_is_the_first_layer() -> None:
    import torch

    images = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3), dtype=np.uint8)
    network = embedder.make_network(8).eval()
    whole = network(torch.from_numpy(embedder._normalised(images)))
    ahead = network[1:](
        torch.from_numpy(np.ascontiguousarray(embedder._normalised(embedder._halved(images))))
    )
    assert whole.detach().numpy() == pytest.approx(ahead.detach().numpy(), abs=1e-4)


def test_threshold_is_the_strictest_of_the_best() -> None:
    # Two people far apart, two pictures each at a distance of 0.18: less splits them, up to 0.6 is right.
    angles = np.array([0.0, np.arccos(0.82), 2.0, 2.0 + np.arccos(0.82)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    threshold, f1 = embedder.choose_threshold(vectors, np.repeat([0, 1], 2))
    assert f1 == 1.0
    assert threshold == pytest.approx(0.2, abs=0.001)


def test_too_few_people_are_refused() -> None:
    with pytest.raises(UserError, match=r"--num_people: 3 is not .* at least 10"):
        DemoEmbedderConfig(num_people=3)


def test_person_without_a_face_found_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = FacePictures(DemoEmbedderConfig())
    task.open(tmp_path)
    monkeypatch.setattr(task, "_aligned_faces", lambda picture: [])
    with pytest.raises(UserError, match="no face found"):
        task.process(PersonItem("person-0000", "", index=0))
    task.close()
