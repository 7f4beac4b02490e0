"""One run at a time in an output folder: a lock file with host, process and heartbeat."""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from facevox.errors import UserError
from facevox.files import remove_temporaries

logger = logging.getLogger(__name__)
HEARTBEAT_S = 5.0
# Where only the heartbeat shows whether a run is alive (see `_is_dead`), an older one counts as dead: twelve
# missed beats, above the attribute cache of NFS (60 s by default in the worst case of a busy mount; beats
# renew it sooner).
STALE_AFTER_S = 60.0


class HeldError(UserError):
    """Another run that is alive holds the lock."""


class OutputLock:
    """Holds a lock file while a run lasts; a second run is refused, a dead one's lock is taken over.

    Args:
        path: The lock file; its folder exists.
        stale_after_s: Age of the heartbeat at which a lock counts as dead if its process cannot be examined
            from here (another machine, container or boot; hidden by the system).

    Attributes:
        token: Identifies this run in the lock and in its temporary files.
        dead_token: The token of the dead run whose lock was taken over, or "".
        dead_owner: Its process and host, for messages.
        lost: True once another run took this lock over (this process had been suspended, say) or the
            lock file was missing for two beats.
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
            with _one_at_a_time(self.path.parent):
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
        """Creates the lock with its content; False if there is one already."""
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "boot": _boot_id(),
            "namespace": _pid_namespace(),
            "token": self.token,
        }
        draft = self.path.with_name(f".{self.token}.lock-draft")
        try:
            draft.write_text(json.dumps(me), encoding="utf-8")
            self._place(draft)
        except FileExistsError:
            # NFS repeats a request whose reply got lost: the first one may have created the lock.
            return self._owner(self.path).get("token") == self.token
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _place(self, source: Path) -> None:
        """Creates the lock with the content of `source`.

        Raises:
            FileExistsError: There is a lock already; it is left alone.
        """
        try:
            os.link(source, self.path)  # atomic with the content, also over NFS
            return
        except FileExistsError:
            raise
        except OSError:
            content = source.read_bytes()  # no hard links here (exFAT, some network shares)
        file = self.path.open("xb")
        try:
            with file:
                file.write(content)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise

    def _clear_if_dead(self) -> None:
        owner = self._owner(self.path)
        if not owner and not self.path.exists():
            return  # released meanwhile
        where = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        age_s = self._age_s()
        if not self._is_dead(owner, age_s):
            raise HeldError(
                f"{self.path.parent.parent}: another run is writing there ({where}, heartbeat "
                f"{age_s:.0f} s ago); wait for it, or use another output folder"
            )
        # Where `_one_at_a_time` has no effect, several runs may see the dead lock: one wins the rename, and
        # checks that it moved the dead lock and not a live one that replaced it meanwhile.
        moved = self.path.with_name(f".{self.token}.lock-dead")
        try:
            self.path.rename(moved)
        except FileNotFoundError:
            return
        if self._owner(moved).get("token") == owner.get("token"):
            self.dead_token, self.dead_owner = str(owner.get("token", "")), where
        else:
            with contextlib.suppress(FileExistsError):
                self._place(moved)
        moved.unlink(missing_ok=True)

    def clear_dead_run(self, work: str, *folders: Path) -> None:
        """Removes the half-written files in `folders` of the run whose lock was taken over, if there was one.

        Args:
            work: Name of the work, for the message.
            folders: Folders that it wrote into.
        """
        if self.dead_token:
            num = sum(remove_temporaries(folder, self.dead_token) for folder in folders)
            logger.info(
                f"{work}: taking over from {self.dead_owner}, which is gone "
                f"({num} half-written files removed)"
            )

    def _is_dead(self, owner: Mapping[str, object], age_s: float) -> bool:
        """True by the process itself where it can be examined, else by the age of the heartbeat."""
        pid, started, boot = owner.get("pid"), owner.get("started"), _boot_id()
        # Host names repeat (cloned machines, containers), and so do namespace numbers; boot ids do not.
        is_here = (owner.get("host"), owner.get("namespace")) == (socket.gethostname(), _pid_namespace())
        if is_here and boot and owner.get("boot") == boot and isinstance(pid, int):
            start = _process_start(pid)
            if start and started:  # the start time distinguishes it from a later process of the same number
                return start != started
            if start == "" or _is_gone(pid):
                return True
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
        num_missing = 0
        while not self._done.wait(HEARTBEAT_S):
            try:
                self.lost = _read_owner(self.path)["token"] != self.token
                if not self.lost:
                    os.utime(self.path)
                num_missing = 0
            except FileNotFoundError:
                num_missing += 1  # a file on NFS may vanish for a moment: only two times in a row count
                self.lost = num_missing > 1
            except (OSError, ValueError):
                num_missing = 0  # a passing error does not mean another owner; the next beat tries again
            if self.lost:
                return

    @staticmethod
    def _owner(path: Path) -> dict[str, object]:
        """Content of the lock, or {} where it cannot be read."""
        try:
            return _read_owner(path)
        except (OSError, ValueError):
            return {}


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Admits the processes of this machine one after the other; has no effect on NFS and the like.

    Without it, a process that saw a dead lock could move away the live one that replaced it meanwhile.
    """
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that locks no folders
            fcntl.flock(folder_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder_fd)  # releases the lock on the folder


def _read_owner(path: Path) -> dict[str, object]:
    """Content of the lock, with a token at least.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a lock, or only a part of one.
    """
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        owner = None
    if not isinstance(owner, dict) or not isinstance(owner.get("token"), str):
        raise ValueError(f"{path}: not a lock")
    return owner


def _process_start(pid: int) -> str | None:
    """Start time of the process, in clock ticks since the boot, as a text to compare.

    "" for a process that has ended; None where it is unknown: no such process, a hidden one (hidepid of
    proc(5)), or a system without /proc.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return None
    state, start = fields.split()[0], fields.split()[19]  # fields 3 and 22 of proc(5)
    return "" if state in "ZX" else start


def _is_gone(pid: int) -> bool:
    """True if there certainly is no such process, in /proc or not."""
    try:
        os.kill(pid, 0)  # signal 0 sends nothing, it only checks
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):  # another user's; a number that is no process number
        return False
    return False


def _boot_id() -> str:
    """Identifier of this boot of this machine; "" on systems that have none (macOS)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
