"""Run the whole product once on example data, and write a report with pictures.

    python scripts/demo/run_demo.py --output_dir runs/demo

Each stage is one of the programs that you would call yourself; its command is shown. Stages that are finished
are skipped when the demo is run again. Writes `<output_dir>/report.html` and `<output_dir>/demo.json`
(seconds and results of each stage). Exit codes: 0 done, 1 a stage failed, 2 bad usage,
75 stopped by a signal.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facevox import cli
from facevox.errors import ExitCode

if TYPE_CHECKING:
    from facevox.report import Report

REPOSITORY = Path(__file__).resolve().parents[2]
# What learns most from 120 people in a minute on two cores; real encoders want other settings.
FACE_VOICE_SETTINGS = (
    *("--embedding_dim", "128", "--temperature", "0.1", "--learnable_temperature"),
    *("--learning_rate", "1e-3", "--weight_decay", "0.2", "--batch_size", "64", "--num_epochs", "80"),
    *("--audio_duration_sec", "1", "--save_interval", "1000"),
)
HQ_SETTINGS = (
    *("--mel_pooling", "attentive", "--embedding_dim", "128", "--temperature", "0.1"),
    *("--learning_rate", "1e-3", "--weight_decay", "0.05", "--batch_size", "84", "--num_epochs", "60"),
    *("--save_interval", "1000"),
)


@dataclass(frozen=True)
class Stage:
    """A program of the demo: its title, and its command as seen from the repository."""

    title: str
    arguments: Callable[[], list[str]]


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/demo/run_demo.py --output_dir runs/demo")
    parser.add_argument("--output_dir", default="runs/demo", metavar="DIR", help="folder for everything")
    parser.add_argument("--num_people", type=cli.positive_int, default=120, help="example people")
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the example people")
    parser.add_argument("--workers", type=cli.natural_int, default=cli.num_cores(), help="worker processes")
    return parser


def make_stages(args: argparse.Namespace, folder: Path) -> list[Stage]:
    """The programs in order. A later one's arguments may depend on an earlier one's result."""
    data, faces, embedder = folder / "example_data", folder / "faces", folder / "embedder"
    encoders, model = folder / "encoders", folder / "face_voice"
    hq_split, hq_model = data / "hq" / "split.json", folder / "hq_voxceleb"
    workers = ["--workers", str(args.workers)]

    def prepare() -> list[str]:
        threshold = _read_json(embedder / "demo_embedder.json")["threshold"]
        return [
            "scripts/preprocessing/prepare_faces.py",
            *("--dataset_path", str(data / "videos"), "--output_base_dir", str(faces)),
            *("--detector_backend", "mediapipe", "--model_name", str(embedder / "demo_embedder.onnx")),
            *("--threshold", str(threshold), *workers),
        ]

    return [
        Stage(
            "Example data",
            lambda: [
                "scripts/demo/make_example_data.py",
                *("--output_dir", str(data), "--num_people", str(args.num_people)),
                *("--clips_per_person", "2", "--clip_s", "2", "--seed", str(args.seed), *workers),
            ],
        ),
        Stage(
            "Face embedder of the demo",
            lambda: [
                "scripts/demo/train_demo_embedder.py",
                *("--output_dir", str(embedder), "--seed", str(args.seed + 1000), *workers),
            ],
        ),
        Stage("Faces and groups", prepare),
        Stage(
            "Voices",
            lambda: [
                "scripts/preprocessing/extract_voices.py",
                *("--dataset_path", str(data / "videos"), "--output_dir", str(folder / "voices"), *workers),
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
        Stage(
            "Tiny encoders",
            lambda: [
                "scripts/demo/make_tiny_encoders.py",
                *("--output_dir", str(encoders), "--image_size", "64", "--dropout", "0.15"),
            ],
        ),
        Stage(
            "Face-voice training",
            lambda: [
                "scripts/training/train_face_voice.py",
                *("--image_folder", str(faces / "extracted_faces"), "--audio_folder", str(folder / "voices")),
                *("--identity_csv", str(faces / "deduped_faces" / "groups.csv"), "--save_dir", str(model)),
                *("--face_model", str(encoders / "vit-tiny")),
                *("--voice_model", str(encoders / "wav2vec2-tiny"), *FACE_VOICE_SETTINGS),
                *("--num_workers", str(min(args.workers, 2)), "--seed", str(args.seed)),
            ],
        ),
        Stage(
            "Face-voice evaluation",
            lambda: [
                "scripts/evaluation/evaluate_face_voice.py",
                *("--image_folder", str(faces / "extracted_faces"), "--audio_folder", str(folder / "voices")),
                *("--identity_csv", str(faces / "deduped_faces" / "groups.csv"), "--model_dir", str(model)),
                *("--output_file", str(model / "results.csv"), "--audio_duration_sec", "2"),
            ],
        ),
        Stage(
            "HQ VoxCeleb split",
            lambda: [
                "scripts/hq/create_hq_voxceleb_split.py",
                *("--vox_dir", str(data / "hq"), "--output_json", str(hq_split)),
                *("--test_ratio", "0.2", "--val_ratio", "0.1", "--seed", str(args.seed)),
            ],
        ),
        Stage(
            "HQ VoxCeleb training",
            lambda: [
                "scripts/hq/train_hq_voxceleb.py",
                *("--split_json_path", str(hq_split), "--dataset_type", "both", "--save_dir", str(hq_model)),
                *("--face_model", str(encoders / "vit-tiny"), *HQ_SETTINGS),
                *("--num_workers", str(min(args.workers, 2)), "--seed", str(args.seed)),
            ],
        ),
        Stage(
            "HQ VoxCeleb evaluation",
            lambda: ["scripts/hq/evaluate_hq_voxceleb.py", "--model_dir", str(hq_model)],
        ),
    ]


def _read_json(path: Path) -> Any:
    from facevox.files import read_json

    return read_json(path)


def write_report(folder: Path, times: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes `report.html`; returns the results that it shows."""
    from facevox.report import Report
    from lc_pytorch import demo_report

    report = Report(
        "facevox demo", "Made-up people, real files, every step with the programs that you would use."
    )
    report.section("Stages")
    report.table(["stage", "seconds"], [(row["stage"], round(row["seconds"], 1)) for row in times])
    demo_report.add_example_data(report, folder / "example_data")
    demo_report.add_faces(report, folder / "faces" / "extracted_faces")
    facts = _read_json(folder / "embedder" / "demo_embedder.json")
    groups = demo_report.add_groups(report, folder / "faces", facts)
    demo_report.add_voices(report, folder / "voices")
    demo_report.add_pairs(report, folder / "pairs")
    scores = demo_report.add_model(report, "Face-voice model", folder / "face_voice")
    hq_scores = demo_report.add_model(report, "HQ VoxCeleb model", folder / "hq_voxceleb")
    _add_commands(report, times)
    report.write(folder / "report.html")
    return {"groups": groups, "face_voice": scores, "hq_voxceleb": hq_scores}


def _add_commands(report: "Report", times: list[dict[str, Any]]) -> None:
    report.section("Commands")
    report.code("\n".join(row["command"] for row in times))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox.files import write_json
    from facevox.signals import StopFlag

    folder = Path(args.output_dir)
    stages = make_stages(args, folder)
    times: list[dict[str, Any]] = []
    begin_s = time.monotonic()
    for number, stage in enumerate(stages, start=1):
        arguments = stage.arguments()
        command = shlex.join(["python", *arguments])
        print(f"\n[{number}/{len(stages)}] {stage.title}\n$ {command}", flush=True)
        start_s = time.monotonic()
        with StopFlag():  # a signal goes to the whole group: the stage ends in good order, and then so do we
            code = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, check=False).returncode
        seconds = time.monotonic() - start_s
        times.append({"stage": stage.title, "command": command, "seconds": round(seconds, 2)})
        if code != ExitCode.DONE:
            print(
                f"demo: {stage.title} ended with exit code {code}; run the same command to go on from there"
            )
            return ExitCode.STOPPED if code == ExitCode.STOPPED else ExitCode.SOME_FAILED
    total_s = time.monotonic() - begin_s
    results = write_report(folder, times)
    write_json(folder / "demo.json", {"seconds": round(total_s, 1), "stages": times, **results})
    print("\nThe demo is done:")
    for row in times:
        print(f"  {row['seconds']:7.1f} s  {row['stage']}")
    print(f"  {total_s:7.1f} s  in all")
    groups = results["groups"]
    print(
        f"  {groups['faces']} faces of {groups['people']} people in {groups['groups']} groups, "
        f"B-cubed F1 {groups['bcubed_f1']}"
    )
    for name, title in (("face_voice", "face-voice model"), ("hq_voxceleb", "HQ VoxCeleb model")):
        scores = results[name]
        print(
            f"  {title}, {scores['people']} people never seen: AUC {scores['auc']:.3f} (chance 0.5), "
            f"top-1 {scores['top_1']:.3f} (chance {scores['chance_top_1']:.3f})"
        )
    print(f"Report: {folder / 'report.html'}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
