"""Measures what the newer mesh and its blendshapes are worth for expressions, on people left out.

    python benchmarks/landmark_inputs.py --data_dir data
    python benchmarks/landmark_inputs.py --data_dir data --num_splits 3     # a trial

`data/emotion/images/<happiness|neutral|sadness>/<person>_<number>.jpg` (of $FACEVOX_TEST_DATA) are press
pictures with noisy labels. The landmark classifier is trained with its own settings, on each mesh and each
kind of inputs, with the same people left out; other people in each split. Balanced accuracy is its mean
over the splits, chance is 0.333; the difference is from FaceMesh's landmarks in the same split, with the
standard error over splits beside it. Time is processor time of a picture of 350 x 350 pixels. Without the
data nothing is measured. Exit codes: 0; 2 bad usage.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from facevox import cli
from facevox.errors import ExitCode
from facevox.native_silence import native_silence
from facevox_demo.figures import Figure, add_data_option, print_figures, write_figures

REPOSITORY = Path(__file__).resolve().parent.parent
EXPRESSIONS = {"happiness": "happy", "neutral": "neutral", "sadness": "sad"}
VAL_SHARE = 0.3
TIMED_PICTURES = 60


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/landmark_inputs.py --data_dir data")
    add_data_option(parser)
    parser.add_argument("--num_splits", type=cli.positive_int, default=12, help="ways of leaving people out")
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def make_archives(data_dir: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """An archive for each expression, whose members are named as AIHub does; and the labels."""
    from facevox_demo.example.aihub import write_zip

    archives = []
    for name in EXPRESSIONS:
        files = sorted((data_dir / "emotion" / "images" / name).glob("*.jpg"))

        def members(files: list[Path] = files, name: str = name) -> Iterator[tuple[str, bytes]]:
            for file in files:
                person, number = file.stem.rsplit("_", 1)
                yield f"{person.replace('_', ' ')}_남_20_{name}_{number}.jpg", file.read_bytes()

        archives.append(folder / f"{name}.zip")
        write_zip(archives[-1], members(), "utf-8")
    return archives, list(EXPRESSIONS.values())


def measure(data_dir: Path, num_splits: int, folder: Path) -> Iterator[Figure]:
    """The figures."""
    from emotion.landmarks.extraction import run_extraction
    from emotion.landmarks.options import BLENDSHAPES, BOTH, LANDMARKS, ExtractConfig
    from facevox.batch import BatchOptions
    from facevox.mesh.kinds import FACE_LANDMARKER, FACE_MESH, MESHES

    archives, labels = make_archives(data_dir, folder)
    for mesh in MESHES:
        config = ExtractConfig(
            zips=tuple(archives), labels=tuple(labels), output_dir=folder / mesh, mesh=mesh
        )
        statuses = run_extraction(config, BatchOptions(debug=True)).statuses
        yield Figure(f"{mesh}: pictures with a face", statuses["done"], "", is_comparable=False)
        yield Figure(f"{mesh}: a picture", time_of(mesh, data_dir), "ms CPU", is_comparable=False)
    kinds = [
        (FACE_MESH, LANDMARKS),
        *((FACE_LANDMARKER, inputs) for inputs in (LANDMARKS, BLENDSHAPES, BOTH)),
    ]
    scores = {kind: np.array([score(folder, *kind, seed) for seed in range(num_splits)]) for kind in kinds}
    for kind, values in scores.items():
        name = ", ".join(kind)
        yield Figure(f"{name}: balanced accuracy", float(values.mean()), "", is_comparable=False)
        if kind != kinds[0]:
            gain = values - scores[kinds[0]]
            error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float("nan")
            yield Figure(f"{name}: more than {', '.join(kinds[0])}", float(gain.mean()), is_comparable=False)
            yield Figure(f"{name}: standard error of that", error, is_comparable=False)


def score(folder: Path, mesh: str, inputs: str, seed: int) -> float:
    """Balanced accuracy on the people that `seed` leaves out."""
    import torch

    from emotion.landmarks.options import TrainConfig
    from emotion.landmarks.run import run_training
    from emotion.scores.report import REPORT_FILE
    from facevox.files import read_json
    from facevox.training.distributed import World

    save_dir = folder / f"{mesh} {inputs} {seed}"
    config = TrainConfig(
        landmarks_dir=folder / mesh,
        save_dir=save_dir,
        class_names=tuple(EXPRESSIONS.values()),
        inputs=inputs,
        val_share=VAL_SHARE,
        seed=seed,
        device="cpu",
    )
    run_training(config, World(device=torch.device("cpu")))
    value: float = read_json(save_dir / "evaluation" / REPORT_FILE)["balanced_accuracy"]["value"]
    return value


def time_of(mesh: str, data_dir: Path) -> float:
    """Milliseconds of processor time of a picture, the reader's work included."""
    from emotion.landmarks.reader import PictureReader
    from facevox.errors import NoFaceError

    files = sorted((data_dir / "emotion" / "images" / "neutral").glob("*.jpg"))[: TIMED_PICTURES + 1]
    with PictureReader(mesh) as reader:
        for index, file in enumerate(files):
            if index == 1:  # the first one is to warm up
                started_s = time.process_time()
            try:
                reader.read(str(file), -1, file.name)
            except NoFaceError:
                continue
        return 1000 * (time.process_time() - started_s) / (len(files) - 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if not (args.data_dir / "emotion" / "images").is_dir():
        print(f"{args.data_dir}: no emotion/images in it; nothing is measured")
        return ExitCode.DONE
    import torch

    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="facevox-") as name, native_silence():
        figures = list(measure(args.data_dir, args.num_splits, Path(name)))
    print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
