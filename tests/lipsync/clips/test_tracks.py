"""Faces followed through a video: several at once, across cuts and short absences."""

import cv2
import numpy as np
import pytest

from lipsync.clips.tracks import (
    CUT_DISTANCE,
    DETECT_EVERY_EMPTY,
    FACE_CROP_PX,
    MAX_MISSED,
    FaceFinder,
    FacePose,
    FaceTracker,
    cut_upright,
    inverse_of,
    pose_of,
    shot_distance,
    transform,
)

Clips = dict[str, list[np.ndarray]]


def follow(frames: list[np.ndarray], max_faces: int = 4) -> list[dict[int, np.ndarray | None]]:
    """For each frame the landmarks of each track that is alive."""
    with FaceTracker(max_faces) as tracker:
        return [{face.track_id: face.landmarks for face in tracker.update(frame).faces} for frame in frames]


def test_one_face_is_one_track_found_in_every_frame(clip_frames: Clips) -> None:
    for frames in clip_frames.values():
        seen = follow(frames)
        assert all(set(faces) == {0} and faces[0] is not None for faces in seen)


def test_landmarks_lie_where_a_still_mesh_of_the_whole_picture_finds_them(clip_frames: Clips) -> None:
    from facevox.mesh.face_mesh import FaceMesh

    frames = next(iter(clip_frames.values()))
    seen = follow(frames)
    with FaceMesh(static=True) as mesh:
        for number in (0, 12, 24):
            expected = mesh.find(frames[number])[0]
            found = seen[number][0]
            assert found is not None
            size_px = pose_of(expected).size_px
            assert np.linalg.norm((found - expected)[:, :2], axis=1).mean() < 0.04 * size_px


def test_two_people_side_by_side_are_two_tracks(clip_frames: Clips) -> None:
    left, right, *_ = clip_frames.values()
    seen = follow([np.hstack(pair) for pair in zip(left, right, strict=True)])
    assert all(set(faces) == {0, 1} for faces in seen)
    sides = {k: {points[1, 0] > 256 for f in seen if (points := f[k]) is not None} for k in (0, 1)}
    assert all(len(side) == 1 for side in sides.values())  # nobody changes places
    assert sides[0] != sides[1]


def test_no_more_than_max_faces_are_followed(clip_frames: Clips) -> None:
    left, right, *_ = clip_frames.values()
    wide = [np.hstack(pair) for pair in zip(left, right, strict=True)][:5]
    assert all(len(faces) == 1 for faces in follow(wide, max_faces=1))


def test_a_cut_between_speakers_ends_the_track(clip_frames: Clips) -> None:
    first, second, third, _ = clip_frames.values()
    with FaceTracker() as tracker:
        seen = [tracker.update(frame) for frame in [*first, *second, *third]]
    assert [frame.shot for frame in seen] == [0] * 25 + [1] * 25 + [2] * 25
    assert [frame.faces[0].track_id for frame in seen] == [0] * 25 + [1] * 25 + [2] * 25
    assert all(face.landmarks is not None for frame in seen for face in frame.faces)


def test_a_flash_is_no_cut(clip_frames: Clips) -> None:
    frames = list(next(iter(clip_frames.values())))
    frames[10] = np.clip(frames[10].astype(int) + 60, 0, 255).astype(np.uint8)
    with FaceTracker() as tracker:
        assert [tracker.update(frame).shot for frame in frames] == [0] * 25


@pytest.mark.parametrize("hidden", [MAX_MISSED, MAX_MISSED + 6])
def test_a_face_that_is_hidden_briefly_stays_the_same_track(hidden_face, hidden: int) -> None:
    seen = follow(hidden_face(8, 8 + hidden))
    assert set(seen[-1]) == ({0} if hidden <= MAX_MISSED else {1})
    assert all(seen[number].get(0) is None for number in range(8, 8 + hidden))


def test_a_face_that_appears_later_is_found_soon(clip_frames: Clips) -> None:
    frames = next(iter(clip_frames.values()))
    empty = [np.full((256, 256, 3), 90, np.uint8)] * 7
    seen = follow([*empty, *frames[:12]])
    assert all(not faces for faces in seen[:7])
    assert all(seen[7 + DETECT_EVERY_EMPTY :])


def test_picture_without_a_face_and_tiny_picture_give_none() -> None:
    rng = np.random.default_rng(0)
    for shape in ((240, 320, 3), (2, 2, 3), (1, 700, 3)):
        assert follow([rng.integers(0, 255, shape, dtype=np.uint8)] * 2) == [{}, {}]


def test_look_with_a_border_is_taken_once_a_second_while_nobody_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[tuple[bool, bool]] = []

    def find(
        self: FaceFinder, image: np.ndarray, with_near: bool, with_border: bool = False
    ) -> list[FacePose]:
        looks.append((with_near, with_border))
        return []

    monkeypatch.setattr(FaceFinder, "find", find)
    empty = np.full((90, 160, 3), 127, np.uint8)
    follow([empty] * 100)  # 4 s
    assert [number for number, (_, with_border) in enumerate(looks) if with_border] == [0, 5, 10, 15]
    assert len(looks) == 100 / DETECT_EVERY_EMPTY


def test_face_that_fills_the_picture_is_followed() -> None:
    from skimage.data import astronaut

    close = cv2.resize(astronaut()[82:158, 186:262], (320, 320), interpolation=cv2.INTER_CUBIC)
    finder = FaceFinder()
    assert finder.find(close, with_near=True) == []
    (pose,) = finder.find(close, with_near=True, with_border=True)
    assert pose.middle_px == pytest.approx([160, 90], abs=40)
    seen = follow([close] * 3)
    assert all(list(faces) == [0] and faces[0] is not None for faces in seen)


def test_crop_is_upright_and_of_one_scale(clip_frames: Clips) -> None:
    frame = next(iter(clip_frames.values()))[0]
    turn = cv2.getRotationMatrix2D((128, 128), 20, 0.9)
    with FaceTracker() as plain, FaceTracker() as turned:
        crops = []
        for _ in range(3):  # the first crop is aimed by the detector, later ones by the mesh
            first = plain.update(frame).faces[0]
            second = turned.update(cv2.warpAffine(frame, turn, (256, 256))).faces[0]
            crops = [first.crop_rgb, second.crop_rgb]
    middle = slice(FACE_CROP_PX // 4, -FACE_CROP_PX // 4)
    inner = [crop[middle, middle].astype(float).ravel() for crop in crops]
    assert np.corrcoef(*inner)[0, 1] > 0.95


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_large_pictures_are_averaged_down_in_place(factor: int) -> None:
    small = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    small = cv2.GaussianBlur(small, (9, 9), 3)
    large = np.repeat(np.repeat(small, factor, axis=0), factor, axis=1)
    pose = FacePose(np.array([30.0, 28.0]), 16.0, 0.2)
    # Pixel k of the small picture is centred at factor * k + (factor - 1) / 2 of the large one.
    larger = FacePose(pose.middle_px * factor + (factor - 1) / 2, 16.0 * factor, 0.2)
    crops = [
        cut_upright(image, at.crop_matrix(2.5, 0.1, 40), 40).astype(float)
        for image, at in ((small, pose), (large, larger))
    ]
    assert np.abs(crops[0] - crops[1])[3:-3, 3:-3].mean() < 1.0


def test_crop_matrix_puts_known_points_in_their_place() -> None:
    pose = FacePose(np.array([100.0, 50.0]), 20.0, np.pi / 2)  # lying: the right eye is below the left
    matrix = pose.crop_matrix(2.0, 0.5, 80)
    right_eye = matrix @ [100.0, 60.0, 1.0]  # half of E from the middle, along the eyes
    assert right_eye == pytest.approx([60.0, 20.0])
    centre = matrix @ [90.0, 50.0, 1.0]  # half of E below the eyes: to the left in the picture
    assert centre == pytest.approx([40.0, 40.0])


def test_way_back_is_the_inverse() -> None:
    matrix = FacePose(np.array([210.0, 90.0]), 37.0, 0.7).crop_matrix(3.0, 0.3, 256)
    square = np.vstack([matrix, [0, 0, 1]])
    assert np.abs(np.vstack([inverse_of(matrix), [0, 0, 1]]) - np.linalg.inv(square)).max() < 1e-9
    points = np.random.default_rng(0).uniform(0, 300, (5, 2))
    assert np.abs(transform(transform(points, matrix), inverse_of(matrix)) - points).max() < 1e-9


def test_shot_distance_against_its_formula() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (36, 64), dtype=np.uint8) for _ in range(2))
    unlike = 1 - np.corrcoef(first.ravel().astype(float), second.ravel().astype(float))[0, 1]
    assert shot_distance(first, second) == pytest.approx(unlike, abs=0.2)
    assert shot_distance(first, second) > CUT_DISTANCE
    assert shot_distance(first, first) == pytest.approx(0, abs=1e-9)
    black = np.zeros_like(first)
    assert shot_distance(black, black) == pytest.approx(0, abs=1e-9)
    assert shot_distance(black, first) > CUT_DISTANCE


@pytest.mark.real_data
def test_two_people_in_a_real_interview_are_followed_throughout(real_data_dir) -> None:
    from lipsync.clips.features import collect_tracks, iter_face_features

    video = real_data_dir / "talking" / "multi_interview.mp4"
    tracks, num_frames, shots = collect_tracks(iter_face_features(video, max_duration_s=4))
    assert (num_frames, shots) == (100, (0,))
    assert [len(track) for track in tracks] == [100, 100]
    assert all(track.is_measured.mean() > 0.98 for track in tracks)
