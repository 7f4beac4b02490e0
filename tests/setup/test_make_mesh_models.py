"""The program that cuts FaceMesh's network, and the files that it made."""

import importlib.util
import os
import zipfile
from pathlib import Path

import pytest

from facevox import cli
from facevox.errors import UserError
from facevox.mesh.litert import MODELS_DIR


@pytest.fixture(scope="module")
def mediapipe() -> Path:
    """The wheel of mediapipe 0.10.21, or the folder that its files are in."""
    if named := os.environ.get("FACEVOX_MEDIAPIPE_MODELS"):
        return Path(named)
    spec = importlib.util.find_spec("mediapipe")
    folder = Path(spec.origin).parents[1] if spec and spec.origin else Path()
    if not (folder / "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite").is_file():
        pytest.skip("no files of mediapipe 0.10.21; FACEVOX_MEDIAPIPE_MODELS names its wheel or folder")
    return folder


def test_it_makes_the_files_of_the_package_to_the_byte(load_script, mediapipe: Path, tmp_path: Path) -> None:
    script = load_script("setup/make_mesh_models")
    assert cli.run(script.main, [str(mediapipe), "--models_dir", str(tmp_path)]) == 0
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(made) == 7
    assert made == {name: (MODELS_DIR / name).read_bytes() for name in made}


def test_wheel_gives_the_same_as_its_folder(load_script, mediapipe: Path, tmp_path: Path) -> None:
    script = load_script("setup/make_mesh_models")
    if mediapipe.is_file():
        pytest.skip("FACEVOX_MEDIAPIPE_MODELS is a wheel already")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name in script.SHA256:
            wheel.write(mediapipe / name, name)
    assert script.make_models(tmp_path / "a.whl") == script.make_models(mediapipe)


def test_another_version_of_the_network_is_refused(load_script, tmp_path: Path) -> None:
    script = load_script("setup/make_mesh_models")
    for name in script.SHA256:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((MODELS_DIR / "face_mesh_base.tflite").read_bytes())
    with pytest.raises(
        UserError, match=r"face_landmark_with_attention\.tflite is not that of mediapipe 0\.10\.21"
    ):
        script.make_models(tmp_path)


@pytest.mark.parametrize("name", ["none.whl", "text.whl", "empty"])
def test_wrong_input_is_one_line_and_changes_nothing(
    load_script, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "text.whl").write_text("text")
    (tmp_path / "empty").mkdir()
    script = load_script("setup/make_mesh_models")
    assert cli.run(script.main, [str(tmp_path / name), "--models_dir", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "the wheel of mediapipe 0.10.21 has it" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
