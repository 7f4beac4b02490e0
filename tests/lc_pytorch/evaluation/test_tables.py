"""Tables: what is written can be read again and says what was measured."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lc_pytorch.evaluation.matches import find_matches
from lc_pytorch.evaluation.tables import Items, evaluation_json, result_columns, table_lines, write_results
from lc_pytorch.utils.metrics import Evaluation, evaluate_embeddings

NAMES = ["a", "b b", '김"민수', "d"]


def unit_vectors(count: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def sides() -> tuple[Items, Items]:
    faces = Items(
        [Path(f"f/{n}, x\n.png") for n in range(8)], [NAMES[n % 4] for n in range(8)], unit_vectors(8, 0)
    )
    voices = Items([Path(f"-v{n}.wav") for n in range(3)], NAMES[:3], unit_vectors(3, 1))
    return faces, voices


def evaluate(faces: Items, voices: Items, **options: object) -> Evaluation:
    return evaluate_embeddings(
        faces.vectors, voices.vectors, list(faces.identities), list(voices.identities), **options
    )  # type: ignore[arg-type]


def test_results_have_a_row_for_each_query_with_rank_and_matches(
    sides: tuple[Items, Items], tmp_path: Path
) -> None:
    faces, voices = sides
    ranks = evaluate(faces, voices).retrieval["face_to_voice", "all"].ranks
    found = find_matches(faces.vectors, voices.vectors, 5)
    file = tmp_path / "results.csv"
    write_results(file, 5, [("face_to_voice", faces, voices, ranks, found)])
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == result_columns(5)
    scores = faces.vectors @ voices.vectors.T
    for number, row in enumerate(rows):
        assert (row["query_file"], row["query_identity"]) == (str(faces.files[number]), NAMES[number % 4])
        order = np.argsort(-scores[number])
        for place in range(3):
            item = order[place]
            assert row[f"match_{place + 1}_file"] == str(voices.files[item])
            assert row[f"match_{place + 1}_identity"] == NAMES[item]
            assert float(row[f"match_{place + 1}_similarity"]) == pytest.approx(
                scores[number, item], abs=1e-6
            )
        assert row["match_4_file"] == row["match_5_similarity"] == ""
        right = [place for place, item in enumerate(order, 1) if NAMES[item] == NAMES[number % 4]]
        assert row["rank"] == (str(right[0]) if right else "")  # nobody has the voice of "d"
    assert len(rows) == 8


def test_json_holds_every_measure_with_interval_and_chance_and_null_for_undefined(
    sides: tuple[Items, Items],
) -> None:
    attributes = {"a": ("f", "kr"), "b b": ("m", "kr"), '김"민수': ("f", "us"), "d": ("m", "us")}
    evaluation = evaluate(*sides, attributes=attributes)
    value = json.loads(json.dumps(evaluation_json(evaluation), allow_nan=False))
    assert value["gallery"] == {"faces": 8, "voices": 3, "identities": 4}
    for direction in ("face_to_voice", "voice_to_face"):
        for stratum in ("all", "gender", "nationality", "both"):
            found = evaluation.retrieval[direction, stratum]
            part = value[direction][stratum]
            assert part["num_queries"] == found.num_queries
            names = {
                "top_1",
                "top_5",
                "top_10",
                "mean_reciprocal_rank",
                "median_rank",
                "mean_average_precision",
            }
            names |= {f"matching_1_of_{choices}" for choices in range(2, 11)}
            assert names <= part.keys()
            for name in names:
                assert part[name].keys() == {"value", "low", "high", "chance"}
    whole = evaluation.retrieval["face_to_voice", "all"]
    assert value["face_to_voice"]["all"]["top_1"]["value"] == whole.top_k[1].value
    assert value["face_to_voice"]["all"]["matching_1_of_10"]["value"] is None  # three voices
    assert value["face_to_voice"]["both"]["num_queries"] == 0
    assert value["face_to_voice"]["both"]["top_1"]["value"] is None
    assert value["verification"]["all"]["auc"]["value"] == evaluation.verification["all"].auc.value
    assert value["floors"]["both"]["auc"] == evaluation.floors["both"].auc == 1.0


def test_table_shows_value_interval_and_chance_of_both_directions(sides: tuple[Items, Items]) -> None:
    evaluation = evaluate(*sides)
    lines = table_lines(evaluation)
    row = next(line for line in lines if line.split()[:1] == ["top_1"]).split()
    first, second = (evaluation.retrieval[way, "all"].top_k[1] for way in ("face_to_voice", "voice_to_face"))
    expected = [
        f"{number:.4f}" for one in (first, second) for number in (one.value, one.low, one.high, one.chance)
    ]
    assert [cell for cell in row[1:] if cell != "-"] == expected
    assert any("6 queries, gallery of 3, 2 queries left out" in line for line in lines)
    assert not any("metadata" in line for line in lines)
    with_floors = table_lines(evaluate(*sides, attributes={"a": ("f", "kr")}))
    assert any("what the metadata alone would score" in line for line in with_floors)
