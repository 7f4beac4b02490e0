"""Jobs for the tests of the batch runner; run as a program it is a batch to be killed."""

import os
import signal
import sys
import time
from pathlib import Path

from facevox import cli
from facevox.batch import BatchConfig, Item, Outcome, Task, run_batch
from facevox.errors import UserError
from facevox.files import write_text


class Upper(Task):
    """Writes each input in upper case; names that hold a word do what the word says."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s

    def process(self, item: Item) -> Outcome:
        time.sleep(self.pause_s)
        text = Path(item.path).read_text(encoding="utf-8")
        if "bad" in text:
            raise UserError(f"{item.name}: holds the word bad")
        if "crash" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in text:
            time.sleep(1000)
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
    values = {
        "program": "upper",
        "output_dir": output_dir,
        "table": "upper.csv",
        "columns": ("file", "length"),
        "item_column": "file",
        "settings": {"case": "upper"},
        **changes,
    }
    return BatchConfig(**values)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    source, target, workers, pause_s = (argv or sys.argv[1:])[:4]
    config = config_of(Path(target), workers=int(workers))
    return run_batch(Upper(float(pause_s)), items_of(Path(source)), config).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
