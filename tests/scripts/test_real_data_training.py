"""Training and evaluation on real people, end to end; far too few for the scores to mean anything."""

import json
from pathlib import Path

import pytest

from facevox import cli
from facevox.training.history import HISTORY_FILE
from facevox_demo.tiny_encoders import write_tiny_encoders

pytestmark = pytest.mark.real_data
QUICK = [
    "--num_epochs",
    "2",
    "--batch_size",
    "8",
    "--embedding_dim",
    "16",
    "--num_workers",
    "0",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_encoders(tmp_path_factory.mktemp("encoders"), image_size=32)


@pytest.mark.slow
def test_vox_tree_is_listed_trained_on_and_evaluated(
    load_script, real_data_dir: Path, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    vox, lists, model = real_data_dir / "vox", tmp_path / "lists", tmp_path / "model"
    listing = ["-d", str(vox / "train"), "-m", str(vox / "voxceleb2-dev.json"), "-o", str(lists), "-l", "1"]
    assert cli.run(load_script("preprocessing/create_matched_file").main, listing) == 0
    pairs = ["--matched_file", str(lists / "matched_files-0.txt")]
    training = load_script("training/train_face_voice_from_matched_file")
    names = ["--face_model", str(encoders[0]), "--voice_model", str(encoders[1])]
    options = [*pairs, "--save_dir", str(model), *names, "--audio_duration_sec", "1", *QUICK]
    assert cli.run(training.main, options) == 0
    assert len(json.loads((model / HISTORY_FILE).read_text())) == 2
    evaluation = load_script("evaluation/evaluate_face_voice")
    output = str(tmp_path / "results.csv")
    assert cli.run(evaluation.main, [*pairs, "--model_dir", str(model), "--output_file", output]) == 0
    results = json.loads((model / "evaluation_results.json").read_text())
    auc = results["verification"]["all"]["auc"]
    assert results["gallery"]["identities"] >= 2
    # So few people tell nothing, and the interval says so.
    assert auc["low"] is None or auc["high"] - auc["low"] > 0.2


def test_hq_tree_is_split_trained_on_and_evaluated_over_both_parts(
    load_script, real_data_dir: Path, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    import shutil

    tree, model = tmp_path / "hq", tmp_path / "model"
    shutil.copytree(real_data_dir / "hq" / "derived", tree)
    split = str(tree / "split.json")
    making = ["--vox_dir", str(tree), "--output_json", split, "--test_ratio", "0.3", "--val_ratio", "0.2"]
    assert cli.run(load_script("hq/create_hq_voxceleb_split").main, making) == 0
    assert cli.run(load_script("hq/create_hq_voxceleb_split").main, ["--audit", split]) == 0
    training = load_script("hq/train_hq_voxceleb")
    options = ["--split_json_path", split, "--dataset_type", "both", "--save_dir", str(model), *QUICK]
    assert cli.run(training.main, [*options, "--face_model", str(encoders[0])]) == 0
    assert not (model / "audio_encoder.pth").exists()
    assert (model / "audio_projection.pth").exists()
    evaluation = load_script("hq/evaluate_hq_voxceleb")
    assert cli.run(evaluation.main, ["--model_dir", str(model), "--force_cpu"]) == 0
    results = json.loads((model / "evaluation_results.json").read_text())
    assert results["gallery"]["identities"] >= 2
    assert (model / "results.csv").stat().st_size > 0
