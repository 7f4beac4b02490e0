"""Run the trained classifier on this machine: on the webcam, on pictures, or on a video.

    python emotion/run_model.py                                               # TEST_MODE of .env: webcam
    python emotion/run_model.py --test_mode image --input_path photo.jpg      # or a folder
    python emotion/run_model.py --test_mode video --input_path clip.mp4 --output_dir runs/emotion

Where there is a screen a window shows what is done; q or Escape closes it. image writes `<picture>.jpg` with
boxes and bars, `<picture>.json`, and `faces.csv` for all (with a manifest: run again, it does what is new);
video writes `<name>.mp4` (with its sound, mixed to mono), `<name>.csv` and `<name>.json`; webcam writes
nothing where there is a screen, and without one records `--webcam_s` seconds in the same three files.
Exit codes: 0 done; 1 some pictures could not be read (the table says which); 2 bad usage or input, or no
trained model; 75 stopped by a signal (run the same command again).
"""

import argparse
import locale
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.settings import Settings, add_setting_arguments, load_settings
from facevox import cli
from facevox.errors import ExitCode, UserError

if TYPE_CHECKING:
    from emotion.live.local_runner import Made, RunConfig, Viewer
    from facevox.signals import StopFlag

PROGRAM = "emotion_pictures"  # in the manifest
TABLE = "faces.csv"
LANGUAGES = ("auto", "en", "ko")


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python emotion/run_model.py --test_mode video --input_path clip.mp4 --output_dir runs/emotion",
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/emotion"), metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        default="auto",
        help="of the labels in the pictures; auto: Korean where the machine speaks it",
    )
    parser.add_argument("--no_window", action="store_true", help="open no window although there is a screen")
    parser.add_argument("--camera", type=cli.natural_int, default=0, help="number of the webcam")
    parser.add_argument(
        "--webcam_s",
        type=cli.positive_float,
        default=10.0,
        help="seconds to record from the webcam where there is no screen",
    )
    parser.add_argument("--overwrite", action="store_true", help="do pictures again that are done")
    add_setting_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the model in the chosen mode; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    settings = load_settings(args)
    from emotion.live.analysis import find_model
    from emotion.live.local_runner import RunConfig, Viewer
    from emotion.logger_config import setup_logging
    from facevox.native_silence import native_silence
    from facevox.signals import StopFlag

    model_file = find_model(settings.model_dir)
    if model_file is None:
        raise UserError(
            f"MODEL_DIR={settings.model_dir}: no trained model; train one on your data (make "
            "emotion-preprocess emotion-train) or let make demo train a small one"
        )
    config = RunConfig(model_file=model_file, max_faces=settings.max_faces, language=_language(args.language))
    setup_logging(settings.log_dir)
    # Batches of pictures have a flag of their own; one inside another hands on what came between.
    with StopFlag() as stop, native_silence(), Viewer(not args.no_window) as viewer:
        if settings.test_mode == "image":
            return _run_pictures(settings, config, args, viewer)
        if settings.test_mode == "video":
            return _run_video(settings, config, args.output_dir, stop, viewer)
        return _run_webcam(config, args, stop, viewer)


def _language(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "ko" if (locale.getlocale()[0] or "").lower().startswith("ko") else "en"


def _run_pictures(settings: Settings, config: "RunConfig", args: argparse.Namespace, viewer: "Viewer") -> int:
    import hashlib

    from emotion.live.analysis import read_about
    from emotion.live.local_runner import PictureTask, face_columns, plan_pictures
    from emotion.logger_config import get_logger
    from facevox.batch import BatchConfig, run_batch

    assert settings.input_path is not None  # Settings asks for it
    items = plan_pictures(settings.input_path, args.output_dir)
    names = read_about(config.model_file)["class_names"]
    batch = BatchConfig(
        program=PROGRAM,
        output_dir=args.output_dir,
        table=TABLE,
        columns=("picture", "annotated", *face_columns(names)),
        item_column="picture",
        settings={
            "model_sha256": hashlib.sha256(config.model_file.read_bytes()).hexdigest(),
            "max_faces": config.max_faces,
            "language": config.language,
        },
        unit="picture",
        overwrite=args.overwrite,
    )
    wait_ms = 0 if len(items) == 1 else 1  # one picture stays until a key is pressed
    summary = run_batch(PictureTask(config, viewer, wait_ms), items, batch)
    get_logger("run_model").info(
        "%d pictures done, %d finished before, %d failed in %.1f s",
        *(summary.done, summary.skipped, summary.failed, summary.seconds),
    )
    return summary.exit_code


def _run_video(
    settings: Settings, config: "RunConfig", output_dir: Path, stop: "StopFlag", viewer: "Viewer"
) -> int:
    from emotion.live.local_runner import Stopped, annotate_video

    path = settings.input_path
    assert path is not None
    if path.is_dir():
        raise UserError(f"INPUT_PATH={path}: is a folder; TEST_MODE=video wants a video file")
    if (output_dir / f"{path.stem}.mp4").resolve() == path.resolve():
        raise UserError(f"--output_dir {output_dir}: holds the video itself; choose another folder")
    try:
        made = annotate_video(path, output_dir, config, stop, viewer)
    except Stopped:
        print(f"stopped by {stop.signal_name}; run the same command again", file=sys.stderr)
        return ExitCode.STOPPED
    _tell(made)
    return ExitCode.DONE


def _run_webcam(config: "RunConfig", args: argparse.Namespace, stop: "StopFlag", viewer: "Viewer") -> int:
    from emotion.live.local_runner import record_webcam, show_webcam
    from emotion.logger_config import get_logger

    if viewer.is_open:
        count = show_webcam(args.camera, config, stop, viewer)
        get_logger("run_model").info("webcam: %d frames shown, none kept", count)
    else:
        _tell(record_webcam(args.camera, args.output_dir, config, stop, args.webcam_s))
    return ExitCode.STOPPED if stop else ExitCode.DONE


def _tell(made: "Made") -> None:
    """Logs counts and speed, and prints where the files are."""
    from emotion.logger_config import get_logger

    get_logger("run_model").info(
        "%d frames, %d faces in %.1f s (%.1f frames a second), %s",
        *(made["frames"], made["faces"], made["seconds"], made["frames"] / max(made["seconds"], 1e-9)),
        "with sound" if made["has_sound"] else "without sound",
    )
    for path in (made["video"], made["table"], made["about"]):
        print(f"  {path}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
