"""The model card: purpose, training data and scores of a model, as Markdown next to its weights."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from facevox.errors import printable
from facevox.files import write_text
from facevox.intervals import interval_text

CARD_FILE = "MODEL_CARD.md"
NOTHING = "–"  # in place of a number that is not defined


def write_card(path: Path, title: str, sections: Mapping[str, Sequence[str]]) -> None:
    """Writes a card.

    Args:
        path: The file.
        title: Its heading.
        sections: Heading → paragraphs, lists and tables; empty ones are left out.
    """
    blocks = [f"# {title}"]
    for heading, parts in sections.items():
        blocks += [f"## {heading}", *filter(None, parts)]
    text = printable("\n\n".join(blocks), keep="\n") + "\n"
    text = text.encode("utf-8", "backslashreplace").decode()  # names that are no text
    write_text(path, re.sub("<(?=[A-Za-z/!?])", "&lt;", text))  # no name of a file is a tag


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {printable(line)}" for line in lines)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats with three digits, "–" where they are not defined."""
    lines = [_row(columns), "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(_row([_cell(value) for value in row]) for row in rows)])


def score_cells(score: Mapping[str, object]) -> tuple[object, str]:
    """Value and interval of a measure's plain values, as cells."""
    return score["value"], interval_text(score) or NOTHING


def class_table(rows: Iterable[Mapping[str, object]], counted: str) -> str:
    """A table of the scores of each class.

    Args:
        rows: With class, precision, recall, f1, pictures.
        counted: Heading of the last column, the number of pictures.
    """
    names = ("class", "precision", "recall", "f1", "pictures")
    return table(
        ["class", "precision", "recall", "F1", counted], [[row[name] for name in names] for row in rows]
    )


def pairs(values: Mapping[str, object], sign: str = " ") -> str:
    """Names with their values, on one line."""
    return printable(", ".join(f"{name}{sign}{value}" for name, value in values.items()))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOTHING
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value)).replace("|", "\\|")
