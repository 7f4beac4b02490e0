"""Argparse conventions that every script shares, and the one place where exceptions become exit codes.

A script has `get_args_parser()` and `main(argv=None) -> int`, and ends in `sys.exit(cli.run(main))`.
"""

import argparse
import dataclasses
import errno
import os
import sys
import traceback
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, overload

from facevox.addresses import Address, is_address, masked, read_address
from facevox.errors import ExitCode, UserError, disk_fault, one_line, printable
from facevox.files import VIDEO_PATTERNS
from facevox.logs import on_console
from facevox.options import Dataclass, Kind, Option, declared, number, path, whole
from facevox.program import stop_signals, stopped_text
from facevox.streams import plain_streams

# The operating system's refusals that are about paths, permissions and disks; any other error is a bug.
_USER_OS_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}
_USER_OS_ERRORS |= {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.EEXIST}
_USER_OS_ERRORS |= {errno.ELOOP, errno.EIO, errno.ESTALE, errno.EINVAL}

_Value = TypeVar("_Value")
_Namespace = TypeVar("_Namespace")
_Config = TypeVar("_Config", bound=Dataclass)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows each option's default, except where it has none or its help text mentions it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if "%(default)" in text or "default" in text or action.required:
            return text
        if action.default in (None, argparse.SUPPRESS) or not action.option_strings:
            return text
        if isinstance(action.default, (list, tuple)):
            values = " ".join(str(value) for value in action.default).replace("%", "%%")
            return f"{text} (default: {values})"
        if isinstance(action, argparse.BooleanOptionalAction) or isinstance(action.default, bool):
            return f"{text} (default: {'on' if action.default else 'off'})"
        return text + " (default: %(default)s)"


@dataclass(frozen=True)
class _Refused:
    """A placeholder for a value that an option does not take, until all values are read."""

    message: str


class Parser(argparse.ArgumentParser):
    """Reports a usage error in one line that says where to look, with exit code 2."""

    def group(self, title: str) -> argparse._ArgumentGroup:
        """The section `title` of `--help`, created by the first call."""
        groups = (group for group in self._action_groups if group.title == title)
        return next(groups, None) or self.add_argument_group(title)

    # The overloads are the base class's.
    @overload
    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: None = None
    ) -> tuple[argparse.Namespace, list[str]]: ...
    @overload
    def parse_known_args(
        self, args: Iterable[str] | None, namespace: _Namespace
    ) -> tuple[_Namespace, list[str]]: ...
    @overload
    def parse_known_args(self, *, namespace: _Namespace) -> tuple[_Namespace, list[str]]: ...
    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: object = None
    ) -> tuple[object, list[str]]:
        """Parses as the base class does, but reports all refused values at once, not only the first."""
        parsed, rest = super().parse_known_args(args, namespace)
        faults = [
            f"argument --{name}: {value.message}"
            for name, values in vars(parsed).items()
            for value in (values if isinstance(values, list) else [values])
            if isinstance(value, _Refused)
        ]
        if faults:
            self.error("; ".join(faults))
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {masked(message)} (see {self.prog} --help)\n")


def make_parser(doc: str | None, example: str = "") -> Parser:
    """A parser with the first line of `doc` as its description, and `example` commands below the options.

    Abbreviated options are refused: a later option of a similar name must not change the meaning of a
    stored command.
    """
    purpose = (doc or "").strip().split("\n", 1)[0]
    epilog = f"example:\n  {example.strip()}" if example else None
    parser = Parser(description=purpose, epilog=epilog, formatter_class=_HelpFormatter, allow_abbrev=False)
    # `type=Path` reads as the options of dataclasses do: `~` is the home folder, and an empty text (nearly
    # always an unset variable) is refused, where Path would take it for the current folder.
    parser.register("type", Path, argument_type(path()))
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error; a batch then works in this process",
    )
    return parser


def argument_type(kind: Kind[_Value]) -> Callable[[str], _Value]:
    """An argparse type that takes the values of `kind`, with a message that says what it expects."""

    def read(text: str) -> _Value:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error) or f"{text!r} is not {kind.expected}") from None

    return read


_read_path = argument_type(path())


def media_argument(text: str) -> Path | Address:
    """An argparse type: a file, or an address (`facevox.addresses`)."""
    if not is_address(text):
        return _read_path(text)
    try:
        return read_address(text)
    except UserError as error:  # its message, where argparse's own would show the address
        raise argparse.ArgumentTypeError(str(error)) from None


positive_int = argument_type(whole(1))
natural_int = argument_type(whole(0))
positive_float = argument_type(number(is_above=True))
unit_float = argument_type(number(0, 1))


def num_cores() -> int:
    """Number of cores that this process may use (a cluster's job may have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_options(
    parser: argparse._ActionsContainer,
    config: type[Dataclass],
    *,
    only: Container[str] | None = None,
    skip: Container[str] = (),
) -> None:
    """Adds a flag for each option of a dataclass (see `facevox.options`), in its section of `--help`.

    Args:
        parser: A parser of `make_parser`; or a group of one, which then gets all of them.
        config: The dataclass.
        only: Names of the fields that this program offers; None: all.
        skip: Names of fields that it does not offer.
    """
    for option in declared(config):
        if option.name in skip or (only is not None and option.name not in only):
            continue
        if option.group and isinstance(parser, Parser):
            _add_option(parser.group(option.group), option)
        else:
            _add_option(parser, option)


def _add_option(container: argparse._ActionsContainer, option: Option) -> None:
    flag, kind = f"--{option.name}", option.kind
    default = option.flag_default() if option.flag_default else option.default
    if kind.is_switch:
        action = argparse.BooleanOptionalAction if default or kind.has_no else "store_true"
        container.add_argument(flag, action=action, default=default, help=option.help)
        return
    element = kind.element or kind
    read = argument_type(element)

    def read_or_refuse(text: str) -> object:
        try:
            return read(text)
        except argparse.ArgumentTypeError as error:
            return _Refused(str(error))

    container.add_argument(
        flag,
        nargs="+" if kind.element else None,
        type=read_or_refuse,
        default=default,
        required=option.is_required,
        # Not argparse's `choices`: it would check the placeholders of refused values as well.
        metavar=option.metavar or (f"{{{','.join(element.choices)}}}" if element.choices else None),
        help=option.help,
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


def build(config: type[_Config], args: argparse.Namespace, **others: Any) -> _Config:
    """A dataclass of options from the parsed arguments of the same names; `others` adds and overrides.

    The namespace ends here: library code takes the dataclass, which checks itself.
    """
    names = {field.name for field in dataclasses.fields(config)}
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(args).items()
        if name in names
    }
    return config(**(values | others))


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a script's `main` and returns its exit code; exceptions become one line on stderr.

    Meanwhile the console shows the log messages of the packages (see `facevox.logs`), a stream that breaks
    is dropped (see `facevox.streams`), and a stop signal ends the program cleanly (see `facevox.program`).

    `--debug` anywhere in the arguments also shows the traceback. From here on, characters that stdout or
    stderr cannot encode (a file name that is not UTF-8, "…" in Latin-1) are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with plain_streams():
        try:
            with stop_signals(), on_console():
                return int(main(argv))
        except SystemExit as stop:  # argparse: --help and usage errors
            return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        except KeyboardInterrupt as stop:
            print(stopped_text(str(stop)), file=sys.stderr)
            return ExitCode.STOPPED
        except Exception as error:
            return _report(error, "--debug" in (sys.argv[1:] if argv is None else argv))


def _report(error: Exception, is_debug: bool) -> ExitCode:
    """Prints an error in one line, with `is_debug` after its traceback; returns the exit code."""
    if is_debug:
        traceback.print_exc()
    is_bug = not isinstance(error, UserError)
    if isinstance(error, OSError) and error.errno in _USER_OS_ERRORS:
        is_bug = False
    fault = disk_fault(error) or _path_fault(error) or _system_fault(error)
    is_bug = is_bug and not fault
    hint = " (a bug in facevox: run again with --debug and report what it shows)" if is_bug else ""
    text = masked(printable(fault) or one_line(error, limit=2000))
    print(f"error: {text}{hint}", file=sys.stderr)
    return ExitCode.FAULT if is_bug else ExitCode.USAGE


def _system_fault(error: Exception) -> str:
    """A line on a user without a home folder, or too little memory; empty for other errors."""
    text = str(error)
    if isinstance(error, RuntimeError) and "home directory" in text:  # of Python, and so of libraries
        return "this user has no home folder: set HOME to a folder in which it may write"
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map" in text):
        detail = f" ({one_line(error)})" if text else ""
        return f"too little memory; give more, or raise its limit (ulimit -v, the job's){detail}"
    return ""


def _path_fault(error: Exception) -> str:
    """A line on a file in the place of a folder, or the other way round; empty for other errors."""
    if not isinstance(error, OSError):
        return ""
    path = error.filename2 or error.filename  # of two, the second is what a finished file is renamed to
    return (
        {
            errno.EEXIST: f"{path}: is there already, and not as the folder or file that is expected",
            errno.ENOTDIR: f"{path}: it, or a folder above it, is a file; a folder is expected",
            errno.EISDIR: f"{path}: is a folder; a file is expected",
        }.get(error.errno or 0, "")
        if path
        else ""
    )
