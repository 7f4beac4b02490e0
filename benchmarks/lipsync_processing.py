"""Measures the preprocessing of lip-sync clips: times real time, where the time goes, and what a start costs.

    python benchmarks/lipsync_processing.py                       # 720p at 30 fps, two workers
    python benchmarks/lipsync_processing.py --videos a.mp4 b.mp4 --json figures.json

Without --videos an example person is put into a grainy room of 1280 x 720 pixels. Times real time is the
length of all clips over the seconds of a data_processing.py run with two workers: the seconds that the
workers spent on clips, as in a long batch; those of the whole run, start included; and by processor time,
which is the rate of two otherwise idle cores. The shares are measured separately, in one process, on
one clip: decode (and conversion to RGB), detect (the face detector), mesh (FaceMesh), sound (its decoding
and features), write (compression), rest (crops, cuts, smoothing). The start is a whole inference.py on 2 s
of a clip, with NumPy's sound features and with librosa's in turns: the best of three each.
Exit codes: 0 the bar is met; 1 it is missed; 2 bad usage or bad input.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox_demo.figures import Figure, print_figures, write_figures

SPEED_BAR = 4.0  # times real time, two cores, 720p
DISK_BAR_MB = 15.0  # a minute: 1,000 clips of 30 s in less than 8 GB
WORKERS = 2
START_S = 2  # of the clip whose score shows what a start costs
START_RUNS = 3
START_BAR = 0.8  # of processor time and of memory with librosa
SCORE = """
import sys, time
from facevox_demo.figures import peak_memory_gb
from lipsync import inference
inference.main(sys.argv[1:])
print(time.process_time(), peak_memory_gb())
"""
REPOSITORY = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1280, 720
GRAIN = 4.0  # deviation of the noise in grey levels: real footage is not clean, and takes longer to decode


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/lipsync_processing.py --num_clips 6")
    parser.add_argument(
        "--videos", type=Path, nargs="+", metavar="FILE", help="own clips (default: an example clip is made)"
    )
    parser.add_argument("--num_clips", type=cli.positive_int, default=12, help="copies of the example clip")
    parser.add_argument("--clip_s", type=cli.positive_float, default=10.0, help="its length in seconds")
    parser.add_argument("--fps", type=cli.positive_float, default=30.0, help="its frames a second")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures there (default: none)"
    )
    return parser


def make_clip(path: Path, clip_s: float, fps: float) -> None:
    """An example person who speaks, in a large picture."""
    from facevox.media import write_video
    from facevox_demo.example.clips import plan_clip
    from facevox_demo.example.dataset import SetConfig, clip_frames
    from facevox_demo.example.people import make_person
    from facevox_demo.example.voice import RATE_HZ, speak

    config = SetConfig(num_people=1, clips_per_person=1, clip_s=clip_s, fps=fps, size=512)
    plan = plan_clip(make_person(0, 0), 0, clip_s)
    rng = np.random.default_rng(0)
    grain = rng.normal(0, GRAIN, (8, HEIGHT, WIDTH, 3)).astype(np.int16)

    def frames() -> "Iterator[NDArray[np.uint8]]":
        for number, face in enumerate(clip_frames(plan, config)):
            room = np.full((HEIGHT, WIDTH, 3), 96, np.int16)
            room[104:616, 384:896] = face
            yield np.clip(room + grain[number % len(grain)], 0, 255).astype(np.uint8)

    write_video(path, frames(), fps, speak(plan), RATE_HZ)


class Stopwatch:
    """Seconds spent inside functions, by name; a name inside another is counted for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with its time counted."""

        def timed(*args: Any, **options: Any) -> Any:
            start_s = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.add(name, time.perf_counter() - start_s)

        return timed

    def through(self, name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The generator `function` with the time to each next value counted."""

        def timed(*args: Any, **options: Any) -> Iterator[Any]:
            source = function(*args, **options)
            while True:
                start_s = time.perf_counter()
                value = next(source, None)
                self.add(name, time.perf_counter() - start_s)
                if value is None:
                    return
                yield value

        return timed


def measure_shares(video: Path, folder: Path) -> tuple[dict[str, float], float]:
    """(seconds by part, seconds in all) for one clip in this process; the second run counts."""
    import cv2

    from lipsync.clips import features, tracks
    from lipsync.clips.clip_files import write_clip

    cv2.setNumThreads(1)
    features.extract_clip(video, max_duration_s=1.0)  # imports and graphs
    watch = Stopwatch()
    plain = features.iter_frames, features.iter_ahead, features.features_of_blocks
    plain_methods = tracks.FaceFinder.find, tracks.FaceMesh.find
    features.iter_frames = watch.through("decode", features.iter_frames)  # type: ignore[assignment]
    features.iter_ahead = lambda items, most=2: items  # in this thread: the parts add up to the whole
    features.features_of_blocks = watch.around("sound", features.features_of_blocks)
    tracks.FaceFinder.find = watch.around("detect", tracks.FaceFinder.find)  # type: ignore[method-assign]
    tracks.FaceMesh.find = watch.around("mesh", tracks.FaceMesh.find)  # type: ignore[method-assign]
    try:
        start_s = time.perf_counter()
        clip = features.extract_clip(video)
        watch.around("write", write_clip)(folder / "share.npz", clip, {})
        total_s = time.perf_counter() - start_s
    finally:
        features.iter_frames, features.iter_ahead, features.features_of_blocks = plain
        tracks.FaceFinder.find, tracks.FaceMesh.find = plain_methods  # type: ignore[method-assign]
    watch.seconds["rest"] = total_s - sum(watch.seconds.values())
    return watch.seconds, total_s


@dataclass(frozen=True)
class Run:
    """A run of data_processing.py: seconds in all, of work on clips, of processors, of video; bytes."""

    run_s: float
    work_s: float
    processor_s: float
    video_s: float
    num_bytes: int


def measure_run(videos: Sequence[Path], folder: Path) -> Run:
    """Processes the videos with two workers."""
    from lipsync import data_processing

    source = folder / "videos"
    source.mkdir()
    for number, video in enumerate(videos):
        (source / f"{number:03d}{video.suffix}").symlink_to(video.resolve())
    options = [f"paths.videos_dir={source}", f"paths.audios_dir={folder / 'none'}"]
    options += [f"paths.processed_dir={folder / 'out'}", "data.max_faces=4"]
    arguments = [part for option in options for part in ("--set", option)]
    start_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = data_processing.main([*arguments, "--workers", str(WORKERS)])
    seconds, after = time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if code != ExitCode.DONE:
        raise UserError("--videos: some of the clips could not be used; the reasons are above")
    from lipsync.clips.clip_files import load_clip
    from lipsync.clips.clock import FRAME_HZ

    files = list((folder / "out").glob("*.npz"))
    length_s = sum(load_clip(file)[0].num_frames for file in files) / FRAME_HZ
    manifest = next((folder / "out" / "manifests").glob("*.jsonl")).read_text(encoding="utf-8")
    records = [json.loads(line) for line in manifest.splitlines()]
    work_s = sum(record["seconds"] for record in records if "outputs" in record)
    return Run(seconds, work_s, processor_s, length_s, sum(file.stat().st_size for file in files))


def measure_start(video: Path) -> list[Figure]:
    """Processor time and memory of a short score: a program's start, for the most part."""
    runs: dict[str, list[tuple[float, float]]] = {"numpy": [], "librosa": []}
    options = ["--video", str(video), "--set", f"data.max_duration_s={START_S}", "--features"]
    for _ in range(START_RUNS):
        for features, measured in runs.items():
            command = [sys.executable, "-c", SCORE, *options, features]
            done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
            processor_s, memory_gb = map(float, done.stdout.splitlines()[-1].split())
            measured.append((processor_s, memory_gb))
    numpy_best, librosa_best = (list(map(min, zip(*runs[name], strict=True))) for name in runs)
    return [
        Figure(
            f"lip-sync score of {START_S} s, {what}: NumPy's of librosa's", one / other, "x", START_BAR, False
        )
        for what, one, other in zip(("processor time", "memory"), numpy_best, librosa_best, strict=True)
    ]


def measure(videos: Sequence[Path], folder: Path) -> list[Figure]:
    """All figures."""
    run = measure_run(videos, folder)
    name = "lip-sync preprocessing, two workers, times real time"
    size_mb = run.num_bytes / 1e6 / (run.video_s / 60)
    figures = [
        Figure(name, run.video_s / (run.work_s / WORKERS), "x", SPEED_BAR, is_comparable=False),
        Figure(f"{name}, with their start", run.video_s / run.run_s, "x", is_comparable=False),
        Figure(f"{name}, by processor time", run.video_s / (run.processor_s / WORKERS), "x"),
        Figure("lip-sync clip files a minute", size_mb, "MB", DISK_BAR_MB, False),
    ]
    shares, total_s = measure_shares(videos[0], folder)
    for name, part_s in sorted(shares.items(), key=lambda share: -share[1]):
        figures.append(
            Figure(f"lip-sync preprocessing, share of {name}", part_s / total_s, is_comparable=False)
        )
    return figures + measure_start(videos[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="facevox-") as name:
        folder = Path(name)
        videos = args.videos
        if videos is None:
            make_clip(folder / "clip.mp4", args.clip_s, args.fps)
            videos = [folder / "clip.mp4"] * args.num_clips
        figures = measure(videos, folder)
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
