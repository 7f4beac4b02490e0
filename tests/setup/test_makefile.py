"""The Makefile: what its targets call, with which arguments, and what it says about a missing folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

TARGETS = [
    "help", "install", "doctor", "demo", "test", "test-all", "test-cpus", "fuzz", "soak", "slurm-test",
    "check", "bench", "extract", "voices", "faces", "pairs", "train", "evaluate", "hq-split", "hq-train",
    "hq-evaluate", "lipsync-process", "lipsync-train", "lipsync-score", "lipsync-clean", "emotion-preprocess",
    "emotion-train", "emotion-run", "serve", "landmarks", "landmarks-train", "docker-build", "docker-run",
    "docker-test", "weights", "lock", "clean",
]  # fmt: skip


@pytest.fixture
def make(repository, tmp_path):
    """Runs make on a copy whose Python only notes what it was called with; returns (answer, calls)."""
    shutil.copy(repository / "Makefile", tmp_path)
    notes = tmp_path / "calls.jsonl"
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    note = tmp_path / "note.py"
    note.write_text(
        "import json, sys\n"
        f"with open({str(notes)!r}, 'a') as file: print(json.dumps(sys.argv[1:]), file=file)\n"
        "sys.exit('fails' in ' '.join(sys.argv))\n"
    )
    # Not by a first line that names the interpreter: such a line cannot hold a path with a space.
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(note))} "$@"\n')
    python.chmod(0o755)
    setup = tmp_path / "scripts" / "setup" / "install.sh"
    setup.parent.mkdir(parents=True)
    setup.write_text(f"exec '{python}' scripts/setup/install.py \"$@\"\n")

    def run(*arguments):
        notes.unlink(missing_ok=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        answer = subprocess.run(
            ["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        calls = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        return answer, calls

    return run


def test_help_is_the_default_target_and_lists_every_target(make, repository):
    answer, calls = make()
    assert answer.returncode == 0
    assert calls == []
    listed = re.findall(r"^  make (\S+) +\S", answer.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(TARGETS)


def test_train_and_evaluate_pass_their_values_on_and_ask_for_pairs(make):
    answer, calls = make("train", "IMAGES=/a b", "VOICES=/v", "GROUPS=/g$.csv", "EPOCHS=3", "OUT=/o")
    assert answer.returncode == 0, answer.stderr
    assert calls[-1] == [
        "scripts/training/train_face_voice.py", "--image_folder=/a b", "--audio_folder=/v", "--save_dir=/o",
        "--identity_csv=/g$.csv", "--num_epochs=3",
    ]  # fmt: skip
    answer, calls = make("train", "MATCHED=/my list.txt")
    assert calls[-1] == [
        "scripts/training/train_face_voice_from_matched_file.py", "--matched_file=/my list.txt",
        "--save_dir=runs/train",
    ]  # fmt: skip
    answer, calls = make("evaluate", "MATCHED=/l", "MODEL=/m", "METADATA=/p.csv")
    assert calls[-1] == [
        "scripts/evaluation/evaluate_face_voice.py", "--matched_file=/l", "--model_dir=/m",
        "--output_file=/m/results.csv", "--metadata=/p.csv",
    ]  # fmt: skip
    answer, calls = make("train", "IMAGES=/a")
    assert answer.returncode == 2
    assert "make train IMAGES=" in answer.stderr
    assert calls == []


def test_hq_targets_share_the_root_of_the_data(make):
    answer, calls = make("hq-split", "hq-train", "hq-evaluate", "VOX=/my vox", "TYPE=both")
    assert answer.returncode == 0, answer.stderr
    programs = [call for call in calls if call[0].startswith("scripts/hq/")]
    assert programs == [
        ["scripts/hq/create_hq_voxceleb_split.py", "--vox_dir=/my vox", "--output_json=/my vox/split.json"],
        ["scripts/hq/train_hq_voxceleb.py", "--split_json_path=/my vox/split.json", "--dataset_type=both",
         "--save_dir=runs/hq"],
        ["scripts/hq/evaluate_hq_voxceleb.py", "--model_dir=runs/hq"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "dataset",
    [
        "/my videos",
        "it's",
        'say "hi"',
        "cost $HOME $5",
        "a;touch x",
        "`id`",
        "$(y",
        "-dash",
        "한국어",
        "a*b",
        "#1",
        "a%b",
    ],
)
def test_any_folder_name_reaches_the_program_unchanged(make, dataset):
    answer, calls = make("extract", f"DATASET={dataset}", f"OUT={dataset}/out")
    assert answer.returncode == 0, answer.stderr
    assert calls[-1][:3] == [
        "scripts/preprocessing/extract_faces.py",
        f"--dataset_path={dataset}",
        f"--output_dir={dataset}/out",
    ]


def test_defaults_of_the_jobs(make):
    scripts = "scripts/preprocessing/"
    expected = {
        "extract": [
            "extract_faces.py", "--dataset_path=v", "--output_dir=runs/extract",
            "--detector_backend=mediapipe",
        ],
        "voices": ["extract_voices.py", "--dataset_path=v", "--output_dir=runs/voices"],
        "faces": [
            "prepare_faces.py", "--dataset_path=v", "--output_base_dir=runs/faces",
            "--detector_backend=mediapipe", "--model_name=Facenet",
        ],
        "pairs": [
            "create_matched_file.py", "--dataset_path=v", "--meta_path=m.json", "--output=runs/pairs",
            "--limit=100",
        ],
    }  # fmt: skip
    for target, (script, *options) in expected.items():
        answer, calls = make(target, "DATASET=v", "META=m.json")
        assert answer.returncode == 0, answer.stderr
        assert calls == [["scripts/setup/install.py"], [scripts + script, *options]]


def test_options_of_the_jobs_are_passed_on(make):
    _, calls = make("extract", "DATASET=v", "DETECTOR=opencv", "WORKERS=3")
    assert calls[-1][3:] == ["--detector_backend=opencv", "--workers=3"]
    _, calls = make(
        "faces", "DATASET=v", "MODEL=my model.onnx", "THRESHOLD=0.5", "DETECTOR=opencv", "WORKERS=0"
    )
    assert calls[-1][3:] == [
        "--detector_backend=opencv", "--model_name=my model.onnx", "--threshold=0.5", "--workers=0",
    ]  # fmt: skip
    _, calls = make("weights", "ONLY=Facenet vit")
    assert calls[-1] == ["scripts/setup/fetch_weights.py", "--only", "Facenet", "vit"]


def test_fuzzing_takes_minutes_seed_and_number(make):
    _, calls = make("fuzz")
    assert calls[-1] == ["tests/hostile/fuzz.py", "--output_dir=runs/fuzz"]
    _, calls = make("fuzz", "MINUTES=3", "SEED=7", "LIMIT=50", "OUT=found here")
    assert calls[-1][1:] == ["--output_dir=found here", "--minutes=3", "--seed=7", "--max_mutations=50"]


@pytest.mark.parametrize("target", ["extract", "voices", "faces", "pairs"])
def test_missing_dataset_is_one_line_before_any_set_up(make, target):
    answer, calls = make(target)
    assert (answer.returncode, calls, answer.stdout) == (2, [], "")
    assert answer.stderr.count("\n") == 1
    assert f"DATASET is missing: make {target} DATASET=" in answer.stderr


def test_missing_metadata_is_one_line(make):
    answer, calls = make("pairs", "DATASET=v")
    assert (answer.returncode, calls) == (2, [])
    assert answer.stderr.count("\n") == 1
    assert "META is missing" in answer.stderr


@pytest.mark.parametrize(
    ("given", "options"),
    [([], []), (["CUDA=1"], ["--torch", "cuda"]), (["CUDA=0"], ["--torch", "cpu"])],
)
def test_cuda_chooses_the_build_of_torch(make, given, options):
    _, calls = make("install", *given)
    assert calls == [["scripts/setup/install.py", *options]]


def test_make_test_leaves_four_markers_out_and_says_so(make):
    answer, calls = make("test")
    assert calls == [
        ["scripts/setup/install.py"],
        [
            *("-m", "pytest", "-n", "logical", "--maxprocesses", "4", "--dist", "loadfile"),
            *("-m", "not slow and not slurm and not container and not browser"),
        ],
    ]
    assert "slow slurm container browser" in answer.stdout
    assert "make test-all" in answer.stdout
    assert make("test-all")[1][-1] == ["-m", "pytest"]


def test_every_marker_that_make_test_leaves_out_is_declared(repository):
    markers = (repository / "pyproject.toml").read_text(encoding="utf-8")
    left_out = re.search(r"^LEFT_OUT := (.*)$", (repository / "Makefile").read_text("utf-8"), re.MULTILINE)
    for name in left_out[1].split():
        assert f'"{name}: ' in markers


def test_bench_runs_every_program_and_fails_when_one_fails(make, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for name in ("a_fails", "b"):
        (tmp_path / "benchmarks" / f"{name}.py").touch()
    answer, calls = make("bench")
    assert answer.returncode == 2
    assert calls[1:] == [["benchmarks/a_fails.py"], ["benchmarks/b.py"]]
    (tmp_path / "benchmarks" / "a_fails.py").unlink()
    assert make("bench")[0].returncode == 0


def test_failing_program_fails_make(make, tmp_path):
    assert make("extract", "DATASET=fails")[0].returncode == 2


def test_clean_keeps_the_environment_the_settings_and_the_results(make, tmp_path):
    for name in (
        "runs/extract/__pycache__/x",
        "pkg/__pycache__/x.pyc",
        ".mypy_cache/x",
        "a.egg-info/x",
        "build/x",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".env").touch()
    assert make("clean")[0].returncode == 0
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "Makefile", "note.py", ".env", ".venv/bin/python", "scripts/setup/install.sh",
        "runs/extract/__pycache__/x",
    }  # fmt: skip


def test_emotion_programs_get_their_values(make):
    _, calls = make("serve", "PORT=9000")
    assert calls[-1] == ["emotion/server.py", "--server_port=9000"]
    _, calls = make("emotion-run", "MODE=video", "DATASET=/my clip.mp4", "OUT=/o")
    assert calls[-1] == [
        *("emotion/run_model.py", "--test_mode=video", "--input_path=/my clip.mp4", "--output_dir=/o")
    ]
    answer, calls = make("landmarks")
    assert answer.returncode == 2
    assert "ZIPS is missing" in answer.stderr
    assert calls == []
    _, calls = make("landmarks", "landmarks-train", "ZIPS=/a b.zip", "LANDMARKS=/l", "LIMIT=5", "OUT=/o")
    assert calls[-2:] == [
        ["emotion/landmarks/extract.py", "--zips=/a b.zip", "--output_dir=/l", "--limit=5"],
        [
            *("emotion/landmarks/train.py", "--landmarks_dir=/l", "--save_dir=/o"),
            *("--class_names", "neutral", "anxiety"),
        ],
    ]
