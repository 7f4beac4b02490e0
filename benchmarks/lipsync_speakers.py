"""Measures who speaks when, of two real people whose lips move all the time.

    python benchmarks/lipsync_speakers.py --data_dir data --features_dir runs/features

Any two of the talking clips of $FACEVOX_TEST_DATA of eight seconds and more, of two people on whose clips the
model of the package was not trained, become the two faces of one clip; both are put in sync by the known
offset, and the sound changes from one to the other every few seconds. So the listener talks too, of something
else, which is harder than one who listens. Measured over all pairs: share of the blocks of 0.4 s in which the
right one is named, and of those in which anyone is named at all; share of the pairs with a likely match and
the right offset, and of those with a likely match where a third person is heard. Without the data nothing is
measured.
Exit codes: 0 every bar is met; 1 one is missed; 2 bad usage.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import scratch_folder
from facevox_demo.figures import Figure, add_data_option, print_figures, write_figures

if TYPE_CHECKING:
    from lipsync.clips.features import ClipFeatures
    from lipsync.clips.sounds import SoundFeatures
    from lipsync.network.takes import Take
    from lipsync.sync.scoring import ClipScore

LEAST_FRAMES = 190
TURNS_S = (3.0, 5.0, 1000.0)
RIGHT_MS = 40.0
RIGHT_BAR, MATCH_BAR, FOREIGN_BAR = 0.9, 0.95, 0.05


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/lipsync_speakers.py --data_dir data")
    add_data_option(parser)
    add = parser.add_argument
    add("--features_dir", type=Path, help="of the clips' features (default: made, a minute, and removed)")
    add("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def unseen_takes(data_dir: Path, features_dir: Path) -> list["Take"]:
    """Long clips of people who are not among those of the package's model."""
    from facevox_demo.lipsync_folds import real_takes
    from lipsync.shipped.clips import load_shipped_takes

    trained = {take.speaker for take in load_shipped_takes()}
    takes = real_takes(data_dir, features_dir)
    return [
        take
        for take in takes
        if len(take.track) >= LEAST_FRAMES and take.speaker not in trained and "people" not in take.speaker
    ]


def in_turns(first: "Take", second: "Take", turn_s: float) -> tuple["ClipFeatures", np.ndarray]:
    """A clip of both faces, and for each frame which of them is heard (0 or 1)."""
    from lipsync.clips.clock import ROW_HZ, ROWS_PER_FRAME
    from lipsync.clips.features import ClipFeatures

    frames = min(len(first.track), len(second.track))
    sounds = [heard_with(take, frames) for take in (first, second)]
    rows = min(len(sound.log_mel) for sound in sounds)
    turns = (np.arange(rows) // round(turn_s * ROW_HZ)) % 2
    sound = replace(
        sounds[0],
        log_mel=np.where(turns[:, None] == 0, *(sound.log_mel[:rows] for sound in sounds)),
        mfcc=np.where(turns[:, None] == 0, *(sound.mfcc[:rows] for sound in sounds)),
    )
    tracks = tuple(
        replace(
            take.track,
            track_id=number,
            start=0,
            mouths=take.track.mouths[:frames],
            lips=take.track.lips[:frames],
            opening=take.track.opening[:frames],
            boxes_px=take.track.boxes_px[:frames],
            is_measured=take.track.is_measured[:frames],
        )
        for number, take in enumerate((first, second))
    )
    return ClipFeatures(frames, (0,), tracks, sound), turns[::ROWS_PER_FRAME]


def heard_with(take: "Take", frames: int) -> "SoundFeatures":
    """The sound of a take in sync, from its first frame on."""
    from lipsync.clips.clock import ROWS_PER_FRAME

    first = ROWS_PER_FRAME * take.track.start - take.lag
    rows = np.clip(np.arange(first, first + ROWS_PER_FRAME * frames), 0, len(take.sound.log_mel) - 1)
    return replace(take.sound, log_mel=take.sound.log_mel[rows], mfcc=take.sound.mfcc[rows])


def named(score: "ClipScore", num_frames: int) -> np.ndarray:
    """For each block, the face that is named as speaking; -1: none."""
    from lipsync.clips.clock import FRAME_HZ
    from lipsync.sync.posterior import BLOCK_FRAMES

    who = np.full(num_frames // BLOCK_FRAMES, -1)
    block_s = BLOCK_FRAMES / FRAME_HZ
    for face in score.faces:
        for start_s, end_s in face.speaks_s:
            who[round(start_s / block_s) : round(end_s / block_s)] = face.track.track_id
    return who


def figures_of(takes: Sequence["Take"]) -> Iterator[Figure]:
    """The figures of each length of turns, over all pairs of people."""
    from lipsync.shipped.model import load_shipped
    from lipsync.sync.posterior import BLOCK_FRAMES
    from lipsync.sync.scoring import score_clip
    from lipsync.sync.verdicts import LIKELY_MATCH

    method = load_shipped()
    pairs = [pair for pair in itertools.combinations(takes, 2) if pair[0].speaker != pair[1].speaker]
    people = len({take.speaker for take in takes})
    yield Figure("pairs of people", len(pairs), "", is_comparable=False)
    yield Figure("people", people, "", is_comparable=False)
    for turn_s in TURNS_S:
        right, is_named, matches, foreign = [], [], [], []
        for first, second in pairs:
            clip, turns = in_turns(first, second, turn_s)
            score = score_clip(clip, method.estimator, method.calibration)
            who = named(score, len(turns))
            blocks = turns[: len(who) * BLOCK_FRAMES].reshape(len(who), BLOCK_FRAMES)
            # Blocks in which the turn changes have no one answer.
            is_clear = (blocks == blocks[:, :1]).all(axis=1) & (who >= 0)
            right.append(float((who == blocks[:, 0])[is_clear].mean()) if is_clear.any() else 0.0)
            is_named.append(float((who >= 0).mean()))
            posterior = score.judgement.posterior
            is_right = posterior is not None and abs(posterior.offset_ms) <= RIGHT_MS
            matches.append(is_right and posterior is not None and posterior.match >= LIKELY_MATCH)
            third = next(take for take in takes if take.speaker not in (first.speaker, second.speaker))
            other = replace(clip, sound=heard_with(third, clip.num_frames))
            swapped = score_clip(other, method.estimator, method.calibration).judgement.posterior
            foreign.append(swapped is not None and swapped.match >= LIKELY_MATCH)
        name = f"turns of {turn_s:g} s" if turn_s < TURNS_S[-1] else "one of them all the time"
        yield Figure(f"right one named, {name}", float(np.mean(right)), "", RIGHT_BAR)
        yield Figure(f"anyone named, {name}", float(np.mean(is_named)), "", is_comparable=False)
        yield Figure(f"match and right offset, {name}", float(np.mean(matches)), "", MATCH_BAR)
    yield Figure(
        "match with a third one's sound", float(np.mean(foreign)), "", FOREIGN_BAR, is_better_higher=False
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the figures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if not (Path(args.data_dir) / "MANIFEST.csv").is_file():
        print(f"no talking clips in {args.data_dir}: nothing is measured")
        return ExitCode.DONE
    with scratch_folder() as folder:
        figures = list(figures_of(unseen_takes(Path(args.data_dir), args.features_dir or folder)))
    print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if all(figure.is_met for figure in figures) else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
