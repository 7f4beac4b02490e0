"""Score whether lips and sound of a video are in sync, measure by how much they are off, and correct it.

    python lipsync/inference.py --video talk.mp4 --score-only
    python lipsync/inference.py --checkpoint checkpoints/best_model.pth --video talk.mp4 --audio talk.wav \\
        --output fixed.mp4
    python lipsync/inference.py --video talk.mp4 --output fixed.mp4 --offset_ms 120
    python lipsync/inference.py --video talk.mp4 --json --plot sync.png
    python lipsync/inference.py --video https://host/talk.mp4 --score-only
    python lipsync/inference.py --batch pairs.csv --output_dir outputs/scores
    python lipsync/inference.py --batch videos --output_dir outputs/scores --adapt
    python lipsync/inference.py --batch videos --reference master.wav --output_dir outputs/aligned
    python lipsync/inference.py --metric lse --syncnet models/syncnet_v2.model --video talk.mp4

offset_ms > 0 means that the audio is early: delay it by that much. The score is the probability of being in
sync. Without --checkpoint the small network that comes with the package compares lips and sound; --method
untrained compares the opening of the mouth with the loudness of the voice. --metric lse gives the scores of
papers on talking faces instead, LSE-C and LSE-D, with the weights of SyncNet, which you fetch yourself.
An http or https address of a file is fetched to a temporary file first; realtime.py scores live streams.
pairs.csv has the columns video and audio (empty: the video's own sound); of a folder all videos are scored. A
batch writes sync.csv (or lse.csv), one JSON file a pair and manifests/inference.jsonl, and resumes where it
was stopped. With --reference each video is aligned by its own sound to that of another recorder, whatever the
lips do: alignment.csv, alignment.edl and alignment.fcpxml.
Exit codes: 0 done (in sync or not); 1 no answer is possible, the file would not be better, or more pairs of
a batch failed than --max_failed allows; 2 bad usage or input; 75 stopped by a signal (batch: run the same
command again to continue).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from facevox import cli
from facevox.addresses import Address
from facevox.batch_options import BatchOptions
from facevox.errors import ExitCode, UserError
from facevox.limits import memory_limit
from facevox.native_silence import native_silence
from facevox.signals import StopFlag
from facevox.sound_choice import PLAYED, SoundChoice
from lipsync.adapting import adapt
from lipsync.clips.clock import FRAME_HZ
from lipsync.inference_options import LSE, SYNC, add_arguments, check_usage
from lipsync.lse.weights import find_weights
from lipsync.settings import (
    Settings,
    load_settings,
)
from lipsync.sync.methods import AUTO, check_method
from lipsync.sync.offset import MAX_OFFSET_MS, check_max_offset
from lipsync.sync.opening import open_method

# The modules that do the work are imported where they are used: PyAV, OpenCV, SciPy and torch take from a
# tenth of a second to several, for which neither `--help` nor a batch without a checkpoint should wait.
if TYPE_CHECKING:
    from facevox.media import MediaInfo
    from lipsync.clips.features import ClipFeatures
    from lipsync.sync.answers import Details
    from lipsync.sync.pair_task import PairTask
    from lipsync.sync.scoring import ClipScore


class Names(NamedTuple):
    """The video and its sound as they were named."""

    video: Path | Address
    audio: Path | Address | None


class LipSyncInference:
    """Scores clips and corrects files.

    Args:
        checkpoint_path: `best_model.pth` of train.py; None: `method`.
        settings: Of config.yaml; its sections data and audio decide what is read of a clip.
        method: auto and shipped: the model that comes with the package; untrained: mouth opening against
            loudness. `details["method"]` begins with what is used: checkpoint, shipped or untrained.
        max_offset_ms: Searched to each side, 200 to 10,000 ms; beyond 1000 at most half of a clip.

    Raises:
        UserError: No such checkpoint, or the file is something else; a checkpoint and a method; librosa is in
            the settings and not installed; no such range.
    """

    def __init__(
        self,
        checkpoint_path: str | Path | None = None,
        *,
        settings: Settings | None = None,
        method: str = AUTO,
        max_offset_ms: float = MAX_OFFSET_MS,
    ) -> None:
        from lipsync.clips.sounds import require_features

        check_max_offset(max_offset_ms)
        self.max_offset_ms = max_offset_ms

        self.settings = settings or Settings()
        require_features(self.settings.audio.features)
        self.method = open_method(method, checkpoint_path, self.settings.training.device)

    def compute_sync_score(
        self, video_path: str | Path, audio_path: str | Path | None = None
    ) -> tuple[float, Details]:
        """(score, details) of a video with its own sound or that of another file.

        The score is the probability, 0 to 1, that the clip is in sync (within 60 ms); nan: no answer, and
        `details["reason"]` is why. `details["offset_ms"]` > 0 means that the AUDIO IS EARLY: delay it by
        that much; < 0: the audio is late. All keys: `lipsync.sync.answers.Details`.

        Raises:
            MediaError: A file that cannot be read, no video stream, or no sound.
        """
        _, details = self.analyse(video_path, audio_path)
        return float(details["score"]), details

    def analyse(
        self, video_path: str | Path, audio_path: str | Path | None = None
    ) -> tuple[ClipScore, Details]:
        """The details of `compute_sync_score`, after the curves and similarities that they rest on."""
        from facevox.media import MediaError, probe
        from lipsync.sync import answers

        video, audio = Path(video_path), None if audio_path is None else Path(audio_path)
        info = probe(video, with_times=True)
        if not info.has_video:
            raise MediaError(f"{video}: no video stream")
        if audio is None and not info.has_audio:
            raise MediaError(f"{video}: no sound; name a sound file as audio")
        max_duration_s = self.settings.data.max_duration_s
        num_frames = round(min(info.duration_s, max_duration_s) * FRAME_HZ)
        notes: list[str] = []
        clip = self.read_clip(video, audio, num_frames=num_frames, info=info, notes=notes)
        source = answers.Source(str(video), str(audio or ""), info, notes, max_duration_s)
        score = self.score_clip(clip)
        if audio is not None and info.has_audio:
            score, clip = self._placed(video, audio, clip, score, info)
        return score, answers.make_details(clip, score, source, self.method)

    def _placed(
        self, video: Path, audio: Path, clip: ClipFeatures, score: ClipScore, info: MediaInfo
    ) -> tuple[ClipScore, ClipFeatures]:
        """The score after the sound was placed by the video's own, where it has no offset as it is."""
        from facevox.media import phase_s
        from lipsync.repair.recorder import place_sound, placed_features
        from lipsync.sync.verdicts import CANNOT_TELL, NO_MATCH

        if score.judgement.verdict.kind not in (CANNOT_TELL, NO_MATCH):
            return score, clip
        try:
            timing = place_sound(video, audio, self.settings.audio.choice)
        except UserError:  # nothing can be aligned: the answer stays
            return score, clip
        if timing is None:
            return score, clip
        start_s, duration_s = phase_s(info, FRAME_HZ), clip.num_frames / FRAME_HZ
        sound = placed_features(audio, timing, start_s, duration_s, self.settings.audio)
        clip = replace(clip, sound=sound)
        return replace(self.score_clip(clip), placed=timing), clip

    def read_clip(
        self,
        video_path: str | Path,
        audio_path: str | Path | None = None,
        *,
        num_frames: int = 0,
        info: MediaInfo | None = None,
        choice: SoundChoice | None = None,
        notes: list[str] | None = None,
    ) -> ClipFeatures:
        """The features of a video and its sound, by the settings; mouths are cut out where they are needed.

        Args:
            video_path, audio_path: As `compute_sync_score` has them.
            num_frames: The expected number, for the progress bar.
            info: Of the video by `probe`, if it is known.
            choice: Which sound; None: that of the settings.
            notes: Gets a sentence for each remarkable thing about the sound.

        Raises:
            MediaError: As `compute_sync_score`.
        """
        from lipsync.clips.features import extract_clip
        from lipsync.clips.frame_progress import frame_progress

        with native_silence(), frame_progress(Path(video_path).name, num_frames) as on_frame:
            return extract_clip(
                video_path,
                audio_path,
                max_faces=self.settings.data.max_faces,
                crop_px=self.settings.data.mouth_crop_px,
                with_mouths=self.method.estimator.needs_mouths,
                num_mels=self.settings.audio.num_mels,
                num_mfcc=self.settings.audio.num_mfcc,
                features=self.settings.audio.features,
                choice=self.settings.audio.choice if choice is None else choice,
                notes=notes,
                info=info,
                max_duration_s=self.settings.data.max_duration_s,
                on_frame=on_frame,
            )

    def score_clip(self, clip: ClipFeatures) -> ClipScore:
        """The score of features from `read_clip`."""
        from threadpoolctl import threadpool_limits

        from lipsync.sync.rates import score_at_any_rate

        # Products this small take BLAS four times as long on two threads as on one.
        with threadpool_limits(1, user_api="blas"):
            return score_at_any_rate(clip, self.method.estimator, self.method.calibration, self.max_offset_ms)

    def sync_video_audio(
        self,
        video_path: str | Path,
        audio_path: str | Path | None,
        output_path: str | Path,
        score: ClipScore | None = None,
    ) -> tuple[bool, str]:
        """(success, message): finds the offset and writes a file without it.

        Pictures are copied. The sound is shifted by samples; one that drifts is resampled, and where the
        offset jumps, silence is put in or sound taken out at a quiet place near. The result is scored again,
        by time stamps and by counting, and only kept where both are in sync and nearer than before. False,
        with the reason and without a file: already in sync, cannot tell, no offset fits, or the result is
        not better.

        Args:
            video_path, audio_path: As `compute_sync_score` has them.
            output_path: .mp4, .m4v, .mov or .mkv.
            score: Result of `analyse` for these two; None: it is called first.

        Raises:
            MediaError: As `compute_sync_score`.
            UserError: The output's container cannot hold the pictures, or the output is the input.
        """
        from lipsync.repair import correction, plan, shift

        video, output = Path(video_path), Path(output_path)
        audio = None if audio_path is None else Path(audio_path)
        shift.checked_format(output, (video, audio or video))  # before minutes of work
        if score is None:
            score, _ = self.analyse(video, audio)
        timing = plan.plan_timing(score)
        if timing is None:
            return False, f"{score.judgement.verdict.text}; nothing was written"
        choice = self.settings.audio.choice
        read_clip = functools.partial(
            self.read_clip, num_frames=score.num_frames, choice=SoundChoice(choice.channel)
        )
        try:
            done = correction.write_corrected(
                video,
                audio,
                output,
                timing,
                read_clip,
                self.score_clip,
                choice,
                is_placed=score.placed is not None,
            )
        except correction.NotBetterError as error:
            return False, str(error)
        notes = "".join(f"; {note}" for note in done.shifted.notes)
        remains = "the lips cannot tell: placed by the video's own sound"
        if math.isfinite(done.by_stamps_ms + done.by_counting_ms):
            remains = (
                f"scored again, {round(done.by_stamps_ms):+d} ms remain by time stamps and "
                f"{round(done.by_counting_ms):+d} ms by counting"
            )
        return True, f"{plan.timing_text(done.timing)}: written to {output}; {remains}{notes}"


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/inference.py --video talk.mp4 --json --plot sync.png")
    add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Scores, corrects or runs a batch, by the arguments; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    check_usage(args)
    check_method(args.method, args.checkpoint)
    check_max_offset(args.max_offset_ms)
    settings = load_settings(args.config, args.overrides)
    if args.batch is not None:
        return _run_lse_batch(args, settings) if args.metric == LSE else _run_batch(args, settings)
    from lipsync.clips.fetching import local_file

    _check_outputs(args)
    names = Names(args.video, args.audio)
    with ExitStack() as stack:  # outside of a StopFlag: a signal ends a download at once
        args.video, args.audio = (
            None if name is None else stack.enter_context(local_file(name)) for name in names
        )
        return _run_lse(args, settings, names) if args.metric == LSE else _run_single(args, settings, names)


def _check_outputs(args: argparse.Namespace) -> None:
    """Checks the names of the files that are to be written before minutes of work."""
    if args.plot is not None:
        from lipsync.sync import plots

        plots.check_plot_name(args.plot)
    if args.output is not None:
        from lipsync.repair import shift

        inputs = (args.video, args.audio or args.video)
        shift.checked_format(args.output, tuple(path for path in inputs if isinstance(path, Path)))


def _run_single(args: argparse.Namespace, settings: Settings, names: Names) -> int:
    from lipsync.clips.clip_task import clip_bytes

    paths = [path for path in (args.video, args.audio) if path is not None]
    # A signal while a file is written leaves nothing half done.
    with StopFlag(), memory_limit(*paths, least=clip_bytes(settings.data, len(paths) > 1)):
        return _do_one(args, settings, names)


def _make_inference(args: argparse.Namespace, settings: Settings, note: str = "") -> LipSyncInference:
    inference = LipSyncInference(
        args.checkpoint, settings=settings, method=args.method, max_offset_ms=args.max_offset_ms
    )
    if note:
        inference.method = replace(inference.method, notes=(*inference.method.notes, note))
    return inference


def _do_one(args: argparse.Namespace, settings: Settings, names: Names) -> int:
    from lipsync.repair import shift
    from lipsync.sync import answers, plots, verdicts

    plain: dict[str, object]
    if args.offset_ms is not None:
        done = shift.shift_audio(
            args.video, args.output, args.offset_ms, audio_path=args.audio, track=settings.audio.track
        )
        plain = {"output": str(done.output_file), "offset_ms": done.offset_ms, "warnings": list(done.notes)}
        is_done = True
        lines = [f"{done.output_file}: {verdicts.offset_text(done.offset_ms)}: done", *done.notes]
    else:
        inference = _make_inference(args, settings)
        score, details = inference.analyse(args.video, args.audio)
        details = answers.named_details(details, *names)
        if args.plot is not None:
            plots.write_sync_plot(args.plot, score, names.video.name)
        plain = {**details}
        is_done, lines = details["verdict"] != verdicts.CANNOT_TELL, answers.summary_lines(details)
        if args.output is not None:
            is_done, message = inference.sync_video_audio(args.video, args.audio, args.output, score)
            plain |= {"is_corrected": is_done, "message": message}
            lines = [message] if args.plot is None else [*lines, message]
    if args.json:
        print(json.dumps(answers.without_nan(plain), ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(lines))
    return ExitCode.DONE if is_done else ExitCode.SOME_FAILED


def _run_lse(args: argparse.Namespace, settings: Settings, names: Names) -> int:
    weights_file = find_weights(args.syncnet)  # before torch, which takes seconds
    from lipsync.lse.report import summary_lines
    from lipsync.lse.scorer import LseScorer, lse_bytes
    from lipsync.sync.answers import named_details, without_nan

    paths = [path for path in (args.video, args.audio) if path is not None]
    with StopFlag(), memory_limit(*paths, least=lse_bytes(settings.data)):
        _, details = LseScorer(weights_file, settings=settings).analyse(args.video, args.audio)
    details = named_details(details, *names)
    if args.json:
        print(json.dumps(without_nan({**details}), ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(summary_lines(details)))
    return ExitCode.SOME_FAILED if details["face"] is None else ExitCode.DONE


def _run_lse_batch(args: argparse.Namespace, settings: Settings) -> int:
    weights_file = find_weights(args.syncnet)  # before torch, which takes seconds
    from lipsync.lse.report import COLUMNS, table_row
    from lipsync.lse.scorer import LseScorer, lse_bytes, lse_settings
    from lipsync.sync.pair_task import PairTask

    task = PairTask(
        functools.partial(LseScorer, weights_file, settings=settings),
        table_row,
        uses_torch=True,
        spare_bytes=lse_bytes(settings.data),
    )
    return _run_pairs(args, settings, task, "lse.csv", COLUMNS, lse_settings(settings, weights_file))


def _run_batch(args: argparse.Namespace, settings: Settings) -> int:
    if args.reference is not None:
        from lipsync.repair.reference import run_reference

        options, choice = cli.build(BatchOptions, args), settings.audio.choice
        output_dir = _output_dir(args, settings)
        return run_reference(args.batch, args.reference, output_dir, options, choice, args.timeline_fps or "")
    from lipsync.clips.clip_task import clip_bytes
    from lipsync.sync.pair_task import COLUMNS, PairTask, batch_settings, plan_pairs, sync_row

    items, note = plan_pairs(args.batch), ""  # faults of the table first, before anything is made
    if args.adapt and not args.dry_run:
        adapted = adapt(args.batch, _output_dir(args, settings), settings, args)
        args.checkpoint, note = adapted.checkpoint, adapted.note
    task = PairTask(
        functools.partial(_make_inference, args, settings, note),
        sync_row,
        uses_torch=args.checkpoint is not None,
        spare_bytes=clip_bytes(settings.data, any(item.audio for item in items)),
    )
    plain = batch_settings(settings, args.method, args.checkpoint, args.max_offset_ms)
    return _run_pairs(args, settings, task, "sync.csv", COLUMNS, plain)


def _output_dir(args: argparse.Namespace, settings: Settings) -> Path:
    return args.output_dir or Path(settings.paths.output_dir)


def _run_pairs(
    args: argparse.Namespace,
    settings: Settings,
    task: PairTask[Any],
    table: str,
    columns: Sequence[str],
    plain: dict[str, object],
) -> int:
    """Runs the batch of --batch; `plain` are the settings that decide its results."""
    from facevox.batch import BatchConfig, run_batch
    from lipsync.sync.pair_task import plan_pairs

    batch = cli.build(
        BatchConfig,
        args,
        output_dir=_output_dir(args, settings),
        program="inference",
        table=table,
        columns=columns,
        item_column="pair",
        settings=plain | {"metric": args.metric},
        implied={"sound": asdict(PLAYED), "metric": SYNC, "max_offset_ms": MAX_OFFSET_MS},
        reads_media=True,
        unit="pair",
    )
    return run_batch(task, plan_pairs(args.batch), batch).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
