"""Many videos aligned to the sound of one recorder: the task of the batch, its table and its timelines."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

from facevox.batch import BatchConfig, BatchOptions, Item, Outcome, Task, run_batch
from facevox.errors import ExitCode, UserError
from facevox.files import scratch_folder, write_text
from facevox.media import changed_kinds, probe
from facevox.sound_choice import SoundChoice
from facevox.spreadsheets import TableReader
from lipsync.clips.clip_task import RECORDING_BYTES
from lipsync.repair.alignment import align_sounds, index_sound
from lipsync.repair.recordings import SoundIndex
from lipsync.repair.timelines import TimelineClip, edl_text, fcpxml_text
from lipsync.sync.pair_task import plan_pairs

logger = logging.getLogger(__name__)
PROGRAM = "alignment"
TABLE, EDL, FCPXML = "alignment.csv", "alignment.edl", "alignment.fcpxml"
COLUMNS = (
    "video", "is_aligned", "start_s", "end_s", "drift_ppm", "residual_ms", "overlap_s", "overlap_share",
    "confidence", "agreement", "other_start_s", "sound_s", "duration_s", "rate_hz", "width", "height",
)  # fmt: skip
_NO_JOIN = "the same with --num_shards 1 --shard_index 0, which joins them and writes the timelines"


class ReferenceTask(Task[Item]):
    """Aligns the own sound of a video to that of the reference.

    "No place stands out" is a result, not a failure: the row has an empty start and the reason.

    Args:
        reference: The master.
        folder: A folder for its index, which all workers read.
        choice: Track and channel of the videos' sound.
    """

    spare_bytes = RECORDING_BYTES

    def __init__(self, reference: Path, folder: Path, choice: SoundChoice) -> None:
        self._reference, self._folder, self._choice = reference, folder, choice
        self._index: SoundIndex | None = None

    def check(self) -> None:
        """Reads the reference, once for all workers.

        Raises:
            UserError: It cannot be read, or nothing can be aligned to it.
        """
        index_sound(self._reference).save(self._folder)

    def open(self, output_dir: Path) -> None:
        """Opens the index of the reference."""
        super().open(output_dir)
        self._index = SoundIndex.load(self._folder)

    def changes(self, item: Item) -> list[str]:
        """Kinds of sound that were read otherwise."""
        return [*changed_kinds(item.path, sound=True), *changed_kinds(self._reference, sound=True)]

    def process(self, item: Item) -> Outcome:
        """Aligns one video. Raises UserError where it cannot be read or has no sound."""
        if self._index is None:
            raise RuntimeError("open() comes first")
        info = probe(item.path)
        if not info.has_audio:
            raise UserError("no sound, so that it cannot be aligned by its sound")
        result = align_sounds(item.path, self._index, self._choice)
        numbers = {
            "start_s": round(result.start_s, 6),
            "end_s": round(result.end_s, 6),
            "drift_ppm": round(result.drift_ppm, 3),
            "residual_ms": round(result.residual_ms, 4),
            "overlap_s": round(result.overlap_s, 3),
            "overlap_share": round(result.overlap_share, 4),
            "confidence": round(result.confidence, 6),
            "agreement": round(result.agreement, 4),
            "other_start_s": round(result.other_start_s, 6),
            "sound_s": round(result.duration_s, 6),
            "duration_s": round(info.duration_s or result.duration_s, 6),
            "rate_hz": round(info.rate_hz, 6),
        }
        row: dict[str, object] = {
            "video": item.name,
            "is_aligned": int(result.is_aligned),
            "width": info.width,
            "height": info.height,
        }
        row |= {name: "" if math.isnan(value) else value + 0.0 for name, value in numbers.items()}  # no -0.0
        return Outcome(rows=[row], reason=result.reason)


def plan_videos(table: Path, reference: Path) -> list[Item]:
    """An item for each video of a folder or a table, without the reference itself.

    Raises:
        UserError: As `plan_pairs`; a pair with a sound of its own; nothing but the reference.
    """
    if not reference.is_file():
        raise UserError(f"--reference {reference}: no such file")
    pairs = plan_pairs(table)
    if with_sound := [pair for pair in pairs if pair.audio]:
        raise UserError(
            f"{table}: {with_sound[0].name} names a sound; with --reference each video is aligned by its "
            "own, so leave the column audio empty"
        )
    if fetched := [pair for pair in pairs if any(pair.addresses)]:
        raise UserError(f"{table}: {fetched[0].name} is an address; with --reference name files")
    # A reference that is replaced has other alignments: its size and time count with the video's.
    items = [Item(pair.name, pair.path, further_paths=(str(reference),)) for pair in pairs]
    itself = os.path.realpath(reference)
    items = [item for item in items if os.path.realpath(item.path) != itself]
    if not items:
        raise UserError(f"--batch {table}: nothing but the reference is there")
    return items


def run_reference(
    table: Path,
    reference: Path,
    output_dir: Path,
    options: BatchOptions,
    choice: SoundChoice,
    timeline_rate: str = "",
) -> ExitCode:
    """Aligns all videos, and writes the table and the timelines; returns the exit code.

    Args:
        table: A folder of videos, or a CSV with the column video.
        reference: File with the sound to which they are aligned.
        output_dir: Of alignment.csv, alignment.edl, alignment.fcpxml and the manifest.
        options: Of the batch.
        choice: Track and channel of the videos' sound.
        timeline_rate: A name of `timelines.FRAME_DURATIONS`; "": the most usual rate of the videos.

    Raises:
        UserError: As `plan_videos`, `index_sound` and `run_batch`.
    """
    items = plan_videos(table, reference)
    config = BatchConfig(
        program=PROGRAM,
        output_dir=output_dir,
        table=TABLE,
        columns=COLUMNS,
        item_column="video",
        settings={"reference": reference.name, "channel": choice.channel, "track": choice.track},
        reads_media=True,
        unit="video",
        join=_NO_JOIN,
        **options.batch_options(),
    )
    with scratch_folder() as folder:
        summary = run_batch(ReferenceTask(reference, folder, choice), items, config)
    if summary.table is None or summary.stopped:
        return summary.exit_code
    paths = {item.name: Path(item.path) for item in items}
    clips = read_clips(summary.table, paths)
    for name in (EDL, FCPXML):
        (output_dir / name).unlink(missing_ok=True)  # of an earlier run, with clips that may be gone
    logger.info(f"{PROGRAM}: {len(clips)} of {len(items)} videos are aligned to {reference}")
    if not clips:
        logger.info(f"  no timeline is written; the reasons are in {summary.table}")
        return max(summary.exit_code, ExitCode.SOME_FAILED)
    last_s = max(clip.start_s + clip.duration_s for clip in clips)
    master = TimelineClip(
        path=reference, start_s=0.0, duration_s=probe(reference).duration_s or last_s, has_video=False
    )
    write_text(output_dir / EDL, edl_text(clips, timeline_rate))
    write_text(output_dir / FCPXML, fcpxml_text(clips, master, timeline_rate))
    logger.info(f"  timelines: {output_dir / EDL}, {output_dir / FCPXML}")
    return summary.exit_code


def read_clips(table: Path, paths: dict[str, Path]) -> list[TimelineClip]:
    """The aligned videos of a table, in its order.

    Args:
        table: alignment.csv.
        paths: Of the videos by name; rows of others, whose files have gone, are left out.
    """
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [
            TimelineClip(
                path=paths[row["video"]],
                start_s=float(row["start_s"]),
                duration_s=float(row["duration_s"]),
                rate_hz=float(row["rate_hz"]),
                has_video=int(row["width"]) > 0,
                width=int(row["width"]),
                height=int(row["height"]),
                drift_ppm=float(row["drift_ppm"]),
            )
            for row in TableReader(file)
            if row["video"] in paths and row["is_aligned"] == "1"
        ]
