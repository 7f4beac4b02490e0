"""config.yaml: strict, all faults at once, single values from the command line."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from facevox import cli
from facevox.errors import UserError
from facevox.options import declared
from lipsync import setup_directories
from lipsync.settings import CONFIG_FILE, SMALL_SET_FILE, Settings, load_settings


def test_shipped_file_holds_every_setting_with_its_default() -> None:
    shown = yaml.safe_load(CONFIG_FILE.read_text(encoding="utf-8"))
    expected = dataclasses.asdict(Settings())
    expected["training"]["split"] = list(expected["training"]["split"])
    assert shown == expected
    assert load_settings() == Settings()


def test_shipped_file_says_what_each_setting_means() -> None:
    lines = CONFIG_FILE.read_text(encoding="utf-8").splitlines()
    for section in dataclasses.fields(Settings):
        for setting in declared(type(getattr(Settings(), section.name))):
            shown = [line.split("#", 1)[1].strip() for line in lines if line.startswith(f"  {setting.name}:")]
            assert shown == [setting.help], setting.name


def test_documented_defaults() -> None:
    training = load_settings().training
    assert (training.learning_rate, training.num_epochs, training.split) == (0.0001, 100, (8, 1, 1))
    assert training.checkpoint_interval == 10


def test_settings_for_small_sets_are_those_of_the_published_figures() -> None:
    from facevox_demo.lipsync_folds import RECIPE, RECIPE_MODEL

    small, usual = load_settings(SMALL_SET_FILE), Settings()
    assert (small.training, small.model) == (RECIPE, RECIPE_MODEL)
    assert (RECIPE.learning_rate, RECIPE.num_epochs, RECIPE.batch_size) == (0.003, 50, 16)
    same = dataclasses.replace(small, training=usual.training, model=usual.model)
    assert same == usual  # clips are processed alike


def test_network_for_small_sets_sees_few_numbers() -> None:
    small, usual = load_settings(SMALL_SET_FILE), Settings()
    assert (usual.model.visual_frontend, usual.model.temporal, usual.model.sound_bands) == (
        "lip_landmarks", "lstm", 0
    )  # fmt: skip
    assert (small.model.visual_frontend, small.model.temporal) == ("lip_distances", "none")
    assert 0 < small.model.sound_bands < small.audio.num_mels


@pytest.mark.parametrize(("bands", "mels", "is_good"), [(40, 40, True), (0, 8, True), (20, 19, False)])
def test_groups_of_bands_are_at_most_as_many_as_bands(bands: int, mels: int, is_good: bool) -> None:
    overrides = [f"model.sound_bands={bands}", f"audio.num_mels={mels}", "audio.num_mfcc=4"]
    if is_good:
        assert load_settings(overrides=overrides).model.sound_bands == bands
        return
    expected = r"model\.sound_bands: 20 groups of audio\.num_mels = 19 bands"
    with pytest.raises(UserError, match=expected):
        load_settings(overrides=overrides)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("model.visual_frontend", ("mouth_cnn", "lip_landmarks", "lip_distances")),
        ("model.temporal", ("lstm", "transformer", "none")),
    ],
)
def test_words_of_the_network_are_read_as_typed(setting: str, values: tuple[str, ...]) -> None:
    """YAML has a null and a no, but no none."""
    key = setting.partition(".")[2]
    for value in values:
        assert getattr(load_settings(overrides=[f"{setting}={value}"]).model, key) == value
    for wrong in ("null", "no", "", "None"):
        with pytest.raises(UserError, match=f"{key}: .* is not one of {', '.join(values)}"):
            load_settings(overrides=[f"{setting}={wrong}"])


def test_file_may_leave_out_what_it_does_not_change(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("training: {learning_rate: 1e-3}\ndata:\n", encoding="utf-8")
    settings = load_settings(
        tmp_path / "own.yaml", ["data.max_faces=2", "paths.videos_dir=2024", "training.split=[3,1,0]"]
    )
    assert settings.training.learning_rate == 0.001  # YAML itself takes 1e-3 for text
    assert settings.training.split == (3, 1, 0)
    assert settings.data.max_faces == 2
    assert settings.paths.videos_dir == "2024"
    assert settings.audio == Settings().audio


@pytest.mark.parametrize("name", ["2024_01", "010", "1.0", "1:30", "no", "a # b", "null"])
def test_folder_of_the_command_line_is_read_as_typed(name: str) -> None:
    assert load_settings(overrides=[f"paths.videos_dir={name}"]).paths.videos_dir == name


@pytest.mark.parametrize("value", ["2024_01", "010", "1.5", "no"])
def test_folder_of_the_file_that_yaml_takes_for_a_number_is_refused(tmp_path: Path, value: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"paths: {{videos_dir: {value}}}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"paths\.videos_dir: .* put the value in quotes"):
        load_settings(file)
    file.write_text(f"paths: {{videos_dir: '{value}'}}\n", encoding="utf-8")
    assert load_settings(file).paths.videos_dir == value


def test_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load_settings(overrides=["paths.videos_dir=~/clips"]).paths.videos_dir == "/home/somebody/clips"


def test_all_faults_come_at_once_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "data: {max_faces: many, min_duration_s: -1, crops: 3}\n"
        "model: {temporal: gru, sound_bands: -1}\naudio: 3\nvideo: {}\n"
        "training: {split: [1, 2], batch_size: 2.5, seed: true}\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError) as caught:
        load_settings(tmp_path / "bad.yaml", ["training.rate=1", "nothing"])
    message = str(caught.value)
    for part in (
        "data.max_faces: 'many' is not a whole number",
        "data.min_duration_s: -1 is not a number from 0.2 to 60",
        "data.crops: no such setting; there are mouth_crop_px, max_faces",
        "model.temporal: 'gru' is not one of lstm, transformer, none",
        "model.sound_bands: -1 is not a whole number from 0 to 128",
        "audio: a section with keys is expected",
        "training.split: [1, 2] is not three whole numbers",
        "training.batch_size: 2.5 is not a whole number",
        "training.seed: True is not a whole number",
        "video: no such section; there are paths, data",
        "training.rate: no such setting",
        "--set nothing: section.key=value is expected",
    ):
        assert part in message, part
    assert "\n" not in message


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "5", "a: &a [*a]\n---\nb: 1\n", "\0"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_settings(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_missing_file_and_python_tags_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "x.yaml").write_text("a: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(UserError, match="not YAML"):
        load_settings(tmp_path / "x.yaml")


@pytest.mark.parametrize(("pattern", "is_good"), [("(id.)", True), ("", True), ("id.", False), ("(", False)])
def test_speaker_expression_needs_a_group(pattern: str, is_good: bool) -> None:
    if is_good:
        load_settings(overrides=[f"data.speaker_regex={pattern}"])
        return
    with pytest.raises(UserError, match=r"data\.speaker_regex"):
        load_settings(overrides=[f"data.speaker_regex={pattern!r}"])


def test_setup_makes_the_documented_folders_and_again_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(setup_directories.main, []) == 0
    for name in ("data/videos", "data/audios", "data/processed", "checkpoints", "logs", "outputs"):
        assert (tmp_path / name).is_dir()
    (tmp_path / "data/videos/a.mp4").write_bytes(b"x")
    assert cli.run(setup_directories.main, []) == 0
    assert "there already" in capsys.readouterr().out
    assert (tmp_path / "data/videos/a.mp4").exists()


def test_setup_names_a_file_that_is_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").write_text("x", encoding="utf-8")
    assert cli.run(setup_directories.main, []) == 2
    assert "logs" in capsys.readouterr().err


def test_program_runs_as_a_script(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "lipsync/setup_directories.py")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "outputs").is_dir()


@pytest.mark.parametrize("folder", ["/data/a #b", "/data/clips: new", "/data/a b", "-dash", "it's"])
def test_folders_of_any_name_are_taken_as_they_are(folder: str) -> None:
    assert load_settings(overrides=[f"paths.videos_dir={folder}"]).paths.videos_dir == folder
