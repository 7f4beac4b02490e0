"""The command for ffmpeg that is printed with an offset: followed by hand, the copy is in sync."""

import shlex
from pathlib import Path

import av
import pytest
from talking_clips import RATE_HZ, make_talking, pictures_of, shifted, voice_of

from facevox.media import write_video
from lipsync.inference import LipSyncInference
from lipsync.sync.answers import summary_lines


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


def follow(words: list[str]) -> Path:
    """What ffmpeg does with the words: pictures of the first input, sound of the second, all times copied,
    those of the input behind `-itsoffset` later by it."""
    offset_s = float(words[words.index("-itsoffset") + 1])
    inputs = [words[place + 1] for place, word in enumerate(words) if word == "-i"]
    assert words[words.index("-map") : -1] == ["-map", "0:v", "-map", "1:a", "-c", "copy"]
    with av.open(inputs[0]) as pictures, av.open(inputs[1]) as sounds, av.open(words[-1], "w") as output:
        video, audio = pictures.streams.video[0], sounds.streams.audio[0]
        tracks = [output.add_stream_from_template(stream) for stream in (video, audio)]
        packets = []
        for number, (container, stream) in enumerate(((pictures, video), (sounds, audio))):
            for packet in container.demux(stream):
                if packet.pts is None or packet.dts is None or packet.time_base is None:
                    continue
                late = round(offset_s / packet.time_base) if number else 0
                packet.pts, packet.dts = packet.pts + late, packet.dts + late
                packet.stream = tracks[number]
                packets.append((packet.dts * packet.time_base, packet))
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            output.mux(packet)
    return Path(words[-1])


@pytest.mark.parametrize("early_ms", [200, -160])
def test_copy_made_by_the_words_is_in_sync(talking: tuple[Path, ...], tmp_path: Path, early_ms: int) -> None:
    video = tmp_path / "it's -off.mkv"
    write_video(
        tmp_path / "off.mp4", pictures_of(talking[0]), 25, shifted(voice_of(talking[0]), early_ms), RATE_HZ
    )
    (tmp_path / "off.mp4").rename(video)
    inference = LipSyncInference(method="untrained")
    _, details = inference.compute_sync_score(video)
    words = shlex.split(details["ffmpeg"])
    assert words[:3] == ["ffmpeg", "-i", str(video)]
    assert words[-1] == str(tmp_path / "it's -off_fixed.mkv")
    assert f"with ffmpeg: {details['ffmpeg']}" in summary_lines(details)
    _, after = inference.compute_sync_score(follow(words))
    assert after["verdict"] == "in_sync"
    assert abs(after["offset_ms"]) <= 20
    assert after["ffmpeg"] == ""
