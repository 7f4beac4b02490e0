"""HQ VoxCeleb from split to scores, through the programs, on example people."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo_processes import run_ranks
from small_training import assert_same, write_encoders

from facevox import cli
from facevox.training.distributed import World
from facevox.training.run_folder import run_folder
from lc_pytorch.hq.training import HQConfig, train_hq_voxceleb

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoders(tmp_path_factory.mktemp("encoders"), dropout=0.0)[0]


@pytest.fixture(scope="module")
def tree(example_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: splits are written into it."""
    root = tmp_path_factory.mktemp("data") / "HQVoxCeleb"
    shutil.copytree(example_data_dir / "hq", root)
    return root


def make_split(load_script: Any, tree: Path, name: str, **options: object) -> Path:
    split = tree / name
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    making = ["--vox_dir", str(tree), "--output_json", str(split), *words]
    assert cli.run(load_script("hq/create_hq_voxceleb_split").main, making) == 0
    return split


def options_for(split: Path, vit: Path, save_dir: Path, *more: str) -> list[str]:
    return [
        *("--split_json_path", str(split), "--dataset_type", "both", "--save_dir", str(save_dir)),
        *("--face_model", str(vit), "--embedding_dim", "8", "--batch_size", "4", "--num_epochs", "2"),
        *("--num_workers", "0", "--force_cpu", *more),
    ]


def test_missing_split_names_the_program_that_makes_it(
    load_script: Any, vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = load_script("hq/train_hq_voxceleb")
    options = options_for(tmp_path / "split.json", vit, tmp_path / "model")
    assert cli.run(training.main, options) == 2
    said = capsys.readouterr().err
    assert "create_hq_voxceleb_split.py" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("pooling", [pytest.param("flatten", marks=pytest.mark.slow), "attentive"])
def test_split_training_and_evaluation_leave_what_the_document_lists(
    load_script: Any, tree: Path, vit: Path, tmp_path: Path, pooling: str
) -> None:
    split = make_split(load_script, tree, "split.json", val_ratio=0.25, test_ratio=0.25)
    model = tmp_path / "model"
    training = load_script("hq/train_hq_voxceleb")
    assert cli.run(training.main, options_for(split, vit, model, "--mel_pooling", pooling)) == 0
    files = {file.name for file in model.iterdir()}
    expected = {"face_encoder.pth", "face_projection.pth", "audio_projection.pth", "full_model.pth"}
    expected |= {"best_model.pth", "config.json", "history.json", "last.pth", "events", "curves.png"}
    assert expected | {"split.json", "MODEL_CARD.md", "log.txt"} <= files
    assert ("audio_encoder.pth" in files) == (pooling != "flatten")
    evaluation = load_script("hq/evaluate_hq_voxceleb")
    assert cli.run(evaluation.main, ["--model_dir", str(model), "--force_cpu"]) == 0
    results = json.loads((model / "evaluation_results.json").read_text())
    tested = set(results["tested"]["identities"])
    own = json.loads((model / "split.json").read_text())
    assert tested == set(own["test"])
    assert not tested & {*own["train"], *own["val"]}
    # Finished: the same command has nothing left to do, and the scores stay.
    assert cli.run(training.main, options_for(split, vit, model, "--mel_pooling", pooling)) == 0
    assert (model / "evaluation_results.json").is_file()


def test_nobody_to_validate_on_ends_nothing_and_is_said(
    load_script: Any, tree: Path, vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = make_split(load_script, tree, "without_val.json", val_ratio=0, test_ratio=0.25)
    assert cli.run(load_script("hq/train_hq_voxceleb").main, options_for(split, vit, tmp_path / "m")) == 0
    assert "known by its training loss" in capsys.readouterr().out
    assert (tmp_path / "m" / "best_model.pth").is_file()


def test_split_with_people_in_other_parts_is_not_mixed_with_a_run(
    load_script: Any, tree: Path, vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios = {"val_ratio": 0.25, "test_ratio": 0.25}
    splits = [make_split(load_script, tree, f"{seed}.json", seed=seed, **ratios) for seed in range(1, 6)]
    parts = [[json.loads(split.read_text())[name] for name in ("vox1", "vox2")] for split in splits]
    first, second = (
        splits[0],
        next(split for split, lists in zip(splits, parts, strict=True) if lists != parts[0]),
    )
    training, model = load_script("hq/train_hq_voxceleb"), tmp_path / "model"
    assert cli.run(training.main, options_for(first, vit, model)) == 0
    capsys.readouterr()
    assert cli.run(training.main, options_for(second, vit, model, "--num_epochs", "3")) == 2
    assert "other parts than the run there" in capsys.readouterr().err


def train_on_rank(world: World, split: str, vit: str, save_dir: str) -> dict[str, torch.Tensor]:
    """What every process runs; the batch of all has four people."""
    config = HQConfig(
        save_dir=Path(save_dir), split_json_path=Path(split), dataset_type="both", face_model=vit,
        embedding_dim=8, batch_size=4 // world.size, num_epochs=2, learnable_temperature=True,
    )  # fmt: skip
    with run_folder(config.save_dir):
        train_hq_voxceleb(config, world)
    weights: dict[str, torch.Tensor] = torch.load(config.save_dir / "full_model.pth", weights_only=True)
    return weights


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(
    load_script: Any, tree: Path, vit: Path, tmp_path: Path
) -> None:
    split = make_split(load_script, tree, "ranks.json", val_ratio=0.25, test_ratio=0.25)
    one = train_on_rank(World(device=torch.device("cpu")), str(split), str(vit), str(tmp_path / "one"))
    folder = tmp_path / "ranks"
    folder.mkdir()
    two = run_ranks(train_on_rank, 2, folder, str(split), str(vit), str(tmp_path / "two"))
    assert_same(two[0], two[1])
    # Biases of keys have no gradient but rounding, which Adam blows up to a whole step.
    names = [name for name in one if "k_proj.bias" not in name and "key.bias" not in name]
    largest = max(float((one[name] - two[0][name]).abs().max()) for name in names)
    assert largest < 1e-4
