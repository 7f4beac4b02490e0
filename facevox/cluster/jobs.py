"""Requests for programs, checked by the programs' own parsers; which programs there are a table says."""

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
        table: Where the program is from.
        name: The job's, in the table.
        arguments: The options, as a command line has them.
        module: The program.
        parser: Of the program.
        parsed: What it made of them.
    """

    table: "ProgramTable"
    name: str
    arguments: tuple[str, ...]
    module: ModuleType
    parser: argparse.ArgumentParser
    parsed: argparse.Namespace

    @property
    def root(self) -> Path:
        """The folder from which relative paths count: the repository."""
        return self.table.root

    @property
    def job(self) -> Job:
        """What the program tells about itself."""
        return job_of(self.module)

    def takes(self, option: str) -> bool:
        """Whether the program has `--option`."""
        return f"--{option}" in self.parser._option_string_actions

    @property
    def output_dir(self) -> str:
        """The folder that it writes into, relative to the repository or absolute.

        Raises:
            UserError: It is for the program's settings to say, and they are missing or wrong.
        """
        if not isinstance(self.job.output, str):
            return str(self.job.output(self.parsed, self.root))
        return str(getattr(self.parsed, self.job.output, None) or "")

    def command(self, *, cpus: int | None = None, shard: tuple[int, int] = (0, 1)) -> list[str]:
        """The program's file and its arguments.

        Args:
            cpus: Cores that the job has; where the program asks for worker processes and none are given,
                it gets so many.
            shard: (index, number of shards).
        """
        arguments = list(self.arguments)
        is_given = any(word.split("=", 1)[0] == "--workers" for word in arguments)
        if cpus and self.takes("workers") and not is_given:
            arguments.append(f"--workers={cpus}")
        index, num_shards = shard
        if self.takes("num_shards"):
            # Said always: the programs would otherwise count shards by variables of an array.
            arguments += [f"--num_shards={num_shards}", f"--shard_index={index}"]
        return [self.table.files[self.name], *arguments]

    def join_request(self) -> "Request":
        """What joins the shards of this job.

        Raises:
            UserError: It cannot be cut into shards.
        """
        if self.job.join == RUN_AGAIN:
            return self
        if self.job.join != MERGE:
            names = " ".join(self.table.sharded_jobs())
            raise UserError(f"--shards: {self.name} cannot be cut up; these can: {names}")
        options = [f"--output_dir={self.output_dir}", f"--max_failed={self.parsed.max_failed}"]
        return self.table.request("merge_manifests", options, is_later=True)


def job_of(program: ModuleType) -> Job:
    """What a program tells about itself.

    Raises:
        UserError: It tells nothing.
    """
    job = getattr(program, "JOB", None)
    if not isinstance(job, Job):
        raise UserError(f"{program.__file__}: has no JOB (facevox.cluster.job)")
    return job


@dataclass(frozen=True)
class ProgramTable:
    """The programs that can be submitted.

    Attributes:
        files: The name of the job -> its program, from `root`.
        root: The repository, from which relative paths count.
    """

    files: Mapping[str, str]
    root: Path

    def sharded_jobs(self) -> list[str]:
        """The jobs that can be cut into shards."""
        return [name for name in self.files if job_of(self.load(name)).join]

    def request(self, name: str, arguments: Sequence[str], *, is_later: bool = False) -> Request:
        """Checks a job and its options by the program's own parser, and that what it reads is there.

        Args:
            name: Of the job.
            arguments: Options of the program.
            is_later: Other jobs come first, which may make what it reads.

        Raises:
            UserError: No such job or option, a value that the program refuses, an input that is missing.
            SystemExit: `--help` was among the options, and shown.
        """
        if name not in self.files:
            raise UserError(f"no job {name!r}; the jobs are: {' '.join(self.files)}")
        module = self.load(name)
        parser: argparse.ArgumentParser = module.get_args_parser()
        parser.prog = name
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                parsed = parser.parse_args(list(arguments))
        except SystemExit as stop:
            if stop.code in (None, ExitCode.DONE):
                raise
            raise UserError(said.getvalue().strip().removeprefix(f"{parser.prog}: error: ")) from None
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
        """The program of a job, loaded but not run.

        Raises:
            UserError: The program is not there.
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
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]
