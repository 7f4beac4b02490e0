"""The numbers of an evaluation: as a table to read, as JSON, and a CSV with a row for each query."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox.files import replacing
from facevox.intervals import Measure, PlainMeasure
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
    for place in range(1, top_k + 1):
        columns += [f"match_{place}_{name}" for name in ("file", "identity", "similarity")]
    return columns


def write_results(
    path: Path, top_k: int, directions: Sequence[tuple[str, Items, Items, NDArray[np.float64], Matches]]
) -> None:
    """Writes a row for each query: its file and identity, the rank of the best right match, the best matches.

    Args:
        path: Of the CSV.
        top_k: How many matches have columns; those that a small gallery lacks stay empty.
        directions: (name, queries, gallery, (Q,) ranks from 1 with ties in expectation, matches); a rank is
            NaN, and left empty, where nobody of the query's identity is in the gallery.
    """
    with replacing(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(result_columns(top_k))
        for name, queries, gallery, ranks, found in directions:
            for row, (query, identity) in enumerate(zip(queries.files, queries.identities, strict=True)):
                rank = "" if math.isnan(ranks[row]) else f"{ranks[row]:g}"
                cells = [name, str(query), identity, rank]
                items = found.items_QK[row].tolist()
                for item, similarity in zip(items, found.similarities_QK[row].tolist(), strict=True):
                    cells += [str(gallery.files[item]), gallery.identities[item], f"{similarity:.6f}"]
                writer.writerow(cells + [""] * 3 * (top_k - len(items)))


def evaluation_json(evaluation: Evaluation) -> dict[str, object]:
    """All measures as plain values; what is not defined (NaN) is None."""
    result: dict[str, Any] = {
        "gallery": {
            "faces": evaluation.num_faces,
            "voices": evaluation.num_voices,
            "identities": evaluation.num_identities,
        },
        **{direction: {} for direction in DIRECTIONS},
    }
    for (direction, stratum), retrieval in evaluation.retrieval.items():
        result[direction][stratum] = _retrieval_json(retrieval)
    result["verification"] = {
        stratum: {
            "num_positives": found.num_positives,
            "num_negatives": found.num_negatives,
            "auc": measure_json(found.auc),
            "equal_error_rate": measure_json(found.equal_error_rate),
            "threshold": _number(found.threshold),
        }
        for stratum, found in evaluation.verification.items()
    }
    result["floors"] = {
        name: {"auc": _number(floor.auc), "equal_error_rate": _number(floor.equal_error_rate)}
        for name, floor in evaluation.floors.items()
    }
    return result


def _retrieval_json(found: Retrieval) -> dict[str, object]:
    return {
        "num_queries": found.num_queries,
        "num_without_positive": found.num_without_positive,
        "num_without_negative": found.num_without_negative,
        "gallery_size": _number(found.gallery_size),
        **{name: measure_json(measure) for name, measure in _named_measures(found)},
    }


class MeasureJson(PlainMeasure):
    """A measure in evaluation_results.json."""

    chance: float | None


def measure_json(measure: Measure) -> MeasureJson:
    """A measure with its chance and its 95 % interval."""
    return {**measure.to_plain(), "chance": _number(measure.chance)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _named_measures(found: Retrieval) -> Iterator[tuple[str, Measure]]:
    for k, measure in found.top_k.items():
        yield f"top_{k}", measure
    yield "mean_reciprocal_rank", found.mean_reciprocal_rank
    yield "median_rank", found.median_rank
    yield "mean_average_precision", found.mean_average_precision
    for choices, measure in found.matching.items():
        yield f"matching_1_of_{choices}", measure


def table_lines(evaluation: Evaluation) -> list[str]:
    """The table for people: measure, value, 95 % interval and chance, both directions, each stratum."""
    lines = []
    for stratum, verification in evaluation.verification.items():
        both = [evaluation.retrieval[direction, stratum] for direction in DIRECTIONS]
        people = "everybody" if stratum == "all" else f"people of the {STRATUM_NAMES[stratum]}"
        lines += ["", f"against {people}" if len(evaluation.verification) > 1 else "all against all"]
        for (_, name), found in zip(DIRECTIONS.items(), both, strict=True):
            left_out = found.num_without_positive + found.num_without_negative
            more = (
                f", {left_out} queries left out: nobody to find or nobody to tell apart" if left_out else ""
            )
            size = "-" if math.isnan(found.gallery_size) else f"{found.gallery_size:.1f}".removesuffix(".0")
            lines.append(f"  {name}: {found.num_queries} queries, gallery of {size}{more}")
        titles = "".join(f"   {'value':>7}  {'95 % interval':>17}  {'chance':>7}" for _ in both)
        heads = "".join(f"   {name:^35}" for name in DIRECTIONS.values())
        lines += [f"  {'':<22}{heads}".rstrip(), f"  {'measure':<22}{titles}"]
        for (name, first), (_, second) in zip(*map(_named_measures, both), strict=True):
            lines.append(f"  {name:<22}   {_measure_text(first)}   {_measure_text(second)}")
        lines += _verification_lines(verification)
    lines += _floor_lines(evaluation)
    return lines


def _verification_lines(found: Verification) -> list[str]:
    return [
        f"  {name:<22}   {_measure_text(measure)}"
        for name, measure in (("roc_auc", found.auc), ("equal_error_rate", found.equal_error_rate))
    ] + [f"  over {found.num_positives} pairs of one person and {found.num_negatives} of two"]


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
