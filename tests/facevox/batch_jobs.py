"""Jobs for the tests of the batch runner; run as a program it is a batch to be killed."""

import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from facevox import cli
from facevox.batch import BatchConfig, Item, Outcome, Task, run_batch
from facevox.errors import NoFaceError, UserError
from facevox.files import write_text
from facevox.workers import _Worker

if TYPE_CHECKING:
    import pytest


class Upper(Task):
    """Writes each input in upper case; texts that hold a word do what the word says.

    A text that waits does so until there is the file `go` in the output folder.
    """

    def process(self, item: Item) -> Outcome:
        text = Path(item.path).read_text(encoding="utf-8")
        if "bad" in text:
            raise UserError(f"{item.name}: holds the word bad")
        if "nobody" in text:
            raise NoFaceError("nobody there")
        if "crash" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in text:
            time.sleep(1000)
        while "wait" in text and not (self.output_dir / "go").exists():
            time.sleep(0.01)
        if "full" in text:
            raise OSError(28, "No space left on device", "somewhere")
        target = f"{item.name}.out"
        write_text(self.output_dir / target, text.upper())
        with (self.output_dir / "log").open("a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(f"{item.name}\n")
        return Outcome(rows=[{"length": len(text)}], outputs=[target])


class Refusing(Upper):
    def open(self, output_dir: Path) -> None:
        raise UserError("weights.bin: no such file; put it there")


class DyingAtStart(Upper):
    def open(self, output_dir: Path) -> None:
        os._exit(3)


def items_of(folder: Path) -> list[Item]:
    return [Item(path.name, str(path)) for path in sorted(folder.iterdir())]


def config_of(output_dir: Path, **changes: object) -> BatchConfig:
    """Without workers it runs in this process."""
    values = {
        "debug": not changes.get("workers"),
        "program": "upper",
        "output_dir": output_dir,
        "table": "upper.csv",
        "columns": ("file", "length"),
        "item_column": "file",
        "settings": {"case": "upper"},
        **changes,
    }
    return BatchConfig(**values)  # type: ignore[arg-type]


def limit_only(monkeypatch: "pytest.MonkeyPatch", name: str) -> None:
    """Applies the limit on an item's time to the item of this name alone: slowness costs no other."""
    limit_s = _Worker.limit_s

    def limit_of_one(worker: _Worker, item_timeout_s: float) -> float:
        is_at_it = worker.is_ready and bool(worker.pending) and worker.pending[0].name == name
        return limit_s(worker, item_timeout_s) if is_at_it else math.inf

    monkeypatch.setattr(_Worker, "limit_s", limit_of_one)


def main(argv: list[str] | None = None) -> int:
    source, target, workers = (argv or sys.argv[1:])[:3]
    config = config_of(Path(target), workers=int(workers))
    return run_batch(Upper(), items_of(Path(source)), config).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
