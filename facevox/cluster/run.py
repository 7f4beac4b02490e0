"""What submitit runs in each task of a job: the program in a process of its own, saved and requeued in time.

The program hears SIGUSR2 (before the time limit, or preempted), saves, and ends with 75. The first task then
calls submitit's own handler, which takes the checkpoint (here: the same call again, as the program goes on by
itself) and requeues; the others wait for the end, because one that ends badly takes the others with it.
"""

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from facevox.cluster.records import DONE, FAILED, REQUEUED, RUNNING, SOME_FAILED, STOPPED
from facevox.errors import ExitCode
from facevox.files import read_json, write_json

if TYPE_CHECKING:
    from submitit import JobEnvironment
    from submitit.core.utils import DelayedSubmission

# How long a task that ended badly leaves the first one to end too: it may be writing a checkpoint.
PATIENCE_S = 300
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class JobFailed(RuntimeError):
    """A program ended with an exit code that must end what comes after it."""


@dataclass
class Run:
    """A program with its arguments; picklable, called once in each task of the job.

    Attributes:
        command: The program's file and its arguments.
        root: The repository.
        state_file: Where the first task says how it stands.
        is_some_failed_done: Exit code 1 is no failure.
        port: Where the processes of a local job meet; 0: there is one.
    """

    command: list[str]
    root: str
    state_file: str
    is_some_failed_done: bool = True
    port: int = 0
    _signal: int = field(default=0, repr=False)

    def __call__(self) -> int:
        """Runs the program; its exit code.

        Raises:
            JobFailed: It failed.
            SystemExit: It was stopped, and the job is requeued or over.
        """
        import submitit

        environment = submitit.JobEnvironment()
        self._signal = 0  # that of the start before came along with the checkpoint
        is_first = environment.global_rank == 0
        if is_first:
            self._write(RUNNING)
        if environment.cluster == "debug":
            code = self._run_here()
        else:
            code = self._run_in_child(environment)
        if code == ExitCode.DONE or (code == ExitCode.SOME_FAILED and self.is_some_failed_done):
            if is_first:
                self._write(SOME_FAILED if code else DONE, code)
            return code
        is_stopped = code == ExitCode.STOPPED or -code in STOP_SIGNALS
        if not is_first:
            self._wait_for_first(environment.cluster)
            raise SystemExit(code)
        if is_stopped and self._may_requeue(environment):
            self._write(REQUEUED, code)
            # submitit's own: checkpoint, requeue, exit.
            handler: Any = signal.getsignal(signal.Signals[f"SIG{environment.USR_SIG}"])
            handler(signal.SIGUSR2, None)
        self._write(STOPPED if is_stopped else FAILED, code)
        if is_stopped:
            raise SystemExit(int(ExitCode.STOPPED))
        raise JobFailed(f"{self.command[0]} ended with exit code {code}")

    def checkpoint(self) -> "DelayedSubmission":
        """What the requeued job runs: the same, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run_here(self) -> int:
        """Runs the program in this process, for debuggers."""
        former = sys.argv
        sys.argv = list(self.command)
        try:
            runpy.run_path(str(Path(self.root, self.command[0])), run_name="__main__")
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        finally:
            sys.argv = former
        return ExitCode.DONE

    def _run_in_child(self, environment: "JobEnvironment") -> int:
        """Runs the program; its exit code, or minus the signal that killed it."""
        variables = dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
        if self.port:
            variables |= {
                "RANK": str(environment.global_rank),
                "WORLD_SIZE": str(environment.num_tasks),
                "LOCAL_RANK": str(environment.local_rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(self.port),
            }
        child = subprocess.Popen([sys.executable, *self.command], cwd=self.root, env=variables)

        def pass_on(number: int, frame: FrameType | None) -> None:
            # Of every signal, to a child that may be gone: the first one counts, more change nothing.
            self._signal = number
            if child.returncode is None:
                child.send_signal(number)

        # SLURM signals every process of a task, this child too: passing it on could hit its last moments.
        is_slurm = environment.cluster == "slurm"
        former = {
            number: signal.signal(number, self._note_signal if is_slurm else pass_on)
            for number in STOP_SIGNALS
        }
        try:
            return child.wait()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def _may_requeue(self, environment: "JobEnvironment") -> bool:
        """Whether it is on us to requeue: the job is neither cancelled nor already requeued by SLURM."""
        if environment.cluster != "slurm":
            # Locally SIGTERM is the user, and SIGUSR2 the time limit.
            return environment.cluster == "local" and self._signal == signal.SIGUSR2
        shown = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", environment.job_id], capture_output=True, text=True
        ).stdout
        return " JobState=RUNNING " in shown

    def _wait_for_first(self, cluster: str) -> None:
        """Leaves the first task its time; locally nobody ends the others."""
        end_s = time.monotonic() + (PATIENCE_S if cluster == "slurm" else 0)
        while time.monotonic() < end_s:
            if Path(self.state_file).exists() and read_json(self.state_file).get("state") != RUNNING:
                return
            time.sleep(1)

    def _write(self, state: str, code: int | None = None) -> None:
        """Writes how this part stands."""
        before = read_json(self.state_file) if Path(self.state_file).exists() else {}
        now = {"state": state, "exit_code": code, "host": socket.gethostname(), "at": time.time()}
        num_starts = int(before.get("num_starts", 0)) + (state == RUNNING)
        write_json(self.state_file, {**now, "num_starts": num_starts})
