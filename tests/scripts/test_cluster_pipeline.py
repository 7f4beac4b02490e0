"""pipeline.py without SLURM: the example is right, wrong files are refused, stages run in their order."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from facevox import cli
from facevox.cluster.pipeline import load_pipeline
from facevox.cluster.records import load_records
from facevox.errors import UserError
from facevox_programs.jobs import TABLE

STAGE = "stages: {a: {job: extract_voices, options: {dataset_path: '${videos}', output_dir: '${out}'}}}\n"
SETTINGS = "settings: {videos: ., out: x}\n"


@pytest.fixture
def script(load_script: Any) -> ModuleType:
    return load_script("cluster/pipeline")


def write(folder: Path, text: str) -> Path:
    file = folder / "pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_example_is_right_and_its_stages_are_in_order(repository: Path, tmp_path: Path) -> None:
    file = repository / "examples" / "pipeline.yaml"
    stages = load_pipeline(file, TABLE, {"videos": str(tmp_path), "out": "runs/a b"}, {"partition": "big"})
    names = [stage.name for stage in stages]
    assert sorted(names) == ["evaluate", "faces", "groups", "train", "voices"]
    for stage in stages:
        assert all(names.index(other) < names.index(stage.name) for other in stage.after)
        assert stage.resources.partition == "big"
        assert stage.request.output_dir.startswith("runs/a b/")
    by_name = {stage.name: stage for stage in stages}
    assert by_name["faces"].resources.shards == 4
    assert by_name["train"].request.parsed.num_epochs == 100
    assert by_name["train"].request.parsed.identity_csv == Path("runs/a b/groups/groups.csv")
    assert by_name["groups"].request.parsed.threshold == 0.4


def test_values_reach_the_programs_as_they_are(tmp_path: Path) -> None:
    odd = "한 글'\"; rm -rf $HOME\n-x"
    text = (
        "settings: {videos: ., out: x}\n"
        "stages: {a: {job: extract_faces, options: {dataset_path: '${videos}', output_dir: '${out}', "
        "video_extensions: ['*.mp4', '*.avi'], all_faces: true, align_faces: false, max_frames: 3}}}\n"
    )
    (stage,) = load_pipeline(write(tmp_path, text), TABLE, {"out": odd}, {})
    parsed = stage.request.parsed
    assert parsed.output_dir == Path(odd)
    assert parsed.video_extensions == ["*.mp4", "*.avi"]
    assert (parsed.all_faces, parsed.align_faces, parsed.max_frames) == (True, False, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: [", "not YAML"),
        ("", "no stages"),
        ("- a\n- b\n", "names with values are expected"),
        ("stagess: {}\n", "unknown: stagess; known: settings resources stages"),
        ("stages: {a: {jobs: x}}\n", "unknown: jobs; known: job after resources options"),
        ("stages: {a: {options: {}}}\n", "job is missing"),
        ("stages: {a: {job: nothing}}\n", "the jobs are: extract_faces"),
        (
            SETTINGS + STAGE.replace("${out}", "${elsewhere}"),
            "${elsewhere} is not a setting; the settings are: videos out",
        ),
        (SETTINGS + STAGE.replace("${out}", "100$"), "a single $ is written as $$"),
        (SETTINGS + STAGE.replace("output_dir:", "output_dirs:"), "--output_dir"),
        (SETTINGS + STAGE.replace("'${out}'", "{a: b}"), "neither a text nor a number"),
        (
            STAGE.replace("'${videos}'", "no/such/folder").replace("${out}", "x"),
            "no/such/folder: there is no such",
        ),
        (SETTINGS + STAGE.replace("job:", "after: [b], job:"), "after b: the stages are: a"),
        (SETTINGS + STAGE.replace("job:", "after: b, job:"), "a list of stages is expected"),
        (SETTINGS + STAGE.replace("job:", "after: [a], job:"), "wait for each other: a"),
        (SETTINGS + "resources: {gpu: 1}\n" + STAGE, "unknown: gpu; known: nodes gpus"),
        (SETTINGS + "resources: {time: 12:00:00}\n" + STAGE, "time: 43200 is no text in quotes"),
        (SETTINGS + "resources: {nodes: two}\n" + STAGE, "nodes: 'two' is no number"),
        (
            SETTINGS + "resources: {shards: 100000000}\n" + STAGE,
            "--shards: 100000000 is not a whole number from 1 to 100000",
        ),
        (SETTINGS + "resources: {nodes: 2}\n" + STAGE, "one process; --shards splits it"),
        ("a: !!python/object/apply:os.system [echo]\n", "not YAML"),
    ],
)
def test_wrong_file_is_refused_in_one_line(
    script: ModuleType, tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, log_dir = write(tmp_path, text), tmp_path / "logs"
    assert cli.run(script.main, [str(file), "--log_dir", str(log_dir)]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert said in shown
    assert not log_dir.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.yaml"], "there is no such file; examples/pipeline.yaml is one"),
        (["examples/pipeline.yaml", "--set", "videos"], "NAME=VALUE is expected"),
        (["examples/pipeline.yaml", "--set", "video=x"], "unknown: video; known: videos out"),
        (["examples/pipeline.yaml", "--set", "videos=/no such"], "/no such: there is no such file"),
    ],
)
def test_wrong_command_is_refused_in_one_line(
    script: ModuleType, words: list[str], said: str, repository: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(repository)
    assert cli.run(script.main, [*words, "--cluster", "local"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert said in shown


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = "stages: {a: {job: x}, b: {job: y}}\n"
    with pytest.raises(UserError, match=r"a: no job 'x'.*b: no job 'y'"):
        load_pipeline(write(tmp_path, text), TABLE, {}, {})


def test_stages_run_here_one_after_the_other_and_a_failed_one_ends_them(
    script: ModuleType, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "one.mp4").write_text("no video")
    text = """
settings: {videos: videos, out: out}
resources: {cpus: 1}
stages:
  split: {job: create_hq_split, after: [voices], options: {vox_dir: "${out}"}}
  voices: {job: extract_voices, options: {dataset_path: "${videos}", output_dir: "${out}", workers: 0}}
  never: {job: merge_manifests, after: [split], options: {output_dir: "${out}"}}
"""
    words = [str(write(tmp_path, text)), "--cluster", "local", "--log_dir", str(tmp_path / "logs")]
    words += ["--set", f"videos={tmp_path / 'videos'}", "--set", f"out={tmp_path / 'out'}"]
    assert cli.run(script.main, [*words, "--dry_run"]) == 0
    assert "split (after voices):" in capsys.readouterr().out
    assert not (tmp_path / "logs").exists()
    # In a process of its own: submitit starts its own from it, and handles signals there.
    command = [sys.executable, str(repository / "scripts" / "cluster" / "pipeline.py"), *words]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr  # the folder of voices is no HQ VoxCeleb
    records = load_records(tmp_path / "logs")
    assert [(record.stage, record.states()) for record in records] == [
        ("voices", ["some failed"]),
        ("split", ["failed"]),
    ]
