"""The split into training and validation by person, independent of who else is in the set."""

from collections.abc import Iterable

from facevox.errors import UserError
from facevox.splits import drawn_order, drawn_share

FEW_PEOPLE = 200


def validation_people(people: Iterable[str], seed: int, val_share: float) -> set[str]:
    """The people of the validation part; all others are in training.

    Each person's part depends on that person and the seed alone: archives that are downloaded later move
    nobody to the other part, so nobody whom an earlier model was trained on gets into validation. The share
    is therefore met on average only: of n people it varies by about sqrt(n * share * (1 - share)). Below
    FEW_PEOPLE that is too much, and the share is met exactly instead: a set this small is downloaded at once.

    Args:
        people: Everybody.
        seed: Another one gives another split.
        val_share: Of the people, above 0 and below 1.

    Raises:
        UserError: Fewer than two people.
    """
    ordered = drawn_order(people, seed)
    num = len(ordered)
    if num < 2:
        raise UserError(f"{num} people: at least two are needed, one of them for validation")
    if num < FEW_PEOPLE:
        num_chosen = round(val_share * num)
    else:
        num_chosen = sum(drawn_share(person, seed) < val_share for person in ordered)
    # Neither side is ever empty.
    return set(ordered[: min(max(num_chosen, 1), num - 1)])
