"""examples/pipeline.yaml from videos to scores: on SLURM, in parts, and on this machine, with one result."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from face_models import make_onnx
from real_slurm import RealSlurm, wait_until
from small_training import assert_same, plain_rows

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
THRESHOLD = "0.002"
SMALL = ("--mem-per-cpu=1G", "--time=10")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_onnx(tmp_path_factory.mktemp("embedder") / "model.onnx", num_values=40, batch="faces")


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, people: Path, encoders: Path, embedder: Path, repository: Path
) -> Path:
    """The example with resources for small machines; jobs, options and order are its own."""
    import yaml

    plain = yaml.safe_load((repository / "examples" / "pipeline.yaml").read_text())
    plain["resources"] = {"cpus": 1, "mem_gb": 2, "time": "15"}
    plain["settings"] |= {
        "videos": str(people / "videos"),
        "detector": "mediapipe",
        "embedder": str(embedder),
        "threshold": THRESHOLD,
        "face_model": str(encoders / "vit-tiny"),
        "voice_model": str(encoders / "wav2vec2-tiny"),
        "epochs": 2,
        "batch_size": 4,
    }
    file = tmp_path_factory.mktemp("pipeline") / "pipeline.yaml"
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def local(pipeline: Path, slurm: RealSlurm, repository: Path) -> Path:
    """The folder of a run on this machine."""
    folder = pipeline.with_name("local")
    words = ("--cluster", "local", "--set", f"out={folder}", "--log_dir", str(pipeline.with_name("records")))
    answer = run(slurm, repository, "scripts/cluster/pipeline.py", str(pipeline), *words)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return folder


def run(slurm: RealSlurm, repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = slurm.environment | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=repository, env=environment, capture_output=True, text=True, timeout=600
    )


def scores(model_dir: Path) -> dict[str, Any]:
    """What evaluation found, without where and when."""
    results = json.loads((model_dir / "evaluation_results.json").read_text())
    names = ("gallery", "face_to_voice", "voice_to_face", "verification", "tested")
    return {name: results[name] for name in names}


def assert_close(found: Any, expected: Any) -> None:
    """Numbers within 1e-5, all else equal."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)
    else:
        assert found == expected


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on where it was run."""
    model = folder / "model"
    return {
        "groups": (folder / "groups" / "groups.csv").read_text(),
        "rows": plain_rows(json.loads((model / "history.json").read_text())),
        "weights": torch.load(model / "full_model.pth", weights_only=True),
        "scores": scores(model),
        "queries": (model / "results.csv").read_text().replace(str(folder), ""),
    }


def test_slurm_gives_what_this_machine_gives(
    jobs: Any, pipeline: Path, local: Path, repository: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    words = (str(pipeline), "--log_dir", str(records), "--set", f"out={tmp_path / 'slurm'}")
    submitted = run(jobs.slurm, repository, "scripts/cluster/pipeline.py", *words)
    assert submitted.returncode == 0, submitted.stderr
    status = ("scripts/cluster/status.py", "--log_dir", str(records), "--json")
    first = json.loads(run(jobs.slurm, repository, *status).stdout)
    assert len(first) == 7  # five stages, and two that join shards
    assert "pending (Dependency)" in {state for row in first for state in row["states"]}
    wait_until(lambda: not jobs.slurm.ask("squeue", "--noheader"), "end of the pipeline", 400)
    shown = run(jobs.slurm, repository, *status)
    logs = "\n".join(file.read_text() for file in sorted(records.glob("*/*log.err")))
    rows = json.loads(shown.stdout)
    assert {state for row in rows for state in row["states"]} == {"done"}, f"{shown.stdout}\n{logs}"
    assert [len(row["states"]) for row in rows if row["job"].startswith("extract")] == [4, 4]
    text = " ".join(row["progress"] for row in rows)
    assert "extract_faces 40/40" in text
    assert "epoch 2/2" in text
    assert all(Path(row["log"]).is_file() for row in rows)
    assert_same(outcome(tmp_path / "slurm"), outcome(local))


def test_grouping_over_shards_of_an_array_is_that_of_one_process(
    jobs: Any, local: Path, embedder: Path, tmp_path: Path
) -> None:
    options = ("--model_name", str(embedder), "--threshold", THRESHOLD)
    folders = {"PROGRAM": "deduplicate_faces", "DATA_DIR": f"{local}/faces", "SAVE_DIR": f"{tmp_path}/g"}
    small = (*SMALL, "--cpus-per-task=1")
    shards = jobs.submit("slurm/prepare.sbatch", *options, options=(*small, "--array=0-2"), **folders)
    last = jobs.submit(
        "slurm/prepare.sbatch", *options,
        options=(*small, "--array=0", f"--dependency=afterok:{shards}"), **folders, NUM_SHARDS="1",
    )  # fmt: skip
    jobs.wait(last)
    expected = (local / "groups" / "groups.csv").read_text()
    assert (tmp_path / "g" / "faces" / "groups.csv").read_text() == expected


def test_evaluation_on_two_nodes_is_that_of_one_process(jobs: Any, local: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    kept = shutil.ignore_patterns("embeddings", "evaluation_results.json", "*.png", "*.csv")
    shutil.copytree(local / "model", model, ignore=kept)
    job = jobs.submit(
        "slurm/evaluate.sbatch",
        options=(*SMALL, "--nodes=2", "--cpus-per-task=1"),
        MODEL_DIR=str(model),
        IMAGE_FOLDER=str(local / "faces"),
        AUDIO_FOLDER=str(local / "voices"),
        IDENTITY_CSV=str(local / "groups" / "groups.csv"),
    )
    jobs.wait(job)
    # Two ranks embed other batches than one process: rounding, and the more so where similarities are level.
    found, expected = scores(model), scores(local / "model")
    assert found["gallery"] == expected["gallery"]
    assert found["tested"] == expected["tested"]
    assert_close(found, expected)
    tables = [read_rows(folder / "results.csv") for folder in (model, local / "model")]
    assert [row.keys() for row in tables[0]] == [row.keys() for row in tables[1]]
    assert len(tables[0]) == len(tables[1]) > 0
