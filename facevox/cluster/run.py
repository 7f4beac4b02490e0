"""The call that submitit runs in each task of a job: the program in its own process, requeued in time.

The program receives SIGUSR2 (before the time limit, or preempted), saves, and ends with 75. The first task
then calls submitit's own handler, which takes the checkpoint (here: the same call, as the program resumes by
itself) and requeues; the others wait for the end, because a task that fails ends all of them.
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
from typing import TYPE_CHECKING

from facevox.cluster.records import DONE, FAILED, REQUEUED, RUNNING, SOME_FAILED, STOPPED, State, read_state
from facevox.errors import ExitCode
from facevox.files import write_json

if TYPE_CHECKING:
    from submitit import JobEnvironment
    from submitit.core.utils import DelayedSubmission

# Time that a failed task leaves the first one to end too: it may be writing a checkpoint.
PATIENCE_S = 300
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class JobFailed(RuntimeError):
    """A program ended with an exit code that must stop the jobs after it."""


@dataclass
class Run:
    """A program with its arguments; picklable, called once in each task of the job.

    Attributes:
        command: The program's file and its arguments.
        root: The repository.
        state_file: File for the state, written by the first task.
        is_some_failed_done: Exit code 1 is not a failure.
        port: Port for the rendezvous of a local job's processes; 0: there is only one.
    """

    command: list[str]
    root: str
    state_file: str
    is_some_failed_done: bool = True
    port: int = 0
    _signal: int = field(default=0, repr=False)

    def __call__(self) -> int:
        """Runs the program; returns its exit code.

        Raises:
            JobFailed: It failed.
            SystemExit: It was stopped, and the job is requeued or over.
        """
        import submitit

        environment = submitit.JobEnvironment()
        self._signal = 0  # the checkpoint, a pickle of this object, has that of the previous start
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
            # submitit's own handler: checkpoint, requeue, exit.
            handler = signal.getsignal(signal.Signals[f"SIG{environment.USR_SIG}"])
            assert callable(handler)
            handler(signal.SIGUSR2, None)
        self._write(STOPPED if is_stopped else FAILED, code)
        if is_stopped:
            raise SystemExit(int(ExitCode.STOPPED))
        raise JobFailed(f"{self.command[0]} ended with exit code {code}")

    def checkpoint(self) -> "DelayedSubmission":
        """The call of the requeued job: the same one, which resumes by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run_here(self) -> int:
        """Runs the program in this process, for debuggers."""
        former, folder = sys.argv, Path.cwd()
        sys.argv = list(self.command)
        try:
            os.chdir(self.root)  # relative paths count from there, as on a node
            runpy.run_path(str(Path(self.root, self.command[0])), run_name="__main__")
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        finally:
            sys.argv = former
            os.chdir(folder)
        return ExitCode.DONE

    def _run_in_child(self, environment: "JobEnvironment") -> int:
        """Runs the program; returns its exit code, or minus the signal that killed it."""
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
            # The child may have ended already; more signals after the first change nothing.
            self._signal = number
            if child.returncode is None:
                child.send_signal(number)

        # SLURM signals every process of a task, also this child: a second one could disturb its last steps.
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
        """True if this job has to requeue itself: it is neither cancelled nor already requeued by SLURM."""
        if environment.cluster != "slurm":
            # Locally SIGTERM comes from the user, and SIGUSR2 from the time limit.
            return environment.cluster == "local" and self._signal == signal.SIGUSR2
        description = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", environment.job_id], capture_output=True, text=True
        ).stdout
        return " JobState=RUNNING " in description

    def _wait_for_first(self, cluster: str) -> None:
        """Waits for the first task to end; not locally, where a failed task does not end the others."""
        end_s = time.monotonic() + (PATIENCE_S if cluster == "slurm" else 0)
        while time.monotonic() < end_s:
            if read_state(Path(self.state_file)).get("state", RUNNING) != RUNNING:
                return
            time.sleep(1)

    def _write(self, state: str, code: int | None = None) -> None:
        """Writes the state of this part."""
        num_starts = read_state(Path(self.state_file)).get("num_starts", 0) + (state == RUNNING)
        content: State = {
            "state": state,
            "exit_code": code,
            "host": socket.gethostname(),
            "at": time.time(),
            "num_starts": num_starts,
        }
        write_json(self.state_file, content)
