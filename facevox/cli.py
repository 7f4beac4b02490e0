"""Argparse habits that every script shares, and the one place where exceptions become exit codes.

A script has `get_args_parser()` and `main(argv=None) -> int`, and ends in `sys.exit(cli.run(main))`.
"""

import argparse
import dataclasses
import errno
import os
import sys
import traceback
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from facevox.errors import ExitCode, UserError, one_line
from facevox.files import VIDEO_PATTERNS
from facevox.logs import on_console
from facevox.options import Kind, Option, declared, number, whole

# The operating system's refusals that lie in paths, rights and disks; anything else is a fault of ours.
_USER_OS_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}
_USER_OS_ERRORS |= {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.EEXIST}
_USER_OS_ERRORS |= {errno.ELOOP, errno.EIO, errno.ESTALE, errno.EINVAL}


_Value = TypeVar("_Value")
_Config = TypeVar("_Config")


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


@dataclass(frozen=True)
class _Refused:
    """What stands for a value that an option does not take, until all of them are read."""

    message: str


class Parser(argparse.ArgumentParser):
    """Reports a usage error in one line that says where to look, with exit code 2."""

    def group(self, title: str) -> argparse._ArgumentGroup:
        """The section `title` of `--help`, made when first asked for."""
        groups: dict[str, argparse._ArgumentGroup] = self.__dict__.setdefault("groups", {})
        if title not in groups:
            groups[title] = self.add_argument_group(title)
        return groups[title]

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """The base class's, with every refused value told at once and not the first alone."""
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
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def make_parser(doc: str | None, example: str = "") -> Parser:
    """A parser whose purpose is the first line of `doc`, with `example` commands below the options.

    Abbreviated options are refused: a later option of a similar name must not change what a
    stored command means.
    """
    purpose = (doc or "").strip().split("\n", 1)[0]
    epilog = f"example:\n  {example.strip()}" if example else None
    parser = Parser(description=purpose, epilog=epilog, formatter_class=_HelpFormatter, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def argument_type(kind: Kind[_Value]) -> Callable[[str], _Value]:
    """An argparse type that takes the values of `kind` and says in words what it expects."""

    def read(text: str) -> _Value:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error) or f"{text!r} is not {kind.expected}") from None

    return read


positive_int = argument_type(whole(1))
natural_int = argument_type(whole(0))
positive_float = argument_type(number(is_above=True))
unit_float = argument_type(number(0, 1))


def num_cores() -> int:
    """The processor cores that this process may use (a cluster's job may have fewer than the machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_options(
    parser: argparse._ActionsContainer,
    config: type,
    *,
    only: Container[str] | None = None,
    skip: Container[str] = (),
) -> None:
    """Adds a flag for each option of a dataclass (see `facevox.options`), in its section of `--help`.

    Args:
        parser: A parser of `make_parser`, or a group of one, into which all of them go then.
        config: The dataclass.
        only: Names of the fields that this program offers; None: all.
        skip: Names of those that it does not offer.
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
    one = kind.element or kind
    read = argument_type(one)

    def read_or_refuse(text: str) -> Any:
        try:
            return read(text)
        except argparse.ArgumentTypeError as error:
            return _Refused(str(error))

    details: dict[str, Any] = {"nargs": "+"} if kind.element else {}
    if option.is_required:
        details["required"] = True
    metavar = option.metavar or (f"{{{','.join(one.choices)}}}" if one.choices else None)
    container.add_argument(
        flag, type=read_or_refuse, default=default, metavar=metavar, help=option.help, **details
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


def build(config: type[_Config], args: argparse.Namespace, **own: Any) -> _Config:
    """A dataclass of options from the parsed arguments of the same names; `own` adds and overrides.

    The namespace ends here: library code takes the dataclass, which checks itself.
    """
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(args).items()
        if name in names
    }
    return config(**(values | own))


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Runs a script's `main` and returns its exit code; exceptions become one line on stderr.

    While it runs, the console shows what the packages log (see `facevox.logs`).

    `--debug` anywhere in the arguments shows the traceback as well. Characters that stdout or stderr
    cannot hold (a file name that is not UTF-8, "…" in Latin-1) are written as escapes from here on.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with on_console():
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
