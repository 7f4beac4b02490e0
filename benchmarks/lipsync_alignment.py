"""Measures the alignment of sounds: the error at both ends of a clip, false alarms, and the speed.

    python benchmarks/lipsync_alignment.py --data_dir data
    python benchmarks/lipsync_alignment.py --data_dir data --parts unrelated --num_unrelated 300

Voices and talking clips of $FACEVOX_TEST_DATA are joined to a master of ten minutes, from which clips are
cut at random and recorded again (`facevox_demo/other_recorders.py`). Parts: recorders (error of clips of 5,
30 and 120 s), unrelated (clips against masters of other recordings of the same speakers, also with the same
hum or noise in both; none may be aligned), hour (a clip of 59 minutes by AAC in an hour by MP3, with the time
of each step on an otherwise idle core). Error: the larger one of both ends, in ms. Without the data nothing
is measured.
Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox import cli
from facevox.errors import ExitCode
from facevox_demo.figures import Figure, add_data_option, print_figures, write_figures

if TYPE_CHECKING:
    from lipsync.repair.recordings import SoundIndex

PARTS = ("recorders", "unrelated", "hour")
RATE_HZ = 16_000
MASTER_S, HALF_S, HOUR_S = 600.0, 400.0, 3600.0
CLIP_LENGTHS_S = (5.0, 30.0, 120.0)
UNRELATED_LENGTHS_S = (3.0, 10.0, 60.0)
ERROR_BAR_MS, WITHIN_BAR, FALSE_BAR, SPEED_BAR = 1.0, 0.95, 0.01, 240.0


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/lipsync_alignment.py --data_dir data")
    add_data_option(parser)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    add("--num_clips", type=cli.positive_int, default=20, help="clips of each length and recorder")
    add("--num_unrelated", type=cli.positive_int, default=100, help="unrelated clips of each kind")
    add("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def recorder_figures(files: Sequence[Path], num_clips: int) -> Iterator[Figure]:
    """Share of the clips that are aligned to 1 ms at both ends, and the worst error, of each recorder."""
    from facevox_demo.other_recorders import Recorder, joined_voices, through_codec
    from lipsync.repair.alignment import align_recordings
    from lipsync.repair.recordings import SoundIndex, read_recording, recording_of

    recorders = {
        "clean": Recorder(),
        "room 0.5 s": Recorder(room_s=0.5),
        "SNR 0 dB": Recorder(snr_db=0),
        "SNR -5 dB": Recorder(snr_db=-5),
        "phone band": Recorder(is_phone=True),
        "gain control": Recorder(has_gain_control=True),
        "AAC": Recorder(codec="aac"),
        "MP3": Recorder(codec="libmp3lame"),
        "drift 200 ppm": Recorder(drift_ppm=200),
        "drift 1000 ppm": Recorder(drift_ppm=-1000),
        "all: room, 0 dB, phone, gain, MP3, 100 ppm": Recorder(
            room_s=0.5, snr_db=0, is_phone=True, has_gain_control=True, codec="libmp3lame", drift_ppm=100
        ),
    }
    samples = joined_voices(files, MASTER_S)
    index = SoundIndex.of(recording_of(samples))
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, recorder in recorders.items():
            for length_s in CLIP_LENGTHS_S:
                errors = []
                for first in rng.integers(0, int((MASTER_S - length_s) * RATE_HZ), num_clips).tolist():
                    clip = recorder.record(samples[first : first + int(length_s * RATE_HZ)], rng)
                    if recorder.codec:
                        recording = read_recording(through_codec(clip, recorder.codec, Path(folder)))
                    else:
                        recording = recording_of(clip)
                    result = align_recordings(recording, index)
                    start_ms = 1e3 * (result.start_s - first / RATE_HZ)
                    end_ms = start_ms + 1e-3 * result.duration_s * (result.drift_ppm - recorder.drift_ppm)
                    errors.append(max(abs(start_ms), abs(end_ms)))
                within = float(np.mean(np.array(errors) <= ERROR_BAR_MS))  # nan, not aligned: not within
                yield Figure(f"{length_s:.0f} s, {name}: within 1 ms", within, "", WITHIN_BAR)
                yield Figure(
                    f"{length_s:.0f} s, {name}: worst error of the aligned",
                    float(np.nanmax(errors, initial=0.0)),
                    "ms",
                    is_better_higher=False,
                    is_comparable=False,
                )


def unrelated_figures(files: Sequence[Path], num_unrelated: int) -> Iterator[Figure]:
    """Share of unrelated clips that are aligned, and the least probability of chance."""
    from facevox_demo.other_recorders import Recorder, joined_voices
    from lipsync.repair.alignment import MOST_CHANCE
    from lipsync.repair.recordings import SoundIndex, recording_of

    masters = joined_voices(files[::2], HALF_S)
    others = joined_voices(files[1::2], HALF_S, seed=1)
    rng = np.random.default_rng(2)
    for name, recorder, hum in (
        ("voices", Recorder(), 0.0),
        ("voices in noise", Recorder(snr_db=0), 0.0),
        ("voices in a room", Recorder(room_s=0.5), 0.0),
        ("voices with the same hum", Recorder(), 0.02),
    ):
        index = SoundIndex.of(recording_of(recorder.record(masters, rng) + _hum(len(masters), hum)))
        chances = []
        for number in range(num_unrelated):
            size = int(UNRELATED_LENGTHS_S[number % len(UNRELATED_LENGTHS_S)] * RATE_HZ)
            first = int(rng.integers(0, len(others) - size))
            clip = recorder.record(others[first : first + size], rng) + _hum(size, hum)
            chances.append(_least_chance(clip, index))
        aligned = float(np.mean(np.array(chances) <= MOST_CHANCE))
        yield Figure(
            f"{name}, {num_unrelated} unrelated clips: aligned",
            aligned,
            "",
            FALSE_BAR,
            is_better_higher=False,
        )
        yield Figure(f"{name}: least probability of chance", min(chances), "", is_comparable=False)


def _hum(size: int, level: float) -> "np.typing.NDArray[np.float32]":
    """(n,) of the mains and their harmonics."""
    wave = np.zeros(size)
    for harmonic in range(1, 40) if level else ():
        wave += level / harmonic * np.sin(2 * np.pi * 50 * harmonic * np.arange(size) / RATE_HZ)
    return wave.astype(np.float32)


def _least_chance(samples: "np.typing.NDArray[np.float32]", index: "SoundIndex") -> float:
    from lipsync.repair.lags import measure_lags
    from lipsync.repair.places import find_places
    from lipsync.repair.recordings import recording_of

    clip = recording_of(samples)
    lines = find_places(clip, index)
    return min((measure_lags(clip, index.recording, line).chance for line in lines), default=1.0)


def hour_figures(files: Sequence[Path]) -> Iterator[Figure]:
    """Error and speed for a clip of 59 minutes in an hour."""
    from facevox.media import iter_audio
    from facevox_demo.other_recorders import Recorder, joined_voices, through_codec
    from lipsync.repair.alignment import align_recordings
    from lipsync.repair.recordings import SoundIndex, read_recording

    samples = joined_voices(files, HOUR_S)
    recorder = Recorder(snr_db=5, room_s=0.3, drift_ppm=150)
    first = 30 * RATE_HZ
    clip = recorder.record(samples[first:-first], np.random.default_rng(3))
    with tempfile.TemporaryDirectory() as folder:
        master_file = through_codec(samples, "libmp3lame", Path(folder))
        clip_file = through_codec(clip, "aac", Path(folder))
        start = time.process_time()
        for _ in iter_audio(master_file, RATE_HZ):
            pass
        decoding_s = time.process_time() - start
        start = time.process_time()
        index = SoundIndex.of(read_recording(master_file))
        indexing_s = time.process_time() - start
        recording = read_recording(clip_file)
        start = time.process_time()
        result = align_recordings(recording, index)
        alignment_s = time.process_time() - start
    start_ms = 1e3 * (result.start_s - first / RATE_HZ)
    end_ms = start_ms + 1e-3 * result.duration_s * (result.drift_ppm - recorder.drift_ppm)
    less = {"is_better_higher": False, "is_comparable": False}
    yield Figure("59 min in an hour: error at the start", abs(start_ms), "ms", **less)
    yield Figure("59 min in an hour: error at the end", abs(end_ms), "ms", **less)
    error_ms = max(abs(start_ms), abs(end_ms))
    yield Figure(
        "59 min in an hour: largest error",
        error_ms,
        "ms",
        ERROR_BAR_MS,
        is_better_higher=False,
        is_comparable=False,
    )
    yield Figure("an hour of MP3: decoding alone", decoding_s, "s CPU", **less)
    yield Figure("an hour of MP3: decoding and index", indexing_s, "s CPU", **less)
    yield Figure("59 min in an hour: search and lags", alignment_s, "s CPU", **less)
    speed = HOUR_S / (max(indexing_s - decoding_s, 0.0) + alignment_s)
    yield Figure(
        "index and search, after decoding: times real time by processor time",
        speed,
        "x",
        SPEED_BAR,
        is_comparable=False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox_demo.other_recorders import voice_files

    files = voice_files(Path(args.data_dir))
    if not files:
        print(f"no real sounds in {args.data_dir}: nothing is measured")
        return ExitCode.DONE
    figures: list[Figure] = []
    if "recorders" in args.parts:
        figures += recorder_figures(files, args.num_clips)
    if "unrelated" in args.parts:
        figures += unrelated_figures(files, args.num_unrelated)
    if "hour" in args.parts:
        figures += hour_figures(files)
    print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if all(figure.is_met for figure in figures) else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
