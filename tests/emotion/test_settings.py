"""The settings: three sources, everything wrong at once, and the same in .env.example and the documents."""

import argparse
import re
from pathlib import Path

import pytest

from emotion import settings
from emotion.settings import (
    SettingsError,
    add_setting_arguments,
    list_settings,
    load_settings,
    read_settings,
    text_of,
)
from facevox import cli

REQUIRED = [info for info in list_settings() if info.is_required]


@pytest.fixture
def env_file(repository: Path, tmp_path: Path) -> Path:
    file = tmp_path / ".env"
    file.write_text((repository / ".env.example").read_text(encoding="utf-8"), encoding="utf-8")
    return file


def change(env_file: Path, name: str, value: str | None) -> None:
    """Replaces the line of a setting, or removes it."""
    text = env_file.read_text(encoding="utf-8")
    line = "" if value is None else f"{name}={value}\n"
    changed = re.sub(rf"^{name}=.*\n", lambda _: line, text, flags=re.MULTILINE)
    assert changed != text
    env_file.write_text(changed, encoding="utf-8")


def faults_of(env_file: Path, environ: dict[str, str] | None = None, **options: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_settings(env_file, environ or {}, options)
    return caught.value.faults


def test_values_of_the_example_file_arrive_with_their_types(env_file):
    found = read_settings(env_file, {}, {})
    assert found.class_names == ("happy", "sad", "neutral", "embarrassed", "anxiety")
    assert (found.img_size, found.batch_size, found.val_steps) == (224, 32, 500)
    assert (found.learning_rate_finetune, found.weight_decay) == (0.00002, 0.00001)
    assert found.data_dir_train == Path("dataset_crop/train")
    assert found.input_path is None
    assert (found.backbone_weights, found.seed, found.allowed_origins) == ("imagenet", 0, ())


def test_required_settings_are_those_of_the_example_file_in_its_order(repository):
    text = (repository / ".env.example").read_text(encoding="utf-8")
    assert re.findall(r"^([A-Z_]+)=", text, re.MULTILINE) == [info.name.upper() for info in REQUIRED]
    assert len(REQUIRED) == 29
    optional = {info.name.upper(): text_of(info.default) for info in list_settings() if not info.is_required}
    assert dict(re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE)) == optional


def test_document_has_a_row_for_each_setting(repository):
    example = (repository / ".env.example").read_text(encoding="utf-8")
    values = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    wanted = [
        [
            info.name.upper(),
            info.help,
            f"{info.kind.expected} / {info.kind.korean}",
            values[info.name.upper()] if info.is_required else text_of(info.default),
        ]
        for info in list_settings()
    ]
    text = (repository / "docs" / "emotion_settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z_]+) \| (.*?) \| (.*?) \| (.*?) ?\|$", text, re.MULTILINE)
    assert [list(row) for row in rows] == wanted


def test_option_wins_over_environment_and_that_over_the_file(env_file):
    assert read_settings(env_file, {}, {}).batch_size == 32
    assert read_settings(env_file, {"BATCH_SIZE": "16"}, {}).batch_size == 16
    assert read_settings(env_file, {"BATCH_SIZE": "16"}, {"batch_size": "8"}).batch_size == 8
    assert read_settings(env_file, {"BATCH_SIZE": "16"}, {"batch_size": None}).batch_size == 16


def test_every_setting_has_an_option_of_its_name_in_lower_case(env_file, monkeypatch):
    monkeypatch.setattr(settings, "ENV_FILE", env_file)
    parser = argparse.ArgumentParser()
    add_setting_arguments(parser)
    given = {"--class_names": "a,b", "--seed": "7", "--input_path": "x y.jpg", "--p_mixup": "0.1"}
    found = load_settings(parser.parse_args([word for pair in given.items() for word in pair]))
    assert (found.class_names, found.seed, found.input_path) == (("a", "b"), 7, Path("x y.jpg"))
    assert found.p_mixup == 0.1
    options = {word for action in parser._actions for word in action.option_strings}
    assert {f"--{info.name}" for info in list_settings()} <= options


def test_everything_missing_is_told_at_once_in_two_languages(tmp_path):
    faults = faults_of(tmp_path / ".env")
    assert [fault.split(":")[0] for fault in faults] == [
        info.name.upper() for info in REQUIRED if info.name != "input_path"
    ]
    for fault in faults:
        assert "missing; expected: " in fault
        assert "없음; 필요한 값: " in fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLASS_NAMES", "happy"), ("CLASS_NAMES", "a,a"), ("CLASS_NAMES", "a,../b"), ("CLASS_NAMES", "a,,b"),
        ("IMG_SIZE", "31"), ("IMG_SIZE", "224.5"), ("IMG_SIZE", "9" * 5000), ("BATCH_SIZE", "many"),
        ("BATCH_SIZE", "0"), ("VAL_STEPS", "-1"), ("EPOCHS_HEAD", "1e3"), ("LEARNING_RATE_HEAD", "0"),
        ("LEARNING_RATE_HEAD", "nan"), ("LEARNING_RATE_FINETUNE", "inf"), ("DROPOUT_RATE", "1"),
        ("WEIGHT_DECAY", "-0.1"), ("FREEZE_BN_MODE", "some"), ("UNFREEZE_FROM", "1.1"), ("MIXUP_ALPHA", "0"),
        ("P_CUTMIX", "2"), ("EMA_DECAY", "1"), ("EARLY_STOPPING_PATIENCE", "0"), ("REDUCE_LR_FACTOR", "1"),
        ("CROP_MARGIN", "-1"), ("TEST_MODE", "camera"), ("SERVER_PORT", "65536"), ("DATA_DIR_RAW", ""),
    ],
)  # fmt: skip
def test_malformed_value_is_named_with_what_it_should_be(env_file, name, value):
    change(env_file, name, value)
    (fault,) = faults_of(env_file)
    info = next(info for info in list_settings() if info.name == name.lower())
    assert fault.startswith(f"{name}: missing" if not value else f"{name}={value[:20]!r}"[:-1])
    assert info.kind.expected in fault
    assert info.kind.korean in fault
    assert len(fault) < 400


def test_all_faults_come_together_each_with_its_source(env_file):
    change(env_file, "IMG_SIZE", "x")
    change(env_file, "SERVER_PORT", None)
    faults = faults_of(env_file, {"EMA_DECAY": "3"}, batch_size="y")
    assert [re.split("[:=]", fault)[0] for fault in faults] == [
        "IMG_SIZE", "BATCH_SIZE", "EMA_DECAY", "SERVER_PORT"
    ]  # fmt: skip
    for number, source in enumerate((".env", "--batch_size", "environment")):
        assert f"({source})" in faults[number]


def test_misspelt_name_in_the_file_is_told_with_the_nearest_one(env_file):
    change(env_file, "BATCH_SIZE", None)
    with env_file.open("a", encoding="utf-8") as file:
        file.write("BATCHSIZE=16\nseed=3\nHF_TOKEN=secret\n")
    faults = faults_of(env_file)
    assert [fault.split("|")[0].strip() for fault in faults[:2]] == [
        "BATCHSIZE: no such setting; did you mean BATCH_SIZE?",
        "seed: no such setting; did you mean SEED?",
    ]
    assert faults[2].startswith("BATCH_SIZE: missing")
    assert "secret" not in str(faults)


@pytest.mark.parametrize("mode", ["image", "video"])
def test_input_path_is_required_only_for_image_and_video(env_file, mode):
    change(env_file, "INPUT_PATH", None)
    assert read_settings(env_file, {}, {}).input_path is None
    (fault,) = faults_of(env_file, {"TEST_MODE": mode})
    assert fault.startswith("INPUT_PATH: missing")
    assert read_settings(env_file, {"TEST_MODE": mode, "INPUT_PATH": "a.jpg"}, {}).input_path == Path("a.jpg")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"P_MIXUP": "0.7", "P_CUTMIX": "0.4"}, "P_MIXUP=0.7, P_CUTMIX=0.4"),
        ({"EPOCHS_HEAD": "0", "EPOCHS_FINETUNE": "0"}, "EPOCHS_HEAD=0"),
        ({"DATA_DIR_VAL": "dataset_crop/train"}, "DATA_DIR_TRAIN"),
        ({"DATA_DIR_VAL": "dataset_crop/train/../train/x"}, "DATA_DIR_TRAIN"),
    ],
)
def test_contradictions_between_settings_are_told(env_file, values, words):
    (fault,) = faults_of(env_file, values)
    assert words in fault


def test_file_may_be_as_editors_leave_it(env_file):
    text = env_file.read_text(encoding="utf-8").replace("BATCH_SIZE=32", "export BATCH_SIZE = '16'  # GPU")
    env_file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    found = read_settings(env_file, {}, {})
    assert (found.batch_size, found.server_port) == (16, 8001)


def test_unreadable_lines_and_encodings_are_told(env_file):
    with env_file.open("a", encoding="utf-8") as file:
        file.write("a line of prose\nSEED\n")
    faults = faults_of(env_file)
    lines = env_file.read_text(encoding="utf-8").count("\n")
    assert faults[0].startswith(f".env:{lines - 1}: NAME=value is expected")
    env_file.write_bytes("CLASS_NAMES=기쁨,슬픔".encode("cp949"))
    assert faults_of(env_file)[0].startswith(".env: not UTF-8")


def test_program_shows_every_fault_on_its_line_and_ends_with_2(preprocess, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("IMG_SIZE")
    monkeypatch.setenv("BATCH_SIZE", "x")
    # --img_size is among the options of the fixture: it satisfies the missing variable.
    assert preprocess(tmp_path, tmp_path / "out", "--val_steps", "none", "--workers", "0") == 2
    said = capsys.readouterr().err
    assert re.search(r"^  BATCH_SIZE='x' \(environment\): expected: a whole number", said, re.MULTILINE)
    assert re.search(r"^  VAL_STEPS='none' \(--val_steps\)", said, re.MULTILINE)
    assert said.splitlines()[-1].startswith("error: 2 settings are missing or wrong: BATCH_SIZE, VAL_STEPS;")
    assert "IMG_SIZE" not in said
    assert "Traceback" not in said


def test_help_works_without_a_file(load_script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / "none")
    assert cli.run(load_script("emotion/preprocess").main, ["--help"]) == 0
    assert "--learning_rate_finetune" in capsys.readouterr().out
