"""The whole evaluation of a model over a data set: embeddings, measures, tables, pictures.

    faces, voices = media_of_pairs(pairs, *make_readers(trained))
    result = evaluate_model(trained, faces, voices, config, subjects)
    print("\\n".join(result.lines))

Writes evaluation_results.json, roc.png, rank_cdf.png and gallery.png into the model's folder, adds the scores
to its model card, and writes results.csv to the file that the configuration names.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from facevox.errors import UserError
from facevox.files import write_json
from facevox.signals import StopFlag
from facevox.training import distributed
from lc_pytorch.evaluation import pictures
from lc_pytorch.evaluation.embedding_pass import (
    Embedded,
    embed_files,
    require_writable,
    weights_hash,
)
from lc_pytorch.evaluation.matches import Matches, find_matches
from lc_pytorch.evaluation.metadata import Metadata
from lc_pytorch.evaluation.model_card import write_model_card
from lc_pytorch.evaluation.options import EvaluationConfig
from lc_pytorch.evaluation.readers import MediaFiles
from lc_pytorch.evaluation.subjects import Subjects
from lc_pytorch.evaluation.tables import Items, evaluation_json, table_lines, write_results
from lc_pytorch.models.store import TrainedModel
from lc_pytorch.utils.metrics import Evaluation, evaluate_embeddings

FORMAT = 1
RESULTS_FILE = "evaluation_results.json"
PICTURE_FILES = ("roc.png", "rank_cdf.png", "gallery.png")
SHOWN_QUERIES = 4  # of each direction, in gallery.png
SHOWN_MATCHES = 5
SHOWN_FAILURES = 3


@dataclass(frozen=True)
class EvaluationResult:
    """Results of an evaluation.

    Attributes:
        num_left_out: Files that could not be embedded.
        lines: The table to print; empty on all ranks but the first.
        evaluation: The measures; None on those ranks.
        files: The files that were written.
    """

    num_left_out: int
    lines: list[str] = field(default_factory=list)
    evaluation: Evaluation | None = None
    files: list[Path] = field(default_factory=list)


def evaluate_model(
    trained: TrainedModel,
    faces: MediaFiles,
    voices: MediaFiles,
    config: EvaluationConfig,
    subjects: Subjects,
    *,
    split_hash: str = "",
    metadata: Metadata | None = None,
    notes: Sequence[str] = (),
    stop: StopFlag | None = None,
) -> EvaluationResult:
    """Embeds, measures and writes all files. Every process of a group calls it; the first one writes.

    Args:
        trained: The model, in evaluation mode.
        faces: The faces of the people tested.
        voices: Their voices, as sound or as mel spectrograms.
        config: The settings.
        subjects: The people tested, for the outputs.
        split_hash: Of the split that chose them.
        metadata: Gender and nationality: adds strata and floors.
        notes: Further lines for every output: where identities come from, pairs left out.
        stop: A flag that ends the embedding at the next batch.

    Raises:
        UserError: An output cannot be written, nothing can be embedded, or fewer than two people remain.
        Stopped: The flag was raised.
    """
    outputs = [trained.model_dir / name for name in (RESULTS_FILE, *PICTURE_FILES)]
    require_writable(config.output_file, "--output_file")
    for file in outputs:
        require_writable(file, "--model_dir")
    device = next(trained.model.parameters()).device
    embedded = [embed_files(trained.model, media, config, device, stop) for media in (faces, voices)]
    face_items, voice_items = (
        _items(media, side) for media, side in zip((faces, voices), embedded, strict=True)
    )
    people = {*face_items.identities, *voice_items.identities}
    if len(people) < 2 or not {*face_items.identities} & {*voice_items.identities}:
        raise UserError(
            f"{len(people)} people are left after bad files: at least two are needed, and of one of them a "
            "face and a voice"
        )
    num_left_out = sum(len(side.failures) for side in embedded)
    # All ranks have the embeddings, and checked them alike; the first one measures and writes.
    if distributed.rank():
        return EvaluationResult(num_left_out)
    evaluation = evaluate_embeddings(
        face_items.vectors,
        voice_items.vectors,
        list(face_items.identities),
        list(voice_items.identities),
        attributes=metadata.attributes if metadata else None,
    )
    ways = (("face_to_voice", face_items, voice_items), ("voice_to_face", voice_items, face_items))
    directions, rows = [], []
    for name, queries, gallery in ways:
        matches = find_matches(queries.vectors, gallery.vectors, config.top_k)
        directions.append((name, queries, gallery, evaluation.retrieval[name, "all"].ranks, matches))
        rows += _gallery_rows(name, queries, gallery, matches)
    warnings = _lines(_warnings(subjects, embedded, metadata, people))
    notes = _lines([*subjects.notes, *notes])
    title = _title(subjects, evaluation)
    write_results(config.output_file, config.top_k, directions, spreadsheet_safe=config.spreadsheet_safe)
    roc, rank_cdf, gallery_picture = outputs[1:]
    pictures.draw_roc(evaluation, title, roc)
    pictures.draw_rank_cdf(evaluation, face_items.identities, voice_items.identities, title, rank_cdf)
    pictures.draw_gallery(rows, title, gallery_picture)
    about = _about(trained, config, subjects, split_hash, embedded, metadata, people)
    write_json(outputs[0], about | {"warnings": warnings, "notes": notes} | evaluation_json(evaluation))
    card = write_model_card(trained.model_dir)
    lines = [title, *warnings, *notes, *table_lines(evaluation)]
    return EvaluationResult(num_left_out, lines, evaluation, [config.output_file, *outputs, card])


def _items(media: MediaFiles, embedded: Embedded) -> Items:
    if not len(embedded.rows):
        file, reason = embedded.failures[0]
        raise UserError(f"none of {len(media.files)} {media.kind}s can be used; the first: {file}: {reason}")
    rows = embedded.rows.tolist()
    return Items(
        [media.files[row] for row in rows], [media.identities[row] for row in rows], embedded.vectors
    )


def _title(subjects: Subjects, evaluation: Evaluation) -> str:
    title = (
        f"{evaluation.num_identities} people ({subjects.origin}), "
        f"{evaluation.num_faces} faces x {evaluation.num_voices} voices"
    )
    return f"SEEN IN TRAINING: {subjects.num_seen} people; {title}" if subjects.num_seen else title


def _lines(texts: Sequence[str]) -> list[str]:
    return [" ".join(text.split()) for text in texts]  # a file name may hold a line break


def _warnings(
    subjects: Subjects, embedded: Sequence[Embedded], metadata: Metadata | None, people: set[str]
) -> list[str]:
    """Lines that a reader needs in order to judge the numbers."""
    warnings = [subjects.warning] if subjects.warning else []
    for name, side in zip(("faces", "voices"), embedded, strict=True):
        if side.failures:
            first = "; ".join(f"{file}: {reason}" for file, reason in side.failures[:SHOWN_FAILURES])
            more = "; …" if len(side.failures) > SHOWN_FAILURES else ""
            warnings.append(f"{name} left out: {len(side.failures)}: {first}{more}")
    lost = sorted(set(subjects.identities) - people)
    if lost:
        warnings.append(
            f"{len(lost)} people have no file that can be used: {', '.join(lost[:SHOWN_FAILURES])}"
        )
    if metadata is not None:
        absent = metadata.unmatched(people)
        if absent:
            names = ", ".join(absent[:SHOWN_FAILURES])
            warnings.append(f"{len(absent)} of {len(people)} people are not in {metadata.file.name}: {names}")
        if metadata.num_conflicts:
            warnings.append(f"{metadata.num_conflicts} names are twice in {metadata.file.name}, and differ")
    return warnings


def _about(
    trained: TrainedModel,
    config: EvaluationConfig,
    subjects: Subjects,
    split_hash: str,
    embedded: Sequence[Embedded],
    metadata: Metadata | None,
    people: set[str],
) -> dict[str, object]:
    """The head of evaluation_results.json: model, people, settings, versions."""
    names = ("facevox", "torch", "transformers", "numpy")
    about: dict[str, object] = {
        "format": FORMAT,
        "model": {
            "kind": trained.kind,
            "weights": trained.weights_file.name,
            "weights_sha256": weights_hash(trained.model),
        },
        "tested": {
            "origin": subjects.origin,
            "split_hash": split_hash or None,
            "num_seen_in_training": subjects.num_seen,
            "identities": list(subjects.identities),
        },
        "settings": {"precision": config.precision, "top_k": config.top_k},
        "left_out": {
            name: [{"file": str(file), "reason": reason} for file, reason in side.failures]
            for name, side in zip(("faces", "voices"), embedded, strict=True)
        },
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
    }
    if metadata is not None:
        about["metadata"] = {"file": str(metadata.file), "unmatched": metadata.unmatched(people)}
    return about


def _gallery_rows(
    direction: str, queries: Items, gallery: Items, matches: Matches
) -> list[tuple[str, list[pictures.Shown]]]:
    """Rows of gallery.png: queries evenly from all that have somebody to find, not the best ones."""
    # A voice is shown by a face of its person; backwards, so that the first face of each is written last.
    faces = queries if direction == "face_to_voice" else gallery
    face_of: Mapping[str, Path] = dict(zip(reversed(faces.identities), reversed(faces.files), strict=True))
    has_positive = set(gallery.identities)
    answerable = [row for row, name in enumerate(queries.identities) if name in has_positive]
    count = min(SHOWN_QUERIES, len(answerable))
    chosen = np.unique(np.linspace(0, len(answerable) - 1, count).round().astype(int))
    rows = []
    for row in (answerable[index] for index in chosen.tolist()):
        identity = queries.identities[row]
        is_face = direction == "face_to_voice"
        file = queries.files[row] if is_face else face_of.get(identity)
        row_pictures = [pictures.Shown(file, "face" if is_face else "voice of", identity)]
        best = zip(matches.items_QK[row].tolist(), matches.similarities_QK[row].tolist(), strict=True)
        for item, similarity in list(best)[:SHOWN_MATCHES]:
            name = gallery.identities[item]
            face = face_of.get(name) if is_face else gallery.files[item]
            label = "voice of" if is_face else "face"
            row_pictures.append(pictures.Shown(face, label, name, similarity, name == identity))
        rows.append((direction, row_pictures))
    return rows
