"""The two summary numbers against a slow loop and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader

from facevox.errors import UserError
from lc_pytorch.datasets.base import PairDataset
from lc_pytorch.utils.evaluator import evaluate_summary_metrics


class Towers(nn.Module):
    """A linear map for each side, and dropout that must not act."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.face, self.voice = nn.Linear(12, size), nn.Linear(20, size)
        self.drop = nn.Dropout(0.5)

    def embed_faces(self, faces: Tensor) -> Tensor:
        return nn.functional.normalize(self.drop(self.face(faces.flatten(1))), dim=1)

    def embed_voices(self, voices: Tensor) -> Tensor:
        return nn.functional.normalize(self.drop(self.voice(voices.flatten(1))), dim=1)


class Pairs(PairDataset):
    second = "voice"

    def load(self, index: int, epoch: int | None) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        shape = (4, 5) if self.second == "mel" else (20,)
        return {
            "face": torch.randn(3, 2, 2, generator=generator),
            self.second: torch.randn(shape, generator=generator),
        }

    def describe(self, index: int) -> str:
        return str(index)


class MelPairs(Pairs):
    second = "mel"


def slow(model: Towers, dataset: Pairs) -> tuple[float, float]:
    model.eval()
    items = [dataset[index] for index in range(len(dataset))]
    with torch.inference_mode():
        faces = model.embed_faces(torch.stack([item["face"] for item in items]))
        voices = model.embed_voices(torch.stack([item[dataset.second] for item in items]))
    scores = (faces @ voices.T).numpy()
    names = np.array(dataset.identities)
    hits = [names[row.argmax()] == name for row, name in zip(scores, names, strict=True)]
    return float(np.mean(hits)), float(roc_auc_score((names[:, None] == names).ravel(), scores.ravel()))


@pytest.mark.parametrize("kind", [Pairs, MelPairs])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_numbers_are_those_of_a_loop_over_all_pairs(kind: type[Pairs], batch_size: int) -> None:
    dataset = kind([f"person {n % 11}" for n in range(40)])  # three or four pairs of each
    model = Towers().train()
    found = evaluate_summary_metrics(model, DataLoader(dataset, batch_size=batch_size), "cpu")
    assert [type(number) for number in found] == [float, float]
    assert model.training  # left as it was
    np.testing.assert_allclose(found, slow(model, dataset), atol=1e-6)


def test_order_of_the_loader_does_not_matter() -> None:
    dataset, model = Pairs([f"person {n % 5}" for n in range(30)]), Towers()
    generator = torch.Generator().manual_seed(1)
    shuffled = DataLoader(dataset, batch_size=4, shuffle=True, generator=generator)
    plain = evaluate_summary_metrics(model, DataLoader(dataset, batch_size=8), "cpu")
    np.testing.assert_allclose(evaluate_summary_metrics(model, shuffled, "cpu"), plain, atol=1e-6)


def test_one_embedding_for_everybody_gives_chance() -> None:
    dataset, model = Pairs([f"person {n % 4}" for n in range(20)]), Towers()
    for tower in (model.face, model.voice):
        nn.init.zeros_(tower.weight)
        nn.init.ones_(tower.bias)
    top_1, auc = evaluate_summary_metrics(model, DataLoader(dataset, batch_size=20), "cpu")
    assert top_1 == pytest.approx(5 / 20)
    assert auc == pytest.approx(0.5)


def test_one_identity_is_refused() -> None:
    with pytest.raises(UserError, match="1 identity in the loader"):
        evaluate_summary_metrics(Towers(), DataLoader(Pairs(["only"] * 3)), "cpu")


def test_batch_without_voices_is_refused_and_names_them() -> None:
    batch = {"face": torch.zeros(2, 3, 2, 2), "identity": torch.arange(2)}
    with pytest.raises(UserError, match="without voice"):
        evaluate_summary_metrics(Towers(), [batch], "cpu")
