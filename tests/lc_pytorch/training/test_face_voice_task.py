"""Contrastive training of two towers: batches over processes and in parts, learning rates, bad items."""

import csv
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo_processes import run_ranks
from small_training import MemoryPairs, assert_same, copy_of, make_model, next_draws, plain_rows
from torch import Tensor

from facevox.errors import UserError
from facevox.training.checkpoint import load_checkpoint
from facevox.training.distributed import World
from facevox.training.schedule import Interval
from facevox.training.trainer import DONE, STOPPED, TrainingResult
from lc_pytorch.losses import symmetric_info_nce
from lc_pytorch.models import FaceVoiceModel
from lc_pytorch.training.task import TrainConfig, parameter_groups, train_contrastive

pytestmark = pytest.mark.usefixtures("one_thread")
ONE = World(device=torch.device("cpu"))


def train(
    save_dir: Path,
    model: FaceVoiceModel,
    pairs: MemoryPairs | None = None,
    *,
    world: World = ONE,
    **changes: Any,
) -> TrainingResult:
    options: dict[str, Any] = {
        "batch_size": 4,
        "num_epochs": 2,
        "learning_rate": 3e-3,
        "warmup": 1.0,
    } | changes
    save_dir.mkdir(parents=True, exist_ok=True)
    return train_contrastive(
        model,
        pairs or MemoryPairs(),
        TrainConfig(save_dir=save_dir, **options),
        world,
        kind="test",
        validate=None,
        save=lambda is_best: None,
        settings={},
    )


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


# SGD-like sizes: Adam divides by the gradient's own size and would make rounding of tiny gradients visible.
EVEN = {"learning_rate": 1e-3, "weight_decay": 0.01, "num_epochs": 2}


def test_a_step_is_adamw_on_the_masked_loss_of_the_batch(tmp_path: Path) -> None:
    pairs = MemoryPairs(4, num_people=3)  # two of the four are of one person
    model, expected = (make_model(dropout=0.0, learnable_temperature=True) for _ in range(2))
    train(tmp_path, model, pairs, num_epochs=1, warmup=0.0, clip_norm=0.0, weight_decay=0.0)
    items = [pairs.load(index, 0) for index in range(4)]  # the loss does not ask for the order
    faces, voices = (torch.stack([item[name] for item in items]) for name in ("face", "voice"))
    groups = [{"params": [p for p in expected.parameters() if p.requires_grad]}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, weight_decay=0.0)
    identity = torch.from_numpy(pairs.identity_numbers)
    symmetric_info_nce(*expected(faces, voices), identity, expected.temperature).backward()
    optimizer.step()
    before = copy_of(make_model(dropout=0.0, learnable_temperature=True))
    assert largest_difference(copy_of(model), before) > 1e-3
    # Biases of keys have no gradient but rounding, which Adam blows up to a whole step.
    names = [name for name in before if "k_proj.bias" not in name]
    error = {name: float((copy_of(model)[name] - copy_of(expected)[name]).abs().max()) for name in names}
    assert sum(value > 1e-4 for value in error.values()) <= 2, error
    assert abs(float(model.log_temperature.detach() - expected.log_temperature.detach())) < 1e-6


@pytest.mark.parametrize("num_parts", [2, 3, 4])
@pytest.mark.resume
def test_a_batch_in_parts_trains_as_the_whole(tmp_path: Path, num_parts: int) -> None:
    whole, parts = (make_model(dropout=0.0, learnable_temperature=True) for _ in range(2))
    one = train(tmp_path / "a", whole, batch_size=8, clip_norm=0.0, **EVEN)
    other = train(tmp_path / "b", parts, batch_size=8, clip_norm=0.0, accum_freq=num_parts, **EVEN)
    assert [r["train_loss"] for r in one.history] == pytest.approx(
        [r["train_loss"] for r in other.history], abs=1e-5
    )
    compare_trained(copy_of(parts), copy_of(whole))


def compare_trained(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to 1e-5, but for the biases of keys: their gradient is rounding, of which Adam makes a step."""
    kept = [name for name in expected if "k_proj.bias" not in name]
    assert largest_difference({n: found[n] for n in kept}, {n: expected[n] for n in kept}) < 1e-5
    start = copy_of(make_model(dropout=0.0, learnable_temperature=True))
    moved = {name: float((expected[name] - start[name]).abs().max()) for name in kept}
    assert min(moved.values()) > 1e-4, "a weight that did not train shows nothing"


def train_half(world: World, folder: str) -> dict[str, Any]:
    model = make_model(dropout=0.0, learnable_temperature=True)
    result = train(Path(folder), model, world=world, batch_size=4, accum_freq=2, **EVEN)
    return {"weights": copy_of(model), "losses": [row["train_loss"] for row in result.history]}


def test_two_processes_train_as_one_with_the_double_batch(tmp_path: Path) -> None:
    model = make_model(dropout=0.0, learnable_temperature=True)
    result = train(tmp_path / "one", model, batch_size=8, **EVEN)
    ranks = run_ranks(train_half, 2, tmp_path, str(tmp_path / "two"))
    for rank in ranks:
        compare_trained(rank["weights"], copy_of(model))
        assert rank["losses"] == pytest.approx([row["train_loss"] for row in result.history], abs=1e-5)
    assert_same(ranks[0]["weights"], ranks[1]["weights"])


class StopAt(MemoryPairs):
    """Sends a stop signal to this process when the batch with a given place is loaded."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.left = 4 * batch

    def load(self, index: int, epoch: int | None) -> dict[str, Tensor]:
        import os
        import signal

        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGUSR2)
        return super().load(index, epoch)


@pytest.mark.parametrize(
    "options", [{}, {"accum_freq": 2, "precision": "bf16"}, {"grad_checkpointing": True}]
)
@pytest.mark.resume
def test_a_stopped_training_with_dropout_goes_on_to_the_bit(tmp_path: Path, options: dict) -> None:
    whole = make_model(learnable_temperature=True)
    result = train(tmp_path / "a", whole, **options)
    draws = next_draws()
    for batch in (1, 3, 5):
        folder = tmp_path / f"b{batch}"
        assert (
            train(folder, make_model(learnable_temperature=True), StopAt(batch), **options).status == STOPPED
        )
        model = make_model(seed=9, learnable_temperature=True)  # its weights come from the checkpoint alone
        again = train(folder, model, **options)
        assert next_draws() == draws
        assert_same(copy_of(model), copy_of(whole))
        assert_same(plain_rows(again.history), plain_rows(result.history))
        files = [load_checkpoint(tmp_path / name / "last.pth") for name in ("a", f"b{batch}")]
        assert_same(files[1]["optimizer"], files[0]["optimizer"])
        shutil.rmtree(folder)


def test_checkpointed_gradients_are_the_same(tmp_path: Path) -> None:
    plain, saving = make_model(), make_model()
    train(tmp_path / "a", plain, MemoryPairs())
    train(tmp_path / "b", saving, MemoryPairs(), grad_checkpointing=True)
    assert saving.face_encoder.is_gradient_checkpointing
    assert saving.audio_encoder.is_gradient_checkpointing
    # The same dropout as well: it is replayed.
    assert largest_difference(copy_of(saving), copy_of(plain)) < 1e-6


def test_bf16_trains_float32_weights(tmp_path: Path) -> None:
    plain, half = make_model(dropout=0.0), make_model(dropout=0.0)
    one = train(tmp_path / "a", plain)
    other = train(tmp_path / "b", half, precision="bf16")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    losses = [[row["train_loss"] for row in result.history] for result in (one, other)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_the_loss_falls_on_people_that_can_be_told_apart(tmp_path: Path) -> None:
    model = make_model(dropout=0.0, learnable_temperature=True)
    result = train(tmp_path, model, MemoryPairs(16, 4), num_epochs=25, batch_size=8, learning_rate=1e-2)
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < 0.5 * losses[0]


def test_a_learnt_temperature_moves_and_stays_within_its_bounds(tmp_path: Path) -> None:
    model = make_model(temperature=0.011, learnable_temperature=True)
    result = train(tmp_path / "a", model, num_epochs=3, learning_rate=0.5, warmup=0.0)
    seen = [row["temperature"] for row in result.history]
    assert all(0.01 - 1e-6 <= value <= 1 + 1e-6 for value in seen)
    assert len(set(seen)) > 1 or seen[0] in (pytest.approx(0.01), pytest.approx(1.0))
    fixed = make_model(temperature=0.07)
    train(tmp_path / "b", fixed, learning_rate=0.5)
    assert float(fixed.temperature) == pytest.approx(0.07)


def test_frozen_encoders_stay_as_they_are_without_dropout(tmp_path: Path) -> None:
    model = make_model(dropout=0.5)
    before = copy_of(model)
    modes: list[bool] = []

    def look(module: Any, inputs: Any) -> None:
        modes.append(any(part.training for part in module.modules()))

    for encoder in model.encoders():
        encoder.register_forward_pre_hook(look)
    train(tmp_path, model, freeze_encoders=True, grad_checkpointing=True)
    after = copy_of(model)
    assert set(modes) == {False}
    for name, value in before.items():
        is_projection = "projection." in name and "encoder." not in name
        assert torch.equal(after[name], value) == (not is_projection), name
    frozen = [p for encoder in model.encoders() for p in encoder.parameters()]
    assert all(parameter.grad is None for parameter in frozen)


def scales_of(model: FaceVoiceModel, **options: float) -> dict[str, tuple[float, float]]:
    """(factor on the learning rate, weight decay) by name; every trained parameter is in one group."""
    defaults = {"weight_decay": 0.1, "encoder_lr_scale": 1.0, "layer_decay": 1.0}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in parameter_groups(model, **(defaults | options)):  # type: ignore[arg-type]
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = (group["lr_scale"], group["weight_decay"])
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    return found


def test_learning_rates_fall_layer_by_layer_in_both_encoders() -> None:
    found = scales_of(make_model(learnable_temperature=True), encoder_lr_scale=0.1, layer_decay=0.5)
    expected = {
        "face_encoder.layernorm.": 0.1,
        "face_encoder.layers.1.": 0.1,
        "face_encoder.layers.0.": 0.05,
        "face_encoder.embeddings.": 0.025,
        "audio_encoder.encoder.layers.1.": 0.1,
        "audio_encoder.encoder.layers.0.": 0.05,
        # After the convolutions and before the layers, in the form without "stable" layer norm.
        "audio_encoder.encoder.layer_norm.": 0.025,
        "audio_encoder.encoder.pos_conv_embed.": 0.025,
        "audio_encoder.feature_projection.": 0.025,
        "audio_encoder.feature_extractor.": 0.025,
        "face_projection.": 1.0,
        "audio_projection.": 1.0,
        "log_temperature": 1.0,
    }
    for name, (scale, _) in found.items():
        prefix = next(prefix for prefix in expected if name.startswith(prefix))
        assert scale == pytest.approx(expected[prefix]), name
    assert all(any(name.startswith(prefix) for name in found) for prefix in expected)


def test_the_last_norm_of_a_stable_wav2vec2_counts_as_its_end() -> None:
    from small_training import wav2vec2_config

    from lc_pytorch.models.encoders import build_encoder

    settings = wav2vec2_config().to_diff_dict() | {"do_stable_layer_norm": True, "model_type": "wav2vec2"}
    model = FaceVoiceModel(8, face_model=make_model().face_encoder, voice_model=build_encoder(settings))
    found = scales_of(model, layer_decay=0.5)
    assert found["audio_encoder.encoder.layer_norm.weight"][0] == 1.0
    assert found["audio_encoder.encoder.layers.0.layer_norm.weight"][0] == 0.5


def test_biases_norms_and_the_temperature_do_not_decay() -> None:
    for name, (scale, decay) in scales_of(make_model(learnable_temperature=True)).items():
        assert scale == 1.0
        is_vector = name.endswith(".bias") or "norm" in name or name == "log_temperature"
        assert decay == (0.0 if is_vector else 0.1), name


def test_bad_items_are_replaced_counted_and_listed(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    pairs = MemoryPairs(bad=[2, 7])
    assert train(tmp_path, make_model(), pairs).status == DONE
    with (tmp_path / "bad_files.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["item"], row["files"], row["reason"]) for row in rows] == [
        (str(item), f"picture {item} with sound {item}", f"item {item}: no picture") for item in (2, 7)
    ]
    assert "2 pairs could not be read" in logged.text
    train(tmp_path / "good", make_model())
    assert not (tmp_path / "good" / "bad_files.csv").exists()


class FormulaPairs(MemoryPairs):
    """Pairs whose files have names that a spreadsheet would compute."""

    def describe(self, index: int, epoch: int | None = None) -> str:
        return f"=cmd{index}.jpg"


def test_bad_items_are_listed_safely_and_once_over_all_starts(tmp_path: Path) -> None:
    for num_epochs in (1, 2):
        config = {"num_epochs": num_epochs, "spreadsheet_safe": True}
        assert train(tmp_path, make_model(), FormulaPairs(bad=[2]), **config).status == DONE
    with (tmp_path / "bad_files.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["item", "files", "reason", "spreadsheet_safe"],
        ["2", "'=cmd2.jpg", "item 2: no picture", "1"],
    ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_of_bad_items_only_is_one_line_without_a_traceback(tmp_path: Path, num_workers: int) -> None:
    with pytest.raises(UserError, match="others drawn instead cannot be loaded") as refusal:
        train(tmp_path, make_model(), MemoryPairs(bad=range(12)), num_workers=num_workers)
    assert "Traceback" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert multiprocessing.active_children() == []  # though the error still holds the loader


def test_workers_change_nothing(tmp_path: Path) -> None:
    alone, helped = make_model(), make_model()
    train(tmp_path / "a", alone, MemoryPairs(bad=[3]))
    train(tmp_path / "b", helped, MemoryPairs(bad=[3]), num_workers=2)
    assert_same(copy_of(helped), copy_of(alone))


def test_a_set_smaller_than_the_batch_is_used_whole_and_one_of_one_is_refused(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    pairs = MemoryPairs(3)
    train(tmp_path / "a", make_model(), pairs, num_epochs=1)
    assert {index for index, _ in pairs.asked} == {0, 1, 2}
    assert "only 3 training pairs: batches of 3" in logged.text
    with pytest.raises(UserError, match="1 training pairs for 1 processes: too few"):
        train(tmp_path / "b", make_model(), MemoryPairs(1))
    with pytest.raises(UserError, match="too few for a batch of at least 4"):
        train(tmp_path / "c", make_model(), MemoryPairs(3), accum_freq=4)


def test_a_function_that_differs_between_the_two_passes_is_noticed(tmp_path: Path) -> None:
    model = make_model(dropout=0.0)
    own = torch.Generator().manual_seed(0)

    def shake(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return output + torch.rand(output.shape, generator=own)

    model.face_projection.register_forward_hook(shake)
    with pytest.raises(RuntimeError, match="the two passes of --accum_freq differ"):
        train(tmp_path, model, accum_freq=2)


def test_all_faults_of_the_settings_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        TrainConfig(
            save_dir=tmp_path,
            precision="fp16",
            batch_size=1,
            accum_freq=2,
            layer_decay=0.0,
            num_epochs=0,
            seed=-1,
        )
    for name in ("--precision", "--batch_size", "--accum_freq", "--layer_decay", "--num_epochs", "--seed"):
        assert name in str(refusal.value)


def test_other_settings_are_refused_on_going_on_and_harmless_ones_are_not(tmp_path: Path) -> None:
    train(tmp_path, make_model(), num_epochs=1)
    for name, value in {"batch_size": 6, "learning_rate": 1e-3, "seed": 1, "precision": "bf16"}.items():
        with pytest.raises(UserError, match=f"other settings .*{name} "):
            train(tmp_path, make_model(), num_epochs=1, **{name: value})
    free = {"num_epochs": 2, "num_workers": 1, "save_interval": 3, "checkpoint_interval": Interval(steps=7)}
    assert train(tmp_path, make_model(), **free).num_steps == 6
    with pytest.raises(UserError, match=r"weights of another|other settings"):
        train(tmp_path, make_model(norm="group"), num_epochs=3)


@pytest.mark.slow
def test_compiled_encoders_train_as_eager_ones(tmp_path: Path) -> None:
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("torch.compile needs a C compiler")
    eager, compiled = make_model(dropout=0.0), make_model(dropout=0.0)
    one = train(tmp_path / "a", eager, num_epochs=1)
    other = train(tmp_path / "b", compiled, num_epochs=1, compile=True)
    losses = [result.history[0]["train_loss"] for result in (one, other)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert set(copy_of(compiled)) == set(copy_of(eager))  # no names of wrappers in the files
