"""Archives to shards of landmarks: a pool of readers, resumable, with a record of every picture.

Output folder:

    shards/<archive>-<first>-<pictures>.npy
                                  (n, 478, 3) float32: the faces of one shard, in MediaPipe's units
    shards/….blendshapes.npy      (n, 52) float32, of the mesh face_landmarker only
    index.csv                     a row for each picture: archive, member, shard, row, label, person, width,
                                  height, reduction, faces, status, reason
    manifests/extract_landmarks.jsonl

The item of the batch is a shard: pictures that are neighbours in one archive. It is written whole, before
the manifest names it: after a kill at most one shard is done again, and none is there twice. Its pictures
go one by one to separate processes: a crash or a hang costs the picture at hand, which is recorded, and
nothing else.
"""

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.landmarks.options import ExtractConfig
from emotion.landmarks.plan import Picture, Plan, ShardItem, plan_shards
from emotion.landmarks.shards import COLUMNS, NUM_POINTS, PROGRAM, TABLE, blendshapes_of
from emotion.landmarks.table import LandmarkTable, load_table
from facevox.batch import BatchConfig, BatchOptions, Item, Outcome, Summary, Task, run_batch
from facevox.errors import ExitCode, NoFaceError, UserError, one_line
from facevox.files import replacing, scratch_folder
from facevox.limits import SPARE_BYTES
from facevox.manifest import NOBODY, empty_text, find_programs, is_too_much, read_manifest, status_text
from facevox.mesh.face_landmarker import NUM_BLENDSHAPES, require_mediapipe
from facevox.mesh.kinds import FACE_LANDMARKER, FACE_MESH, describe_mesh
from facevox.workers import WorkerPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """Result of a run: that of the batch (shards), and the pictures in the index by status.

    Attributes:
        is_whole: Whether the run did all shards, not a part of a job array.
        mesh: One of `facevox.mesh.kinds.MESHES`.
    """

    summary: Summary
    plan: Plan
    statuses: dict[str, int]
    is_whole: bool = True
    mesh: str = FACE_MESH

    def lines(self, output_dir: Path) -> list[str]:
        """The contents of `output_dir`, for people."""
        pictures = [f"  pictures in {output_dir}: {status_text(self.statuses)}"] if self.statuses else []
        nobody = [empty_text(PROGRAM, {}, describe_mesh(self.mesh))]
        return pictures + (nobody if self.is_empty else [])

    @property
    def exit_code(self) -> ExitCode:
        """The program's exit code: by the pictures of the index, and not by the shards."""
        if self.summary.stopped:
            return ExitCode.STOPPED
        num_pictures = sum(count for status, count in self.statuses.items() if status not in NOBODY)
        is_bad = is_too_much(self.statuses.get("failed", 0), num_pictures, self.summary.max_failed)
        return ExitCode.SOME_FAILED if is_bad or self.is_empty else ExitCode.DONE

    @property
    def is_empty(self) -> bool:
        """True if no picture gave landmarks; always False for a part of an array."""
        return self.is_whole and bool(self.statuses) and not self.statuses.get("done")


@dataclass(frozen=True, kw_only=True)
class PictureItem(Item):
    """A picture of a shard, and its index there."""

    picture: Picture
    index: int


class PictureJob:
    """The work of a process of the pool, one picture after the other; a `facevox.workers.Job`.

    Args:
        mesh: One of `facevox.mesh.kinds.MESHES`.
    """

    spare_bytes = SPARE_BYTES

    def __init__(self, mesh: str = FACE_MESH) -> None:
        self.mesh = mesh

    def open(self, output_dir: Path) -> None:
        """Makes this process's mesh. Archives are opened here too, when their first picture comes."""
        from emotion.landmarks.reader import PictureReader  # OpenCV: the program's --help is quick without

        self._reader = PictureReader(self.mesh)

    def process_chunk(self, items: Sequence[PictureItem]) -> Iterator[Outcome]:
        """The row of each picture, with its landmarks as bytes."""
        for item in items:
            yield self.read(item)

    def read(self, item: PictureItem) -> Outcome:
        """The row of one picture; any fault of it becomes its status and reason."""
        picture = item.picture
        try:
            face = self._reader.read(item.path, picture.offset, picture.member, picture.edges)
        except NoFaceError as error:
            return Outcome(rows=[{"status": error.status, "reason": str(error)}])
        except (OSError, MemoryError) as error:
            # Of the machine, not of the picture: the next run tries again.
            return Outcome.without_result(error)
        except Exception as error:  # a picture may be broken in any way; one never ends a batch
            return Outcome(rows=[{"status": "failed", "reason": one_line(error)}])
        row = {
            "points": face.points.tobytes(),
            "blendshapes": b"" if face.blendshapes is None else face.blendshapes.tobytes(),
            "width": face.width,
            "height": face.height,
            "reduction": face.reduction,
            "faces": face.num_faces,
            "status": "done",
            "reason": "",
        }
        return Outcome(rows=[row])

    def close(self) -> None:
        """Closes the mesh."""
        self._reader.close()


class ShardTask(Task[ShardItem]):
    """Writes shards: their pictures go to the readers, the landmarks into one file each.

    Args:
        job: Reads the pictures.
        workers: Processes that read; 0 reads in this one.
        picture_timeout_s: A picture that takes longer fails, and its process is replaced.
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
        """The outcome of each shard. A fault that concerns all (a full disk) ends the batch."""
        for item in items:
            if item.problem:
                row = {"archive": item.name, "status": "failed", "reason": item.problem}
                yield Outcome([row], status="failed", reason=item.problem)
            else:
                yield self._shard(item)

    def _shard(self, item: ShardItem) -> Outcome:
        pictures, output = item.pictures, item.output
        assert output is not None, "planned for every shard"
        singles = [
            PictureItem(picture.member, item.path, picture=picture, index=index)
            for index, picture in enumerate(pictures)
        ]
        rows: list[dict[str, object]] = [{} for _ in pictures]
        lost = []
        for single, outcome in self._read(singles):
            if outcome.rows:
                rows[single.index] |= outcome.rows[0]
            else:
                rows[single.index] |= {"status": "failed", "reason": outcome.reason}
                lost.append(f"{single.name}: {outcome.reason}")
        faces: list[NDArray[np.float32]] = []
        shapes: list[NDArray[np.float32]] = []
        for picture, row in zip(pictures, rows, strict=True):
            row["archive"], row["member"] = item.archive, picture.member
            row["label"], row["person"] = picture.label, picture.person
            points, blendshapes = row.pop("points", None), row.pop("blendshapes", b"")
            if isinstance(points, bytes) and isinstance(blendshapes, bytes):
                row |= {"shard": output, "row": len(faces)}
                shapes.append(np.frombuffer(blendshapes, np.float32))
                faces.append(np.frombuffer(points, np.float32).reshape(NUM_POINTS, 3))
        arrays: dict[str, NDArray[np.float32]]
        arrays = {output: np.array(faces, np.float32).reshape(-1, NUM_POINTS, 3)}
        if self._job.mesh == FACE_LANDMARKER:
            arrays[blendshapes_of(output)] = np.array(shapes, np.float32).reshape(-1, NUM_BLENDSHAPES)
        for name, array in arrays.items():
            with replacing(self.output_dir / name) as file:
                np.save(file, array, allow_pickle=False)
        if lost:  # as after a shortage of memory: the next run tries these again
            return Outcome(rows, list(arrays), "failed", f"{len(lost)} pictures lost, the first {lost[0]}")
        return Outcome(rows, list(arrays))

    def _read(self, singles: list[PictureItem]) -> Iterator[tuple[PictureItem, Outcome]]:
        if self._pool is None:
            yield from zip(singles, self._job.process_chunk(singles), strict=True)
            return
        # The whole shard is finished before a signal counts: it is a matter of seconds.
        for single, outcome, _ in self._pool.run(([single] for single in singles), lambda: False):
            yield single, outcome


def run_extraction(
    config: ExtractConfig, options: BatchOptions, make_job: Callable[[str], PictureJob] = PictureJob
) -> Extraction:
    """Reads all pictures that are not in the output folder yet; see the module.

    Args:
        config: The archives and the output folder.
        options: Of the batch.
        make_job: Makes the reader of pictures with a mesh; picklable.

    Raises:
        UserError: No pictures, a second run in the folder, another mesh than before, a full disk, or
            mediapipe is missing.
    """
    if config.mesh == FACE_LANDMARKER:
        require_mediapipe("--mesh face_landmarker", ", or use --mesh face_mesh")
    plan = plan_shards(config.zips, config.labels, config.limit, config.shard_pictures)
    logger.info(f"{PROGRAM}: {plan.num_pictures} pictures in {len(plan.items)} shards")
    for count, field in ((plan.num_unlabelled, "label"), (plan.num_unnamed, "person")):
        if count:
            logger.info(f"  {count} of them have no {field} in names or annotations")
    if config.limit and PROGRAM in find_programs(config.output_dir):
        _check_limit(config.output_dir, config.limit, plan.items)
    batch = BatchConfig(
        **{**options.batch_options(), "debug": True},  # the pool of readers is the task's
        output_dir=config.output_dir,
        program=PROGRAM,
        table=TABLE,
        columns=COLUMNS,
        item_column="archive",
        settings={"points": NUM_POINTS, "mesh": config.mesh},
        implied={"mesh": FACE_MESH},
        unit="shard",
    )
    num_workers = 0 if options.debug else max(options.workers, 1)
    task = ShardTask(make_job(config.mesh), num_workers, options.item_timeout_s)
    summary = run_batch(task, plan.items, batch)
    planned = {item.name for item in plan.items}
    statuses = {} if options.dry_run else count_statuses(config.output_dir, planned)
    return Extraction(summary, plan, statuses, is_whole=options.num_shards == 1, mesh=config.mesh)


def _check_limit(output_dir: Path, limit: int, items: Sequence[ShardItem]) -> None:
    """Checks that no shard of an earlier run would be replaced by a smaller one.

    Raises:
        UserError: One would.
    """
    sizes = {item.name: len(item.pictures) for item in items if item.pictures}
    earlier = {r["item"]: len(r["rows"]) for r in read_manifest(output_dir, PROGRAM) if r["status"] == "done"}
    larger = [name for name, size in sizes.items() if earlier.get(name, 0) > size]
    if larger:
        raise UserError(
            f"--limit {limit}: {output_dir} has {earlier[larger[0]]} pictures of {larger[0]} already, and "
            f"{sizes[larger[0]]} would replace them; use another --output_dir, a higher limit, or none"
        )


def count_statuses(output_dir: Path, planned: Container[str]) -> dict[str, int]:
    """Number of pictures by status, counted by the rule of the index.

    Args:
        output_dir: Of the extraction. The index itself is not there yet while a part of an array runs.
        planned: Items of this run. Failures of other items are not in the index.
    """
    counts: dict[str, int] = {}
    for record in read_manifest(output_dir, PROGRAM):
        if record["status"] != "done" and record["item"] not in planned:
            continue
        for row in record["rows"] or ([{}] if record["status"] != "done" else []):
            status = row.get("status", record["status"])
            counts[status] = counts.get(status, 0) + 1
    return counts


def extract_landmarks_from_zip(zip_path: str | Path, label: str = "", limit: int = 0) -> LandmarkTable:
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
    with scratch_folder() as folder:
        config = ExtractConfig(
            zips=(Path(zip_path),),
            labels=(label,) if label else (),
            limit=limit,
            output_dir=folder,
        )
        run_extraction(config, BatchOptions(debug=True))
        return load_table(folder, in_memory=True)
