"""Embeds files in batches, on one process or many; embeddings that are in the cache are not computed again.

A file that cannot be read is left out with its reason. Of several processes (torchrun, srun) each embeds a
share, and all of them get all embeddings.

Letters: N files, D numbers of an embedding.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from facevox.errors import UserError, one_line
from facevox.progress import Progress, duration_text
from facevox.signals import StopFlag, end_children_at_exit
from facevox.training import distributed
from facevox.training.batches import start_worker
from lc_pytorch.evaluation.options import PassOptions
from lc_pytorch.evaluation.readers import MediaFiles
from lc_pytorch.faces.embedding_store import FACTS, VectorStore
from lc_pytorch.models.face_voice import TwoTowerModel

logger = logging.getLogger(__name__)
# (row in the list of files, its content or None, reason why there is none)
_Item = tuple[int, Tensor | None, str]


@dataclass(frozen=True)
class Embedded:
    """The embeddings of the files that could be read, in the order of the list.

    Attributes:
        rows: (n,) int64, their positions in the list.
        vectors: (n, D) float32, unit length.
        failures: (file, reason) of those left out.
        num_cached: Number of those that came from the cache.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]
    failures: list[tuple[Path, str]] = field(default_factory=list)
    num_cached: int = 0


class Stopped(Exception):
    """A signal asked to stop; what was embedded so far is in the cache."""


def require_writable(file: Path, option: str) -> None:
    """Checks, before any slow step, that `file` can be written.

    Raises:
        UserError: It is a folder, or nothing can be written into the nearest existing folder above it.
    """
    if file.is_dir():
        raise UserError(f"{option} {file}: is a folder; the name of a file is expected")
    above = _nearest(file.absolute().parent)
    if not above.is_dir():
        raise UserError(f"{option} {file}: {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{option} {file}: nothing can be written into {above}")


def _nearest(path: Path) -> Path:
    """The path itself if it exists, else the nearest folder above it that does."""
    return next(each for each in (path, *path.parents) if each.exists())


@functools.cache  # one message a run
def _is_cache_writable(folder: Path) -> bool:
    """False, with a message, for a folder of a read-only disk or of somebody else."""
    above = _nearest(folder.absolute())
    is_writable = not above.is_dir() or os.access(above, os.W_OK | os.X_OK)
    if not is_writable and distributed.rank() == 0:
        logger.warning(
            f"nothing can be written into {above}: embeddings are not kept for the next run "
            "(--cache_dir keeps them elsewhere, --no_cache omits this message)"
        )
    return is_writable


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names and values of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def embed_files(
    model: TwoTowerModel,
    media: MediaFiles,
    options: PassOptions,
    device: torch.device,
    stop: StopFlag | None = None,
) -> Embedded:
    """The embeddings of all files that can be read. Every process of a group calls it and gets the same.

    Args:
        model: In evaluation mode, on `device`.
        media: The files to embed.
        options: How to embed them.
        device: Of the model.
        stop: A flag that ends the pass at the next batch, on all processes.

    Raises:
        UserError: The cache cannot be read or written.
        Stopped: The flag was raised on some process.
    """
    weights = weights_hash(model) if options.cache_dir else ""
    keys, failures = _keys(media, weights, options.precision)
    store = VectorStore(options.cache_dir / weights[:16]) if options.cache_dir else None
    readable = np.array([key is not None for key in keys])
    cached = np.array([store is not None and key is not None and key in store for key in keys], bool)
    # Only what is in the cache for every process counts: one that opens it late may see what another has
    # written in the meantime, and all must share out the same list.
    cached &= _on_every_rank(cached)
    readable &= _on_every_rank(readable)
    hidden = (row for row in np.flatnonzero(~readable).tolist() if row not in failures)
    failures |= dict.fromkeys(hidden, "another process of this run cannot find the file")
    todo = np.flatnonzero(readable & ~cached)
    with nullcontext() if store is None else store:
        fresh_rows, fresh_vectors, fresh_failures = _embed_share(
            model, media, options, device, todo, (store, keys), stop
        )
    failures |= fresh_failures
    cached_rows = np.flatnonzero(cached)
    rows, vectors = fresh_rows, fresh_vectors
    if store is not None and len(cached_rows):
        stored = store.vectors([keys[row] or b"" for row in cached_rows])
        rows = np.concatenate([cached_rows, fresh_rows])
        # Without a fresh vector the width of `fresh_vectors` is 0, which does not join.
        vectors = np.concatenate([stored, fresh_vectors]) if len(fresh_rows) else stored
    order = np.argsort(rows)
    left_out = [(media.files[row], reason) for row, reason in sorted(failures.items())]
    return Embedded(rows[order], vectors[order], left_out, len(cached_rows))


def estimate_pass(
    model: TwoTowerModel, medias: Sequence[MediaFiles], options: PassOptions, device: torch.device
) -> list[str]:
    """Lines on what embedding all these files would take; tries a batch of each kind, writes nothing.

    Args:
        model: See `embed_files`.
        medias: The files that would be embedded.
        options: How to embed them.
        device: Of the model.
    """
    lines, total_s, num_bytes = [], 0.0, 0
    alone = replace(options, cache_dir=None, num_workers=0)
    for media in medias:
        step = max(len(media.files) // options.batch_size, 1)  # over the whole list: sizes differ by folder
        rows = range(0, len(media.files), step)[: options.batch_size]
        sample = replace(
            media,
            files=[media.files[row] for row in rows],
            identities=[media.identities[row] for row in rows],
        )
        start_s = time.monotonic()
        embedded = embed_files(model, sample, alone, device)
        seconds = (time.monotonic() - start_s) / max(len(rows), 1) * len(media.files)
        total_s += seconds
        num_bytes += embedded.vectors[:1].nbytes * len(media.files)
        lines.append(
            f"{len(media.files)} {media.kind}s of {len(set(media.identities))} people, about "
            f"{duration_text(seconds)}; {len(embedded.failures)} of {len(rows)} tried cannot be used"
        )
    cache = f"{max(num_bytes // 1000, 1)} kB in {options.cache_dir}" if options.cache_dir else "nothing kept"
    return [*lines, f"embedding: about {duration_text(total_s)} in one process; {cache}"]


def _keys(media: MediaFiles, weights: str, precision: str) -> tuple[list[bytes | None], dict[int, str]]:
    """The cache key of each file; for one that does not exist None, and a reason by its row."""
    # All that an embedding depends on is in the key: a file that changes gets another one.
    settings = json.dumps([weights, media.kind, precision, media.settings], sort_keys=True)
    start = hashlib.sha256(settings.encode())
    keys: list[bytes | None] = []
    failures = {}
    for row, file in enumerate(media.files):
        try:
            status = file.stat()
        except (OSError, ValueError) as error:
            keys.append(None)
            failures[row] = one_line(error)
            continue
        digest = start.copy()
        digest.update(os.fsencode(os.path.realpath(file)))
        digest.update(f"\n{status.st_size} {status.st_mtime_ns}".encode())
        keys.append(digest.digest())
    return keys, failures


class _Reader(Dataset[_Item]):
    """The files of `rows`, one item each."""

    def __init__(self, media: MediaFiles, rows: NDArray[np.int64]) -> None:
        self._media, self._rows = media, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> _Item:
        row = int(self._rows[index])
        file = self._media.files[row]
        try:
            return row, self._media.load(file), ""
        except Exception as error:  # decoders raise anything on bad data; the file is left out
            return row, None, one_line(error).removeprefix(f"{' '.join(str(file).split())}: ")


def _as_list(items: list[_Item]) -> list[_Item]:
    # For the loader: items of unlike shapes cannot be collated.
    return items


def _embed_share(
    model: TwoTowerModel,
    media: MediaFiles,
    options: PassOptions,
    device: torch.device,
    todo: NDArray[np.int64],
    cache: tuple[VectorStore | None, list[bytes | None]],
    stop: StopFlag | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[int, str]]:
    """Embeds this rank's share of `todo`; returns rows, vectors and failures of all ranks."""
    size = distributed.world_size()
    share = todo[distributed.rank() :: size]
    store, keys = cache
    rows: list[int] = []
    parts: list[NDArray[np.float32]] = []
    failures: dict[int, str] = {}
    batches = _batches(media, options, device, share)
    num_batches = -(-len(todo) // (size * options.batch_size)) if len(todo) else 0
    silent = distributed.rank() != 0 or not len(todo)
    with nullcontext() if silent else Progress(len(todo), f"embed {media.kind}s", "file") as progress:
        # As many rounds on every rank, even with a shorter share: after each they agree whether to stop.
        for _ in range(num_batches):
            if distributed.any_rank(bool(stop)):
                raise Stopped
            items = next(batches, [])
            failures |= {row: reason for row, value, reason in items if value is None}
            for group in _same_shape([(row, value) for row, value, _ in items if value is not None]):
                vectors = _embed(model, media.kind, [value for _, value in group], options.precision, device)
                is_fine: NDArray[np.bool_] = np.all(np.isfinite(vectors), axis=1)
                failures |= {
                    row: "the model gives no finite embedding"
                    for (row, _), fine in zip(group, is_fine, strict=True)
                    if not fine
                }
                fine_rows = [row for (row, _), fine in zip(group, is_fine, strict=True) if fine]
                rows += fine_rows
                parts.append(vectors[is_fine])
                if store is not None and fine_rows and _is_cache_writable(Path(options.cache_dir or "")):
                    # The store has columns for face quality, which nobody asks for here.
                    facts = np.zeros((len(fine_rows), len(FACTS)))
                    store.append([keys[row] or b"" for row in fine_rows], facts.tolist(), parts[-1])
            if progress is not None:
                # Rank 0 counts for all: the others are about as far.
                note = f"{len(failures)} left out" if failures else ""
                progress.update(min(len(items) * size, len(todo) - progress.count), note)
    width = max((part.shape[1] for part in parts), default=0)
    vectors = np.concatenate(parts) if parts else np.empty((0, width), np.float32)
    return _gather(np.array(rows, np.int64), vectors, failures, -(-len(todo) // size))


def _batches(
    media: MediaFiles, options: PassOptions, device: torch.device, rows: NDArray[np.int64]
) -> Iterator[list[_Item]]:
    end_children_at_exit()
    loader: DataLoader[_Item] = DataLoader(
        _Reader(media, rows),
        batch_size=options.batch_size,
        num_workers=min(options.num_workers, len(rows)),
        collate_fn=_as_list,
        worker_init_fn=start_worker,
        pin_memory=device.type == "cuda",
        # A separate one: a validation must not draw from the generator of the training.
        generator=torch.Generator().manual_seed(0),
    )
    return iter(loader)


def _same_shape(items: list[tuple[int, Tensor]]) -> Iterator[list[tuple[int, Tensor]]]:
    """Groups of one shape: nothing is padded, so no embedding depends on the others of its batch.

    Up to rounding: about 1e-6 in fp32, up to 1e-2 in bf16.
    """
    groups: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for row, value in items:
        groups.setdefault(tuple(value.shape), []).append((row, value))
    yield from groups.values()


def _embed(
    model: TwoTowerModel, kind: str, values: list[Tensor], precision: str, device: torch.device
) -> NDArray[np.float32]:
    """(B, D) unit vectors; rows that are not finite stay so."""
    batch = torch.stack(values).to(device, non_blocking=True)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        vectors = model.embed_faces(batch) if kind == "face" else model.embed_voices(batch)
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    array: NDArray[np.float32] = unit.cpu().numpy()
    return array


def _on_every_rank(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) True where a flag is set on all ranks."""
    if not len(flags):
        return flags
    gathered = distributed.all_gather_rows(torch.from_numpy(flags.astype(np.uint8)))
    on_all: NDArray[np.bool_] = np.all(gathered.reshape(-1, len(flags)).numpy(), axis=0)
    return on_all


def _gather(
    rows: NDArray[np.int64], vectors: NDArray[np.float32], failures: dict[int, str], max_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[int, str]]:
    """Rows, vectors and failures of all ranks, on all of them; none has more than `max_rows` rows."""
    if not distributed.is_distributed() or not max_rows:
        return rows, vectors, failures
    # Gathering takes tensors of one size: all are padded to `max_rows`, with row -1. A rank without a vector
    # learns the width from the others.
    width = int(distributed.all_gather_rows(torch.tensor([vectors.shape[1]])).max())
    padded_rows, padded = torch.full((max_rows,), -1), torch.zeros(max_rows, width)
    padded_rows[: len(rows)] = torch.from_numpy(rows)
    if len(rows):
        padded[: len(rows)] = torch.from_numpy(vectors)
    all_rows = distributed.all_gather_rows(padded_rows).numpy()
    all_vectors = distributed.all_gather_rows(padded).numpy()
    reasons: list[dict[int, str]] = [{} for _ in range(distributed.world_size())]
    dist.all_gather_object(reasons, failures)
    is_real = all_rows >= 0
    joined = {row: reason for part in reasons for row, reason in part.items()}
    return all_rows[is_real], all_vectors[is_real], joined
