"""A video file: every frame analysed, annotated, written with the sound, shown in a window."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.live.annotation import RunConfig
from emotion.live.face_log import AnnotatedVideo, FaceLog
from emotion.live.viewer import Viewer
from facevox.errors import UserError
from facevox.media import MediaError, iter_frames, probe, read_audio, read_first_frame, write_video
from facevox.naming import plan_names
from facevox.progress import Progress
from facevox.signals import StopFlag

logger = logging.getLogger(__name__)
MAX_RATE_HZ = 60.0  # of an annotated video; videos that claim more (some headers say 1000) get this
DEFAULT_RATE_HZ = 25.0  # where the headers have none
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class Stopped(Exception):
    """A stop signal came in the middle of a video; nothing of it was written."""


def annotate_video(
    path: Path, output_dir: Path, config: RunConfig, stop: StopFlag, viewer: Viewer
) -> AnnotatedVideo:
    """Writes `<name>.mp4` with boxes, bars and the sound (mixed to mono), `<name>.csv` and `<name>.json`.

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
    rate_hz = min(info.rate_hz or DEFAULT_RATE_HZ, MAX_RATE_HZ)
    audio_rate_hz = info.audio_rate_hz if info.audio_rate_hz in AAC_RATES_HZ else 44100
    audio = _sound(path, audio_rate_hz) if info.has_audio else None
    classifier, analyser, annotator = config.open()
    names = classifier.class_names
    target = output_dir / plan_names([path.name], ".mp4")[0]
    log = FaceLog(names)
    start_s = time.monotonic()
    expected = max(round(info.duration_s * rate_hz), 1)
    with contextlib.closing(analyser), Progress(expected, "run_model", "frame") as progress:

        def annotated() -> Iterator[NDArray[np.uint8]]:
            shape: tuple[int, ...] = ()
            for frame in iter_frames(path, rate_hz=rate_hz):
                if stop:
                    raise Stopped
                shape = shape or frame.image.shape
                if frame.image.shape != shape:
                    raise UserError(f"{path}: the size of its pictures changes; convert it to one size first")
                faces = analyser.analyse(frame.image, frame.time_s)
                log.add(frame.index, frame.time_s, faces)
                image = annotator.draw(frame.image, faces)
                viewer.show(image)
                progress.update()
                yield image

        write_video(target, annotated(), rate_hz, audio, audio_rate_hz)
    seconds, has_sound = time.monotonic() - start_s, audio is not None
    return log.write(target, info.width, info.height, rate_hz, seconds, has_sound=has_sound)


def _sound(path: Path, rate_hz: int) -> NDArray[np.float32] | None:
    """The sound of a video; None, with a warning, where it cannot be read."""
    try:
        return read_audio(path, rate_hz)
    except MediaError as error:
        logger.warning(f"{error}: the annotated video has no sound")
        return None
