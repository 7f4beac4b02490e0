"""Checkpoints: what comes back of them, those of earlier versions, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_takes import make_network, make_take

from facevox.errors import UserError
from facevox.training.checkpoint import load_checkpoint, save_checkpoint
from lipsync.clips.clock import CLOCK
from lipsync.network.estimator import (
    STAND_IN,
    NetworkEstimator,
    SavedModel,
    load_method,
    load_model,
    save_model,
)
from lipsync.network.model import LipSyncNetwork
from lipsync.sync.estimators import RidgeEstimator, RidgeExample
from lipsync.sync.posterior import SyncCalibration

pytestmark = pytest.mark.usefixtures("one_thread")
LAGS = np.arange(-20, 21)
CALIBRATION = SyncCalibration(sharpness=0.25, weight=1.5, bias=-0.75, spread_ms=12.0)
NOW = {"clock": CLOCK, "split_hash": "x"}
FORMER_CALIBRATION = {"features": ["peak", "height", "width"], "weights": [1.0, -2.0, 0.25], "bias": 0.5}
EARLIER = "is of an earlier version"
LATE = "may have been up to 40 ms late"


def fit_ridge() -> RidgeEstimator:
    return RidgeEstimator.fit(RidgeExample(t.track, t.sound, 0.0) for t in (make_take(1), make_take(2)))


def write(
    file: Path,
    network: LipSyncNetwork,
    *,
    settings: dict[str, object],
    calibration: SyncCalibration | None = CALIBRATION,
    ridge: RidgeEstimator | None = None,
    changes: dict[str, Any] | None = None,
) -> None:
    """A checkpoint, then with other content: as an earlier version would have written it, or damaged."""
    model = SavedModel(network=network, ridge=ridge, calibration=calibration, settings=settings)
    save_model(file, model)
    if changes:
        save_checkpoint(file, load_checkpoint(file) | changes)


@pytest.mark.parametrize("temporal", ["lstm", "transformer", "none"])
@pytest.mark.parametrize("frontend", ["lip_landmarks", "lip_distances", "mouth_cnn"])
def test_checkpoint_gives_the_same_estimator_back(tmp_path: Path, frontend: str, temporal: str) -> None:
    take = make_take(5, 60, mouth_px=24)
    ridge, network = fit_ridge(), make_network(frontend, temporal, sound_bands=8)
    file = tmp_path / "best model.pth"
    write(file, network, settings=NOW, ridge=ridge)
    method = load_method(file)
    assert method.calibration == CALIBRATION
    assert method.notes == ()
    assert method.name == f"checkpoint: network ({frontend}, {temporal}, ridge)"
    np.testing.assert_array_equal(
        method.estimator.similarities(take.track, take.sound, LAGS),
        NetworkEstimator(network, ridge).similarities(take.track, take.sound, LAGS),
    )
    assert load_model(file).settings == NOW
    assert load_model(file).network.config == network.config


def test_model_that_is_loaded_and_saved_is_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first.pth", tmp_path / "second.pth"
    write(first, make_network("lip_distances", "none", sound_bands=6), settings=NOW, ridge=fit_ridge())
    save_model(second, load_model(first))
    one, other = (load_checkpoint(file) for file in (first, second))
    assert one.keys() == other.keys()
    for key in ("network", "ridge", "calibration", "settings", "mesh"):
        assert one[key] == other[key], key
    assert one["calibration"] == {"sharpness": 0.25, "weight": 1.5, "bias": -0.75, "spread_ms": 12.0}


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.25), (None, 1.0)])
def test_share_of_the_ridge_comes_back_and_was_one_in_earlier_versions(
    tmp_path: Path, share: float | None, expected: float
) -> None:
    file, network, ridge, take = tmp_path / "model.pth", make_network(), fit_ridge(), make_take(5, 60)
    model = SavedModel(
        network=network, ridge=ridge, calibration=CALIBRATION, settings=NOW, ridge_share=share or 0.5
    )
    save_model(file, model)
    if share is None:
        content = load_checkpoint(file)
        del content["ridge"]["share"]
        save_checkpoint(file, content)
    assert load_model(file).ridge_share == expected
    np.testing.assert_array_equal(
        load_method(file).estimator.similarities(take.track, take.sound, LAGS),
        NetworkEstimator(network, ridge, expected).similarities(take.track, take.sound, LAGS),
    )


def former_sizes(network: LipSyncNetwork) -> dict[str, object]:
    """Sizes as they were before there were groups of bands."""
    plain = network.config.to_plain()
    return {name: value for name, value in plain.items() if name not in ("num_mels", "sound_bands")}


def test_checkpoint_of_the_former_kind_is_read_with_a_stand_in_and_says_so(tmp_path: Path) -> None:
    file, network, take = tmp_path / "best_model.pth", make_network(), make_take(5, 60)
    write(
        file,
        network,
        settings={"split_hash": "x"},
        changes={"calibration": FORMER_CALIBRATION, "network": former_sizes(network)},
    )
    method = load_method(file)
    assert method.calibration == STAND_IN
    earlier, late = method.notes
    assert EARLIER in earlier
    assert "train it again" in earlier
    assert LATE in late
    assert "process them again" in late
    for note in method.notes:
        assert note.startswith("best_model.pth ")
        assert "\n" not in note
    np.testing.assert_array_equal(
        method.estimator.similarities(take.track, take.sound, LAGS),
        NetworkEstimator(network).similarities(take.track, take.sound, LAGS),
    )
    saved = tmp_path / "again.pth"
    save_model(saved, load_model(file))
    assert load_model(saved).calibration == STAND_IN


@pytest.mark.parametrize(
    ("settings", "calibration", "expected"),
    [
        (NOW, CALIBRATION.to_plain(), []),
        (NOW, FORMER_CALIBRATION, [EARLIER]),
        ({}, CALIBRATION.to_plain(), [LATE]),
        ({"clock": CLOCK - 1}, CALIBRATION.to_plain(), [LATE]),
        ({}, FORMER_CALIBRATION, [EARLIER, LATE]),
        ({}, None, [LATE]),
        (NOW, None, []),
    ],
)
def test_each_thing_that_an_earlier_version_left_has_a_note(
    tmp_path: Path,
    settings: dict[str, object],
    calibration: dict[str, object] | None,
    expected: list[str],
) -> None:
    file = tmp_path / "epoch_0004.pth"
    write(file, make_network(), settings=settings, changes={"calibration": calibration})
    notes = load_model(file).notes
    assert len(notes) == len(expected)
    assert all(text in note for text, note in zip(expected, notes, strict=True))


def test_model_without_a_calibration_is_loaded_but_is_no_method(tmp_path: Path) -> None:
    file = tmp_path / "best_model.pth"
    write(file, make_network(), settings=NOW, calibration=None)
    model = load_model(file)
    assert (model.ridge, model.calibration) == (None, None)
    with pytest.raises(UserError, match="without a calibration of its score"):
        load_method(file)


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "best_model.pth"
    with pytest.raises(UserError, match="there is no such file"):
        load_model(file)
    file.write_text("hello", encoding="utf-8")
    with pytest.raises(UserError, match="no checkpoint of facevox"):
        load_model(file)
    save_checkpoint(file, {"kind": "face_voice", "network": {}})
    with pytest.raises(UserError, match="a checkpoint of 'face_voice', not a lip-sync model"):
        load_model(file)
    save_checkpoint(file, {"kind": "lipsync", "network": {}, "format": 7})
    with pytest.raises(UserError, match="of format 7; this program reads 1"):
        load_model(file)
    save_checkpoint(file, {"kind": "lipsync", "network": {"width": 3}, "format": 1})
    with pytest.raises(UserError, match="no lip-sync model of this version"):
        load_model(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": CALIBRATION.to_plain() | {"sharpness": -1.0}},
        {"calibration": CALIBRATION.to_plain() | {"bias": float("inf")}},
        {"calibration": {"sharpness": 1.0}},
        {"calibration": [1.0, 2.0, 3.0, 4.0]},
        {"settings": None},
        {"settings": "clock"},
        {"ridge": {"weights": [[1.0]]}},
    ],
)
def test_model_whose_values_are_wrong_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    file = tmp_path / "best_model.pth"
    write(file, make_network(), settings=NOW, changes=changes)
    with pytest.raises(UserError, match="no lip-sync model of this version") as caught:
        load_model(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [{"sound_bands": 41}, {"temporal": "gru"}, {"visual_frontend": "lips"}])
def test_model_of_impossible_sizes_is_refused(tmp_path: Path, size: dict[str, object]) -> None:
    file, network = tmp_path / "best_model.pth", make_network()
    write(file, network, settings=NOW, changes={"network": network.config.to_plain() | size})
    with pytest.raises(UserError, match="no lip-sync model of this version"):
        load_model(file)
