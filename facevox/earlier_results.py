"""Results of earlier runs: which items are finished, and files that nobody writes any more."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from facevox.manifest import FINISHED, NOBODY, ItemIndex
from facevox.naming import is_inside
from facevox.workers import Item, ItemT, Outcome


def planned_outputs(everything: Sequence[Item]) -> dict[str, str]:
    """Names of the items that write each planned file."""
    return {item.output: item.name for item in everything if item.output is not None}


def divide(
    mine: Sequence[ItemT], index: ItemIndex, output_dir: Path, planned: dict[str, str], media_reader: int
) -> tuple[dict[str, str], list[ItemT], int]:
    """Statuses of the finished items; the others; the number of those among them that are only to be checked.

    Args:
        mine: The items of this run.
        index: Earlier results.
        output_dir: The folder of their files.
        planned: See `planned_outputs`.
        media_reader: Version of this run's; finished items of an older one are to be checked.
    """
    finished = _finished(mine, index, output_dir, planned)
    unchecked = {name for name in finished if index.media_reader(name) < media_reader}
    todo = [
        replace(item, is_unchecked=True) if item.name in unchecked else item
        for item in mine
        if item.name in unchecked or item.name not in finished
    ]
    return {name: status for name, status in finished.items() if name not in unchecked}, todo, len(unchecked)


def _finished(
    mine: Sequence[Item], index: ItemIndex, output_dir: Path, planned: dict[str, str]
) -> dict[str, str]:
    """Statuses of the items that are finished, by name.

    An item is finished when its inputs are unchanged, and nobody is in it or all its files are still there
    and still its own. A video that was added since can have taken over a file name: then both are done again.
    """
    finished = {}
    by_name = {item.name: item for item in mine}
    for record in index.records(by_name):
        item = by_name[record["item"]]
        names = [name for name, _ in record["outputs"]]
        if (
            record["status"] in FINISHED
            and record["fingerprint"] == fingerprint_of(item)
            # Its files are whole, no other item is going to write one, and the planned one is among them.
            and all(file_size(output_dir / name) == size for name, size in record["outputs"])
            and all(planned.get(name, item.name) == item.name for name in names)
            and (record["status"] in NOBODY or item.output is None or item.output in names)
        ):
            finished[item.name] = record["status"]
    return finished


class Leftovers:
    """Files that an item wrote in an earlier run and no longer writes.

    They are removed, or a folder would hold results of two settings, or of a video that fails now.
    """

    def __init__(
        self, todo: Sequence[Item], former: ItemIndex, output_dir: Path, planned: dict[str, str]
    ) -> None:
        self._output_dir = output_dir
        self._planned = planned
        self._files = {
            record["item"]: [name for name, _ in record["outputs"]]
            for record in former.records([item.name for item in todo])
            if record["outputs"]
        }

    def remove(self, item: Item, outcome: Outcome) -> None:
        """Removes what `item` wrote before and neither it nor another item writes now."""
        for name in set(self._files.pop(item.name, ())) - set(outcome.outputs):
            if is_inside(name) and self._planned.get(name, item.name) == item.name:
                (self._output_dir / name).unlink(missing_ok=True)


def fingerprint_of(item: Item) -> object:
    """Size and time of the input, and names of further ones: replaced files are noticed without reading."""
    main = _stamp(item.path) if item.path else None
    further = [[Path(path).name, _stamp(path)] for path in item.further_paths]
    return [main, *further] if further else main


def _stamp(path: str) -> list[int] | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # a name with a NUL character
        return None
    return [status.st_size, status.st_mtime_ns]


def file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1
