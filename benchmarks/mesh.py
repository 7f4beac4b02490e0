"""Measures FaceMesh against mediapipe 0.10.21, whose network it runs: points, faces, time, start, memory.

    python benchmarks/mesh.py
    python benchmarks/mesh.py --reference points.npz --data_dir data     # against points that were stored
    python benchmarks/mesh.py --store points.npz --data_dir data         # stores them

Still pictures are the two public-domain portraits, whole, turned, at the edge, small, two and four together,
and the pictures in faces/ of the folder of real data; clips are those in its talking/. The kept reference has
the portraits and the clips that its MANIFEST.csv allows for training; points of other people do not belong
into the repository. Points are stored where mediapipe 0.10.21 is installed. Distances are the median over a
face's points, in distances between its outer eye corners.
Processor time is compared only where mediapipe 0.10.21 is installed: each frame is given to both in turn, one
thread each, decoding not counted. Start is a new process: imports, construction and the first picture.
Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage.
"""

import argparse
import csv
import importlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.files import replacing
from facevox_demo.figures import Figure, add_data_option, print_figures, write_figures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.uint8]
    Faces = list[NDArray[np.float32]]

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = REPOSITORY / "tests" / "facevox" / "mesh" / "mediapipe_points.npz"
MEDIAPIPE = "0.10.21"
STEPS_PER_PX = 32  # points are stored as whole numbers, which is a hundredth of the bars
NO_FACE = np.iinfo(np.int32).min
MAX_FACES = 4  # of a still picture; a clip has its first face followed
LEFT_EYE_CORNER, RIGHT_EYE_CORNER = 33, 263
STILL_MEDIAN_BAR, STILL_P95_BAR = 0.003, 0.01
CLIPS_MEDIAN_BAR, CLIP_WORST_BAR = 0.005, 0.008
ALIKE_BAR = 0.99
LIPS_TIME_BAR, ALL_TIME_BAR = 0.6, 0.8
WARM_UP = 5  # frames of each clip that are not timed


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/mesh.py --store points.npz --data_dir data")
    parser.add_argument("--reference", type=Path, default=REFERENCE, metavar="FILE", help="stored points")
    add_data_option(parser)
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="store mediapipe's points instead (default: compare)"
    )
    parser.add_argument("--all", action="store_true", help="store other people's clips and pictures too")
    parser.add_argument("--num_frames", type=cli.positive_int, default=60, help="first frames of each clip")
    parser.add_argument("--every", type=cli.positive_int, default=6, help="step between stored frames")
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def portraits() -> "dict[str, Image]":
    """Still pictures, (H, W, 3) uint8 RGB, that every machine has."""
    import cv2
    from matplotlib.cbook import get_sample_data
    from skimage.data import astronaut

    person: Image = astronaut()
    bgr = cv2.imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    officer = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    head = np.ascontiguousarray(person[0:256, 96:352])
    other = cv2.resize(officer[40:380, 80:420], (256, 256), interpolation=cv2.INTER_AREA)
    small = np.full_like(person, 90)
    small[150:352, 250:452] = cv2.resize(person, (202, 202), interpolation=cv2.INTER_AREA)
    pictures = {
        "astronaut": person,
        "officer": officer,
        "half": person[::2, ::2],
        "face alone": np.ascontiguousarray(person[50:190, 150:290]),
        "left edge": np.ascontiguousarray(person[:, 215:]),
        "right edge": np.ascontiguousarray(person[:, :235]),
        "upper edge": np.ascontiguousarray(person[95:]),
        "lower edge": np.ascontiguousarray(person[:150]),
        "small": small,
        "two": np.concatenate([head, other], axis=1),
        "four": np.block([[[head], [other]], [[other[:, ::-1]], [head[:, ::-1]]]]),
        "nobody": np.ascontiguousarray(person[300:]),
    }
    for degrees in (-90, -45, -20, 15, 30, 60, 90, 180):
        turn = cv2.getRotationMatrix2D((224, 115), degrees, 1.0)
        turn[:, 2] += (32, 141)
        pictures[f"turned {degrees}"] = cv2.warpAffine(
            person, turn, (512, 512), borderMode=cv2.BORDER_REFLECT
        )
    return pictures


def clip_files(data_dir: Path, with_all: bool) -> list[str]:
    """Clips below `data_dir`, with its names; none where it is not there."""
    manifest = data_dir / "MANIFEST.csv"
    if not manifest.is_file():
        return []
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    clips = [row for row in rows if row["file"].startswith("talking/")]
    return sorted(row["file"] for row in clips if with_all or row["may_train"] == "yes")


def picture_files(data_dir: Path) -> list[str]:
    """Pictures of faces below `data_dir`, with its names."""
    return sorted(
        str(path.relative_to(data_dir))
        for path in data_dir.glob("faces/*/*/*")
        if path.suffix in (".jpg", ".jpeg", ".png")
    )


def read_picture(path: Path) -> "Image":
    """(H, W, 3) uint8 RGB."""
    import cv2

    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path}: no picture")
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def read_frames(path: Path, num_frames: int) -> "Iterator[Image]":
    """The first frames of a clip, (H, W, 3) uint8 RGB."""
    from facevox.media.container import open_media

    with open_media(path) as container:
        for frame in itertools.islice(container.decode(video=0), num_frames):
            image: Any = frame.to_ndarray(format="rgb24")  # of any type of pixel, as its stubs have it
            yield image


class MediaPipeMesh:
    """FaceMesh of mediapipe 0.10.21, with `find` like ours; mediapipe is no dependency of facevox.

    Raises:
        ImportError: It is not installed, or another version is.
    """

    def __init__(self, static: bool, max_faces: int) -> None:
        # None keeps TensorFlow out, which mediapipe would import.
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
        mediapipe: Any = importlib.import_module("mediapipe")
        if mediapipe.__version__ != MEDIAPIPE:
            raise ImportError(f"mediapipe is {mediapipe.__version__}, compared is {MEDIAPIPE}")
        self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
            static_image_mode=static, max_num_faces=max_faces, refine_landmarks=True
        )

    def find(self, image_rgb: "Image") -> "Faces":
        """The faces of a picture, each as (478, 3) in pixels."""
        height, width = image_rgb.shape[:2]
        faces = self._mesh.process(np.ascontiguousarray(image_rgb)).multi_face_landmarks or []
        scale = np.array([width, height, width], np.float32)
        return [np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32) * scale for face in faces]


def packed(faces: "Faces", most: int) -> "NDArray[np.int32]":
    """(most, 478, 3) whole numbers; NO_FACE where there are fewer faces."""
    stored = np.full((most, 478, 3), NO_FACE, np.int32)
    for index, face in enumerate(faces):
        stored[index] = np.round(face * STEPS_PER_PX)
    return stored


def unpacked(stored: "NDArray[np.int32]") -> "Faces":
    """The faces of `packed`."""
    return [(face / STEPS_PER_PX).astype(np.float32) for face in stored if face[0, 0] != NO_FACE]


def store(args: argparse.Namespace) -> None:
    """Writes mediapipe's points of pictures and clips to `args.store`."""
    still = MediaPipeMesh(static=True, max_faces=MAX_FACES)
    stored: dict[str, Any] = {}  # arrays; numpy's stub takes each name for allow_pickle's
    for name, image in portraits().items():
        stored[f"still|{name}"] = packed(still.find(image), MAX_FACES)
    if args.all:
        for name in picture_files(args.data_dir):
            stored[f"still|{name}"] = packed(still.find(read_picture(args.data_dir / name)), MAX_FACES)
    for name in clip_files(args.data_dir, args.all):
        clip = MediaPipeMesh(static=False, max_faces=1)
        rows = [packed(clip.find(frame), 1) for frame in read_frames(args.data_dir / name, args.num_frames)]
        # Steps from row to row are small numbers, which pack well. NO_FACE wraps around, there and back.
        points = np.concatenate(rows[:: args.every])
        stored[f"clip {args.every}|{name}"] = np.diff(points, axis=0, prepend=np.zeros_like(points[:1]))
    with replacing(args.store) as file:
        np.savez_compressed(file, **stored)
    print(f"{args.store}: points of {len(stored)} pictures and clips")


def distance(face: "NDArray[np.float32]", reference: "NDArray[np.float32]") -> float:
    """Median distance of the points, in distances between the outer corners of the eyes."""
    eyes = np.linalg.norm(reference[LEFT_EYE_CORNER, :2] - reference[RIGHT_EYE_CORNER, :2])
    return float(np.median(np.linalg.norm(face[:, :2] - reference[:, :2], axis=1)) / eyes)


def distances(faces: "Faces", references: "Faces") -> list[float]:
    """Distance of each stored face to the nearest of `faces`."""
    return [min(distance(face, reference) for face in faces) for reference in references if faces]


class Agreement:
    """Distances to stored points, and in how many pictures and frames as many faces were found."""

    def __init__(self) -> None:
        self.stills: list[float] = []
        self.clips: dict[str, float] = {}  # median frame of each
        self.num_compared, self.num_alike, self.num_absent = 0, 0, 0

    def count(self, faces: "Faces", references: "Faces") -> list[float]:
        """Compares the faces of one picture."""
        self.num_compared += 1
        self.num_alike += len(faces) == len(references)
        return distances(faces, references)


def compare(reference: Path, data_dir: Path, make_mesh: Callable[..., Any] | None = None) -> Agreement:
    """Compares our points with stored ones; pictures and clips that are not there are counted as absent.

    Args:
        reference: File of `--store`.
        data_dir: Folder of real data.
        make_mesh: FaceMesh, or something like it.
    """
    from facevox.mesh.face_mesh import FaceMesh

    make_mesh = make_mesh or FaceMesh
    agreement, known = Agreement(), portraits()
    still = make_mesh(static=True, max_faces=MAX_FACES)
    with np.load(reference) as stored:
        for key in stored.files:
            kind, name = key.split("|", 1)
            file = data_dir / name
            if name not in known and not file.is_file():
                agreement.num_absent += 1
            elif kind == "still":
                image = known[name] if name in known else read_picture(file)
                agreement.stills += agreement.count(still.find(image), unpacked(stored[key]))
            else:
                rows, every = np.cumsum(stored[key], axis=0, dtype=np.int32), int(kind.split()[1])
                mesh, frames = make_mesh(static=False), []
                for index, image in enumerate(read_frames(file, (len(rows) - 1) * every + 1)):
                    faces = mesh.find(image)
                    if index % every == 0:
                        row = unpacked(rows[index // every : index // every + 1])
                        frames += agreement.count(faces, row)
                if frames:
                    agreement.clips[name] = float(np.median(frames))
    return agreement


def agreement_figures(agreement: Agreement) -> list[Figure]:
    """The bars of the points."""

    def upper(name: str, value: float, bar: float) -> Figure:
        return Figure(name, value, "eyes", bar=bar, is_better_higher=False, is_comparable=False)

    stills, clips = agreement.stills, list(agreement.clips.values())
    figures = [
        upper(f"{len(stills)} still faces: median distance", float(np.median(stills)), STILL_MEDIAN_BAR),
        upper("still faces: distance of 95 in 100", float(np.percentile(stills, 95)), STILL_P95_BAR),
    ]
    if clips:
        figures += [
            upper(
                f"{len(clips)} clips: median of their median frames",
                float(np.median(clips)),
                CLIPS_MEDIAN_BAR,
            ),
            upper("clips: the one that is farthest off", max(clips), CLIP_WORST_BAR),
        ]
    share = agreement.num_alike / agreement.num_compared
    return [*figures, Figure("pictures and frames with as many faces", share, bar=ALIKE_BAR)]


def moving_portrait(num_frames: int) -> "Iterator[Image]":
    """A clip that every machine has: the astronaut, swaying."""
    import cv2

    person = portraits()["astronaut"]
    for index in range(num_frames):
        shift = np.array([[1, 0, 8 * np.sin(index / 5)], [0, 1, 4 * np.cos(index / 7)]])
        yield cv2.warpAffine(person, shift, (512, 512), borderMode=cv2.BORDER_REPLICATE)


def time_figures(data_dir: Path, num_frames: int) -> list[Figure]:
    """Processor time of ours and mediapipe's, frame by frame in turn, summed over the clips."""
    import cv2

    from facevox.mesh.face_mesh import FaceMesh

    cv2.setNumThreads(1)
    clips: list[Iterator[Image]] = [
        read_frames(data_dir / name, num_frames) for name in clip_files(data_dir, with_all=True)
    ]
    seconds = {"mediapipe": 0.0, "all": 0.0, "lips": 0.0, "none": 0.0}
    count = 0
    for frames in clips or [moving_portrait(num_frames)]:
        meshes: dict[str, Any] = {heads: FaceMesh(False, heads=heads) for heads in ("all", "lips", "none")}
        try:
            meshes["mediapipe"] = MediaPipeMesh(static=False, max_faces=1)
        except ImportError as error:
            print(f"CPU time beside mediapipe left out: {error}")
            return []
        for index, image in enumerate(frames):
            for name, mesh in meshes.items():
                start_s = time.process_time()
                mesh.find(image)
                seconds[name] += time.process_time() - start_s if index >= WARM_UP else 0.0
            count += index >= WARM_UP
    figures = [
        Figure(f"CPU time of a frame, {name}", 1e3 * value / count, "ms", is_comparable=False)
        for name, value in seconds.items()
    ]
    for heads, bar in (("lips", LIPS_TIME_BAR), ("all", ALL_TIME_BAR)):
        ratio = seconds[heads] / seconds["mediapipe"]
        figures.append(
            Figure(f"CPU time beside mediapipe's, {heads}", ratio, "x", bar, is_better_higher=False)
        )
    return figures


START = """
import time
start_s = time.perf_counter()
import numpy as np
from facevox.mesh.face_mesh import FaceMesh
FaceMesh().find(np.zeros((256, 256, 3), np.uint8))
seconds = time.process_time(), time.perf_counter() - start_s
from facevox_demo.figures import peak_memory_gb
print(*seconds, 1000 * peak_memory_gb())
"""


def start_figures() -> list[Figure]:
    """Start and memory of a process that has FaceMesh alone, the best of three."""
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", START]
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        runs.append([float(value) for value in result.stdout.split()])
    cpu_s, wall_s, memory_mb = np.min(runs, axis=0).tolist()
    return [
        Figure("start of FaceMesh alone, CPU", cpu_s, "s", is_comparable=False),
        Figure("start of FaceMesh alone", wall_s, "s", is_comparable=False),
        Figure("memory of FaceMesh alone", memory_mb, "MB", is_comparable=False),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, or stores mediapipe's points; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.store:
        try:
            store(args)
        except ImportError as error:
            raise UserError(f"mediapipe {MEDIAPIPE} is needed to store its points: {error}") from error
        return ExitCode.DONE
    agreement = compare(args.reference, args.data_dir)
    for name, value in agreement.clips.items():
        print(f"{name:50} {value:.5f}")
    if agreement.num_absent:
        print(f"left out: {agreement.num_absent} clips and pictures that are not in {args.data_dir}")
    figures = agreement_figures(agreement)
    figures += time_figures(args.data_dir, args.num_frames) + start_figures()
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
