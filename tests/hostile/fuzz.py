"""Change files of every format that a program reads, and read them: each is read or refused in one line.

    make fuzz MINUTES=10
    python tests/hostile/fuzz.py --minutes 10 --seed 3 --formats pth onnx --output_dir runs/fuzz
    python tests/hostile/fuzz.py --repeat runs/fuzz/01-pth

A finding is another exception than the one-line error (exit code 70 in a program), a crash of a library, a
hang of more than 30 s, a gigabyte more than the whole file takes, and damage that a checksum or a missing
end shows and that is read without a word. The same seed changes the same bytes. Nothing is downloaded.
Exit codes: 0 nothing found; 1 findings, each with its file and its command in the output folder; 2 bad usage.
"""

# ruff: noqa: E402 - the folders of the tests come first, and variables that libraries read once
import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":  # as pytest has it
    folders = ("", "tests", "tests/facevox", "tests/emotion", "tests/emotion/landmarks", "tests/lipsync")
    sys.path[:0] = [str(REPOSITORY / name) for name in (*folders, "tests/hostile")]
    sys.path[:] = list(dict.fromkeys(sys.path))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from fuzz_mutators import CUT, MEMBER, mutate
from fuzz_process import (
    FAULT,
    MAKE,
    PROGRAM,
    READ,
    READER,
    SILENT,
    Result,
    serve,
    stack_signature,
    stack_text,
)
from fuzz_targets import CONTENT, CUTS, FORMS, TARGETS, Target

from facevox import cli
from facevox.errors import ExitCode, UserError

LIMIT_S, FIRST_LIMIT_S = 30.0, 240.0  # the first read of a target imports what it needs
LIMIT_MB = 1000.0  # more than the whole file takes
STOP_MB = 4000.0  # a process that takes so much more is ended
CASES_PER_PROCESS = 400
PROGRAM_EVERY = 8  # every so many files are read by the program
KEPT_PER_SIGNATURE = 3
HANG = "hang"  # begins a signature


@dataclass(frozen=True)
class Finding:
    """A file that was neither read nor refused in one line."""

    target: Target
    number: int
    change: str
    way: str
    signature: str
    text: str
    data: bytes


@dataclass
class Counts:
    """Figures of one format."""

    num: int = 0
    read: int = 0
    refused: int = 0
    findings: int = 0
    slowest_s: float = 0.0
    memory_mb: float = 0.0


@dataclass
class Case:
    """A changed file that waits to be read."""

    target: Target
    number: int
    change: str
    data: bytes

    @property
    def way(self) -> str:
        """The one of its readers that gets it."""
        is_program = self.target.program is not None and self.number % PROGRAM_EVERY == PROGRAM_EVERY - 1
        return PROGRAM if is_program else READER


@dataclass
class Whole:
    """A target's unchanged file: its folder, content, and what it takes to read it."""

    folder: Path
    data: bytes
    content: str
    memory_mb: dict[str, float]  # by reader


class Lane(threading.Thread):
    """Reads the changed files of some targets, in one process at a time."""

    def __init__(
        self,
        targets: Sequence[Target],
        numbers: Mapping[str, int],
        seed: int,
        work: Path,
        is_over: Callable[[], bool],
        module: str = "fuzz_targets",
    ) -> None:
        super().__init__(daemon=True)
        self.targets = {target.name: target for target in targets}
        self.numbers, self.seed, self.is_over = numbers, seed, is_over
        self.work, self.module = work, module
        self.counts: dict[str, Counts] = {}
        self.findings: list[Finding] = []
        self.error: BaseException | None = None
        self._process: Any = None
        self._connection: Any = None
        self._num_cases = 0
        self._wholes: dict[str, Whole] = {}
        self._primed: set[tuple[str, str]] = set()  # read once by the process, whose imports took time

    def run(self) -> None:
        """Goes round the targets until each has its number of files, or all is over."""
        try:
            self.work.mkdir(parents=True)
            for number in range(max(self.numbers.values(), default=0)):
                for target in self.targets.values():
                    if self.is_over():
                        return
                    if number < self.numbers[target.name]:
                        rng = random.Random(f"{self.seed}/{target.name}/{number}")
                        change, data = mutate(self.whole(target).data, target.form, rng)
                        self.read(Case(target, number, change, data))
        except BaseException as error:
            self.error = error
        finally:
            self.stop()

    def whole(self, target: Target) -> Whole:
        """The target's file, made and read once."""
        if target.name not in self._wholes:
            folder = self.work / f"whole-{len(self._wholes)}"
            folder.mkdir()
            made = self._request(MAKE, target, folder, FIRST_LIMIT_S)
            if made.outcome == FAULT:
                raise RuntimeError(f"{target.name}: the file cannot be made: {made.signature} {made.text}")
            whole = Whole(folder, (folder / target.file).read_bytes(), "", {})
            self._wholes[target.name] = whole
            whole.content = self._prime(target, READER).text
        return self._wholes[target.name]

    def _prime(self, target: Target, way: str) -> Result:
        """Reads the whole file in this process for the first time, and again for its memory."""
        whole = self._wholes[target.name]
        for _ in range(2):
            result = self._read(way, target, whole.data, FIRST_LIMIT_S)
        if result.outcome == FAULT or (way == READER and result.outcome != READ):
            raise RuntimeError(f"{target.name}: the unchanged file: {result.signature} {result.text}")
        whole.memory_mb[way] = result.memory_mb
        self._primed.add((target.name, way))
        return result

    def read(self, case: Case) -> None:
        """Reads one changed file, and keeps what became of it."""
        target, way = case.target, case.way
        whole = self.whole(target)
        if self._num_cases >= CASES_PER_PROCESS:
            self.stop()
        if (target.name, way) not in self._primed:
            self._prime(target, way)
        self._num_cases += 1
        result = self._read(way, target, case.data, LIMIT_S)
        if result.signature.startswith(HANG):  # or a busy machine
            self._prime(target, way)
            result = self._read(way, target, case.data, 2 * LIMIT_S)
        counts = self.counts.setdefault(target.form, Counts())
        counts.num += 1
        counts.slowest_s = max(counts.slowest_s, result.seconds)
        counts.memory_mb = max(counts.memory_mb, result.memory_mb)
        # A member that was packed again has the checksum of its damage.
        is_quiet = case.change == MEMBER and result.signature.startswith(SILENT)
        signature = result.signature if result.outcome == FAULT and not is_quiet else ""
        if not signature and result.memory_mb > whole.memory_mb[way] + LIMIT_MB:
            signature = f"memory: {target.name}"
        is_damage = target.notices == CONTENT or (target.notices == CUTS and case.change == CUT)
        if is_damage and case.change != MEMBER and result.outcome == READ and way == READER:
            signature = signature or ("" if result.text == whole.content else f"{SILENT}: {target.name}")
        if signature:
            counts.findings += 1
            text = result.text or f"{result.memory_mb:.0f} MB"
            self.findings.append(Finding(target, case.number, case.change, way, signature, text, case.data))
        elif result.outcome == READ:
            counts.read += 1
        else:
            counts.refused += 1

    def _read(self, way: str, target: Target, data: bytes, limit_s: float) -> Result:
        work = self.work / "case"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self._wholes[target.name].folder, work)
        (work / target.file).write_bytes(data)
        return self._request(way, target, work, limit_s)

    def _request(self, way: str, target: Target, folder: Path, limit_s: float) -> Result:
        """Has a folder filled or read by the process; ends it when it takes too long or too much."""
        if self._process is None:
            self._start()
        process, start_s, before_mb = self._process, time.monotonic(), _resident_mb(self._process.pid)
        self._connection.send((way, target.name, str(folder)))
        used_mb = 0.0
        while not self._connection.poll(0.1):
            seconds = time.monotonic() - start_s
            used_mb = max(_resident_mb(process.pid) - before_mb, used_mb)
            if seconds < limit_s and used_mb < STOP_MB:
                continue
            is_hang = used_mb < STOP_MB
            os.kill(process.pid, signal.SIGABRT)  # which writes the stack
            process.join(5)
            where, stack = stack_signature(self.work, None).partition(" at ")[2], stack_text(self.work)
            self.stop()
            kind = f"{HANG} at {where}" if is_hang else f"memory at {where}"
            return Result(
                FAULT, f"after {seconds:.0f} s, {used_mb:.0f} MB more\n{stack}", kind, seconds, used_mb
            )
        try:
            result: Result = self._connection.recv()
        except EOFError:
            process.join(10)
            signature = f"crash: {stack_signature(self.work, process.exitcode)}"
            stack = stack_text(self.work)
            self.stop()
            return Result(
                FAULT, f"the process ended\n{stack}", signature, time.monotonic() - start_s, used_mb
            )
        return dataclasses.replace(result, memory_mb=max(result.memory_mb, used_mb))

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, end = context.Pipe()
        self._process = context.Process(target=serve, args=(end, self.module, str(self.work)))
        self._process.start()
        end.close()
        self._num_cases = 0
        self._primed.clear()

    def stop(self) -> None:
        """Ends the process and its children."""
        if self._process is None:
            return
        self._connection.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # it has no group of its own yet
            self._process.kill()
        self._process.join()
        self._process = None


def _resident_mb(pid: int) -> float:
    """Memory of a process and its children; 0 where the system does not report it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(_resident_mb(int(child)) for child in children)


@dataclass
class Report:
    """All that was found."""

    counts: dict[str, Counts] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def fuzz(
    targets: Sequence[Target], *, num: int, minutes: float, seed: int, module: str = "fuzz_targets"
) -> Report:
    """Reads `num` changed files, spread evenly over the targets, in at most `minutes`."""
    deadline_s = time.monotonic() + 60 * minutes
    share, rest = divmod(num, len(targets))
    numbers = {target.name: share + (index < rest) for index, target in enumerate(targets)}
    report, lanes = Report(), list[Lane]()

    def is_over() -> bool:
        return time.monotonic() > deadline_s or any(lane.error for lane in lanes)

    with tempfile.TemporaryDirectory(prefix="facevox-fuzz-") as folder:
        for name in dict.fromkeys(target.lane for target in targets):
            own = [target for target in targets if target.lane == name]
            shares = {target.name: numbers[target.name] for target in own}
            lanes.append(Lane(own, shares, seed, Path(folder, name), is_over, module))
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        if errors := [lane.error for lane in lanes if lane.error is not None]:
            raise errors[0]
        for lane in lanes:
            report.findings += lane.findings
            for form, counts in lane.counts.items():
                report.counts[form] = _added(report.counts.get(form, Counts()), counts)
    return report


def _added(one: Counts, other: Counts) -> Counts:
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in vars(one)}
    peaks = ("slowest_s", "memory_mb")
    return Counts(**{name: max(pair) if name in peaks else sum(pair) for name, pair in pairs.items()})


def repeat(folder: Path) -> Report:
    """Reads the file of a finding again."""
    try:
        about = json.loads((folder / "finding.json").read_text("utf-8"))
        target = next(target for target in TARGETS if target.name == about["target"])
        data = (folder / Path(target.file).name).read_bytes()
    except (OSError, ValueError, KeyError, StopIteration):
        raise UserError(f"--repeat {folder}: no folder of a finding") from None
    with tempfile.TemporaryDirectory(prefix="facevox-fuzz-") as work:
        lane = Lane([target], {target.name: 1}, 0, Path(work, "lane"), lambda: False)
        lane.work.mkdir()
        try:
            lane.read(Case(target, about["number"], about["change"], data))
        finally:
            lane.stop()
    return Report(lane.counts, lane.findings)


def write_findings(findings: Sequence[Finding], output_dir: Path) -> list[str]:
    """Writes the first files of each signature; returns a line for each signature."""
    by_signature: dict[str, list[Finding]] = {}
    for finding in findings:
        by_signature.setdefault(finding.signature, []).append(finding)
    lines = []
    for index, (signature, group) in enumerate(sorted(by_signature.items()), start=1):
        for number, finding in enumerate(group[:KEPT_PER_SIGNATURE]):
            folder = output_dir / f"{index:02d}-{finding.target.form}-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(finding.target.file).name).write_bytes(finding.data)
            about = {"target": finding.target.name, "number": finding.number, "change": finding.change}
            about |= {"way": finding.way, "signature": signature, "text": finding.text}
            (folder / "finding.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            (folder / "repeat.txt").write_text(f"python tests/hostile/fuzz.py --repeat {folder}\n")
        targets = ", ".join(sorted({finding.target.name for finding in group}))
        first = output_dir / f"{index:02d}-{group[0].target.form}-0"
        lines.append(f"{len(group):4d}  {signature}  ({targets}; {first})")
    return lines


def table_lines(counts: Mapping[str, Counts]) -> list[str]:
    """The table of formats."""
    rows = [(form, counts[form]) for form in FORMS if form in counts]
    rows += [(form, value) for form, value in counts.items() if form not in FORMS]
    total = Counts()
    for _, value in rows:
        total = _added(total, value)
    heads = ("mutations", "read", "refused", "findings", "slowest s", "peak MB")
    return [f"{'format':12s}" + "".join(f"{head:>10s}" for head in heads)] + [
        f"{form:12s}{c.num:10d}{c.read:10d}{c.refused:10d}{c.findings:10d}{c.slowest_s:10.1f}{c.memory_mb:10.0f}"
        for form, c in [*rows, ("all", total)]
    ]


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python tests/hostile/fuzz.py --minutes 10")
    add = parser.add_argument
    add("--minutes", type=cli.positive_float, default=10.0, help="most time that it takes")
    add("--max_mutations", type=cli.natural_int, default=2000, help="most files that are changed and read")
    add("--seed", type=cli.natural_int, default=0, help="the same seed changes the same bytes")
    add("--formats", nargs="+", choices=FORMS, default=list(FORMS), help="formats to change")
    add("--output_dir", type=Path, default=Path("runs/fuzz"), metavar="DIR", help="folder of the findings")
    add("--repeat", type=Path, metavar="DIR", help="read the file of this finding again (default: none)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Changes and reads; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.repeat is not None:
        report = repeat(args.repeat)
        print(
            "\n".join(f"{finding.signature}\n{finding.text}" for finding in report.findings) or "no finding"
        )
        return ExitCode.SOME_FAILED if report.findings else ExitCode.DONE
    targets = [target for target in TARGETS if target.form in args.formats]
    report = fuzz(targets, num=args.max_mutations, minutes=args.minutes, seed=args.seed)
    print("\n".join(table_lines(report.counts)))
    print("\n".join(write_findings(report.findings, args.output_dir)) or "no findings")
    return ExitCode.SOME_FAILED if report.findings else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
