"""Measure the evaluation of face and voice embeddings: time, memory, and scikit-learn's AUC on fewer.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --num 100000

All measures (retrieval, 1:N, verification, intervals) of synthetic people with one face and one voice each,
unit vectors of 512 numbers. Bare product is the matrix of all similarities once, block by block and thrown
away, in the same run. Each part runs in a separate process, so that its peak memory is its own.

Exit codes: 0 done, 1 a bar is missed, 2 bad usage.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox import cli
from facevox.errors import ExitCode
from facevox_demo.figures import Figure, print_figures, write_figures

NUM_VALUES = 512
BLOCK = 1024
# Weight of what a person's face and voice have in common, against noise of 1: AUC of about 0.97.
LIKENESS = 0.35
SHORT_RUN = 30_000  # up to here more repetitions are cheap
# (items of each side, seconds): the bars of the project, for numbers up to these.
MAX_SECONDS = {10_000: 6.0, 100_000: 480.0}
MAX_MEMORY_GB = 2.0


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/evaluation.py --num 20000")
    parser.add_argument("--num", type=cli.positive_int, default=10_000, help="synthetic faces, and voices")
    parser.add_argument(
        "--sklearn_num",
        type=cli.natural_int,
        default=5_000,
        help="faces for the comparison with scikit-learn; 0: without",
    )
    parser.add_argument(
        "--strata",
        action="store_true",
        help="with synthetic genders and nationalities: strata and floors (default: without)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic people")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there (default: none)")
    parser.add_argument("--part", choices=("evaluation", "sklearn"), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.part:
        print(json.dumps(_measure(args)))
        return 0
    print(f"{args.num} faces × {args.num} voices of {NUM_VALUES} numbers, {cli.num_cores()} cores")
    figures = _evaluation_figures(_in_own_process("evaluation", args.num, args), args)
    if args.sklearn_num:
        figures += _sklearn_figures(_in_own_process("sklearn", args.sklearn_num, args), args.sklearn_num)
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


def _evaluation_figures(results: dict[str, Any], args: argparse.Namespace) -> list[Figure]:
    head = f"{args.num}{' with strata' if args.strata else ''}:"
    bar = next((seconds for num, seconds in MAX_SECONDS.items() if args.num <= num), None)
    ratio = results["evaluation_s"] / results["product_s"]
    return [
        Figure(f"{head} all measures", results["evaluation_s"], "s", bar, False, False),
        Figure(f"{head} all measures over bare product", round(ratio, 2), "x", None, False),
        Figure(f"{head} peak memory", results["peak_gb"], "GB", MAX_MEMORY_GB, False),
        Figure(f"{head} bare product", results["product_s"], "s", None, False, False),
        Figure(f"{head} AUC", results["auc"]),
    ]


def _sklearn_figures(results: dict[str, Any], num: int) -> list[Figure]:
    speed = results["sklearn_s"] / results["evaluation_s"]
    return [
        Figure(f"{num}: AUC differs from scikit-learn's by", results["difference"], "", 1e-12, False, False),
        Figure(f"{num}: times faster than scikit-learn's AUC alone", round(speed, 2), "x", 1.0),
        Figure(f"{num}: memory of scikit-learn's AUC", results["peak_gb"], "GB", None, False, False),
    ]


def make_people(num: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Synthetic faces (N, 512) and voices (N, 512); row i of both is person i."""
    generator = np.random.default_rng(seed)
    sides = np.empty((2, num, NUM_VALUES), np.float32)
    for start in range(0, num, 4096):  # in parts: the peak memory is to be that of the evaluation
        part = slice(start, start + 4096)
        count = len(sides[0, part])
        common = generator.standard_normal((count, NUM_VALUES), dtype=np.float32)
        for side in sides:
            noise = generator.standard_normal((count, NUM_VALUES), dtype=np.float32)
            mixed = LIKENESS * common + noise
            side[part] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return sides[0], sides[1]


def time_product(faces: NDArray[np.float32], voices: NDArray[np.float32]) -> float:
    """Seconds for the matrix of products, block by block into one buffer."""
    buffer = np.empty(BLOCK * BLOCK, np.float32)
    start_s = time.perf_counter()
    for row in range(0, len(faces), BLOCK):
        left = faces[row : row + BLOCK]
        for column in range(0, len(voices), BLOCK):
            right = voices[column : column + BLOCK]
            out = buffer[: len(left) * len(right)].reshape(len(left), len(right))
            np.matmul(left, right.T, out=out)
    return time.perf_counter() - start_s


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    from lc_pytorch.utils.metrics import evaluate_embeddings

    faces, voices = make_people(args.num, args.seed)
    people = np.arange(args.num)
    attributes = None
    if args.strata:
        generator = np.random.default_rng(args.seed)
        genders, nations = generator.integers(2, size=args.num), generator.geometric(0.2, size=args.num)
        attributes = {i: (f"g{genders[i]}", f"n{nations[i]}") for i in range(args.num)}
    product_s, evaluation_s = [], []
    # In turns, and the best of each: other work on the machine must not fall on one of them alone.
    for _ in range(3 if args.num <= SHORT_RUN else 1):
        if args.part == "evaluation":
            product_s.append(time_product(faces, voices))
        start_s = time.perf_counter()
        evaluation = evaluate_embeddings(faces, voices, people, people, attributes=attributes)
        evaluation_s.append(time.perf_counter() - start_s)
    auc = evaluation.verification["all"].auc.value
    results = {"evaluation_s": round(min(evaluation_s), 3), "auc": round(auc, 6)}
    if args.part == "evaluation":
        return {**results, "product_s": round(min(product_s), 3), "peak_gb": round(_peak_gb(), 3)}
    from sklearn.metrics import roc_auc_score

    start_s = time.perf_counter()
    theirs = roc_auc_score(np.equal.outer(people, people).ravel(), (faces @ voices.T).ravel())
    sklearn_s = time.perf_counter() - start_s
    difference = abs(float(theirs) - auc)
    return {**results, "sklearn_s": sklearn_s, "difference": difference, "peak_gb": round(_peak_gb(), 3)}


def _in_own_process(part: str, num: int, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--num", str(num), "--seed", str(args.seed)]
    command += ["--strata"] if args.strata and part == "evaluation" else []
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def _peak_gb() -> float:
    """Largest memory of this process so far; Linux counts it in kB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)


if __name__ == "__main__":
    sys.exit(cli.run(main))
