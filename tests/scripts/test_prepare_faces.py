"""The program prepare_faces.py: both steps into three folders."""

import csv
import shutil
from pathlib import Path

import pytest
from bad_media import write_silent_video
from program_help import light_help

from facevox import cli


@pytest.fixture
def script(load_script):
    return load_script("preprocessing/prepare_faces")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model of the right shape that knows no faces: 8 x 8 mean colours of the aligned picture."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("AveragePool", ["input"], ["small"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Flatten", ["small"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("input", kind, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", kind, ["n", 192])],
    )
    path = tmp_path_factory.mktemp("model") / "means.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(script, source: Path, out: Path, model: Path, *options: str) -> int:
    arguments = ["--dataset_path", str(source), "--output_base_dir", str(out), "--debug"]
    arguments += ["--detector_backend", "mediapipe", "--model_name", str(model), "--threshold", "0.3"]
    return cli.run(script.main, [*arguments, *options])


def rows_of(table: Path) -> "list[dict[str, str]]":
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def names_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")}


def test_both_steps_fill_their_folders_and_a_second_call_changes_nothing(
    script, example_videos: Path, model: Path, tmp_path: Path
):
    out = tmp_path / "out"
    assert run(script, example_videos, out, model) == 0
    faces = names_of(out / "extracted_faces")
    assert len(faces) == len(rows_of(out / "extracted_faces" / "faces.csv")) == 16
    groups = rows_of(out / "deduped_faces" / "groups.csv")
    assert {row["file"] for row in groups} == faces
    people = {row["group"] for row in groups}
    assert len(names_of(out / "deduped_faces")) == 16
    assert len(names_of(out / "representative_faces")) == len(people)
    before = {path: path.read_bytes() for path in out.rglob("*.jpg")}
    assert run(script, example_videos, out, model) == 0
    assert {path: path.read_bytes() for path in out.rglob("*.jpg")} == before


def test_shards_extract_and_the_last_run_groups(script, example_videos: Path, model: Path, tmp_path: Path):
    out = tmp_path / "out"
    for index in ("0", "1"):
        assert run(script, example_videos, out, model, "--num_shards", "2", "--shard_index", index) == 0
        assert not (out / "deduped_faces").exists()
    assert run(script, example_videos, out, model) == 0
    assert len(rows_of(out / "deduped_faces" / "groups.csv")) == 16


def test_a_video_without_a_face_is_no_failure(script, example_videos, model: Path, tmp_path: Path):
    source = tmp_path / "videos"
    source.mkdir()
    shutil.copy(sorted(example_videos.rglob("*.mp4"))[0], source / "face.mp4")
    write_silent_video(source / "nobody.mp4")
    for _ in range(2):  # the second time nothing is left to do
        assert run(script, source, tmp_path / "out", model) == 0
        assert names_of(tmp_path / "out" / "representative_faces") == {"face.jpg"}


def test_no_face_at_all_ends_in_order(script, model: Path, tmp_path: Path, capsys):
    write_silent_video(tmp_path / "videos" / "nobody.mp4")
    for _ in range(2):
        assert run(script, tmp_path / "videos", tmp_path / "out", model) == 1
        said = capsys.readouterr().out
        assert "no item gave a result; made with detector mediapipe, min_confidence 0.6" in said
        assert "min_confidence" in said
        assert "no video gave a face" in said


def test_what_the_second_step_lacks_is_said_before_the_first(
    script, example_videos, model: Path, tmp_path, capsys
):
    assert run(script, example_videos, tmp_path / "out", tmp_path / "gone.onnx") == 2
    assert "gone.onnx" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(script, example_videos: Path, model: Path, tmp_path: Path):
    assert run(script, example_videos, tmp_path / "out", model, "--dry_run") == 0
    assert not (tmp_path / "out").exists()


def test_it_takes_the_options_of_both_steps_and_its_help_loads_nothing_heavy(script):
    options = set(script.get_args_parser()._option_string_actions)
    assert {"--all_faces", "--no-align_faces", "--threshold", "--batch_size", "--num_shards"} <= options
    assert "--threshold" in light_help("scripts/preprocessing/prepare_faces.py")
