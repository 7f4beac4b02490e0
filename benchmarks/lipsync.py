"""Measures lip-sync: offsets found and clips distinguished on unseen people, and the speed end to end.

    python benchmarks/lipsync.py                     # example people, real clips if there, speed
    python benchmarks/lipsync.py --parts real --features_dir runs/features
    python benchmarks/lipsync.py --parts speed --json figures.json
    python benchmarks/lipsync.py --parts variants --results_dir runs/variants

Parts: example (12 synthetic people, in folds), real (the clips of $FACEVOX_TEST_DATA, ../shared/data without
it; left out, with a message, where there are none) and speed (scoring a clip of 360, 720 and 1080 lines end
to end, with the shares of its steps; "by processor time" is the rate of an otherwise idle core).
Only where they are asked for: fit (a model fitted to real clips whose offsets are hidden from it, some
minutes), and, as it takes an hour, variants (the folds, clips and windows of real for other
settings, each minus the shipped ones, small.yaml; a mean over seeds, as they differ by several points).
In all but speed the speakers are dealt into folds: network and ridge are fitted on the others, the untrained
estimator on nobody. In brackets after a figure: 95 % interval over speakers, with the seeds as they are.

Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage or bad input; 75 stopped (with
--results_dir the same command continues).
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox_demo.figures import Figure, print_figures, write_figures

FOLDER = Path(__file__).resolve().parent

if TYPE_CHECKING:
    from facevox.intervals import Measure
    from lipsync.network.evaluation import Measurements
    from lipsync.network.takes import Take
    from lipsync.settings import Settings

PARTS = ("example", "real", "speed")
FIT_PART = "fit"
REPOSITORY = FOLDER.parent
EXAMPLE_ACCURACY_BAR, EXAMPLE_AUC_BAR = 0.95, 0.98
NO_WORSE_BAR = 0.0  # of the network less the ridge
SPEED_BAR = 3.0  # times real time, 720 lines, two cores
HEIGHTS = (360, 720, 1080)
PROGRAM_S, LONG_S, PROGRAM_RUNS = 20.0, 120.0, 3  # whole runs of inference.py at 720 lines
PROGRAM_BAR, MEMORY_BAR_MB, GROWTH_BAR_MB = 6.0, 200.0, 0.2  # times real time; MB; MB a second
EXAMPLE_EPOCHS = 30  # synthetic lips follow their voice closely: soon learned
VARIANTS_PART = "variants"
SHIPPED = "shipped"
VARIANTS = {  # changes of small.yaml, as --set of lipsync/train.py takes them
    SHIPPED: (),
    "landmarks": ("model.visual_frontend=lip_landmarks", "model.sound_bands=0"),
    "lstm": ("model.temporal=lstm",),
    "transformer": ("model.temporal=transformer",),
    "width_16": ("model.hidden_dim=16",),
    "width_64": ("model.hidden_dim=64",),
    "slow": ("training.learning_rate=0.0001",),  # that of config.yaml
    "no_dropout": ("model.dropout=0",),
    # Narrower and for fewer epochs than the others: a fold takes minutes on a CPU even so.
    "mouth_cnn": (
        "model.visual_frontend=mouth_cnn",
        "model.sound_bands=0",
        "model.hidden_dim=16",
        "training.num_epochs=20",
    ),
}
VARIANT_FRAMES = (25, 50, 125)
BARRED_FRAMES = 125  # 5 s


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/lipsync.py --parts real --folds 18")
    add = parser.add_argument
    add(
        "--parts",
        nargs="+",
        choices=(*PARTS, FIT_PART, VARIANTS_PART),
        default=list(PARTS),
        help="what is measured",
    )
    add("--folds", type=cli.positive_int, default=6, help="into which the real speakers are dealt")
    add("--example_folds", type=cli.positive_int, default=3, help="into which the example people are dealt")
    add(
        "--num_epochs",
        type=cli.positive_int,
        help="of each training on real clips (default: as lipsync/small.yaml)",
    )
    add(
        "--features_dir",
        type=Path,
        metavar="DIR",
        help="keep the features of real clips there, and use those that exist (default: a temporary one)",
    )
    add(
        "--variants",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        metavar="NAME",
        help=f"of the part variants: {', '.join(VARIANTS)} (default: all; {SHIPPED} is always measured)",
    )
    add(
        "--seeds",
        nargs="+",
        type=cli.natural_int,
        default=[0, 1],
        metavar="N",
        help="of the part variants: each is trained with each seed",
    )
    add(
        "--results_dir",
        type=Path,
        metavar="DIR",
        help="keep each fold of the variants there, and continue from those that exist (default: none)",
    )
    add("--processed_dir", type=Path, metavar="DIR", help="existing example clips (default: they are made)")
    add("--clip_s", type=cli.positive_float, default=10.0, help="length of the clips of the part speed, in s")
    add("--json", type=Path, metavar="FILE", help="also write the figures there (default: none)")
    return parser


def _neighbour(name: str) -> Any:
    """Another benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _figure(name: str, value: "Measure", bar: float | None = None, **options: Any) -> Figure:
    people = f"{value.num} windows, {value.num_groups} people"
    return Figure(f"{name} ({value.low:.3f} to {value.high:.3f}; {people})", value.value, "", bar, **options)


def accuracy_figures(
    head: str, measurements: "Mapping[str, Measurements]", bars: dict[int, float]
) -> list[Figure]:
    """Offsets found by window and search, of each estimator, and the network less the ridge.

    Args:
        head: Begins the names.
        measurements: By estimator.
        bars: Least share for the network, by frames of a window, 600 ms searched to each side.
    """
    from facevox_demo.lipsync_folds import NETWORK, RIDGE, accuracy_difference
    from lipsync.network.evaluation import (
        LEAST_WIDE_FRAMES,
        SEARCH_MS,
        SEARCHES_MS,
        WINDOW_FRAMES,
        accuracy,
    )

    figures = []
    for search in SEARCHES_MS:
        for length in [n for n in WINDOW_FRAMES if search == SEARCH_MS or n >= LEAST_WIDE_FRAMES]:
            title = f"{head}: offset within 40 ms of ±{search:.0f}, {length / 25:g} s"
            for name, measured in measurements.items():
                if not any(measured.hits[search][length].values()):
                    continue
                bar = bars.get(length) if name == NETWORK and search == SEARCH_MS else None
                figures.append(_figure(f"{title}, {name}", accuracy(measured, length, search), bar))
            if not any(measurements[RIDGE].hits[search][length].values()):
                continue
            less = accuracy_difference(measurements[NETWORK], measurements[RIDGE], length, search)
            no_worse = NO_WORSE_BAR if search == SEARCH_MS and length in (50, 125) else None
            figures.append(_figure(f"{title}, network less ridge", less, no_worse, is_comparable=False))
    return figures


def answer_figures(head: str, measurements: "Mapping[str, Measurements]", bar: float | None) -> list[Figure]:
    """Answers of each estimator on windows, its AUC and calibration error; 1000 ms searched.

    Args:
        head: Begins the names.
        measurements: By estimator; each speaker's by a calibration fitted on the others.
        bar: Least AUC of the network in windows of 5 s.
    """
    from facevox_demo.lipsync_folds import NETWORK, RIDGE, auc_difference
    from lipsync.network.evaluation import SCORED_FRAMES, SHIFTED, SWAPPED, answer_measures

    figures = []
    for length in SCORED_FRAMES:
        title = f"{head}, {length / 25:g} s"
        for name, measured in measurements.items():
            for what, value in answer_measures(measured, length).items():
                is_barred = name == NETWORK and length == BARRED_FRAMES and what.startswith("AUC")
                is_higher = what.startswith(("AUC", "shifted: right", "in sync", 'swapped: said to be "no'))
                figures.append(
                    _figure(
                        f"{title}: {what}, {name}",
                        value,
                        bar if is_barred else None,
                        is_better_higher=is_higher,
                        is_comparable=False,
                    )
                )
        for kind in (SHIFTED, SWAPPED):
            if measurements[NETWORK].answers[length, kind] and measurements[RIDGE].answers[length, kind]:
                less = auc_difference(measurements[NETWORK], measurements[RIDGE], length, kind)
                figures.append(
                    _figure(
                        f"{title}: AUC, in sync against {kind}, network less ridge", less, is_comparable=False
                    )
                )
    return figures


def measure_example(args: argparse.Namespace, folder: Path) -> list[Figure]:
    """Synthetic people: 12 with two clips of 10 s."""
    from facevox_demo.lipsync_folds import RECIPE, cross_validate
    from lipsync.network.split import deal_folds
    from lipsync.network.takes import list_clips, load_takes

    processed = args.processed_dir or make_example_clips(folder)
    takes = list(load_takes(list_clips(processed)))
    folds = deal_folds(takes, args.example_folds)
    measurements = cross_validate(takes, folds, training=replace(RECIPE, num_epochs=EXAMPLE_EPOCHS))
    figures = accuracy_figures("example", measurements, {125: EXAMPLE_ACCURACY_BAR})
    return figures + answer_figures("example", measurements, EXAMPLE_AUC_BAR)


def make_example_clips(folder: Path) -> Path:
    """Makes and processes the example people of the demo's size."""
    from facevox.batch import BatchConfig, run_batch
    from facevox_demo.example import dataset
    from lipsync import data_processing

    config = dataset.SetConfig(num_people=12, clips_per_person=2, clip_s=10.0, shapes=("videos",))
    batch = BatchConfig(
        output_dir=folder / "people",
        program=dataset.PROGRAM,
        table="people.csv",
        columns=dataset.COLUMNS,
        item_column="person",
        settings=config.settings(),
        unit="person",
        workers=cli.num_cores(),
    )
    run_batch(dataset.PeopleTask(config), dataset.make_items(config), batch)
    processed = folder / "processed"
    options = [f"paths.videos_dir={folder / 'people' / 'videos'}", f"paths.audios_dir={folder / 'none'}"]
    options.append(f"paths.processed_dir={processed}")
    arguments = [part for option in options for part in ("--set", option)]
    if data_processing.main([*arguments, "--workers", str(cli.num_cores())]) != ExitCode.DONE:
        raise UserError("some example clips could not be processed; the reasons are above")
    return processed


def measure_real(args: argparse.Namespace, folder: Path) -> list[Figure]:
    """Real people; no figures without their clips."""
    from facevox_demo.lipsync_folds import RECIPE, cross_validate
    from lipsync.network.split import deal_folds

    takes = load_real_takes(args, folder)
    if not takes:
        return []
    folds = deal_folds(takes, args.folds)
    measurements = cross_validate(
        takes, folds, training=replace(RECIPE, num_epochs=args.num_epochs or RECIPE.num_epochs)
    )
    return accuracy_figures("real", measurements, {}) + answer_figures("real", measurements, None)


def load_real_takes(args: argparse.Namespace, folder: Path) -> "list[Take]":
    """Real people's clips of known offset; an empty list, with a message, where there are no clips."""
    from facevox_demo.lipsync_folds import LIST_FILE, real_takes, sample_data_dir

    data_dir = sample_data_dir()
    if not (data_dir / LIST_FILE).is_file():
        print("no real clips ($FACEVOX_TEST_DATA): their figures are left out")
        return []
    return real_takes(data_dir, args.features_dir or folder / "features")


def measure_fit(args: argparse.Namespace, folder: Path) -> list[Figure]:
    """A model fitted to clips whose offsets are hidden from it; no figures without real clips.

    They are of people whom the model of the package has not seen. Whole clips are compared with the known
    offsets, windows with those that were found.
    """
    import torch

    from facevox.training.distributed import World
    from lipsync.network.evaluation import accuracy, answer_measures
    from lipsync.network.fitting import fit_folder
    from lipsync.settings import Settings
    from lipsync.shipped.clips import load_shipped_takes

    familiar = {take.speaker for take in load_shipped_takes()}
    takes = [take for take in load_real_takes(args, folder) if take.speaker not in familiar]
    if not takes:
        return []
    hidden = [replace(take, offset_ms=0.0) for take in takes]
    start_s = time.perf_counter()
    result = fit_folder(hidden, folder / "fit", Settings(), World(device=torch.device("cpu")))
    minutes = (time.perf_counter() - start_s) / 60
    pairs = zip(result.found, takes, strict=True)
    errors_ms = [abs(one.take.offset_ms - take.offset_ms) for one, take in pairs if one.is_used]
    title = f"fit: {len(takes)} clips of {len({take.speaker for take in takes})} people"
    figures = [
        Figure(f"{title}, one core", minutes, "min", is_better_higher=False, is_comparable=False),
        Figure(f"{title}, whose offset is found", len(errors_ms), is_comparable=False),
        Figure(f"{title}, largest error", max(errors_ms), "ms", is_better_higher=False, is_comparable=False),
    ]
    for name, measured in result.results.items():
        for length in (25, 50, 125, 250):
            what = f"fit: offset within 40 ms of ±600, {length / 25:g} s, {name}"
            if any(measured.hits[600.0][length].values()):
                figures.append(_figure(what, accuracy(measured, length), is_comparable=False))
        for length in (50, 125):
            for what, value in answer_measures(measured, length).items():
                figures.append(_figure(f"fit, {length / 25:g} s: {what}, {name}", value, is_comparable=False))
    return figures


def measure_variants(args: argparse.Namespace, folder: Path) -> list[Figure]:
    """Other settings on real people; no figures without their clips."""
    from facevox_demo.lipsync_folds import offsets_fold_by_fold, pool_seeds
    from lipsync.network.split import deal_folds

    takes = load_real_takes(args, folder)
    if not takes:
        return []
    folds = deal_folds(takes, args.folds)
    results_dir = args.results_dir or folder / "results"
    seeds = list(dict.fromkeys(args.seeds))
    measurements = {}
    for name in dict.fromkeys((SHIPPED, *args.variants)):
        by_seed = [
            offsets_fold_by_fold(
                takes,
                folds,
                variant_settings(name, seed, args.num_epochs),
                results_dir / name / f"seed_{seed}",
            )
            for seed in seeds
        ]
        measurements[name] = pool_seeds(by_seed)
    return variant_figures(measurements, seeds)


def variant_settings(name: str, seed: int, num_epochs: int | None = None) -> "Settings":
    """small.yaml as a variant changes it, for another number of epochs if one is given."""
    from lipsync.settings import SMALL_SET_FILE, load_settings

    epochs = (f"training.num_epochs={num_epochs}",) if num_epochs else ()
    return load_settings(SMALL_SET_FILE, (*VARIANTS[name], f"training.seed={seed}", *epochs))


def variant_figures(measurements: "dict[str, dict[str, Measurements]]", seeds: Sequence[int]) -> list[Figure]:
    """Offsets found of each variant and of the ridge, and of each less the shipped network.

    Args:
        measurements: By variant and estimator. A variant is its network with the ridge, as a training leaves
            it; "NAME alone" is its network without.
        seeds: That are pooled in each.
    """
    from facevox_demo.lipsync_folds import ALONE, NETWORK, RIDGE, accuracy_difference
    from lipsync.network.evaluation import accuracy

    rows = {name: by_estimator[NETWORK] for name, by_estimator in measurements.items()}
    rows |= {f"{name} alone": by_estimator[ALONE] for name, by_estimator in measurements.items()}
    rows[RIDGE] = measurements[SHIPPED][RIDGE]
    figures = []
    for length in VARIANT_FRAMES:
        title = f"variants: offset within 40 ms of ±600, {length / 25:g} s"
        for name, measured in rows.items():
            values = {f"{title}, {name}": accuracy(measured, length)}
            if name != SHIPPED:
                less = accuracy_difference(measured, rows[SHIPPED], length)
                values[f"{title}, {name} less {SHIPPED}"] = less
            for text, value in values.items():
                one_seed = replace(value, num=value.num // len(seeds))  # each window counts once
                figures.append(_figure(text, one_seed, is_comparable=False))
    return figures


def measure_speed(args: argparse.Namespace, folder: Path) -> list[Figure]:
    """Scoring end to end, and the shares of its steps at 720 lines."""
    import cv2

    from lipsync.inference import LipSyncInference

    processing = _neighbour("lipsync_processing")
    scorer = LipSyncInference()
    figures = []
    for height in HEIGHTS:
        processing.WIDTH, processing.HEIGHT = height * 16 // 9 // 2 * 2, height
        clip = folder / f"{height}.mp4"
        make_scaled_clip(processing, clip, args.clip_s)
        scorer.compute_sync_score(clip)  # imports, graphs, file cache
        start_s, processor_s = time.perf_counter(), time.process_time()
        scorer.compute_sync_score(clip)
        seconds, processor_s = time.perf_counter() - start_s, time.process_time() - processor_s
        bar = SPEED_BAR if height == 720 else None
        name = f"scoring end to end, {height} lines, times real time"
        title = f"{name}, {cli.num_cores()} cores"
        figures.append(Figure(title, args.clip_s / seconds, "x", bar, is_comparable=False))
        figures.append(Figure(f"{name}, by processor time", args.clip_s / processor_s, "x"))
        if height == 720:
            cv2.setNumThreads(cli.num_cores())
            figures += share_figures(processing, scorer, clip, folder)
            figures += program_figures(processing, folder)
    return figures


def program_figures(processing: Any, folder: Path) -> list[Figure]:
    """Whole runs of inference.py, start included: their rate, their memory, and how it grows."""
    memories_mb: dict[float, float] = {}
    rate = 0.0
    for clip_s in (PROGRAM_S, LONG_S):
        clip = folder / f"{clip_s:g}s.mp4"
        processing.make_clip(clip, clip_s, 25.0)
        command = [sys.executable, "-c", processing.SCORE, "--video", str(clip), "--features", "numpy"]
        for _ in range(PROGRAM_RUNS if clip_s == PROGRAM_S else 1):
            start_s = time.perf_counter()
            done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
            seconds = time.perf_counter() - start_s
            memory_mb = 1000 * float(done.stdout.splitlines()[-1].split()[1])
            memories_mb[clip_s] = min(memory_mb, memories_mb.get(clip_s, memory_mb))
            if clip_s == PROGRAM_S:
                rate = max(rate, clip_s / seconds)
    growth_mb = (memories_mb[LONG_S] - memories_mb[PROGRAM_S]) / (LONG_S - PROGRAM_S)
    name = f"inference.py on {PROGRAM_S:g} s of 720 lines, start included"
    return [
        Figure(f"{name}: times real time", rate, "x", PROGRAM_BAR, is_comparable=False),
        Figure(f"{name}: memory", memories_mb[PROGRAM_S], "MB", MEMORY_BAR_MB, is_better_higher=False),
        Figure("memory for each further second", growth_mb, "MB", GROWTH_BAR_MB, is_better_higher=False),
    ]


def make_scaled_clip(processing: Any, path: Path, clip_s: float) -> None:
    """The example person of the preprocessing benchmark, in a picture of its WIDTH x HEIGHT."""
    import cv2

    from facevox.media import iter_frames, read_audio, write_video

    width, height = processing.WIDTH, processing.HEIGHT
    processing.WIDTH, processing.HEIGHT = 1280, 720
    whole = path.with_name("whole.mp4")
    if not whole.exists():
        processing.make_clip(whole, clip_s, 25.0)
    processing.WIDTH, processing.HEIGHT = width, height
    frames = (cv2.resize(frame.image, (width, height)) for frame in iter_frames(whole))
    write_video(path, frames, 25.0, read_audio(whole, 16_000), 16_000)


def share_figures(processing: Any, scorer: Any, clip: Path, folder: Path) -> list[Figure]:
    """Shares of decoding, detector, FaceMesh, sound and network of one clip, in one process."""
    from lipsync.clips.features import extract_clip
    from lipsync.sync.scoring import score_clip

    shares, total_s = processing.measure_shares(clip, folder)
    features = extract_clip(clip)
    start_s = time.perf_counter()
    score_clip(features, scorer.method.estimator, scorer.method.calibration)
    model_s = time.perf_counter() - start_s
    shares = {name: part_s for name, part_s in shares.items() if name != "write"} | {"model": model_s}
    total_s = sum(shares.values())
    return [
        Figure(f"scoring at 720 lines, share of {name}", part_s / total_s, is_comparable=False)
        for name, part_s in sorted(shares.items(), key=lambda share: -share[1])
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    import torch

    torch.set_num_threads(1)  # networks this small are fastest on one thread
    parts = {
        "example": measure_example,
        "real": measure_real,
        "speed": measure_speed,
        FIT_PART: measure_fit,
        VARIANTS_PART: measure_variants,
    }
    with tempfile.TemporaryDirectory(prefix="facevox-") as name:
        figures = [figure for part in args.parts for figure in parts[part](args, Path(name))]
    is_met = print_figures(figures) if figures else True
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
