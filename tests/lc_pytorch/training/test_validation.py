"""What an epoch is worth, on the people kept for choosing the best model."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from small_training import DURATION_S, IMAGE_SIZE_PX, RATE_HZ, copy_of, make_model, next_draws, write_people
from torch import nn

from facevox.training.seeding import seed_everything
from lc_pytorch.datasets.pairs import FilePair, list_matched_pairs
from lc_pytorch.datasets.transforms import ImageTransform
from lc_pytorch.evaluation.options import PassOptions
from lc_pytorch.evaluation.readers import FaceReader, VoiceReader, media_of_pairs
from lc_pytorch.losses import symmetric_info_nce
from lc_pytorch.models import FaceVoiceModel
from lc_pytorch.training.validation import NAMES, make_validation

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[FilePair]:
    return list_matched_pairs([write_people(tmp_path_factory.mktemp("people"), 5)]).pairs


def validate(model: FaceVoiceModel, pairs: list[FilePair], **options: int) -> dict[str, float]:
    readers = FaceReader(ImageTransform(image_size=IMAGE_SIZE_PX)), VoiceReader(DURATION_S, RATE_HZ, True)
    return make_validation(*media_of_pairs(pairs, *readers), PassOptions(**options), CPU)(model)  # type: ignore[arg-type]


def test_values_are_those_of_scikit_learn_and_a_slow_loop(pairs: list[FilePair]) -> None:
    model = make_model().eval()
    found = validate(model, pairs, batch_size=3)
    assert set(found) == set(NAMES)
    assert {type(value) for value in found.values()} == {
        float
    }  # a NumPy number could not be kept in last.pth
    faces_of, voices_of = (
        FaceReader(ImageTransform(image_size=IMAGE_SIZE_PX)),
        VoiceReader(DURATION_S, RATE_HZ, True),
    )
    with torch.no_grad():
        faces = model.embed_faces(torch.stack([faces_of(pair.face) for pair in pairs]))
        voices = model.embed_voices(torch.stack([voices_of(pair.voice) for pair in pairs]))
    names = np.array([pair.identity for pair in pairs])
    scores, is_same = (faces @ voices.T).numpy(), names[:, None] == names[None]
    assert found["val_auc"] == pytest.approx(roc_auc_score(is_same.ravel(), scores.ravel()), abs=1e-6)
    hits = [names[row.argmax()] == name for row, name in zip(scores, names, strict=True)]
    hits += [names[row.argmax()] == name for row, name in zip(scores.T, names, strict=True)]
    assert found["val_top1"] == pytest.approx(np.mean(hits), abs=1e-6)
    first = [list(names).index(name) for name in sorted(set(names))]
    loss = symmetric_info_nce(faces[first], voices[first], torch.arange(5), torch.tensor(0.07))
    assert found["val_loss"] == pytest.approx(float(loss), abs=1e-5)
    assert 0 <= found["val_eer"] <= 1


def test_files_that_cannot_be_read_are_left_out(pairs: list[FilePair], tmp_path: Path) -> None:
    model = make_model().eval()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    mixed = [FilePair(broken, pairs[0].voice, pairs[0].identity), *pairs[1:]]
    found, without = validate(model, mixed), validate(model, pairs[1:])
    assert all(math.isfinite(value) for value in found.values())
    assert found["val_loss"] == pytest.approx(without["val_loss"], abs=0.5)
    alone = [FilePair(broken, pairs[0].voice, pairs[0].identity), *pairs[2:4]]
    assert all(math.isnan(value) for value in validate(model, alone).values())


def test_it_changes_neither_weights_nor_gradients(pairs: list[FilePair]) -> None:
    model = make_model().eval()
    before = copy_of(model)
    validate(model, pairs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in nn.Module.modules(model))


def test_numbers_of_a_run_do_not_depend_on_how_files_are_read(pairs: list[FilePair]) -> None:
    model = make_model().eval()
    draws = []
    values = []
    for options in ({"batch_size": 3}, {"batch_size": 100, "num_workers": 1}):
        seed_everything(1)
        values.append(validate(model, pairs, **options))
        draws.append(next_draws())
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert draws[0] == draws[1]
