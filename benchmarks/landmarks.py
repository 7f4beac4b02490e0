"""Measures landmark extraction from ZIP archives: pictures a second, where the time goes, memory.

    python benchmarks/landmarks.py
    python benchmarks/landmarks.py --num_large 24 --num_small 2000      # a minute
    python benchmarks/landmarks.py --json figures.json

Archives of 12-megapixel pictures (4032 x 3024, as phones make them) and of 1080p ones are made of example
people in a grainy room. They are read in this process, by one worker process and by two; the best of three
rounds counts, by wall clock and by processor time ("a core"), which other work on the machine changes little.
The bar of 20 pictures a second and core is for 12 megapixels, decoded no larger than the mesh needs; the rate
without that is shown next to it. The shares are those of one process: read (the archive, with its checksum),
decode, mesh (finding the face and its points), rest. Memory is that of a process that reads an archive of
many small pictures: its growth from the second fifth of the run to the last.
Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage.
"""

import argparse
import io
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from facevox import cli
from facevox.errors import ExitCode
from facevox.native_silence import native_silence
from facevox_demo.figures import Figure, print_figures, write_figures

LARGE, FULL_HD = (4032, 3024), (1920, 1080)
GRAIN = 6  # largest noise in grey levels: real pictures are not clean, and take longer to decode
NUM_SCENES = 4  # different pictures; an archive repeats them under other names
CORE_BAR_HZ, WORKERS_BAR = 20.0, 1.7
MEMORY_BAR_MB = 30.0
ROUNDS = 3
WARM_UP = 6  # pictures that each run reads before it is timed: processes start, files come into the cache
SAMPLE_EVERY_S = 0.1


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/landmarks.py --num_large 24 --num_small 2000")
    parser.add_argument(
        "--num_large", type=cli.positive_int, default=40, help="pictures of 12 MP, and of 1080p"
    )
    parser.add_argument(
        "--num_small", type=cli.positive_int, default=20_000, help="small pictures, for the memory"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def make_scenes(size: tuple[int, int]) -> list[bytes]:
    """JPEG files of example people who fill about half of the height."""
    import cv2
    from PIL import Image

    from facevox_demo.example.expressions import EXPRESSIONS
    from facevox_demo.example.people import make_person
    from facevox_demo.example.pictures import render_portrait

    rng = np.random.default_rng(0)
    width, height = size
    side = round(height * 0.8)
    scenes = []
    for number in range(NUM_SCENES):
        face = render_portrait(make_person(0, number), EXPRESSIONS[number], size=min(side, 512))
        face = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
        left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        room = cv2.copyMakeBorder(
            face, top, height - top - side, left, width - left - side, cv2.BORDER_REPLICATE
        )
        grain = rng.integers(-GRAIN, GRAIN + 1, (height, width, 1), dtype=np.int16)
        scene = np.clip(room.astype(np.int16) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(scene).save(buffer, "JPEG", quality=92)
        scenes.append(buffer.getvalue())
    return scenes


def make_archive(path: Path, scenes: Sequence[bytes], count: int) -> Path:
    """An archive of `count` stored pictures."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number:06d}.jpg", scenes[number % len(scenes)])
    return path


class Rates(NamedTuple):
    """Pictures a second of wall clock, and of processor time (that of the workers included)."""

    wall_hz: float
    core_hz: float


def processor_s() -> float:
    """Processor time of this process and of its worker processes so far."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime of proc(5)
    return seconds


def measure_rate(archive: Path, count: int, workers: int, folder: Path) -> Rates:
    """Rates of a run that has started."""
    from emotion.landmarks.extraction import PictureJob, ShardTask
    from emotion.landmarks.plan import plan_shards

    task = ShardTask(PictureJob(), workers, 60.0)
    task.open(folder)
    try:
        (first,) = plan_shards([archive], limit=WARM_UP).items
        list(task.process_chunk([first]))
        (whole,) = plan_shards([archive], shard_pictures=count).items
        start_s, start_core_s = time.perf_counter(), processor_s()
        (outcome,) = task.process_chunk([whole])
        wall_s, core_s = time.perf_counter() - start_s, processor_s() - start_core_s
    finally:
        task.close()
    bad = [row for row in outcome.rows if row["status"] != "done"]
    if bad:
        raise RuntimeError(f"{len(bad)} of {count} example pictures failed: {bad[0]['reason']}")
    return Rates(count / wall_s, count / core_s)


def best_rates(archive: Path, count: int, folder: Path) -> dict[int, Rates]:
    """The best of some rounds by number of workers: time lost to other work on the machine is left out."""
    rounds = [
        {workers: measure_rate(archive, count, workers, folder) for workers in (0, 1, 2)}
        for _ in range(ROUNDS)
    ]
    return {
        workers: Rates(*(max(rates[workers][k] for rates in rounds) for k in (0, 1))) for workers in (0, 1, 2)
    }


def measure_shares(archive: Path, count: int) -> tuple[dict[str, float], float, float]:
    """(seconds by part, seconds in all, pictures a second when decoded whole), in this process."""
    from emotion.landmarks import reader
    from emotion.landmarks.plan import plan_shards

    (item,) = plan_shards([archive], limit=count, shard_pictures=count).items
    pictures = item.pictures
    spent: dict[str, float] = {}

    def around(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            start_s = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - start_s

        return timed

    plain = reader.read_picture, reader.decode_reduced, reader.FaceMesh.find
    seconds = {}
    try:
        reader.read_picture = around("read", reader.read_picture)
        reader.decode_reduced = around("decode", reader.decode_reduced)
        reader.FaceMesh.find = around("mesh", reader.FaceMesh.find)  # type: ignore[method-assign]
        for is_reduced in (False, True):
            with reader.PictureReader(is_reduced=is_reduced) as opened:
                for picture in pictures[:WARM_UP]:
                    opened.read(item.path, picture.offset, picture.member)
                spent.clear()
                start_s = time.perf_counter()
                for picture in pictures:
                    opened.read(item.path, picture.offset, picture.member)
                seconds[is_reduced] = time.perf_counter() - start_s
    finally:
        reader.read_picture, reader.decode_reduced = plain[:2]
        reader.FaceMesh.find = plain[2]  # type: ignore[method-assign]
    return dict(spent), seconds[True], count / seconds[False]


def resident_mb() -> float:
    """Memory of this process now."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return float(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def sampling(samples: list[float], is_over: threading.Event) -> None:
    """Adds the memory of this process to `samples` until it is over."""
    while not is_over.wait(SAMPLE_EVERY_S):
        samples.append(resident_mb())


def measure_memory(archive: Path, folder: Path) -> float:
    """MB that a whole run in this process gains from its first fifth to its last."""
    from emotion.landmarks.extraction import ExtractConfig, run_extraction
    from facevox.batch import BatchOptions

    logging.disable(logging.INFO)
    samples: list[float] = []
    is_over = threading.Event()
    thread = threading.Thread(target=sampling, args=(samples, is_over), daemon=True)
    thread.start()
    try:
        run_extraction(ExtractConfig(zips=(archive,), output_dir=folder), BatchOptions(debug=True))
    finally:
        is_over.set()
        thread.join()
    fifth = max(len(samples) // 5, 1)
    # Not the very first: imports and the graph belong to the start.
    return statistics.median(samples[-fifth:]) - statistics.median(samples[fifth : 2 * fifth])


def figures_of_size(name: str, size: tuple[int, int], count: int, folder: Path) -> Iterator[Figure]:
    """Rates and shares for pictures of one size."""
    archive = make_archive(folder / "pictures.zip", make_scenes(size), count)
    is_large = size == LARGE
    megabytes = archive.stat().st_size / 1e6 / count
    yield Figure(f"{name}, size of a picture", megabytes, "MB", is_comparable=False)
    rates = best_rates(archive, count, folder)
    bar = CORE_BAR_HZ if is_large else None
    for workers, title in ((0, "sequential"), (1, "1 worker"), (2, "2 workers")):
        wall_hz, core_hz = rates[workers]
        yield Figure(f"{name}, {title}", wall_hz, "pictures/s", is_comparable=False)
        yield Figure(f"{name}, {title}, a core", core_hz, "pictures/s", bar=bar, is_comparable=False)
    ratio = rates[2].wall_hz / rates[1].wall_hz
    yield Figure(f"{name}, 2 workers / 1", ratio, "x", bar=WORKERS_BAR if is_large else None)
    spent, total_s, whole_hz = measure_shares(archive, count)
    yield Figure(f"{name}, decoded whole, sequential", whole_hz, "pictures/s", is_comparable=False)
    for part in ("read", "decode", "mesh"):
        yield Figure(f"{name}, share of {part}", 100 * spent[part] / total_s, "%", is_comparable=False)
    rest = 100 * (1 - sum(spent.values()) / total_s)
    yield Figure(f"{name}, share of the rest", rest, "%", is_comparable=False)
    archive.unlink()


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary, native_silence():
        folder = Path(temporary)
        figures += figures_of_size("12 MP", LARGE, max(args.num_large, 2 * WARM_UP), folder)
        figures += figures_of_size("1080p", FULL_HD, max(args.num_large, 2 * WARM_UP), folder)
        archive = make_archive(folder / "small.zip", make_scenes((360, 270)), args.num_small)
        grown_mb = measure_memory(archive, folder / "small")
    figures.append(
        Figure(
            f"memory gained over {args.num_small} pictures",
            max(grown_mb, 0.0),
            "MB",
            bar=MEMORY_BAR_MB,
            is_better_higher=False,
            is_comparable=False,
        )
    )
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
