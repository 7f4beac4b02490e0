"""Measure training on one and on two processes: pairs a second, and whether the loss stays the same.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --num_people 24 --num_epochs 6

Example people are made, and train_face_voice_from_matched_file.py runs on them with one thread for each
process: one process with the whole batch, two that share it over gloo. Both see the same pairs in the same
batches, so each epoch's loss must be the same except for rounding. Pairs a second are the median over the
epochs after the first, loader included. In addition, what grows with the number of processes: gathering is
measured between two processes, the product of all similarities on one core by itself; and the cost of
reading voices out of the videos and out of wavs.

Exit codes: 0 every bar is reached; 1 one is not; 2 bad usage.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox_demo.figures import Figure, print_figures, write_figures

REPOSITORY = Path(__file__).resolve().parent.parent
GLOBAL_BATCH = 16
EMBEDDING_DIM = 512
GATHERED = (1024, 8192)
SPEED_UP_BAR = 1.5  # on two cores
TIMES = 5
RATE_HZ = 16000


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this benchmark."""
    parser = cli.make_parser(__doc__, "python benchmarks/scaling.py")
    parser.add_argument("--num_people", type=cli.positive_int, default=20, help="example people")
    parser.add_argument(
        "--num_epochs", type=cli.positive_int, default=5, help="epochs of each run, two at least"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    # One process of the measured gathering, started by this program itself.
    parser.add_argument("--gather_rank", type=cli.natural_int, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.gather_rank is not None:
        return print_gathering()
    if args.num_epochs < 2:
        raise UserError(f"--num_epochs {args.num_epochs}: the first epoch is not counted, so two are needed")
    with tempfile.TemporaryDirectory() as folder:
        pairs, encoders = make_data(Path(folder), args.num_people)
        runs = [train(Path(folder), pairs, encoders, size, args.num_epochs) for size in (1, 2)]
        decoding = measure_decoding(Path(folder) / "people")
    rates = [statistics.median(row["items_per_s"] for row in rows[1:]) for rows in runs]
    differences = [abs(one["train_loss"] - two["train_loss"]) for one, two in zip(*runs, strict=True)]
    figures = [
        Figure("1 process: pairs a second", rates[0], "/s", is_comparable=False),
        Figure("2 processes: pairs a second", rates[1], "/s", is_comparable=False),
        Figure("2 processes over 1", rates[1] / rates[0], "x", SPEED_UP_BAR),
        Figure(
            "largest difference of an epoch's loss",
            max(differences),
            bar=1e-4,
            is_better_higher=False,
            is_comparable=False,
        ),
        *(
            Figure(f"gather {rows} x {EMBEDDING_DIM} over two processes", ms, "ms", is_comparable=False)
            for rows, ms in zip(GATHERED, measure_gathering(), strict=True)
        ),
        *(
            Figure(f"similarities of {rows}, one core, forward and backward", ms, "ms", is_comparable=False)
            for rows, ms in measure_similarities().items()
        ),
    ]
    for name, times in decoding.items():
        figures.append(Figure(f"{name}: times real time, one core", times, "x", is_comparable=False))
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


def make_data(folder: Path, num_people: int) -> tuple[Path, Path]:
    """(list of pairs, folder of encoders)."""
    people, encoders = folder / "people", folder / "encoders"
    sizes = ("--num_people", num_people, "--clips_per_person", 2, "--clip_s", 1, "--workers", 2)
    run("scripts/demo/make_example_data.py", "--output_dir", people, *sizes)
    run("scripts/demo/make_tiny_encoders.py", "--output_dir", encoders, "--image_size", 112)
    faces = sorted((people / "vox").glob("*/faces/*/*.jpg"))
    lines = [f"{face}\t{face.parents[2] / 'voices' / face.parent.name}.wav\n" for face in faces]
    pairs = folder / "pairs.txt"
    pairs.write_text("".join(lines), encoding="utf-8")
    return pairs, encoders


def run(*words: object) -> None:
    """Runs a program of the repository to its end."""
    subprocess.run([sys.executable, *map(str, words)], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def variables_of(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment of one process, as torchrun sets it."""
    values = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return {**os.environ, "MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in values.items()}


def run_processes(words: Sequence[str], size: int) -> list[str]:
    """Runs a command as `size` processes of one group; returns what each prints to stdout."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    processes = [
        subprocess.Popen(
            words, cwd=REPOSITORY, env=variables_of(rank, size, port), stdout=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise UserError(f"{words[1]} ended with {[process.returncode for process in processes]}")
    return outputs


def train(folder: Path, pairs: Path, encoders: Path, size: int, num_epochs: int) -> list[dict[str, Any]]:
    """The rows of a training by `size` processes."""
    save_dir = folder / f"run-{size}"
    program = "scripts/training/train_face_voice_from_matched_file.py"
    options = {
        "matched_file": pairs,
        "save_dir": save_dir,
        "face_model": encoders / "vit-tiny",
        "voice_model": encoders / "wav2vec2-tiny",
        "batch_size": GLOBAL_BATCH // size,
        "num_epochs": num_epochs,
        "audio_duration_sec": 2,
        "test_size": 0.1,
        "val_size": 0,
        "num_workers": 0,
        "device": "cpu",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    run_processes([sys.executable, program, *words], size)
    rows: list[dict[str, Any]] = json.loads((save_dir / "history.json").read_text(encoding="utf-8"))
    return rows


def measure_gathering() -> list[float]:
    """Milliseconds of each size of GATHERED."""
    words = [sys.executable, str(Path(__file__).resolve()), "--gather_rank", "0"]
    times_ms: list[float] = json.loads(run_processes(words, 2)[0])
    return times_ms


def print_gathering() -> int:
    """One process of the measured gathering: prints the milliseconds as JSON."""
    import torch

    from facevox.training import distributed

    world = distributed.init("cpu")
    try:
        times_ms = []
        for rows in GATHERED:
            features = torch.randn(rows // world.size, EMBEDDING_DIM, requires_grad=True)
            seconds = []
            for _ in range(TIMES + 1):
                start_s = time.perf_counter()
                distributed.all_gather_rows(features).sum().backward()
                seconds.append(time.perf_counter() - start_s)
            times_ms.append(1000 * statistics.median(seconds[1:]))
        print(json.dumps(times_ms))
    finally:
        distributed.cleanup()
    return ExitCode.DONE


def measure_similarities() -> dict[int, float]:
    """Milliseconds of the loss by number of pairs, forward and backward, on one core."""
    import torch

    torch.set_num_threads(1)
    times_ms = {}
    for rows in GATHERED[:1]:
        faces, voices = (torch.randn(rows, EMBEDDING_DIM, requires_grad=True) for _ in range(2))
        seconds = []
        for _ in range(TIMES + 1):
            start_s = time.perf_counter()
            logits = faces @ voices.T
            targets = torch.arange(rows)
            loss = torch.nn.functional.cross_entropy(logits, targets)
            (loss + torch.nn.functional.cross_entropy(logits.T, targets)).backward()
            seconds.append(time.perf_counter() - start_s)
        times_ms[rows] = 1000 * statistics.median(seconds[1:])
    return times_ms


def measure_decoding(people: Path) -> dict[str, float]:
    """Seconds of voice in a second of processor time, out of videos (AAC) and out of wavs."""
    from facevox.media import read_audio

    rates = {}
    for name, pattern in (("AAC in mp4", "videos/**/*.mp4"), ("wav", "vox/**/*.wav")):
        files = sorted(people.glob(pattern))
        read_audio(files[0], RATE_HZ)
        start_s = time.process_time()
        num_samples = sum(len(read_audio(file, RATE_HZ)) for file in files for _ in range(TIMES))
        rates[name] = num_samples / RATE_HZ / (time.process_time() - start_s)
    return rates


if __name__ == "__main__":
    sys.exit(cli.run(main))
