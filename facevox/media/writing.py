"""Videos and wavs, written whole or not at all."""

import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from facevox.files import replacing

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from numpy.typing import NDArray


def write_video(
    path: str | Path,
    frames: Iterable["NDArray[np.uint8]"],
    rate_hz: float,
    audio: "NDArray[np.float32] | None" = None,
    audio_rate_hz: int = 16000,
    *,
    crf: int = 20,
    preset: str = "veryfast",
) -> None:
    """Writes an mp4 of H.264 (yuv420p) and AAC; frame k is presented at k / rate_hz, sample k at k / rate.

    Args:
        path: The file; it appears as a whole or not at all.
        frames: (H, W, 3) uint8 RGB, all of one size; an odd last row or column is cut off, because
            yuv420p has half of the colour resolution.
        rate_hz: Frames a second.
        audio: (n,) float in [-1, 1], mono; None writes no sound.
        audio_rate_hz: Its rate; AAC takes 8000, 16000, 22050, 44100, 48000 and some others.
        crf: x264's constant rate factor, 0 (lossless) to 51.
        preset: x264's speed.

    Raises:
        ValueError: There are no frames.
    """
    rate = Fraction(rate_hz).limit_denominator(100_000)
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=rate)
        video.pix_fmt = "yuv420p"
        # One thread: the same bytes whatever the number of cores, and workers do not compete for them.
        video.codec_context.thread_count = 1
        video.options = {"crf": str(crf), "preset": preset}
        sound: AudioStream | None = None
        if audio is not None:
            sound = container.add_stream("aac", rate=audio_rate_hz)
            sound.layout = "mono"
        count = 0
        for image in frames:
            height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
            if count == 0:
                video.width, video.height = width, height
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            frame.pts = count
            frame.time_base = 1 / rate
            container.mux(video.encode(frame))
            count += 1
        if count == 0:
            raise ValueError(f"{path}: a video needs at least one frame")
        container.mux(video.encode(None))
        if sound is not None and audio is not None:
            for packet in _encoded_audio(sound, audio, audio_rate_hz):
                container.mux(packet)


def _encoded_audio(
    stream: "AudioStream", audio: "NDArray[np.float32]", rate_hz: int
) -> Iterator["Packet[AudioStream]"]:
    samples = np.ascontiguousarray(audio, np.float32).reshape(1, -1)
    for start in range(0, samples.shape[1], 1024):  # the length of AAC's frames
        block = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], format="fltp", layout="mono")
        block.sample_rate = rate_hz
        block.pts = start
        block.time_base = Fraction(1, rate_hz)
        yield from stream.encode(block)
    yield from stream.encode(None)


def write_wav(
    path: str | Path,
    blocks: "NDArray[np.float32] | Iterable[NDArray[np.float32]]",
    rate_hz: int,
    *,
    sync: bool = True,
) -> int:
    """Writes mono 16-bit PCM from (n,) float32 in [-1, 1], whole or in blocks; returns the number of samples.

    Louder samples are clipped. Blocks are written as they come, so that hours of sound need no memory.
    """
    count = 0
    parts = (blocks,) if isinstance(blocks, np.ndarray) else blocks
    with replacing(path, sync=sync) as file, wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        for block in parts:
            pcm = np.clip(np.rint(block * 32767.0), -32768, 32767).astype("<i2")
            wav.writeframes(pcm.tobytes())
            count += len(block)
    return count
