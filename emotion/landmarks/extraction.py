"""Archives to shards of landmarks: a pool of readers, restartable, with a record of every picture.

Output folder:

    shards/<archive>-<first>-<pictures>.npy
                                  (n, 478, 3) float32: the faces of one shard, as MediaPipe gives them
    index.csv                     a row for each picture: archive, member, shard, row, label, person, width,
                                  height, reduction, faces, status, reason
    manifests/extract_landmarks.jsonl

The item of the batch is a shard: pictures that lie side by side in one archive. It is written whole, before
the manifest names it: a killed run does at most one shard again, and none is there twice. Its pictures go one
by one to processes of their own: one that crashes or hangs costs the picture that it was at, which is
recorded, and nothing else.
"""

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emotion.landmarks.options import ExtractConfig
from emotion.landmarks.plan import Picture, Plan, ShardItem, plan_shards
from emotion.landmarks.shards import COLUMNS, NUM_POINTS, PROGRAM, TABLE
from facevox.batch import BatchConfig, BatchOptions, Item, Outcome, Summary, Task, run_batch
from facevox.errors import ExitCode, NoFaceError, one_line
from facevox.faces import MIN_CONFIDENCE
from facevox.files import replacing
from facevox.manifest import NOBODY, empty_text, is_too_much, read_manifest, status_text
from facevox.workers import WorkerPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emotion.landmarks.table import LandmarkTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """What a run did: of the batch (shards), and of the pictures that the index now has, by status.

    Attributes:
        is_whole: It was no part of an array.
    """

    summary: Summary
    plan: Plan
    statuses: dict[str, int]
    is_whole: bool = True

    def lines(self, output_dir: Path) -> list[str]:
        """What `output_dir` has now, for people."""
        found = [f"  pictures in {output_dir}: {status_text(self.statuses)}"] if self.statuses else []
        nobody = [empty_text(PROGRAM, {}, f"FaceMesh, min_confidence {MIN_CONFIDENCE}")]
        return found + (nobody if self.is_empty else [])

    @property
    def exit_code(self) -> ExitCode:
        """What the program returns: by the pictures of the index, and not by the shards."""
        if self.summary.stopped:
            return ExitCode.STOPPED
        num_pictures = sum(count for status, count in self.statuses.items() if status not in NOBODY)
        is_bad = is_too_much(self.statuses.get("failed", 0), num_pictures, self.summary.max_failed)
        return ExitCode.SOME_FAILED if is_bad or self.is_empty else ExitCode.DONE

    @property
    def is_empty(self) -> bool:
        """Whether not one picture gave landmarks; a part of an array does not know."""
        return self.is_whole and bool(self.statuses) and not self.statuses.get("done")


@dataclass(frozen=True, kw_only=True)
class PictureItem(Item):
    """A picture of a shard, and its place there."""

    picture: Picture
    place: int


class PictureJob:
    """What a process of the pool does: one picture after the other; see `facevox.workers.Job`."""

    def open(self, output_dir: Path) -> None:
        """Makes this process's FaceMesh. Archives are opened here too, when their first picture comes."""
        from emotion.landmarks.reader import PictureReader

        self._reader = PictureReader()

    def process_chunk(self, items: Sequence[PictureItem]) -> Iterator[Outcome]:
        """The row of each picture, with its landmarks as bytes."""
        for item in items:
            yield self.read(item)

    def read(self, item: PictureItem) -> Outcome:
        """One picture; whatever is wrong with it becomes its status and reason."""
        picture = item.picture
        try:
            face = self._reader.read(item.path, picture.offset, picture.member, picture.edges)
        except NoFaceError as error:
            return Outcome(rows=[{"status": error.status, "reason": str(error)}])
        except (
            OSError,
            MemoryError,
        ) as error:  # of the machine, not of the picture: the next run tries again
            return Outcome.without_result(error)
        except Exception as error:  # a picture may be broken in any way; one never ends a batch
            return Outcome(rows=[{"status": "failed", "reason": one_line(error)}])
        row = {
            "points": face.points.tobytes(),
            "width": face.width,
            "height": face.height,
            "reduction": face.reduction,
            "faces": face.num_faces,
            "status": "done",
            "reason": "",
        }
        return Outcome(rows=[row])

    def close(self) -> None:
        """Gives FaceMesh back."""
        self._reader.close()


class ShardTask(Task[ShardItem]):
    """Writes a shard: hands its pictures to the readers and gathers what comes back.

    Args:
        job: Reads the pictures.
        workers: Processes that read; 0 reads in this one.
        picture_timeout_s: A picture that takes longer is given up, and its process replaced.
    """

    def __init__(self, job: PictureJob, workers: int, picture_timeout_s: float) -> None:
        self._job = job
        self._workers, self._timeout_s = workers, picture_timeout_s
        self._pool: WorkerPool[PictureItem] | None = None
        self._stack = ExitStack()

    def open(self, output_dir: Path) -> None:
        """Prepares the readers; processes start with the first pictures."""
        super().open(output_dir)
        if self._workers:
            pool = WorkerPool(self._job, output_dir, self._workers, "", self._timeout_s)
            self._pool = self._stack.enter_context(pool)
        else:
            self._job.open(output_dir)
            self._stack.callback(self._job.close)

    def close(self) -> None:
        """Ends the readers."""
        self._stack.close()

    def process_chunk(self, items: Sequence[ShardItem]) -> Iterator[Outcome]:
        """The shards. What goes wrong with all (no weights, a full disk) ends the batch."""
        for item in items:
            if item.problem:
                row = {"archive": item.name, "status": "failed", "reason": item.problem}
                yield Outcome([row], status="failed", reason=item.problem)
            else:
                yield self._shard(item)

    def _shard(self, item: ShardItem) -> Outcome:
        import numpy as np

        pictures, output = item.pictures, item.output
        assert output is not None, "planned for every shard"
        singles = [
            PictureItem(picture.member, item.path, picture=picture, place=place)
            for place, picture in enumerate(pictures)
        ]
        rows: list[dict[str, object]] = [{} for _ in pictures]
        lost = []
        for single, outcome in self._read(singles):
            if outcome.rows:
                rows[single.place] |= outcome.rows[0]
            else:
                rows[single.place] |= {"status": "failed", "reason": outcome.reason}
                lost.append(f"{single.name}: {outcome.reason}")
        faces: list[NDArray[np.float32]] = []
        for picture, row in zip(pictures, rows, strict=True):
            row["archive"], row["member"] = item.archive, picture.member
            row["label"], row["person"] = picture.label, picture.person
            points = row.pop("points", None)
            if isinstance(points, bytes):
                row |= {"shard": output, "row": len(faces)}
                faces.append(np.frombuffer(points, np.float32).reshape(NUM_POINTS, 3))
        with replacing(self.output_dir / output) as file:
            np.save(file, np.array(faces, np.float32).reshape(-1, NUM_POINTS, 3), allow_pickle=False)
        if lost:  # as after a shortage of memory: the next run tries these again
            return Outcome(rows, [output], "failed", f"{len(lost)} pictures lost, the first {lost[0]}")
        return Outcome(rows, [output])

    def _read(self, singles: list[PictureItem]) -> Iterator[tuple[PictureItem, Outcome]]:
        if self._pool is None:
            yield from zip(singles, self._job.process_chunk(singles), strict=True)
            return
        # The whole shard is finished before a signal is looked at: it is a matter of seconds.
        for single, outcome, _ in self._pool.run(([single] for single in singles), lambda: False):
            yield single, outcome


def run_extraction(
    config: ExtractConfig, options: BatchOptions, make_job: Callable[[], PictureJob] = PictureJob
) -> Extraction:
    """Reads what is not read yet; see the module.

    Args:
        config: What is read.
        options: How the batch is run.
        make_job: Makes what reads the pictures; picklable.

    Raises:
        UserError: Nothing to read, a second run in the folder, a full disk.
    """
    plan = plan_shards(config.zips, config.labels, config.limit, config.shard_pictures)
    logger.info(f"{PROGRAM}: {plan.num_pictures} pictures in {len(plan.items)} shards")
    for count, what in ((plan.num_unlabelled, "label"), (plan.num_unnamed, "person")):
        if count:
            logger.info(f"  {count} of them have no {what} in names or annotations")
    batch = BatchConfig(
        **{**options.batch_options(), "workers": 0},
        output_dir=config.output_dir,
        program=PROGRAM,
        table=TABLE,
        columns=COLUMNS,
        item_column="archive",
        settings={"points": NUM_POINTS},
        unit="shard",
    )
    summary = run_batch(ShardTask(make_job(), options.workers, options.item_timeout_s), plan.items, batch)
    planned = {item.name for item in plan.items}
    statuses = {} if options.dry_run else count_statuses(config.output_dir, planned)
    return Extraction(summary, plan, statuses, is_whole=options.num_shards == 1)


def count_statuses(output_dir: Path, planned: Container[str]) -> dict[str, int]:
    """How many pictures the folder records, by status; by the rule of the index.

    Args:
        output_dir: Of the extraction. The index itself is not there yet while a part of an array runs.
        planned: Items of this run. What failed and is not wanted any more is not in the index.
    """
    counts: dict[str, int] = {}
    for record in read_manifest(output_dir, PROGRAM):
        if record["status"] != "done" and record["item"] not in planned:
            continue
        for row in record["rows"] or ([{}] if record["status"] != "done" else []):
            status = row.get("status", record["status"])
            counts[status] = counts.get(status, 0) + 1
    return counts


def extract_landmarks_from_zip(zip_path: str | Path, label: str = "", limit: int = 0) -> "LandmarkTable":
    """The landmarks of one archive in memory, read in this process; for notebooks and small archives.

    Args:
        zip_path: The archive; it is not unpacked.
        label: Of all its pictures; "": from annotations and names.
        limit: Pictures that are read; 0: all.

    Returns:
        The pictures with a face; `LandmarkTable.rows` (n, 478, 3) has their landmarks.

    Raises:
        UserError: No such archive, or no pictures in it.
    """
    import tempfile

    from emotion.landmarks.table import load_table

    with tempfile.TemporaryDirectory(prefix="facevox-") as folder:
        config = ExtractConfig(
            zips=(Path(zip_path),),
            labels=(label,) if label else (),
            limit=limit,
            output_dir=Path(folder),
        )
        run_extraction(config, BatchOptions(workers=0))
        return load_table(Path(folder), in_memory=True)
