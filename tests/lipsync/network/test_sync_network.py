"""The networks, as modules and as estimators."""

import numpy as np
import pytest
import torch
from synthetic_takes import make_network, make_take

from facevox.errors import UserError
from lipsync.network import estimator as network_estimator
from lipsync.network.estimator import RIDGE_SHARE, NetworkEstimator
from lipsync.sync.estimators import RidgeEstimator, RidgeExample
from lipsync.sync.inputs import NUM_LIP_VALUES

pytestmark = pytest.mark.usefixtures("one_thread")
LAGS = np.arange(-20, 21)


@pytest.fixture(params=["lstm", "transformer", "none"])
def temporal(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["lip_landmarks", "lip_distances", "mouth_cnn"])
def frontend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_one_embedding_of_length_one_for_each_frame_and_row(frontend: str, temporal: str) -> None:
    network = make_network(frontend, temporal)
    face = torch.randn(2, 9, NUM_LIP_VALUES)
    if frontend == "mouth_cnn":
        face = torch.randint(0, 255, (2, 9, 22, 22), dtype=torch.uint8)
    for found, num in ((network.embed_face(face), 9), (network.embed_sound(torch.randn(2, 39, 53)), 39)):
        assert found.shape == (2, num, 16)
        torch.testing.assert_close(found.norm(dim=2), torch.ones(2, num))


def test_shipped_network_is_small() -> None:
    assert sum(value.numel() for value in make_network().parameters()) < 60_000


def test_full_size_crops_pass_the_cnn() -> None:
    network = make_network("mouth_cnn", mouth_px=96)
    assert network.embed_face(torch.zeros(1, 3, 88, 88, dtype=torch.uint8)).shape == (1, 3, 16)


def test_clips_of_a_batch_do_not_mix(temporal: str) -> None:
    network = make_network(temporal=temporal)
    face, sound = torch.randn(3, 20, NUM_LIP_VALUES), torch.randn(3, 50, 53)
    torch.testing.assert_close(network.embed_face(face)[1:2], network.embed_face(face[1:2]))
    torch.testing.assert_close(network.embed_sound(sound)[1:2], network.embed_sound(sound[1:2]))


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_sound_that_comes_later_is_embedded_later(temporal: str, rows: int) -> None:
    """At any step of 10 ms, far from the ends."""
    network = make_network(temporal=temporal)
    sound = torch.randn(1, 400, 53)
    moved = torch.roll(sound, rows, dims=1)
    here, there = (
        network.embed_sound(sound)[0, 180:200],
        network.embed_sound(moved)[0, 180 + rows : 200 + rows],
    )
    torch.testing.assert_close(here, there, atol=1e-3, rtol=0)


def test_what_is_far_away_changes_nothing(temporal: str) -> None:
    """The context that streaming relies on: to 0.01 for an LSTM, else exact."""
    network = make_network(temporal=temporal)
    reach = network_estimator.NETWORK_CONTEXT_FRAMES
    face, sound = torch.randn(1, 200, NUM_LIP_VALUES), torch.randn(1, 800, 53)
    other_face, other_sound = face.clone(), sound.clone()
    other_face[:, 100 + reach + 1 :] = 5.0
    other_sound[:, 400 + 4 * reach + 4 :] = 5.0
    tolerance = 0.01 if temporal == "lstm" else 1e-5
    for embed, one, other, place in (
        (network.embed_face, face, other_face, 100),
        (network.embed_sound, sound, other_sound, 400),
    ):
        change = (embed(one)[0, place] - embed(other)[0, place]).norm()
        assert float(change.detach()) < tolerance


def fit_ridge() -> RidgeEstimator:
    return RidgeEstimator.fit(RidgeExample(t.track, t.sound, 0.0) for t in (make_take(1), make_take(2)))


@pytest.mark.parametrize("has_ridge", [False, True])
def test_similarities_are_scaled_products_of_embeddings(
    frontend: str, has_ridge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = make_take(5, 90, start=3, mouth_px=24)
    take.track.is_measured[7] = False
    ridge = fit_ridge() if has_ridge else None
    estimator = NetworkEstimator(make_network(frontend), ridge)
    face, sound = estimator.embed_face(take.track), estimator.embed_sound(take.sound)
    expected = np.full((90, len(LAGS)), np.nan)
    for frame in range(90):
        for column, lag in enumerate(LAGS):
            row = 4 * (3 + frame) - lag
            if frame != 7 and 0 <= row < len(sound):
                expected[frame, column] = np.exp(2.0) * face[frame] @ sound[row]
    if ridge is not None:
        expected += RIDGE_SHARE * ridge.similarities(take.track, take.sound, LAGS)
    whole = estimator.similarities(take.track, take.sound, LAGS)
    np.testing.assert_allclose(whole, expected, atol=1e-4)
    monkeypatch.setattr(network_estimator, "CHUNK_FRAMES", 20)
    in_chunks = estimator.similarities(take.track, take.sound, LAGS)
    np.testing.assert_allclose(in_chunks, whole, atol=0.05)  # e^2 times the 0.01 of an LSTM


@pytest.mark.parametrize("share", [0.0, 1.0, 2.0])
def test_ridge_counts_by_its_share(share: float) -> None:
    take, network, ridge = make_take(5, 60), make_network(), fit_ridge()
    alone, of_ridge, both = (
        estimator.similarities(take.track, take.sound, LAGS)
        for estimator in (NetworkEstimator(network), ridge, NetworkEstimator(network, ridge, share))
    )
    np.testing.assert_allclose(both, alone + share * of_ridge, atol=1e-3)


def test_no_sound_gives_nothing_to_compare() -> None:
    take = make_take(5, 30)
    empty = type(take.sound)(take.sound.log_mel[:0], take.sound.mfcc[:0])
    found = NetworkEstimator(make_network()).similarities(take.track, empty, LAGS)
    assert found.shape == (30, len(LAGS))
    assert np.isnan(found).all()


def test_sound_of_another_size_is_refused() -> None:
    take = make_take(5, 30)
    other = type(take.sound)(take.sound.log_mel[:, :20], take.sound.mfcc)
    with pytest.raises(UserError, match=r"trained on 53 numbers .* there are 33: give the same"):
        NetworkEstimator(make_network()).embed_sound(other)
