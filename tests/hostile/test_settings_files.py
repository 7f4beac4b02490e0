"""Settings of strangers, in YAML and .env: numbers without end, brackets without end, files without end."""

import time
from pathlib import Path

import pytest

from emotion.settings import MAX_ENV_BYTES, SettingsError, read_settings
from facevox.cluster.jobs import ProgramTable
from facevox.cluster.pipeline import load_pipeline
from facevox.errors import UserError
from facevox.yaml_text import MOST_DIGITS, parse_yaml
from lipsync.settings import load_settings

PROGRAMS = ProgramTable({}, Path("unused"))
NUMBERS = {
    "decimal": "1" * 10_000,
    "hexadecimal": "0x" + "f" * 10_000,
    "binary": "0b" + "1" * 100_000,
    "octal": "0" + "7" * 10_000,
    "sexagesimal": "1" + ":59" * 200_000,
    "sexagesimal float": "1" + ":59" * 200_000 + ".5",
    "float": "1." + "1" * 10_000,
}


def read_pipeline(file: Path) -> object:
    return load_pipeline(file, PROGRAMS, {}, {})


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize(
    "place", ["paths: {}", "data: {{mouth_crop_px: {}}}", "training: {{seed: [{}]}}", "{}: 1"]
)
def test_number_without_end_is_one_line(tmp_path: Path, kind: str, place: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(place.format(NUMBERS[kind]))
    start_s = time.monotonic()
    for read in (load_settings, read_pipeline):
        with pytest.raises(UserError) as caught:
            read(file)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert time.monotonic() - start_s < 20


def test_ordinary_numbers_are_read() -> None:
    text = f"a: 0x1f\nb: 1e-3\nc: -7\nd: 1:30\ne: .inf\nf: {'9' * MOST_DIGITS}\ng: 1.5\nh: text\n"
    values = parse_yaml(text)
    assert values == {
        "a": 31, "b": "1e-3", "c": -7, "d": 90, "e": float("inf"), "f": int("9" * MOST_DIGITS), "g": 1.5,
        "h": "text",
    }  # fmt: skip


@pytest.mark.parametrize("pattern", ["(" * 5000, "(a)" + "(" * 3000 + ")" * 3000, "(a){99999999999}"])
def test_pattern_without_end_is_one_line(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "x.yaml").write_text(f"data: {{speaker_regex: '{pattern}'}}")
    with pytest.raises(UserError, match="a regular expression with a group"):
        load_settings(tmp_path / "x.yaml")


def test_env_file_without_end_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n" * (MAX_ENV_BYTES // 4 + 1))
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path / ".env", {}, {})
    assert any(f"more than {MAX_ENV_BYTES} bytes" in fault for fault in caught.value.faults)
