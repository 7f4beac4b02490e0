"""Let the live server work for minutes beside hostile clients, and show what honest ones notice.

    python tests/hostile/soak.py --minutes 10

Two honest cameras of 10 frames a second and a newcomer each second, from 127.0.0.1. For two thirds of the
time there are also, from 127.0.0.2 and up: 300 sockets that hold connections in eight ways, cameras that
flood with pictures, with a JPEG of thousands of scans and with a PNG of thousands of chunks, and uploads of
such files, of an mp4 that states 88 million samples, and of random bytes. Prints rates, waits and memory
before, during and after. Exit code 1 if an honest camera keeps less than 80 % of its rate, a newcomer waits
longer than 2 s, memory grows by more than 50 MB, or the server fails.
"""

import argparse
import http.client
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "emotion"), str(TESTS / "emotion" / "serving"), str(TESTS.parent)]

import hostile_clients  # noqa: E402
import psutil  # noqa: E402
from face_pictures import jpeg_of_faces  # noqa: E402
from live_server import LiveServer, ask  # noqa: E402
from small_classifier import write_small_classifier  # noqa: E402
from test_server_decoding import CHUNKS, SCANS, sample_bomb  # noqa: E402
from websockets.exceptions import WebSocketException  # noqa: E402

from facevox import cli  # noqa: E402
from facevox.errors import ExitCode  # noqa: E402

FRAMES_PER_S = 10.0
NUM_SOCKETS, NUM_ADDRESSES, NUM_CAMERAS = 300, 300, 4
LEAST_SHARE, MOST_WAIT_S, MOST_GROWTH_MB = 0.8, 2.0, 50.0


@dataclass
class Seen:
    """Notes of the honest clients, with the times of their results."""

    results_s: list[list[float]] = field(default_factory=lambda: [[], []])
    waits_s: list[tuple[float, float]] = field(default_factory=list)  # begin, length
    errors: list[str] = field(default_factory=list)


def film(server: LiveServer, frame: bytes, times_s: list[float], is_over: threading.Event) -> None:
    """A camera that sends at its rate; the next frame follows the answer."""
    with server.connect() as camera:
        next_s = time.monotonic()
        while not is_over.is_set():
            if ask(camera, frame)["type"] == "result":
                times_s.append(time.monotonic())
            next_s = max(next_s + 1 / FRAMES_PER_S, time.monotonic() - 1)
            time.sleep(max(next_s - time.monotonic(), 0))


def come(
    server: LiveServer, frame: bytes, waits_s: list[tuple[float, float]], is_over: threading.Event
) -> None:
    """A new client each second, until its first result."""
    while not is_over.is_set():
        start_s = time.monotonic()
        while not is_over.is_set():
            try:
                with server.connect(open_timeout=10) as client:
                    if ask(client, frame)["type"] == "result":
                        break
            except (OSError, WebSocketException):
                time.sleep(0.1)
        waits_s.append((start_s, time.monotonic() - start_s))
        time.sleep(1)


def upload(port: int, address: str, contents: Sequence[bytes], is_over: threading.Event) -> None:
    """Uploads one file after the other."""
    for content in itertools.cycle(contents):
        if is_over.wait(0.2):
            return
        head = b'--w\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        connection = http.client.HTTPConnection("127.0.0.1", port, 60, (address, 0))
        try:
            connection.request(
                "POST", "/api/predict", head + content + b"\r\n--w--\r\n",
                {"Content-Type": "multipart/form-data; boundary=w"},
            )  # fmt: skip
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()


def memory_mb(process: psutil.Process) -> tuple[float, float]:
    """Memory of the server, and of it and its decoders."""
    sizes = [process.memory_info().rss]
    for child in process.children(recursive=True):
        try:
            sizes.append(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return sizes[0] / 2**20, sum(sizes) / 2**20


def soak(minutes: float) -> tuple[list[str], list[str]]:
    """Runs all; returns the lines of the table, and the faults."""
    seen, is_over, is_attack_over = Seen(), threading.Event(), threading.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").mkdir()
        model, frame = write_small_classifier(folder / "models"), jpeg_of_faces(1)
        bombs = [SCANS, CHUNKS]
        files = [folder / f"{index}" for index in range(3)]
        for file, content in zip(files, (frame, *bombs), strict=True):
            file.write_bytes(content)
        with LiveServer(folder, model.parent) as server:
            jobs: list[tuple[Callable[..., None], tuple[object, ...]]] = [
                (film, (server, frame, times_s, is_over)) for times_s in seen.results_s
            ]
            jobs.append((come, (server, frame, seen.waits_s, is_over)))
            honest = [threading.Thread(target=job, args=args, daemon=True) for job, args in jobs]
            for thread in honest:
                thread.start()
            time.sleep(3)
            process = psutil.Process(server.process.pid)
            marks = [time.monotonic()]
            time.sleep(minutes * 10)
            before_mb = memory_mb(process)
            marks.append(time.monotonic())
            numbers = (server.port, minutes * 40, NUM_SOCKETS, NUM_ADDRESSES, NUM_CAMERAS)
            command = [sys.executable, hostile_clients.__file__, *map(str, numbers), *map(str, files)]
            hostile = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            contents = [*bombs, sample_bomb(88_000_000), random.Random(0).randbytes(100_000)]
            uploads = [
                threading.Thread(
                    target=upload,
                    args=(server.port, f"127.0.7.{2 + k}", contents, is_attack_over),
                    daemon=True,
                )
                for k in range(2)
            ]
            for thread in uploads:
                thread.start()
            sizes = []
            while hostile.poll() is None:
                time.sleep(1)
                sizes.append(memory_mb(process))
            is_attack_over.set()
            marks.append(time.monotonic())
            time.sleep(minutes * 10)
            marks.append(time.monotonic())
            after_mb = memory_mb(process)
            is_over.set()
            code = server.stop()
        lines = _table(seen, marks)
        most_mb = [max(column) for column in zip(*sizes, strict=True)]
        lines.append(
            "memory of the server, and with its decoders, in MB: "
            + "; ".join(
                f"{name} {alone:.0f}, {all_of_it:.0f}"
                for name, (alone, all_of_it) in zip(
                    ("before", "at most", "after"), (before_mb, most_mb, after_mb), strict=True
                )
            )
        )
        faults = _faults(seen, marks)
        if max(most_mb[0], after_mb[0]) > before_mb[0] + MOST_GROWTH_MB:
            faults.append("the server's memory grew")
        if code != ExitCode.DONE or "Traceback" in server.output:
            faults.append(f"the server ended with {code}: {server.output[-500:]}")
    return lines, faults


def _rates(seen: Seen, start_s: float, end_s: float) -> list[float]:
    return [sum(start_s <= t < end_s for t in times) / (end_s - start_s) for times in seen.results_s]


def _table(seen: Seen, marks: Sequence[float]) -> list[str]:
    lines = [
        f"{'':8s}{'results/s of two cameras':>26s}{'newcomers':>11s}{'median wait s':>15s}{'longest s':>11s}"
    ]
    for name, start_s, end_s in zip(("before", "during", "after"), marks, marks[1:], strict=False):
        waits = [wait for begin, wait in seen.waits_s if start_s <= begin < end_s] or [float("nan")]
        rates = " ".join(f"{rate:.1f}" for rate in _rates(seen, start_s, end_s))
        lines.append(
            f"{name:8s}{rates:>26s}{len(waits):11d}{statistics.median(waits):15.2f}{max(waits):11.2f}"
        )
    return lines


def _faults(seen: Seen, marks: Sequence[float]) -> list[str]:
    before, during = _rates(seen, *marks[:2]), _rates(seen, *marks[1:3])
    faults = [
        f"an honest camera had {now:.1f} results a second, {then:.1f} before"
        for then, now in zip(before, during, strict=True)
        if now < LEAST_SHARE * then or then < FRAMES_PER_S / 2
    ]
    waits = [wait for begin, wait in seen.waits_s if marks[1] <= begin < marks[2]]
    longest = max(waits, default=float("inf"))
    return faults + ([f"a newcomer waited {longest:.1f} s"] if longest > MOST_WAIT_S else [])


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python tests/hostile/soak.py --minutes 10")
    parser.add_argument("--minutes", type=cli.positive_float, default=10.0, help="length of the whole")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and the faults; returns the exit code."""
    lines, faults = soak(get_args_parser().parse_args(argv).minutes)
    print("\n".join(lines))
    print("\n".join(faults) or "no faults")
    return ExitCode.SOME_FAILED if faults else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
