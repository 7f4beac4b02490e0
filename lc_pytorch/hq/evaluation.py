"""Whom an evaluation on HQ VoxCeleb tests, and with which files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facevox.errors import UserError
from lc_pytorch.datasets.splits import load_split
from lc_pytorch.evaluation.readers import MediaFiles, make_face_reader
from lc_pytorch.evaluation.subjects import Subjects, choose_subjects, require_same_people
from lc_pytorch.hq.dataset import MelSettings, load_people
from lc_pytorch.hq.options import HQSource
from lc_pytorch.hq.readers import media_of_people
from lc_pytorch.hq.training import KIND
from lc_pytorch.models.store import TrainedModel
from lc_pytorch.training.run import SPLIT_FILE


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What to hand to `evaluate_model`.

    Attributes:
        faces: The pictures.
        mels: The spectrograms.
        subjects: The people.
        split_hash: Of the split that the model was trained with.
        notes: What the user should know, a line each.
    """

    faces: MediaFiles
    mels: MediaFiles
    subjects: Subjects
    split_hash: str
    notes: Sequence[str]


def list_tested(trained: TrainedModel, source: HQSource, *, is_seen_allowed: bool = False) -> Tested:
    """The people of `test`, checked against those that the model has seen.

    Raises:
        UserError: Another kind of model, no split, or somebody who was trained on.
    """
    if trained.kind != KIND:
        raise UserError(
            f"--model_dir {trained.model_dir}: a model of kind {trained.kind}: this program takes one of "
            "spectrograms; for sound there is scripts/evaluation/evaluate_face_voice.py"
        )
    training = trained.config.get("training", {})
    path = _chosen(source.split_json_path, training, "split_json_path")
    kind = _chosen(source.dataset_type, training, "dataset_type")
    if path is None or kind is None:
        raise UserError(f"{trained.model_dir}/config.json: it does not say which split: --split_json_path")
    converted = _chosen(source.converted_dir, training, "converted_dir")
    parts, notes = load_people(path, kind, converted_dir=converted)
    mels = MelSettings.from_config(trained.config["data"])
    own = load_split(trained.model_dir / SPLIT_FILE)
    people = {person.identity: person for person in parts["test"]}
    if len(people) < 2:
        raise UserError(
            f"{path}: {len(people)} people to test in {kind}; make the split anew with a larger --test_ratio "
            "or give another --dataset_type"
        )
    if not is_seen_allowed:
        require_same_people(own, trained.config["data"], people, "")
    subjects = choose_subjects(
        people,
        test=people,
        seen={*own.train, *own.val},
        test_size=1.0,
        is_seen_allowed=is_seen_allowed,
        split_name=Path(path).name,
    )
    faces, spectrograms = media_of_people(
        [people[name] for name in subjects.identities],
        make_face_reader(trained).transform,
        mels,
        source.pairs_per_identity,
    )
    return Tested(faces=faces, mels=spectrograms, subjects=subjects, split_hash=own.hash, notes=notes)


def _chosen(asked: Path | str | None, training: dict[str, Any], name: str) -> Any:
    value = asked if asked is not None else training.get(name)
    return None if value in (None, "None") else value
