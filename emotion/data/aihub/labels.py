"""From three annotators and the uploader to one label, with the votes kept."""

from collections import Counter
from collections.abc import Sequence


def majority_label(votes: Sequence[str], uploader: str) -> str:
    """The emotion that more than half of the annotators chose; where there is none, the uploader's.

    Args:
        votes: English emotions ("unknown": cannot tell); "" for an annotator who did not answer.
        uploader: What the uploader named, or "".

    Returns:
        An English emotion; "unknown" where most annotators could not tell; "" where nobody says anything.
    """
    given = [vote for vote in votes if vote]
    if given:
        emotion, count = Counter(given).most_common(1)[0]
        if 2 * count > len(given):
            return emotion
    return uploader


def soft_label(votes: Sequence[str], class_names: Sequence[str], label: str) -> list[float]:
    """The annotators' votes as a distribution over the classes, (C,), summing to 1.

    Votes outside the classes, "unknown" among them, say nothing; where none is left, `label` has it all.

    Raises:
        ValueError: `label` is none of the classes.
    """
    counts = [float(sum(vote == name for vote in votes)) for name in class_names]
    if not sum(counts):
        counts[list(class_names).index(label)] = 1.0
    total = sum(counts)
    return [count / total for count in counts]


def agreement(all_votes: Sequence[Sequence[str]]) -> float:
    """How often one annotator agrees with another, over all pairs who both answered; nan without pairs.

    "unknown" is an answer. No model can be expected to agree with annotators more than they do themselves.
    """
    same = pairs = 0
    for votes in all_votes:
        given = [vote for vote in votes if vote]
        for first in range(len(given)):
            for second in range(first + 1, len(given)):
                pairs += 1
                same += given[first] == given[second]
    return same / pairs if pairs else float("nan")
