"""Argparse habits that every script shares, and the one place where exceptions become exit codes.

A script has `get_args_parser()` and `main(argv=None) -> int`, and ends in `sys.exit(cli.run(main))`.
"""

import argparse
import dataclasses
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from facevox.errors import ExitCode, UserError, one_line
from facevox.files import VIDEO_PATTERNS

# The operating system's refusals that lie in paths, rights and disks; anything else is a fault of ours.
_USER_OS_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}
_USER_OS_ERRORS |= {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.EEXIST}
_USER_OS_ERRORS |= {errno.ELOOP, errno.EIO, errno.ESTALE, errno.EINVAL}


_Number = TypeVar("_Number", int, float)
_Options = TypeVar("_Options")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows each option's default, except where there is none to show or the text names it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if "%(default)" in text or "default" in text or action.required:
            return text
        if action.default in (None, argparse.SUPPRESS) or not action.option_strings:
            return text
        if isinstance(action.default, (list, tuple)):
            shown = " ".join(str(value) for value in action.default).replace("%", "%%")
            return f"{text} (default: {shown})"
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"{text} (default: {'on' if action.default else 'off'})"
        if isinstance(action.default, bool):
            return text + (" (default: on)" if action.default else " (default: off)")
        return text + " (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """Reports a usage error in one line that says where to look, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser(doc: str | None, example: str = "") -> argparse.ArgumentParser:
    """A parser whose purpose is the first line of `doc`, with `example` commands below the options.

    Abbreviated options are refused: a later option of a similar name must not change what a
    stored command means.
    """
    purpose = (doc or "").strip().split("\n", 1)[0]
    epilog = f"example:\n  {example.strip()}" if example else None
    parser = _Parser(description=purpose, epilog=epilog, formatter_class=_HelpFormatter, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def positive_int(text: str) -> int:
    """`text` as an integer of at least 1 (an argparse type)."""
    return _bounded(text, int, 1, "a whole number of at least 1")


def natural_int(text: str) -> int:
    """`text` as an integer of at least 0 (an argparse type)."""
    return _bounded(text, int, 0, "a whole number of at least 0")


def positive_float(text: str) -> float:
    """`text` as a finite number above 0 (an argparse type)."""
    value = _bounded(text, float, 0.0, "a number above 0")
    if value == 0 or value == float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def unit_float(text: str) -> float:
    """`text` as a number from 0 to 1 (an argparse type)."""
    value = _bounded(text, float, 0.0, "a number from 0 to 1")
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _bounded(text: str, kind: Callable[[str], _Number], least: _Number, what: str) -> _Number:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
    if not value >= least:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def num_cores() -> int:
    """The processor cores that this process may use (a cluster's job may have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_batch_arguments(parser: argparse.ArgumentParser, *, workers: int | None = None) -> None:
    """Adds what every preprocessing program takes: workers, shards, overwrite, dry run, time limit.

    The shard options take their defaults from NUM_SHARDS and SLURM_ARRAY_TASK_ID − SLURM_ARRAY_TASK_MIN,
    so that one command serves a whole SLURM array.
    """
    group = parser.add_argument_group("batch")
    cores = num_cores() if workers is None else workers
    group.add_argument(
        "--workers",
        type=natural_int,
        default=cores,
        help="worker processes; 0: work in this process (default: usable cores, %(default)s)",
    )
    group.add_argument(
        "--num_shards",
        type=positive_int,
        default=_from_environment("NUM_SHARDS", 1, positive_int),
        help="split the work into this many parts (default: NUM_SHARDS or 1)",
    )
    task = _from_environment("SLURM_ARRAY_TASK_ID", 0, natural_int)
    first = _from_environment("SLURM_ARRAY_TASK_MIN", 0, natural_int)
    group.add_argument(
        "--shard_index",
        type=natural_int,
        default=max(task - first, 0),
        help="which part to do, from 0 (default: SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN, or 0)",
    )
    group.add_argument("--overwrite", action="store_true", help="do finished items again")
    group.add_argument(
        "--dry_run", action="store_true", help="print counts and an estimate of time and disk; write nothing"
    )
    group.add_argument(
        "--item_timeout_s",
        type=positive_float,
        default=600.0,
        help="give an item up after this many seconds (with worker processes)",
    )
    add_max_failed_argument(group)


def add_max_failed_argument(parser: argparse._ActionsContainer) -> None:
    """Adds `--max_failed`."""
    parser.add_argument(
        "--max_failed",
        type=unit_float,
        default=0.0,
        metavar="SHARE",
        help="share of the items, 0 to 1, that may fail before the exit code is 1; where nobody was found "
        "(no_face, no_speech) counts neither as failed nor as an item",
    )


def add_video_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds `--video_extensions`."""
    parser.add_argument(
        "--video_extensions",
        nargs="+",
        metavar="PATTERN",
        default=list(VIDEO_PATTERNS),
        help="file name patterns of the videos, searched for in all sub-folders; quote them",
    )


def build(kind: type[_Options], args: argparse.Namespace, **own: Any) -> _Options:
    """A dataclass of options from the parsed arguments of the same names; `own` adds and overrides.

    The namespace ends here: library code takes the dataclass, which checks itself.
    """
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in vars(args).items() if name in names}
    return kind(**(values | own))


def _from_environment(name: str, default: int, kind: Callable[[str], int]) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"environment variable {name}: {error}") from None


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a script's `main` and returns its exit code; exceptions become one line on stderr.

    `--debug` anywhere in the arguments shows the traceback as well. Characters that stdout or stderr
    cannot hold (a file name that is not UTF-8, "…" in Latin-1) are written as escapes from here on.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = int(main(argv))
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: --help and usage errors
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BrokenPipeError:  # the reader of our output went away (| head): nothing to say, nobody to hear it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.SOME_FAILED
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; run the same command again to continue", file=sys.stderr)
        return ExitCode.STOPPED
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        is_ours = not isinstance(error, UserError) and not _is_users_os_error(error)
        hint = " (a fault of facevox: run again with --debug and report what it shows)" if is_ours else ""
        print(f"error: {one_line(error, limit=2000)}{hint}", file=sys.stderr)
        return ExitCode.FAULT if is_ours else ExitCode.USAGE
    return code


def _is_users_os_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _USER_OS_ERRORS
