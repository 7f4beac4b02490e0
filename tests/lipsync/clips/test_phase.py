"""Pictures that start off the grid of 25 a second: the offset is that of their own times."""

from pathlib import Path

import av
import pytest
from talking_clips import make_talking

from facevox.media import changed_kinds, phase_s, probe
from lipsync.inference import LipSyncInference


def delay_pictures(source: Path, target: Path, delay_s: float) -> None:
    """Copies a file whose pictures are in order, with the pictures later."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "video":
                ticks = round(delay_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = streams[packet.stream.index]
            output.mux(packet)


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.mark.parametrize("suffix", [".mp4", pytest.param(".mkv", marks=pytest.mark.slow)])
def test_offset_follows_pictures_off_the_grid(tmp_path: Path, talking: tuple[Path, ...], suffix: str) -> None:
    lipsync, offsets = LipSyncInference(), {}
    for delay_ms in (0, 7, 13, 21, 34):
        path = tmp_path / f"{delay_ms}{suffix}"
        delay_pictures(talking[0], path, delay_ms / 1000)
        if suffix == ".mp4":  # in Matroska the codec's delay comes before everything else
            assert phase_s(probe(path), 25) == pytest.approx(delay_ms / 1000, abs=0.002)
            expected = ["pictures between the steps of the clock"] * (delay_ms > 0)
            assert changed_kinds(path, pictures=True, sound=True, grid_hz=25) == expected
        posterior = lipsync.analyse(path)[0].judgement.posterior
        assert posterior is not None
        offsets[delay_ms] = posterior.offset_ms  # whatever the verdict is: some are at the edge of in sync
    assert offsets == pytest.approx({delay: offsets[0] + delay for delay in offsets}, abs=2)
