"""Which frames are tried, which face wins, and how its picture is called."""

from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from facevox.errors import UserError
from facevox.files import read_image
from facevox.media import iter_frames, write_video
from lc_pytorch.faces import extractor
from lc_pytorch.faces.detectors import Candidate, Detector
from lc_pytorch.faces.extractor import FaceTask, VideoItem, further_names, plan_faces, tried_frames
from lc_pytorch.faces.options import FaceConfig


@pytest.fixture
def portrait(example_videos: Path) -> np.ndarray:
    return next(iter_frames(sorted(example_videos.rglob("*.mp4"))[0])).image


def extract(tmp_path: Path, frames: "list[np.ndarray]", **options):
    """The outcome of one video of these frames with mediapipe."""
    video = tmp_path / "vid.mp4"
    write_video(video, frames, 25, preset="ultrafast")
    task = FaceTask(FaceConfig(detector_backend="mediapipe", **options))
    task.check()
    task.open(tmp_path / "out")
    try:
        (outcome,) = task.process_chunk([VideoItem("vid.mp4", str(video), "vid.jpg")])
    finally:
        task.close()
    return outcome


def blank(like: np.ndarray, grey: int = 90) -> np.ndarray:
    return np.full_like(like, grey)


def test_frames_are_tried_one_by_one_and_then_at_growing_distance():
    indexes = list(tried_frames(60))
    assert indexes[:25] == list(range(25))
    assert indexes[25:29] == [26, 29, 33, 38]
    steps = np.diff(indexes[24:])
    assert (np.diff(steps) == 1).all()
    assert indexes[-1] == 689  # as the help text and the module say
    assert list(tried_frames(1)) == [0]


@pytest.mark.parametrize("leader", [0, 1, 7, 24])
def test_the_first_frame_with_a_face_wins(tmp_path: Path, portrait: np.ndarray, leader: int):
    outcome = extract(tmp_path, [blank(portrait)] * leader + [portrait] * 3)
    assert outcome.status == "done"
    assert outcome.rows[0]["frame_index"] == leader
    assert outcome.rows[0]["time_s"] == pytest.approx(leader / 25, abs=1e-3)


def test_a_face_after_a_long_leader_is_found(tmp_path: Path, portrait: np.ndarray):
    outcome = extract(tmp_path, [blank(portrait)] * 60 + [portrait] * 20)
    assert outcome.rows[0]["frame_index"] == min(index for index in tried_frames(60) if index >= 60)


@pytest.mark.parametrize("align", [True, False])
def test_second_look_that_costs_more_is_taken_once_a_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, portrait: np.ndarray, align: bool
):
    second: list[bool] = []

    def search(
        self: Detector, image: np.ndarray, border: bool, min_confidence: float, with_second_look: bool
    ) -> list[Candidate]:
        second.append(with_second_look)
        return []

    monkeypatch.setattr(Detector, "search", search)
    extract(tmp_path, [blank(portrait)] * 60, align_faces=align)
    tried = [index for index in tried_frames(60) if index < 60]
    due = [index for index, is_due in zip(tried, second, strict=True) if is_due]
    assert due == (tried if align else [0, 26, 51])  # with alignment the second look is the cheap one


def test_nothing_is_decoded_after_the_frame_with_a_face(monkeypatch, tmp_path: Path, portrait: np.ndarray):
    decoded = []

    def counting(*args, **kwargs):
        for frame in iter_frames(*args, **kwargs):
            decoded.append(frame.index)
            yield frame

    monkeypatch.setattr(extractor, "iter_frames", counting)
    extract(tmp_path, [blank(portrait)] * 2 + [portrait] * 10)
    assert decoded == [0, 1, 2]


def test_no_face_names_how_many_frames_were_tried(tmp_path: Path, portrait: np.ndarray):
    outcome = extract(tmp_path, [blank(portrait)] * 12, max_frames=5)
    assert (outcome.status, outcome.outputs) == ("no_face", [])
    assert outcome.reason == "no face in 5 frames tried (the first 0.2 s; --max_frames reaches further)"
    outcome = extract(tmp_path, [blank(portrait)], max_frames=5)
    assert outcome.reason == "no face in 1 frame tried (the whole video)"


def test_without_enforcement_the_middle_square_is_written_and_marked(tmp_path: Path):
    frame = np.full((120, 200, 3), 90, np.uint8)
    frame[:, 40:160] = (200, 30, 30)
    outcome = extract(tmp_path, [frame] * 3, enforce_detection=False)
    assert outcome.status == "done"
    assert "no face in 3 frames" in outcome.reason
    row = outcome.rows[0]
    assert [row[f"box_{key}_px"] for key in "xywh"] == [40, 0, 120, 120]
    assert "confidence" not in row
    image = read_image(tmp_path / "out" / "vid.jpg")
    assert image.shape == (120, 120, 3)
    assert image[:, 10:-10].mean(axis=(0, 1)) == pytest.approx([200, 30, 30], abs=12)  # and RGB stayed RGB


def test_the_largest_face_is_best_and_all_faces_are_numbered(tmp_path: Path, portrait: np.ndarray):
    side = portrait.shape[0]
    small = cv2.resize(portrait, (side * 2 // 3, side * 2 // 3), interpolation=cv2.INTER_AREA)
    canvas = np.full((side, side + small.shape[1], 3), 120, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    canvas[:, small.shape[1] :] = portrait
    outcome = extract(tmp_path, [canvas], all_faces=True)
    assert outcome.outputs == ["vid.jpg", "vid_1.jpg"]
    widths = [row["box_w_px"] for row in outcome.rows]
    assert widths[0] > widths[1]
    assert outcome.rows[0]["box_x_px"] > small.shape[1] * 0.9
    assert extract(tmp_path, [canvas]).outputs == ["vid.jpg"]


def test_faces_below_the_confidence_asked_for_are_passed_over(tmp_path: Path, portrait: np.ndarray):
    confidence = extract(tmp_path, [portrait]).rows[0]["confidence"]
    assert extract(tmp_path, [portrait], min_confidence=confidence - 0.01).status == "done"
    assert extract(tmp_path, [portrait], min_confidence=min(confidence + 0.02, 1.0)).status == "no_face"


@pytest.mark.parametrize("angle_deg", [-20, 15])
def test_an_aligned_face_has_level_eyes_in_crop_coordinates(tmp_path: Path, portrait, angle_deg: int):
    height, width = portrait.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 0.9)
    turned = cv2.warpAffine(portrait, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)

    def eye_slope_deg(row) -> float:
        across, down = (row[f"right_eye_{a}_px"] - row[f"left_eye_{a}_px"] for a in "xy")
        return float(np.degrees(np.arctan2(down, across)))

    aligned = extract(tmp_path, [turned]).rows[0]
    plain = extract(tmp_path, [turned], align_faces=False).rows[0]
    assert abs(eye_slope_deg(aligned)) < 1.5
    assert eye_slope_deg(plain) == pytest.approx(-angle_deg, abs=5)
    size = read_image(tmp_path / "out" / "vid.jpg").shape
    for name in extractor.LANDMARKS:
        assert 0 < plain[f"{name}_x_px"] < size[1]
        assert 0 < plain[f"{name}_y_px"] < size[0]


def test_a_larger_box_gives_a_larger_crop(tmp_path: Path, portrait: np.ndarray):
    plain, wide = (
        extract(tmp_path, [portrait], expand_percentage=percentage).rows[0] for percentage in (0, 30)
    )
    assert wide["box_w_px"] == pytest.approx(1.3 * plain["box_w_px"], abs=2)


def test_two_videos_of_one_stem_and_further_faces_never_share_a_name():
    names = ["a/vid.mov", "a/vid.mp4", "a/vid_1.mp4", "a/vid_01.mp4", "b/vid.mp4", "a/vid_1_1.avi"]
    root = Path("/videos")
    items = plan_faces([root / name for name in names], root)
    written: list[str] = []
    for item in items:
        further = further_names(item.output, item.reserved)
        written += [item.output, *(next(further) for _ in range(3))]
    assert len({name.casefold() for name in written}) == len(written)
    assert [item.name for item in items] == names
    assert items[4].output == "b/vid.jpg"
    for item in items:
        assert PurePosixPath(item.output).parent == PurePosixPath(item.name).parent


@pytest.mark.parametrize("options", [{"max_frames": 0}, {"expand_percentage": -1}])
def test_settings_out_of_range_name_their_option(options):
    with pytest.raises(UserError, match=f"--{next(iter(options))}"):
        FaceConfig(**options)
