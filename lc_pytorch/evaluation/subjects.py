"""The people that an evaluation tests: those that the model has never seen, or a warning where it has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from facevox.errors import UserError
from lc_pytorch.datasets.splits import Split

SHOWN_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """The people of an evaluation.

    Attributes:
        identities: Their normalised names, sorted.
        origin: Where they come from, as a phrase: "test people of split.json".
        num_seen: Number of them that the model was trained on or chosen by.
        notes: Further facts that a reader must know, one sentence each.
    """

    identities: tuple[str, ...]
    origin: str
    num_seen: int = 0
    notes: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """The warning for every output where people were seen in training; "" otherwise."""
        if not self.num_seen:
            return ""
        return (
            f"{self.num_seen} of {len(self.identities)} people were seen in training: "
            "the scores say nothing about new people"
        )


def choose_subjects(
    available: Iterable[str],
    *,
    test: Collection[str],
    seen: Collection[str],
    test_size: float,
    is_seen_allowed: bool = False,
    seed: int = 0,
    split_name: str = "split.json",
) -> Subjects:
    """The test people of the split where the data has any, otherwise a share of those not seen in training.

    Args:
        available: Normalised names of the people in the data.
        test: Those of the split's test part.
        seen: Those of its other parts: trained on, or used to choose the model.
        test_size: Share 0-1 of the unseen people that is drawn where the data has nobody of `test`; at least
            two are drawn.
        is_seen_allowed: Test people who were trained on too.
        seed: Of the draw.
        split_name: For messages.

    Raises:
        UserError: Fewer than two people remain, or one was seen and that is not allowed.
    """
    people, trained_on = set(available), set(seen)
    if len(people) < 2:
        raise UserError(
            f"{len(people)} identity in the data: at least two are needed to distinguish people; check "
            "--identity_regex and --identity_csv"
        )
    chosen = people & set(test)
    notes: list[str] = []
    if chosen:
        origin = f"test people of {split_name}"
        if len(chosen) < len(set(test)):
            notes.append(
                f"{len(set(test)) - len(chosen)} of its {len(set(test))} test people are not in the data"
            )
        both = sorted(chosen & trained_on)
        if both and not is_seen_allowed:
            raise UserError(
                f"{split_name}: {len(both)} test people are among the people trained on as well "
                f"({_names(both)}): the scores would be too good; --allow_seen to test all the same"
            )
    else:
        unseen = people - trained_on
        if len(unseen) < 2 and not is_seen_allowed:
            raise UserError(
                f"none of the test people of {split_name} is in the data, and the model has not seen "
                f"{len(unseen)} of its {len(people)} people: at least two are needed; --allow_seen to test "
                "people who were trained on"
            )
        # With --allow_seen and too few others, people of the training are drawn too, which `num_seen` counts.
        pool = unseen if len(unseen) >= 2 else people
        chosen = _draw(pool, test_size, seed)
        kind = "people that the model has not seen" if pool is unseen else "people"
        origin = f"{len(chosen)} drawn from {len(pool)} {kind} (--test_size {test_size:g}, --seed {seed})"
    if len(chosen) < 2:
        raise UserError(
            f"one identity of the test people is in the data ({_names(sorted(chosen))}): at least two are "
            "needed"
        )
    return Subjects(
        identities=tuple(sorted(chosen)),
        origin=origin,
        num_seen=len(chosen & trained_on),
        notes=tuple(notes),
    )


def require_same_people(
    split: Split, data: Mapping[str, object], identities: Iterable[str], rule: str
) -> None:
    """Checks that split.json and the names of the data are those of the training.

    Args:
        split: That of the model's folder.
        data: The "data" part of its config.json.
        identities: Normalised names of the people in the data.
        rule: The rule that they come from; see `PairList.rule`.

    Raises:
        UserError: The split was made after the weights, or the people have another kind of name than in the
            training, so that nobody could know who was trained on.
    """
    trained_split = data.get("split_hash")
    if trained_split not in (None, split.hash):
        raise UserError(
            "split.json is not the one that this model was trained with (config.json says "
            f"{str(trained_split)[:8]}): train again or restore it; --allow_seen to test all the same"
        )
    trained_by = str(data.get("identities_by") or "")
    # One common name is enough: another rule may well give the same names.
    names = {*split.train, *split.val, *split.test}
    if trained_by and _kind(trained_by) != _kind(rule) and names.isdisjoint(identities):
        raise UserError(
            f"people are known here by {rule}, in the training by {trained_by}: nobody could tell who was "
            "trained on; give the same --identity_csv or --identity_regex, or --allow_seen"
        )


def _kind(rule: str) -> str:
    return next((name for name in ("--identity_csv", "--identity_regex") if rule.startswith(name)), "paths")


def _draw(people: Collection[str], share: float, seed: int) -> set[str]:
    count = min(len(people), max(2, round(share * len(people))))
    order = np.random.default_rng(seed).permutation(len(people))
    names = sorted(people)  # a set has another order in each process
    return {names[index] for index in order[:count].tolist()}


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
