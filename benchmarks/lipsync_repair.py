"""Measures how right a repaired file is: sound that drifts, with a hole, with too much, with two holes.

    python benchmarks/lipsync_repair.py --data_dir data
    python benchmarks/lipsync_repair.py --data_dir data --clips German_20s.mp4

Talking clips of $FACEVOX_TEST_DATA of 20 s and more whose offset is known are put in sync by it, damaged, and
repaired by `LipSyncInference.sync_video_audio`, which knows neither. The sound of the result is then compared
with that of the clip in sync, sound against sound, in windows of 4 s: by how much it is off, by kind of
damage, without the windows within 2 s of a jump. The offsets of the list are right to about 20 ms, which is
part of the error. 42 files take 15 minutes on two cores. Without the data nothing is measured.
Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import scratch_folder
from facevox_demo.figures import Figure, add_data_option, print_figures, write_figures
from lipsync.sync.timing import Cut, Timing

if TYPE_CHECKING:
    from lipsync.inference import LipSyncInference

DAMAGES = {
    "drift of +0.6 %": Timing(0.0, 6_000.0),
    "drift of -1 %": Timing(0.0, -10_000.0),
    "drift of +4.2 %, 25 pictures at 24": Timing(0.0, 41_667.0),
    "drift of -4 %": Timing(0.0, -40_000.0),
    "hole of 200 ms": Timing(0.0, cuts=(Cut(9.3, -200.0),)),
    "300 ms too much": Timing(0.0, cuts=(Cut(11.1, 300.0),)),
    "two holes": Timing(0.0, cuts=(Cut(6.7, -250.0), Cut(13.2, -180.0))),
}
LEAST_S = 20.0
RATE_HZ = 16_000
WINDOW_S, NEAR_JUMP_S = 4.0, 2.0
WRITTEN_BAR, MEDIAN_BAR_MS = 0.9, 30.0


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/lipsync_repair.py --data_dir data")
    add_data_option(parser)
    add = parser.add_argument
    add("--clips", nargs="+", metavar="NAME", help="those alone (default: all of 20 s and more)")
    add("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def long_clips(data_dir: Path, names: Sequence[str] | None) -> list[tuple[Path, float]]:
    """Clips of one person with their offset in ms."""
    from facevox_demo.lipsync_folds import MIN_Z, talking_clips

    return [
        (data_dir / row["file"], float(row["est_offset_ms"]))
        for row in talking_clips(data_dir)
        if float(row["duration_s"]) >= LEAST_S
        and float(row["est_offset_z"] or 0) >= MIN_Z
        and "people" not in row["identity"]
        and (names is None or Path(row["file"]).name in names)
    ]


def errors_ms(repaired: Path, good: Path, damage: Timing) -> list[float]:
    """By how much the sound of a file is off in each window: sound against sound."""
    from facevox.media import read_audio
    from lipsync.repair.alignment import align_recordings
    from lipsync.repair.recordings import SoundIndex, recording_of

    samples, index = read_audio(repaired, RATE_HZ), SoundIndex.of(recording_of(read_audio(good, RATE_HZ)))
    jumps_s = [cut.at_s for cut in damage.cuts]
    errors = []
    for start_s in np.arange(0.5, len(samples) / RATE_HZ - WINDOW_S, WINDOW_S / 2).tolist():
        if any(start_s - NEAR_JUMP_S < at_s < start_s + WINDOW_S + NEAR_JUMP_S for at_s in jumps_s):
            continue
        first = round(start_s * RATE_HZ)
        window = recording_of(samples[first : first + round(WINDOW_S * RATE_HZ)])
        placed = align_recordings(window, index)
        if placed.is_aligned:
            middle_s = WINDOW_S / 2 * (1 + placed.drift_ppm / 1e6)
            errors.append(1000 * (placed.start_s + middle_s - start_s - WINDOW_S / 2))
    return errors


def figures_of(clips: Sequence[tuple[Path, float]], folder: Path) -> Iterator[Figure]:
    """The figures of each kind of damage over all clips."""
    from lipsync.inference import LipSyncInference

    inference = LipSyncInference()
    yield Figure("clips", len(clips), "", is_comparable=False)
    for name, damage in DAMAGES.items():
        written, worst, typical = [], [], []
        for video, offset_ms in clips:
            errors = repaired_errors(inference, video, offset_ms, damage, folder)
            written.append(errors is not None)
            if errors:
                worst.append(float(np.abs(errors).max()))
                typical.append(float(np.median(np.abs(errors))))
        yield Figure(f"{name}: files written", float(np.mean(written)), "", WRITTEN_BAR)
        if typical:
            median_ms = float(np.median(typical))
            yield Figure(f"{name}: error, median", median_ms, "ms", MEDIAN_BAR_MS, is_better_higher=False)
            yield Figure(f"{name}: error, worst window of all", max(worst), "ms", is_better_higher=False)


def repaired_errors(
    inference: "LipSyncInference", video: Path, offset_ms: float, damage: Timing, folder: Path
) -> list[float] | None:
    """Errors of a clip after damage and repair; None where nothing was written."""
    from lipsync.repair.shift import shift_audio

    good, bad, repaired = (folder / f"{name}.mp4" for name in ("good", "bad", "repaired"))
    repaired.unlink(missing_ok=True)
    shift_audio(video, good, offset_ms)
    shift_audio(video, bad, offset_ms, drift_ppm=damage.drift_ppm, cuts=damage.cuts)
    is_done, message = inference.sync_video_audio(bad, None, repaired)
    print(f"{video.name}: {message}", file=sys.stderr)
    return errors_ms(repaired, good, damage) if is_done else None


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the figures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if not (Path(args.data_dir) / "MANIFEST.csv").is_file():
        print(f"no talking clips in {args.data_dir}: nothing is measured")
        return ExitCode.DONE
    with scratch_folder() as folder:
        figures = list(figures_of(long_clips(Path(args.data_dir), args.clips), folder))
    print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if all(figure.is_met for figure in figures) else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
