"""Pictures and sound of devices, on the clock of the first picture."""

import threading
from types import SimpleNamespace

import av
import numpy as np
import pytest

from facevox.errors import UserError
from lipsync.clips import sources
from lipsync.clips.sounds import SAMPLE_RATE_HZ as RATE_HZ
from lipsync.clips.sources import LiveDevices, _ArrivalClock, open_devices


def test_devices_are_put_on_the_clock_of_the_first_picture() -> None:
    clock = _ArrivalClock()
    picture = np.zeros((2, 2, 3), np.uint8)
    block = np.ones(1600, np.float32)
    assert list(clock.take("sound", 9.9, block)) == []  # before the first picture
    assert [what for what, _ in clock.take("frame", 10.0, picture)] == ["frame"]
    (first,) = list(clock.take("sound", 10.05, block))  # half of it lies before the picture
    assert len(first[1]) == 800
    assert [what for what, _ in clock.take("frame", 10.12, picture)] == ["frame"] * 3  # two were lost
    lost = list(clock.take("sound", 10.45, block))  # 0.3 s are missing: silence takes their place
    assert [len(samples) for _, samples in lost] == [4800, 1600]
    assert not lost[0][1].any()


def test_devices_are_read_until_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = threading.local()  # each device has its own time, and they keep step
    step = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: clock.now_s))

    def frames(kind: str):
        for number in range(30):
            step.wait()
            clock.now_s = 0.01 * number
            if kind == "video":
                yield SimpleNamespace(to_ndarray=lambda format: np.full((2, 2, 3), 7, np.uint8))
            else:
                frame = av.AudioFrame.from_ndarray(np.full((1, 160), number, np.float32), "fltp", "mono")
                frame.sample_rate = RATE_HZ
                yield frame
        step.wait()

    def device(kind: str) -> SimpleNamespace:
        return SimpleNamespace(decode=lambda **_: frames(kind), close=lambda: None)

    with LiveDevices(device("video"), device("audio")) as devices:
        pieces = list(devices.pieces())
    # Of the first to the last picture, which are 0.29 s apart, at 25 a second; and the sound between them.
    assert sum(what == "frame" for what, _ in pieces) == 8
    assert sum(len(content) for what, content in pieces if what == "sound") == round(0.29 * RATE_HZ)


def test_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="--camera /dev/no-such-camera: cannot be opened"):
        open_devices("/dev/no-such-camera", "default")
