"""Submissions and their state: a folder for each one, with a record, states and logs.

`<log_dir>/<date>-<time>-<job>-<hex>/record.json` is the request; `state-<shard>.json` next to it is written
by the job's first process when it starts and ends. Watching a job thus needs neither SLURM's accounting nor
submitit's pickles, which can run code.
"""

import logging
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict, cast

from facevox.cluster.job import MAX_SHARDS
from facevox.errors import UserError, one_line
from facevox.files import read_json, write_json

logger = logging.getLogger(__name__)
FORMAT = 1
RECORD_FILE = "record.json"
STAMP_LENGTH = len("20251231-235959")
DEFAULT_LOG_DIR = Path("logs/cluster")
WAITING, RUNNING, DONE, SOME_FAILED, FAILED, STOPPED, REQUEUED = (
    *("waiting", "running", "done", "some failed", "failed", "stopped", "requeued"),
)
# A job in one of these states does not continue by itself.
FINAL = (DONE, SOME_FAILED, FAILED, STOPPED)
GOOD = (DONE, SOME_FAILED)


class State(TypedDict, total=False):
    """Content of the state file of a part; empty before it starts."""

    state: str
    exit_code: int | None
    host: str
    at: float  # seconds since 1970
    num_starts: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """A submission.

    Attributes:
        folder: Its folder, after which it is named.
        job: Its name in the table of programs.
        arguments: The options of the program.
        cluster: slurm, local or debug.
        root: The repository.
        output_dir: Folder that the program writes into.
        num_epochs: Epochs of a training; 0 for other work.
        shards: Number of parts.
        stage: Name in a pipeline, or "".
        after: Names of the submissions that come first.
        job_ids: The cluster's job of each part; filled in when it accepted them.
        host, pid: The process that submitted it. On its machine local jobs are processes, numbered by
            job_ids; parts that have none yet wait for it.
        submitted_at: Seconds since 1970.
    """

    folder: Path
    job: str
    arguments: list[str]
    cluster: str
    root: Path
    output_dir: str
    num_epochs: int = 0
    shards: int = 1
    stage: str = ""
    after: list[str] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    submitted_at: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """Its name, for --after and for people."""
        return self.folder.name

    @property
    def job_numbers(self) -> str:
        """The cluster's job numbers for people: an array has one number for all of its parts."""
        return ", ".join(sorted({job_id.split("_")[0] for job_id in self.job_ids}))

    def write(self) -> None:
        """Writes it into its folder."""
        plain = {name: value for name, value in asdict(self).items() if name != "folder"}
        write_json(self.folder / RECORD_FILE, {"format": FORMAT, **plain, "root": str(self.root)})

    def state_file(self, shard: int) -> Path:
        """Path of a part's state."""
        return self.folder / f"state-{shard}.json"

    def states(self) -> list[str]:
        """The state of each part, as the job itself has written it."""
        return [self.read_state(shard).get("state", WAITING) for shard in range(self.shards)]

    def read_state(self, shard: int) -> State:
        """The state that a part's first process has written; empty before it starts."""
        return read_state(self.state_file(shard))

    def log_file(self, shard: int) -> Path:
        """The stderr of a part's first process: progress, errors."""
        job_id = self.job_ids[shard] if shard < len(self.job_ids) else "*"
        return self.folder / f"{job_id}_0_log.err"


def read_state(file: Path) -> State:
    """The content of a state file; empty if there is none yet, or a damaged one, with a message."""
    if not file.exists():
        return {}
    try:
        content = read_json(file)
    except UserError as error:
        logger.warning(one_line(error))
        return {}
    kinds = {"state": str, "exit_code": int | None, "host": str, "at": int | float, "num_starts": int}
    if not isinstance(content, dict) or not all(
        isinstance(content[name], kind) for name, kind in kinds.items() if name in content
    ):
        logger.warning(f"{file}: not the state of a part; it counts as not started")
        return {}
    return cast(State, content)


def new_folder(log_dir: Path, job: str) -> Path:
    """Creates the folder of a submission; its name is unique, unlike numbers of processes and jobs."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = log_dir.absolute() / f"{stamp}-{job}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    return folder


def load_record(folder: Path) -> Record:
    """The record in a folder.

    Raises:
        UserError: There is none, or it is of another format.
    """
    content = read_json(folder / RECORD_FILE)
    names = {info.name for info in fields(Record)} - {"folder"}
    if isinstance(content, dict):
        # Records of former versions do not have these.
        content = {"host": "", "pid": 0, "submitted_at": 0.0, **content}
    if not isinstance(content, dict) or content.get("format") != FORMAT or not names <= content.keys():
        raise UserError(f"{folder / RECORD_FILE}: no record of a submission of format {FORMAT}")
    lists = ("arguments", "after", "job_ids")
    kinds: dict[str, Any] = {
        **dict.fromkeys(("job", "cluster", "root", "output_dir", "stage", "host"), str),
        **dict.fromkeys(lists, list),
        **dict.fromkeys(("num_epochs", "shards", "pid"), int),
        "submitted_at": int | float,
    }
    wrong = [name for name, kind in kinds.items() if not isinstance(content[name], kind)]
    wrong = wrong or [name for name in lists if not all(isinstance(text, str) for text in content[name])]
    if not wrong and not 1 <= content["shards"] <= MAX_SHARDS:
        wrong = ["shards"]
    if wrong:
        raise UserError(f"{folder / RECORD_FILE}: damaged: {wrong[0]} is {content[wrong[0]]!r}")
    return Record(folder=folder, **{name: content[name] for name in names} | {"root": Path(content["root"])})


def load_records(log_dir: Path) -> list[Record]:
    """All submissions below a folder, the oldest first, without damaged ones, which a message names."""
    records = []
    for file in log_dir.absolute().glob(f"*/{RECORD_FILE}"):
        try:
            records.append(load_record(file.parent))
        except UserError as error:
            logger.warning(f"left out: {one_line(error)}")
    return sorted(records, key=lambda record: (record.name[:STAMP_LENGTH], record.submitted_at, record.name))


def find_record(log_dir: Path, name: str) -> Record | None:
    """The submission with a name, or with a job of that number; None for the number of another job.

    Raises:
        UserError: Neither a name here nor a number.
    """
    records = load_records(log_dir)
    for record in reversed(records):
        if name == record.name or name in record.job_ids:
            return record
        if any(job_id.split("_")[0] == name for job_id in record.job_ids):
            return record
    if name.isdigit():
        return None
    latest = ", ".join(record.name for record in records[-5:]) or "none"
    raise UserError(f"--after {name}: no such submission in {log_dir}; the last ones are: {latest}")
