"""From three annotators and the uploader to one label, with the votes kept."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations


def majority_label(votes: Sequence[str], uploader: str) -> str:
    """The emotion that more than half of the annotators chose; where there is none, the uploader's.

    Args:
        votes: English emotions ("unknown": cannot tell); "" for an annotator who did not answer.
        uploader: The uploader's emotion, or "".

    Returns:
        An English emotion; "unknown" where most annotators could not tell; "" where nobody answered.
    """
    answers = [vote for vote in votes if vote]
    if answers:
        emotion, count = Counter(answers).most_common(1)[0]
        if 2 * count > len(answers):
            return emotion
    return uploader


def soft_label(votes: Sequence[str], class_names: Sequence[str], label: str) -> list[float]:
    """The annotators' votes as a distribution over the classes, (C,), summing to 1.

    Votes outside the classes, "unknown" among them, do not count; without any other, `label` gets 1.

    Raises:
        ValueError: `label` is needed and not one of the classes.
    """
    counts = [float(sum(vote == name for vote in votes)) for name in class_names]
    if not sum(counts):
        counts[list(class_names).index(label)] = 1.0
    total = sum(counts)
    return [count / total for count in counts]


def agreement(all_votes: Sequence[Sequence[str]]) -> float:
    """Share of agreeing pairs among the pairs of annotators who both answered; nan without pairs.

    "unknown" is an answer. No model can be expected to agree with annotators more than they do themselves.
    """
    same = pairs = 0
    for votes in all_votes:
        for first, second in combinations((vote for vote in votes if vote), 2):
            pairs += 1
            same += first == second
    return same / pairs if pairs else float("nan")
