"""Submits checked jobs through submitit: to SLURM, as processes of this machine, or into this process."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from facevox.cli import num_cores
from facevox.cluster.job import RUN_AGAIN
from facevox.cluster.jobs import Request
from facevox.cluster.progress import GONE, current_states
from facevox.cluster.records import FINAL, GOOD, Record, new_folder
from facevox.cluster.resources import SIGNAL_DELAY_S, Resources, parse_minutes
from facevox.cluster.run import Run
from facevox.errors import ExitCode, UserError
from facevox.signals import StopFlag

# submitit counts every signal in a job of up to ten minutes, and each time limit reached, as a timeout, and
# gives up after so many. A training of weeks in a queue of four hours reaches some hundred.
MAX_TIMEOUTS = 1000
POLL_S = 0.2
# What sbatch says where it finds no cluster: its own words, or the functions that failed.
UNREACHABLE = ("resolve_ctls", "fetch_config", "Unable to contact slurm controller")


def _import_submitit() -> ModuleType:
    """submitit, without its configuration of logging: that closes every handler which the process has."""
    name = "SUBMITIT_LOG_LEVEL"
    former = os.environ.get(name)
    os.environ[name] = "NOCONFIG"
    try:
        import submitit
    finally:  # the jobs, which inherit it, tell their own story
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former
    return submitit


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A checked job, ready to go.

    Attributes:
        request: Program and options.
        resources: For it, or for each shard.
        stage: Name in a pipeline, or "".
        after: Submissions that come first.
        after_ids: Further SLURM jobs that come first.
        output_dir: Where it writes, found here: settings that are missing are told before anything starts.
    """

    request: Request
    resources: Resources
    root: Path
    log_dir: Path
    stage: str = ""
    after: tuple[Record, ...] = ()
    after_ids: tuple[str, ...] = ()
    output_dir: str = field(init=False)

    def __post_init__(self) -> None:
        self.resources.check(self.request)
        object.__setattr__(self, "output_dir", self.request.output_dir)

    def runs(self, folder: Path, port: int = 0) -> list[Run]:
        """What each shard calls."""
        shards = self.resources.shards
        return [
            Run(
                command=self.request.command(cpus=self.resources.cpus, shard=(index, shards)),
                root=str(self.root),
                state_file=str(folder / f"state-{index}.json"),
                is_some_failed_done=self.request.job.is_some_failed_done,
                port=port,
            )
            for index in range(shards)
        ]


@dataclass
class Submitted:
    """A submission that the cluster took.

    Attributes:
        record: Of it.
        jobs: submitit's, one for each shard.
    """

    record: Record
    jobs: list[Any] = field(default_factory=list)


def check_cluster(resources: Resources) -> None:
    """Looks whether the cluster is there and has the partition.

    Raises:
        UserError: It is not; the partitions that there are.
    """
    if resources.cluster != "slurm":
        return
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("--cluster slurm: there is no sbatch here; --cluster local runs on this machine")
    if resources.partition:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, check=False
        )
        known = sorted(set(answer.stdout.split()))
        if answer.returncode == 0 and resources.partition not in known:
            raise UserError(f"--partition {resources.partition}: there are: {' '.join(known)}")


def make_executor(submission: Submission, folder: Path) -> Any:
    """submitit's executor with the resources of a submission.

    Raises:
        UserError: submitit is not installed.
    """
    try:
        submitit = _import_submitit()
    except ImportError:
        raise UserError("submitit is missing: make install, or pip install facevox[cluster]") from None
    resources, request = submission.resources, submission.request
    executor = submitit.AutoExecutor(folder, cluster=resources.cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
    minutes = parse_minutes(resources.time)
    num_tasks = resources.num_tasks(request)
    parameters: dict[str, object] = {
        "name": submission.stage or request.name,
        "timeout_min": minutes,
        "nodes": resources.nodes,
        "tasks_per_node": num_tasks,
        "gpus_per_node": resources.num_gpus(request),
        "cpus_per_task": resources.cpus,
        "mem_gb": resources.memory_gb(request),
    }
    if resources.cluster == "slurm":
        ids = list(submission.after_ids)
        for record in submission.after:
            ids += sorted({job_id.split("_")[0] for job_id in record.job_ids})
        extra: dict[str, object] = {"requeue": True, "kill-on-invalid-dep": "yes"}
        parameters |= {
            "slurm_partition": resources.partition or None,
            "slurm_account": resources.account or None,
            "slurm_qos": resources.qos or None,
            "slurm_dependency": f"afterok:{':'.join(ids)}" if ids else None,
            # In a short job the signal would come before the work.
            "slurm_signal_delay_s": min(SIGNAL_DELAY_S, minutes * 60 // 2),
            "slurm_additional_parameters": extra,
            # srun takes the cores not over from sbatch, and leaves the others of a dead task waiting.
            "slurm_srun_args": [f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=1"],
        }
    executor.update_parameters(**parameters)
    return executor


def script_of(submission: Submission) -> str:
    """The sbatch script that submitit would submit."""
    with tempfile.TemporaryDirectory() as folder:
        executor = make_executor(submission, Path(folder))._executor
        if submission.resources.shards > 1:
            executor.parameters["map_count"] = submission.resources.shards
        text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
        return text.replace(folder, str(submission.log_dir / "…"))


def ask_slurm(submission: Submission) -> str:
    """What SLURM says it would do with a submission ("would start at …").

    Raises:
        UserError: It would refuse it; why.
    """
    # Jobs that come first may not exist yet, or not any more: a dependency is not what is asked here.
    text = script_of(submission).replace("…", "log")
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#SBATCH --dependency")]
    with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        answer = subprocess.run(
            ["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False
        )
    said = answer.stderr.strip().splitlines() or [""]
    if answer.returncode:
        if any(name in answer.stderr for name in UNREACHABLE):
            raise UserError("--cluster slurm: no SLURM cluster answers; --cluster local runs on this machine")
        reason = " ".join(
            line.removeprefix("sbatch: error: ").removeprefix("allocation failure: ") for line in said
        )
        raise UserError(f"{submission.request.name}: SLURM refuses this: {reason}")
    return said[-1].removeprefix("sbatch: ")


def submit(submission: Submission) -> list[Submitted]:
    """Submits a job, or an array of shards and what joins them; the last one is what others wait for.

    Locally it returns when all is over.

    Raises:
        UserError: The cluster refuses it.
    """
    if submission.resources.cluster == "slurm":
        ask_slurm(submission)
    submitted = [_submit_one(submission)]
    if submission.resources.shards > 1:
        if submission.resources.cluster != "slurm" and not _is_good(submitted[0].record):
            return submitted
        submitted.append(_submit_one(join_of(submission, submitted[0].record)))
    return submitted


def join_of(submission: Submission, shards: Record) -> Submission:
    """What joins the shards of a submission."""
    request, resources = submission.request, submission.resources
    is_again = request.job.join == RUN_AGAIN
    values = {name: getattr(resources, name) for name in ("cluster", "time", "partition", "account", "qos")}
    return Submission(
        request=request.join_request(),
        resources=Resources(
            **values, gpus=resources.gpus if is_again else 0, cpus=resources.cpus if is_again else 1
        ),
        root=submission.root,
        log_dir=submission.log_dir,
        stage=f"{submission.stage or request.name}-join",
        after=(shards,),
    )


def _submit_one(submission: Submission) -> Submitted:
    request, resources = submission.request, submission.resources
    folder = new_folder(submission.log_dir, submission.stage or request.name)
    record = Record(
        folder=folder,
        job=request.name,
        arguments=list(request.arguments),
        cluster=resources.cluster,
        root=submission.root,
        output_dir=submission.output_dir,
        num_epochs=int(getattr(request.parsed, "num_epochs", None) or 0),
        shards=resources.shards,
        stage=submission.stage,
        after=[record.name for record in submission.after] + list(submission.after_ids),
    )
    executor = make_executor(submission, folder)
    is_many = resources.cluster == "local" and resources.num_tasks(request) > 1
    runs = submission.runs(folder, _free_port() if is_many else 0)
    try:
        if resources.cluster == "slurm":
            jobs = executor.submit_array(runs)
        else:
            return _run_on_this_machine(executor, runs, record)
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise UserError(f"{request.name}: SLURM refused it: {lines[-1] if lines else error!r}") from None
    record.job_ids.extend(job.job_id for job in jobs)
    record.write()
    return Submitted(record, jobs)


def _run_on_this_machine(executor: Any, runs: Sequence[Run], record: Record) -> Submitted:
    """Runs all shards, some at a time, and waits for them; a signal stops them in good order."""
    submitted = Submitted(record)
    record.write()
    waiting = list(runs)
    cpus = max(executor.parameters.get("cpus_per_task", 1) * executor.parameters.get("tasks_per_node", 1), 1)
    most = max(num_cores() // cpus, 1)
    if record.cluster == "debug":
        for run in waiting:
            submitted.jobs.append(executor.submit(run))
            record.job_ids.append(submitted.jobs[-1].job_id)
            submitted.jobs[-1].results()
        record.write()
        return submitted
    is_told = False
    with StopFlag() as stop:
        while (waiting and not stop) or any(not job.done() for job in submitted.jobs):
            running = [job for job in submitted.jobs if not job.done()]
            if waiting and not stop and len(running) < most:
                with _left_alone_by_ctrl_c():
                    submitted.jobs.append(executor.submit(waiting.pop(0)))
                record.job_ids.append(submitted.jobs[-1].job_id)
                record.write()
                continue
            if stop and not is_told:
                is_told = True
                for job in running:
                    job._process.terminate()  # submitit's controller passes it on
            time.sleep(POLL_S)
    return submitted


@contextlib.contextmanager
def _left_alone_by_ctrl_c() -> Iterator[None]:
    """What is started here does not hear Ctrl-C, but the program below it does: it stops in good order."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _is_good(record: Record) -> bool:
    return all(state in GOOD for state in record.states())


def exit_code_of(record: Record) -> ExitCode:
    """The exit code for a submission that is over: that of its worst part."""
    codes = [record.read_state(shard).get("exit_code") for shard in range(record.shards)]
    if ExitCode.STOPPED in codes or None in codes:
        return ExitCode.STOPPED
    if all(code == ExitCode.DONE for code in codes):
        return ExitCode.DONE
    if ExitCode.USAGE in codes:
        return ExitCode.USAGE
    # Whatever no program of ours returns is a crash, minus the signal that killed it included.
    is_crash = any(code not in (ExitCode.DONE, ExitCode.SOME_FAILED) for code in codes)
    return ExitCode.FAULT if is_crash else ExitCode.SOME_FAILED


def unfinished(records: Sequence[Record], cluster: str) -> tuple[Record, ...]:
    """Those of `records` that SLURM has to wait for; waits for those of this machine itself.

    Raises:
        UserError: One of them failed, was stopped or is gone, or is SLURM's and cannot be waited for here.
    """
    left = []
    for record in records:
        states = record.states() if record.cluster == "slurm" else _wait_here(record)
        if any(state == GONE or (state in FINAL and state not in GOOD) for state in states):
            raise UserError(f"--after {record.name}: it is {', '.join(sorted(set(states)))}")
        if not all(state in GOOD for state in states):
            if cluster != "slurm":
                raise UserError(
                    f"--after {record.name}: a job of SLURM, for which only SLURM's jobs can wait"
                )
            left.append(record)
    return tuple(left)


def _wait_here(record: Record) -> list[str]:
    """Waits until a job of this machine is over or a part of it is gone; the states then.

    Raises:
        UserError: A signal ended the waiting.
    """
    with StopFlag() as stop:
        while True:
            (states,) = current_states([record])
            if GONE in states or all(state in FINAL for state in states):
                return states
            if stop:
                raise UserError(f"--after {record.name}: {stop.signal_name} ended the waiting")
            time.sleep(POLL_S)
