"""The log: the documented line, one file a day, several processes at once."""

import logging
import multiprocessing
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emotion import logger_config
from emotion.logger_config import DailyFileHandler, get_logger, log_hyperparameters, setup_logging

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - emotion\.\w+ - [A-Z]+ - ")


@pytest.fixture(autouse=True)
def _quiet_afterwards():
    yield
    logger = logging.getLogger("emotion")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


def lines_of(folder: Path) -> list[str]:
    (file,) = folder.iterdir()
    return file.read_text(encoding="utf-8").splitlines()


def test_line_has_the_documented_form_in_file_and_console(tmp_path, capsys):
    setup_logging(tmp_path / "logs")
    before = time.strftime("%Y-%m-%d %H:%M:%S")
    get_logger("main").info("백본: %s", "MobileNetV3Large")
    after = time.strftime("%Y-%m-%d %H:%M:%S")
    (line,) = lines_of(tmp_path / "logs")
    assert line[:19] in (before, after)
    assert line[19:] == " - emotion.main - INFO - 백본: MobileNetV3Large"
    assert capsys.readouterr().err == line + "\n"
    (file,) = (tmp_path / "logs").iterdir()
    assert file.name == time.strftime("app_%Y_%m_%d.log")


def test_hyperparameter_block_is_as_documented(tmp_path):
    setup_logging(tmp_path)
    log_hyperparameters(get_logger("main"), {"GPU 사용": True, "백본": "MobileNetV3Large", "EMA": False})
    assert [LINE.sub("", line) for line in lines_of(tmp_path)] == [
        "🔧 하이퍼파라미터 설정:",
        "   - GPU 사용: ✅ 활성화",
        "   - 백본: MobileNetV3Large",
        "   - EMA: ❌ 비활성화",
    ]


def test_text_with_line_ends_cannot_forge_a_line(tmp_path):
    setup_logging(tmp_path)
    get_logger("server").warning(
        "name %s", "a\n2025-11-30 14:23:45 - emotion.main - INFO - forged\r\nb\udc80"
    )
    (line,) = lines_of(tmp_path)
    assert LINE.match(line)
    assert line.endswith("emotion.main - INFO - forged\\r\\nb\\udc80")


def test_traceback_is_kept_under_the_prefix(tmp_path):
    setup_logging(tmp_path)
    try:
        raise KeyError("x")
    except KeyError:
        get_logger("main").exception("failed")
    lines = lines_of(tmp_path)
    assert all(LINE.match(line) for line in lines)
    assert lines[-1].endswith("ERROR - KeyError: 'x'")


def test_setting_up_twice_writes_each_line_once(tmp_path):
    setup_logging(tmp_path / "first")
    setup_logging(tmp_path / "second")
    get_logger("main").info("once")
    assert lines_of(tmp_path / "first") == []
    assert len(lines_of(tmp_path / "second")) == 1


def test_at_midnight_the_next_file_begins(tmp_path, monkeypatch):
    evening = time.mktime((2025, 11, 30, 23, 59, 59, 0, 0, -1))
    monkeypatch.setattr(logger_config.time, "time", lambda: evening)
    handler = DailyFileHandler(tmp_path)
    for second, text in enumerate(("last", "first", "second")):
        record = logging.LogRecord("emotion.main", logging.INFO, "", 0, text, None, None)
        record.created = evening + second
        handler.emit(record)
    handler.close()
    assert (
        tmp_path / "app_2025_11_30.log"
    ).read_text() == "2025-11-30 23:59:59 - emotion.main - INFO - last\n"
    second_day = (tmp_path / "app_2025_12_01.log").read_text().splitlines()
    assert [line[:19] for line in second_day] == ["2025-12-01 00:00:00", "2025-12-01 00:00:01"]


def _write_many(folder: str, number: int, count: int) -> None:
    handler = DailyFileHandler(Path(folder))
    for k in range(count):
        text = f"{number}:{k}:" + chr(ord("a") + number) * (k % 700)
        handler.emit(logging.LogRecord("emotion.main", logging.INFO, "", 0, text, None, None))
    handler.close()


def test_lines_of_several_processes_never_mix(tmp_path):
    context = multiprocessing.get_context("fork")  # quick; each opens the file by itself
    processes = [context.Process(target=_write_many, args=(str(tmp_path), n, 500)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    seen = set()
    for line in lines_of(tmp_path):
        match = LINE.match(line)
        assert match
        number, k, filling = line[match.end() :].split(":")
        assert filling == chr(ord("a") + int(number)) * (int(k) % 700)
        seen.add((int(number), int(k)))
    assert seen == {(n, k) for n in range(4) for k in range(500)}


def test_full_disk_is_told_once_and_stops_nothing(tmp_path, monkeypatch, capsys):
    setup_logging(tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logger_config.os, "write", refuse)
    get_logger("main").info("one")
    get_logger("main").info("two")
    assert capsys.readouterr().err.count("the log cannot be written: No space left on device") == 1


def test_log_folder_that_is_a_file_is_told_before_anything_begins(tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(FileExistsError):
        setup_logging(tmp_path / "logs")


SERVER_LIKE = """
import sys
from pathlib import Path
from emotion.logger_config import get_logger, setup_logging
setup_logging(Path(sys.argv[1]), is_console_awaited=False)
for number in range(int(sys.argv[2])):
    get_logger("server").info("line %d %s", number, "x" * 100)
"""


def test_console_that_nobody_reads_holds_nothing_up_and_the_file_has_every_line(tmp_path):
    words = [sys.executable, "-c", SERVER_LIKE, str(tmp_path), "5000"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    try:
        assert process.wait(timeout=120) == 0  # a pipe holds 64 kB, the lines are ten times that
    finally:
        process.kill()
        process.communicate()
    assert len(lines_of(tmp_path)) == 5000


def test_console_that_is_read_gets_every_line_also_those_of_the_last_moment(tmp_path):
    words = [sys.executable, "-c", SERVER_LIKE, str(tmp_path), "200"]
    shown = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=120).stderr.splitlines()
    assert shown == lines_of(tmp_path)
    assert len(shown) == 200
