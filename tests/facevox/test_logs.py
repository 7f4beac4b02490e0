"""Logging: what programs show, what a library keeps to itself, and log.txt."""

import logging
import multiprocessing
import os
import re
from pathlib import Path

import pytest

from facevox import cli, logs
from facevox.errors import UserError
from facevox.logs import log_file, on_console
from facevox.progress import Progress

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - [\w.]+ - [A-Z]+ - ")
LIBRARY = logging.getLogger("lc_pytorch.some.module")


def texts_of(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert all(LINE.match(line) for line in lines)
    return [LINE.sub("", line) for line in lines]


def say_something(argv: object = None) -> int:
    LIBRARY.debug("a detail")
    LIBRARY.info("50% done")
    LIBRARY.warning("a font is missing")
    logging.getLogger("some_other_package").info("noise")
    return 0


def test_program_shows_bare_messages_on_stdout_and_warnings_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(say_something, []) == 0
    assert capsys.readouterr() == ("50% done\n", "warning: a font is missing\n")


def test_program_leaves_the_loggers_as_it_found_them() -> None:
    loggers = [logging.getLogger(name) for name in logs.PACKAGES]
    before = [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    cli.run(say_something, [])
    with pytest.raises(KeyError), on_console():
        raise KeyError("x")
    assert [(list(logger.handlers), logger.level, logger.propagate) for logger in loggers] == before


def test_library_shows_nothing_by_itself_and_can_be_captured(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    say_something()
    assert caplog.messages == ["a font is missing"]
    caplog.set_level("INFO", "lc_pytorch")
    say_something()
    assert caplog.messages[1:] == ["50% done", "a font is missing"]
    assert capsys.readouterr() == ("", "")


def test_log_has_time_level_and_logger_and_grows_with_each_start(tmp_path: Path) -> None:
    for _ in range(2):
        with on_console(), log_file(tmp_path / "log.txt"):
            say_something()
        LIBRARY.warning("outside")
    texts = texts_of(tmp_path / "log.txt")
    assert texts[1:4] == texts[5:] == ["a detail", "50% done", "a font is missing"]
    assert texts[0] == texts[4]
    assert f"process {os.getpid()}: " in texts[0]
    assert " - lc_pytorch.some.module - WARNING - a font" in (tmp_path / "log.txt").read_text("utf-8")


def test_level_that_a_library_user_sets_holds_for_the_log_too(tmp_path: Path) -> None:
    with log_file(tmp_path / "log.txt"):
        say_something()
    assert texts_of(tmp_path / "log.txt")[1:] == ["a font is missing"]


@pytest.mark.parametrize(
    ("error", "last", "has_trace"),
    [
        (UserError("data.csv: no such file"), "ended: data.csv: no such file", False),
        (KeyboardInterrupt(), "ended: KeyboardInterrupt", False),
        (KeyError("k"), "KeyError: 'k'", True),
    ],
)
def test_log_says_what_ended_the_run(
    error: BaseException, last: str, has_trace: bool, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), log_file(tmp_path / "log.txt"):
        raise error
    texts = texts_of(tmp_path / "log.txt")
    assert texts[-1] == last
    assert any("Traceback" in text for text in texts) == has_trace


def test_forked_process_writes_nothing_into_the_log_of_its_parent(tmp_path: Path) -> None:
    with on_console(), log_file(tmp_path / "log.txt"):
        child = multiprocessing.get_context("fork").Process(target=LIBRARY.debug, args=("from the child",))
        child.start()
        child.join()
        assert child.exitcode == 0
        LIBRARY.debug("from the parent")
    assert texts_of(tmp_path / "log.txt")[1:] == ["from the parent"]


def test_log_that_cannot_be_written_is_told_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").mkdir()
    with on_console(), log_file(tmp_path / "log.txt"):
        say_something()
    said = capsys.readouterr()
    assert said.out == "50% done\n"
    assert said.err.count("the log cannot be written: Is a directory") == 1


def test_full_disk_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with on_console(), log_file(tmp_path / "log.txt"):
        monkeypatch.setattr(logs.os, "write", refuse)
        say_something()
        monkeypatch.undo()
        LIBRARY.info("there is room again")
    assert texts_of(tmp_path / "log.txt")[1:] == ["there is room again"]
    assert capsys.readouterr().err.count("the log cannot be written: No space left on device") == 1


def test_progress_is_shown_by_programs_and_not_within_other_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facevox.progress.LINE_EVERY_S", 0.0)

    def work() -> str:
        with Progress(2, "outer") as outer:
            with Progress(2, "inner") as inner:
                inner.update()
            outer.update()
        with Progress(2, "next") as following:
            following.update()
        return capsys.readouterr().err

    assert work() == ""
    with on_console():
        assert [line.partition(":")[0] for line in work().splitlines()] == ["outer", "next"]
