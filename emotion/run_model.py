"""Run the trained classifier on this machine: on the webcam, on pictures, or on a video.

    python emotion/run_model.py                                               # TEST_MODE of .env: webcam
    python emotion/run_model.py --test_mode image --input_path photo.jpg      # or a folder
    python emotion/run_model.py --test_mode video --input_path clip.mp4 --output_dir runs/emotion

Where there is a screen a window shows the pictures; q or Escape closes it. image writes `<picture>.jpg` with
boxes and bars, `<picture>.json`, and `faces.csv` for all (with a manifest: run again, it does what is new);
video writes `<name>.mp4` (with its sound, mixed to mono), `<name>.csv` and `<name>.json`; webcam writes
nothing where there is a screen, and without one records `--webcam_s` seconds in the same three files.
Exit codes: 0 done; 1 some pictures could not be read (the table says which); 2 bad usage or input, or no
trained model; 75 stopped by a signal (run the same command again).
"""

import argparse
import hashlib
import locale
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.logger_config import get_logger, setup_logging
from emotion.settings import Settings, add_setting_arguments, load_settings
from facevox import cli, spreadsheets
from facevox.batch import BatchConfig, run_batch
from facevox.errors import ExitCode, UserError
from facevox.limits import memory_limit
from facevox.native_silence import native_silence
from facevox.signals import StopFlag

# emotion.live loads OpenCV, PyAV and the interpreter: where a mode needs it, so that --help is quick.
if TYPE_CHECKING:
    from emotion.live.annotation import RunConfig
    from emotion.live.face_log import AnnotatedVideo
    from emotion.live.viewer import Viewer

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
    parser.add_argument("--spreadsheet_safe", action="store_true", help=spreadsheets.HELP)
    add_setting_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the model in the chosen mode; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    settings = load_settings(args)
    from emotion.live import analysis, annotation, viewer

    model_file = analysis.find_model(settings.model_dir)
    if model_file is None:
        raise UserError(
            f"MODEL_DIR={settings.model_dir}: no trained model; train one on your data (make "
            "emotion-preprocess emotion-train) or let make demo train a small one"
        )
    language = _language(args.language)
    config = annotation.RunConfig(
        model_file=model_file,
        max_faces=settings.max_faces,
        language=language,
        spreadsheet_safe=args.spreadsheet_safe,
    )
    setup_logging(settings.log_dir)
    # Batches of pictures set up another flag inside this one, which is set too when a signal comes.
    with StopFlag() as stop, native_silence(), viewer.Viewer(not args.no_window) as window:
        if settings.test_mode == "image":
            return _run_pictures(settings, config, args, window)
        if settings.test_mode == "video":
            return _run_video(settings, config, args.output_dir, stop, window)
        return _run_webcam(config, args, stop, window)


def _language(option: str) -> str:
    if option != "auto":
        return option
    return "ko" if (locale.getlocale()[0] or "").lower().startswith("ko") else "en"


def _run_pictures(settings: Settings, config: "RunConfig", args: argparse.Namespace, viewer: "Viewer") -> int:
    from emotion.live import analysis, face_log, picture_task

    assert settings.input_path is not None  # Settings requires it
    items = picture_task.plan_pictures(settings.input_path, args.output_dir)
    names = analysis.read_about(config.model_file)["class_names"]
    batch = BatchConfig(
        program=PROGRAM,
        output_dir=args.output_dir,
        table=TABLE,
        columns=("picture", "annotated", *face_log.face_columns(names)),
        item_column="picture",
        settings={
            "model_sha256": hashlib.sha256(config.model_file.read_bytes()).hexdigest(),
            "max_faces": config.max_faces,
            "language": config.language,
        },
        unit="picture",
        overwrite=args.overwrite,
        spreadsheet_safe=config.spreadsheet_safe,
        debug=args.debug or viewer.is_open,  # the window is this process's
    )
    wait_ms = 0 if len(items) == 1 else 1  # one picture stays until a key is pressed
    summary = run_batch(picture_task.PictureTask(config, viewer, wait_ms), items, batch)
    get_logger("run_model").info(
        "%d pictures done, %d finished before, %d failed in %.1f s",
        *(summary.done, summary.skipped, summary.failed, summary.seconds),
    )
    return summary.exit_code


def _run_video(
    settings: Settings, config: "RunConfig", output_dir: Path, stop: StopFlag, viewer: "Viewer"
) -> int:
    from emotion.live import video_file

    path = settings.input_path
    assert path is not None
    if path.is_dir():
        raise UserError(f"INPUT_PATH={path}: is a folder; TEST_MODE=video needs a video file")
    if (output_dir / f"{path.stem}.mp4").resolve() == path.resolve():
        raise UserError(f"--output_dir {output_dir}: holds the video itself; choose another folder")
    try:
        with memory_limit(path):
            video = video_file.annotate_video(path, output_dir, config, stop, viewer)
    except video_file.Stopped:
        print(f"stopped by {stop.signal_name}; run the same command again", file=sys.stderr)
        return ExitCode.STOPPED
    _report(video)
    return ExitCode.DONE


def _run_webcam(config: "RunConfig", args: argparse.Namespace, stop: StopFlag, viewer: "Viewer") -> int:
    from emotion.live import camera

    if viewer.is_open:
        count = camera.show_webcam(args.camera, config, stop, viewer)
        get_logger("run_model").info("webcam: %d frames shown, none kept", count)
    else:
        _report(camera.record_webcam(args.camera, args.output_dir, config, stop, args.webcam_s))
    return ExitCode.STOPPED if stop else ExitCode.DONE


def _report(video: "AnnotatedVideo") -> None:
    """Logs counts and speed, and prints the paths of the files."""
    get_logger("run_model").info(
        "%d frames, %d faces in %.1f s (%.1f frames a second), %s",
        *(video["frames"], video["faces"], video["seconds"], video["frames"] / max(video["seconds"], 1e-9)),
        "with sound" if video["has_sound"] else "without sound",
    )
    for path in (video["video"], video["table"], video["about"]):
        print(f"  {path}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
