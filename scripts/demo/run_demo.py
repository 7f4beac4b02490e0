"""Run the whole product once on example data, and write a report with pictures.

    python scripts/demo/run_demo.py --output_dir runs/demo

Each stage is one of the programs that you would call yourself; its command is shown. Finished work is skipped
when the demo is run again. --parts runs only the named parts, and those that they need. Writes
`<output_dir>/report.html` and `<output_dir>/demo.json` (seconds and results of each stage). Exit codes:
0 done, 1 a stage failed, 2 bad usage, 75 stopped by a signal.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import read_json, write_json
from facevox.signals import StopFlag

REPOSITORY = Path(__file__).resolve().parents[2]
# The settings that learn most from 120 people in a minute on two cores; real encoders need others.
FACE_VOICE_SETTINGS = (
    *("--embedding_dim", "128", "--temperature", "0.1", "--learnable_temperature"),
    *("--learning_rate", "1e-3", "--weight_decay", "0.2", "--batch_size", "32", "--num_epochs", "64"),
    *("--audio_duration_sec", "1", "--save_interval", "1000"),
)
HQ_SETTINGS = (
    *("--mel_pooling", "attentive", "--embedding_dim", "128", "--temperature", "0.1"),
    *("--learning_rate", "1e-3", "--weight_decay", "0.05", "--batch_size", "42", "--num_epochs", "54"),
    *("--save_interval", "1000"),
)


# The parts in order, each with the parts whose results it reads.
PARTS: dict[str, tuple[str, ...]] = {
    "faces": (),
    "face-voice": ("faces",),
    "hq": ("faces", "face-voice"),
    "lipsync": (),
    "emotion": ("faces",),  # a clip of its people is annotated
    "landmarks": ("emotion",),
}
# Scores that the models exceed on at least SMALLEST_SET example people, with a margin.
EXPECTED = {
    "face_voice": ("auc", 0.7),
    "hq_voxceleb": ("auc", 0.7),
    "emotion": ("macro_f1", 0.6),
    "landmarks": ("balanced_accuracy", 0.6),
}
SMALLEST_SET = 100
LIPSYNC_SETTINGS = (
    "training.num_epochs=30",
    "training.split=[8,2,2]",
    "training.offsets=zero",
)  # the others: lipsync/small.yaml
# From scratch and within a minute: no frozen part, no mixing, and statistics of few steps.
EMOTION_SETTINGS = (
    *("--img_size", "96", "--batch_size", "32", "--backbone_weights", "none", "--epochs_head", "0"),
    *("--epochs_finetune", "8", "--learning_rate_finetune", "0.002", "--unfreeze_from", "0"),
    *("--freeze_bn_mode", "none", "--p_mixup", "0", "--p_cutmix", "0", "--dropout_rate", "0.1"),
    *("--weight_decay", "0.01", "--ema_decay", "0.9"),
)


@dataclass(frozen=True)
class Stage:
    """A program of the demo: its title, and its command as seen from the repository."""

    title: str
    arguments: Callable[[], list[str]]


class StageTime(TypedDict):
    """A finished stage, as in demo.json."""

    stage: str
    command: str
    seconds: float


@dataclass(frozen=True)
class Demo:
    """Folders and options that the stages share."""

    folder: Path
    num_people: int
    seed: int
    workers: int

    @property
    def data(self) -> Path:
        """The example people with short clips."""
        return self.folder / "example_data"

    @property
    def encoders(self) -> Path:
        """The tiny encoders."""
        return self.folder / "encoders"

    @property
    def worker_options(self) -> list[str]:
        """Options of programs that take any number of workers."""
        return ["--workers", str(self.workers)]

    @property
    def training_options(self) -> list[str]:
        """Options of trainings: two loader workers are enough for a training on two cores."""
        return ["--num_workers", str(min(self.workers, 2)), "--seed", str(self.seed)]


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/demo/run_demo.py --output_dir runs/demo")
    parser.add_argument(
        "--output_dir", type=Path, default="runs/demo", metavar="DIR", help="folder for everything"
    )
    parser.add_argument("--num_people", type=cli.positive_int, default=120, help="example people")
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the example people")
    parser.add_argument(
        "--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="what to run (default: all)"
    )
    parser.add_argument("--workers", type=cli.natural_int, default=cli.num_cores(), help="worker processes")
    return parser


def with_needed(parts: Sequence[str]) -> list[str]:
    """The parts to run, in order: those named, and those whose results they read."""
    needed = set(parts)
    for name in reversed(PARTS):  # a part reads results of earlier ones only
        if name in needed:
            needed.update(PARTS[name])
    return [name for name in PARTS if name in needed]


def make_stages(demo: Demo, parts: Sequence[str]) -> list[Stage]:
    """The programs in order. A later one's arguments may depend on an earlier one's result."""
    stages_of = {
        "faces": _face_stages,
        "face-voice": _face_voice_stages,
        "hq": _hq_stages,
        "lipsync": _lipsync_stages,
        "emotion": _emotion_stages,
        "landmarks": _landmark_stages,
    }
    return [stage for name in parts for stage in stages_of[name](demo)]


def _face_stages(demo: Demo) -> list[Stage]:
    """Stages of example people, their faces by person, their voices, pairs."""
    folder, data, embedder = demo.folder, demo.data, demo.folder / "embedder"

    def prepare() -> list[str]:
        threshold = read_json(embedder / "demo_embedder.json")["threshold"]
        return [
            "scripts/preprocessing/prepare_faces.py",
            *("--dataset_path", str(data / "videos"), "--output_base_dir", str(folder / "faces")),
            *("--detector_backend", "mediapipe", "--model_name", str(embedder / "demo_embedder.onnx")),
            *("--threshold", str(threshold), *demo.worker_options),
        ]

    return [
        Stage(
            "Example data",
            lambda: [
                "scripts/demo/make_example_data.py",
                *("--output_dir", str(data), "--num_people", str(demo.num_people)),
                *("--clips_per_person", "2", "--clip_s", "2", "--seed", str(demo.seed)),
                *demo.worker_options,
            ],
        ),
        Stage(
            "Face embedder of the demo",
            lambda: [
                "scripts/demo/train_demo_embedder.py",
                *("--output_dir", str(embedder), "--seed", str(demo.seed + 1000), *demo.worker_options),
            ],
        ),
        Stage("Faces and groups", prepare),
        Stage(
            "Voices",
            lambda: [
                "scripts/preprocessing/extract_voices.py",
                *("--dataset_path", str(data / "videos"), "--output_dir", str(folder / "voices")),
                *demo.worker_options,
            ],
        ),
        Stage(
            "Pairs",
            lambda: [
                "scripts/preprocessing/create_matched_file.py",
                *("-d", str(data / "vox"), "-m", str(data / "vox" / "metadata.json")),
                *("-o", str(folder / "pairs"), "-l", "2"),
            ],
        ),
    ]


def _face_voice_stages(demo: Demo) -> list[Stage]:
    """Training of a face-voice model, and its test on people who are not in its training data."""
    faces, model = demo.folder / "faces", demo.folder / "face_voice"
    pairs = [
        *("--image_folder", str(faces / "extracted_faces"), "--audio_folder", str(demo.folder / "voices")),
        *("--identity_csv", str(faces / "deduped_faces" / "groups.csv")),
    ]
    return [
        Stage(
            "Tiny encoders",
            lambda: [
                "scripts/demo/make_tiny_encoders.py",
                *("--output_dir", str(demo.encoders), "--image_size", "64", "--dropout", "0.15"),
            ],
        ),
        Stage(
            "Face-voice training",
            lambda: [
                *("scripts/training/train_face_voice.py", *pairs, "--save_dir", str(model)),
                *("--face_model", str(demo.encoders / "vit-tiny")),
                *("--voice_model", str(demo.encoders / "wav2vec2-tiny")),
                *(*FACE_VOICE_SETTINGS, *demo.training_options),
            ],
        ),
        Stage(
            "Face-voice evaluation",
            lambda: [
                *("scripts/evaluation/evaluate_face_voice.py", *pairs, "--model_dir", str(model)),
                *("--output_file", str(model / "results.csv"), "--audio_duration_sec", "2"),
                # Validation on ten people is a noisy choice of an epoch; the last one is stable, as the
                # learning rate ends at 0.
                *("--checkpoint", "last"),
            ],
        ),
    ]


def _hq_stages(demo: Demo) -> list[Stage]:
    """Split, training and test with masked faces and mel spectrograms."""
    tree, model = demo.data / "hq", demo.folder / "hq_voxceleb"
    return [
        Stage(
            "HQ VoxCeleb split",
            lambda: [
                "scripts/hq/create_hq_voxceleb_split.py",
                *("--vox_dir", str(tree), "--output_json", str(tree / "split.json")),
                *("--test_ratio", "0.2", "--val_ratio", "0.1", "--seed", str(demo.seed)),
            ],
        ),
        Stage(
            "HQ VoxCeleb training",
            lambda: [
                "scripts/hq/train_hq_voxceleb.py",
                *("--split_json_path", str(tree / "split.json"), "--dataset_type", "both"),
                *("--save_dir", str(model), "--face_model", str(demo.encoders / "vit-tiny")),
                *(*HQ_SETTINGS, *demo.training_options),
            ],
        ),
        Stage(
            "HQ VoxCeleb evaluation",
            lambda: ["scripts/hq/evaluate_hq_voxceleb.py", "--model_dir", str(model)],
        ),
    ]


def _lipsync_stages(demo: Demo) -> list[Stage]:
    """Training of a lip-sync model on a few talking people; scores of other people's clips, and a repair."""
    from facevox_demo.report import lipsync as lipsync_report  # imports OpenCV

    folder = demo.folder / "lipsync"
    videos, checkpoint = folder / "talking" / "videos", folder / "checkpoints" / "best_model.pth"
    paths = {
        "videos_dir": videos,
        "audios_dir": folder / "none",  # the sound is in the videos
        "processed_dir": folder / "processed",
        "checkpoint_dir": folder / "checkpoints",
        "log_dir": folder / "logs",
    }

    def settings(*values: str) -> list[str]:
        assignments = [*(f"paths.{name}={path}" for name, path in paths.items()), *values]
        return [word for assignment in assignments for word in ("--set", assignment)]

    def score(*options: str) -> list[str]:
        return ["lipsync/inference.py", "--checkpoint", str(checkpoint), *options]

    shifted, repaired = folder / lipsync_report.SHIFTED_FILE, folder / lipsync_report.REPAIRED_FILE

    def shift() -> list[str]:
        return [
            *("lipsync/inference.py", "--video", str(lipsync_report.held_out_clips(folder, videos)[0])),
            *("--output", str(shifted), "--offset_ms", str(-lipsync_report.DEMO_OFFSET_MS)),
        ]

    def score_clips() -> list[str]:
        pairs = lipsync_report.write_demo_pairs(folder, videos)
        return score("--batch", str(pairs), "--output_dir", str(folder / lipsync_report.SCORES_DIR))

    def repair() -> list[str]:
        plot = folder / lipsync_report.PLOT_FILE
        return score("--video", str(shifted), "--output", str(repaired), "--plot", str(plot))

    def score_again() -> list[str]:
        pairs = lipsync_report.write_repaired_pairs(folder)
        return score("--batch", str(pairs), "--output_dir", str(folder / lipsync_report.REPAIRED_SCORES_DIR))

    return [
        Stage(
            "Talking people",
            lambda: [
                "scripts/demo/make_example_data.py",
                *("--output_dir", str(folder / "talking"), "--num_people", "12", "--clips_per_person", "2"),
                *("--clip_s", "10", "--shape", "videos", "--seed", str(demo.seed), *demo.worker_options),
            ],
        ),
        Stage(
            "Lip-sync processing",
            lambda: [
                *("lipsync/data_processing.py", *settings("data.max_faces=1")),
                *demo.worker_options,
            ],
        ),
        Stage(
            "Lip-sync training",
            lambda: [
                *("lipsync/train.py", "--config", "lipsync/small.yaml"),
                *settings(*LIPSYNC_SETTINGS, f"training.seed={demo.seed}"),
            ],
        ),
        Stage("A clip with its sound shifted", shift),
        Stage("Lip-sync scores", score_clips),
        Stage("Lip-sync repair", repair),
        Stage("Score of the repaired clip", score_again),
    ]


def _emotion_stages(demo: Demo) -> list[Stage]:
    """Stages of expressions, from AIHub-shaped archives to a calibrated classifier and its use."""
    from facevox_demo.report import live as live_report  # imports OpenCV

    folder = demo.folder / "emotion"
    crops = folder / "crops"
    common = [
        *("--data_dir_train", str(crops / "train"), "--data_dir_val", str(crops / "validation")),
        *("--log_dir", str(folder / "logs"), "--seed", str(demo.seed)),
    ]
    return [
        Stage(
            "People with expressions",
            lambda: [
                "scripts/demo/make_example_data.py",
                *("--output_dir", str(folder / "example"), "--num_people", "40", "--shape", "aihub"),
                *("--seed", str(demo.seed), *demo.worker_options),
            ],
        ),
        Stage(
            "Expression crops",
            lambda: [
                *("emotion/preprocess.py", *common, "--img_size", "96"),
                *("--data_dir_raw", str(folder / "example" / "aihub" / "archives"), *demo.worker_options),
            ],
        ),
        Stage(
            "Expression training",
            lambda: [
                *("emotion/main.py", *common, "--model_dir", str(folder / "models"), *EMOTION_SETTINGS),
            ],
        ),
        Stage("Expressions in pictures", lambda: live_report.picture_command(folder)),
        Stage("Expressions in a video", lambda: live_report.video_command(folder, demo.data / "videos")),
    ]


def _landmark_stages(demo: Demo) -> list[Stage]:
    """Stages of the same expressions from FaceMesh's points only, read directly from the archives."""
    from facevox_demo.report import landmarks as landmarks_report  # imports OpenCV

    folder, archives = demo.folder / "landmarks", demo.folder / "emotion" / "example" / "aihub" / "archives"
    return [
        Stage(
            "Landmarks out of archives",
            lambda: landmarks_report.extract_arguments(archives, folder, demo.workers),
        ),
        Stage("Landmark training", lambda: landmarks_report.train_arguments(folder, demo.seed)),
    ]


def write_report(folder: Path, times: Sequence[StageTime], parts: Sequence[str]) -> dict[str, Any]:
    """Writes `report.html`; returns the results that it shows."""
    from facevox_demo.report import emotion as emotion_report  # they import OpenCV, torch, matplotlib
    from facevox_demo.report import face_voice as face_voice_report
    from facevox_demo.report import landmarks as landmarks_report
    from facevox_demo.report import lipsync as lipsync_report
    from facevox_demo.report import live as live_report
    from facevox_demo.report.page import Report

    report = Report(
        "facevox demo", "Synthetic people, real files, every step with the programs that you would use."
    )
    report.section("Stages")
    report.table(["stage", "seconds"], [(row["stage"], round(row["seconds"], 1)) for row in times])
    results: dict[str, Any] = {}
    if "faces" in parts:
        face_voice_report.add_example_data(report, folder / "example_data")
        face_voice_report.add_faces(report, folder / "faces" / "extracted_faces")
        facts = read_json(folder / "embedder" / "demo_embedder.json")
        results["groups"] = face_voice_report.add_groups(report, folder / "faces", facts)
        face_voice_report.add_voices(report, folder / "voices")
        face_voice_report.add_pairs(report, folder / "pairs")
    if "face-voice" in parts:
        results["face_voice"] = face_voice_report.add_model(report, "Face-voice model", folder / "face_voice")
    if "hq" in parts:
        results["hq_voxceleb"] = face_voice_report.add_model(
            report, "HQ VoxCeleb model", folder / "hq_voxceleb"
        )
    if "lipsync" in parts:
        results["lipsync"] = lipsync_report.add_lipsync(report, folder / "lipsync")
    if "emotion" in parts:
        results["emotion"] = emotion_report.add_emotion(report, folder / "emotion")
        results["live"] = live_report.add_live(report, folder / "emotion")
    if "landmarks" in parts:
        results["landmarks"] = landmarks_report.add_landmarks(report, folder / "landmarks")
    report.section("Commands")
    report.code("\n".join(row["command"] for row in times))
    report.write(folder / "report.html")
    return results


def print_results(times: Sequence[StageTime], results: dict[str, Any]) -> None:
    """Prints the measured values, one on each line."""
    print("\nThe demo is done:")
    for row in times:
        print(f"  {row['seconds']:7.1f} s  {row['stage']}")
    print(f"  {sum(row['seconds'] for row in times):7.1f} s  in all")
    if "groups" in results:
        groups = results["groups"]
        print(
            f"  {groups['faces']} faces of {groups['people']} people in {groups['groups']} groups, "
            f"B-cubed F1 {groups['bcubed_f1']}"
        )
    for name, title in (("face_voice", "face-voice model"), ("hq_voxceleb", "HQ VoxCeleb model")):
        if name in results:
            scores = results[name]
            print(
                f"  {title}, {scores['people']} people never seen: AUC {scores['auc']:.3f} (chance 0.5), "
                f"top-1 {scores['top_1']:.3f} (chance {scores['chance_top_1']:.3f})"
            )
    for kind, answer in results.get("lipsync", {}).items():
        score, offset_ms = answer["score"], answer["offset_ms"]
        offset = f"offset {round(offset_ms):+d} ms" if offset_ms != "" else "offset unknown"
        print(f"  lip-sync, {kind}: score {score}, {offset}")
    for name, title in (("emotion", "expressions"), ("landmarks", "expressions from landmarks")):
        if name in results:
            scores, measure = results[name], EXPECTED[name][0]
            print(
                f"  {title}, {scores['people']} people not trained on: {measure.replace('_', ' ')} "
                f"{scores[measure]:.3f} (chance {scores['chance']:.3f})"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    folder = Path(args.output_dir)
    parts = with_needed(args.parts)
    stages = make_stages(Demo(folder, args.num_people, args.seed, args.workers), parts)
    times: list[StageTime] = []
    begin_s = time.monotonic()
    for number, stage in enumerate(stages, start=1):
        arguments = stage.arguments()
        command = shlex.join(["python", *arguments])
        print(f"\n[{number}/{len(stages)}] {stage.title}\n$ {command}", flush=True)
        start_s = time.monotonic()
        with StopFlag():  # a signal reaches the whole group: the stage ends cleanly, and then so do we
            code = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=False).returncode
        seconds = time.monotonic() - start_s
        times.append({"stage": stage.title, "command": command, "seconds": round(seconds, 2)})
        if code != ExitCode.DONE:
            print(f"demo: {stage.title} ended with exit code {code}; run the same command again to continue")
            return ExitCode.STOPPED if code == ExitCode.STOPPED else ExitCode.SOME_FAILED
    total_s = time.monotonic() - begin_s
    results = write_report(folder, times, parts)
    write_json(folder / "demo.json", {"seconds": round(total_s, 1), "stages": times, **results})
    print_results(times, results)
    missed = [
        f"{part}: {measure} {results[part][measure]:.3f}, at least {bar} was expected"
        for part, (measure, bar) in EXPECTED.items()
        if part in results and args.num_people >= SMALLEST_SET and results[part][measure] < bar
    ]
    if missed:
        print("demo: a model did not learn: " + "; ".join(missed))
        return ExitCode.SOME_FAILED
    print(f"Report: {folder / 'report.html'}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
