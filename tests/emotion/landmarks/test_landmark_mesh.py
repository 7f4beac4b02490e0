"""The newer mesh by option: its blendshapes extracted, trained on and predicted with, and never mixed."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from landmark_folders import make_folder
from PIL import Image
from skimage.data import astronaut

from emotion.landmarks.extraction import ShardTask, run_extraction
from emotion.landmarks.network import load_model
from emotion.landmarks.options import ExtractConfig
from emotion.landmarks.shards import PROGRAM
from emotion.landmarks.table import load_table
from facevox.batch import BatchOptions
from facevox.errors import ExitCode, UserError
from facevox.manifest import manifest_file, read_settings
from facevox.mesh import face_landmarker
from facevox.mesh.face_landmarker import NUM_BLENDSHAPES, FaceLandmarker
from facevox.mesh.face_mesh import FaceMesh
from facevox.mesh.kinds import FACE_LANDMARKER, FACE_MESH
from facevox_demo.example.aihub import write_zip

SMILE_LEFT, EYE_BLINK_LEFT = 44, 9  # of MediaPipe's order


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two pictures with a face, one of them tight, and one without."""
    portrait = astronaut()
    contents = {}
    for name, image in (
        ("whole", portrait),
        ("tight", portrait[80:150, 190:256]),
        ("grey", np.full((200, 200, 3), 127, np.uint8)),
    ):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        contents[f"{name}.png"] = stream.getvalue()
    write_zip(tmp_path / "a.zip", iter(contents.items()), "utf-8")
    return tmp_path / "a.zip"


def extract(archive: Path, output_dir: Path, mesh: str, workers: int = 0) -> ExitCode:
    config = ExtractConfig(zips=(archive,), labels=("happy",), output_dir=output_dir, mesh=mesh)
    return run_extraction(config, BatchOptions(workers=workers, debug=not workers)).exit_code


def add_blendshapes(folder: Path) -> Path:
    """Makes a folder of `make_folder` one of the newer mesh: the first blendshapes say the class."""
    rng = np.random.default_rng(0)
    table = load_table(folder)
    index = [row for row in (folder / "index.csv").read_text().splitlines()[1:] if "done" in row]
    shapes: dict[str, list[np.ndarray]] = {}
    for label, line in zip(table.labels, index, strict=True):
        values = rng.uniform(0, 0.1, NUM_BLENDSHAPES)
        values[sorted(set(table.labels)).index(label)] += 0.5
        shapes.setdefault(line.split(",")[2], []).append(values)
    table.close()
    for shard, rows in shapes.items():
        np.save(folder / shard.replace(".npy", ".blendshapes.npy"), np.array(rows, np.float32))
    path = manifest_file(folder, PROGRAM)
    path.parent.mkdir()
    settings = {"points": 478, "mesh": FACE_LANDMARKER}
    path.write_text(json.dumps({"facevox_manifest": 1, "program": PROGRAM, "settings": settings}) + "\n")
    return folder


def test_points_are_near_those_of_facemesh_and_blendshapes_say_what_the_face_does() -> None:
    with FaceLandmarker() as landmarker, FaceMesh() as mesh:
        (face,) = landmarker.find(astronaut())
        (other,) = mesh.find(astronaut())
        assert landmarker.find(np.full((200, 200, 3), 127, np.uint8), with_border=True) == []
    eyes = np.linalg.norm(other[33, :2] - other[263, :2])
    assert np.median(np.linalg.norm(face.points[:, :2] - other[:, :2], axis=1)) < 0.05 * eyes
    assert face.blendshapes.shape == (NUM_BLENDSHAPES,)
    assert face.blendshapes[SMILE_LEFT] > 0.5 > face.blendshapes[EYE_BLINK_LEFT]
    with pytest.raises(ValueError, match="closed"):
        landmarker.find(astronaut())


@pytest.mark.parametrize("workers", [0, 1])
def test_extraction_writes_points_and_blendshapes_of_each_face(
    tmp_path: Path, archive: Path, workers: int
) -> None:
    assert extract(archive, tmp_path / "out", FACE_LANDMARKER, workers) == ExitCode.DONE
    assert read_settings(tmp_path / "out", PROGRAM)["mesh"] == FACE_LANDMARKER
    table = load_table(tmp_path / "out", in_memory=True)
    assert sorted(name.rsplit("/")[-1] for name in table.names) == ["tight.png", "whole.png"]
    assert table.mesh == FACE_LANDMARKER
    assert table.blendshapes is not None
    shapes = table.blendshapes.read([0, 1])
    assert shapes.shape == (2, NUM_BLENDSHAPES)
    whole = next(row for row, name in enumerate(table.names) if "whole" in name)
    assert shapes[whole, SMILE_LEFT] > 0.5 > shapes[whole, EYE_BLINK_LEFT]


@pytest.mark.parametrize(("first", "then"), [(FACE_MESH, FACE_LANDMARKER), (FACE_LANDMARKER, FACE_MESH)])
def test_folder_of_one_mesh_takes_no_shards_of_the_other(
    tmp_path: Path, archive: Path, first: str, then: str
) -> None:
    extract(archive, tmp_path / "out", first)
    files = sorted(path.name for path in (tmp_path / "out" / "shards").iterdir())
    assert any("blendshapes" in name for name in files) == (first == FACE_LANDMARKER)
    with pytest.raises(UserError, match="mesh was"):
        extract(archive, tmp_path / "out", then)
    assert sorted(path.name for path in (tmp_path / "out" / "shards").iterdir()) == files
    assert extract(archive, tmp_path / "out", first) == ExitCode.DONE


def test_folder_of_before_the_mark_is_facemeshs_and_goes_on(tmp_path: Path, archive: Path) -> None:
    out = tmp_path / "out"
    extract(archive, out, FACE_MESH)
    assert read_settings(out, PROGRAM) == {"points": 478, "mesh": FACE_MESH}
    path = manifest_file(out, PROGRAM)
    header, *records = path.read_text().splitlines(keepends=True)
    older = json.loads(header)
    del older["settings"]["mesh"], older["implied"]
    path.write_text("".join([json.dumps(older) + "\n", *records]))
    assert load_table(out).mesh == FACE_MESH
    before = {file: file.stat().st_mtime_ns for file in (out / "shards").iterdir()}
    assert extract(archive, out, FACE_MESH) == ExitCode.DONE
    assert {file: file.stat().st_mtime_ns for file in (out / "shards").iterdir()} == before
    with pytest.raises(UserError, match="mesh was face_mesh, is face_landmarker"):
        extract(archive, out, FACE_LANDMARKER)
    assert load_table(make_folder(tmp_path / "made")).mesh == FACE_MESH


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["landmarks", "blendshapes", "both"])
def test_network_learns_from_each_kind_of_inputs(tmp_path: Path, run_train, inputs: str) -> None:
    folder = add_blendshapes(make_folder(tmp_path / "landmarks", num_people=30))
    options = ("--landmarks_dir", str(folder), "--save_dir", str(tmp_path / "run"), "--num_epochs", "30")
    options += ("--class_names", "neutral", "anxiety", "happy", "--batch_size", "32", "--inputs", inputs)
    assert run_train(*options) == ExitCode.DONE
    model = load_model(tmp_path / "run")
    assert (model.features.inputs, model.features.mesh) == (inputs, FACE_LANDMARKER)
    report = json.loads((tmp_path / "run/evaluation/report.json").read_text())
    assert (report["inputs"], report["mesh"]) == (inputs, FACE_LANDMARKER)
    assert report["balanced_accuracy"]["value"] > 0.8  # chance is 0.33
    for path in (manifest_file(folder, PROGRAM), *folder.rglob("*.blendshapes.npy")):
        path.unlink()  # now it is taken for FaceMesh's
    assert run_train(*options) == ExitCode.USAGE


def test_inputs_that_the_mesh_does_not_have_are_refused(tmp_path: Path, run_train, capsys) -> None:
    folder = make_folder(tmp_path / "landmarks")
    options = ("--landmarks_dir", str(folder), "--save_dir", str(tmp_path / "run"), "--inputs", "both")
    assert run_train(*options, "--class_names", "neutral", "anxiety") == ExitCode.USAGE
    assert "extract with --mesh face_landmarker" in capsys.readouterr().err


def test_prediction_takes_the_mesh_of_the_model(
    tmp_path: Path, archive: Path, run_train, run_predict
) -> None:
    folder = add_blendshapes(make_folder(tmp_path / "landmarks", num_people=20))
    options = ("--landmarks_dir", str(folder), "--save_dir", str(tmp_path / "run"), "--num_epochs", "2")
    options += ("--class_names", "neutral", "anxiety", "happy", "--batch_size", "32")
    assert run_train(*options, "--inputs", "blendshapes") == ExitCode.DONE
    out = tmp_path / "predictions"
    options = ("--inputs", str(archive), "--output_dir", str(out), "--debug")
    assert run_predict(*options, "--model", str(tmp_path / "run")) == ExitCode.DONE
    assert (out / "predictions.csv").read_text().count(",done,") == 2


def test_missing_package_is_told_before_anything_is_read(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_landmarker.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"uv pip install -e '\.\[mesh256\]'"):
        extract(archive, tmp_path / "out", FACE_LANDMARKER)
    assert not (tmp_path / "out").exists()


def test_overwritten_folder_has_no_table_until_it_is_whole(
    tmp_path: Path, archive: Path, monkeypatch
) -> None:
    extract(archive, tmp_path / "out", FACE_MESH)
    config = ExtractConfig(zips=(archive,), output_dir=tmp_path / "out", mesh=FACE_LANDMARKER)

    def killed(*arguments: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardTask, "process_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        run_extraction(config, BatchOptions(debug=True, overwrite=True))
    with pytest.raises(UserError, match=r"has no index\.csv"):
        load_table(tmp_path / "out")


def test_blendshapes_tell_the_mesh_where_the_manifest_was_left_behind(tmp_path: Path) -> None:
    folder = add_blendshapes(make_folder(tmp_path / "landmarks"))
    (folder / "manifests" / f"{PROGRAM}.jsonl").unlink()
    assert load_table(folder).mesh == FACE_LANDMARKER


def test_mesh_of_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = add_blendshapes(make_folder(tmp_path / "landmarks"))
    path = manifest_file(folder, PROGRAM)
    path.write_text(path.read_text().replace(FACE_LANDMARKER, "mesh_2030"))
    with pytest.raises(UserError, match="of the mesh mesh_2030; this version knows"):
        load_table(folder)


def test_large_picture_is_searched_smaller_and_what_is_no_picture_refused() -> None:
    wide = np.zeros((512, 17000, 3), np.uint8)
    wide[:, 8000:8512] = astronaut()
    with FaceLandmarker() as landmarker, FaceMesh() as mesh:
        landmarker.find(wide, with_border=True)  # the face is too small here for both
        assert landmarker.find(np.zeros((4, 30000, 3), np.uint8), with_border=True) == []
        assert landmarker.find(np.zeros((0, 20, 3), np.uint8)) == []
        with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
            landmarker.find(np.zeros((20, 20, 4), np.uint8))
        (face,) = landmarker.find(np.tile(astronaut(), (1, 1, 1)))
        (other,) = mesh.find(astronaut())
        large = np.ascontiguousarray(np.repeat(np.repeat(astronaut(), 17, axis=0), 17, axis=1))
        (shrunk,) = landmarker.find(large)
    eyes = np.linalg.norm(other[33, :2] - other[263, :2])
    assert np.median(np.linalg.norm(shrunk.points[:, :2] / 17 - face.points[:, :2], axis=1)) < 0.05 * eyes


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--inputs", "both", "--zips", "a.zip"), "extract with --mesh face_landmarker"),
        (("--mesh", "face_landmarker", "--landmarks_dir", "x"), "--mesh: counts with --zips only"),
    ],
)
def test_options_that_do_not_go_together_are_told_at_once(
    tmp_path: Path, run_train, capsys, options: tuple[str, ...], text: str
) -> None:
    assert run_train(*options, "--save_dir", tmp_path / "run") == ExitCode.USAGE
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
