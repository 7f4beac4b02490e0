"""Frames a second of the live server with one and four faces, fairness, memory, and the fastest classifier.

    python benchmarks/emotion_server.py
    python benchmarks/emotion_server.py --parts memory --minutes 10
    python benchmarks/emotion_server.py --model_dir models

The real server in a separate process, with everything switched on (tracks, smoothing, limits, origin,
metrics, log; only the frames a second of one client are not limited), and clients in this process on the
same cores. A client sends 640 x 480 JPEGs of real talking people (../shared/data or $FACEVOX_TEST_DATA;
synthetic people where there are none) and has two frames in flight. Without --model_dir the network is the
real MobileNetV3Large at 224 pixels with random weights, on which its speed does not depend. Exit codes: 0
every bar is reached; 1 one is not; 2 bad usage.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import encode_image
from facevox.native_silence import native_silence
from facevox_demo.figures import Figure, print_figures, write_figures

REPOSITORY = Path(__file__).resolve().parent.parent
PARTS = ("live", "fair", "memory", "classifier")
WIDTH, HEIGHT, JPEG_QUALITY = 640, 480, 80
NUM_FRAMES = 50  # of a scene, sent again and again
CLIPS = (
    *("WDA_AlexandriaOcasioCortez_000.mp4", "May_5s.mp4"),
    *("retalking_4.mp4", "German_20s.mp4"),
)
IN_FLIGHT = 2
WARM_UP_S = 1.5
NUM_CLIENTS = 8
FPS_BARS = {1: 40.0, 4: 20.0}  # on two cores
FAIR_BAR = 0.95  # Jain's index
MEMORY_BAR_MB, GROWTH_BAR_MB = 400.0, 10.0
CLASS_NAMES = ("happy", "sad", "neutral", "embarrassed", "anxiety")
IMG_SIZE = 224
NUM_ROUNDS, ROUND_S = 8, 0.3


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this benchmark."""
    parser = cli.make_parser(__doc__, "python benchmarks/emotion_server.py --parts live fair")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    parser.add_argument("--seconds", type=cli.positive_float, default=6.0, help="of each load, s")
    parser.add_argument("--minutes", type=cli.positive_float, default=0.5, help="of the memory part, min")
    parser.add_argument(
        "--model_dir", type=Path, metavar="DIR", help="folder of a trained model (default: random weights)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def make_scene(num_faces: int) -> list[bytes]:
    """Frames of people who talk, as a browser sends them: one in the middle, or four in the quarters."""
    import cv2

    people = [_person_frames(number) for number in range(num_faces)]
    scene = []
    for number in range(NUM_FRAMES):
        if num_faces == 1:
            face = cv2.resize(people[0][number], (HEIGHT, HEIGHT))
            image = np.pad(face, ((0, 0), *[((WIDTH - HEIGHT) // 2,) * 2], (0, 0)), mode="edge")
        else:
            quarters = [cv2.resize(frames[number], (WIDTH // 2, WIDTH // 2)) for frames in people]
            cut = (WIDTH - HEIGHT) // 4
            rows = [np.hstack([q[cut:-cut] for q in quarters[k : k + 2]]) for k in (0, 2)]
            image = np.vstack(rows)
        scene.append(encode_image(image, ".jpg", JPEG_QUALITY))
    return scene


def _person_frames(number: int) -> list[NDArray[np.uint8]]:
    folder = Path(os.environ.get("FACEVOX_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "talking"
    if (folder / CLIPS[number]).is_file():
        from facevox.media import iter_frames

        return [frame.image for frame in iter_frames(folder / CLIPS[number], max_frames=NUM_FRAMES)]
    from facevox_demo.example.people import make_person
    from facevox_demo.example.pictures import render_portrait

    person = make_person(0, number)
    portraits = [render_portrait(person, "happy", seed=seed) for seed in range(5)]
    return [portraits[k // (NUM_FRAMES // 5)] for k in range(NUM_FRAMES)]


class Server:
    """`python emotion/server.py` with the settings of .env.example; a context manager that ends it."""

    def __init__(self, folder: Path, model_dir: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        lines = (REPOSITORY / ".env.example").read_text(encoding="utf-8").splitlines()
        settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        settings |= {"MODEL_DIR": str(model_dir), "LOG_DIR": str(folder / "logs")}
        settings |= {"SERVER_PORT": str(self.port), "MAX_FRAMES_PER_S": "1000"}
        command = [sys.executable, str(REPOSITORY / "emotion" / "server.py")]
        self.start_s = time.perf_counter()
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env={**os.environ, **settings}, cwd=folder, **quiet)
        self.answer_s = self.ready_s = 0.0

    def __enter__(self) -> "Server":
        self.answer_s = self._wait("/health")
        self.ready_s = self._wait("/ready")
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()

    def _wait(self, path: str) -> float:
        """Seconds from the start until the path answers with 200."""
        while time.perf_counter() - self.start_s < 60 and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10):
                    return time.perf_counter() - self.start_s
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.01)
        self.process.kill()
        raise RuntimeError(f"the server never answered {path}")

    def memory_mb(self) -> float:
        """Memory that the process holds now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith("emotion_memory_bytes")).split()[1]) / 1e6


@dataclass
class Load:
    """Results of one client; times in ms."""

    latencies_ms: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    num_faces: int = 0
    num_dropped: int = 0

    def mean_ms(self, stage: str) -> float:
        """Mean time of a stage over the frames."""
        return sum(stages[stage] for stages in self.stages) / len(self.stages)


async def _run_client(port: int, scene: Sequence[bytes], seconds: float) -> Load:
    from websockets.asyncio.client import connect

    load = Load()
    async with connect(f"ws://127.0.0.1:{port}/ws", compression=None, max_queue=None) as client:
        json.loads(await client.recv())
        sent: dict[int, float] = {}
        number = dropped_before = 0
        start_s = time.perf_counter() + WARM_UP_S
        while True:
            while len(sent) < IN_FLIGHT:
                number += 1
                sent[number] = time.perf_counter()
                await client.send(scene[number % len(scene)])
            message = json.loads(await client.recv())
            now_s = time.perf_counter()
            if message["type"] != "result":
                raise RuntimeError(f"refused: {message['code']}")
            if now_s < start_s:
                dropped_before = message["dropped"]
            elif now_s < start_s + seconds:
                load.latencies_ms.append(1000 * (now_s - sent[message["frame"]]))
                load.stages.append(message["ms"])
                load.num_faces += len(message["faces"])
                load.num_dropped = message["dropped"] - dropped_before
            else:
                return load
            sent = {n: s for n, s in sent.items() if n > message["frame"]}  # those before it were replaced


def run_clients(port: int, scene: Sequence[bytes], seconds: float, count: int = 1) -> list[Load]:
    """Results of `count` clients that send at the same time."""

    async def run() -> list[Load]:
        return await asyncio.gather(*(_run_client(port, scene, seconds) for _ in range(count)))

    return asyncio.run(run())


def measure_live(server: Server, args: argparse.Namespace) -> list[Figure]:
    """One client with one face, and with four."""
    figures = [
        Figure("first answer after the start", server.answer_s, "s", 3.0, False, False),
        Figure("ready to analyse after the start", server.ready_s, "s", None, False, False),
    ]
    for num_faces, bar in FPS_BARS.items():
        (load,) = run_clients(server.port, make_scene(num_faces), args.seconds)
        name = f"live, {num_faces} face{'s' if num_faces > 1 else ''}"
        count = len(load.latencies_ms)
        figures.append(Figure(name, count / args.seconds, "FPS", bar, is_comparable=False))
        for share in (50, 95):
            value = float(np.percentile(load.latencies_ms, share))
            figures.append(Figure(f"{name}: p{share}", value, "ms", None, False, False))
        figures.append(
            Figure(f"{name}: frames replaced by newer ones", load.num_dropped, "", None, False, False)
        )
        figures.append(Figure(f"{name}: faces found a frame", load.num_faces / count, "", num_faces * 0.95))
        figures += [
            Figure(f"{name}: {stage}", load.mean_ms(stage), "ms", None, False, False)
            for stage in ("decode", "detect", "classify")
        ]
    return figures


def measure_fair(server: Server, args: argparse.Namespace) -> list[Figure]:
    """Eight clients at once."""
    loads = run_clients(server.port, make_scene(1), args.seconds, NUM_CLIENTS)
    rates = [len(load.latencies_ms) / args.seconds for load in loads]
    jain = sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates))
    return [
        Figure(f"{NUM_CLIENTS} clients, 1 face, together", sum(rates), "FPS", None, is_comparable=False),
        Figure(f"{NUM_CLIENTS} clients: Jain's index of their frames", jain, "", FAIR_BAR),
        Figure(f"{NUM_CLIENTS} clients: fewest to most", min(rates) / max(rates), "", 0.8),
    ]


def measure_memory(server: Server, args: argparse.Namespace) -> list[Figure]:
    """Memory after a long load of clients that come and go, and how much of it came after the first sixth."""
    scene = make_scene(4)
    sizes_mb = []
    end_s = time.perf_counter() + 60 * args.minutes
    while time.perf_counter() < end_s:
        run_clients(server.port, scene, max(60 * args.minutes / 24 - WARM_UP_S, 0.5), 2)
        sizes_mb.append(server.memory_mb())
    settled = max(sizes_mb[: max(len(sizes_mb) // 6, 1)])
    return [
        Figure("memory of the server", sizes_mb[-1], "MB", MEMORY_BAR_MB, False, False),
        Figure(
            f"memory that came in {args.minutes:g} minutes",
            sizes_mb[-1] - settled,
            "MB",
            GROWTH_BAR_MB,
            False,
            False,
        ),
    ]


def best_ms(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The time of a call of each: the median of a round, the best of rounds in which all take turns.

    Other work on the machine comes and goes; taking turns, all of them see the same of it.
    """
    rounds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(NUM_ROUNDS):
        for name, work in works.items():
            work()
            times_s, end_s = [], time.perf_counter() + ROUND_S
            while time.perf_counter() < end_s:
                start_s = time.perf_counter()
                work()
                times_s.append(time.perf_counter() - start_s)
            rounds[name].append(1000 * statistics.median(times_s))
    return {name: min(times_ms) for name, times_ms in rounds.items()}


def measure_classifier(model_dir: Path, folder: Path) -> list[Figure]:
    """Milliseconds a face of possible classifiers, with one thread each where that can be set."""
    from emotion.live.analysis import Classifier, find_model

    crop = np.random.default_rng(0).integers(0, 256, (1, IMG_SIZE, IMG_SIZE, 3), dtype=np.uint8)
    path = find_model(model_dir)
    assert path is not None, "exported or given above"
    classifier = Classifier(path)
    ours = "TFLite (the server's)"
    works = {ours: lambda: classifier.predict(crop), **_others(folder, crop.astype(np.float32))}
    times_ms = best_ms(works)
    figures = [
        Figure(f"classifier, a face: {name}", time_ms, "ms", None, False, False)
        for name, time_ms in times_ms.items()
    ]
    return figures + [
        Figure(f"classifier, times as fast as {name}", time_ms / times_ms[ours], "x", 1.0)
        for name, time_ms in times_ms.items()
        if name != ours
    ]


def _others(folder: Path, pixels: NDArray[np.float32]) -> dict[str, Callable[[], object]]:
    import onnxruntime
    import tensorflow as tf

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # tracebacks of optimisations that it skips
    model = make_network()
    model(pixels)  # Keras exports what was called before
    call = tf.function(lambda x: model(x, training=False))
    constant = tf.constant(pixels)
    file = folder / "network.onnx"
    model.export(file, format="onnx", verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {
        "model.predict": lambda: model.predict(pixels, verbose=0),
        "tf.function": lambda: call(constant).numpy(),
        "ONNX Runtime": lambda: session.run(None, {name: pixels}),
    }


def make_network() -> Any:
    """MobileNetV3Large with random weights."""
    from emotion.classifier.network import build_network, with_probabilities

    return with_probabilities(build_network(IMG_SIZE, len(CLASS_NAMES), 0.25, seed=0), 1.0)


def write_model(folder: Path) -> Path:
    """Exports the network as emotion/main.py does; returns its folder."""
    from emotion.classifier.export import describe_model, export_model

    export_model(make_network(), describe_model(CLASS_NAMES, IMG_SIZE, 0.25, 1.0), folder)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with tempfile.TemporaryDirectory(prefix="facevox-") as name, native_silence():
        folder = Path(name)
        model_dir = args.model_dir or write_model(folder / "models")
        figures: list[Figure] = []
        loads = {"live": measure_live, "fair": measure_fair, "memory": measure_memory}
        if any(part in loads for part in args.parts):
            with Server(folder, model_dir) as server:
                for part in args.parts:
                    figures += loads[part](server, args) if part in loads else []
        if "classifier" in args.parts:
            figures += measure_classifier(model_dir, folder)
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
