"""A real SLURM for tests: several slurmd on this machine, each playing a node, with fake GPUs.

`RealSlurm` starts munged, slurmctld and the slurmd below a folder of its own and ends them again; nothing of
the machine changes except for a marked line in /etc/hosts, without which the nodes' names would not resolve.
Where a SLURM with two idle nodes is there already, `start_slurm` takes that.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "scontrol": "slurm-client", "munged": "munge"}
HOSTS_FILE = Path("/etc/hosts")
START_S = 60.0
# Set by `make slurm-test`: there a machine without SLURM is a failure.
REQUIRED = "FACEVOX_REQUIRE_SLURM"

CONFIGURATION = """\
ClusterName=facevox
SlurmctldHost={host}({address})
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job may start again when its old credential has expired
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/run/%n.pid
SlurmdLogFile={folder}/log/%n.log
# no cgroups, no task binding: the nodes are one machine
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
SlurmdParameters=config_overrides
# a node that comes back is used again; one that says nothing is given up soon
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=30
InactiveLimit=0
KillWait=10
UnkillableStepTimeout=60
MinJobAge=86400
JobRequeue=1
# sbatch refuses what no node can give
EnforcePartLimits=ALL
FirstJobId={first_job}
{gres}
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE DefaultTime=10 State=UP
PartitionName=spare Nodes={names} MaxTime=INFINITE DefaultTime=10 State=UP
"""


class SlurmUnavailable(Exception):
    """There is no SLURM here, and none can be started; the text says why."""


def wait_until(is_true: Callable[[], object], what: str, seconds: float = START_S) -> None:
    """Returns once `is_true()` is; raises TimeoutError naming `what` when it takes too long."""
    end_s = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def install_packages() -> None:
    """Puts Debian's SLURM on this machine where it is missing, without starting any service.

    Raises:
        SlurmUnavailable: This is not Debian, or not run by root, or the packages cannot be had.
    """
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if os.geteuid() != 0:
        raise SlurmUnavailable("starting SLURM takes root")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise SlurmUnavailable(f"missing: {' '.join(missing)}")
    policy = Path("/usr/sbin/policy-rc.d")  # what keeps Debian's packages from starting their daemons
    is_ours = not policy.exists()
    if is_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = [*apt, "install", "-y", "--no-install-recommends", *missing]
    try:
        for command in (install, [*apt, "update"], install):
            answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
            if command is install and answer.returncode == 0:
                return
        raise SlurmUnavailable(f"apt-get install: {answer.stderr.strip().splitlines()[-1:]}")
    finally:
        if is_ours:
            policy.unlink()


@dataclass
class RealSlurm:
    """A cluster on this machine. `environment` reaches it; the daemons run until `stop`."""

    num_nodes: int = 2
    num_cpus: int = 4
    memory_mb: int = 32000
    num_gpus: int = 2
    folder: Path = Path()
    environment: dict[str, str] = field(default_factory=dict)
    _daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Names of this cluster's own: several may run side by side.
        self._prefix = f"fv{secrets.token_hex(2)}n"
        self.nodes = [f"{self._prefix}{number + 1}" for number in range(self.num_nodes)]

    def start(self) -> "RealSlurm":
        """Starts everything and waits until every node is idle.

        Raises:
            SlurmUnavailable: Packages are missing, or the daemons do not come up.
        """
        install_packages()
        # A Unix socket's path has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="fvslurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        for name in ("munge", "etc", "log", "run", "state", "spool", "gpu"):
            (self.folder / name).mkdir(mode=0o755)
        configuration = self.folder / "etc" / "slurm.conf"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SLURM")
        } | {"SLURM_CONF": str(configuration)}
        try:
            self._configure(configuration)
            self._start_daemons()
        except (OSError, TimeoutError, subprocess.SubprocessError) as error:
            reason = f"{error}; {self.last_errors()}"
            self.stop()
            raise SlurmUnavailable(reason) from None
        return self

    def _configure(self, file: Path) -> None:
        host = socket.gethostname().split(".")[0]
        names = f"{self._prefix}[1-{self.num_nodes}]"
        ports = _free_ports(1 + self.num_nodes)
        gres, gpus = "", ""
        if self.num_gpus:
            for number in range(self.num_gpus):
                os.mknod(self.folder / "gpu" / f"gpu{number}", 0o20666, os.makedev(1, 3))  # as /dev/null
            gres, gpus = "GresTypes=gpu", f" Gres=gpu:{self.num_gpus}"
            files = f"gpu[0-{self.num_gpus - 1}]" if self.num_gpus > 1 else "gpu0"
            (file.parent / "gres.conf").write_text(
                f"AutoDetect=off\nNodeName={names} Name=gpu File={self.folder}/gpu/{files}\n"
            )
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} State=UNKNOWN Boards=1 "
            f"CPUs={self.num_cpus} SocketsPerBoard=1 CoresPerSocket={self.num_cpus} ThreadsPerCore=1 "
            f"RealMemory={self.memory_mb}{gpus}"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        file.write_text(
            CONFIGURATION.format(
                host=host, address="127.0.0.1", ports=ports, folder=self.folder, names=names, gres=gres,
                nodes="\n".join(nodes), first_job=int(time.time()) % 60_000_000,
            )
        )  # fmt: skip
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        with HOSTS_FILE.open("a") as hosts:
            hosts.write(f"127.0.0.1 {' '.join([*self.nodes, host])} {self._mark}\n")

    @property
    def _mark(self) -> str:
        return f"# facevox tests {self.folder}"

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_daemons(self) -> None:
        munge = self.folder / "munge"
        self._spawn(
            *("munged", "munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket"),
            *(f"--pid-file={munge}/pid", f"--log-file={self.folder}/log/munged.log"),
            *(f"--seed-file={munge}/seed", "--num-threads=2"),
        )
        wait_until((munge / "socket").exists, "munged", 60)
        self._spawn("slurmctld", "slurmctld", "-D", "-c")
        wait_until(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld", 60)
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.num_idle() == self.num_nodes, "idle nodes")

    def start_node(self, node: str) -> None:
        """Starts the slurmd of a node."""
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        self._spawn(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str, *, with_its_work: bool = False) -> None:
        """Kills a node's slurmd as a power cut does; with its work, also everything that it started."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()
        if with_its_work:
            for pid in self._work(SLURMD_NODENAME=node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def signal_work(self, program: str, number: signal.Signals, **variables: str) -> None:
        """Signals the processes of a program whose environment has these values (SLURMD_NODENAME=…)."""
        for pid in self._work(**variables):
            with contextlib.suppress(OSError):
                if program.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, number)

    def _work(self, **variables: str) -> Iterator[int]:
        """The processes of this cluster's jobs that have these variables in their environment."""
        wanted = {f"{name}={value}".encode() for name, value in variables.items()}
        wanted.add(f"SLURM_CONF={self.environment['SLURM_CONF']}".encode())
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                found = set((folder / "environ").read_bytes().split(b"\0"))
            except OSError:
                continue
            # Without further variables: whatever belongs to a job. (slurmstepd knows its node, but no job.)
            is_of_a_job = any(name.startswith(b"SLURM_JOB_ID=") for name in found)
            if wanted <= found and (variables or is_of_a_job):
                yield int(folder.name)

    def ask(self, *command: str) -> str:
        """Output of a command of SLURM, without the last line feed; "" where it fails."""
        try:
            answer = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return answer.stdout.strip()

    def num_idle(self) -> int:
        """Nodes that would take a job now."""
        lines = self.ask("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return len({line.split()[0] for line in lines if line.endswith(" idle")})

    def state(self, job: str) -> str:
        """A job's state ("RUNNING", "COMPLETED" …), of the first task of an array; "" for no such job."""
        shown = dict(
            word.split("=", 1)
            for word in self.ask("scontrol", "--oneliner", "show", "job", job).split()
            if "=" in word
        )
        return shown.get("JobState", "")

    def last_errors(self) -> str:
        """The last lines of the daemons' logs that speak of an error."""
        lines = [
            line
            for file in sorted((self.folder / "log").glob("*"))
            for line in file.read_text(errors="replace").splitlines()
            if "error" in line or "fatal" in line
        ]
        return " | ".join(lines[-5:])

    def stop(self) -> None:
        """Ends jobs and daemons, removes the folder and the line in /etc/hosts."""
        if "slurmctld" in self._daemons:
            jobs = self.ask("squeue", "--noheader", "--format=%A").split()
            if jobs:
                self.ask("scancel", *sorted(set(jobs)))
                with contextlib.suppress(TimeoutError):
                    wait_until(lambda: not self.ask("squeue", "--noheader"), "end of the jobs", 60)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        if self.environment:
            for pid in self._work():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.folder != Path():
            lines = HOSTS_FILE.read_text().splitlines(keepends=True)
            if any(self._mark in line for line in lines):
                # Written in place: the file may be a mount.
                HOSTS_FILE.write_text("".join(line for line in lines if self._mark not in line))
            shutil.rmtree(self.folder, ignore_errors=True)


def start_or_skip() -> RealSlurm:
    """A cluster for this test; the test is skipped (or fails, see REQUIRED) where there is none."""
    try:
        return RealSlurm().start()
    except SlurmUnavailable as error:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(f"no SLURM: {error}")


_STARTED: dict[Path, RealSlurm] = {}


def start_slurm(state_dir: Path) -> dict[str, str]:
    """The environment in which srun reaches two idle nodes; skips the test where there is no way to them."""
    found = RealSlurm(environment=dict(os.environ))
    if found.num_idle() >= 2:
        return found.environment
    _STARTED[state_dir] = start_or_skip()
    return _STARTED[state_dir].environment


def stop_slurm(state_dir: Path) -> None:
    """Ends what `start_slurm` started; nothing where it started nothing."""
    if state_dir in _STARTED:
        _STARTED.pop(state_dir).stop()
