"""One face against many voices, or one voice against many faces: what a trained model is for."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch

from facevox.errors import UserError
from facevox.files import IMAGE_PATTERNS, find_files, replacing
from facevox.signals import StopFlag
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
        num_ranked: How many were compared.
        failures: (file, reason) of those that could not be.
    """

    files: list[Path]
    similarities: list[float]
    num_ranked: int
    failures: list[tuple[Path, str]]


def list_gallery(folder: str | Path, reader: FaceReader | VoiceReader) -> MediaFiles:
    """All pictures, or all recordings, of a folder.

    Raises:
        UserError: No such folder, or nothing in it.
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
    one = embed_files(trained.model, query, options, device, stop)
    if one.failures:
        raise UserError(f"--{query.kind} {query_file}: {one.failures[0][1]}")
    many = embed_files(trained.model, gallery, options, device, stop)
    if not len(many.rows):
        file, reason = many.failures[0]
        raise UserError(
            f"none of {len(gallery.files)} {gallery.kind}s can be used; the first: {file}: {reason}"
        )
    found = find_matches(one.vectors, many.vectors, top_k)
    return Ranking(
        files=[gallery.files[many.rows[item]] for item in found.items_QK[0].tolist()],
        similarities=found.similarities_QK[0].tolist(),
        num_ranked=len(many.rows),
        failures=many.failures,
    )


def write_ranking(path: Path, ranking: Ranking) -> None:
    """Writes rank, similarity and file of each match as CSV."""
    with replacing(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rank, (similarity, found) in enumerate(
            zip(ranking.similarities, ranking.files, strict=True), start=1
        ):
            writer.writerow([rank, f"{similarity:.6f}", str(found)])
