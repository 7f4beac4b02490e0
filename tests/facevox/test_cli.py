"""Command lines: exit codes, one line on stderr, help."""

import argparse
import errno
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.errors import ExitCode, UserError, one_line


def raising(error: BaseException) -> Callable[[object], int]:
    def main(argv: object) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("x.csv:3: wanted two columns"), 2, "error: x.csv:3: wanted two columns"),
        (UserError("two\nlines"), 2, "error: two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 2, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "Permission denied"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "/x"), 2, "symbolic links: '/x'"),
        (OSError(errno.EIO, "Input/output error", "/x"), 2, "Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle", "/x"), 2, "Stale file handle"),
        (OSError(errno.EINVAL, "Invalid argument", "/x"), 2, "Invalid argument"),
        (KeyError("k"), 70, "a bug in facevox"),
        (KeyboardInterrupt(), 75, "run the same command again"),
    ],
)
def test_exception_becomes_one_line_and_an_exit_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(raising(error), []) == code
    shown = capsys.readouterr().err
    assert text in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("utf-8", "b\udcff.mp4", rb"b\udcff.mp4"),  # a file name that is not UTF-8
        ("latin-1", "… and 3 more", rb"\u2026 and 3 more"),
    ],
)
def test_what_a_stream_cannot_hold_is_escaped(
    encoding: str, text: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def main(argv: object) -> int:
        print(text)
        raise UserError(text)

    assert cli.run(main, []) == 2
    for stream in (out, err):
        stream.flush()
        assert shown in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(raising(UserError("x")), ["--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_code_of_main_is_passed_on() -> None:
    assert cli.run(lambda argv: ExitCode.STOPPED, []) == 75


def parse(text: str) -> argparse.Namespace:
    parser = cli.make_parser("Purpose of it.\n\nmore", "python x.py --num 3")
    parser.add_argument("--num_things", type=cli.positive_int, default=4, help="how many")
    parser.add_argument("--share", type=cli.unit_float, default=0.5, help="a share")
    parser.add_argument("--align", action=argparse.BooleanOptionalAction, default=True, help="turn it")
    parser.add_argument("--folder", type=Path, help="where")
    parser.add_argument("--patterns", nargs="+", default=["*.a", "*.b"], help="what")
    return parser.parse_args(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "--num_things 0",
        "--num_things x",
        "--num_thing 3",
        "--share 1.5",
        "--share nan",
        "--unknown",
        "--folder=",
    ],
)
def test_usage_error_is_one_line_with_code_2(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(text)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_help_has_purpose_defaults_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for text in (
        "Purpose of it.",
        "(default: 4)",
        "(default: on)",
        "(default: *.a *.b)",
        "python x.py --num 3",
    ):
        assert text in shown


def test_environment_that_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUM_SHARDS", "many")
    with pytest.raises(UserError, match="NUM_SHARDS: 'many' is not"):
        cli.add_options(cli.make_parser("x"), BatchOptions)


def test_one_line_is_never_empty_and_never_long() -> None:
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(UserError("x" * 1000))) == 300


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (lambda file: (file / "below").mkdir(), "a folder above it, is a file"),
        (lambda file: file.mkdir(), "is there already"),
        (lambda file: file.parent.read_bytes(), "is a folder; a file is expected"),
    ],
)
def test_file_in_the_place_of_a_folder_is_told_in_words(
    action: Callable[[Path], object], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.txt"
    file.touch()

    def main(argv: object) -> int:
        action(file)
        return 0

    assert cli.run(main) == ExitCode.USAGE
    message = capsys.readouterr().err
    assert text in message
    assert "Errno" not in message
    assert str(tmp_path) in message


def test_tilde_in_a_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse("--folder=~/clips").folder == Path("/home/somebody/clips")
