"""Videos whose frames come at any times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from facevox.media import Frame, MediaInfo, write_timed_video

IMAGE = np.zeros((48, 64, 3), np.uint8)


def info(time_base: Fraction = Fraction(1, 1000)) -> MediaInfo:
    return MediaInfo(True, False, 64, 48, 0.0, 3.0, 0, 0, 0, time_base=time_base)


def shown_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time or 0.0 for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("times_ms", "end_s"),
    [([0, 40, 80, 1080], 1.12), ([0, 1000, 1000, 1001], 1.041), ([500, 501, 900], 0.94)],
)
def test_last_frame_is_shown_for_its_own_time_and_equal_times_differ_by_a_tick(
    times_ms: list[int], end_s: float, tmp_path: Path
) -> None:
    frames = [Frame(IMAGE, ms / 1000, k, ms / 1000, 0.04) for k, ms in enumerate(times_ms)]
    write_timed_video(tmp_path / "x.mp4", frames, info())
    after = shown_s(tmp_path / "x.mp4")
    assert after == pytest.approx([ms / 1000 for ms in times_ms], abs=1.2e-5)
    assert min(np.diff(after)) > 1e-5
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        assert float((stream.duration or 0) * (stream.time_base or 0)) == pytest.approx(
            end_s - times_ms[0] / 1000, abs=1e-4
        )


@pytest.mark.parametrize("ticks", [1, 24, 1000, 12_800, 30_000, 90_000, 1_000_000, 10_000_000])
def test_every_clock_of_up_to_ten_million_ticks_a_second_is_kept_exactly(ticks: int, tmp_path: Path) -> None:
    times = [Fraction(number, ticks) for number in (0, 1, 3, 1000)]
    frames = [Frame(IMAGE, float(t), k, float(t), 0.04) for k, t in enumerate(times)]
    write_timed_video(tmp_path / "x.mp4", frames, info(Fraction(1, ticks)))
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert [f.pts * f.time_base for f in container.decode(video=0) if f.pts is not None] == times  # type: ignore[operator]


def test_finer_clocks_are_rounded_and_none_without_frames_is_written(tmp_path: Path) -> None:
    frames = [Frame(IMAGE, second, second, second, 1) for second in (0, 1, 2)]
    write_timed_video(tmp_path / "x.mp4", frames, info(Fraction(1, 1_000_000_000)))
    assert shown_s(tmp_path / "x.mp4") == [0, 1, 2]
    with pytest.raises(ValueError, match="at least one frame"):
        write_timed_video(tmp_path / "none.mp4", [], info())
    assert not (tmp_path / "none.mp4").exists()
