"""Mouth crops, lips and sound of a clip on one clock, live and offline alike."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_media import rotate_header
from flash_and_beep import write_flash_and_beep

from facevox.errors import UserError
from facevox.media import iter_frames, read_audio, write_video
from lipsync.clips.features import (
    LOOKAHEAD,
    FaceFeatureStream,
    FrameFeatures,
    collect_tracks,
    extract_clip,
    iter_face_features,
)
from lipsync.clips.mouths import LIP_MIRROR, NUM_LIP_POINTS, mean_pose
from lipsync.clips.tracks import FacePose

Clips = dict[str, list[np.ndarray]]


def features_of(frames: list[np.ndarray]) -> list[FrameFeatures]:
    with FaceFeatureStream() as stream:
        return [done for frame in frames for done in stream.push(frame)] + stream.finish()


def test_every_frame_comes_once_in_order_and_on_the_clock(example_videos: Path) -> None:
    frames = list(iter_face_features(example_videos / "id0001/0001.mp4"))
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.time_s for frame in frames] == pytest.approx([k / 25 for k in range(25)])
    face = frames[3].faces[0]
    assert (face.mouth.shape, face.mouth.dtype) == ((96, 96), np.uint8)
    assert face.lips.shape == (NUM_LIP_POINTS, 2)
    assert np.abs(face.lips).max() < 1  # the crop holds the whole mouth
    assert face.box_px.shape == (4,)


def test_mouths_that_nobody_needs_are_not_cut_out(example_videos: Path) -> None:
    video = example_videos / "id0001/0001.mp4"
    with_them, without = extract_clip(video), extract_clip(video, with_mouths=False)
    for one, other in zip(with_them.tracks, without.tracks, strict=True):
        assert other.mouths.shape == (len(one), 1, 1)
        np.testing.assert_array_equal(one.lips, other.lips)


def test_live_frames_come_after_the_lookahead_with_the_same_numbers(clip_frames: Clips) -> None:
    frames = next(iter(clip_frames.values()))
    whole = features_of(frames)
    with FaceFeatureStream() as stream:
        live = []
        for number, frame in enumerate(frames[:20]):  # what comes later is not known yet
            live += stream.push(frame)
            assert len(live) == max(number + 1 - LOOKAHEAD, 0)
    for now, later in zip(live, whole, strict=False):
        assert np.array_equal(now.faces[0].mouth, later.faces[0].mouth)
        assert np.array_equal(now.faces[0].lips, later.faces[0].lips)


def test_measured_opening_follows_the_mouth_without_delay(
    example_videos: Path, openings: dict[str, list[float]]
) -> None:
    by_lag: dict[int, list[float]] = {lag: [] for lag in range(-3, 4)}
    for name in ("id0001/0001.mp4", "id0002/0002.mp4", "id0003/0001.mp4", "id0004/0002.mp4"):
        tracks, num_frames, _ = collect_tracks(iter_face_features(example_videos / name))
        assert (len(tracks), len(tracks[0]), num_frames) == (1, 25, 25)
        found, asked = tracks[0].opening, np.array(openings[name])
        height = np.ptp(tracks[0].lips[:, 20:, 1], axis=1)  # of the inner ring, in the crop
        for lag, scores in by_lag.items():
            part = slice(3 + lag, 22 + lag)
            scores += [
                np.corrcoef(found[part], asked[3:22])[0, 1],
                np.corrcoef(height[part], asked[3:22])[0, 1],
            ]
    means = {lag: float(np.mean(scores)) for lag, scores in by_lag.items()}
    assert max(means, key=lambda lag: means[lag]) == 0, means
    assert means[0] > 0.9


def test_open_mouths_are_dark_in_the_middle_of_the_crop(clip_frames: Clips, openings) -> None:
    """The crop shows the mouth, in step with the opening, in its middle."""
    correlations = []
    for name, frames in clip_frames.items():
        tracks, _, _ = collect_tracks(features_of(frames))
        darkness = -tracks[0].mouths[:, 38:66, 34:62].astype(float).min(axis=(1, 2))
        correlations.append(np.corrcoef(darkness, openings[name])[0, 1])
    assert np.mean(correlations) > 0.4, correlations


def test_crops_do_not_depend_on_place_size_and_roll(clip_frames: Clips) -> None:
    frames = next(iter(clip_frames.values()))[:10]
    turn = cv2.getRotationMatrix2D((128, 128), 15, 1.7)
    turn[:, 2] += (200, 60)
    plain, moved = (
        collect_tracks(features_of(group))[0][0]
        for group in (frames, [cv2.warpAffine(f, turn, (720, 480), flags=cv2.INTER_CUBIC) for f in frames])
    )
    assert np.abs(plain.lips - moved.lips).mean() < 0.04
    assert np.corrcoef(plain.mouths[5].ravel().astype(float), moved.mouths[5].ravel())[0, 1] > 0.97


def test_mirrored_lips_are_those_of_the_mirrored_picture(clip_frames: Clips) -> None:
    frames = next(iter(clip_frames.values()))[:8]
    plain = collect_tracks(features_of(frames))[0][0]
    mirrored = collect_tracks(features_of([np.ascontiguousarray(f[:, ::-1]) for f in frames]))[0][0]
    expected = plain.lips[:, LIP_MIRROR] * [-1, 1]
    assert np.abs(mirrored.lips - expected).mean() < 0.04
    assert np.abs(mirrored.lips - plain.lips * [-1, 1]).mean() > 0.2  # the order matters
    assert [LIP_MIRROR[k] for k in LIP_MIRROR] == list(range(NUM_LIP_POINTS))


def test_hidden_frames_are_interpolated_and_marked(hidden_face) -> None:
    (track,), _, _ = collect_tracks(features_of(hidden_face(10, 13)))
    assert len(track) == 25
    assert np.flatnonzero(~track.is_measured).tolist() == [10, 11, 12]
    assert np.isfinite(track.lips).all()
    between = track.boxes_px[9] + (track.boxes_px[13] - track.boxes_px[9]) / 4
    assert np.abs(track.boxes_px[10] - between).max() < 0.5


def test_track_ends_where_the_face_was_last_seen(hidden_face) -> None:
    tracks, num_frames, _ = collect_tracks(features_of(hidden_face(15, 25)))
    assert num_frames == 25
    assert (tracks[0].start, len(tracks[0])) == (0, 15)
    assert tracks[0].is_measured.all()


def test_cut_between_two_speakers_gives_a_track_each(clip_frames: Clips, tmp_path: Path) -> None:
    first, second, *_ = clip_frames.values()
    sound = np.zeros(32000, np.float32)
    write_video(tmp_path / "cut.mp4", [*first, *second], 25, sound, 16000)
    clip = extract_clip(tmp_path / "cut.mp4")
    assert clip.shot_starts == (0, 25)
    assert [(t.start, len(t), t.shot) for t in clip.tracks] == [(0, 25, 0), (25, 25, 1)]
    alone = collect_tracks(features_of(second))[0][0]
    assert np.abs(clip.tracks[1].lips - alone.lips).mean() < 0.05  # nothing of the other shot is mixed in


@pytest.mark.parametrize("rate_hz", [24.0, 30000 / 1001, 60.0])
def test_any_frame_rate_gives_25_frames_a_second_on_the_same_clock(
    clip_frames: Clips, tmp_path: Path, rate_hz: float, openings: dict[str, list[float]]
) -> None:
    name, frames = next(iter(clip_frames.items()))
    shown = [frames[min(round(k / rate_hz * 25), 24)] for k in range(round(rate_hz))]
    write_video(tmp_path / "x.mp4", shown, rate_hz)
    tracks, num_frames, _ = collect_tracks(iter_face_features(tmp_path / "x.mp4"))
    assert num_frames == pytest.approx(25, abs=1)
    found = tracks[0].opening[:24]
    scores = [np.corrcoef(found[3 + lag : 20 + lag], openings[name][3:20])[0, 1] for lag in range(-3, 4)]
    assert int(np.argmax(scores)) == 3


def test_sound_is_on_the_clock_of_the_pictures_wherever_it_starts(tmp_path: Path) -> None:
    for number, options in enumerate(({}, {"sound_from_s": 0.5}, {"sound_s": 3.2}, {"pictures_from_s": 0.8})):
        path = tmp_path / f"{number}.mp4"
        write_flash_and_beep(path, sound_hz=48000, **options)  # type: ignore[arg-type]
        clip = extract_clip(path)
        assert clip.tracks == ()
        rows = clip.sound.log_mel.max(axis=1)
        beeps = [row for row in np.flatnonzero(rows > -10) if rows[row - 1] <= -10]
        origin_s = min(options.get("pictures_from_s", 0.0), options.get("sound_from_s", 0.0))
        # A beep of 20 ms, seen through a window of 25 ms.
        assert np.array(beeps) / 100 == pytest.approx(np.array([1.2, 2.0, 2.8]) - origin_s, abs=0.021)
        flashes = [f.index for f in iter_frames(path, rate_hz=25) if f.image.mean() > 128]
        assert np.array(flashes) / 25 == pytest.approx(np.array([1.2, 2.0, 2.8]) - origin_s, abs=0.021)


def test_own_sound_file_and_limit_of_length(example_videos: Path, example_data_dir: Path) -> None:
    video, voice = example_videos / "id0001/0001.mp4", example_data_dir / "voices/id0001/0001.wav"
    clip = extract_clip(video, voice, max_duration_s=0.6, num_mels=24, num_mfcc=5)
    assert clip.num_frames == 15
    assert clip.sound.log_mel.shape == (60, 24)
    assert clip.sound.mfcc.shape == (60, 5)
    own = extract_clip(video, max_duration_s=0.6, num_mels=24, num_mfcc=5)
    # AAC changes the quiet bands most.
    assert np.corrcoef(own.sound.log_mel.ravel(), clip.sound.log_mel.ravel())[0, 1] > 0.9
    assert len(read_audio(voice)) == 16000


def test_clip_without_sound_is_refused_before_its_pictures_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip_frames: Clips
) -> None:
    write_video(tmp_path / "mute.mp4", next(iter(clip_frames.values()))[:5], 25)
    monkeypatch.setattr("lipsync.clips.features.iter_frames", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(UserError, match="no audio stream"):
        extract_clip(tmp_path / "mute.mp4")


def test_roll_is_averaged_as_a_direction() -> None:
    poses = [FacePose(np.zeros(2), 1.0, angle) for angle in (np.pi - 0.1, -np.pi + 0.3)]
    assert np.cos(mean_pose(poses).roll_rad - (np.pi + 0.1)) == pytest.approx(1.0)


def test_portrait_with_rotation_in_its_header_is_upright(clip_frames: Clips, tmp_path: Path) -> None:
    frames = next(iter(clip_frames.values()))[:6]
    lying = [np.ascontiguousarray(np.rot90(frame[:, 32:224])) for frame in frames]
    write_video(tmp_path / "x.mp4", lying, 25)
    rotate_header(tmp_path / "x.mp4", 90)
    (track,), _, _ = collect_tracks(iter_face_features(tmp_path / "x.mp4"))
    plain = collect_tracks(features_of(frames))[0][0]
    assert np.corrcoef(track.mouths[3].ravel().astype(float), plain.mouths[3].ravel())[0, 1] > 0.95


def test_4k_is_read(clip_frames: Clips, tmp_path: Path) -> None:
    large = [cv2.resize(frame, (3840, 2160)) for frame in next(iter(clip_frames.values()))[:2]]
    write_video(tmp_path / "x.mp4", large, 25, preset="ultrafast")
    (track,), num_frames, _ = collect_tracks(iter_face_features(tmp_path / "x.mp4"))
    assert (len(track), num_frames) == (2, 2)
    assert track.boxes_px[0, 2] > 500
