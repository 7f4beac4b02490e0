"""Uploaded pictures and videos: decoded within limits, analysed in turn with the live clients."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from emotion.live.face_tracks import FaceAnswer, FaceTracks, FrameAnswer, Sighting
from emotion.serving.decoders import VIDEO_RATE_HZ, UploadDecoder
from emotion.serving.memory import MemoryFile
from emotion.serving.service import Service

IS_GONE_S = 0.2  # between two checks that the client is still there, while a decoder is awaited
_Result = TypeVar("_Result")


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
    # Each upload has a thread that waits for its decoder.
    thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
    start_s = time.perf_counter()
    try:
        decoder = UploadDecoder(service.workers.starter, file, service.config)
        upload = _Upload(service, decoder, thread, is_gone)
        try:
            opened = await upload.call(decoder.open)
            if isinstance(opened, tuple):
                return await _predict_picture(service, *opened, start_s)
            return await _predict_video(service, upload, opened, start_s)
        finally:
            decoder.end()
            thread.submit(decoder.close)
    finally:
        thread.shutdown(wait=False)


class _Upload:
    """An upload's decoder, and the client that waits for its answer."""

    def __init__(
        self,
        service: Service,
        decoder: UploadDecoder,
        thread: ThreadPoolExecutor,
        is_gone: Callable[[], Awaitable[bool]],
    ) -> None:
        self._service, self.decoder, self._thread, self._is_gone = service, decoder, thread, is_gone

    async def call(self, work: Callable[[], _Result]) -> _Result:
        """The result of `work` on the upload's thread; the decoder is ended where nobody waits for it.

        Raises:
            Refusal: That of `work`; stopping.
        """
        working = asyncio.get_running_loop().run_in_executor(self._thread, work)
        while not working.done():
            await asyncio.wait((working,), timeout=IS_GONE_S)
            if not working.done() and (self._service.is_stopping or await self._is_gone()):
                self.decoder.end()
        return working.result()


async def _predict_picture(
    service: Service, image: NDArray[np.uint8], width: int, height: int, start_s: float
) -> PictureAnswer:
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


async def _predict_video(service: Service, upload: _Upload, duration_s: float, start_s: float) -> VideoAnswer:
    tracks = FaceTracks()
    answers: list[FrameAnswer] = []
    width = height = 0
    while not isinstance(frame := await upload.call(upload.decoder.next_frame), int):
        image, time_s = frame
        height, width = image.shape[:2]
        async with service.workers.turns:
            findings = await service.workers.faces(image)
        faces = tracks.update(findings.sightings, time_s, is_film=True)
        service.metrics.count("faces_total", len(faces))
        answers.append({"time_s": round(time_s, 6) + 0.0, "faces": service.describe_faces(faces)})
    return {
        "kind": "video",
        "width": width,
        "height": height,
        "fps": VIDEO_RATE_HZ,
        "duration_s": round(duration_s or frame / VIDEO_RATE_HZ, 3),
        "classes": list(service.class_names),
        "frames": answers,
        "ms": {"total": round(1000 * (time.perf_counter() - start_s), 2)},
    }
