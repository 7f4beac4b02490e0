"""One clock, the presentation time: copies of a clip at other frame rates get the answer of the clip."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facevox.media import Frame, MediaInfo, iter_frames, probe, read_audio, write_timed_video
from lipsync.inference import LipSyncInference

LENGTH_S = 12.0
RATE_HZ = 16_000
TOLERANCE_MS = 5.0
LATE_MS = 67.0  # of pictures of a 30 fps clip that went through `ffmpeg -r 25`

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def times_of(rate: str) -> np.ndarray:
    """Presentation times of the pictures of a copy."""
    if rate == "variable":
        steps = np.random.default_rng(0).choice([1 / 60, 1 / 30, 1 / 24, 1 / 20], size=round(40 * LENGTH_S))
        times = np.concatenate([[0.0], np.cumsum(steps)])
        return times[times < LENGTH_S]
    return np.arange(0, LENGTH_S, 1 / float(rate))


@pytest.fixture(scope="module")
def source(real_data_dir: Path) -> tuple[list[Frame], MediaInfo, np.ndarray]:
    """The pictures of a real clip of 30 frames a second, its description and its sound."""
    video = real_data_dir / "talking/Obama_clip2.mov"
    frames = [frame for frame in iter_frames(video) if frame.time_s < LENGTH_S]
    return frames, probe(video), read_audio(video, RATE_HZ, 0.0, LENGTH_S)


def write_copy(
    path: Path, source: tuple[list[Frame], MediaInfo, np.ndarray], times: np.ndarray, late_s: float = 0.0
) -> None:
    """A copy that shows at each time what the source shows then, so much later.

    Between two pictures it shows a mixture of both: the nearer one would be up to half a step early or late.
    """
    frames, info, samples = source
    shown = np.array([frame.time_s for frame in frames])

    def mixed() -> Iterator[Frame]:
        for number, time_s in enumerate(times):
            place = float(np.interp(time_s - late_s, shown, np.arange(len(shown))))
            low, high = frames[int(place)], frames[min(int(place) + 1, len(frames) - 1)]
            share = place - int(place)
            image = np.rint(low.image * (1 - share) + high.image * share).astype(np.uint8)
            yield replace(low, image=image, time_s=float(time_s), index=number)

    write_timed_video(path, mixed(), info, iter([samples]), RATE_HZ)


@pytest.fixture(scope="module")
def offset_ms(
    source: tuple[list[Frame], MediaInfo, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> float:
    """The answer on the clip at its own rate."""
    path = tmp_path_factory.mktemp("own") / "own.mp4"
    write_copy(path, source, np.array([frame.time_s for frame in source[0]]))
    return float(LipSyncInference().compute_sync_score(path)[1]["offset_ms"])


@pytest.mark.parametrize("rate", ["25", "29.97", "30", "50", "60", "variable"])
def test_copies_of_a_clip_by_presentation_time_get_one_answer(
    source: tuple[list[Frame], MediaInfo, np.ndarray], offset_ms: float, tmp_path: Path, rate: str
) -> None:
    write_copy(tmp_path / "copy.mp4", source, times_of(rate))
    details = LipSyncInference().compute_sync_score(tmp_path / "copy.mp4")[1]
    assert details["offset_ms"] == pytest.approx(offset_ms, abs=TOLERANCE_MS)


def test_copy_whose_pictures_are_late_gets_an_answer_that_is_as_much_later(
    source: tuple[list[Frame], MediaInfo, np.ndarray], offset_ms: float, tmp_path: Path
) -> None:
    write_copy(tmp_path / "late.mp4", source, times_of("25"), LATE_MS / 1000)
    details = LipSyncInference().compute_sync_score(tmp_path / "late.mp4")[1]
    assert details["offset_ms"] == pytest.approx(offset_ms + LATE_MS, abs=TOLERANCE_MS)
