"""Requests for programs of a table, checked by the programs' own parsers."""

import argparse
import contextlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from facevox.cluster.job import MERGE, RUN_AGAIN, Job
from facevox.errors import ExitCode, UserError


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job with its options, checked against the program's own parser.

    Attributes:
        table: The table of the program.
        name: Name of the job in the table.
        arguments: The options, as on a command line.
        module: The program.
        parser: The program's parser.
        parsed: The parsed options.
    """

    table: "ProgramTable"
    name: str
    arguments: tuple[str, ...]
    module: ModuleType
    parser: argparse.ArgumentParser
    parsed: argparse.Namespace

    @property
    def root(self) -> Path:
        """The folder that relative paths are relative to: the repository."""
        return self.table.root

    @property
    def job(self) -> Job:
        """The program's description."""
        return job_of(self.module)

    def takes(self, option: str) -> bool:
        """True if the program has `--option`."""
        return f"--{option}" in self.parser._option_string_actions

    @property
    def output_dir(self) -> str:
        """The folder that it writes into, relative to the repository or absolute.

        Raises:
            UserError: It depends on the program's settings, which are missing or wrong.
        """
        if not isinstance(self.job.output, str):
            return str(self.job.output(self.parsed, self.root))
        return str(getattr(self.parsed, self.job.output, None) or "")

    def command(self, *, cpus: int | None = None, shard: tuple[int, int] = (0, 1)) -> list[str]:
        """The program's file and its arguments.

        Args:
            cpus: Cores of the job, which become worker processes if the program has an option for these
                and the arguments do not set it.
            shard: (index, number of shards).
        """
        arguments = list(self.arguments)
        has_workers = any(word.split("=", 1)[0] == "--workers" for word in arguments)
        if cpus and self.takes("workers") and not has_workers:
            arguments.append(f"--workers={cpus}")
        index, num_shards = shard
        if self.takes("num_shards"):
            # Always: the programs would otherwise take their shard from the variables of an array.
            arguments += [f"--num_shards={num_shards}", f"--shard_index={index}"]
        return [self.table.files[self.name], *arguments]

    def join_request(self) -> "Request":
        """The request that joins the shards of this job.

        Raises:
            UserError: It cannot be split into shards.
        """
        if self.job.join == RUN_AGAIN:
            return self
        if self.job.join != MERGE:
            names = " ".join(self.table.sharded_jobs())
            raise UserError(f"--shards: {self.name} cannot be split; these can: {names}")
        options = [f"--output_dir={self.output_dir}", f"--max_failed={self.parsed.max_failed}"]
        if self.parsed.spreadsheet_safe:
            options.append("--spreadsheet_safe")
        return self.table.request("merge_manifests", options, is_later=True)


def job_of(program: ModuleType) -> Job:
    """The description of a program.

    Raises:
        UserError: It has none.
    """
    job = getattr(program, "JOB", None)
    if not isinstance(job, Job):
        raise UserError(f"{program.__file__}: has no JOB (facevox.cluster.job)")
    return job


@dataclass(frozen=True)
class ProgramTable:
    """The programs that can be submitted.

    Attributes:
        files: Name of the job -> its program, relative to `root`.
        root: The repository, which relative paths are relative to.
    """

    files: Mapping[str, str]
    root: Path

    def sharded_jobs(self) -> list[str]:
        """The jobs that can be split into shards."""
        return [name for name in self.files if job_of(self.load(name)).join]

    def request(self, name: str, arguments: Sequence[str], *, is_later: bool = False) -> Request:
        """Checks a job and its options by the program's own parser, and that its inputs exist.

        Args:
            name: Name of the job.
            arguments: Options of the program.
            is_later: Other jobs come first, which may write its inputs.

        Raises:
            UserError: No such job or option, a value that the program refuses, a missing input.
            SystemExit: `--help` was among the options, and was printed.
        """
        if name not in self.files:
            raise UserError(f"no job {name!r}; the jobs are: {' '.join(self.files)}")
        module = self.load(name)
        parser: argparse.ArgumentParser = module.get_args_parser()
        parser.prog = name
        stderr = io.StringIO()
        try:
            with contextlib.redirect_stderr(stderr):
                parsed = parser.parse_args(list(arguments))
        except SystemExit as stop:
            if stop.code in (None, ExitCode.DONE):
                raise
            raise UserError(stderr.getvalue().strip().removeprefix(f"{parser.prog}: error: ")) from None
        request = Request(
            table=self, name=name, arguments=tuple(arguments), module=module, parser=parser, parsed=parsed
        )
        if not is_later:
            faults = [
                f"--{option} {value}: there is no such file or folder"
                for option in request.job.inputs
                for value in _paths(getattr(parsed, option, None))
                if not (self.root / value).exists()
            ]
            if faults:
                raise UserError(f"{name}: {'; '.join(faults)} (relative paths count from {self.root})")
        return request

    def load(self, name: str) -> ModuleType:
        """The program of a job as a module; its `main` is not run.

        Raises:
            UserError: There is no such program.
        """
        file = self.root / self.files[name]
        if not file.is_file():
            raise UserError(f"{file}: there is no such program; start from the root of the repository")
        spec = importlib.util.spec_from_file_location(f"job_{name}", file)
        if spec is None or spec.loader is None:
            raise UserError(f"{file}: cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _paths(value: object) -> list[str]:
    """The paths in the value of an option: none, one, or several."""
    if value is None:
        return []
    return [str(path) for path in value] if isinstance(value, (list, tuple)) else [str(value)]
