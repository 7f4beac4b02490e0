"""Errors that reach the user as one line, and the exit codes of every program."""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What every program of the project returns to the shell."""

    DONE = 0
    SOME_FAILED = 1  # the work ran, and more of it failed than --max_failed allows, or nothing came out of it
    USAGE = 2  # bad usage or bad input: one line on stderr
    FAULT = 70  # an exception that nobody expected: a fault of ours (EX_SOFTWARE)
    STOPPED = 75  # stopped by a signal in good order (EX_TEMPFAIL); run again to continue


class UserError(ValueError):
    """A mistake that the user can mend: what is wrong, with which value, where, and what to do.

    The text is one line; `facevox.cli.run` prints it and exits with `ExitCode.USAGE`.
    """


class NobodyError(UserError):
    """An input that was read well, and in which nobody was found: a result that is empty, not a failure.

    Attributes:
        status: What the manifest and the table call it.
    """

    status: ClassVar[str]


class NoFaceError(NobodyError):
    """A picture or video without a face, or without one where it was expected."""

    status = "no_face"


class NoSpeechError(NobodyError):
    """A sound without speech."""

    status = "no_speech"


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error as one line of at most `limit` characters, never empty.

    Our own errors stand for themselves; others are led by their type, because a bare
    `KeyError('x')` says nothing without it.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, UserError):
        name = type(error).__name__
        text = f"{name}: {text}" if text else name
    return text if len(text) <= limit else text[: limit - 1] + "…"
