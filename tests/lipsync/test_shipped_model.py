"""The model that comes with the package: torch's numbers without torch, small, its clips named."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_takes import make_take

from facevox.errors import UserError
from lipsync.inference import LipSyncInference
from lipsync.network.model import LipSyncNetwork, NetworkConfig
from lipsync.shipped import clips, model
from lipsync.sync.inputs import lip_values, sound_values
from lipsync.sync.opening import open_method

TOLERANCE = 1e-4


def shipped() -> model.ShippedEstimator:
    estimator = model.load_shipped().estimator
    assert isinstance(estimator, model.ShippedEstimator)
    return estimator


def test_embeddings_are_those_of_torch() -> None:
    take = make_take(0, 2300)  # several chunks
    lips, sound = lip_values(take.track.lips), sound_values(take.sound)
    kinds = set()
    for small in shipped().networks:
        network = LipSyncNetwork(NetworkConfig(**small.sizes)).eval()
        network.load_state_dict({name: torch.from_numpy(value) for name, value in small.weights.items()})
        kinds.add(network.config.visual_frontend)
        with torch.inference_mode():
            face = network.embed_face(torch.from_numpy(lips)[None])[0].numpy()
            heard = network.embed_sound(torch.from_numpy(sound)[None])[0].numpy()
        np.testing.assert_allclose(small.embed_face(lips), face, atol=TOLERANCE)
        np.testing.assert_allclose(small.embed_sound(sound), heard, atol=TOLERANCE)
    assert kinds == {"lip_distances", "lip_landmarks"}


def test_similarities_are_the_mean_of_the_networks_and_a_share_of_the_ridge() -> None:
    take, estimator = make_take(1, 120, start=3), shipped()
    lags = np.arange(-30, 31)
    found = estimator.similarities(take.track, take.sound, lags)
    expected = estimator.ridge_share * estimator.ridge.similarities(take.track, take.sound, lags)
    lips, sound = lip_values(take.track.lips), sound_values(take.sound)
    for small in estimator.networks:
        products = small.scale * small.embed_face(lips) @ small.embed_sound(sound).T
        for frame in range(len(take.track)):
            for number, lag in enumerate(lags.tolist()):
                row = 4 * (3 + frame) - lag
                if 0 <= row < len(sound):
                    expected[frame, number] += products[frame, row] / len(estimator.networks)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_package_stays_small_and_its_card_names_every_clip() -> None:
    folder = model.FILE.parent
    assert sum(file.stat().st_size for file in folder.glob("*.npz")) < 2_000_000
    card = model.CARD.read_text(encoding="utf-8")
    takes = clips.load_shipped_takes()
    for take in takes:
        assert f"| {take.name} |" in card
    assert len({take.speaker for take in takes}) <= 6
    for words in (
        "CC BY 4.0",
        "Cooke",
        "believed from its setting",
        "trained on GRID alone",
        "People left out",
    ):
        assert words in card
    assert sum(len(take.track) for take in takes) / 25 == pytest.approx(71, abs=1)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04"])
def test_missing_or_damaged_file_says_what_to_do(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"install facevox again, or use --method untrained"):
        model.load_shipped(file)
    with pytest.raises(UserError, match="install facevox again"):
        clips.load_shipped_takes(file)


def test_array_that_is_missing_is_a_damaged_file(tmp_path: Path) -> None:
    with np.load(model.FILE) as archive:
        arrays = {name: archive[name] for name in archive.files}
    del arrays["ridge.weights"]
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(UserError, match="cannot be read"):
        model.load_shipped(tmp_path / "model.npz")
    shutil.copyfile(model.FILE, tmp_path / "whole.npz")
    assert model.load_shipped(tmp_path / "whole.npz").calibration == model.load_shipped().calibration


def test_sound_of_other_sizes_is_refused_with_what_to_change() -> None:
    take = make_take(0, 60)
    narrow = replace(take.sound, log_mel=take.sound.log_mel[:, :24])
    with pytest.raises(UserError, match=r"audio\.num_mels"):
        shipped().similarities(take.track, narrow, np.arange(-3, 4))


def test_methods_are_named_and_exclude_a_checkpoint(tmp_path: Path) -> None:
    assert open_method().name.startswith("shipped: ")
    assert open_method("shipped") is open_method("auto")
    assert open_method("untrained").name.startswith("untrained: ")
    with pytest.raises(UserError, match="does not go with --checkpoint"):
        open_method("untrained", tmp_path / "x.pth")
    with pytest.raises(UserError, match="one of auto, shipped, untrained"):
        open_method("best")


def test_it_runs_without_torch() -> None:
    code = "import sys; from lipsync.inference import LipSyncInference; LipSyncInference(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real_data
@pytest.mark.slow
def test_real_people_left_out_get_their_offset(real_data_dir: Path) -> None:
    """Known offsets of whole clips of people that the model was not trained on."""
    expected = {
        "German_20s.mp4": -40,
        "syncnet_example.avi": 122,
        "reagan_clip1.mov": -24,
        "May_5s.mp4": -121,
    }
    inference = LipSyncInference()
    for name, offset_ms in expected.items():
        details = inference.compute_sync_score(real_data_dir / "talking" / name)[1]
        assert details["offset_ms"] == pytest.approx(offset_ms, abs=20), name
        assert details["method"].startswith("shipped")
        low_ms, high_ms = details["offset_interval_ms"]
        assert high_ms - low_ms < 80
