"""Errors that reach the user as one line, and the exit codes of every program."""

import errno
import re
from enum import IntEnum
from typing import ClassVar

# They move a terminal's cursor, colour and rename it, begin another line, or turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class ExitCode(IntEnum):
    """Exit codes of all programs of the project."""

    DONE = 0
    SOME_FAILED = 1  # the work ran, and more of it failed than --max_failed allows, or it gave no result
    USAGE = 2  # bad usage or bad input: one line on stderr
    FAULT = 70  # an unexpected exception: a bug (EX_SOFTWARE)
    STOPPED = 75  # stopped cleanly by a signal (EX_TEMPFAIL); run again to continue


class UserError(ValueError):
    """A mistake that the user can correct: what is wrong, with which value, where, and what to do.

    The text is one line; `facevox.cli.run` prints it and exits with `ExitCode.USAGE`.
    """


class NobodyError(UserError):
    """An input that could be read and has nobody in it: an empty result, not a failure.

    Attributes:
        status: Its name in the manifest and the table.
    """

    status: ClassVar[str]


class NoFaceError(NobodyError):
    """A picture or video without a face, or without one where it was expected."""

    status = "no_face"


class NoSpeechError(NobodyError):
    """A sound without speech."""

    status = "no_speech"


def disk_fault(error: BaseException) -> str:
    """A line about a disk that is full, over its quota or read-only; "" for other errors."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return ""
    full = "" if error.errno == errno.EROFS else "disk full: "
    where = f" ({error.filename})" if error.filename else ""
    return f"{full}{error.strerror}{where}; make room and run the same command again to continue"


def printable(text: str, keep: str = "") -> str:
    r"""The text for people, with its control characters as escapes: `\x1b`, `\n`, `\u202e`.

    Args:
        text: It may have file names of any origin in it.
        keep: Control characters that stay.
    """

    def escape(match: re.Match[str]) -> str:
        sign = match[0]
        if sign in keep:
            return sign
        return repr(sign)[1:-1] if sign < " " else f"\\u{ord(sign):04x}"

    return _CONTROLS.sub(escape, text)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error as one line of at most `limit` characters, never empty.

    A `UserError` is shown as it is; other errors begin with their type, because the text of a
    `KeyError('x')` alone explains nothing.
    """
    text = printable(" ".join(str(error).split()))
    if not isinstance(error, UserError):
        name = type(error).__name__
        text = f"{name}: {text}" if text else name
    return text if len(text) <= limit else text[: limit - 1] + "…"
