"""Uploaded pictures and videos: decoded within limits, analysed in turn with the live clients."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import av

from emotion.live.face_tracks import FaceAnswer, FaceTracks, FrameAnswer, Sighting
from emotion.serving.config import ServerConfig
from emotion.serving.pictures import decode_upload, read_header
from emotion.serving.refusals import Refusal
from emotion.serving.service import Service
from emotion.serving.uploads import MemoryFile
from facevox.errors import UserError
from facevox.media import Frame, MediaError, iter_frames, open_media, played_stream
from facevox.media.display import pixel_aspect, square_size

VIDEO_RATE_HZ = 5.0  # frames of a video that are analysed a second: expressions last longer
# A video that takes longer than this many times the allowed length is given up: it may have thousands of
# frames a second, whatever its header states.
LARGEST_SLOWNESS = 2.0
# Phones record up to 240. Else frames of a few bytes whose time stamps hardly advance would fill that time.
LARGEST_RATE_HZ = 250.0
IS_GONE_S = 1.0  # between two checks that the client is still there, while a frame is awaited


class VideoBounds:
    """Called before each packet of a video is decoded: ends the decoding when it must not go on.

    There may be any number of packets between two of the frames that are analysed.

    Args:
        service: The server; its limits count from now.

    Attributes:
        is_abandoned: Set by the event loop when nobody waits for the answer any more.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._end_s = time.perf_counter() + LARGEST_SLOWNESS * service.config.max_video_s
        self._num_packets = 0
        self.is_abandoned = False

    def __call__(self) -> None:
        """Counts a packet, on the decoder's thread.

        Raises:
            Refusal: stopping, too_long.
        """
        self._num_packets += 1
        if self._service.is_stopping or self.is_abandoned:
            raise Refusal("stopping")
        is_many = self._num_packets > LARGEST_RATE_HZ * self._service.config.max_video_s
        if is_many or time.perf_counter() > self._end_s:
            raise Refusal("too_long")


class _Answer(TypedDict):
    kind: str
    width: int
    height: int
    classes: list[str]
    ms: dict[str, float]


class PictureAnswer(_Answer):
    """The answer of kind "image"."""

    faces: list[FaceAnswer]


class VideoAnswer(_Answer):
    """The answer of kind "video"."""

    fps: float
    duration_s: float
    frames: list[FrameAnswer]


async def predict(
    service: Service, file: MemoryFile, is_gone: Callable[[], Awaitable[bool]]
) -> PictureAnswer | VideoAnswer:
    """The answer to an uploaded file.

    Args:
        service: The server.
        file: The upload.
        is_gone: True if the client went away; a video is given up then.

    Raises:
        Refusal: It cannot be analysed, or nobody waits for the answer any more (stopping).
    """
    # All decoding of an upload happens in one thread of its own, because a decoder belongs to a thread.
    thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
    try:
        data = await asyncio.get_running_loop().run_in_executor(thread, _read_picture, file)
        if data is not None:
            return await _predict_picture(service, data, thread)
        return await _predict_video(service, file, thread, is_gone)
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _read_picture(file: MemoryFile) -> bytes | None:
    """The bytes of the file if it is a picture, else None."""
    data = file.read()
    try:
        read_header(data)
    except Refusal as refusal:
        if refusal.code == "not_an_image":
            return None
        raise
    return data


async def _predict_picture(service: Service, data: bytes, thread: ThreadPoolExecutor) -> PictureAnswer:
    loop = asyncio.get_running_loop()
    start_s = time.perf_counter()
    image, width, height = await loop.run_in_executor(
        thread, decode_upload, data, service.config.max_upload_pixels
    )
    decoded_s = time.perf_counter()
    async with service.workers.turns:
        findings = await service.workers.faces(image)
    scale = width / image.shape[1]
    sightings = [Sighting(s.box.scaled(scale), s.probabilities) for s in findings.sightings]
    faces = FaceTracks().update(sightings, 0.0)
    service.metrics.count("faces_total", len(faces))
    stages_s = {
        "decode": decoded_s - start_s,
        "detect": findings.detect_s,
        "classify": findings.classify_s,
        "total": time.perf_counter() - start_s,
    }
    return {
        "kind": "image",
        "width": width,
        "height": height,
        "classes": list(service.class_names),
        "faces": service.describe_faces(faces),
        "ms": {stage: round(1000 * seconds, 2) for stage, seconds in stages_s.items()},
    }


async def _predict_video(
    service: Service,
    file: MemoryFile,
    thread: ThreadPoolExecutor,
    is_gone: Callable[[], Awaitable[bool]],
) -> VideoAnswer:
    loop = asyncio.get_running_loop()
    config, start_s = service.config, time.perf_counter()
    duration_s = await loop.run_in_executor(thread, _check_video, file, config)
    bounds = VideoBounds(service)
    frames = _sampled_frames(file, config, bounds)
    tracks = FaceTracks()
    answers: list[FrameAnswer] = []
    width = height = index = 0
    last_s = -math.inf
    try:
        while (frame := await _await_frame(frames, thread, bounds, is_gone)) is not None:
            bounds()  # a frame that is repeated for long comes without packets
            index = frame.index
            if index >= config.max_video_s * VIDEO_RATE_HZ:
                raise Refusal("too_long")  # whatever its header states
            if frame.source_s == last_s:
                continue  # it is still shown, and was analysed
            last_s = frame.source_s
            height, width = frame.image.shape[:2]
            if width * height > config.max_frame_pixels:  # the size may change on the way
                raise Refusal("too_many_pixels")
            async with service.workers.turns:
                findings = await service.workers.faces(frame.image)
            faces = tracks.update(findings.sightings, last_s, is_film=True)
            service.metrics.count("faces_total", len(faces))
            answers.append({"time_s": round(last_s, 6) + 0.0, "faces": service.describe_faces(faces)})
    finally:
        await loop.run_in_executor(thread, frames.close)  # type: ignore[attr-defined]
    return {
        "kind": "video",
        "width": width,
        "height": height,
        "fps": VIDEO_RATE_HZ,
        "duration_s": round(duration_s or (index + 1) / VIDEO_RATE_HZ, 3),
        "classes": list(service.class_names),
        "frames": answers,
        "ms": {"total": round(1000 * (time.perf_counter() - start_s), 2)},
    }


def _check_video(file: MemoryFile, config: ServerConfig) -> float:
    """The duration by the header, 0 where it has none; size and duration are compared with the limits.

    Raises:
        Refusal: not_media, too_many_pixels, too_long, odd_shape.
    """
    try:
        with open_media(file.path) as container:
            stream = played_stream(container, "video", file.path)
            width, height = square_size(stream.width, stream.height, pixel_aspect(stream))
            duration_s = (container.duration or 0) / av.time_base
    except MediaError:
        raise Refusal("not_media") from None
    if width * height > config.max_frame_pixels:
        raise Refusal("too_many_pixels")
    if duration_s > config.max_video_s + 1 / VIDEO_RATE_HZ:
        raise Refusal("too_long")
    return duration_s


def _sampled_frames(file: MemoryFile, config: ServerConfig, bounds: VideoBounds) -> Iterator[Frame]:
    # One frame more than is allowed shows that there are more.
    most = int(config.max_video_s * VIDEO_RATE_HZ) + 1
    return iter_frames(file.path, rate_hz=VIDEO_RATE_HZ, max_frames=most, check=bounds)


async def _await_frame(
    frames: Iterator[Frame],
    thread: ThreadPoolExecutor,
    bounds: VideoBounds,
    is_gone: Callable[[], Awaitable[bool]],
) -> Frame | None:
    """The next frame; None at the end. The decoding ends early where the client has gone."""
    decoding = asyncio.get_running_loop().run_in_executor(thread, _next_frame, frames)
    while not decoding.done():
        await asyncio.wait((decoding,), timeout=IS_GONE_S)
        bounds.is_abandoned = bounds.is_abandoned or await is_gone()
    return decoding.result()


def _next_frame(frames: Iterator[Frame]) -> Frame | None:
    try:
        return next(frames, None)
    except UserError:
        raise Refusal("not_media") from None
