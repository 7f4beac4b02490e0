"""The face of each video: the first frame that has one, its best face cut out as a picture.

Frames are tried in presentation order: the first 25 one after the other (a second at most rates), then
at a distance that grows by one frame with each try, so that 60 tries reach 689 frames (27 s) into a video
whose leader shows nobody. Nothing is decoded after the frame that has a face, and
there is no seeking: in long groups of pictures it decodes more frames than it skips.

The best face is the one with the largest product of area and confidence. The crop is DeepFace's: the
detector's box without a margin (`expand_percentage` widens it), with alignment turned about its centre
until the eyes are level, black where it reaches over the picture's edge.

`faces.csv` has a row for each face that was written and one for each video that failed:

| column | meaning |
|---|---|
| video | relative to the dataset folder |
| face_file | relative to the output folder |
| frame_index, time_s | of the frame, from 0, in presentation order |
| frame_width_px, frame_height_px | of the frame, upright |
| box_x_px … box_h_px | the face's box in the frame (DeepFace's facial_area) |
| left_eye_x_px … right_mouth_y_px | five landmarks in pixels of the crop; left as seen in the picture |
| landmark_source | detector, facemesh or average (see lc_pytorch.faces.detectors) |
| confidence | the detector's measure, 0 to 1 |
| sharpness | variance of the Laplacian of the grey crop at 112 x 112; larger is sharper |
| status, reason | done or failed, and why; for a frame written without a face, that it has none |
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facevox import cli
from facevox.batch import BatchConfig, BatchOptions, FileItem, Outcome, Summary, Task, run_batch
from facevox.errors import NoFaceError
from facevox.faces import measure_sharpness
from facevox.files import VIDEO_PATTERNS, find_files, relative_name, write_image
from facevox.media import Frame, changed_kinds, iter_frames
from facevox.naming import plan_names
from lc_pytorch.faces.crops import Eyes, FaceCrop, centre_square, cut_face, widen
from lc_pytorch.faces.detectors import Candidate, Detector, check_backend, make_detector
from lc_pytorch.faces.options import MIN_CONFIDENCES, FaceConfig
from lc_pytorch.faces.usable import FAULTS, UNSURE, judge_faces

PROGRAM = "extract_faces"
TABLE = "faces.csv"
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
LANDMARK_COLUMNS = tuple(f"{name}_{axis}_px" for name in LANDMARKS for axis in "xy")
COLUMNS = (
    "video",
    "face_file",
    "frame_index",
    "time_s",
    "frame_width_px",
    "frame_height_px",
    "box_x_px",
    "box_y_px",
    "box_w_px",
    "box_h_px",
    *LANDMARK_COLUMNS,
    "landmark_source",
    "confidence",
    "sharpness",
)
AGAIN_S = 1.0  # of the video, between two second looks that cost as much as the first or more
DENSE_TRIES = 25  # frames tried one after the other before the distance grows, which is ...
TRIED_RATE_HZ = 25.0  # ... in films of more frames a second by time: that of as many frames at this rate
JPEG_QUALITY = 95


@dataclass(frozen=True)
class VideoItem(FileItem):
    """A video; `reserved` are the numbers that its further faces must not have, because other videos do."""

    reserved: Sequence[int] = ()


def plan_faces(videos: Sequence[Path], root: Path) -> list[VideoItem]:
    """An item for each video with the names of its pictures, each name once.

    Two videos of one stem get a picture each, and a further face of `vid.mp4` is never called `vid_1.jpg`
    where a `vid_1.mp4` exists. Plan over the whole list, before it is split into shards.
    """
    names = [relative_name(path, root) for path in videos]
    targets = plan_names(names, ".jpg")
    numbers = _reserved_numbers({target.casefold() for target in targets})
    return [
        VideoItem(name, str(path), target, reserved=numbers.get(target.casefold(), ()))
        for name, path, target in zip(names, videos, targets, strict=True)
    ]


def extract_faces(
    config: FaceConfig,
    dataset_path: str | Path,
    output_dir: str | Path,
    video_extensions: Sequence[str] = VIDEO_PATTERNS,
    options: BatchOptions | None = None,
) -> Summary:
    """Extracts the faces of the videos below a folder.

    Args:
        config: How they are extracted.
        dataset_path: Folder of videos, searched recursively.
        output_dir: Folder for the pictures, the table and the manifest.
        video_extensions: Patterns of the videos' names.
        options: Workers, shards and so on.

    Raises:
        UserError: No videos, or the detector's packages or weights are missing.
    """
    root = Path(dataset_path)
    videos = find_files(
        root, video_extensions, [output_dir], what="--dataset_path", option="--video_extensions"
    )
    batch = BatchConfig(
        **(options or BatchOptions()).batch_options(),
        output_dir=Path(output_dir),
        program=PROGRAM,
        table=TABLE,
        columns=COLUMNS,
        item_column="video",
        settings=asdict(config),
        was_default={"min_confidence": 0.0},
        reads_media=True,
        unit="video",
    )
    return run_batch(FaceTask.for_workers(config, batch.workers), plan_faces(videos, root), batch)


def _reserved_numbers(targets: set[str]) -> dict[str, list[int]]:
    """For each target `a/vid.jpg` the numbers k of the targets that are called `a/vid_k.jpg`."""
    numbers: dict[str, list[int]] = {}
    for target in sorted(targets):
        stem, _, number = target.removesuffix(".jpg").rpartition("_")
        if f"{stem}.jpg" in targets and number.isascii() and number.isdigit() and number[0] != "0":
            numbers.setdefault(f"{stem}.jpg", []).append(int(number))
    return numbers


def further_names(output: str, reserved: Sequence[int]) -> Iterator[str]:
    """`vid_1.jpg`, `vid_2.jpg` … for `vid.jpg`, without the numbers in `reserved`."""
    path = PurePosixPath(output)
    for number in itertools.count(1):
        if number not in reserved:
            yield str(path.with_name(f"{path.stem}_{number}{path.suffix}"))


def tried_frames(max_frames: int) -> Iterator[int]:
    """The indexes of the frames to try: 0 to 24, then 26, 29, 33 … each step one longer."""
    index = 0
    for attempt in range(max_frames):
        yield index
        index += max(1, attempt + 3 - DENSE_TRIES)


class _Found(NamedTuple):
    """A frame and its faces, the best first; the fault of that one, and a reason for the table."""

    frame: Frame
    faces: list[Candidate]
    fault: str = ""
    reason: str = ""


class FaceTask(Task[VideoItem]):
    """Writes the best face of each video, or all of them, below the output folder.

    Args:
        config: How they are extracted.
        threads: Processor threads of the detector; more than one only where it has the machine to itself.
    """

    def __init__(self, config: FaceConfig, threads: int = 1) -> None:
        self.config = config
        self.threads = threads
        option = config.min_confidence
        self.min_confidence = MIN_CONFIDENCES[config.detector_backend] if option is None else option
        if option is None:
            self.detector = f"{config.detector_backend}, min_confidence {self.min_confidence:g}"
        self._detector: Detector | None = None

    @classmethod
    def for_workers(cls, config: FaceConfig, workers: int) -> "FaceTask":
        """A task whose detector leaves the other worker processes their cores."""
        return cls(config, threads=max(1, cli.num_cores() // max(1, workers)))

    def check(self) -> None:
        """Checks packages and weights of the detector before any worker starts; raises UserError."""
        check_backend(self.config.detector_backend)

    def open(self, output_dir: Path) -> None:
        """Loads the detector."""
        super().open(output_dir)
        self._detector = make_detector(self.config.detector_backend, self.threads)

    def close(self) -> None:
        """Closes the detector."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def changes(self, item: VideoItem) -> list[str]:
        """Kinds of pictures that were read otherwise."""
        return changed_kinds(item.path, pictures=True)

    def process(self, item: VideoItem) -> Outcome:
        """Finds and writes the face of a video.

        Raises:
            MediaError: The video cannot be read.
        """
        assert self._detector is not None, "open the task first"
        search = self._search(item.path, self._detector)
        frame, reason = search.frame, search.reason
        rows: list[dict[str, object]] = []
        outputs: list[str] = []
        names = further_names(item.output, item.reserved)
        for candidate in search.faces:
            name = next(names) if outputs else item.output
            row = self._write(frame, candidate, name)
            if row is not None:
                rows.append({"video": item.name, **row})
                outputs.append(name)
            if outputs and not self.config.all_faces:
                break
        if not outputs:
            reason = reason or "the detected face is outside of the picture"
            if self.config.enforce_detection:
                return Outcome.without_result(NoFaceError(reason))
            reason += ": middle square of the first frame written"
            rows = [{"video": item.name, **self._write_square(frame, item.output)}]
            outputs = [item.output]
        return Outcome(rows=rows, outputs=outputs, reason=reason)

    def _search(self, path: str, detector: Detector) -> _Found:
        """The first frame with a face that can be used and its faces, the best first.

        Without one: the frame of the least bad face; without any face: the first frame.
        """
        first: Frame | None = None
        fallback: _Found | None = None
        num_tried = num_unsure = 0
        again_s = -math.inf
        is_whole = True
        tries = tried_frames(self.config.max_frames)
        next_index = next(tries)
        for frame in iter_frames(path, colour=detector.colour):
            first = first or frame
            last_s = frame.time_s
            # By number and, after the first ones, by time: else films of many frames a second end early.
            is_early = num_tried >= DENSE_TRIES and frame.time_s < next_index / TRIED_RATE_HZ - 1e-6
            if frame.index < next_index or is_early:
                continue
            num_tried += 1
            # The second look without the border costs less than the first, and is always taken.
            has_border = self.config.align_faces
            is_due = (has_border and detector.has_fixed_input) or frame.time_s >= again_s
            candidates = detector.search(
                frame.image, has_border, self.min_confidence, with_second_look=is_due
            )
            if candidates:
                faces, fault = judge_faces(frame.image, candidates, detector)
                if not fault:
                    return _Found(frame, faces)
                if fault == UNSURE:
                    num_unsure += 1
                elif fallback is None or FAULTS.index(fault) > FAULTS.index(fallback.fault):
                    fallback = _Found(frame, faces, fault)
            if is_due:
                again_s = frame.time_s + AGAIN_S
            following = next(tries, None)
            if following is None:
                is_whole = False
                break
            next_index = following
        assert first is not None, "iter_frames gives a frame or raises"
        plural = "" if num_tried == 1 else "s"
        reach = "the whole video" if is_whole else f"the first {last_s:.1f} s; --max_frames reaches further"
        tried = f"in {num_tried} frame{plural} tried ({reach})"
        if fallback is None:
            unsure = f"; in {num_unsure} something that is hardly a face" if num_unsure else ""
            return _Found(first, [], reason=f"no face {tried}{unsure}")
        return fallback._replace(reason=f"the face is {fallback.fault}; no better one {tried}")

    def _write(self, frame: Frame, candidate: Candidate, name: str) -> dict[str, object] | None:
        """Cuts a face out and writes it; its row, or None where nothing of it is inside the picture."""
        detector = self._detector
        assert detector is not None
        image, align = frame.image, self.config.align_faces
        size = (image.shape[1], image.shape[0])
        box = widen(candidate.box, size, align, self.config.expand_percentage)
        points, source = detector.landmarks(image, candidate)
        eyes = candidate.eyes
        if align and eyes is None:
            # FaceMesh's eyes are better than those of DeepFace's cascade; see `detectors`.
            has_mesh = source == "facemesh"
            eyes = _eyes_of(points) if has_mesh else detector.find_eyes(image, candidate, box)
        crop = cut_face(image, box, eyes, align=align)
        if crop is None:
            return None
        row = self._write_crop(frame, crop, name)
        in_crop = np.round(crop.to_crop(points).astype(np.float64), 2).reshape(-1)
        row |= dict(zip(LANDMARK_COLUMNS, in_crop.tolist(), strict=True))
        return row | {"landmark_source": source, "confidence": round(candidate.confidence, 4)}

    def _write_square(self, frame: Frame, name: str) -> dict[str, object]:
        return self._write_crop(frame, centre_square(frame.image), name)

    def _write_crop(self, frame: Frame, crop: FaceCrop, name: str) -> dict[str, object]:
        assert self._detector is not None
        image_rgb = crop.image if self._detector.colour == "rgb" else crop.image[..., ::-1]
        # Not synced: a resumed run checks sizes by the manifest, and syncing costs more than the detector.
        write_image(self.output_dir / name, image_rgb, JPEG_QUALITY, sync=False)
        row: dict[str, object] = {
            "face_file": name,
            "frame_index": frame.index,
            "time_s": round(frame.time_s, 4),
        }
        row |= {"frame_width_px": frame.image.shape[1], "frame_height_px": frame.image.shape[0]}
        names = ("box_x_px", "box_y_px", "box_w_px", "box_h_px")
        row |= dict(zip(names, crop.box, strict=True))
        return row | {"sharpness": round(measure_sharpness(image_rgb), 2)}


def _eyes_of(points: NDArray[np.float32]) -> Eyes:
    (left_x, left_y), (right_x, right_y) = points[:2].tolist()
    return (left_x, left_y), (right_x, right_y)
