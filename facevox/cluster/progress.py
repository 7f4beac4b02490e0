"""State and progress of submitted jobs: from SLURM, from their own state files, and from their output."""

import contextlib
import math
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from facevox.cluster.records import FINAL, Record
from facevox.errors import UserError
from facevox.files import read_json
from facevox.manifest import FOLDER, find_manifests, find_programs, parse_line

# Files with the rows of a training's epochs, below its folder.
HISTORY_FILES = ("history.json", "training/history.json")
GONE = "gone"  # it ended without writing a state: killed, cancelled, or its node died


@dataclass(frozen=True, kw_only=True)
class Status:
    """Current status of a submission.

    Attributes:
        record: Its record.
        states: State of each part: one of `records`, SLURM's own in lower case, or GONE.
        progress: The finished work in words; "" if there is none yet.
        starts: How often each part was started.
    """

    record: Record
    states: list[str]
    progress: str
    starts: list[int]

    @property
    def state_text(self) -> str:
        """The state; with several parts, the number of parts in each state."""
        if len(self.states) == 1:
            return self.states[0]
        counts = {state: self.states.count(state) for state in dict.fromkeys(self.states)}
        return ", ".join(f"{count} {state}" for state, count in counts.items())

    @property
    def log_file(self) -> Path:
        """The log to read: that of the first part that ended badly, else of the first part."""
        bad = [shard for shard, state in enumerate(self.states) if state in (GONE, "failed")]
        return self.record.log_file(bad[0] if bad else 0)


def statuses(records: Sequence[Record]) -> list[Status]:
    """The status of each submission; SLURM is asked once for all."""
    return [
        Status(
            record=record,
            states=states,
            progress=progress_text(record),
            starts=[record.read_state(shard).get("num_starts", 0) for shard in range(record.shards)],
        )
        for record, states in zip(records, current_states(records), strict=True)
    ]


def current_states(records: Sequence[Record]) -> list[list[str]]:
    """The states of each submission's parts, as `Status.states`; SLURM is asked once for all."""
    unfinished = [
        job_id
        for record in records
        if record.cluster == "slurm"
        for job_id, state in zip(record.job_ids, record.states(), strict=True)
        if state not in FINAL
    ]
    queue = _queue(unfinished)
    return [
        [_state_of(record, shard, state, queue) for shard, state in enumerate(record.states())]
        for record in records
    ]


def _state_of(record: Record, shard: int, state: str, queue: dict[str, str] | None) -> str:
    if state in FINAL:
        return state
    job_id = record.job_ids[shard] if shard < len(record.job_ids) else ""
    if record.cluster == "slurm":
        if queue is None:
            return f"{state} (SLURM does not answer)"
        is_alive, state = job_id in queue, queue.get(job_id, GONE)
    else:
        # A part without its own process has not started, or runs in the one that submitted it.
        pid = int(job_id) if job_id.isdecimal() else record.pid
        is_alive = record.host != socket.gethostname() or _is_alive(pid)
    if is_alive:
        return state
    # It may have written its final state after `state` was read.
    latest = record.states()[shard]
    return latest if latest in FINAL else GONE


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 sends nothing, it only checks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # no /proc
        # An ended process stays in the table until its parent waits for it: for ever if that was killed.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


def _queue(job_ids: Sequence[str]) -> dict[str, str] | None:
    """State, with SLURM's reason if it waits, of each job in SLURM's queue; None if SLURM does not answer."""
    if not job_ids:
        return {}
    numbers = sorted({job_id.split("_")[0] for job_id in job_ids})
    # Not --jobs: SLURM returns an error when it has forgotten one of them.
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i|%T|%r"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    states = {}
    for line in answer.stdout.splitlines():
        job_id, state, reason = line.split("|", 2)
        if job_id.split("_")[0] in numbers:
            suffix = f" ({reason})" if state == "PENDING" and reason != "None" else ""
            states[job_id] = state.lower() + suffix
    return states


def progress_text(record: Record) -> str:
    """The program's output so far, in words."""
    folder = record.root / record.output_dir
    if record.num_epochs or any((folder / name).exists() for name in HISTORY_FILES):
        return _training_text(folder, record.num_epochs)
    return "; ".join(_batch_texts(folder, Path(record.job).stem))


def _training_text(folder: Path, num_epochs: int) -> str:
    file = next((folder / name for name in HISTORY_FILES if (folder / name).exists()), None)
    if file is None:
        return ""
    try:
        rows = read_json(file)
        row = rows[-1]
        loss = next((row[name] for name in ("train_loss", "loss") if row.get(name) is not None), math.nan)
        number = row["epoch"]
        return f"epoch {number}{f'/{num_epochs}' if num_epochs else ''}, loss {loss:.4g}"
    except (UserError, LookupError, TypeError, AttributeError, ValueError):
        return f"{file}: cannot be read"


def _batch_texts(folder: Path, job: str) -> Iterator[str]:
    """Progress by the manifests of the job itself, or else of all programs there (one job may run two)."""
    programs = [(path, program) for path in manifest_places(folder) for program in find_programs(path)]
    same_name = [pair for pair in programs if pair[1] == job]
    for path, program in same_name or programs:
        counts, total = count_items(path, program)
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        yield f"{program} {sum(counts.values())}/{total}{failed}"


def manifest_places(folder: Path) -> list[Path]:
    """The folders with manifests of a program that writes into `folder`.

    The folder itself; those of a program of several steps in it; the face vectors (`.embeddings/<model>`).
    """
    below = (path for pattern in ("*", ".*/*") for path in folder.glob(f"{pattern}/{FOLDER}"))
    return [folder, *sorted(path.parent for path in below)]


def count_items(output_dir: Path, program: str) -> tuple[dict[str, int], int]:
    """(number of items by status, number of all items) of a program's manifests, whole or in shards."""
    newest: dict[str, tuple[float, str]] = {}
    total = 0
    for file in find_manifests(output_dir, program):
        with file.open("rb") as lines:
            for line in lines:
                record = parse_line(line)
                if record is None:  # half a line, still being written
                    continue
                if "item" in record:
                    former = newest.get(record["item"], (-1.0, ""))
                    newest[record["item"]] = max(former, (record.get("at", 0.0), record["status"]))
                elif "run" in record:
                    total = max(total, int(record["run"].get("num_total", 0)))
    counts = {"done": 0, "failed": 0}
    for _, status in newest.values():
        counts[status] = counts.get(status, 0) + 1
    return counts, max(total, len(newest))
