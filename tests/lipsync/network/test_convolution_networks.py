"""Networks of convolutions alone, of six distances, and of means of bands: what they see, and what not."""

import itertools

import numpy as np
import pytest
import torch
from synthetic_takes import make_lips, make_network, make_take

from lipsync.network.estimator import NetworkEstimator
from lipsync.network.model import MAX_SIZE, NetworkConfig
from lipsync.sync.estimators import lip_distances
from lipsync.sync.inputs import (
    DISTANCES_FROM,
    DISTANCES_LESS,
    FACE_KERNEL,
    LIP_SCALE,
    NUM_DISTANCES,
    NUM_FACE_BLOCKS,
    NUM_LIP_VALUES,
    SOUND_DILATIONS,
    SOUND_KERNEL,
    lip_values,
)

pytestmark = pytest.mark.usefixtures("one_thread")
FACE_REACH = NUM_FACE_BLOCKS * (FACE_KERNEL // 2)  # 4 frames
SOUND_REACH = SOUND_KERNEL // 2 * sum(SOUND_DILATIONS)  # 15 rows
USED = sorted({*DISTANCES_FROM, *DISTANCES_LESS})


@pytest.mark.parametrize("bands", [0, 8])
def test_without_a_temporal_part_only_the_reach_of_the_convolutions_is_seen(bands: int) -> None:
    """Up to the last entry that counts, and not one further."""
    network = make_network(temporal="none", sound_bands=bands)
    generator = torch.Generator().manual_seed(0)
    for embed, width, reach in (
        (network.embed_face, NUM_LIP_VALUES, FACE_REACH),
        (network.embed_sound, 53, SOUND_REACH),
    ):
        values = torch.randn(1, 81, width, generator=generator)
        here = embed(values)[0, 40]
        for steps, is_seen in ((reach, True), (reach + 1, False)):
            for place in (40 - steps, 40 + steps):
                changed = values.clone()
                changed[0, place] += 3.0
                assert bool((embed(changed)[0, 40] - here).abs().max() > 1e-6) == is_seen, (steps, place)


def test_without_a_temporal_part_rows_of_any_number_are_embedded() -> None:
    """No groups of four rows: also less than one frame."""
    network = make_network(temporal="none")
    sound = torch.randn(1, 43, 53, generator=torch.Generator().manual_seed(0))
    whole = network.embed_sound(sound)
    assert whole.shape == (1, 43, 16)
    for num in (1, 2, 3, 20):
        part = network.embed_sound(sound[:, : num + SOUND_REACH])
        torch.testing.assert_close(part[:, :num], whole[:, :num])


def test_network_without_a_temporal_part_has_fewer_weights() -> None:
    """The others are the same: names in checkpoints do not depend on it."""
    plain, whole = (make_network(temporal=temporal).state_dict() for temporal in ("none", "lstm"))
    assert plain.keys() < whole.keys()
    assert {name.partition(".")[0] for name in whole.keys() - plain.keys()} == {
        "face_temporal", "sound_temporal"
    }  # fmt: skip


def test_lip_distances_hears_six_distances_and_nothing_else() -> None:
    network = make_network("lip_distances", "none")
    face = torch.randn(1, 30, NUM_LIP_VALUES, generator=torch.Generator().manual_seed(0))
    here = network.embed_face(face)
    for value in range(NUM_LIP_VALUES):
        changed = face.clone()
        changed[..., value] += torch.linspace(-2, 2, 30)
        is_same = bool(torch.equal(network.embed_face(changed), here))
        assert is_same == (value not in USED), value
    assert len(USED) == 8
    assert network.face_input.weight.shape[1] == NUM_DISTANCES


def test_widths_of_lip_distances_are_differences() -> None:
    """Both corners of the mouth moved to one side leave its width as it is."""
    network = make_network("lip_distances", "none")
    face = torch.randn(1, 30, NUM_LIP_VALUES, generator=torch.Generator().manual_seed(0))
    for ring in (1, 3):
        moved = face.clone()
        moved[..., [DISTANCES_FROM[ring], DISTANCES_LESS[ring]]] += 0.5
        torch.testing.assert_close(network.embed_face(moved), network.embed_face(face), atol=1e-5, rtol=0)
        wider = face.clone()
        wider[..., DISTANCES_FROM[ring]] += 0.5
        wider[..., DISTANCES_LESS[ring]] -= 0.5
        assert (network.embed_face(wider) - network.embed_face(face)).abs().max() > 1e-3


def test_lip_distances_are_those_that_the_ridge_predicts() -> None:
    """The first layer sees the movements of `lip_distances`, in its order."""
    rng = np.random.default_rng(0)
    lips = make_lips(rng.normal(size=40)) + rng.normal(0, 0.02, (40, 40, 2)).astype(np.float32)
    network = make_network("lip_distances", "none")
    seen: list[torch.Tensor] = []
    network.face_input.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.embed_face(torch.from_numpy(lip_values(lips)).unsqueeze(0))
    distances = lip_distances(lips - lips.mean(axis=1, keepdims=True)) * LIP_SCALE
    found = seen[0][0].T.numpy()
    assert found.shape == (40, NUM_DISTANCES)
    for number in range(NUM_DISTANCES):
        fast, plain = np.diff(found[:, number]), np.diff(distances[:, number])
        assert np.corrcoef(fast, plain)[0, 1] > 0.95, number
        assert fast.std() == pytest.approx(plain.std(), rel=0.1), number


@pytest.mark.parametrize("num_groups", [1, 6, 40])
def test_sound_bands_hears_the_means_of_groups_alone(num_groups: int) -> None:
    network = make_network("lip_distances", "none", sound_bands=num_groups)
    assert network.sound_input.weight.shape[1] == num_groups
    sound = torch.randn(1, 60, 53, generator=torch.Generator().manual_seed(1))
    here = network.embed_sound(sound)
    edges = [round(step * 40 / num_groups) for step in range(num_groups + 1)]
    sizes = np.diff(edges)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1
    within, coefficients, swung = sound.clone(), sound.clone(), []
    coefficients[..., 40:] += torch.randn(1, 60, 13)  # the MFCC
    for low, high in itertools.pairwise(edges):
        wave = torch.randn(1, 60, high - low)
        within[..., low:high] += wave - wave.mean(dim=2, keepdim=True)
        louder = sound.clone()
        louder[..., low] += torch.linspace(-3, 3, 60)
        swung.append(float((network.embed_sound(louder) - here).abs().max().detach()))
    torch.testing.assert_close(network.embed_sound(within), here, atol=1e-4, rtol=0)
    assert torch.equal(network.embed_sound(coefficients), here)
    assert min(swung) > 1e-3


def test_groups_are_of_the_bands_that_the_settings_name() -> None:
    """Of 20 bands and 6 coefficients."""
    network = make_network("lip_distances", "none", sound_bands=4, num_mels=20, num_sound_values=26)
    assert network.config.band_edges() == [0, 5, 10, 15, 20]
    sound = torch.randn(1, 40, 26, generator=torch.Generator().manual_seed(1))
    for value in range(26):
        changed = sound.clone()
        changed[..., value] += torch.linspace(-3, 3, 40)
        is_same = torch.equal(network.embed_sound(changed), network.embed_sound(sound))
        assert bool(is_same) == (value >= 20), value


def test_estimator_of_distances_and_bands_is_named_and_has_few_weights() -> None:
    network = make_network("lip_distances", "none", sound_bands=8, hidden_dim=8, embedding_dim=4)
    assert sum(value.numel() for value in network.parameters()) < 3000
    estimator = NetworkEstimator(network)
    assert estimator.name == "network (lip_distances, none)"
    take = make_take(0, 60)
    found = estimator.similarities(take.track, take.sound, np.arange(-3, 4))
    assert np.isfinite(found[1:-1]).all()
    assert float(np.ptp(found[1:-1])) > 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"visual_frontend": "lips"}, {"temporal": "gru"}, {"temporal": ""}, {"hidden_dim": 0},
        {"hidden_dim": MAX_SIZE + 1}, {"embedding_dim": -1}, {"mouth_px": 0}, {"num_sound_values": 5000},
        {"sound_bands": -1}, {"sound_bands": 41}, {"num_mels": 54}, {"num_mels": 0},
        {"num_sound_values": 39},
    ],
)  # fmt: skip
def test_sizes_that_there_are_none_of_are_refused(wrong: dict[str, object]) -> None:
    """They may come out of a file."""
    right = {"visual_frontend": "lip_distances", "temporal": "none", "sound_bands": 40, "num_mels": 40}
    assert NetworkConfig(**right).to_plain() | right == NetworkConfig(**right).to_plain()
    with pytest.raises(ValueError, match="a network of"):
        NetworkConfig(**(right | wrong))
