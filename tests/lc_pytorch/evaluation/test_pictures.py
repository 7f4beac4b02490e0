"""Pictures of an evaluation: there, the same every time, and of any names."""

from pathlib import Path

import numpy as np
import pytest

from facevox.files import read_image, write_image
from lc_pytorch.evaluation.pictures import (
    RIGHT,
    WRONG,
    Shown,
    chance_rank_cdf,
    draw_gallery,
    draw_rank_cdf,
    draw_roc,
    plain_text,
)
from lc_pytorch.utils.metrics import Evaluation, evaluate_embeddings

NAMES = [f"p{number % 6}" for number in range(18)]


def evaluate() -> Evaluation:
    random = np.random.default_rng(0)
    sides = [random.standard_normal((18, 8)).astype(np.float32) for _ in range(2)]
    sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    attributes = {f"p{number}": ("mf"[number % 2], "") for number in range(6)}
    return evaluate_embeddings(*sides, NAMES, NAMES, attributes=attributes)


def test_curves_come_out_the_same_every_time(tmp_path: Path) -> None:
    evaluation = evaluate()
    data = []
    for number in range(2):
        roc, ranks = tmp_path / f"roc{number}.png", tmp_path / f"ranks{number}.png"
        draw_roc(evaluation, "6 people $", roc)
        draw_rank_cdf(evaluation, NAMES, NAMES, "6 people", ranks)
        data.append((roc.read_bytes(), ranks.read_bytes()))
        assert read_image(roc).shape[0] > 300
    assert data[0] == data[1]


def test_chance_of_ranks_is_that_of_shuffled_galleries() -> None:
    gallery = ["a"] * 3 + ["b"] * 1 + ["c"] * 6
    queries = ["a", "b", "b", "c", "nobody"]
    random, hits = np.random.default_rng(0), np.zeros(len(gallery))
    num_rounds = 20_000
    for _ in range(num_rounds):
        order = random.permutation(gallery)
        for query in queries[:4]:
            hits[np.flatnonzero(order == query)[0] :] += 1
    expected = chance_rank_cdf(queries, gallery)
    np.testing.assert_allclose(expected, hits / num_rounds / 4, atol=0.01)
    assert expected[-1] == pytest.approx(1)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def count(image: np.ndarray, colour: str) -> int:
    return int((image == rgb(colour)).all(axis=2).sum())


def test_right_matches_are_framed_green_and_wrong_ones_red(tmp_path: Path) -> None:
    face = tmp_path / "face.png"
    write_image(face, np.full((40, 20, 3), 128, np.uint8))
    query = Shown(face, "face", "김민수 $\\frac{$ \n\ud800")
    counts = {}
    for is_right in (True, False):
        shown = [query, Shown(face, "voice of", "b", 0.5, is_right)]
        file = tmp_path / f"{is_right}.png"
        draw_gallery([("face_to_voice", shown)], "title", file)
        counts[is_right] = {colour: count(read_image(file), colour) for colour in (RIGHT, WRONG)}
    assert counts[True][RIGHT] > 500
    assert counts[True][WRONG] == 0
    assert counts[False][WRONG] > 500
    assert counts[False][RIGHT] == 0


def test_face_that_is_not_there_leaves_a_grey_field(tmp_path: Path) -> None:
    rows = [
        (
            "voice_to_face",
            [Shown(None, "voice of", "a"), Shown(tmp_path / "gone.jpg", "face", "a", 0.1, True)],
        )
    ]
    draw_gallery(rows, "title", tmp_path / "gallery.png")
    assert count(read_image(tmp_path / "gallery.png"), "#e5e5e5") > 10_000


def test_text_is_one_line_of_signs_that_can_be_drawn() -> None:
    assert plain_text("a\nb\tc", 10) == "a b c"
    assert plain_text("\ud800x", 10) == " x"
    assert plain_text("0123456789", 5) == "01…89"
    assert len(plain_text("x" * 100, 22)) == 22
