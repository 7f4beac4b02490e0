"""Parts of the clips for training, validation and test, by speaker; nobody is in two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from facevox.errors import UserError
from facevox.splits import drawn_order
from lipsync.network.takes import ClipEntry, Take

PARTS = ("train", "validation", "test")


MIN_HELD_OUT = 2  # clips for validation: their sounds are swapped to calibrate


@dataclass(frozen=True, kw_only=True)
class Split:
    """Clips of each part; no speaker is in two."""

    train: tuple[ClipEntry, ...]
    validation: tuple[ClipEntry, ...]
    test: tuple[ClipEntry, ...]

    @property
    def hash(self) -> str:
        """Sha256 of the names in each part."""
        names = {part: sorted(entry.name for entry in getattr(self, part)) for part in PARTS}
        return hashlib.sha256(json.dumps(names, sort_keys=True).encode("ascii")).hexdigest()


def split_clips(entries: Sequence[ClipEntry], shares: Sequence[int], seed: int) -> Split:
    """Parts of about the sizes `shares` (training, validation, test), by speaker or else by video.

    The order of speakers is that of a hash of the seed and the name: clips that are added later hardly move
    the others.
    Validation gets at least MIN_HELD_OUT clips, test at least one where its share is above 0.

    Raises:
        UserError: No share for validation, or too few speakers.
    """
    groups: dict[str, list[ClipEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    order = drawn_order(groups, seed)
    if shares[1] == 0:
        raise UserError(
            "training.split: validation (the second share) is 0, but it is needed to choose the best model "
            "and to calibrate its score"
        )
    total = sum(shares)
    parts: dict[str, list[ClipEntry]] = {part: [] for part in PARTS}
    for part, share, least in (("validation", shares[1], MIN_HELD_OUT), ("test", shares[2], 1)):
        size = max(round(share / total * len(entries)), least) if share else 0
        while order and len(parts[part]) < size:  # whole speakers: the last one may exceed the size
            parts[part] += groups[order.pop(0)]
    parts["train"] = [entry for name in order for entry in groups[name]]
    if len(parts["validation"]) < MIN_HELD_OUT or not parts["train"]:
        raise UserError(
            f"{len(entries)} clips of {len(groups)} speakers or videos: too few to train on some, validate "
            "on two others and test on a third; add videos, or set the last share of training.split to 0"
        )
    return Split(**{part: tuple(sorted(clips, key=lambda e: e.name)) for part, clips in parts.items()})


def deal_folds(takes: Sequence[Take], num_folds: int) -> list[list[str]]:
    """The speakers in `num_folds` groups of about the same number of frames each.

    Raises:
        UserError: Fewer than two folds, or more than speakers.
    """
    frames: dict[str, int] = {}
    for take in takes:
        frames[take.speaker] = frames.get(take.speaker, 0) + len(take.track)
    if not 2 <= num_folds <= len(frames):
        raise UserError(f"{num_folds} folds of {len(frames)} speakers: 2 to {len(frames)} are possible")
    folds: list[list[str]] = [[] for _ in range(num_folds)]
    sizes = [0] * num_folds
    for speaker in sorted(frames, key=lambda name: (-frames[name], name)):
        # The smallest fold; of equal ones that with fewest speakers.
        number = min(range(num_folds), key=lambda k: (sizes[k], len(folds[k])))
        folds[number].append(speaker)
        sizes[number] += frames[speaker]
    return folds
