"""The webcam: its pictures analysed, annotated, and shown in a window or recorded."""

import contextlib
import itertools
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.live.annotation import RunConfig
from emotion.live.face_log import AnnotatedVideo, FaceLog
from emotion.live.viewer import Viewer
from facevox.errors import UserError
from facevox.media import write_video
from facevox.native_silence import native_silence
from facevox.progress import Progress
from facevox.signals import StopFlag

WEBCAM_RATE_HZ = 15.0  # of a recording: two cores analyse this many frames with several faces, with some room


def camera_frames(number: int) -> Generator[NDArray[np.uint8], None, None]:
    """The pictures of a webcam, (H, W, 3) uint8 RGB, as they come.

    Raises:
        UserError: There is no such camera, or it gives no picture.
    """
    with native_silence():  # OpenCV writes several lines about each interface that it tried in vain
        camera = cv2.VideoCapture(number)
        image = np.zeros((0, 0, 3), np.uint8)
        is_open = camera.isOpened()
        if is_open:
            is_open, image = camera.read()
    try:
        if not is_open:
            raise UserError(
                f"--camera {number}: no webcam with this number gives a picture (in a container: "
                "docker run --device /dev/video0); for files use --test_mode image or video"
            )
        while is_open:
            yield np.ascontiguousarray(image[..., ::-1])
            is_open, image = camera.read()
    finally:
        camera.release()


def show_webcam(number: int, config: RunConfig, stop: StopFlag, viewer: Viewer) -> int:
    """Shows the webcam with boxes and bars until the window is closed; writes nothing. Returns their number.

    Raises:
        UserError: No such camera.
    """
    count = 0
    with contextlib.closing(camera_frames(number)) as images:
        first = next(images)  # before the model is loaded
        _, analyser, annotator = config.open()
        with contextlib.closing(analyser):
            for image in itertools.chain([first], images):
                mirrored = image[:, ::-1]  # as in a mirror; drawn afterwards, so that text is not mirrored
                viewer.show(annotator.draw(mirrored, analyser.analyse(mirrored)))
                count += 1
                if stop or not viewer.is_open:
                    break
    return count


def record_webcam(
    number: int, output_dir: Path, config: RunConfig, stop: StopFlag, duration_s: float
) -> AnnotatedVideo:
    """Writes the webcam with boxes and bars as `webcam_<date>_<time>.mp4`, `.csv` and `.json`.

    A signal ends the recording early; the files have the frames so far.

    Raises:
        UserError: No such camera.
    """
    target = output_dir / time.strftime("webcam_%Y%m%d_%H%M%S.mp4")
    with contextlib.closing(camera_frames(number)) as images:
        first = next(images)
        classifier, analyser, annotator = config.open()
        log = FaceLog(classifier.class_names, spreadsheet_safe=config.spreadsheet_safe)
        total = max(round(duration_s * WEBCAM_RATE_HZ), 1)
        start_s = time.monotonic()
        with contextlib.closing(analyser), Progress(total, "run_model", "frame") as progress:

            def annotated() -> Iterator[NDArray[np.uint8]]:
                for image in itertools.chain([first], images):
                    now_s = time.monotonic() - start_s
                    faces = analyser.analyse(image, now_s)
                    drawn = annotator.draw(image, faces)
                    # The file's clock is even, the camera's is not: each picture stays until its successor.
                    until = min(int((time.monotonic() - start_s) * WEBCAM_RATE_HZ) + 1, total)
                    for index in range(progress.count, until):
                        log.add(index, index / WEBCAM_RATE_HZ, faces)
                        progress.update()
                        yield drawn
                    if stop or progress.count >= total:
                        return

            write_video(target, annotated(), WEBCAM_RATE_HZ)
    height, width = first.shape[:2]
    duration_s, seconds = len(log.frames) / WEBCAM_RATE_HZ, time.monotonic() - start_s
    return log.write(target, width, height, WEBCAM_RATE_HZ, duration_s, seconds, has_sound=False)
