"""The people that an evaluation on HQ VoxCeleb tests, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from facevox.errors import UserError
from lc_pytorch.datasets.splits import load_split
from lc_pytorch.evaluation.readers import make_face_reader
from lc_pytorch.evaluation.run import Tested
from lc_pytorch.evaluation.subjects import choose_subjects, require_same_people
from lc_pytorch.hq.dataset import MelSettings, load_people
from lc_pytorch.hq.options import HQSource
from lc_pytorch.hq.readers import media_of_people
from lc_pytorch.hq.training import KIND
from lc_pytorch.models.store import TrainedModel
from lc_pytorch.training.run import SPLIT_FILE


def list_tested(trained: TrainedModel, source: HQSource, *, is_seen_allowed: bool = False) -> Tested:
    """The people of `test`, compared with those that the model has seen.

    Raises:
        UserError: Another kind of model, no split, or somebody who was trained on.
    """
    if trained.kind != KIND:
        raise UserError(
            f"--model_dir {trained.model_dir}: a model of kind {trained.kind}: this program takes one of "
            "spectrograms; for sound there is scripts/evaluation/evaluate_face_voice.py"
        )
    training = trained.config.get("training", {})
    path = _option(source.split_json_path, training, "split_json_path")
    dataset_type = _option(source.dataset_type, training, "dataset_type")
    if path is None or dataset_type is None:
        raise UserError(f"{trained.model_dir}/config.json: it names no split; give --split_json_path")
    converted = _option(source.converted_dir, training, "converted_dir")
    parts, notes = load_people(path, dataset_type, converted_dir=converted)
    mels = MelSettings.from_config(trained.config["data"])
    # The split in the model's folder, not the one of the data: that may have changed since the training.
    trained_split = load_split(trained.model_dir / SPLIT_FILE)
    people = {person.identity: person for person in parts["test"]}
    if len(people) < 2:
        raise UserError(
            f"{path}: {len(people)} people to test in {dataset_type}; make another split with a larger "
            "--test_ratio, or give another --dataset_type"
        )
    if not is_seen_allowed:
        require_same_people(trained_split, trained.config["data"], people, "")
    subjects = choose_subjects(
        people,
        test=people,
        seen={*trained_split.train, *trained_split.val},
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
    return Tested(
        faces=faces, voices=spectrograms, subjects=subjects, split_hash=trained_split.hash, notes=notes
    )


def _option(value: Path | str | None, training: Mapping[str, object], name: str) -> str | None:
    """The value of an option, or else that of the training, by config.json."""
    chosen = training.get(name) if value is None else value
    return None if chosen in (None, "None") else str(chosen)
