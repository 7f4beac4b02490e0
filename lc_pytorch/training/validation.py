"""Scores of an epoch: the measures of the evaluation, on the people kept for choosing the best model."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lc_pytorch.evaluation.embedding_pass import Embedded, embed_files
from lc_pytorch.evaluation.options import PassOptions
from lc_pytorch.evaluation.readers import MediaFiles
from lc_pytorch.losses import LOSS
from lc_pytorch.models.face_voice import TwoTowerModel
from lc_pytorch.utils.metrics import evaluate_embeddings

NAMES = ("val_loss", "val_auc", "val_top1", "val_eer")


def make_validation(
    faces: MediaFiles, voices: MediaFiles, options: PassOptions, device: torch.device
) -> Callable[[TwoTowerModel], dict[str, float]]:
    """A function from a model to its `val_loss`, `val_auc`, `val_top1` (mean of both ways) and `val_eer`.

    Files that cannot be read are left out. All numbers are NaN where fewer than two people remain.

    Args:
        faces: Those of the validation people.
        voices: Those of the same people.
        options: How to embed.
        device: Of the model.
    """

    def validate(model: TwoTowerModel) -> dict[str, float]:
        sides = [embed_files(model, media, options, device) for media in (faces, voices)]
        names = [
            [media.identities[row] for row in side.rows.tolist()]
            for media, side in zip((faces, voices), sides, strict=True)
        ]
        if len(set(names[0]) & set(names[1])) < 2:
            return dict.fromkeys(NAMES, float("nan"))
        result = evaluate_embeddings(sides[0].vectors, sides[1].vectors, *names, top_k=(1,), choices=(2,))
        whole = result.verification["all"]
        ways = [result.retrieval[way, "all"].top_k[1].value for way in ("face_to_voice", "voice_to_face")]
        return {
            "val_loss": _loss(model, sides, names),
            "val_auc": whole.auc.value,
            "val_top1": sum(ways) / 2,
            "val_eer": whole.equal_error_rate.value,
        }

    return validate


def _loss(model: TwoTowerModel, sides: list[Embedded], names: list[list[str]]) -> float:
    """InfoNCE over one face and one voice of everybody: the first that could be read, in order of names."""
    # Person → first row: backwards, so that the first one is written last.
    first = [dict(zip(reversed(side), range(len(side) - 1, -1, -1), strict=True)) for side in names]
    people = sorted(first[0].keys() & first[1].keys())
    face_PD, voice_PD = (
        torch.from_numpy(side.vectors[[rows[name] for name in people]])
        for side, rows in zip(sides, first, strict=True)
    )
    temperature = model.temperature.detach().cpu()
    return float(LOSS(face_PD, voice_PD, torch.arange(len(people)), temperature))
