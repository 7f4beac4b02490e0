"""The numbers of an evaluation: as a table to read, as JSON, and as a CSV with a row for each query."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facevox.files import replacing
from facevox.intervals import Measure, PlainMeasure
from facevox.spreadsheets import safe_rows
from lc_pytorch.evaluation.matches import Matches
from lc_pytorch.utils.metrics import Evaluation, Retrieval
from lc_pytorch.utils.verification import Verification

DIRECTIONS = {"face_to_voice": "face to voice", "voice_to_face": "voice to face"}
STRATUM_NAMES = {
    "all": "all",
    "gender": "same gender",
    "nationality": "same nationality",
    "both": "same gender and nationality",
}


@dataclass(frozen=True)
class Items:
    """The embedded items of one side, in order.

    Attributes:
        files: Of each item.
        identities: Normalised names.
        vectors: (n, D) unit vectors.
    """

    files: Sequence[Path]
    identities: Sequence[str]
    vectors: NDArray[np.float32]


def result_columns(top_k: int) -> list[str]:
    """The columns of results.csv."""
    columns = ["direction", "query_file", "query_identity", "rank"]
    for rank in range(1, top_k + 1):
        columns += [f"match_{rank}_{name}" for name in ("file", "identity", "similarity")]
    return columns


def write_results(
    path: Path,
    top_k: int,
    directions: Sequence[tuple[str, Items, Items, NDArray[np.float64], Matches]],
    *,
    spreadsheet_safe: bool = False,
) -> None:
    """Writes a row for each query: its file and identity, the rank of the best right match, the best matches.

    Args:
        path: Of the CSV.
        top_k: Number of matches that have columns; those that a small gallery lacks stay empty.
        directions: (name, queries, gallery, (Q,) ranks from 1 with ties in expectation, matches); a rank is
            NaN, and left empty, where nobody of the query's identity is in the gallery.
        spreadsheet_safe: See `facevox.spreadsheets`.
    """
    rows = _result_rows(top_k, directions)
    with replacing(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        csv.writer(file).writerows(safe_rows(rows) if spreadsheet_safe else rows)


def _result_rows(
    top_k: int, directions: Sequence[tuple[str, Items, Items, NDArray[np.float64], Matches]]
) -> Iterator[list[str]]:
    yield result_columns(top_k)
    for name, queries, gallery, ranks, matches in directions:
        for row, (query, identity) in enumerate(zip(queries.files, queries.identities, strict=True)):
            rank = "" if math.isnan(ranks[row]) else f"{ranks[row]:g}"
            cells = [name, str(query), identity, rank]
            items = matches.items_QK[row].tolist()
            for item, similarity in zip(items, matches.similarities_QK[row].tolist(), strict=True):
                cells += [str(gallery.files[item]), gallery.identities[item], f"{similarity:.6f}"]
            yield cells + [""] * 3 * (top_k - len(items))


def evaluation_json(evaluation: Evaluation) -> dict[str, object]:
    """All measures as plain values; what is not defined (NaN) is None."""
    retrieval: dict[str, dict[str, object]] = {direction: {} for direction in DIRECTIONS}
    for (direction, stratum), scores in evaluation.retrieval.items():
        retrieval[direction][stratum] = _retrieval_json(scores)
    return {
        "gallery": {
            "faces": evaluation.num_faces,
            "voices": evaluation.num_voices,
            "identities": evaluation.num_identities,
        },
        **retrieval,
        "verification": {
            stratum: {
                "num_positives": verification.num_positives,
                "num_negatives": verification.num_negatives,
                "auc": measure_json(verification.auc),
                "equal_error_rate": measure_json(verification.equal_error_rate),
                "threshold": _number(verification.threshold),
            }
            for stratum, verification in evaluation.verification.items()
        },
        "floors": {
            name: {"auc": _number(floor.auc), "equal_error_rate": _number(floor.equal_error_rate)}
            for name, floor in evaluation.floors.items()
        },
    }


def _retrieval_json(retrieval: Retrieval) -> dict[str, object]:
    return {
        "num_queries": retrieval.num_queries,
        "num_without_positive": retrieval.num_without_positive,
        "num_without_negative": retrieval.num_without_negative,
        "gallery_size": _number(retrieval.gallery_size),
        **{name: measure_json(measure) for name, measure in _named_measures(retrieval)},
    }


class MeasureJson(PlainMeasure):
    """A measure in evaluation_results.json."""

    chance: float | None


def measure_json(measure: Measure) -> MeasureJson:
    """A measure with its chance and its 95 % interval."""
    return {**measure.to_plain(), "chance": _number(measure.chance)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _named_measures(retrieval: Retrieval) -> Iterator[tuple[str, Measure]]:
    for k, measure in retrieval.top_k.items():
        yield f"top_{k}", measure
    yield "mean_reciprocal_rank", retrieval.mean_reciprocal_rank
    yield "median_rank", retrieval.median_rank
    yield "mean_average_precision", retrieval.mean_average_precision
    for choices, measure in retrieval.matching.items():
        yield f"matching_1_of_{choices}", measure


def table_lines(evaluation: Evaluation) -> list[str]:
    """The table for people: measure, value, 95 % interval and chance, both directions, each stratum."""
    lines = []
    for stratum, verification in evaluation.verification.items():
        both = [evaluation.retrieval[direction, stratum] for direction in DIRECTIONS]
        people = "everybody" if stratum == "all" else f"people of the {STRATUM_NAMES[stratum]}"
        lines += ["", f"against {people}" if len(evaluation.verification) > 1 else "all against all"]
        for name, scores in zip(DIRECTIONS.values(), both, strict=True):
            left_out = scores.num_without_positive + scores.num_without_negative
            more = (
                f", {left_out} queries left out: nobody to find or nobody to tell apart" if left_out else ""
            )
            size = "-" if math.isnan(scores.gallery_size) else f"{scores.gallery_size:.1f}".removesuffix(".0")
            lines.append(f"  {name}: {scores.num_queries} queries, gallery of {size}{more}")
        # Each direction has a block of 3 + 7 + 2 + 17 + 2 + 7 characters below its name.
        titles = "".join(f"   {'value':>7}  {'95 % interval':>17}  {'chance':>7}" for _ in both)
        heads = "".join(f"   {name:^35}" for name in DIRECTIONS.values())
        lines += [f"  {'':<22}{heads}".rstrip(), f"  {'measure':<22}{titles}"]
        for (name, first), (_, second) in zip(*map(_named_measures, both), strict=True):
            lines.append(f"  {name:<22}   {_measure_text(first)}   {_measure_text(second)}")
        lines += _verification_lines(verification)
    lines += _floor_lines(evaluation)
    return lines


def _verification_lines(scores: Verification) -> list[str]:
    return [
        f"  {'roc_auc':<22}   {_measure_text(scores.auc)}",
        f"  {'equal_error_rate':<22}   {_measure_text(scores.equal_error_rate)}",
        f"  over {scores.num_positives} pairs of one person and {scores.num_negatives} of two",
    ]


def _floor_lines(evaluation: Evaluation) -> list[str]:
    if not evaluation.floors:
        return []
    lines = ["", "what the metadata alone would score, against everybody"]
    for name, floor in evaluation.floors.items():
        lines.append(
            f"  {STRATUM_NAMES[name]:<30} AUC {_text(floor.auc).strip()}, "
            f"EER {_text(floor.equal_error_rate).strip()}"
        )
    return lines


def _measure_text(measure: Measure) -> str:
    interval = "-" if math.isnan(measure.low) else f"{_text(measure.low)} - {_text(measure.high)}"
    return f"{_text(measure.value):>7}  {interval:>17}  {_text(measure.chance):>7}"


def _text(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if value < 10 else f"{value:.1f}"
