"""Tell whether lips and sound of a video are in sync, by how much they are off, and put it right.

    python lipsync/inference.py --video talk.mp4 --score-only
    python lipsync/inference.py --checkpoint checkpoints/best_model.pth --video talk.mp4 --audio talk.wav \\
        --output fixed.mp4
    python lipsync/inference.py --video talk.mp4 --output fixed.mp4 --offset_ms 120
    python lipsync/inference.py --video talk.mp4 --json --plot sync.png
    python lipsync/inference.py --batch pairs.csv --output_dir outputs/scores

offset_ms > 0 says that the audio is early: delay it by that much. The score is the probability of being in
sync. Without --checkpoint the movements of the lips are held against the loudness of the voice.
pairs.csv has the columns video and audio (empty: the video's own sound); a batch writes sync.csv, one JSON
file a pair and manifests/inference.jsonl, and goes on where it was stopped.
Exit codes: 0 done (in sync or not); 1 nothing can be told, the file would not be better, or more pairs of a
batch failed than --max_failed allows; 2 bad usage or input; 75 stopped by a signal (batch: run the same
command again to continue).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.errors import ExitCode, UserError
from lipsync.settings import Settings, add_config_arguments, load_settings

if TYPE_CHECKING:
    from lipsync.clips.features import ClipFeatures, FrameFeatures
    from lipsync.sync.scoring import ClipScore

OWN_TRACK = ""


class LipSyncInference:
    """Scores clips and corrects files.

    Args:
        checkpoint_path: `best_model.pth` of train.py; None: the untrained estimator (lip movement against
            loudness), named in `details["method"]`.
        settings: Of config.yaml; what is read of a clip is in its sections data and audio.
        show_progress: A bar on stderr while pictures are read.

    Raises:
        UserError: No such checkpoint, or it is something else.
    """

    def __init__(
        self,
        checkpoint_path: str | Path | None = None,
        *,
        settings: Settings | None = None,
        show_progress: bool = False,
    ) -> None:
        self.settings = settings or Settings()
        self._show_progress = show_progress
        if checkpoint_path is None:
            from lipsync.sync.calibration import LOUDNESS_CALIBRATION
            from lipsync.sync.estimators import LoudnessEstimator, SyncEstimator

            self.estimator: SyncEstimator = LoudnessEstimator()
            self.calibration = LOUDNESS_CALIBRATION
        else:
            from facevox.training.distributed import choose_device
            from lipsync.network.estimator import load_estimator

            device = choose_device(self.settings.training.device, 0)
            self.estimator, self.calibration = load_estimator(checkpoint_path, device)

    def compute_sync_score(
        self, video_path: str | Path, audio_path: str | Path | None = None
    ) -> tuple[float, dict[str, Any]]:
        """(score, details) of a video with its own sound or that of another file.

        The score is the probability, 0 to 1, that the clip is in sync (within 60 ms); nan: cannot tell, and
        `details["reason"]` says why. `details["offset_ms"]` > 0 says that the AUDIO IS EARLY: delay it by
        that much; < 0: the audio is late. All keys: `lipsync.sync.answers.make_details`.

        Raises:
            MediaError: A file that cannot be read, no video stream, or no sound.
        """
        _, details = self.analyse(video_path, audio_path)
        return float(details["score"]), details

    def analyse(
        self, video_path: str | Path, audio_path: str | Path | None = None
    ) -> tuple[ClipScore, dict[str, Any]]:
        """What `compute_sync_score` says and all that it rests on (see `lipsync.sync.plots`)."""
        from lipsync.sync.answers import make_details
        from lipsync.sync.scoring import score_clip

        source = self._look_at(Path(video_path), None if audio_path is None else Path(audio_path))
        clip = self.read_clip(video_path, audio_path)
        score = score_clip(clip, self.estimator, self.calibration)
        return score, make_details(clip, score, source, self.estimator.name)

    def read_clip(self, video_path: str | Path, audio_path: str | Path | None = None) -> ClipFeatures:
        """The features of a video and its sound, by the settings. Raises MediaError."""
        from facevox.logs import native_silence
        from lipsync.clips.features import ClipFeatures, collect_tracks, iter_face_features, read_sound
        from lipsync.clips.sounds import sound_features

        data, audio = self.settings.data, self.settings.audio
        # The sound first: a file without it is refused before its pictures are decoded.
        samples = read_sound(audio_path or video_path, data.max_duration_s)
        sound = sound_features(samples, audio.num_mels, audio.num_mfcc)
        with native_silence():
            frames: Iterable[FrameFeatures] = iter_face_features(
                video_path,
                max_faces=data.max_faces,
                crop_px=data.mouth_crop_px,
                max_duration_s=data.max_duration_s,
            )
            if self._show_progress:
                frames = _with_progress(frames, Path(video_path), data.max_duration_s)
            tracks, num_frames, shots = collect_tracks(frames)
        return ClipFeatures(num_frames, shots, tracks, sound)

    def _look_at(self, video: Path, audio: Path | None) -> Any:
        """What the headers say. Raises MediaError where there is no video or no sound."""
        from facevox.media import MediaError, open_media, probe
        from lipsync.clips.clip_task import is_variable_rate
        from lipsync.sync.answers import Source

        info = probe(video)
        if not info.has_video:
            raise MediaError(f"{video}: no video stream")
        if audio is None and not info.has_audio:
            raise MediaError(f"{video}: no sound; name a sound file as audio")
        with open_media(audio or video) as container:
            num_audio_tracks = len(container.streams.audio)
        return Source(
            video=str(video),
            audio=str(audio) if audio else OWN_TRACK,
            fps=info.rate_hz,
            num_audio_tracks=num_audio_tracks,
            has_variable_rate=is_variable_rate(video),
            max_duration_s=self.settings.data.max_duration_s,
            whole_s=info.duration_s,
        )

    def sync_video_audio(
        self, video_path: str | Path, audio_path: str | Path | None, output_path: str | Path
    ) -> tuple[bool, str]:
        """(success, message): finds the offset and writes a file without it.

        Pictures are copied, the sound is shifted by samples. The result is scored again, by time stamps and
        by counting, and only kept where both are in sync and nearer than before. False, with the reason and
        without a file: already in sync, cannot tell, no offset fits, drift or jump, or the result is not
        better.

        Raises:
            MediaError: As `compute_sync_score`.
            UserError: The output's container cannot hold the pictures, or the output is the input.
        """
        from lipsync.repair.correction import NotBetterError, write_corrected
        from lipsync.repair.shift import _checked_format
        from lipsync.sync.answers import change_text
        from lipsync.sync.verdicts import AUDIO_EARLY, AUDIO_LATE, offset_text

        video, output = Path(video_path), Path(output_path)
        audio = None if audio_path is None else Path(audio_path)
        _checked_format(output, [video, *([audio] if audio else [])], 0.0)  # before minutes of work
        score, details = self.analyse(video, audio)
        verdict = score.judgement.verdict
        if score.change is not None:
            return False, f"{change_text(score.change)}; one shift cannot mend that, nothing was written"
        if verdict.kind not in (AUDIO_EARLY, AUDIO_LATE):
            return False, f"{verdict.text}; nothing was written"
        offset_ms = float(details["offset_ms"])
        try:
            done = write_corrected(video, audio, output, offset_ms, self.read_clip, self._left_ms)
        except NotBetterError as error:
            return False, str(error)
        notes = "".join(f"; {note}" for note in done.shifted.notes)
        return True, (
            f"{offset_text(offset_ms)}: written to {output}; scored again, {round(done.by_stamps_ms):+d} ms "
            f"are left by time stamps and {round(done.by_counting_ms):+d} ms by counting{notes}"
        )

    def _left_ms(self, clip: ClipFeatures) -> float:
        """The offset of a clip; nan where none stands out."""
        from lipsync.sync.scoring import score_clip

        return score_clip(clip, self.estimator, self.calibration).judgement.offset_ms


def _with_progress(
    frames: Iterable[FrameFeatures], video: Path, max_duration_s: float
) -> Iterator[FrameFeatures]:
    from facevox.media import probe
    from facevox.progress import Progress
    from facevox.signals import StopFlag
    from lipsync.clips.clock import FRAME_HZ

    total = round(min(probe(video).duration_s, max_duration_s) * FRAME_HZ)
    with StopFlag() as stop, Progress(total, video.name, "frame") as progress:
        for frame in frames:
            progress.update()
            if stop:  # nothing is kept of half a clip
                raise KeyboardInterrupt
            yield frame


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/inference.py --video talk.mp4 --json --plot sync.png")
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="best_model.pth of train.py (default: none, lip movement against loudness)",
    )
    add("--video", type=Path, metavar="FILE", help="the video (default: none; this or --batch is needed)")
    add("--audio", type=Path, metavar="FILE", help="the sound (default: the video's own track)")
    add("--score-only", "--score_only", action="store_true", help="score and write no video")
    add("--output", type=Path, metavar="FILE", help="corrected .mp4, .m4v, .mov or .mkv (default: none)")
    add(
        "--offset_ms",
        type=float,
        metavar="MS",
        help="with --output: a known offset, in ms, positive: the audio is early (default: it is measured)",
    )
    add("--json", action="store_true", help="print one JSON object on stdout")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="picture of lag and time, .png, .svg or .pdf (default: none)",
    )
    add("--batch", type=Path, metavar="CSV", help="score the pairs of a table (default: none)")
    add(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="with --batch: folder of the results (default: paths.output_dir of the settings)",
    )
    add_config_arguments(parser)
    cli.add_options(parser, BatchOptions)
    return parser


def check_usage(args: argparse.Namespace) -> None:
    """Raises UserError with all that does not go together."""
    faults = []
    if (args.video is None) == (args.batch is None):
        faults.append("one of --video and --batch is wanted")
    if args.batch is not None:
        given = [name for name in ("audio", "output", "offset_ms", "plot") if getattr(args, name) is not None]
        faults += [f"--{name} does not go with --batch" for name in given]
        if args.json:
            faults.append("--json does not go with --batch, which writes a JSON file a pair")
    elif args.output_dir is not None:
        faults.append("--output_dir goes with --batch; one file is named by --output")
    if args.output is not None and args.score_only:
        faults.append("--score-only writes no video; leave it or --output out")
    if args.offset_ms is not None:
        if args.output is None:
            faults.append("--offset_ms needs --output")
        if args.plot is not None:
            faults.append("--plot needs a score, which --offset_ms does not measure")
        if not math.isfinite(args.offset_ms):
            faults.append(f"--offset_ms {args.offset_ms} is no number of ms")
    if faults:
        raise UserError("; ".join(faults))


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the arguments ask for; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    check_usage(args)
    settings = load_settings(args.config, args.overrides)
    if args.plot is not None:
        from lipsync.sync.plots import check_plot_name

        check_plot_name(args.plot)
    if args.batch is not None:
        return _run_batch(args, settings)
    from facevox.signals import StopFlag

    with StopFlag():  # a signal while a file is written leaves nothing half done
        return _do_one(args, settings)


def _do_one(args: argparse.Namespace, settings: Settings) -> int:
    if args.offset_ms is not None:
        return _shift(args)
    inference = LipSyncInference(args.checkpoint, settings=settings, show_progress=True)
    if args.output is not None and args.plot is None and not args.json:
        success, message = inference.sync_video_audio(args.video, args.audio, args.output)
        print(message)
        return ExitCode.DONE if success else ExitCode.SOME_FAILED
    return _score(args, inference)


def _score(args: argparse.Namespace, inference: LipSyncInference) -> int:
    from lipsync.sync.answers import summary_lines, without_nan
    from lipsync.sync.plots import write_sync_plot

    score, details = inference.analyse(args.video, args.audio)
    if args.plot is not None:
        write_sync_plot(args.plot, score, args.video.name)
    is_done = not math.isnan(details["score"])
    if args.output is not None:
        is_done, message = inference.sync_video_audio(args.video, args.audio, args.output)
        details |= {"is_corrected": is_done, "message": message}
    if args.json:
        print(json.dumps(without_nan(details), ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join([*summary_lines(details), *([details["message"]] if args.output else [])]))
    return ExitCode.DONE if is_done else ExitCode.SOME_FAILED


def _shift(args: argparse.Namespace) -> int:
    from lipsync.repair.shift import shift_audio
    from lipsync.sync.verdicts import offset_text

    done = shift_audio(args.video, args.output, args.offset_ms, audio_path=args.audio)
    if args.json:
        plain = {"output": str(done.output_file), "offset_ms": done.offset_ms, "warnings": list(done.notes)}
        print(json.dumps(plain, ensure_ascii=False))
    else:
        print("\n".join([f"{done.output_file}: {offset_text(done.offset_ms)}: done", *done.notes]))
    return ExitCode.DONE


def _run_batch(args: argparse.Namespace, settings: Settings) -> int:
    from facevox.batch import BatchConfig, run_batch
    from lipsync.sync.pair_task import COLUMNS, PairTask, batch_settings, plan_pairs

    batch = cli.build(
        BatchConfig,
        args,
        output_dir=args.output_dir or Path(settings.paths.output_dir),
        program="inference",
        table="sync.csv",
        columns=COLUMNS,
        item_column="pair",
        settings=batch_settings(settings, args.checkpoint),
        unit="pair",
    )
    make_scorer = functools.partial(LipSyncInference, args.checkpoint, settings=settings)
    task = PairTask(make_scorer, uses_torch=args.checkpoint is not None)
    return run_batch(task, plan_pairs(args.batch), batch).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
