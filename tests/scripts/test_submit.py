"""submit.py without SLURM: what it refuses, what it would submit, and jobs that run on this machine."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from facevox import cli
from facevox.cluster.job import MERGE, RUN_AGAIN
from facevox.cluster.jobs import ProgramTable, job_of
from facevox.cluster.plan import check_allocation, shard_of_task
from facevox.cluster.progress import GONE, current_states
from facevox.cluster.records import RUNNING, Record, find_record, load_record, load_records, new_folder
from facevox.cluster.resources import Resources, parse_minutes
from facevox.cluster.submission import Submission, exit_code_of, unfinished
from facevox.cluster.submission import submit as submit_job
from facevox.errors import ExitCode, UserError
from facevox.files import read_json, write_json
from facevox_programs.jobs import PROGRAMS, TABLE

SIGINT_HANDLER = signal.getsignal(signal.SIGINT)  # a pytest in the background ignores Ctrl-C from its start


@pytest.fixture
def submit(load_script: Any) -> ModuleType:
    return load_script("cluster/submit")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with two files that are no videos: quick work, of which all fails."""
    folder = tmp_path / "my 'videos'"
    folder.mkdir()
    for name in ("one.mp4", "두 번째 two.mp4"):
        (folder / name).write_text("no video")
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize("name", PROGRAMS)
def test_jobs_know_options_that_their_programs_have(name: str, repository: Path) -> None:
    program = TABLE.load(name)
    job, options = job_of(program), program.get_args_parser()._option_string_actions
    assert {f"--{option}" for option in job.inputs} <= set(options)
    assert callable(job.output) or f"--{job.output}" in options
    assert ("--num_shards" in options) == (job.join in (MERGE, RUN_AGAIN))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "a job is missing after --"),
        (("--nodes", "2", "train_hq"), "a job is missing after --"),
        (("--", "train_hqq"), "the jobs are: extract_faces"),
        (("--", "train_hq"), "--save_dir"),
        (("--", "train_hq", "--save_dir", "x", "--bach_size", "3"), "--bach_size"),
        (("--", "train_hq", "--save_dir", "x", "--dataset_type", "vox3"), "not one of vox1, vox2, both"),
        (
            ("--", "train_hq", "--save_dir", "x", "--split_json_path", "no.json"),
            "no.json: there is no such file",
        ),
        (("--tasks_per_node", "2", "--", "extract_voices", "--output_dir", "x"), "--shards splits it"),
        (("--nodes", "0", "--", "extract_voices", "--output_dir", "x"), "--nodes"),
        (("--shards", "2", "--", "create_hq_split"), "cannot be split; these can: extract_faces"),
        (
            ("--shards", "2", "--", "extract_voices", "--output_dir", "x", "--num_shards", "3"),
            "--shards sets that",
        ),
        (("--time", "soon", "--", "extract_voices", "--output_dir", "x"), "--time: 'soon' is not minutes"),
        (("--partition", "gpu", "--", "extract_voices", "--output_dir", "x"), "only for --cluster slurm"),
        (("--cluster", "moon", "--", "train_hq"), "not one of slurm, local, debug"),
        (("--after", "nobody", "--", "extract_voices", "--output_dir", "x"), "no such submission"),
    ],
)
def test_bad_request_is_refused_in_one_line_and_leaves_nothing(
    submit: ModuleType, media: Path, tmp_path: Path, words: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_dir = tmp_path / "logs"
    words = list(words)
    if "extract_voices" in words:
        words += ["--dataset_path", str(media)]
    arguments = ["--cluster", "local", "--log_dir", str(log_dir), *words]
    assert cli.run(submit.main, arguments) == 2
    assert said in one_line(capsys)
    assert not log_dir.exists()


def test_several_nodes_are_for_slurm(submit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(submit.main, ["--cluster", "local", "--nodes", "2", "--", "train_lipsync"]) == 2
    assert "--cluster local has one" in one_line(capsys)


def test_slurm_that_is_not_there_is_said(
    submit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.run(submit.main, ["--", "train_lipsync"]) == 2
    assert "--cluster local runs on this machine" in one_line(capsys)


def test_slurm_that_does_not_answer_is_said(
    submit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert cli.run(submit.main, ["--", "train_lipsync"]) == 2
    assert "no SLURM cluster answers; --cluster local runs on this machine" in one_line(capsys)


def test_dry_run_shows_each_shard_and_writes_nothing(
    submit: ModuleType, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ["extract_voices", "--dataset_path", str(media), "--output_dir", str(tmp_path / "out")]
    own = ["--cluster", "local", "--shards", "2", "--cpus", "3", "--log_dir", str(tmp_path / "logs")]
    assert cli.run(submit.main, [*own, "--dry_run", "--", *job]) == 0
    shown = capsys.readouterr().out
    for index in range(2):
        assert f"extract_voices [{index}/2]" in shown
        assert f"'--num_shards=2', '--shard_index={index}'" in shown
    assert "'--workers=3'" in shown
    assert not (tmp_path / "logs").exists()


def test_shards_run_here_are_joined_and_waited_for(
    submit: ModuleType, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In processes of their own; items that failed end nothing, and the exit code says so."""
    out, log_dir = tmp_path / "out", tmp_path / "logs"
    job = ["extract_voices", "--dataset_path", str(media), "--output_dir", str(out), "--workers=0"]
    own = ["--cluster", "local", "--cpus", "1", "--log_dir", str(log_dir)]
    assert cli.run(submit.main, [*own, "--shards", "2", "--", *job]) == 1
    assert (out / "voices.csv").read_text(encoding="utf-8").count("failed") == 2
    shards, join = load_records(log_dir)
    assert [shards.states(), join.states()] == [["some failed"] * 2, ["some failed"]]
    assert join.after == [shards.name]
    assert "0 done, 1 failed" not in capsys.readouterr().err
    later = ["merge_manifests", "--output_dir", str(out)]
    assert cli.run(submit.main, [*own, "--after", join.name, "--", *later]) == 1
    assert find_record(log_dir, load_records(log_dir)[-1].job_ids[0]) == load_records(log_dir)[-1]


def test_debug_counts_relative_paths_from_the_repository(tmp_path: Path, repository: Path) -> None:
    submit_file = repository / "scripts" / "cluster" / "submit.py"
    videos = os.path.relpath(tmp_path, repository)
    own = ["--cluster", "debug", "--log_dir", str(tmp_path / "logs")]
    job = ["extract_voices", "--dataset_path", videos, "--output_dir", str(tmp_path / "out"), "--dry_run"]
    (tmp_path / "a.mp4").write_bytes(b"")
    answer = subprocess.run(
        [sys.executable, str(submit_file), *own, "--", *job],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    (record,) = load_records(tmp_path / "logs")
    assert record.states() == ["done"]


def test_job_that_fails_stops_what_comes_after_it(
    submit: ModuleType, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_dir = tmp_path / "logs"
    job = ["create_hq_split", "--vox_dir", str(tmp_path)]
    program = [sys.executable, "scripts/cluster/submit.py", "--cluster", "debug", "--log_dir", str(log_dir)]
    answer = subprocess.run(
        [*program, "--", *job], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 2
    (record,) = load_records(log_dir)
    assert record.states() == ["failed"]
    after = ["--cluster", "local", "--log_dir", str(log_dir), "--after", record.name, "--", *job]
    assert cli.run(submit.main, after) == 2
    assert "it is failed" in one_line(capsys)


CRASHING_PROGRAM = """
import argparse, sys
from facevox import cli
from facevox.cluster.job import Job
JOB = Job(is_some_failed_done=True)
def get_args_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir")
    return parser
def main(argv=None):
    return {}[0]
if __name__ == "__main__":
    sys.exit(cli.run(main))
"""


def test_the_join_of_shards_allows_as_many_failures_as_they_do(repository: Path, tmp_path: Path) -> None:
    options = [f"--dataset_path={tmp_path}", f"--output_dir={tmp_path / 'out'}", "--max_failed=0.25"]
    join = TABLE.request("extract_faces", options).join_request()
    assert join.parsed.max_failed == 0.25


def test_program_that_crashes_is_no_program_of_which_some_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crash.py").write_text(CRASHING_PROGRAM)
    request = ProgramTable({"crash": "crash.py"}, tmp_path).request("crash", ["--output_dir", "x"])
    resources = Resources(cluster="local", cpus=1)
    (one,) = submit_job(
        Submission(request=request, resources=resources, root=tmp_path, log_dir=tmp_path / "logs")
    )
    assert (one.record.states(), one.record.read_state(0)["exit_code"]) == (["failed"], 70)
    assert exit_code_of(one.record) == ExitCode.FAULT
    with pytest.raises(UserError, match="it is failed"):
        unfinished([one.record], "local")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((0, 0), 0), ((0, 1), 1), ((1, 70), 70), ((1, -9), 70), ((70, 2), 2), ((0, 75), 75), ((1, None), 75)],
)
def test_exit_code_of_parts_is_that_of_the_worst(codes: Any, expected: int, tmp_path: Path) -> None:
    record = make_record(tmp_path, shards=2)
    for shard, code in enumerate(codes):
        write_json(record.state_file(shard), {"state": "x", "exit_code": code})
    assert exit_code_of(record) == expected


def make_record(folder: Path, **changes: Any) -> Record:
    values: dict[str, Any] = {"job": "extract_voices", "arguments": [], "cluster": "local"}
    values |= {"root": folder, "output_dir": "out"}
    record = Record(folder=new_folder(folder / "logs", "extract_voices"), **(values | changes))
    record.write()
    return record


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("is_started", [True, False])
def test_waiting_for_a_killed_job_of_this_machine_ends_in_one_line(
    submit: ModuleType, media: Path, tmp_path: Path, is_started: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed itself, or waiting for its turn when the process that submitted it was killed."""
    pid = ended_process()
    record = make_record(tmp_path, **({"job_ids": [str(pid)]} if is_started else {"pid": pid}))
    if is_started:
        write_json(record.state_file(0), {"state": RUNNING, "exit_code": None, "num_starts": 1})
    job = ["extract_voices", "--dataset_path", str(media), "--output_dir", str(tmp_path / "out")]
    own = ["--cluster", "local", "--log_dir", str(tmp_path / "logs"), "--after", record.name]
    assert cli.run(submit.main, [*own, "--", *job]) == 2
    assert f"--after {record.name}: it is gone" in one_line(capsys)
    assert len(load_records(tmp_path / "logs")) == 1


def test_job_is_gone_only_where_its_process_can_be_looked_at(tmp_path: Path) -> None:
    pid = str(ended_process())
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        records = [
            make_record(tmp_path, job_ids=[pid]),
            make_record(tmp_path, job_ids=[pid], host="another machine"),
            make_record(tmp_path, job_ids=[str(running.pid)]),
            make_record(tmp_path),  # submitted by this process, not yet begun
        ]
        assert current_states(records) == [[GONE], ["waiting"], ["waiting"], ["waiting"]]
        running.kill()
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        assert current_states(records[2:3]) == [[GONE]]
    finally:
        running.kill()
        running.communicate()


def test_record_without_a_process_is_read_and_never_gone(tmp_path: Path) -> None:
    record = make_record(tmp_path, job_ids=[str(ended_process())])
    content = read_json(record.folder / "record.json")
    write_json(
        record.folder / "record.json",
        {name: content[name] for name in content.keys() - {"host", "pid", "submitted_at"}},
    )
    assert current_states(load_records(tmp_path / "logs")) == [["waiting"]]


def test_records_of_one_second_stay_in_order(tmp_path: Path) -> None:
    names = [make_record(tmp_path).name for _ in range(8)]
    assert [record.name for record in load_records(tmp_path / "logs")] == names


CLOSED_BY_NOBODY = """
import io, logging, sys
from pathlib import Path
from facevox.cluster import jobs
from facevox.cluster.resources import Resources
from facevox.cluster.submission import Submission, make_executor
class Handler(logging.StreamHandler):
    def close(self):
        self.stream.close()  # as absl's does
log = io.StringIO()
logging.getLogger("ours").addHandler(Handler(log))
root = Path(sys.argv[1])
request = jobs.ProgramTable({"slow": "slow.py"}, root).request("slow", ["--output_dir", str(root)])
resources = Resources(cluster="local", gpus=0, cpus=1)
make_executor(Submission(request=request, resources=resources, root=root, log_dir=root), root / "job")
logging.getLogger("ours").error("heard")
assert log.getvalue().strip() == "heard"
"""


def test_submitting_closes_no_log_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_PROGRAM)
    words = [sys.executable, "-c", CLOSED_BY_NOBODY, str(tmp_path)]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr


# Ends in good order, as our programs do, at the first signal.
SLOW_PROGRAM = """
import argparse, signal, sys, time
from pathlib import Path
from facevox.cluster.job import Job
JOB = Job()
def get_args_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir")
    return parser
if __name__ == "__main__":
    folder = Path(get_args_parser().parse_args().output_dir)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: sys.exit(75))
    (folder / f"started-{len(list(folder.glob('started-*')))}").touch()
    if len(list(folder.glob("started-*"))) < 3 or (folder / "wait").exists():
        time.sleep(600)
"""
SUBMIT_SLOW = """
import sys
from pathlib import Path
from facevox.cluster import jobs
from facevox.cluster.resources import Resources
from facevox.cluster.submission import Submission, exit_code_of, submit
root, log_dir = Path(sys.argv[1]), Path(sys.argv[2])
request = jobs.ProgramTable({"slow": "slow.py"}, root).request("slow", ["--output_dir", str(root)])
resources = Resources(cluster="local", gpus=0, cpus=1, time=sys.argv[3])
(one,) = submit(Submission(request=request, resources=resources, root=root, log_dir=log_dir))
print(one.record.states(), one.record.read_state(0)["num_starts"])
sys.exit(exit_code_of(one.record))
"""


def test_local_job_that_is_told_to_stop_stops_in_good_order(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMIT_SLOW, str(tmp_path), str(tmp_path / "logs"), "60"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end_s = time.monotonic() + 120
        while not (tmp_path / "started-0").exists():
            assert time.monotonic() < end_s
            time.sleep(0.05)
        process.terminate()
        shown, _ = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    assert process.returncode == 75
    assert shown.strip() == "['stopped'] 1"
    assert not (tmp_path / "started-1").exists()


@pytest.mark.slow
def test_local_job_is_begun_again_at_its_time_limit_until_it_is_done(tmp_path: Path) -> None:
    """The shortest limit is a minute, half of it the time for saving."""
    (tmp_path / "slow.py").write_text(SLOW_PROGRAM)
    words = [sys.executable, "-c", SUBMIT_SLOW, str(tmp_path), str(tmp_path / "logs"), "1"]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert (answer.returncode, answer.stdout.strip()) == (0, "['done'] 3")
    assert len(list(tmp_path.glob("started-*"))) == 3


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 90),
        ("1:30:00", 90),
        ("2-0", 2880),
        ("1-2:30", 1590),
        ("0-0:1:0", 1),
        ("0:20", 1),
    ],
)
def test_times_are_read_as_sbatch_reads_them(text: str, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "soon", "0", "-5", "1:2:3:4", "1-", "1e3", "12:00:00; rm"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="minutes"):
        parse_minutes(text)


def test_all_faults_of_the_resources_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Resources(cluster="moon", nodes=0, cpus=0, time="x")
    assert [name in str(caught.value) for name in ("--cluster", "--nodes", "--cpus", "--time")] == [True] * 4


def test_processes_gpus_and_memory_follow_the_kind_of_job(tmp_path: Path, repository: Path) -> None:
    train = TABLE.request("train_hq", ["--save_dir=x"], is_later=True)
    emotion = TABLE.request("train_emotion", [], is_later=True)
    faces = TABLE.request("extract_faces", ["--dataset_path=x", "--output_dir=y"], is_later=True)
    eight = Resources(gpus=8, nodes=2)
    assert (eight.num_tasks(train), eight.memory_gb(train)) == (8, 128)
    assert (eight.num_tasks(emotion), eight.num_gpus(emotion)) == (1, 8)
    plain = Resources()
    assert [plain.num_gpus(request) for request in (train, emotion, faces)] == [1, 1, 0]
    with pytest.raises(UserError, match="one task for each GPU, 8"):
        Resources(gpus=8, tasks_per_node=2).check(train)


def array(index: int, first: int, last: int, count: int, **more: str) -> dict[str, str]:
    values = {"ID": index, "MIN": first, "MAX": last, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()} | more


@pytest.mark.parametrize(
    ("environment", "shards_before", "expected"),
    [
        ({}, 0, (0, 1)),
        (array(2, 0, 3, 4), 0, (2, 4)),
        (array(2, 0, 3, 4), 8, "started with 8 shards, not 4: use --array=0-7 for all of them, NUM_SHARDS=8"),
        (array(2, 0, 3, 4, NUM_SHARDS="8"), 8, (2, 8)),  # a part of what was begun in eight
        (array(2, 0, 3, 4), 2, "started with 2 shards, not 4: .* NUM_SHARDS=4 to split the rest again"),
        (array(2, 0, 3, 4, NUM_SHARDS="4"), 2, (2, 4)),  # another split
        (array(2, 0, 3, 4), 4, (2, 4)),  # the whole again
        (array(2, 0, 7, 3), 8, (2, 8)),
        (array(2, 2, 2, 1), 4, (2, 4)),
        (array(0, 0, 0, 1), 4, (0, 4)),
        (array(3, 1, 3, 2), 4, (3, 4)),
        (array(3, 1, 4, 4, NUM_SHARDS="4"), 0, (2, 4)),  # numbered from 1
        (array(2, 2, 2, 1, NUM_SHARDS="4"), 0, (2, 4)),
        (array(0, 0, 0, 1, NUM_SHARDS="1"), 4, (0, 1)),
        (array(2, 2, 2, 1), 0, "NUM_SHARDS"),
        (array(4, 4, 4, 1, NUM_SHARDS="4"), 0, "numbered 0 to 3"),
        (array(0, 0, 3, 4, NUM_SHARDS="many"), 0, "NUM_SHARDS: 'many'"),
    ],
)
def test_shard_of_an_array_task(
    environment: dict[str, str], shards_before: int, expected: Any, tmp_path: Path, repository: Path
) -> None:
    for shard in range(shards_before):
        file = tmp_path / "manifests" / f"extract_faces.shard-{shard:04d}-of-{shards_before:04d}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    request = TABLE.request("extract_faces", ["--dataset_path=x", f"--output_dir={tmp_path}"], is_later=True)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            shard_of_task(environment, request)
    else:
        assert shard_of_task(environment, request) == expected


def test_tasks_that_do_not_fit_the_gpus_or_the_nodes_are_refused(repository: Path) -> None:
    train = TABLE.request("train_hq", ["--save_dir=x"], is_later=True)
    check_allocation({"SLURM_NTASKS": "8", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}, train)
    for environment in (
        {"SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"},
        {"SLURM_NTASKS": "3", "SLURM_JOB_NUM_NODES": "2"},
    ):
        with pytest.raises(UserError, match="--ntasks-per-node"):
            check_allocation(environment, train)


def test_record_of_another_format_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "x" / "record.json", {"format": 99})
    with pytest.raises(UserError, match="no record"):
        load_record(tmp_path / "x")
    assert load_records(tmp_path) == []  # it hides no other


def test_commands_with_a_job_in_the_documents_are_accepted(repository: Path, submit: ModuleType) -> None:
    """Words behind -- are looked at by the job's own parser."""
    text = "".join((repository / "docs" / name).read_text() for name in ("clusters.md", "scaling.md"))
    lines = re.findall(r"^python scripts/cluster/submit\.py .*$", text.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) > 3
    for line in lines:
        own, job = submit.split_arguments(shlex.split(line, comments=True)[2:])
        submit.get_args_parser().parse_args(own)
        assert TABLE.request(job[0], job[1:], is_later=True).name in PROGRAMS


def test_no_process_of_these_tests_is_left() -> None:
    """submitit's controllers end with the jobs."""
    left = [
        folder.name
        for folder in Path("/proc").glob("[0-9]*")
        if (folder / "stat").exists()
        and _parent(folder) == os.getpid()
        and b"submitit" in (folder / "cmdline").read_bytes()
    ]
    assert left == []
    assert signal.getsignal(signal.SIGINT) is SIGINT_HANDLER


def _parent(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return 0
