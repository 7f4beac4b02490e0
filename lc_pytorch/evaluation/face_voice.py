"""The people that an evaluation of faces with sound tests, and their files."""

from __future__ import annotations

import os

from facevox.errors import UserError
from lc_pytorch.datasets.pairs import PairList
from lc_pytorch.datasets.splits import load_split
from lc_pytorch.evaluation.readers import make_readers, media_of_pairs
from lc_pytorch.evaluation.run import Tested
from lc_pytorch.evaluation.subjects import choose_subjects, require_same_people
from lc_pytorch.models.store import TrainedModel


def list_tested(
    trained: TrainedModel,
    listed: PairList,
    *,
    test_size: float,
    is_seen_allowed: bool = False,
    seed: int = 0,
    audio_duration_sec: float | None = None,
    target_sr: int | None = None,
) -> Tested:
    """The test people of the model's split, or a share of those it has not seen; see `choose_subjects`.

    Args:
        trained: The model.
        listed: The pairs to choose from.
        test_size: See `choose_subjects`.
        is_seen_allowed: Test people who were trained on too.
        seed: Of the draw.
        audio_duration_sec: See `make_readers`.
        target_sr: See `make_readers`.

    Raises:
        UserError: Another kind of model, no split, or people who were trained on.
    """
    readers = make_readers(trained, audio_duration_sec, target_sr)
    file = trained.model_dir / "split.json"
    if not file.is_file() and not is_seen_allowed:
        raise UserError(
            f"{file}: no such file: nobody knows whom the model was trained on; --allow_seen to test all the "
            "same"
        )
    split = load_split(file) if file.is_file() else None
    if split is not None and not is_seen_allowed:
        require_same_people(split, trained.config["data"], listed.identities, listed.rule)
    subjects = choose_subjects(
        listed.identities,
        test=split.test if split else (),
        seen={*split.train, *split.val} if split else set(listed.identities),
        test_size=test_size,
        is_seen_allowed=is_seen_allowed,
        seed=seed,
    )
    names = set(subjects.identities)
    faces, voices = media_of_pairs([pair for pair in listed.pairs if pair.identity in names], *readers)
    refused = [file for pair in listed.refused for file in (pair.face, pair.voice)]
    return Tested(
        faces=faces,
        voices=voices,
        subjects=subjects,
        split_hash=split.hash if split else "",
        notes=[f"identities by {listed.rule}", *listed.warnings],
        is_complete=all(map(os.path.exists, refused)),  # Path.exists raises on names that are too long
    )
