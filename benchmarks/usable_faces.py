"""Measures which faces count as usable, and what the closer look at a doubtful one is right about.

    python benchmarks/usable_faces.py --data_dir data
    python benchmarks/usable_faces.py --data_dir data --detectors mediapipe yunet --every 1

Every third picture of `data/faces` and `data/emotion/images` (of $FACEVOX_TEST_DATA), reduced to 960 pixels:
as it is, turned by 180 degrees, darkened, brightened, blurred, and on a 720p picture with a face of 40 and 60
pixels. A box counts as right from an intersection over union of 0.4 with that of the detector in the large
picture. The bars were chosen on pictures of `data/faces`: those of `data/emotion/images` are of others. The
distance is the median cosine distance of `data/weights/MobileFaceNet.onnx` between a face and
itself before it was changed. Without the data nothing is measured.
Exit codes: 0; 1 a bar is missed; 2 bad usage.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.native_silence import native_silence
from facevox_demo.figures import Figure, add_data_option, print_figures, write_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lc_pytorch.faces.detectors import Candidate, Detector

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST_PX, LEAST_FACE_PX = 960, 90
SAME_IOU = 0.4


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/usable_faces.py --data_dir data")
    add_data_option(parser)
    parser.add_argument(
        "--detectors", nargs="+", default=["mediapipe", "opencv"], metavar="NAME", help="which detectors"
    )
    parser.add_argument("--every", type=cli.positive_int, default=3, help="take every n-th picture")
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def changes() -> dict[str, "Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]"]:
    """Ways to spoil a picture, given the side of its face in pixels."""
    import cv2

    def blurred(sigma: float) -> "Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]":
        return lambda image, side_px: np.asarray(
            cv2.GaussianBlur(image, (0, 0), sigma * side_px / 112), np.uint8
        )

    return {
        "dark, a quarter": lambda image, _: np.round(image * 0.25).astype(np.uint8),
        "dark, an eighth": lambda image, _: np.round(image * 0.12).astype(np.uint8),
        "dark, a 25th": lambda image, _: np.round(image * 0.04).astype(np.uint8),
        "bright, an eighth": lambda image, _: (255 - np.round((255.0 - image) * 0.12)).astype(np.uint8),
        "blurred by 1 of 112": blurred(1),
        "blurred by 2 of 112": blurred(2),
        "blurred by 3 of 112": blurred(3),
        "blurred by 5 of 112": blurred(5),
    }


def read_pictures(data_dir: Path, every: int) -> "list[NDArray[np.uint8]]":
    """The pictures, reduced.

    Raises:
        UserError: There are none.
    """
    import cv2

    from facevox.files import ImageError, read_image

    files = sorted([*data_dir.glob("faces/**/*.jpg"), *data_dir.glob("emotion/images/**/*.jpg")])[::every]
    pictures: list[NDArray[np.uint8]] = []
    for file in files:
        try:
            image = read_image(file)
        except ImageError:
            continue
        share = min(LONGEST_PX / max(image.shape[:2]), 1.0)
        if share < 1:
            image = np.asarray(
                cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), np.uint8
            )
        pictures.append(image)
    if not pictures:
        raise UserError(f"--data_dir {data_dir}: no pictures in faces/ and emotion/images/")
    return pictures


def in_order(image: "NDArray[np.uint8]", detector: "Detector") -> "NDArray[np.uint8]":
    """The picture with the detector's order of channels."""
    return image if detector.colour == "rgb" else np.ascontiguousarray(image[..., ::-1])


def best_face(image: "NDArray[np.uint8]", detector: "Detector", least: float) -> "Candidate | None":
    """The largest face of a picture."""
    from lc_pytorch.faces.usable import prominence

    return max(detector.search(in_order(image, detector), min_confidence=least), key=prominence, default=None)


def small_face(
    image: "NDArray[np.uint8]", box: Sequence[float], wanted_px: int
) -> "tuple[NDArray[np.uint8], tuple[float, ...]] | None":
    """The picture on a grey one of 1280 x 720, with a face of `wanted_px`; and the face's box."""
    import cv2

    share = wanted_px / box[2]
    small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    if small.shape[0] > 720 or small.shape[1] > 1280 or share > 1:
        return None
    canvas = np.full((720, 1280, 3), 110, np.uint8)
    top, left = (720 - small.shape[0]) // 2, (1280 - small.shape[1]) // 3
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    x, y, w, h = (side * share for side in box)
    return canvas, (left + x, top + y, w, h)


def embedder(data_dir: Path) -> "Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]":
    """A function from a picture and the five points of a face to its embedding of length one."""
    import onnxruntime

    from facevox.faces import align_five_points

    weights = data_dir / "weights" / "MobileFaceNet.onnx"
    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def embed(image: "NDArray[np.uint8]", points: "NDArray[np.float32]") -> "NDArray[np.float32]":
        face = align_five_points(image, points, 112).astype(np.float32)
        vector = np.asarray(
            session.run(None, {name: ((face - 127.5) / 127.5).transpose(2, 0, 1)[None]})[0][0]
        )
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

    return embed


def share(count: float, total: int) -> float:
    """A share of nothing is 0."""
    return count / max(total, 1)


def measure(data_dir: Path, name: str, every: int) -> Iterator[Figure]:
    """The figures of a detector."""
    from lc_pytorch.faces.detectors import make_detector
    from lc_pytorch.faces.options import MIN_CONFIDENCES
    from lc_pytorch.faces.usable import UPSIDE_DOWN, judge, overlap

    pictures, detector = read_pictures(data_dir, every), make_detector(name)
    least = MIN_CONFIDENCES[name]
    faces = [(image, best_face(image, detector, least)) for image in pictures]
    detected = [(image, face) for image, face in faces if face is not None]
    faults = [judge(in_order(image, detector), face, detector)[1] for image, face in detected]
    yield Figure(f"{name}, as it is: face found, of {len(pictures)}", share(len(detected), len(pictures)), "")
    yield Figure(f"{name}, as it is: counts as usable", share(faults.count(""), len(faults)), "", bar=0.95)
    yield Figure(f"{name}, as it is: said to be upside down", float(faults.count(UPSIDE_DOWN)), "")
    turned = [np.ascontiguousarray(image[::-1, ::-1]) for image in pictures]
    in_turned = [(image, face) for image in turned if (face := best_face(image, detector, least)) is not None]
    wrong = [not judge(in_order(image, detector), face, detector)[1] for image, face in in_turned]
    yield Figure(f"{name}, upside down: face detected", share(len(in_turned), len(turned)), "")
    yield Figure(f"{name}, upside down: counts as usable", share(sum(wrong), len(turned)), "")
    for wanted_px in (40, 60):
        num = before = after = 0
        for image, face in detected:
            made = small_face(image, face.box, wanted_px)
            small = best_face(made[0], detector, least) if made else None
            if made is None or small is None:
                continue
            num += 1
            before += overlap(small.box, made[1]) >= SAME_IOU
            after += overlap(judge(in_order(made[0], detector), small, detector)[0].box, made[1]) >= SAME_IOU
        yield Figure(
            f"{name}, faces of {wanted_px} pixels: right boxes at first, of {num}", share(before, num), ""
        )
        yield Figure(
            f"{name}, faces of {wanted_px} pixels: after the closer look", share(after, num), "", bar=0.85
        )
    large = [(image, face) for image, face in detected if min(face.box[2:]) >= LEAST_FACE_PX]
    embed = embedder(data_dir)
    for change, spoil in changes().items():
        kept, distances = 0, []
        for image, face in large:
            spoiled = spoil(image, face.box[2])
            # As they are judged: the confidence is that of the face before, so that the picture alone counts.
            kept += not judge(in_order(spoiled, detector), face, detector)[1]
            if np.isfinite(face.points).all():
                distances.append(1 - float(embed(image, face.points) @ embed(spoiled, face.points)))
        yield Figure(f"{name}, {change}: counts as usable", share(kept, len(large)), "")
        if distances:
            yield Figure(
                f"{name}, {change}: distance of the face from itself", float(np.median(distances)), ""
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if not (args.data_dir / "emotion" / "images").is_dir():
        print(f"{args.data_dir}: no emotion/images in it; nothing is measured")
        return ExitCode.DONE
    with native_silence():
        figures = [figure for name in args.detectors for figure in measure(args.data_dir, name, args.every)]
    print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if all(figure.is_met for figure in figures) else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
