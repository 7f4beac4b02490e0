"""One group per person from a folder of faces: embed, group, choose representatives, write the files."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from facevox.batch import BatchConfig, run_batch
from facevox.batch import Summary as BatchSummary
from facevox.errors import ExitCode, NoFaceError, UserError
from facevox.files import (
    IMAGE_PATTERNS,
    find_files,
    relative_name,
    require_folder,
    set_run_token,
)
from facevox.locks import OutputLock
from facevox.logs import LOG_FILE, log_file
from facevox.manifest import (
    ItemIndex,
    Record,
    empty_text,
    find_manifests,
    is_too_much,
    load_manifest,
    make_header,
    manifest_file,
    read_manifest,
    write_manifest,
    write_table,
)
from facevox.mesh.kinds import FACE_MESH, describe_mesh
from facevox.progress import Progress, duration_text
from facevox.signals import StopFlag
from lc_pytorch.faces import embedding_task
from lc_pytorch.faces.embedders import FaceModel, find_model
from lc_pytorch.faces.embedding_store import VectorStore
from lc_pytorch.faces.face_table import read_face_table
from lc_pytorch.faces.group_files import PROGRAM, Placement, finish_plan, name_members, replace_files
from lc_pytorch.faces.grouping import group_faces
from lc_pytorch.faces.options import DedupeConfig
from lc_pytorch.utils.similarity import pair_similarities

logger = logging.getLogger(__name__)
TABLE = "groups.csv"
COLUMNS = ("file", "group", "representative", "distance", "quality", "dedupe_file")
EMBEDDINGS_FOLDER = ".embeddings"
NO_FACE = "no face found in the picture (--no-enforce_detection keeps such pictures)"


@dataclass(frozen=True, kw_only=True)
class DedupeSummary:
    """Result of a run.

    Attributes:
        num_faces: Pictures in the folder.
        num_groups: Number of people; 0 where only embeddings were made (a shard, a dry run, a stop).
        num_failed: Pictures left out because they cannot be read or embedded.
        num_nobody: Pictures left out because there is no face in them.
        is_empty: No picture was grouped.
        max_failed: See `BatchOptions`.
        seconds: Duration of the whole run.
        stopped: Name of the signal that ended it early, or "".
        table: Path of groups.csv; None where it was not written.
    """

    num_faces: int
    num_groups: int = 0
    num_failed: int = 0
    num_nobody: int = 0
    is_empty: bool = False
    max_failed: float = 0.0
    seconds: float = 0.0
    stopped: str = ""
    table: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the program."""
        if self.stopped:
            return ExitCode.STOPPED
        is_bad = is_too_much(self.num_failed, self.num_faces - self.num_nobody, self.max_failed)
        return ExitCode.SOME_FAILED if is_bad or self.is_empty else ExitCode.DONE


@dataclass
class _Faces:
    """The faces that can be grouped, and the reasons why the others cannot."""

    names: list[str] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    # Status, reason, quality.
    left_out: dict[str, tuple[str, str, float | None]] = field(default_factory=dict)


class _GroupRow(TypedDict):
    """A line of groups.csv; a picture that was left out has no group."""

    file: str
    status: str
    reason: str
    quality: float | str
    group: NotRequired[int]
    representative: NotRequired[str]
    distance: NotRequired[float]
    dedupe_file: NotRequired[str]


def deduplicate(config: DedupeConfig) -> DedupeSummary:
    """Groups a folder of faces, writes the files and logs a summary.

    A second run embeds only new faces, whatever the threshold, and replaces the files of the earlier
    grouping. A run that was killed and started again comes to the same result.

    Raises:
        UserError: Weights, faces or a threshold are missing, or foreign files are in the output folders.
    """
    start_s = time.monotonic()
    model = find_model(config.model_name, preprocessing=config.onnx_preprocessing)
    threshold = _chosen_threshold(config, model)
    items = _find_items(config)
    logger.info(f"{PROGRAM}: model {model.description}")
    store_dir = config.dedupe_dir / EMBEDDINGS_FOLDER / _folder_name(model.key)
    # A shard sees only some of the faces, and people are grouped over all of them.
    if config.dry_run or config.num_shards > 1:
        embedded = _embed(config, model, items, store_dir)
        return DedupeSummary(
            num_faces=embedded.num_items,
            num_failed=embedded.failed,
            max_failed=config.max_failed,
            stopped=embedded.stopped,
            seconds=time.monotonic() - start_s,
        )
    lock_file = manifest_file(config.dedupe_dir, PROGRAM).with_suffix(".lock")
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with OutputLock(lock_file) as lock, log_file(lock_file.with_name(LOG_FILE)):
        lock.clear_dead_run(PROGRAM, config.dedupe_dir, config.representative_dir)
        embedded = _embed(config, model, items, store_dir)
        if embedded.stopped:
            return DedupeSummary(
                num_faces=len(items), stopped=embedded.stopped, seconds=time.monotonic() - start_s
            )
        set_run_token(lock.token)
        try:
            with StopFlag() as stop:
                faces = _load_faces(config, items, store_dir)
                return _group(config, model, threshold, faces, store_dir, stop, start_s)
        finally:
            set_run_token("")


def _chosen_threshold(config: DedupeConfig, model: FaceModel) -> float:
    if config.threshold is not None:
        logger.info(f"{PROGRAM}: threshold {config.threshold} (cosine distance)")
        return config.threshold
    if model.default_threshold is None:
        raise UserError(
            f"--threshold is needed with {config.model_name}: none is known for this file; a cosine distance "
            "of 0.6 to 0.7 suits models of the ArcFace kind, smaller makes more and purer groups"
        )
    logger.info(
        f"{PROGRAM}: threshold {model.default_threshold} (cosine distance, DeepFace's for {model.name}; "
        "--threshold sets another)"
    )
    return model.default_threshold


def _find_items(config: DedupeConfig) -> list[embedding_task.FaceItem]:
    """The pictures as items, with the landmarks that face extraction wrote."""
    faces_dir = require_folder(config.faces_dir, "--faces_dir")
    outputs = (config.dedupe_dir, config.representative_dir)
    files = find_files(faces_dir, IMAGE_PATTERNS, exclude=outputs, what="--faces_dir")
    table = read_face_table(faces_dir / "faces.csv")
    names = [relative_name(path, faces_dir) for path in files]
    return [
        embedding_task.FaceItem(name, str(path), extracted=table.get(name, {}))
        for name, path in zip(names, files, strict=True)
    ]


def _embed(
    config: DedupeConfig, model: FaceModel, items: list[embedding_task.FaceItem], store_dir: Path
) -> BatchSummary:
    task = embedding_task.EmbedTask(model, config.device, use_store=not config.overwrite)
    options = config.batch_options()
    # The batch reads only its manifest, so this is the place to notice that vectors are gone: embed again.
    options["overwrite"] |= not (config.dry_run or _is_store_whole(store_dir))
    return run_batch(
        task,
        items,
        BatchConfig(
            **options,
            program=embedding_task.PROGRAM,
            output_dir=store_dir,
            table=embedding_task.TABLE,
            columns=embedding_task.COLUMNS,
            item_column="file",
            settings={"model": model.key},
            chunk_size=config.batch_size,
            unit="face",
            join="the same command once with --num_shards 1 to group",
        ),
    )


def _is_store_whole(store_dir: Path) -> bool:
    """True if the store still has the vectors of all faces that the manifest calls done."""
    if not find_manifests(store_dir, embedding_task.PROGRAM):
        return True
    store = VectorStore(store_dir / embedding_task.STORE_FOLDER)
    return all(
        bytes.fromhex(record["rows"][0]["key"]) in store
        for path in find_manifests(store_dir, embedding_task.PROGRAM)
        if (manifest := load_manifest(path)) is not None
        for record in manifest.records(manifest.offsets)
        if record["status"] == "done"
    )


def _load_faces(config: DedupeConfig, items: Sequence[embedding_task.FaceItem], store_dir: Path) -> _Faces:
    """The faces of this run, in the order of their names, from the embedding step's manifests."""
    faces = _Faces()
    names = {item.name for item in items}
    for record in read_manifest(store_dir, embedding_task.PROGRAM):
        name = record["item"]
        if name not in names:
            continue  # a face that has been removed since
        if record["status"] != "done":
            faces.left_out[name] = (record["status"], record["reason"], None)
            continue
        try:
            row = record["rows"][0]
            is_left_out = config.enforce_detection and not row["is_detected"]
            key, quality = bytes.fromhex(row["key"]), float(row["quality"])
        except (LookupError, TypeError, ValueError):
            raise UserError(
                f"{store_dir}: the manifest is damaged at {name!r}; remove this folder and run again"
            ) from None
        if is_left_out:
            faces.left_out[name] = (NoFaceError.status, NO_FACE, quality)
            continue
        faces.names.append(name)
        faces.keys.append(key)
        faces.quality.append(quality)
    return faces


def choose_representatives(labels: NDArray[np.int64], quality: Sequence[float]) -> NDArray[np.int64]:
    """(N,) index of the best face of each face's group: highest quality, the first of equals.

    Args:
        labels: (N,) groups, numbered from 0.
        quality: (N,) scores.
    """
    order = np.lexsort((np.arange(len(labels)), -np.asarray(quality), labels))
    first = np.ones(len(labels), bool)
    first[1:] = labels[order][1:] != labels[order][:-1]
    leaders = np.empty(int(labels.max()) + 1 if len(labels) else 0, np.int64)
    leaders[labels[order][first]] = order[first]
    return leaders[labels]


def _group(
    config: DedupeConfig,
    model: FaceModel,
    threshold: float,
    faces: _Faces,
    store_dir: Path,
    stop: StopFlag,
    start_s: float,
) -> DedupeSummary:
    """Groups the faces and replaces the files of the earlier grouping with those of this one."""
    vectors = VectorStore(store_dir / embedding_task.STORE_FOLDER).vectors(faces.keys)
    labels = group_faces(vectors, threshold) if len(vectors) else np.empty(0, np.int64)
    leaders = choose_representatives(labels, faces.quality)
    distances = 1.0 - pair_similarities(vectors, vectors, np.arange(len(vectors)), leaders)
    targets = name_members(faces.names, leaders.tolist())
    # Absolute, but as the user wrote them: a linked folder keeps its name.
    source, dedupe, representatives = (
        Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
        for path in (config.faces_dir, config.dedupe_dir, config.representative_dir)
    )
    placements = []
    for face, name in enumerate(faces.names):
        placements.append(Placement(source / name, dedupe / targets[face]))
        if leaders[face] == face:
            placements.append(Placement(source / name, representatives / name))
    with Progress(len(placements), PROGRAM, "file") as progress:

        def on_copied() -> bool:
            progress.update(1)
            return bool(stop)

        finished = replace_files(
            placements, (dedupe, representatives), overwrite=config.overwrite, on_copied=on_copied
        )
    rows = _rows(faces, labels, leaders, distances, targets)
    num_faces = len(faces.names) + len(faces.left_out)
    statuses = Counter(status for status, _, _ in faces.left_out.values())
    if not finished:
        logger.info(f"{PROGRAM}: stopped by {stop.signal_name}; run the same command again to continue")
        return DedupeSummary(
            num_faces=num_faces, stopped=stop.signal_name, seconds=time.monotonic() - start_s
        )
    table = _write_records(config, model, threshold, rows, (dedupe, representatives))
    finish_plan(dedupe)
    summary = DedupeSummary(
        num_faces=num_faces,
        num_groups=int(labels.max()) + 1 if len(labels) else 0,
        num_failed=statuses["failed"],
        num_nobody=statuses[NoFaceError.status],
        is_empty=not faces.names,
        max_failed=config.max_failed,
        seconds=time.monotonic() - start_s,
        table=table,
    )
    _log_summary(summary, faces, config)
    return summary


def _rows(
    faces: _Faces,
    labels: NDArray[np.int64],
    leaders: NDArray[np.int64],
    distances: NDArray[np.float32],
    targets: Sequence[str],
) -> list[_GroupRow]:
    """The lines of groups.csv, sorted by file."""
    rows: list[_GroupRow] = [
        {
            "file": name,
            "group": int(labels[face]),
            "representative": faces.names[leaders[face]],
            # A face compared with itself is off by rounding.
            "distance": 0.0 if leaders[face] == face else round(max(float(distances[face]), 0.0), 6),
            "quality": faces.quality[face],
            "dedupe_file": targets[face],
            "status": "done",
            "reason": "",
        }
        for face, name in enumerate(faces.names)
    ]
    rows += [
        {"file": name, "quality": "" if quality is None else quality, "status": status, "reason": reason}
        for name, (status, reason, quality) in faces.left_out.items()
    ]
    return sorted(rows, key=lambda row: row["file"])


def _write_records(
    config: DedupeConfig,
    model: FaceModel,
    threshold: float,
    rows: Sequence[_GroupRow],
    folders: tuple[Path, Path],
) -> Path:
    """Writes the manifest of the grouping and groups.csv."""
    dedupe, representatives = folders
    settings = {
        "model": model.key,
        "threshold": threshold,
        "enforce_detection": config.enforce_detection,
    }
    header = make_header(PROGRAM, settings, TABLE, COLUMNS, "file")
    path = manifest_file(dedupe, PROGRAM)

    def record_of(row: _GroupRow) -> Record:
        targets = []
        if row["status"] == "done":
            targets = [dedupe / row["dedupe_file"]]
            if row["representative"] == row["file"]:
                targets.append(representatives / row["file"])
        return {
            "item": row["file"],
            "status": row["status"],
            "reason": row["reason"],
            "outputs": [(os.path.relpath(target, dedupe), target.stat().st_size) for target in targets],
            "rows": [row],
            "seconds": 0.0,
            "fingerprint": None,
        }

    write_manifest(path, header, (record_of(row) for row in rows))
    manifest = load_manifest(path)
    assert manifest is not None
    write_table(dedupe / TABLE, header, ItemIndex([manifest]), spreadsheet_safe=config.spreadsheet_safe)
    return dedupe / TABLE


def _log_summary(summary: DedupeSummary, faces: _Faces, config: DedupeConfig) -> None:
    empty = f"{summary.num_nobody} {NoFaceError.status}, " if summary.num_nobody else ""
    logger.info(
        f"{PROGRAM}: {len(faces.names)} faces of {summary.num_groups} people, {empty}{summary.num_failed} "
        f"failed, in {duration_text(summary.seconds)}"
    )
    for name, (_, reason, _) in sorted(faces.left_out.items())[:5]:
        logger.info(f"  left out: {name!r}: {reason}")
    if len(faces.left_out) > 5:
        logger.info(f"  … and {len(faces.left_out) - 5} more left out")
    if summary.is_empty:
        settings = {"model": config.model_name, "enforce_detection": config.enforce_detection}
        logger.info(empty_text(PROGRAM, settings, describe_mesh(FACE_MESH)))
    logger.info(f"  groups: {summary.table}")


def _folder_name(key: str) -> str:
    """Name of a model's folder, by its key."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in key)[-120:].lstrip(".")
