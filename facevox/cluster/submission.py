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
from typing import TYPE_CHECKING, cast

from facevox.cli import num_cores
from facevox.cluster.job import RUN_AGAIN
from facevox.cluster.jobs import Request
from facevox.cluster.progress import GONE, current_states
from facevox.cluster.records import FINAL, GOOD, Record, new_folder
from facevox.cluster.resources import SIGNAL_DELAY_S, Resources, is_name, is_sbatch_text, parse_minutes
from facevox.cluster.run import Run
from facevox.errors import ExitCode, UserError
from facevox.signals import StopFlag

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job, LocalJob, SlurmExecutor

# submitit counts every signal in a job of up to ten minutes, and each time limit reached, as a timeout, and
# gives up after this number. A training of weeks in a queue of four hours reaches some hundred.
MAX_TIMEOUTS = 1000
POLL_S = 0.2
# In sbatch's messages where it finds no cluster: its own words, or the functions that failed.
UNREACHABLE = ("resolve_ctls", "fetch_config", "Unable to contact slurm controller")


def _import_submitit() -> ModuleType:
    """submitit, without its configuration of logging, which would close all handlers of the process."""
    name = "SUBMITIT_LOG_LEVEL"
    former = os.environ.get(name)
    os.environ[name] = "NOCONFIG"
    try:
        import submitit
    finally:  # the jobs inherit the environment, and should log
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former
    return submitit


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A checked job, ready to be submitted.

    Attributes:
        request: Program and options.
        resources: Resources of the job, or of each shard.
        root: The repository.
        log_dir: Folder of all submissions.
        stage: Name in a pipeline, or "".
        after: Submissions that come first.
        after_ids: Further SLURM jobs that come first.
        output_dir: Folder that it writes; set here, to report missing settings before anything starts.
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
        if self.stage and not is_name(self.stage):
            raise UserError(f"stage {self.stage!r}: its name is of letters, digits, _ . and -")
        if self.resources.cluster == "slurm":
            for option, value in (("log_dir", str(self.log_dir.absolute())), ("after", self.dependency)):
                if not is_sbatch_text(value):
                    raise UserError(
                        f"--{option} {value!r}: the line of an sbatch script is of ASCII characters without "
                        "quotes, $ ; and #"
                    )
        object.__setattr__(self, "output_dir", self.request.output_dir)

    @property
    def dependency(self) -> str:
        """The jobs of SLURM that have to be done first, as sbatch takes them; "": none."""
        ids = list(self.after_ids)
        for record in self.after:
            ids += sorted({job_id.split("_")[0] for job_id in record.job_ids})
        return f"afterok:{':'.join(ids)}" if ids else ""

    def runs(self, folder: Path, port: int = 0) -> list[Run]:
        """The call of each shard."""
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
    """A submission that the cluster accepted.

    Attributes:
        record: Its record.
        jobs: submitit's jobs, one for each shard.
    """

    record: Record
    jobs: "list[Job[int]]" = field(default_factory=list)


def check_cluster(resources: Resources) -> None:
    """Checks that the cluster exists and has the partition.

    Raises:
        UserError: It does not; with the existing partitions.
    """
    if resources.cluster != "slurm":
        return
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("--cluster slurm: there is no sbatch here; --cluster local runs on this machine")
    if resources.partition:
        answer = subprocess.run(
            ["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, check=False
        )
        partitions = sorted(set(answer.stdout.split()))
        if answer.returncode == 0 and resources.partition not in partitions:
            raise UserError(f"--partition {resources.partition}: the partitions are: {' '.join(partitions)}")


def make_executor(submission: Submission, folder: Path) -> "AutoExecutor":
    """submitit's executor with the resources of a submission.

    Raises:
        UserError: submitit is not installed.
    """
    try:
        submitit = _import_submitit()
    except ImportError:
        raise UserError("submitit is missing: make install, or pip install facevox[cluster]") from None
    resources, request = submission.resources, submission.request
    executor: AutoExecutor = submitit.AutoExecutor(
        folder, cluster=resources.cluster, slurm_max_num_timeout=MAX_TIMEOUTS
    )
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
        extra: dict[str, object] = {"requeue": True, "kill-on-invalid-dep": "yes"}
        parameters |= {
            "slurm_partition": resources.partition or None,
            "slurm_account": resources.account or None,
            "slurm_qos": resources.qos or None,
            "slurm_dependency": submission.dependency or None,
            # In a short job the signal would come before the work.
            "slurm_signal_delay_s": min(SIGNAL_DELAY_S, minutes * 60 // 2),
            "slurm_additional_parameters": extra,
            # srun does not take over the cores from sbatch, and lets the other tasks of a dead one wait.
            "slurm_srun_args": [f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=1"],
        }
    executor.update_parameters(**parameters)
    return executor


def script_of(submission: Submission) -> str:
    """The sbatch script that submitit would submit."""
    with tempfile.TemporaryDirectory() as folder:
        executor = cast("SlurmExecutor", make_executor(submission, Path(folder))._executor)
        if submission.resources.shards > 1:
            executor.parameters["map_count"] = submission.resources.shards
        text = executor._make_submission_file_text(executor._submitit_command_str, "")
        return text.replace(folder, str(submission.log_dir / "…"))


def ask_slurm(submission: Submission) -> str:
    """SLURM's forecast for a submission ("would start at …").

    Raises:
        UserError: SLURM would refuse it; with the reason.
    """
    # Without the dependency: jobs that come first may not exist yet, or no longer.
    text = script_of(submission).replace("…", "log")
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#SBATCH --dependency")]
    with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        answer = subprocess.run(
            ["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False
        )
    messages = answer.stderr.strip().splitlines() or [""]
    if answer.returncode:
        if any(name in answer.stderr for name in UNREACHABLE):
            raise UserError("--cluster slurm: no SLURM cluster answers; --cluster local runs on this machine")
        reason = " ".join(
            line.removeprefix("sbatch: error: ").removeprefix("allocation failure: ") for line in messages
        )
        raise UserError(f"{submission.request.name}: SLURM refuses this: {reason}")
    return messages[-1].removeprefix("sbatch: ")


def submit(submission: Submission) -> list[Submitted]:
    """Submits a job, or an array of shards and the job that joins them; later jobs wait for the last one.

    Locally it returns when all of them have ended.

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
    """The submission that joins the shards of another."""
    request, resources = submission.request, submission.resources
    runs_again = request.job.join == RUN_AGAIN
    values = {name: getattr(resources, name) for name in ("cluster", "time", "partition", "account", "qos")}
    return Submission(
        request=request.join_request(),
        resources=Resources(
            **values, gpus=resources.gpus if runs_again else 0, cpus=resources.cpus if runs_again else 1
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


def _run_on_this_machine(executor: "AutoExecutor", runs: Sequence[Run], record: Record) -> Submitted:
    """Runs all shards, some at a time, and waits for them; a signal stops them cleanly."""
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
    are_stopping = False
    with StopFlag() as stop:
        while (waiting and not stop) or any(not job.done() for job in submitted.jobs):
            running = [job for job in submitted.jobs if not job.done()]
            if waiting and not stop and len(running) < most:
                with _ignore_ctrl_c():
                    submitted.jobs.append(executor.submit(waiting.pop(0)))
                record.job_ids.append(submitted.jobs[-1].job_id)
                record.write()
                continue
            if stop and not are_stopping:
                are_stopping = True
                for job in running:
                    controller = cast("LocalJob[int]", job)._process
                    if controller is not None:
                        controller.terminate()  # it passes the signal on to the program
            time.sleep(POLL_S)
    return submitted


@contextlib.contextmanager
def _ignore_ctrl_c() -> Iterator[None]:
    """Lets submitit's controller, started here, ignore Ctrl-C: the program below it stops cleanly by it."""
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
    """The exit code of a submission that has ended: that of its worst part."""
    codes = [record.read_state(shard).get("exit_code") for shard in range(record.shards)]
    if ExitCode.STOPPED in codes or None in codes:
        return ExitCode.STOPPED
    if all(code == ExitCode.DONE for code in codes):
        return ExitCode.DONE
    if ExitCode.USAGE in codes:
        return ExitCode.USAGE
    # A code that none of our programs returns means a crash; so does minus the signal that killed it.
    is_crash = any(code not in (ExitCode.DONE, ExitCode.SOME_FAILED) for code in codes)
    return ExitCode.FAULT if is_crash else ExitCode.SOME_FAILED


def unfinished(records: Sequence[Record], cluster: str) -> tuple[Record, ...]:
    """Those of `records` that SLURM has to wait for; waits here for those of this machine.

    Raises:
        UserError: One of them failed, was stopped or is gone, or is SLURM's and cannot be waited for here.
    """
    remaining = []
    for record in records:
        states = record.states() if record.cluster == "slurm" else _wait_here(record)
        if any(state == GONE or (state in FINAL and state not in GOOD) for state in states):
            raise UserError(f"--after {record.name}: it is {', '.join(sorted(set(states)))}")
        if not all(state in GOOD for state in states):
            if cluster != "slurm":
                raise UserError(
                    f"--after {record.name}: a job of SLURM, for which only SLURM's jobs can wait"
                )
            remaining.append(record)
    return tuple(remaining)


def _wait_here(record: Record) -> list[str]:
    """Waits until a job of this machine has ended or a part of it is gone; returns the final states.

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
