"""How far submitted jobs are: their state from SLURM and from themselves, their work from what they write."""

import contextlib
import json
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
from facevox.manifest import FOLDER, find_manifests, find_programs

# Where trainings keep the rows of their epochs, below their folder.
HISTORY_FILES = ("history.json", "training/history.json")
GONE = "gone"  # it ended without a word: killed, cancelled, or its node died


@dataclass(frozen=True, kw_only=True)
class Status:
    """A submission as it stands.

    Attributes:
        record: Of it.
        states: Of each part: those of `records`, SLURM's own in lower case, or GONE.
        progress: What is done, in words; "" where nothing is to be seen yet.
        starts: Of each part: how often it was begun.
    """

    record: Record
    states: list[str]
    progress: str
    starts: list[int]

    @property
    def state_text(self) -> str:
        """The state; with several parts, how many are in which."""
        if len(self.states) == 1:
            return self.states[0]
        counts = {state: self.states.count(state) for state in dict.fromkeys(self.states)}
        return ", ".join(f"{count} {state}" for state, count in counts.items())

    @property
    def log_file(self) -> Path:
        """The log to look into: of the first part that ended badly, else of the first one."""
        bad = [shard for shard, state in enumerate(self.states) if state in (GONE, "failed")]
        return self.record.log_file(bad[0] if bad else 0)


def statuses(records: Sequence[Record]) -> list[Status]:
    """How each submission stands; SLURM is asked once for all."""
    return [
        Status(
            record=record,
            states=states,
            progress=progress_text(record),
            starts=[int(record.read_state(shard).get("num_starts", 0)) for shard in range(record.shards)],
        )
        for record, states in zip(records, current_states(records), strict=True)
    ]


def current_states(records: Sequence[Record]) -> list[list[str]]:
    """Of each submission the states of its parts, as `Status.states`; SLURM is asked once for all."""
    asked = [
        job_id
        for record in records
        if record.cluster == "slurm"
        for job_id, state in zip(record.job_ids, record.states(), strict=True)
        if state not in FINAL
    ]
    queue = _queue(asked)
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
        is_there, state = job_id in queue, queue.get(job_id, GONE)
    else:
        # A part without a process of its own has not begun, or runs in the one that submitted it.
        pid = int(job_id) if job_id.isdigit() else record.pid
        is_there = record.host != socket.gethostname() or _is_alive(pid)
    if is_there:
        return state
    # It may have said its last word after it was asked.
    said = record.states()[shard]
    return said if said in FINAL else GONE


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # no /proc
        # One that has ended stays in the table until its parent asks: after a killed one for ever.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


def _queue(job_ids: Sequence[str]) -> dict[str, str] | None:
    """State, with SLURM's reason while it waits, of each job that is in its queue; None without an answer."""
    if not job_ids:
        return {}
    numbers = sorted({job_id.split("_")[0] for job_id in job_ids})
    # Not --jobs: SLURM answers with an error when it has forgotten one of them.
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i|%T|%r"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = {}
    for line in answer.stdout.splitlines():
        job_id, state, reason = line.split("|", 2)
        if job_id.split("_")[0] in numbers:
            why = f" ({reason})" if state == "PENDING" and reason != "None" else ""
            found[job_id] = state.lower() + why
    return found


def progress_text(record: Record) -> str:
    """What the program has written so far, in words."""
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
    except (UserError, LookupError, TypeError, AttributeError):
        return f"{file}: cannot be read"
    return f"epoch {number}{f'/{num_epochs}' if num_epochs else ''}, loss {loss:.4g}"


def _batch_texts(folder: Path, job: str) -> Iterator[str]:
    """Of each program that wrote manifests: those of the job itself, else all (one job may run two)."""
    programs = [(one, program) for one in manifest_places(folder) for program in find_programs(one)]
    own = [pair for pair in programs if pair[1] == job]
    for one, program in own or programs:
        counts, total = count_items(one, program)
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        yield f"{program} {sum(counts.values())}/{total}{failed}"


def manifest_places(folder: Path) -> list[Path]:
    """The folders that hold manifests of a program that writes into `folder`.

    It itself; those of a program of several steps in it; the store of face vectors (`.embeddings/<model>`).
    """
    below = (path for pattern in ("*", ".*/*") for path in folder.glob(f"{pattern}/{FOLDER}"))
    return [folder, *sorted(path.parent for path in below)]


def count_items(output_dir: Path, program: str) -> tuple[dict[str, int], int]:
    """(items by status, items in all) of a program's manifests, whole or in shards."""
    newest: dict[str, tuple[float, str]] = {}
    total = 0
    for file in find_manifests(output_dir, program):
        with file.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:  # half a line, still being written
                    continue
                if "item" in record:
                    known = newest.get(record["item"], (-1.0, ""))
                    newest[record["item"]] = max(known, (record.get("at", 0.0), record["status"]))
                elif "run" in record:
                    total = max(total, int(record["run"].get("num_total", 0)))
    counts = {"done": 0, "failed": 0}
    for _, status in newest.values():
        counts[status] = counts.get(status, 0) + 1
    return counts, max(total, len(newest))
