"""Options written once: the flag, the check and the reader of a file say the same of a value."""

import argparse
import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

from facevox import cli
from facevox.errors import UserError
from facevox.options import (
    DEVICE,
    Kind,
    Options,
    changed,
    choice,
    declared,
    default_of,
    number,
    option,
    path,
    read_plain,
    required,
    several,
    switch,
    text,
    where,
    whole,
)


@dataclass(frozen=True, kw_only=True)
class Base(Options):
    """What derived programs share."""

    out: Path = required(path(), "where to", metavar="DIR")
    size: int = option(32, whole(2), "how many", group="work")
    rate: float = option(0.5, number(0, 1, is_above=True), "how fast", group="work")


@dataclass(frozen=True, kw_only=True)
class Derived(Base):
    """One of them."""

    names: tuple[str, ...] = option((), several(text()), "who (default: nobody)")
    parts: tuple[str, ...] = option(("a",), several(choice("a", "b")), "which")
    limit: float | None = option(None, number(0, 2), "at most")
    is_quick: bool = option(False, switch(), "in a hurry", group="work")
    is_safe: bool = option(True, switch(), "with care", group="work")
    where: str = option("auto", DEVICE, "where", flag_default=lambda: "cpu")
    size: int = changed(Base, "size", 16)
    not_offered: int = 3

    def contradictions(self) -> list[str]:
        return ["--size is more than --limit"] if self.limit and self.size > self.limit * 100 else []


def parse(*words: str) -> Derived:
    parser = cli.make_parser("x")
    cli.add_options(parser, Derived)
    return cli.build(Derived, parser.parse_args(["--out", "o", *words]))


def test_flags_take_names_defaults_and_kinds_from_the_fields() -> None:
    assert parse() == Derived(out=Path("o"), where="cpu")
    given = parse(
        *("--names", "x", "y", "--parts", "b", "a", "--limit", "1.5", "--is_quick", "--no-is_safe"),
        *("--size", "2", "--rate", "1", "--where", "cuda"),
    )
    assert given == Derived(
        out=Path("o"), names=("x", "y"), parts=("b", "a"), limit=1.5, is_quick=True, is_safe=False,
        size=2, rate=1.0, where="cuda",
    )  # fmt: skip


def test_a_value_out_of_range_is_refused_alike_by_flag_field_and_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse("--size", "1")
    assert "--size: '1' is not a whole number of at least 2" in capsys.readouterr().err
    with pytest.raises(UserError) as caught:
        Derived(out=Path("o"), size=1, rate=0.0, parts=("c",))
    for fault in (
        "--size: 1 is not a whole number of at least 2",
        "--rate: 0.0 is not a number above 0 and at most 1",
        "--parts: ('c',) is not one or more, each one of a, b",
    ):
        assert fault in str(caught.value)
    size = next(info for info in declared(Derived) if info.name == "size")
    with pytest.raises(ValueError):
        read_plain(size, 1)


def test_contradictions_are_told_with_the_values_out_of_range() -> None:
    with pytest.raises(UserError, match="more than --limit"):
        Derived(out=Path("o"), limit=0.1)
    with pytest.raises(UserError) as caught:
        Derived(out=Path("o"), limit=0.1, rate=2.0)
    assert str(caught.value) == (
        "--rate: 2.0 is not a number above 0 and at most 1; --size is more than --limit"
    )
    with pytest.raises(UserError, match="--limit: 'much' is not a number from 0 to 2"):
        Derived(out=Path("o"), limit="much")  # type: ignore[arg-type]


def test_all_refused_values_of_a_command_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--size", "1", "--parts", "a", "c", "--where", "moon")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    for fault in (
        "argument --size: '1' is not a whole number of at least 2",
        "argument --parts: 'c' is not one of a, b",
        "argument --where: 'moon' is not one of auto, cpu, cuda",
    ):
        assert fault in said
    assert said.count("\n") == 1


def test_own_options_come_before_those_of_base_classes() -> None:
    names = [info.name for info in declared(Derived)]
    assert names == ["names", "parts", "limit", "is_quick", "is_safe", "where", "out", "size", "rate"]
    assert default_of(Derived, "size") == 16
    assert default_of(Base, "size") == 32
    assert [info.name for info in declared(Derived) if info.is_required] == ["out"]


def test_help_has_a_section_for_each_group(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.make_parser("x")
    cli.add_options(parser, Derived, skip=("names",))
    shown = parser.format_help()
    assert shown.count("work:") == 1
    assert "--out DIR" in shown.split("work:")[0]
    assert "--size SIZE" in shown.split("work:")[1]
    assert "how many (default: 16)" in shown
    assert "--names" not in shown
    few = cli.make_parser("x")
    cli.add_options(few.add_argument_group("mine"), Derived, only=("size",))
    assert "work:" not in few.format_help()
    assert "--rate" not in few.format_help()


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (whole(), {"0": 0, " 7 ": 7, "+5": 5}, ["", "-1", "1.0", "1e3", "９", "9" * 5000, "nan"]),
        (whole(-3, 3), {"-3": -3}, ["4", "-4"]),
        (number(), {"0": 0.0, "1e-4": 1e-4}, ["-1", "nan", "inf", "1e999", "x", ""]),
        (number(0, 1, is_below=True), {"0": 0.0, "0.5": 0.5}, ["1"]),
        (choice("a", "b"), {"a": "a"}, ["A", "", "c"]),
        (several(whole(1)), {"1,2": (1, 2), "3": (3,)}, ["", "1,,2", "1,0"]),
        (text(), {"x": "x"}, ["", "a\0b"]),
        (text(may_be_empty=True), {"": ""}, []),
        (path(), {"a/b": Path("a/b")}, ["", "a\0b"]),
        (where(whole(), lambda value: value % 2 == 0, "an even number"), {"2": 2}, ["1", "x"]),
    ],
)
def test_kinds_read_texts_and_judge_values_alike(kind: Kind, good: dict[str, object], bad: list[str]) -> None:
    for written, value in good.items():
        assert kind.read(written) == value
        assert kind.is_valid(value)
    for written in bad:
        with pytest.raises(ValueError):
            kind.read(written)


@pytest.mark.parametrize("value", [True, "3", None, 2.5, float("nan"), (1, 2)])
def test_a_whole_number_is_no_other_type(value: object) -> None:
    assert not whole().is_valid(value)


def test_plain_values_of_a_file_become_those_of_the_field() -> None:
    size, names, rate = (
        next(info for info in declared(Derived) if info.name == name) for name in ("size", "names", "rate")
    )
    assert read_plain(size, 8.0) == 8
    assert read_plain(rate, "1e-1") == 0.1  # which YAML takes for text
    assert read_plain(names, ["x", 2024]) == ("x", "2024")
    for info, value in ((size, True), (size, 2.5), (size, {"a": 1}), (size, None), (names, [])):
        with pytest.raises(ValueError):
            read_plain(info, value)


def test_an_own_message_of_a_kind_is_shown() -> None:
    def read(written: str) -> int:
        raise ValueError(f"{written}: neither fish nor fowl")

    with pytest.raises(argparse.ArgumentTypeError, match="neither fish nor fowl"):
        cli.argument_type(Kind(read, "a fish"))("x")


def test_no_program_writes_a_default_again_that_a_field_has(repository: Path) -> None:
    programs = [
        *repository.glob("scripts/*/*.py"),
        *repository.glob("lipsync/*.py"),
        *repository.glob("emotion/*.py"),
        *repository.glob("emotion/landmarks/*.py"),
        *repository.glob("lc_pytorch/**/*.py"),
    ]
    fields = set()
    for file in programs:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
                made_by = getattr(node.value.func, "id", "")
                if made_by in ("option", "required", "changed"):
                    fields.add(node.target.id)
    assert len(fields) > 80
    twice = [
        f"{file.relative_to(repository)}: {name}"
        for file in programs
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument" and node.args
        for name in [str(getattr(node.args[0], "value", "")).lstrip("-")]
        if name in fields and any(word.arg == "default" for word in node.keywords)
    ]
    # Flags of the same name with a meaning or a default of their own.
    assert sorted(twice) == [
        "emotion/landmarks/options.py: log_dir",
        "emotion/landmarks/train.py: zips",
        "emotion/main.py: device",
        "emotion/run_model.py: output_dir",
        "lipsync/train.py: resume",
        "scripts/cluster/status.py: log_dir",
        "scripts/demo/make_tiny_encoders.py: dropout",
        "scripts/demo/make_tiny_encoders.py: seed",
        "scripts/demo/run_demo.py: output_dir",
        "scripts/demo/run_demo.py: seed",
        "scripts/evaluation/evaluate_face_voice.py: seed",
        "scripts/evaluation/evaluate_face_voice.py: test_size",
        "scripts/evaluation/match.py: top_k",
    ]


def test_every_option_that_takes_a_path_reads_one(repository: Path) -> None:
    """Text would let an empty one through, which Path takes for the current folder."""
    folders = ("scripts", "lipsync", "emotion", "lc_pytorch", "facevox", "facevox_demo")
    calls = [
        (file, node)
        for folder in folders
        for file in (repository / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    ]
    assert len(calls) > 80
    untyped = []
    for file, node in calls:
        words = {word.arg: ast.unparse(word.value).strip("'\"") for word in node.keywords}
        is_path = words.get("metavar") in ("DIR", "FILE", "ZIP", "CSV", "JSON", "WEIGHTS")
        if is_path and words.get("type") != "Path" and "action" not in words:
            untyped.append(f"{file.relative_to(repository)}:{node.lineno}")
    assert untyped == []
