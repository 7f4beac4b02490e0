"""SyncNet layer by layer, compared with loops in NumPy; and its file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from facevox.errors import UserError
from lipsync.lse.network import SyncNet, load_syncnet
from lipsync.lse.weights import MOST_BYTES, find_weights

Shape = tuple[int, ...]

# As published: (index, outputs x inputs x kernel, stride, padding) of convolutions, each before a
# normalisation and a rectifier; (index, kernel, stride, padding) of pools.
SOUND_CONVOLUTIONS = (
    (0, (64, 1, 3, 3), (1, 1), (1, 1)), (4, (192, 64, 3, 3), (1, 1), (1, 1)),
    (8, (384, 192, 3, 3), (1, 1), (1, 1)), (11, (256, 384, 3, 3), (1, 1), (1, 1)),
    (14, (256, 256, 3, 3), (1, 1), (1, 1)), (18, (512, 256, 5, 4), (1, 1), (0, 0)),
)  # fmt: skip
SOUND_POOLS = ((3, (1, 1), (1, 1), (0, 0)), (7, (3, 3), (1, 2), (0, 0)), (17, (3, 3), (2, 2), (0, 0)))
LIP_CONVOLUTIONS = (
    (0, (96, 3, 5, 7, 7), (1, 2, 2), (0, 0, 0)), (4, (256, 96, 1, 5, 5), (1, 2, 2), (0, 1, 1)),
    (8, (256, 256, 1, 3, 3), (1, 1, 1), (0, 1, 1)), (11, (256, 256, 1, 3, 3), (1, 1, 1), (0, 1, 1)),
    (14, (256, 256, 1, 3, 3), (1, 1, 1), (0, 1, 1)), (18, (512, 256, 1, 6, 6), (1, 1, 1), (0, 0, 0)),
)  # fmt: skip
LIP_POOLS = (
    (3, (1, 3, 3), (1, 2, 2), (0, 0, 0)), (7, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    (17, (1, 3, 3), (1, 2, 2), (0, 0, 0)),
)  # fmt: skip
NORMALISED = ("weight", "bias", "running_mean", "running_var")


def published_shapes() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for branch, convolutions in (("netcnnaud", SOUND_CONVOLUTIONS), ("netcnnlip", LIP_CONVOLUTIONS)):
        for index, kernel, _, _ in convolutions:
            shapes |= {f"{branch}.{index}.weight": kernel, f"{branch}.{index}.bias": kernel[:1]}
            shapes |= {f"{branch}.{index + 1}.{name}": kernel[:1] for name in NORMALISED}
    for head in ("netfcaud", "netfclip"):
        shapes |= {f"{head}.0.weight": (512, 512), f"{head}.0.bias": (512,)}
        shapes |= {f"{head}.1.{name}": (512,) for name in NORMALISED}
        shapes |= {f"{head}.3.weight": (1024, 512), f"{head}.3.bias": (1024,)}
    return shapes


def slices(kernel: Shape, stride: Shape, size: Shape) -> list[tuple[Shape, tuple[Any, ...]]]:
    """For each position in the kernel, the part of the padded input that it is applied to."""
    counts = [(length - k) // s + 1 for length, k, s in zip(size, kernel, stride, strict=True)]
    positions = []
    for at in np.ndindex(*kernel):
        parts = [slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(at, counts, stride, strict=True)]
        positions.append((at, (slice(None), *parts)))
    return positions


def padded(image: np.ndarray, padding: Shape, value: float) -> np.ndarray:
    return np.pad(image, [(0, 0), *((p, p) for p in padding)], constant_values=value)


def slow_convolution(
    image: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: Shape, padding: Shape
) -> np.ndarray:
    image = padded(image, padding, 0.0)
    parts = [
        np.tensordot(weight[(slice(None), slice(None), *at)], image[part], axes=1)
        for at, part in slices(weight.shape[2:], stride, image.shape[1:])
    ]
    return sum(parts) + bias.reshape(-1, *[1] * (image.ndim - 1))


def slow_normalisation(image: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    weight, bias, mean, variance = (
        state[f"{name}.{key}"].reshape(-1, *[1] * (image.ndim - 1)) for key in NORMALISED
    )
    return (image - mean) / np.sqrt(variance + 1e-5) * weight + bias


def slow_pool(image: np.ndarray, kernel: Shape, stride: Shape, padding: Shape) -> np.ndarray:
    image = padded(image, padding, -np.inf)
    return np.max([image[part] for _, part in slices(kernel, stride, image.shape[1:])], axis=0)


def slow_layers(
    image: np.ndarray, state: dict[str, np.ndarray], branch: str, convolutions: Any, pools: Any
) -> dict[int, np.ndarray]:
    """The output (C, ...) of each layer by its index."""
    outputs = {}
    for index in range(21):
        for first, _, stride, padding in convolutions:
            if index == first:
                weight, bias = (state[f"{branch}.{index}.{key}"] for key in ("weight", "bias"))
                image = slow_convolution(image, weight, bias, stride, padding)
            elif index == first + 1:
                image = slow_normalisation(image, state, f"{branch}.{index}")
            elif index == first + 2:
                image = np.maximum(image, 0)
        for at, kernel, stride, padding in pools:
            if index == at:
                image = slow_pool(image, kernel, stride, padding)
        outputs[index] = image
    return outputs


def slow_head(vector: np.ndarray, state: dict[str, np.ndarray], head: str) -> np.ndarray:
    vector = state[f"{head}.0.weight"] @ vector + state[f"{head}.0.bias"]
    vector = np.maximum(slow_normalisation(vector, state, f"{head}.1"), 0)
    return state[f"{head}.3.weight"] @ vector + state[f"{head}.3.bias"]


@pytest.fixture(scope="module")
def network(random_weights: Path) -> SyncNet:
    return load_syncnet(random_weights)


@pytest.fixture(scope="module")
def state(network: SyncNet) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def check_layers(layers: nn.Sequential, image: torch.Tensor, expected: dict[int, np.ndarray]) -> None:
    assert len(layers) == len(expected)
    output = image[None]
    for index, layer in enumerate(layers):
        with torch.inference_mode():
            output = layer(output.clone())  # rectifiers overwrite their input
        assert output.shape[1:] == expected[index].shape
        scale = np.abs(expected[index]).max()
        np.testing.assert_allclose(output[0].numpy() / scale, expected[index] / scale, atol=3e-6)


def test_names_and_sizes_are_those_of_the_published_weights() -> None:
    sizes = {name: tuple(value.shape) for name, value in SyncNet().state_dict().items()}
    assert {name: size for name, size in sizes.items() if "num_batches" not in name} == published_shapes()


def test_layers_of_sound_equal_slow_loops(network: SyncNet, state: dict[str, np.ndarray]) -> None:
    mfcc_KR = np.random.default_rng(1).normal(0, 10, (13, 20)).astype(np.float32)
    expected = slow_layers(mfcc_KR[None].astype(float), state, "netcnnaud", SOUND_CONVOLUTIONS, SOUND_POOLS)
    check_layers(network.netcnnaud, torch.from_numpy(mfcc_KR)[None], expected)
    features = slow_head(expected[20].ravel(), state, "netfcaud")
    with torch.inference_mode():
        output = network.sound_features(torch.from_numpy(mfcc_KR)[None])[0].numpy()
    np.testing.assert_allclose(output, features, atol=3e-6 * np.abs(features).max())


def test_layers_of_lips_equal_slow_loops_window_by_window(
    network: SyncNet, state: dict[str, np.ndarray]
) -> None:
    frames = np.random.default_rng(2).integers(0, 256, (6, 224, 224, 3)).astype(np.float32)
    frames_F3HW = frames.transpose(0, 3, 1, 2)
    with torch.inference_mode():
        output = network.lip_features(torch.from_numpy(frames_F3HW)).numpy()
    assert output.shape == (2, 1024)
    for window in range(2):
        image = frames_F3HW[window : window + 5].transpose(1, 0, 2, 3)
        expected = slow_layers(image.astype(float), state, "netcnnlip", LIP_CONVOLUTIONS, LIP_POOLS)
        if window == 0:
            check_layers(network.netcnnlip, torch.from_numpy(np.ascontiguousarray(image)), expected)
        features = slow_head(expected[20].ravel(), state, "netfclip")
        np.testing.assert_allclose(output[window], features, atol=1e-5 * np.abs(features).max())


def test_weights_come_back_from_old_and_new_files_with_and_without_counters(
    network: SyncNet, tmp_path: Path
) -> None:
    plain = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    for number, content in enumerate((network.state_dict(), plain)):
        for is_new in (False, True):
            file = tmp_path / f"{number}{is_new}.model"
            torch.save(content, file, _use_new_zipfile_serialization=is_new)
            loaded = load_syncnet(file).state_dict()
            assert all(torch.equal(loaded[name], value) for name, value in plain.items())


def write_faulty(file: Path, fault: str, state: dict[str, torch.Tensor]) -> None:
    """A file with one fault."""
    if fault == "text":
        file.write_text("<!doctype html><title>404</title>")
    elif fault == "cut":
        torch.save(state, file, _use_new_zipfile_serialization=False)
        file.write_bytes(file.read_bytes()[:100_000])
    elif fault == "list":
        torch.save([1, 2], file)
    else:
        changed = dict(state)
        if fault == "name":
            changed["netcnnaud.0.scale"] = changed.pop("netcnnaud.0.weight")
        elif fault == "size":
            changed["netfclip.3.weight"] = torch.zeros(512, 512)
        elif fault == "nan":
            changed["netfclip.3.bias"] = torch.full((1024,), torch.nan)
        torch.save(changed, file)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("text", "no file of SyncNet's weights, or a damaged one (a web page"),
        ("cut", "no file of SyncNet's weights, or a damaged one"),
        ("list", "no file of SyncNet's weights: it holds a list"),
        ("name", "weights of another model (1 of this one's are missing, 1 are unknown"),
        ("size", "weights of another size: netfclip.3.weight is (512, 512)"),
        ("nan", "some weights are infinite or no numbers"),
    ],
)
def test_file_with_other_content_is_refused_in_one_line(
    network: SyncNet, tmp_path: Path, fault: str, words: str
) -> None:
    file = tmp_path / "syncnet_v2.model"
    write_faulty(file, fault, network.state_dict())
    with pytest.raises(UserError) as refusal:
        load_syncnet(file)
    assert words in str(refusal.value)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_weights_are_found_by_option_by_variable_and_in_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FACEVOX_SYNCNET", raising=False)
    with pytest.raises(
        UserError, match=r"models/syncnet_v2.model: No such file .*fetch http://www.robots.ox"
    ):
        find_weights()
    (tmp_path / "models").mkdir()
    for name in ("models/syncnet_v2.model", "a.model", "b.model"):
        (tmp_path / name).touch()
    assert find_weights() == Path("models/syncnet_v2.model")
    monkeypatch.setenv("FACEVOX_SYNCNET", "a.model")
    assert find_weights() == Path("a.model")
    assert find_weights(Path("b.model")) == Path("b.model")
    with (tmp_path / "b.model").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UserError, match="about 54 million"):
        find_weights(Path("b.model"))
