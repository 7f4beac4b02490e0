"""Resources that a job requests from a cluster."""

import re
from dataclasses import dataclass

from facevox.cluster.job import MAX_SHARDS, ONE, PER_GPU
from facevox.cluster.jobs import Request
from facevox.errors import UserError
from facevox.options import Options, choice, number, option, text, where, whole

CLUSTERS = ("slurm", "local", "debug")
MEMORY_PER_CPU_GB = 4
# From the signal to the time limit: rank 0 may have to write a checkpoint to a busy file system.
SIGNAL_DELAY_S = 300


def parse_minutes(text: str) -> int:
    """Minutes of a time as sbatch takes it: 90, 90:00, 12:30:00, 2-0, 2-12, 2-12:30:00; at least 1.

    Raises:
        UserError: It is not a time.
    """
    number = r"(\d{1,6})"
    forms = {
        rf"{number}": (1.0,),
        rf"{number}:{number}": (1.0, 1 / 60),
        rf"{number}:{number}:{number}": (60.0, 1.0, 1 / 60),
        rf"{number}-{number}": (1440.0, 60.0),
        rf"{number}-{number}:{number}": (1440.0, 60.0, 1.0),
        rf"{number}-{number}:{number}:{number}": (1440.0, 60.0, 1.0, 1 / 60),
    }
    for pattern, weights in forms.items():
        if match := re.fullmatch(pattern, text.strip()):
            minutes = sum(int(part) * weight for part, weight in zip(match.groups(), weights, strict=True))
            if minutes > 0:
                return max(round(minutes), 1)
    raise UserError(
        f"time {text!r}: minutes, hours:minutes:seconds or days-hours are expected, as in 12:00:00"
    )


def _is_time(value: str) -> bool:
    try:
        return parse_minutes(value) > 0
    except UserError:
        return False


def is_name(value: str) -> bool:
    """True for the name of a stage, a job or a partition: letters, digits, `_`, `.` and `-`."""
    return re.fullmatch(r"[\w.-]+", value) is not None


def is_sbatch_text(value: str) -> bool:
    """True for a value that an `#SBATCH` line may have, as `node[01-04]`, `a100|h100` or `gpu:a100:2`.

    After a line feed in it the rest would be a command of the script.
    """
    return re.fullmatch(r"[ -~]*", value) is not None and not set(value) & set("\"'`$;#")


TIME = where(text(), _is_time, "minutes, hours:minutes:seconds or days-hours, as in 12:00:00")
NAMES = where(
    text(may_be_empty=True),
    lambda value: not value or all(map(is_name, value.split(","))),
    "a name of letters, digits, _ . and -, or several joined by commas",
)


@dataclass(frozen=True, kw_only=True)
class Resources(Options):
    """Resources of one job, or of each shard of it."""

    cluster: str = option("slurm", choice(*CLUSTERS), "local: processes here; debug: this process")
    nodes: int = option(1, whole(1), "machines")
    gpus: int | None = option(
        None, whole(0), "GPUs on each node (default: 1 for training and evaluation, else 0)"
    )
    tasks_per_node: int | None = option(
        None,
        whole(1),
        "processes on each node (default: one for each GPU; without GPUs, and for train_emotion, one)",
    )
    cpus: int = option(4, whole(1), "cores of each process")
    mem_gb: float | None = option(
        None, number(is_above=True), "memory on each node, in GB (default: 4 for each core)"
    )
    time: str = option("24:00:00", TIME, "limit, as sbatch takes it: minutes, 12:00:00, 2-0")
    partition: str = option("", NAMES, "of SLURM (default: its own)")
    account: str = option("", NAMES, "of SLURM (default: yours)")
    qos: str = option("", NAMES, "of SLURM (default: yours)")
    shards: int = option(1, whole(1, MAX_SHARDS), "parts that run as an array, and are joined")

    def contradictions(self) -> list[str]:
        """Options that only a SLURM cluster has."""
        faults = []
        if self.cluster != "slurm":
            if self.nodes > 1:
                faults.append(f"--nodes {self.nodes}: --cluster {self.cluster} has one; slurm has more")
            faults += [
                f"--{name}: only for --cluster slurm"
                for name in ("partition", "account", "qos")
                if getattr(self, name)
            ]
        return faults

    def num_gpus(self, request: Request) -> int:
        """Number of GPUs on each node."""
        if self.gpus is not None:
            return self.gpus
        return 0 if request.job.processes == ONE else 1

    def num_tasks(self, request: Request) -> int:
        """Number of processes on each node."""
        if self.tasks_per_node is not None:
            return self.tasks_per_node
        return max(self.num_gpus(request), 1) if request.job.processes == PER_GPU else 1

    def memory_gb(self, request: Request) -> float:
        """Memory on each node, in GB."""
        return self.mem_gb or MEMORY_PER_CPU_GB * self.cpus * self.num_tasks(request)

    def check(self, request: Request) -> None:
        """Refuses resources that the program could not use.

        Raises:
            UserError: With the resources that the program can use.
        """
        faults = []
        num_tasks, num_gpus = self.num_tasks(request), self.num_gpus(request)
        if request.job.processes == ONE and self.nodes * num_tasks > 1:
            faults.append(
                f"--nodes {self.nodes}, {num_tasks} tasks on each: {request.name} is one process"
                + ("; --shards splits it" if request.job.join else "")
            )
        if request.job.processes == PER_GPU and num_gpus > 1 and num_tasks != num_gpus:
            faults.append(
                f"--tasks_per_node {num_tasks}: {request.name} has one task for each GPU, {num_gpus} here"
            )
        if self.cluster == "debug" and num_tasks > 1:
            faults.append(f"{num_tasks} tasks: --cluster debug runs one process, this one; use local")
        if self.shards > 1 and not request.job.join:
            faults.append(
                f"--shards {self.shards}: {request.name} cannot be split; these can: "
                + " ".join(request.table.sharded_jobs())
            )
        options = {word.split("=", 1)[0] for word in request.arguments}
        own_shards = sorted(options & {"--num_shards", "--shard_index"})
        faults += [f"{option}: --shards sets that" for option in own_shards]
        if faults:
            raise UserError("; ".join(faults))
