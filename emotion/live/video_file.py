"""A video file: every frame analysed, annotated, written with the sound, shown in a window."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.live.annotation import RunConfig
from emotion.live.face_log import AnnotatedVideo, FaceLog
from emotion.live.viewer import Viewer
from facevox.errors import UserError
from facevox.media import (
    Frame,
    MediaError,
    iter_audio,
    iter_frames,
    probe,
    read_first_frame,
    write_timed_video,
)
from facevox.naming import plan_names
from facevox.progress import Progress
from facevox.signals import StopFlag

logger = logging.getLogger(__name__)
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class Stopped(Exception):
    """A stop signal came in the middle of a video; nothing of it was written."""


def annotate_video(
    path: Path, output_dir: Path, config: RunConfig, stop: StopFlag, viewer: Viewer
) -> AnnotatedVideo:
    """Writes `<name>.mp4` with boxes, bars and the sound (mixed to mono), `<name>.csv` and `<name>.json`.

    Every frame is analysed and written, at its own time, whatever the rate; so are the samples of the sound.

    Args:
        path: The video.
        output_dir: Folder of the files.
        config: How frames are analysed and annotated.
        stop: Ends it between two frames.
        viewer: Shows the frames as they are done.

    Raises:
        MediaError: Not a video that can be read.
        Stopped: A signal came; no file was written or replaced.
    """
    read_first_frame(path)  # before the model is loaded
    info = probe(path)
    audio_rate_hz = info.audio_rate_hz if info.audio_rate_hz in AAC_RATES_HZ else 44100
    audio = _sound(path, audio_rate_hz, stop) if info.has_audio else None
    classifier, analyser, annotator = config.open()
    names = classifier.class_names
    target = output_dir / plan_names([path.name], ".mp4")[0]
    log = FaceLog(names, spreadsheet_safe=config.spreadsheet_safe)
    start_s = time.monotonic()
    expected = max(info.num_frames or round(info.duration_s * info.rate_hz), 1)
    width = height = 0
    end_s = 0.0
    with contextlib.closing(analyser), Progress(expected, "run_model", "frame") as progress:

        def annotated() -> Iterator[Frame]:
            nonlocal width, height, end_s
            for frame in iter_frames(path):
                if stop:
                    raise Stopped
                if frame.index == 0:
                    height, width = frame.image.shape[:2]
                if frame.image.shape[:2] != (height, width):
                    raise UserError(f"{path}: the size of its pictures changes; convert it to one size first")
                faces = analyser.analyse(frame.image, frame.time_s, is_film=True)
                log.add(frame.index, frame.time_s, faces)
                image = annotator.draw(frame.image, faces)
                viewer.show(image)
                progress.update()
                end_s = frame.time_s + frame.duration_s
                yield replace(frame, image=image)

        write_timed_video(target, annotated(), info, audio, audio_rate_hz)
    rate_hz = info.rate_hz or len(log.frames) / end_s
    seconds, has_sound = time.monotonic() - start_s, audio is not None
    # The writer repeats an odd last row or column.
    return log.write(
        target, width + width % 2, height + height % 2, rate_hz, end_s, seconds, has_sound=has_sound
    )


def _sound(path: Path, rate_hz: int, stop: StopFlag) -> Iterator[NDArray[np.float32]] | None:
    """The sound of a video in blocks, until it stops; None, with a warning, where it cannot be read."""
    blocks = iter_audio(path, rate_hz)
    try:
        first = next(blocks, None)
    except MediaError as error:
        logger.warning(f"{error}: the annotated video has no sound")
        return None
    return None if first is None else _until_fault(first, blocks, stop)


def _until_fault(
    first: NDArray[np.float32], blocks: Iterator[NDArray[np.float32]], stop: StopFlag
) -> Iterator[NDArray[np.float32]]:
    """The sound up to where it cannot be read, with a warning."""
    yield first
    try:
        for block in blocks:
            if stop:
                raise Stopped
            yield block
    except MediaError as error:
        logger.warning(f"{error}: the sound of the annotated video ends there")
