"""One run at a time in an output folder: a lock file with host, process and heartbeat."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from facevox.errors import UserError

HEARTBEAT_S = 5.0
# A lock of another machine whose heartbeat is older is dead: twelve missed beats, above the attribute
# cache of NFS (up to 60 s by default would be the worst case for a busy mount; beats renew it sooner).
STALE_AFTER_S = 60.0


class OutputLock:
    """Holds a lock file while a run lasts; a second run is refused, a dead one's lock is taken over.

    Args:
        path: The lock file; its folder exists.
        stale_after_s: Age of the heartbeat at which a lock of another machine counts as dead.

    Attributes:
        token: Names this run in the lock and in its temporary files.
        dead_token: The token of the dead run whose lock was taken over, or "".
        lost: True once another run took this lock over (this process had been suspended, say).
    """

    def __init__(self, path: Path, stale_after_s: float = STALE_AFTER_S) -> None:
        self.path = path
        self.token = secrets.token_hex(6)
        self.dead_token = ""
        self.dead_owner = ""
        self.lost = False
        self._stale_after_s = stale_after_s
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "OutputLock":
        for _ in range(10):  # each round loses only against another process that made progress
            if self._create():
                break
            self._clear_if_dead()
        else:
            raise UserError(f"{self.path}: the lock keeps changing hands; try again in a minute")
        self._thread = threading.Thread(target=self._beat, name="lock heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if self._owner(self.path).get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Makes the lock appear with its content, or finds that there is one already."""
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "namespace": _pid_namespace(),
            "token": self.token,
        }
        draft = self.path.with_name(f".{self.token}.lock-draft")
        draft.write_text(json.dumps(me), encoding="utf-8")
        try:
            os.link(draft, self.path)  # atomic, and fails when the lock exists, also over NFS
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _clear_if_dead(self) -> None:
        owner = self._owner(self.path)
        if not owner and not self.path.exists():
            return  # released meanwhile
        where = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        age_s = self._age_s()
        if not self._is_dead(owner, age_s):
            raise UserError(
                f"{self.path.parent.parent}: another run is writing there ({where}, heartbeat "
                f"{age_s:.0f} s ago); wait for it, or use another output folder"
            )
        # Of several that see the dead lock one wins the rename; it makes sure it moved the dead one.
        grave = self.path.with_name(f".{self.token}.lock-dead")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        if self._owner(grave).get("token") == owner.get("token"):
            self.dead_token, self.dead_owner = str(owner.get("token", "")), where
        else:
            with contextlib.suppress(FileExistsError):
                os.link(grave, self.path)
        grave.unlink(missing_ok=True)

    def _is_dead(self, owner: dict[str, Any], age_s: float) -> bool:
        here = owner.get("host") == socket.gethostname() and owner.get("namespace") == _pid_namespace()
        if here and isinstance(owner.get("pid"), int):
            # The start time tells the process from a later one of the same number.
            return _process_start(owner["pid"]) != owner.get("started")
        return age_s > self._stale_after_s

    def _age_s(self) -> float:
        """Seconds since the heartbeat, by the clock of the file system (machines' clocks differ)."""
        probe = self.path.with_name(f".{self.token}.lock-clock")
        try:
            probe.touch()
            return max(probe.stat().st_mtime - self.path.stat().st_mtime, 0.0)
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_S):
            try:
                if self._owner(self.path).get("token") != self.token:
                    self.lost = True
                    return
                os.utime(self.path)
            except OSError:
                time.sleep(0)  # a hiccup of the file system; the next beat tries again

    @staticmethod
    def _owner(path: Path) -> dict[str, Any]:
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}


def _process_start(pid: int) -> str:
    """When the process started, as a text to compare; "" where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        state, start = fields.split()[0], fields.split()[19]  # fields 3 and 22 of proc(5)
        return "" if state in "ZX" else f"{boot}:{start}"
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:  # macOS has no /proc: existence is all that can be told
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
