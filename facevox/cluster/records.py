"""What was submitted, and how far it is: a folder for each submission, with a record, states and logs.

`<log_dir>/<date>-<time>-<job>-<hex>/record.json` says what was asked for; `state-<shard>.json` beside it is
written by the job's first process as it starts and ends. Whoever watches needs neither accounting nor
submitit's pickles, which would run what is in them.
"""

import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from facevox.errors import UserError
from facevox.files import read_json, write_json

FORMAT = 1
RECORD_FILE = "record.json"
STAMP_LENGTH = len("20251231-235959")
DEFAULT_LOG_DIR = Path("logs/cluster")
WAITING, RUNNING, DONE, SOME_FAILED, FAILED, STOPPED, REQUEUED = (
    *("waiting", "running", "done", "some failed", "failed", "stopped", "requeued"),
)
# After these a job comes no further by itself.
FINAL = (DONE, SOME_FAILED, FAILED, STOPPED)
GOOD = (DONE, SOME_FAILED)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One submission.

    Attributes:
        folder: Its folder; its name names the submission.
        job: Its name in the table of programs.
        arguments: The options of the program.
        cluster: slurm, local or debug.
        root: The repository.
        output_dir: Folder that the program writes into.
        num_epochs: Of a training; 0 for other work.
        shards: Parts.
        stage: Name in a pipeline, or "".
        after: Names of the submissions that come first.
        job_ids: Of the cluster, one for each part; filled in when it took them.
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
        """What --after and people call it."""
        return self.folder.name

    def write(self) -> None:
        """Writes it into its folder."""
        plain = {name: value for name, value in asdict(self).items() if name != "folder"}
        write_json(self.folder / RECORD_FILE, {"format": FORMAT, **plain, "root": str(self.root)})

    def state_file(self, shard: int) -> Path:
        """Where a part's state lies."""
        return self.folder / f"state-{shard}.json"

    def states(self) -> list[str]:
        """The state of each part, as the job itself tells it."""
        return [str(self.read_state(shard).get("state", WAITING)) for shard in range(self.shards)]

    def read_state(self, shard: int) -> dict[str, Any]:
        """What a part's first process has written; empty before it starts."""
        file = self.state_file(shard)
        return dict(read_json(file)) if file.exists() else {}

    def log_file(self, shard: int) -> Path:
        """What the first process of a part prints to stderr: progress, errors."""
        job_id = self.job_ids[shard] if shard < len(self.job_ids) else "*"
        return self.folder / f"{job_id}_0_log.err"


def new_folder(log_dir: Path, job: str) -> Path:
    """A folder of its own for a submission: numbers of processes and jobs come again one day."""
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
    names = {one.name for one in fields(Record)} - {"folder"}
    if isinstance(content, dict):
        # Records of former versions do not say.
        content = {"host": "", "pid": 0, "submitted_at": 0.0, **content}
    if not isinstance(content, dict) or content.get("format") != FORMAT or not names <= content.keys():
        raise UserError(f"{folder / RECORD_FILE}: no record of a submission of format {FORMAT}")
    return Record(folder=folder, **{name: content[name] for name in names} | {"root": Path(content["root"])})


def load_records(log_dir: Path) -> list[Record]:
    """All submissions below a folder, the oldest first."""
    records = [load_record(file.parent) for file in log_dir.absolute().glob(f"*/{RECORD_FILE}")]
    return sorted(records, key=lambda record: (record.name[:STAMP_LENGTH], record.submitted_at, record.name))


def find_record(log_dir: Path, name: str) -> Record | None:
    """The submission of a name, or of one of its job numbers; None for a number of another job.

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
    known = ", ".join(record.name for record in records[-5:]) or "none"
    raise UserError(f"--after {name}: no such submission in {log_dir}; the last ones are: {known}")
