"""Ranking of many voices for one face, or of many faces for one voice: the use of a trained model."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch

from facevox.errors import UserError
from facevox.files import IMAGE_PATTERNS, find_files, replacing
from facevox.signals import StopFlag
from facevox.spreadsheets import safe_rows
from lc_pytorch.datasets.matched_files import VOICE_SUFFIXES
from lc_pytorch.evaluation.embedding_pass import embed_files
from lc_pytorch.evaluation.matches import find_matches
from lc_pytorch.evaluation.options import PassOptions
from lc_pytorch.evaluation.readers import FaceReader, MediaFiles, VoiceReader
from lc_pytorch.models.store import TrainedModel

COLUMNS = ("rank", "similarity", "file")


@dataclass(frozen=True)
class Ranking:
    """The files of a gallery, most similar first.

    Attributes:
        files: The best of them.
        similarities: Cosine of each with the query, -1 to 1.
        num_ranked: Number of files that were compared.
        failures: (file, reason) of those that could not be.
    """

    files: list[Path]
    similarities: list[float]
    num_ranked: int
    failures: list[tuple[Path, str]]


def list_gallery(folder: str | Path, reader: FaceReader | VoiceReader) -> MediaFiles:
    """All pictures, or all recordings, of a folder, by the kind of reader.

    Raises:
        UserError: No such folder, or no such files in it.
    """
    is_face = isinstance(reader, FaceReader)
    patterns = IMAGE_PATTERNS if is_face else [f"*{suffix}" for suffix in sorted(VOICE_SUFFIXES)]
    files = find_files(folder, patterns, what="--faces" if is_face else "--voices")
    return _media(files, reader)


def _media(files: list[Path], reader: FaceReader | VoiceReader) -> MediaFiles:
    kind = "face" if isinstance(reader, FaceReader) else "voice"
    return MediaFiles(kind, files, [""] * len(files), reader, reader.settings())


def rank_files(
    trained: TrainedModel,
    query_file: Path,
    query_reader: FaceReader | VoiceReader,
    gallery: MediaFiles,
    options: PassOptions,
    top_k: int,
    stop: StopFlag | None = None,
) -> Ranking:
    """The `top_k` files of the gallery that are most similar to the query.

    Raises:
        UserError: The query cannot be read, or nothing in the gallery can.
        Stopped: The flag was raised.
    """
    device: torch.device = next(trained.model.parameters()).device
    query = _media([query_file], query_reader)
    queries = embed_files(trained.model, query, options, device, stop)
    if queries.failures:
        raise UserError(f"--{query.kind} {query_file}: {queries.failures[0][1]}")
    items = embed_files(trained.model, gallery, options, device, stop)
    if not len(items.rows):
        file, reason = items.failures[0]
        raise UserError(
            f"none of {len(gallery.files)} {gallery.kind}s can be used; the first: {file}: {reason}"
        )
    matches = find_matches(queries.vectors, items.vectors, top_k)
    return Ranking(
        # Matches count the files that could be embedded: `rows` leads back to the list.
        files=[gallery.files[items.rows[item]] for item in matches.items_QK[0].tolist()],
        similarities=matches.similarities_QK[0].tolist(),
        num_ranked=len(items.rows),
        failures=items.failures,
    )


def write_ranking(path: Path, ranking: Ranking, *, spreadsheet_safe: bool = False) -> None:
    """Writes rank, similarity and file of each match as CSV."""
    matches = zip(ranking.similarities, ranking.files, strict=True)
    rows: list[tuple[object, ...]] = [COLUMNS]
    rows += [
        (rank, f"{similarity:.6f}", str(file)) for rank, (similarity, file) in enumerate(matches, start=1)
    ]
    with replacing(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as table:
        csv.writer(table).writerows(safe_rows(rows) if spreadsheet_safe else rows)
