"""Measured figures: their table, the bars that they must reach, and how they changed since the last time."""

import argparse
import os
import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from facevox.files import read_json, write_json

REPOSITORY = Path(__file__).resolve().parent.parent
# Ratios measured on a busy machine vary by a tenth or two; more is a change.
TOLERANCE = 0.25


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        name: What was measured.
        value: In `unit`.
        unit: "x" for a ratio, "s", "ms", "GB", "" …
        bar: What it must reach, or None.
        is_better_higher: Whether more is better; otherwise the bar is an upper limit.
        is_comparable: Whether it can be compared with one of another run (a ratio within one run can; seconds
            depend on the machine).
    """

    name: str
    value: float
    unit: str = ""
    bar: float | None = None
    is_better_higher: bool = True
    is_comparable: bool = True

    @property
    def is_met(self) -> bool:
        """True if the bar is reached or there is none."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.is_better_higher else self.value <= self.bar

    @property
    def bar_text(self) -> str:
        """ "at least 2 x"."""
        if self.bar is None:
            return ""
        return f"{'at least' if self.is_better_higher else 'at most'} {self.bar:g} {self.unit}".strip()

    def drop(self, before: "Figure") -> float:
        """Fraction by which this is worse than `before`; negative where better, 0 where not comparable."""
        if not self.is_comparable or before.value <= 0 or self.value <= 0:
            return 0.0
        ratio = before.value / self.value if self.is_better_higher else self.value / before.value
        return ratio - 1.0


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--data_dir`, the folder of real data of a benchmark."""
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path(os.environ.get("FACEVOX_TEST_DATA", REPOSITORY.parent / "shared" / "data")),
        help="folder of real data (default: $FACEVOX_TEST_DATA)",
    )


def print_figures(figures: Sequence[Figure]) -> bool:
    """Prints a table; returns whether every bar is reached."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        verdict = "" if figure.bar is None else ("ok" if figure.is_met else "MISSED")
        number = f"{figure.value:.4g} {figure.unit}".strip()
        print(f"{figure.name:<{width}}  {number:>14}  {figure.bar_text:<18} {verdict}".rstrip())
    return all(figure.is_met for figure in figures)


def write_figures(path: str | Path, figures: Sequence[Figure]) -> None:
    """Writes figures as a JSON list."""
    write_json(path, [asdict(figure) for figure in figures])


def load_figures(path: str | Path) -> list[Figure]:
    """Reads what `write_figures` wrote."""
    return [Figure(**row) for row in read_json(path)]


def peak_memory_gb() -> float:
    """Largest memory of this process so far.

    Not by ru_maxrss on Linux: a new process inherits the size of the one that started it there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(
            line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")
        )
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on macOS


def find_drops(figures: Sequence[Figure], before: Sequence[Figure]) -> list[tuple[Figure, Figure]]:
    """(now, before) of the figures that are worse by more than TOLERANCE."""
    earlier = {figure.name: figure for figure in before}
    return [
        (figure, earlier[figure.name])
        for figure in figures
        if figure.name in earlier and figure.drop(earlier[figure.name]) > TOLERANCE
    ]
