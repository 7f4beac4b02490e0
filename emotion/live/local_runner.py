"""Pictures, videos and the webcam on this machine: analysed, annotated, written or shown in a window."""

import contextlib
import csv
import io
import itertools
import logging
import os
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

from facevox.batch import FileItem, Outcome, Task
from facevox.errors import UserError
from facevox.files import IMAGE_PATTERNS, find_files, relative_name, write_json, write_text
from facevox.naming import plan_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emotion.live.analysis import Classifier, FaceAnalyser
    from emotion.live.annotation import Annotator
    from emotion.live.face_tracks import Face, FrameAnswer
    from facevox.signals import StopFlag

logger = logging.getLogger(__name__)
WINDOW = "facevox"
CLOSING_KEYS = (ord("q"), ord("Q"), 27)  # 27: Escape
KEY_WAIT_MS = 1
MAX_RATE_HZ = 60.0  # of an annotated video; what claims more (some headers say 1000) is shown at this
DEFAULT_RATE_HZ = 25.0  # where the headers do not say
WEBCAM_RATE_HZ = 15.0  # of a recording: what two cores analyse with several faces, with some room
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
FACE_COLUMNS = ("face", "label", "left", "top", "width", "height")


class Stopped(Exception):
    """A stop signal came in the middle of a video; nothing of it was written."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How pictures are analysed and annotated.

    Attributes:
        model_file: The exported `.tflite`.
        max_faces: Looked for in a picture.
        language: Of the labels in the pictures.
    """

    model_file: Path
    max_faces: int
    language: str

    def open(self) -> "tuple[Classifier, FaceAnalyser, Annotator]":
        """The model, the face finder with it, and what draws; of one thread."""
        from emotion.live.analysis import Classifier, FaceAnalyser
        from emotion.live.annotation import Annotator

        classifier = Classifier(self.model_file)
        analyser = FaceAnalyser(classifier, max_faces=self.max_faces)
        return classifier, analyser, Annotator(classifier.class_names, self.language)


def has_screen(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a window can be opened. Without a screen OpenCV's window functions end the whole process."""
    if sys.platform == "darwin":
        return not environ.get("SSH_CONNECTION")
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


class Viewer:
    """A window where there is a screen, and nothing where there is none; a context manager.

    Attributes:
        is_open: False without a screen, and once somebody closed it (q, Escape).
    """

    def __init__(self, is_wanted: bool = True) -> None:
        self.is_open = is_wanted and has_screen()

    def show(self, image_rgb: "NDArray[np.uint8]", wait_ms: int = KEY_WAIT_MS) -> None:
        """Shows an (H, W, 3) uint8 RGB picture; `wait_ms` of 0 waits for a key."""
        if not self.is_open:
            return
        import cv2

        try:
            cv2.imshow(WINDOW, image_rgb[..., ::-1])
            if cv2.waitKey(wait_ms) & 0xFF in CLOSING_KEYS:
                self.close()
        except cv2.error:  # this build of OpenCV has no windows
            logger.warning("OpenCV opens no window here; going on without")
            self.is_open = False

    def close(self) -> None:
        """Closes the window; calling it twice does no harm."""
        if self.is_open:
            import cv2

            self.is_open = False
            with contextlib.suppress(cv2.error):
                cv2.destroyWindow(WINDOW)

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def face_columns(class_names: Sequence[str]) -> tuple[str, ...]:
    """The columns of a face: place, then the probabilities of its picture, then the smoothed ones."""
    return (*FACE_COLUMNS, *class_names, *(f"{name}_smoothed" for name in class_names))


def face_row(face: "Face", class_names: Sequence[str]) -> dict[str, object]:
    """A face as a row of `face_columns`; pixels and shares."""
    left, top, width, height = (round(float(edge), 1) for edge in face.box)
    own = {name: round(float(p), 4) for name, p in zip(class_names, face.probabilities, strict=True)}
    smoothed = {
        f"{name}_smoothed": round(float(p), 4) for name, p in zip(class_names, face.smoothed, strict=True)
    }
    place = {"left": left, "top": top, "width": width, "height": height}
    return {"face": face.track_id, "label": class_names[face.best], **place, **own, **smoothed}


class Made(TypedDict):
    """The files of a video (paths), and what is in them; `faces` counts tracks."""

    video: str
    table: str
    about: str
    frames: int
    faces: int
    seconds: float
    has_sound: bool


def plan_pictures(path: Path, output_dir: Path) -> list[FileItem]:
    """An item for a picture, or for each picture below a folder; `output` is the annotated one.

    Raises:
        UserError: No such file or folder, no picture in it, or the file is none.
    """
    from facevox.files import read_image

    if path.is_dir():
        files, root = find_files(path, IMAGE_PATTERNS, [output_dir], what="INPUT_PATH"), path
    else:
        read_image(path)  # one picture by itself: what is wrong with it is told at once
        files, root = [path], path.parent
    names = [relative_name(file, root) for file in files]
    outputs = plan_names(names, ".jpg")
    return [
        FileItem(name, str(file), output) for name, file, output in zip(names, files, outputs, strict=True)
    ]


class PictureTask(Task[FileItem]):
    """Writes `<picture>.jpg` with boxes and bars, and `<picture>.json`, for each picture.

    Args:
        config: How.
        viewer: Shows them as well.
        wait_ms: How long each stays; 0: until a key is pressed.
    """

    def __init__(self, config: RunConfig, viewer: Viewer, wait_ms: int = KEY_WAIT_MS) -> None:
        self.config = config
        self.viewer = viewer
        self.wait_ms = wait_ms

    def open(self, output_dir: Path) -> None:
        """Loads the model."""
        super().open(output_dir)
        self.classifier, self.analyser, self.annotator = self.config.open()

    def process(self, item: FileItem) -> Outcome:
        """Analyses a picture by itself; one without a face is done as well, with a row that has no face.

        Raises:
            ImageError: Not a readable picture.
        """
        from emotion.live.face_tracks import face_json
        from facevox.files import read_image, write_image

        image = read_image(item.path)
        self.analyser.reset()
        faces = self.analyser.analyse(image, 0.0)
        # Tracks are numbered on and on; in a picture by itself the faces are the first, the second …
        faces = [replace(face, track_id=number) for number, face in enumerate(faces, start=1)]
        annotated = self.annotator.draw(image, faces)
        picture = item.output
        about = str(Path(picture).with_suffix(".json"))
        names = self.classifier.class_names
        write_image(self.output_dir / picture, annotated, sync=False)
        write_json(
            self.output_dir / about,
            {
                "kind": "image",
                "width": image.shape[1],
                "height": image.shape[0],
                "classes": list(names),
                "faces": [face_json(face, names) for face in faces],
            },
        )
        self.viewer.show(annotated, self.wait_ms)
        first: dict[str, object] = {"picture": item.name, "annotated": picture}
        rows = [first | face_row(face, names) for face in faces] or [first]
        return Outcome(rows=rows, outputs=[picture, about])

    def close(self) -> None:
        """Gives the face finder back."""
        self.analyser.close()


def annotate_video(path: Path, output_dir: Path, config: RunConfig, stop: "StopFlag", viewer: Viewer) -> Made:
    """Writes `<name>.mp4` with boxes, bars and the sound (mixed to mono), `<name>.csv` and `<name>.json`.

    Args:
        path: The video.
        output_dir: Where.
        config: How.
        stop: Ends it between two frames.
        viewer: Shows the frames as they are done.

    Raises:
        MediaError: Not a video that can be read.
        Stopped: A signal came; no file was written or replaced.
    """
    from facevox.media import iter_frames, probe, read_first_frame, write_video
    from facevox.progress import Progress

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

        def annotated() -> "Iterator[NDArray[np.uint8]]":
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
    table, about = target.with_suffix(".csv"), target.with_suffix(".json")
    log.write(table, about, info.width, info.height, rate_hz)
    return _made(target, log, time.monotonic() - start_s, has_sound=audio is not None)


def _sound(path: Path, rate_hz: int) -> "NDArray[np.float32] | None":
    """The sound of a video, or None with a line that says so where it cannot be read."""
    from facevox.media import MediaError, read_audio

    try:
        return read_audio(path, rate_hz)
    except MediaError as error:
        logger.warning(f"{error}: the annotated video has no sound")
        return None


def camera_frames(number: int) -> "Generator[NDArray[np.uint8], None, None]":
    """The pictures of a webcam, (H, W, 3) uint8 RGB, as they come.

    Raises:
        UserError: There is no such camera, or it gives no picture.
    """
    import cv2
    import numpy as np

    from facevox.native_silence import native_silence

    with native_silence():  # OpenCV writes several lines about each way in which it could not be opened
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


def show_webcam(number: int, config: RunConfig, stop: "StopFlag", viewer: Viewer) -> int:
    """Shows the webcam with boxes and bars until the window is closed; writes nothing. Returns the frames.

    Raises:
        UserError: No such camera.
    """
    count = 0
    with contextlib.closing(camera_frames(number)) as images:
        first = next(images)  # before the model is loaded
        _, analyser, annotator = config.open()
        with contextlib.closing(analyser):
            for image in itertools.chain([first], images):
                mirrored = image[:, ::-1]  # as people know themselves; drawn after it, text reads well
                viewer.show(annotator.draw(mirrored, analyser.analyse(mirrored)))
                count += 1
                if stop or not viewer.is_open:
                    break
    return count


def record_webcam(
    number: int, output_dir: Path, config: RunConfig, stop: "StopFlag", duration_s: float
) -> Made:
    """Writes the webcam with boxes and bars as `webcam_<date>_<time>.mp4`, `.csv` and `.json`.

    A signal ends the recording early; what there is of it is kept.

    Raises:
        UserError: No such camera.
    """
    from facevox.media import write_video
    from facevox.progress import Progress

    target = output_dir / time.strftime("webcam_%Y%m%d_%H%M%S.mp4")
    with contextlib.closing(camera_frames(number)) as images:
        first = next(images)
        classifier, analyser, annotator = config.open()
        log = FaceLog(classifier.class_names)
        total = max(round(duration_s * WEBCAM_RATE_HZ), 1)
        start_s = time.monotonic()
        with contextlib.closing(analyser), Progress(total, "run_model", "frame") as progress:

            def annotated() -> "Iterator[NDArray[np.uint8]]":
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
    table, about = target.with_suffix(".csv"), target.with_suffix(".json")
    log.write(table, about, width, height, WEBCAM_RATE_HZ)
    return _made(target, log, time.monotonic() - start_s, has_sound=False)


def _made(target: Path, log: "FaceLog", seconds: float, *, has_sound: bool) -> Made:
    return {
        "video": str(target),
        "table": str(target.with_suffix(".csv")),
        "about": str(target.with_suffix(".json")),
        "frames": len(log.frames),
        "faces": log.num_tracks,
        "seconds": round(seconds, 2),
        "has_sound": has_sound,
    }


class FaceLog:
    """The faces of a video or camera, frame by frame, as a table and as JSON."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = class_names
        self.frames: list[FrameAnswer] = []
        self._text = io.StringIO()
        self._writer = csv.DictWriter(self._text, ("frame", "time_s", *face_columns(class_names)))
        self._writer.writeheader()

    @property
    def num_tracks(self) -> int:
        """How many faces there were, each counted once as long as it stayed."""
        return len({face["id"] for frame in self.frames for face in frame["faces"]})

    def add(self, index: int, time_s: float, faces: "Sequence[Face]") -> None:
        """The faces of one frame; a frame without any has a row without a face."""
        from emotion.live.face_tracks import face_json

        first = {"frame": index, "time_s": round(time_s, 3)}
        self._writer.writerows([first | face_row(face, self._names) for face in faces] or [first])
        self.frames.append(
            {"time_s": round(time_s, 3), "faces": [face_json(face, self._names) for face in faces]}
        )

    def write(self, table: Path, about: Path, width: int, height: int, rate_hz: float) -> None:
        """Writes both files, each whole."""
        write_text(table, self._text.getvalue())
        value = {
            "kind": "video",
            "width": width,
            "height": height,
            "fps": round(rate_hz, 3),
            "duration_s": round(len(self.frames) / rate_hz, 3),
            "classes": list(self._names),
            "frames": self.frames,
        }
        write_json(about, value)
