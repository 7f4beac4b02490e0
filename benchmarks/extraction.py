"""Measures face extraction against the plain loop over DeepFace and against its own lower bound.

    python benchmarks/extraction.py                      # 1,000 short videos, mediapipe and opencv
    python benchmarks/extraction.py --num_videos 200 --json figures.json

The videos are 1,000 links to 100 example videos of 512 x 512 pixels and two seconds.

For each detector, interleaved block by block in one run, milliseconds a video:
- plain: one process, cv2.VideoCapture reads the first frame, `DeepFace.extract_faces` with its default
  settings (align on; its backend mediapipe with facevox's network for all distances; OpenCV with all its
  threads);
- floor: two processes, each cv2.VideoCapture and DeepFace's bare detector client on the frame;
- ours: extract_faces.py's own task and runner with two workers, pictures and table written. Steady state
  is read off the times of the pictures written; start-up (spawn, imports) is the remainder, shown separately.
Also: on how many of 100 videos the box is DeepFace's own, for the frame as facevox reads it.

Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage or bad input.
"""

import argparse
import csv
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.files import find_files
from facevox_demo.deepface_mediapipe import fake_mediapipe
from facevox_demo.figures import Figure, print_figures, write_figures

REPOSITORY = Path(__file__).resolve().parent.parent
DETECTORS = ("mediapipe", "opencv")
FURTHER = ("yunet",)  # needs weights (make weights ONLY=yunet)
# Times faster than the plain loop, and over the floor. opencv has none: nearly all of it is OpenCV's cascade.
BARS = {"mediapipe": (2.0, 1.3)}
SAME_BOXES_BAR = 0.98  # mediapipe rounds one box in a hundred to the next pixel
WORKERS = 2
NUM_DISTINCT = 100
NUM_BOXES = 100
MIN_BLOCK = 20
WARM_UP = 4  # the first quarter of a block's pictures is not counted: workers begin at different times


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurements of one detector; times in milliseconds a video, medians over the blocks."""

    detector: str
    num_videos: int
    plain_ms: float
    floor_ms: float
    ours_ms: float
    startup_s: float
    same_boxes: int
    num_boxes: int

    @property
    def speedup(self) -> float:
        """Factor by which it is faster than the plain loop."""
        return self.plain_ms / self.ours_ms

    @property
    def over_floor(self) -> float:
        """Time as a multiple of decoding and the bare detector."""
        return self.ours_ms / self.floor_ms


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/extraction.py --num_videos 200 --json figures.json")
    parser.add_argument("--num_videos", type=cli.positive_int, default=1000, help="videos in all")
    parser.add_argument(
        "--num_blocks", type=cli.positive_int, default=5, help="blocks that they are split into"
    )
    parser.add_argument(
        "--size", type=cli.positive_int, default=512, help="side of the example videos to make, in pixels"
    )
    parser.add_argument(
        "--videos_dir", type=Path, help="existing short videos (default: example people are made)"
    )
    parser.add_argument(
        "--detectors", nargs="+", choices=(*DETECTORS, *FURTHER), default=DETECTORS, help="which"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures there (default: none)"
    )
    return parser


def serve(kind: str, backend: str, pipe: Any) -> None:
    """A measuring process: answers each list of videos with (seconds, boxes)."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # the libraries' own messages
        os.dup2(silence, descriptor)
    os.environ["DEEPFACE_BACKEND_ENGINE"] = "pytorch"
    if backend not in FURTHER:
        os.environ["DEEPFACE_HOME"] = tempfile.mkdtemp()
    os.environ |= {"MEDIAPIPE_MODEL_SELECTION": "1", "MEDIAPIPE_MIN_DETECTION_CONFIDENCE": "0.5"}
    import cv2

    from facevox.media import read_first_frame

    sys.modules["mediapipe"] = fake_mediapipe()
    from deepface import DeepFace
    from deepface.modules import modeling

    client = modeling.build_model(task="face_detector", model_name=backend)
    if kind == "floor":
        cv2.setNumThreads(1)

    def detect(path: str) -> list[int]:
        if kind == "boxes":
            image = read_first_frame(path, "rgb" if backend == "mediapipe" else "bgr").image
        else:
            image = cv2.VideoCapture(path).read()[1]
        if kind == "floor":
            client.detect_faces(image)
            return []
        try:
            faces = DeepFace.extract_faces(image, detector_backend=backend)
        except ValueError:  # no face
            return []
        areas = [face["facial_area"] for face in faces]
        best = max(range(len(faces)), key=lambda i: areas[i]["w"] * areas[i]["h"] * faces[i]["confidence"])
        return [int(areas[best][key]) for key in "xywh"]

    pipe.send("ready")
    while (paths := pipe.recv()) is not None:
        start_s = time.perf_counter()
        boxes = [detect(path) for path in paths]
        pipe.send((time.perf_counter() - start_s, boxes))


class Server:
    """A measuring process and the pipe to it."""

    def __init__(self, kind: str, backend: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(kind, backend, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def close(self) -> None:
        """Ends the process."""
        self.pipe.send(None)
        self.process.join()


def timed(servers: Sequence[Server], paths: Sequence[str]) -> float:
    """Seconds in which the servers do `paths` between them."""
    start_s = time.perf_counter()
    for index, server in enumerate(servers):
        server.pipe.send(list(paths[index :: len(servers)]))
    for server in servers:
        server.pipe.recv()
    return time.perf_counter() - start_s


def run_ours(videos_dir: Path, output_dir: Path, backend: str) -> tuple[float, float]:
    """Milliseconds a video in steady state, and seconds of start-up, of extract_faces on a folder."""
    script = REPOSITORY / "scripts" / "preprocessing" / "extract_faces.py"
    command = [
        sys.executable,
        str(script),
        "--dataset_path",
        str(videos_dir),
        "--output_dir",
        str(output_dir),
    ]
    command += ["--detector_backend", backend, "--workers", str(WORKERS)]
    begin_s = time.time()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode not in (0, 1):
        raise UserError(f"extract_faces.py failed: {process.stderr.strip()}")
    times_s = sorted(path.stat().st_mtime_ns / 1e9 for path in output_dir.rglob("*.jpg"))
    if len(times_s) < MIN_BLOCK:
        raise UserError(f"{videos_dir}: {len(times_s)} faces found; too few to measure")
    first = len(times_s) // WARM_UP
    steady_s = (times_s[-1] - times_s[first]) / (len(times_s) - 1 - first)
    return 1e3 * steady_s, times_s[0] - begin_s


def count_same_boxes(output_dir: Path, videos_dir: Path, backend: str) -> tuple[int, int]:
    """Numbers of videos with DeepFace's box in faces.csv (for the frame as facevox reads it), and of all."""
    with (output_dir / "faces.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["frame_index"] == "0"][:NUM_BOXES]
    server = Server("boxes", backend)
    server.pipe.send([str(videos_dir / row["video"]) for row in rows])
    _, boxes = server.pipe.recv()
    server.close()
    ours = [[int(row[f"box_{key}_px"]) for key in "xywh"] for row in rows]
    return sum(a == b for a, b in zip(ours, boxes, strict=True)), len(rows)


def measure(blocks: Sequence[Path], backend: str, work_dir: Path) -> Measured:
    """Measures one detector on all blocks of videos, the three ways in turn for each block."""
    plain, floor = [Server("plain", backend)], [Server("floor", backend) for _ in range(WORKERS)]
    times: dict[str, list[float]] = {"plain": [], "floor": [], "ours": [], "startup": []}
    output_dir = work_dir
    for index, block in enumerate(blocks):
        paths = sorted(str(path) for path in block.iterdir())
        if index == 0:
            for servers in (plain, floor):
                timed(servers, paths[:10])
        times["plain"].append(1e3 * timed(plain, paths) / len(paths))
        times["floor"].append(1e3 * timed(floor, paths) / len(paths))
        output_dir = work_dir / f"{backend}_{index}"
        steady_ms, startup_s = run_ours(block, output_dir, backend)
        times["ours"].append(steady_ms)
        times["startup"].append(startup_s)
        row = ", ".join(f"{name} {values[-1]:.2f}" for name, values in times.items())
        print(f"  {backend} block {index + 1} of {len(blocks)} ({len(paths)} videos): {row}", flush=True)
    for server in (*plain, *floor):
        server.close()
    same, num = count_same_boxes(output_dir, blocks[-1], backend)
    return Measured(
        detector=backend,
        num_videos=sum(len(list(block.iterdir())) for block in blocks),
        plain_ms=statistics.median(times["plain"]),
        floor_ms=statistics.median(times["floor"]),
        ours_ms=statistics.median(times["ours"]),
        startup_s=statistics.median(times["startup"]),
        same_boxes=same,
        num_boxes=num,
    )


def make_blocks(args: argparse.Namespace, work_dir: Path) -> list[Path]:
    """Folders that hold `num_videos` short videos between them, as links to some 100 different ones."""
    source = args.videos_dir
    if source is None:
        source = work_dir / "example"
        script = REPOSITORY / "scripts" / "demo" / "make_example_data.py"
        command = [sys.executable, str(script), "--output_dir", str(source), "--shape", "videos"]
        command += ["--num_people", str(NUM_DISTINCT // 2), "--clips_per_person", "2", "--clip_s", "2"]
        command += ["--size", str(args.size)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        source = source / "videos"
    videos = find_files(source, cli.VIDEO_PATTERNS, what="--videos_dir")
    blocks = []
    for index in range(args.num_blocks):
        block = work_dir / f"block_{index}"
        block.mkdir()
        for number in range(index, args.num_videos, args.num_blocks):
            video = videos[number % len(videos)].resolve()
            (block / f"{number:06d}{video.suffix}").symlink_to(video)
        blocks.append(block)
    return blocks


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints the table; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.num_videos < args.num_blocks * MIN_BLOCK:
        raise UserError(f"--num_videos {args.num_videos}: at least {MIN_BLOCK} a block are needed")
    work_dir = Path(tempfile.mkdtemp(prefix="facevox-bench-"))
    try:
        blocks = make_blocks(args, work_dir)
        measured = [measure(blocks, backend, work_dir) for backend in args.detectors]
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    figures = [figure for one in measured for figure in figures_of(one)]
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


def figures_of(measured: Measured) -> list[Figure]:
    """Figures of one detector, with its bars."""
    name = measured.detector
    same = measured.same_boxes / max(measured.num_boxes, 1)
    speedup_bar, floor_bar = BARS.get(name, (None, None))
    boxes_bar = None if name in FURTHER else SAME_BOXES_BAR  # yunet's settings are not DeepFace's
    return [
        Figure(f"{name}: times faster than the plain loop", round(measured.speedup, 2), "x", speedup_bar),
        Figure(
            f"{name}: over decoding and bare detector", round(measured.over_floor, 2), "x", floor_bar, False
        ),
        Figure(f"{name}: boxes equal to DeepFace's", round(same, 3), "", boxes_bar),
        Figure(f"{name}: plain loop", round(measured.plain_ms, 2), "ms/video", None, False, False),
        Figure(f"{name}: floor, two processes", round(measured.floor_ms, 2), "ms/video", None, False, False),
        Figure(f"{name}: ours, two workers", round(measured.ours_ms, 2), "ms/video", None, False, False),
        Figure(f"{name}: start-up", round(measured.startup_s, 2), "s", None, False, False),
    ]


if __name__ == "__main__":
    sys.exit(cli.run(main))
