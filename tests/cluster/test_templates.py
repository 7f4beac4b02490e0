"""The scripts of slurm/: what they say of themselves, what they run, and how they end."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facevox_programs.jobs import PROGRAMS, TABLE

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((REPOSITORY / "slurm").glob("*.sbatch"))
NAMES = {
    *("extract_faces", "train_face_voice", "train_hq", "evaluate", "train_lipsync", "train_emotion"),
    *("extract_landmarks", "prepare"),
}
# Programs that SLURM has; each notes how it was called.
STUB = """#!/bin/bash
printf '%s\\0' {name} "$@" >> "$NOTES"; printf '\\n' >> "$NOTES"
{body}
"""
STUBS = {
    # Runs the command behind its options, as the one task of a step; in the background, as srun would.
    "srun": 'while [[ $1 == --* ]]; do shift; done\nSLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 exec "$@"',
    "scontrol": 'case "$*" in\n'
    "*hostnames*) echo node1 ;;\n"
    '*"show job"*) echo "JobId=1 JobState=${STATE:-RUNNING} Reason=None" ;;\n'
    'requeue*) kill -TERM "$PPID" ;;\nesac',
    "apptainer": 'while [[ $1 == exec || $1 == --* || $1 == *.sif || -d $1 ]]; do shift; done\nexec "$@"',
}


def headers(template: Path) -> dict[str, str]:
    lines = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", template.read_text(), re.MULTILINE)
    return dict(lines)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder with the stubs and a Python that notes what it should run, and ends as it is told."""
    for name, body in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(STUB.format(name=name, body=body))
        stub.chmod(0o755)
    python = tmp_path / "bin" / "python"
    python.write_text(
        "#!/bin/bash\n"
        f'if [[ $1 == -m ]]; then exec {shlex.quote(sys.executable)} "$@"; fi\n'
        'printf \'%s\\0\' program "$@" >> "$NOTES"; printf \'\\n\' >> "$NOTES"\n'
        'exit "${CODE:-0}"\n'
    )
    python.chmod(0o755)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "split.json").write_text("{}")
    return tmp_path


def run(cluster: Path, template: str, *arguments: str, **variables: str) -> Any:
    """(exit code, lines of stderr, calls) of a script, run as a job of one task."""
    notes = cluster / "notes"
    notes.unlink(missing_ok=True)
    environment = {
        "PATH": f"{cluster / 'bin'}:{os.environ['PATH']}",
        "HOME": str(cluster),
        "NOTES": str(notes),
        "PYTHON": str(cluster / "bin" / "python"),
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NTASKS": "1",
        "SLURM_CPUS_PER_TASK": "3",
    }
    answer = subprocess.run(
        ["bash", str(REPOSITORY / "slurm" / f"{template}.sbatch"), *arguments],
        cwd=cluster,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    calls = [line.split("\0")[:-1] for line in notes.read_text().splitlines()] if notes.exists() else []
    return answer.returncode, answer.stderr.splitlines(), calls


def programs(calls: list[list[str]]) -> list[list[str]]:
    return [call[1:] for call in calls if call[0] == "program"]


def test_there_is_a_script_for_each_long_job_and_a_folder_for_their_logs() -> None:
    assert {template.stem for template in TEMPLATES} == NAMES
    # SLURM opens the log before the script runs: the folder comes with the repository.
    assert (REPOSITORY / "logs" / "slurm" / ".gitkeep").is_file()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_headers_name_no_site_and_agree(template: Path) -> None:
    found = headers(template)
    assert not {"partition", "account", "qos", "nodelist", "constraint", "mail-user", "chdir"} & set(found)
    assert found["job-name"] == template.stem
    assert found["signal"] == "B:USR2@300"
    assert {"requeue", "time", "nodes", "ntasks-per-node", "cpus-per-task", "mem-per-cpu"} <= set(found)
    assert found["open-mode"] == "append"
    assert found["output"] == f"logs/slurm/%x-{'%A_%a' if 'array' in found else '%j'}.out"
    assert "set -euo pipefail" in template.read_text()


def test_scripts_are_clean_for_shellcheck() -> None:
    tool = Path(sys.executable).with_name("shellcheck")
    if not tool.exists():
        pytest.skip("shellcheck is not installed")
    files = sorted(map(str, (REPOSITORY / "slurm").iterdir()))
    answer = subprocess.run([str(tool), *files], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_script_runs_its_program_with_options_that_the_program_has(template: Path, cluster: Path) -> None:
    data = str(cluster / "data")
    (cluster / "data" / "train").mkdir()
    (cluster / "data" / "validation").mkdir()
    variables = {
        "DATA_DIR": data, "SAVE_DIR": f"{cluster}/made here", "IMAGE_FOLDER": data, "AUDIO_FOLDER": data,
        "MODEL_DIR": data,
    }  # fmt: skip
    code, errors, calls = run(cluster, template.stem, **variables)
    assert (code, errors) == (0, [])
    ((program, *arguments),) = programs(calls)
    (name,) = (name for name, file in PROGRAMS.items() if file == program)
    assert name in (template.stem, "prepare_faces")
    request = TABLE.request(name, arguments)
    assert request.output_dir == (data if template.stem == "evaluate" else f"{cluster}/made here")
    if request.takes("workers"):
        assert request.parsed.workers == 3


@pytest.mark.parametrize(
    ("program", "job"),
    [(name, name) for name in ("extract_faces", "extract_voices", "deduplicate_faces", "convert_mels")]
    + [(name, name) for name in ("process_lipsync", "clean_lipsync")]
    + [("preprocess_emotion", "preprocess_emotion")],
)
def test_prepare_runs_any_preprocessing_program_as_a_shard(cluster: Path, program: str, job: str) -> None:
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "3"}
    array |= {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_JOB_ID": "1"}
    lines = (REPOSITORY / ".env.example").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    code, errors, calls = run(
        cluster, "prepare", PROGRAM=program, DATA_DIR=str(cluster / "data"), **settings, **array
    )
    assert (code, errors) == (0, [])
    ((file, *arguments),) = programs(calls)
    assert file == PROGRAMS[job]
    parsed = TABLE.request(job, arguments).parsed
    assert (parsed.num_shards, parsed.shard_index) == (4, 1)


@pytest.mark.parametrize(
    ("template", "variables", "words"),
    [
        ("train_hq", {"DATASET_TYPE": "vox9"}, "'vox9' is not one of"),
        ("train_hq", {"DATA_DIR": "/no such folder"}, "/no such folder/split.json: there is no such file"),
        ("train_hq", {"PYTHON": "/no/python"}, "/no/python: not there; run make install"),
        ("train_hq", {"CONTAINER": "none.sif"}, "CONTAINER=none.sif: there is no such file"),
        ("train_hq", {"CONTAINER": "image:1"}, "this SLURM has no pyxis"),
        ("train_hq", {"SLURM_NTASKS": "1", "SLURM_GPUS_ON_NODE": "4"}, "--ntasks-per-node=4"),
        ("extract_faces", {"SLURM_NTASKS": "2"}, "extract_faces is one process"),
        ("extract_faces", {"SLURM_ARRAY_TASK_ID": "2"}, "SLURM_ARRAY_TASK_MIN"),
        ("extract_faces", {"DETECTOR": "eyes"}, "'eyes' is not one of"),
        ("evaluate", {"MODEL": "voice"}, "it should be face_voice or hq"),
        ("prepare", {"PROGRAM": "train"}, "it should be prepare_faces, extract_faces"),
        (
            "extract_landmarks",
            {"DATA_DIR": "/no such folder"},
            "--zips /no such folder: there is no such file",
        ),
        ("train_lipsync", {"CONFIG": "none.yaml"}, "--config none.yaml: there is no such file"),
        ("train_hq", {"SLURM_SUBMIT_DIR": "/"}, "submit from the root of the repository"),
    ],
)
def test_wrong_value_gives_one_line_and_nothing_is_started(
    cluster: Path, template: str, variables: dict[str, str], words: str
) -> None:
    array = {"SLURM_ARRAY_TASK_COUNT": "4"} if "SLURM_ARRAY_TASK_ID" in variables else {}
    defaults = {"DATA_DIR": str(cluster / "data")} | array
    code, errors, calls = run(cluster, template, **(defaults | variables))
    assert code == 2
    assert len(errors) == 1
    assert words in errors[0]
    assert programs(calls) == []


def test_wrong_option_gives_one_line(cluster: Path) -> None:
    code, errors, _ = run(cluster, "train_hq", "--bach_size", "3", DATA_DIR=str(cluster / "data"))
    assert code == 2
    assert len(errors) == 1
    assert "--bach_size" in errors[0]


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_exit_code_of_the_program_is_that_of_the_job(cluster: Path, code: int) -> None:
    ended, errors, calls = run(cluster, "train_hq", DATA_DIR=str(cluster / "data"), CODE=str(code))
    assert ended == code
    assert errors == []
    assert not any("requeue" in call for call in calls)


@pytest.mark.parametrize(
    ("variables", "job"),
    [({}, "1"), ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "3",
      "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_JOB_ID": "1"}, "1_0")],
)  # fmt: skip
def test_stopped_program_is_requeued_and_of_an_array_only_that_task(
    cluster: Path, variables: dict[str, str], job: str
) -> None:
    template = "extract_faces" if variables else "train_hq"
    _, _, calls = run(cluster, template, DATA_DIR=str(cluster / "data"), CODE="75", **variables)
    assert ["scontrol", "requeue", job] in calls


def test_a_job_that_is_asked_for_help_runs_nothing(cluster: Path) -> None:
    code, errors, calls = run(cluster, "evaluate", "--help")
    assert code == 0
    assert errors[0].startswith("usage: ")
    assert programs(calls) == []


@pytest.mark.parametrize("container", ["", "image.sif"])
def test_a_number_of_gpus_that_is_none_is_refused_in_one_line(cluster: Path, container: str) -> None:
    (cluster / "image.sif").write_bytes(b"")
    image = str(cluster / container) if container else ""
    code, errors, calls = run(
        cluster,
        "train_hq",
        DATA_DIR=str(cluster / "data"),
        CONTAINER=image,
        SLURM_GPUS_ON_NODE="x[$(touch y)]",
    )
    assert code == 2
    assert len(errors) == 1
    assert "SLURM_GPUS_ON_NODE" in errors[0]
    assert not list(REPOSITORY.glob("y")) + list(cluster.glob("y"))
    assert programs(calls) == []


def test_cancelled_job_is_not_requeued(cluster: Path) -> None:
    code, _, calls = run(cluster, "train_hq", DATA_DIR=str(cluster / "data"), CODE="75", STATE="CANCELLED")
    assert code == 75
    assert not any("requeue" in call for call in calls)


def test_apptainer_sees_the_repository_the_mounts_and_the_gpus(cluster: Path) -> None:
    (cluster / "image.sif").write_bytes(b"")
    data = cluster / "data"
    code, errors, calls = run(
        cluster, "train_hq", DATA_DIR=str(data), CONTAINER=str(cluster / "image.sif"),
        CONTAINER_MOUNTS=str(data), SLURM_GPUS_ON_NODE="1",
    )  # fmt: skip
    assert (code, errors) == (0, [])
    inside = [call for call in calls if call[0] == "apptainer"][-1]
    options = inside[: inside.index(str(cluster / "image.sif"))]
    assert "--nv" in options
    assert [options[at + 1] for at, word in enumerate(options) if word == "--bind"] == [
        str(REPOSITORY),
        str(data),
    ]
    assert len(programs(calls)) == 1


@pytest.mark.slurm
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_slurm_takes_the_script_as_it_is(slurm: Any, template: Path) -> None:
    answer = subprocess.run(
        ["sbatch", "--test-only", str(template.relative_to(REPOSITORY))],
        cwd=REPOSITORY, env=slurm.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "to start at" in answer.stderr
