"""Measure the grouping of faces: time against bare matrix products, memory, and DBSCAN on fewer faces.

    python benchmarks/grouping.py
    python benchmarks/grouping.py --num_faces 20000

The faces are synthetic: unit vectors of 512 numbers, 20 for each person, with cosines of about 0.65 inside a
person. Bare products are half of the matrix of all similarities, computed block by block and thrown away (the
faster of two block sizes, all cores). Each part runs in a separate process, so that its peak memory is its
own. The bar of a comparison with DBSCAN is DBSCAN's own value.

Exit codes: 0 done, 1 a bar is missed, 2 bad usage.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox import cli
from facevox.errors import ExitCode
from facevox_demo.figures import Figure, peak_memory_gb, print_figures, write_figures

NUM_VALUES = 512
# Deviation of the noise, relative to a person's unit vector: cosine inside a person 1 / (1 + 0.73²) = 0.65.
NOISE = 0.73
THRESHOLD = 0.5
SHORT_RUN_FACES = 30_000  # up to here more repetitions are cheap
MAX_RATIO = 1.5
MAX_MEMORY_GB = 2.0


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/grouping.py --num_faces 20000")
    parser.add_argument("--num_faces", type=cli.positive_int, default=100_000, help="synthetic faces")
    parser.add_argument("--faces_per_person", type=cli.positive_int, default=20, help="of each person")
    parser.add_argument(
        "--dbscan_faces",
        type=cli.natural_int,
        default=20_000,
        help="faces for the comparison with DBSCAN; 0: without",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic faces")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there (default: none)")
    parser.add_argument("--part", choices=("products", "grouping", "dbscan"), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if args.part:
        print(json.dumps(_measure(args.part, args.num_faces, args.faces_per_person, args.seed)))
        return 0
    print(f"{args.num_faces} faces of {NUM_VALUES} numbers, {cli.num_cores()} cores")
    figures = _grouping_figures(_in_own_process("grouping", args.num_faces, args), args.num_faces)
    if args.dbscan_faces:
        dbscan = _in_own_process("dbscan", args.dbscan_faces, args)
        figures += _dbscan_figures(dbscan, args.dbscan_faces)
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


def _grouping_figures(results: dict[str, Any], num_faces: int) -> list[Figure]:
    ratio = results["grouping_s"] / results["products_s"]
    return [
        Figure(f"{num_faces}: grouping over bare products", round(ratio, 3), "x", MAX_RATIO, False),
        Figure(f"{num_faces}: peak memory", results["peak_gb"], "GB", MAX_MEMORY_GB, False),
        Figure(f"{num_faces}: B-cubed F1", round(results["bcubed_f1"], 4)),
        Figure(f"{num_faces}: grouping", results["grouping_s"], "s", None, False, False),
        Figure(f"{num_faces}: bare products", results["products_s"], "s", None, False, False),
    ]


def _dbscan_figures(results: dict[str, Any], num_faces: int) -> list[Figure]:
    """Comparison with scikit-learn's DBSCAN (same threshold, min_samples 2): no slower and no worse."""
    figures = []
    for name, what in (("apart", "people apart"), ("lookalikes", "1 % look-alikes")):
        ours, theirs = results[name]["ours"], results[name]["dbscan"]
        head = f"{num_faces}, {what}:"
        speed = theirs["seconds"] / ours["seconds"]
        figures.append(Figure(f"{head} times faster than DBSCAN", round(speed, 2), "x", 1.0))
        for key, title in (("bcubed_f1", "B-cubed F1"), ("rand", "adjusted Rand")):
            figures.append(Figure(f"{head} {title}", round(ours[key], 4), "", round(theirs[key], 4)))
    return figures


def make_faces(
    num_faces: int, faces_per_person: int, seed: int, between_share: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Synthetic embeddings (N, 512) and their people (N,).

    Args:
        num_faces: N.
        faces_per_person: Of each person.
        seed: Of the random numbers.
        between_share: Share of faces that are half-way to the next person: look-alikes that link people.
    """
    generator = np.random.default_rng(seed)
    num_people = max(num_faces // faces_per_person, 1)
    people = np.arange(num_faces) % num_people
    centres = generator.standard_normal((num_people, NUM_VALUES), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    faces = generator.standard_normal((num_faces, NUM_VALUES), dtype=np.float32)
    faces *= np.float32(NOISE / np.sqrt(NUM_VALUES))
    is_between = generator.random(num_faces) < between_share
    for start in range(0, num_faces, 4096):  # in parts: the peak memory is to be that of the grouping
        part = slice(start, start + 4096)
        middle = centres[people[part]].copy()
        neighbour = centres[(people[part] + 1) % num_people]
        middle[is_between[part]] += neighbour[is_between[part]]
        faces[part] += middle / np.linalg.norm(middle, axis=1, keepdims=True)
        faces[part] /= np.linalg.norm(faces[part], axis=1, keepdims=True)
    return faces, people


def time_products(faces: NDArray[np.float32], block: int) -> float:
    """Seconds for half of the matrix of products, block by block into one buffer."""
    buffer = np.empty(block * block, np.float32)
    start_s = time.perf_counter()
    for row in range(0, len(faces), block):
        left = faces[row : row + block]
        for column in range(row, len(faces), block):
            right = faces[column : column + block]
            out = buffer[: len(left) * len(right)].reshape(len(left), len(right))
            np.matmul(left, right.T, out=out)
    return time.perf_counter() - start_s


def _measure(part: str, num_faces: int, faces_per_person: int, seed: int) -> dict[str, Any]:
    from lc_pytorch.faces.grouping import bcubed_f1, group_faces

    if part == "dbscan":
        return _measure_dbscan(num_faces, faces_per_person, seed)
    faces, people = make_faces(num_faces, faces_per_person, seed)
    products_s, grouping_s = [], []
    # In turns, and the best of each: other work on the machine must not fall on one of them alone.
    for block in (1024, 4096) if num_faces > SHORT_RUN_FACES else (1024, 4096) * 3:
        products_s.append(time_products(faces, block))
        start_s = time.perf_counter()
        labels = group_faces(faces, THRESHOLD)
        grouping_s.append(time.perf_counter() - start_s)
    peak_gb = peak_memory_gb()
    return {
        "grouping_s": round(min(grouping_s), 3),
        "products_s": round(min(products_s), 3),
        "peak_gb": round(peak_gb, 3),
        "bcubed_f1": bcubed_f1(labels, people),
    }


def _measure_dbscan(num_faces: int, faces_per_person: int, seed: int) -> dict[str, Any]:
    """Both methods on people who resemble nobody, and with one face in a hundred between two people."""
    from sklearn.cluster import DBSCAN
    from sklearn.metrics import adjusted_rand_score

    from lc_pytorch.faces.grouping import bcubed_f1, group_faces

    results: dict[str, Any] = {}
    for name, share in (("apart", 0.0), ("lookalikes", 0.01)):
        faces, people = make_faces(num_faces, faces_per_person, seed, share)
        start_s = time.perf_counter()
        ours = group_faces(faces, THRESHOLD)
        ours_s = time.perf_counter() - start_s
        start_s = time.perf_counter()
        theirs = DBSCAN(eps=THRESHOLD, min_samples=2, metric="cosine", n_jobs=cli.num_cores()).fit_predict(
            faces
        )
        theirs_s = time.perf_counter() - start_s
        alone = theirs == -1
        theirs[alone] = theirs.max() + 1 + np.arange(int(alone.sum()))  # everyone alone is a person
        results[name] = {
            "ours": {
                "seconds": round(ours_s, 3),
                "bcubed_f1": bcubed_f1(ours, people),
                "rand": float(adjusted_rand_score(people, ours)),
            },
            "dbscan": {
                "seconds": round(theirs_s, 3),
                "bcubed_f1": bcubed_f1(theirs, people),
                "rand": float(adjusted_rand_score(people, theirs)),
            },
        }
    return results


def _in_own_process(part: str, num_faces: int, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--num_faces", str(num_faces)]
    command += ["--faces_per_person", str(args.faces_per_person), "--seed", str(args.seed)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    sys.exit(cli.run(main))
