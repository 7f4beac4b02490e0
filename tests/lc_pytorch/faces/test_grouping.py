"""Grouping against slow loops, scipy and scikit-learn; its limits; real and example faces."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from facevox.errors import UserError
from lc_pytorch.faces import grouping
from lc_pytorch.faces.grouping import bcubed_f1, find_edges, group_faces


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made_up_faces(num_faces, num_people, noise, seed, num_values=32):
    generator = np.random.default_rng(seed)
    people = generator.integers(0, num_people, num_faces)
    centres = unit(generator.standard_normal((num_people, num_values)))
    return unit(
        centres[people] + noise * generator.standard_normal((num_faces, num_values)) / np.sqrt(num_values)
    ), people


def chain_of_lookalikes(num_faces, step_deg):
    """Unit vectors on an arc: each resembles its neighbours, the ends have nothing in common."""
    angle = np.radians(step_deg) * np.arange(num_faces)
    return np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


@pytest.mark.parametrize("tile", [7, 64])
@pytest.mark.numeric
def test_edges_equal_those_of_a_slow_loop(monkeypatch, tile):
    monkeypatch.setattr(grouping, "TILE", tile)
    faces, _ = made_up_faces(101, 10, 0.8, seed=0)
    slow = {}
    for i in range(len(faces)):
        for j in range(i + 1, len(faces)):
            similarity = sum(float(a) * float(b) for a, b in zip(faces[i], faces[j], strict=True))
            if similarity >= 0.4:
                slow[i, j] = similarity
    edges = find_edges(faces, 0.4)
    found = dict(
        zip(zip(edges.first.tolist(), edges.second.tolist(), strict=True), edges.similarity, strict=True)
    )
    assert found.keys() == slow.keys()
    assert len(slow) > 100
    assert not edges.is_capped
    assert max(abs(found[pair] - slow[pair]) for pair in slow) < 1e-6


@pytest.mark.numeric
@pytest.mark.parametrize("dense", [1, 10**9])
def test_edges_have_the_same_bits_in_every_tile_and_order(monkeypatch, dense):
    """Dense: whole tiles at once, or pair by pair."""
    faces, _ = made_up_faces(301, 3, 0.9, seed=2, num_values=512)
    order = np.random.default_rng(1).permutation(len(faces))
    expected = None
    for tile, rows in ((1024, np.arange(301)), (64, np.arange(301)), (37, order)):
        monkeypatch.setattr(grouping, "TILE", tile)
        monkeypatch.setattr(grouping, "DENSE", dense if tile != 1024 else 16)
        edges = find_edges(faces[rows], 0.45)
        first, second = rows[edges.first], rows[edges.second]
        pairs = np.minimum(first, second) * 301 + np.maximum(first, second)
        found = dict(zip(pairs.tolist(), edges.similarity.view(np.uint32).tolist(), strict=True))
        expected = expected or found
        assert found == expected
    assert 3000 < len(expected) < 44_000


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6, 0.9])
def test_groups_equal_scipys_average_linkage(seed, threshold):
    faces, _ = made_up_faces(400, 40, 0.6 + 0.3 * seed, seed)
    exact = faces.astype(np.float64)
    distances = np.clip(1 - (exact @ exact.T)[np.triu_indices(len(faces), 1)], 0, 2)
    theirs = fcluster(linkage(distances, "average"), threshold, "distance")
    ours = group_faces(faces, threshold)
    assert adjusted_rand_score(theirs, ours) == 1.0
    assert ours.max() + 1 > 1


@pytest.mark.numeric
def test_groups_do_not_depend_on_the_order_of_the_faces():
    faces, _ = made_up_faces(600, 60, 1.0, seed=3)
    order = np.random.default_rng(0).permutation(len(faces))
    shuffled = np.empty(len(faces), np.int64)
    shuffled[order] = group_faces(faces[order], 0.55)
    assert adjusted_rand_score(group_faces(faces, 0.55), shuffled) == 1.0


@pytest.mark.numeric
def test_groups_do_not_depend_on_the_number_of_threads_or_the_tiles(monkeypatch):
    faces, _ = made_up_faces(600, 60, 1.0, seed=4)
    once = group_faces(faces, 0.55, num_threads=1)
    monkeypatch.setattr(grouping, "TILE", 100)
    assert np.array_equal(once, group_faces(faces, 0.55, num_threads=3))


def test_known_people_are_recovered_and_numbered_by_first_appearance():
    faces, people = made_up_faces(2000, 100, 0.7, seed=5, num_values=256)
    labels = group_faces(faces, 0.5)
    assert bcubed_f1(labels, people) == 1.0
    _, first = np.unique(labels, return_index=True)
    assert np.all(np.diff(first) > 0)
    assert labels[0] == 0


def test_a_chain_of_lookalikes_is_split_where_connected_components_merge_everyone():
    chain = chain_of_lookalikes(60, 3.0)
    threshold = 0.05  # neighbours are 0.0014 apart, the ends 2.0
    components = DBSCAN(eps=threshold, min_samples=2, metric="cosine").fit_predict(chain)
    assert components.max() == 0
    labels = group_faces(chain, threshold)
    assert labels.max() + 1 >= 5
    for label in range(labels.max() + 1):
        inside = chain[labels == label]
        assert (1 - inside @ inside.T).max() < 0.2


def test_two_people_linked_by_one_face_between_them_stay_two():
    generator = np.random.default_rng(0)
    first, second = unit(generator.standard_normal((2, 64)))
    faces = np.vstack([np.tile(first, (10, 1)), np.tile(second, (10, 1)), (first + second)[None]])
    faces = unit(faces + 0.02 * generator.standard_normal(faces.shape))
    labels = group_faces(faces, 0.4)
    assert labels[0] != labels[10]
    assert len(set(labels[:10])) == len(set(labels[10:20])) == 1


@pytest.mark.parametrize("num", [0, 1])
def test_no_face_and_one_face(num):
    labels = group_faces(np.ones((num, 4), np.float32) / 2, 0.4)
    assert labels.tolist() == [0] * num
    assert labels.dtype == np.int64


@pytest.mark.numeric
def test_copies_of_a_face_are_one_group_even_at_threshold_zero():
    faces = np.repeat(unit(np.random.default_rng(0).standard_normal((5, 128))), 4, axis=0)
    assert group_faces(faces, 0.0).tolist() == np.repeat(np.arange(5), 4).tolist()


def test_edges_of_like_faces_stay_within_the_budget(monkeypatch):
    # 1.1 million pairs are all alike; at most 16 of each face are kept.
    monkeypatch.setattr(grouping, "MIN_EDGE_BUDGET", 100_000)
    faces = unit(1 + 0.02 * np.random.default_rng(0).standard_normal((1500, 16)))
    edges = find_edges(faces, 0.6, edges_per_face=16)
    assert edges.is_capped
    assert 1500 * 16 / 2 <= len(edges.first) <= 1500 * 16
    assert group_faces(faces, 0.4, edges_per_face=16).tolist() == [0] * 1500


@pytest.mark.slow
def test_ten_thousand_copies_of_a_face_are_grouped_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(grouping, "MIN_EDGE_BUDGET", 100_000)
    monkeypatch.setattr(grouping, "TILE", 256)
    tracemalloc.start()
    labels = group_faces(np.full((10_000, 4), 0.5), 0.4, edges_per_face=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.tolist() == [0] * 10_000
    assert peak < 0.2e9  # the matrix of all similarities would take 0.4e9, the list of all pairs 0.6e9


@pytest.mark.numeric
def test_the_strongest_edges_of_each_face_are_kept_as_a_slow_loop_finds_them(monkeypatch):
    monkeypatch.setattr(grouping, "MIN_EDGE_BUDGET", 0)
    monkeypatch.setattr(grouping, "TILE", 16)
    faces, _ = made_up_faces(150, 3, 0.8, seed=1)
    similarity = faces.astype(np.float64) @ faces.T.astype(np.float64)
    slow = set()
    for face in range(len(faces)):
        others = [other for other in range(len(faces)) if other != face and similarity[face, other] >= 0.3]
        for other in sorted(others, key=lambda other: -similarity[face, other])[:4]:
            slow.add((min(face, other), max(face, other)))
    edges = find_edges(faces, 0.3, edges_per_face=4)
    assert edges.is_capped
    assert set(zip(edges.first.tolist(), edges.second.tolist(), strict=True)) == slow


def test_capped_edges_give_nearly_the_same_groups(monkeypatch):
    faces, people = made_up_faces(1500, 15, 0.7, seed=2, num_values=128)
    exact = group_faces(faces, 0.5)
    monkeypatch.setattr(grouping, "MIN_EDGE_BUDGET", 0)
    capped = group_faces(faces, 0.5, edges_per_face=8)
    assert adjusted_rand_score(exact, capped) == 1.0
    assert bcubed_f1(capped, people) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_an_embedding_that_is_no_finite_unit_vector_is_refused(bad):
    faces, _ = made_up_faces(10, 2, 0.5, seed=0)
    faces[7] = bad
    with pytest.raises(UserError, match="embedding 7"):
        group_faces(faces, 0.4)


def test_a_threshold_out_of_range_and_a_wrong_shape_are_refused():
    faces, _ = made_up_faces(10, 2, 0.5, seed=0)
    for threshold in (-0.1, 2.1, float("nan")):
        with pytest.raises(UserError, match="threshold"):
            group_faces(faces, threshold)
    with pytest.raises(UserError, match="one row per face"):
        group_faces(faces[0], 0.4)


def test_bcubed_f1_equals_a_slow_loop():
    generator = np.random.default_rng(0)
    labels, truth = generator.integers(0, 12, 200), generator.integers(0, 9, 200)
    precision = recall = 0.0
    for i in range(200):
        group = [j for j in range(200) if labels[j] == labels[i]]
        person = [j for j in range(200) if truth[j] == truth[i]]
        both = len(set(group) & set(person))
        precision += both / len(group) / 200
        recall += both / len(person) / 200
    assert bcubed_f1(labels, truth) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-12)
    assert bcubed_f1(list("aabb"), [5, 5, 7, 7]) == 1.0
    with pytest.raises(UserError, match="one length"):
        bcubed_f1([0, 1], [0])


@pytest.mark.slow
def test_the_benchmark_runs_and_writes_its_figures(load_script, tmp_path, capsys):
    from facevox import cli
    from facevox_demo.figures import load_figures

    script = load_script("benchmarks/grouping")
    out = tmp_path / "figures.json"
    cli.run(script.main, ["--num_faces", "2000", "--dbscan_faces", "500", "--json", str(out)])
    assert "peak memory" in capsys.readouterr().out
    figures = {figure.name: figure for figure in load_figures(out)}
    assert figures["2000: B-cubed F1"].value == 1.0
    assert figures["2000: peak memory"].is_met


def median_score_of_halvings(vectors, people):
    """Threshold chosen on half of the people, B-cubed F1 on the others: median of 20 fixed halvings."""
    scores = []
    thresholds = np.arange(0.06, 0.90, 0.04)
    names = np.unique(people)
    for seed in range(20):
        chosen = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
        tuned = np.isin(people, chosen)
        results = [bcubed_f1(group_faces(vectors[tuned], t), people[tuned]) for t in thresholds]
        best = np.flatnonzero(np.array(results) == max(results))
        threshold = thresholds[best[len(best) // 2]]  # the middle of the best ones
        scores.append(bcubed_f1(group_faces(vectors[~tuned], threshold), people[~tuned]))
    return float(np.median(scores))


def embed_pictures(model_file: Path, pictures):
    from facevox.faces import align_five_points
    from lc_pytorch.faces.embedders import make_embedder
    from lc_pytorch.faces.face_locator import FaceLocator

    with FaceLocator() as locator:
        found = [(picture, locator.find(picture)) for picture in pictures]
    assert all(face is not None for _, face in found)
    embedder = make_embedder(model_file, preprocessing="imagenet")
    return embedder.embed([align_five_points(picture, face.points) for picture, face in found])


@pytest.mark.real_data
@pytest.mark.slow
def test_real_people_are_distinguished_by_a_threshold_chosen_on_others(real_data_dir):
    from facevox.files import read_image

    files = sorted(file for file in (real_data_dir / "faces").glob("*/*/*") if file.parent.name != "group")
    people = np.array([file.parent.name for file in files])
    assert len(files) == 137
    assert len(set(people)) == 20
    vectors = embed_pictures(
        real_data_dir / "weights" / "MobileFaceNet.onnx", [read_image(file) for file in files]
    )
    assert median_score_of_halvings(vectors, people) >= 0.97


@pytest.mark.real_data
@pytest.mark.slow
def test_example_people_are_distinguished_by_a_real_model(real_data_dir, example_videos):
    from facevox.media import iter_frames

    videos = sorted(example_videos.rglob("*.mp4"))
    frames = [frame.image for video in videos for frame in iter_frames(video, rate_hz=2)]
    people = np.repeat([video.parent.name for video in videos], len(frames) // len(videos))
    vectors = embed_pictures(real_data_dir / "weights" / "MobileFaceNet.onnx", frames)
    assert len(vectors) == len(people)
    assert median_score_of_halvings(vectors, people) >= 0.9


def test_grouping_of_picture_pixels_of_example_people_beats_chance(example_videos):
    """The twin of the real-data test that needs no weights: small grey pictures as embeddings."""
    from facevox.media import read_first_frame

    videos = sorted(example_videos.rglob("*.mp4"))
    small = np.array(
        [
            cv2.resize(cv2.cvtColor(read_first_frame(v).image, cv2.COLOR_RGB2GRAY), (16, 16)).ravel()
            for v in videos
        ],
        np.float64,
    )
    vectors = unit(small - small.mean(axis=0))
    people = np.array([video.parent.name for video in videos])
    best = max(bcubed_f1(group_faces(vectors, t), people) for t in np.arange(0.05, 1.0, 0.05))
    shuffled = np.random.default_rng(0).permutation(people)
    chance = max(bcubed_f1(group_faces(vectors, t), shuffled) for t in np.arange(0.05, 1.0, 0.05))
    assert best > chance + 0.1
