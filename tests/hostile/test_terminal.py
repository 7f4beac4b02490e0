"""Control characters in names reach neither a terminal nor a log, report or model card."""

import json
import logging
import re
from pathlib import Path

import pytest
from batch_jobs import Upper, config_of, items_of

from facevox import cli
from facevox.batch import run_batch
from facevox.errors import UserError, one_line, printable
from facevox.logs import log_file, on_console
from facevox.model_card import bullets, pairs, table, write_card
from facevox_demo.report.page import Report

# Renames the window, colours, goes back and over the line, ends the line, turns the direction of writing.
NAMES = ("a\x1b]0;PWNED\x07\x1b[31m", "b\rerror: done", "c\n2025-01-01 00:00:00 - facevox - INFO - done",
         "d\u202efdp.", "e\x9b2J", "f\u2028x", "g\x7f\x08\x08", "h\u2066x\u2069")  # fmt: skip
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("name", NAMES)
def test_text_for_people(name: str) -> None:
    assert not CONTROLS.search(printable(name))
    assert "\n" not in printable(name)
    assert not CONTROLS.search(one_line(UserError(f"{name}: no picture")))
    assert json.loads(f'"{printable(name[1:], keep="")}"'.replace("\\x", "\\u00"))  # as JSON has it


@pytest.mark.parametrize(
    "text", ["한국어 이름", "naïve — “x”", "👩\u200d👧", "می\u200cخواهم", "\udcff", "a\\b", ""]
)
def test_other_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("name", NAMES)
def test_batch(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / name).write_text("bad")
    (source / "x").write_text("x")

    def main(argv: object) -> int:
        return run_batch(Upper(), items_of(source), config_of(out)).exit_code

    assert cli.run(main, []) == 1
    shown = capsys.readouterr()
    log = (out / "manifests" / "log.txt").read_text(encoding="utf-8")
    for text in (shown.out, shown.err, log):
        assert not CONTROLS.search(text), text
        assert "\n2025-01-01" not in text
    assert "failed: " in shown.out
    # Tables stay exact.
    assert name in (out / "upper.csv").read_bytes().decode()


@pytest.mark.parametrize("name", NAMES)
def test_messages_of_programs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> int:
        logging.getLogger("facevox.test").info(f"read {name}")
        logging.getLogger("facevox.test").warning(f"{name}: odd")
        print(f"left out: {name}")
        raise OSError(20, "Not a directory", name)

    with log_file(tmp_path / "log.txt"):
        assert cli.run(main, []) == 2
    shown = capsys.readouterr()
    assert not CONTROLS.search(shown.out + shown.err)
    assert shown.err.count("\n") == 2
    assert shown.out.count("\n") == 2 + name.count("\n")  # of print: our own texts have line feeds


@pytest.mark.parametrize("name", NAMES)
def test_usage_errors(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.make_parser("x")
    parser.add_argument("--number", type=int)
    assert cli.run(lambda argv: parser.parse_args(argv) and 0, ["--number", name, f"--{name}"]) == 2
    shown = capsys.readouterr()
    assert not CONTROLS.search(shown.err)
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_log_of_a_traceback(name: str, tmp_path: Path) -> None:
    with on_console(), pytest.raises(RuntimeError), log_file(tmp_path / "log.txt"):
        raise RuntimeError(name)
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "Traceback" in text
    assert not CONTROLS.search(text)
    assert all(
        re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d - facevox.logs - ", line) for line in text.splitlines()
    )


@pytest.mark.parametrize("name", [*NAMES, "a | b", "<img src=x onerror=alert(1)>", "</td><script>x</script>"])
def test_cards_and_reports(name: str, tmp_path: Path) -> None:
    write_card(
        tmp_path / "card.md",
        "x",
        {"A": [table(["name", "n"], [[name, 1]]), bullets([f"class {name}"]), pairs({name: name}), name]},
    )
    card = (tmp_path / "card.md").read_bytes().decode()
    assert not CONTROLS.search(card)
    assert not re.search("<[a-z/]", card)
    (row,) = [line for line in card.splitlines() if line.startswith("| ") and line.endswith(" 1 |")]
    assert len(re.split(r"(?<!\\)\|", row)) == 4
    report = Report("x")
    report.table(["name"], [[name]])
    report.text(name)
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_bytes().decode()
    assert not CONTROLS.search(page)
    assert not re.search("<(img src=x|script)", page)
