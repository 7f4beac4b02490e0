"""The local runner: pictures, videos, the webcam; with and without a screen."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from face_pictures import frame_of_faces
from small_classifier import CLASSES, MARGIN, SIZE, write_small_classifier

from emotion.data.crops import cut_square, face_box, square_around
from emotion.live import analysis, camera
from facevox import cli
from facevox.files import read_image, write_image
from facevox.media import iter_frames, probe, read_audio, write_video
from facevox.mesh.face_mesh import FaceMesh

RATE_HZ = 12.5
NUM_FRAMES = 10


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_classifier(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of one face that moves to the right, with a tone; a name that asks for trouble."""
    path = tmp_path_factory.mktemp("clip") / "-얼굴 '1'\n.mp4"
    frames = [frame_of_faces(1, shift_px=2 * number) for number in range(NUM_FRAMES)]
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(16000 * NUM_FRAMES / RATE_HZ)) / 16000)
    write_video(path, frames, RATE_HZ, tone.astype(np.float32), 16000)
    return path


@pytest.fixture
def run(
    load_script, example_settings, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Runs emotion/run_model.py in this process, without a screen."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_DIR", str(model_file.parent))
    script = load_script("emotion/run_model")

    def run_model(mode: str, path: Path | None, output: Path, *options: str) -> int:
        where = [f"--input_path={path}"] if path else []
        return cli.run(script.main, [f"--test_mode={mode}", *where, "--output_dir", str(output), *options])

    return run_model


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected(image: np.ndarray, model_file: Path) -> list[tuple[float, np.ndarray]]:
    """(left edge, probabilities) of each face from left to right, by the parts that training uses."""
    classifier = analysis.Classifier(model_file)
    with FaceMesh(static=True, max_faces=4, heads="none") as mesh:
        boxes = sorted(face_box(landmarks) for landmarks in mesh.find(image))
    crops = [cut_square(image, square_around(box, MARGIN), SIZE) for box in boxes]
    return [(box.left, p) for box, p in zip(boxes, classifier.predict(np.array(crops)), strict=True)]


def test_folder_of_pictures_gives_annotated_pictures_and_numbers_of_every_face(run, tmp_path, model_file):
    pictures, out = tmp_path / "사진 'a'", tmp_path / "out"
    one, two = frame_of_faces(1), frame_of_faces(2)
    write_image(pictures / "one.png", one)
    write_image(pictures / "deep" / "-two 얼굴\n.png", two)
    write_image(pictures / "nobody.png", np.full((200, 200, 3), 120, np.uint8))
    assert run("image", pictures, out) == 0
    rows = read_table(out / "faces.csv")
    by_picture: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_picture.setdefault(row["picture"], []).append(row)
    assert by_picture["nobody.png"][0]["face"] == ""
    for name, image in (("one.png", one), ("deep/-two 얼굴\n.png", two)):
        wanted = expected(image, model_file)
        found = by_picture[name]
        assert [row["face"] for row in found] == [str(n + 1) for n in range(len(wanted))]
        assert len(wanted) == (1 if image is one else 2)
        for row, (left, probabilities) in zip(found, wanted, strict=True):
            assert float(row["left"]) == pytest.approx(left, abs=0.06)
            assert [float(row[c]) for c in CLASSES] == pytest.approx(probabilities, abs=6e-5)
            assert row["label"] == CLASSES[int(probabilities.argmax())]
        annotated = read_image(out / found[0]["annotated"])
        assert annotated.shape == image.shape
        assert np.abs(annotated.astype(int) - image).max() > 100
        about = json.loads((out / found[0]["annotated"]).with_suffix(".json").read_text(encoding="utf-8"))
        assert [face["label"] for face in about["faces"]] == [row["label"] for row in found]
        assert (about["width"], about["height"]) == (640, 480)


def test_bad_picture_is_recorded_and_a_second_run_does_only_what_is_new(run, tmp_path, capsys):
    pictures, out = tmp_path / "in", tmp_path / "out"
    write_image(pictures / "good.png", frame_of_faces(1))
    (pictures / "bad.jpg").write_text("no picture")
    assert run("image", pictures, out) == 1
    rows = {row["picture"]: row for row in read_table(out / "faces.csv")}
    assert rows["bad.jpg"]["status"] == "failed"
    assert "not a picture" in rows["bad.jpg"]["reason"]
    assert rows["good.png"]["status"] == "done"
    write_image(pictures / "bad.jpg", frame_of_faces(1))
    capsys.readouterr()
    assert run("image", pictures, out) == 0
    assert "1 done, 1 skipped" in capsys.readouterr().out


def test_video_gets_boxes_on_every_frame_and_keeps_its_sound(run, clip, tmp_path):
    out = tmp_path / "out"
    assert run("video", clip, out) == 0
    target = out / clip.name
    assert probe(target).rate_hz == pytest.approx(RATE_HZ, abs=0.01)
    before, after = list(iter_frames(clip)), list(iter_frames(target))
    assert len(after) == len(before) == NUM_FRAMES
    rows = read_table(target.with_suffix(".csv"))
    assert [int(row["frame"]) for row in rows] == list(range(NUM_FRAMES))
    assert {row["face"] for row in rows} == {"1"}
    assert float(rows[-1]["left"]) - float(rows[0]["left"]) == pytest.approx(2 * (NUM_FRAMES - 1), abs=4)
    assert float(rows[3]["time_s"]) == pytest.approx(3 / RATE_HZ)
    for old, new, row in zip(before, after, rows, strict=True):
        difference = np.abs(old.image.astype(int) - new.image).mean(axis=2)
        left, top = float(row["left"]), float(row["top"])
        edge = difference[int(top) + 20 : int(top) + 100, int(left) - 1 : int(left) + 3]
        assert edge.max(axis=1).min() > 25, "no box where the table has it"
        assert difference[-20:, :30].mean() < 8  # far from face and bars: as it was, but for the codec
    sound, wanted = read_audio(target, 16000), read_audio(clip, 16000)
    count = min(len(sound), len(wanted))
    assert count >= len(wanted) - 1024
    assert np.corrcoef(sound[1000:count], wanted[1000:count])[0, 1] > 0.99
    about = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(about["frames"]) == NUM_FRAMES
    assert about["classes"] == list(CLASSES)


def test_signal_in_the_middle_of_a_video_leaves_no_file_and_exit_75(run, clip, tmp_path, monkeypatch, capsys):
    from emotion.live.annotation import Annotator

    draw, count = Annotator.draw, 0

    def draw_and_stop(self, image, faces):
        nonlocal count
        count += 1
        if count == 3:
            signal.raise_signal(signal.SIGTERM)
        return draw(self, image, faces)

    monkeypatch.setattr(Annotator, "draw", draw_and_stop)
    assert run("video", clip, tmp_path / "out") == 75
    assert count == 3
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert "stopped by SIGTERM" in capsys.readouterr().err


def test_signal_between_pictures_ends_the_batch_which_then_goes_on(run, tmp_path, monkeypatch):
    from emotion.live.annotation import Annotator

    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.png", frame_of_faces(1))
    draw = Annotator.draw

    def draw_and_stop(self, image, faces):
        signal.raise_signal(signal.SIGTERM)
        return draw(self, image, faces)

    with monkeypatch.context() as patched:
        patched.setattr(Annotator, "draw", draw_and_stop)
        assert run("image", tmp_path / "in", tmp_path / "out", "--debug") == 75
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 1
    assert run("image", tmp_path / "in", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3


@pytest.mark.parametrize(
    ("mode", "name", "content", "wanted"),
    [
        ("image", "none.jpg", None, "no such file"),
        ("image", "empty.jpg", b"", "0 bytes"),
        ("image", "text.jpg", b"text", "not a picture"),
        ("video", "none.mp4", None, "No such file"),
        ("video", "empty.mp4", b"", "0 bytes"),
        ("video", "text.mp4", b"text", "not a readable media file"),
        ("video", "folder", "folder", "is a folder"),
        ("image", "folder", "folder", "nothing below"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run, tmp_path, capsys, mode, name, content, wanted):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert run(mode, path, tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert wanted in error
    assert len(error.splitlines()) == 1


def test_video_without_pictures_is_refused(run, tmp_path, capsys):
    from facevox.media import write_wav

    write_wav(tmp_path / "sound.wav", np.zeros(1600, np.float32), 16000)
    assert run("video", tmp_path / "sound.wav", tmp_path / "out") == 2
    assert "no video stream" in capsys.readouterr().err


def test_video_is_never_written_over_itself(run, tmp_path, capsys):
    path = tmp_path / "clip.mp4"
    write_video(path, [frame_of_faces(1)] * 2, 5)
    before = path.read_bytes()
    assert run("video", path, tmp_path) == 2
    assert "holds the video itself" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_missing_model_is_one_line_that_says_how_to_train_one(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(analysis, "DEMO_MODEL_DIR", tmp_path / "no demo")
    write_image(tmp_path / "face.png", frame_of_faces(1))
    none = tmp_path / "none"
    assert run("image", tmp_path / "face.png", tmp_path / "out", "--model_dir", str(none)) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert str(none) in error
    assert "make demo" in error
    assert "emotion-train" in error


def camera_of(count: int) -> Callable[..., object]:
    def frames(number: int):
        for _ in range(count):
            yield frame_of_faces(1)

    return frames


def test_webcam_without_a_screen_records_a_file_and_opens_no_window(run, tmp_path, monkeypatch):
    import cv2

    def no_window(*_: object) -> None:
        raise AssertionError("a window without a screen ends the process")

    for name in ("imshow", "waitKey", "namedWindow", "destroyWindow"):
        monkeypatch.setattr(cv2, name, no_window)
    monkeypatch.setattr(camera, "camera_frames", camera_of(10_000))
    assert run("webcam", None, tmp_path / "out", "--webcam_s", "0.6") == 0
    (video,) = (tmp_path / "out").glob("webcam_*.mp4")
    frames = list(iter_frames(video))
    assert len(frames) == round(0.6 * camera.WEBCAM_RATE_HZ)
    rows = read_table(video.with_suffix(".csv"))
    assert len(rows) == len(frames)
    assert all(row["face"] for row in rows)


def test_window_shows_the_mirrored_webcam_until_q_and_keeps_nothing(run, tmp_path, monkeypatch):
    import cv2

    shown = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(image.copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda wait_ms: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "destroyWindow", lambda name: None)
    monkeypatch.setattr(camera, "camera_frames", camera_of(50))
    assert run("webcam", None, tmp_path / "out") == 0
    assert len(shown) == 3
    assert not (tmp_path / "out").exists()
    mirrored_bgr = frame_of_faces(1)[:, ::-1, ::-1]
    assert np.array_equal(shown[0][-20:, :30], mirrored_bgr[-20:, :30])


def test_opencv_without_windows_is_said_once_and_the_work_goes_on(run, clip, tmp_path, monkeypatch, capsys):
    import cv2

    def fail(*_: object) -> None:
        raise cv2.error("The function is not implemented. Rebuild the library with GTK+")

    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    monkeypatch.setattr(cv2, "imshow", fail)
    assert run("video", clip, tmp_path / "out") == 0
    assert capsys.readouterr().err.count("opens no window") == 1
    assert (tmp_path / "out" / clip.name).is_file()


def test_missing_camera_is_one_line_and_exit_2(run, tmp_path, monkeypatch, capsys):
    import cv2

    class NoCamera:
        def __init__(self, number: int) -> None:
            self.number = number

        def isOpened(self) -> bool:
            return False

        def release(self) -> None: ...

    monkeypatch.setattr(cv2, "VideoCapture", NoCamera)
    assert run("webcam", None, tmp_path / "out", "--camera", "7") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: --camera 7")
    assert len(error.splitlines()) == 1


def test_program_imports_neither_tensorflow_nor_torch(
    model_file, clip, tmp_path, repository, example_settings
):
    code = (
        "import sys; sys.argv[0] = 'emotion/run_model.py'\n"
        "import runpy\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, sorted({'tensorflow', 'torch', 'keras'} & set(sys.modules)))\n"
    )
    options = ["--test_mode=video", f"--input_path={clip}", "--output_dir", str(tmp_path / "out")]
    options += ["--model_dir", str(model_file.parent)]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "XNNPACK" not in done.stderr
