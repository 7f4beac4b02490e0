"""The lock of an output folder."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facevox.errors import UserError
from facevox.locks import OutputLock


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    (tmp_path / "manifests").mkdir()
    return tmp_path / "manifests" / "x.lock"


def write_owner(path: Path, **changes: object) -> None:
    owner = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": "1", "token": "old", **changes}
    owner.setdefault("namespace", str(Path("/proc/self/ns/pid").readlink()))
    owner.setdefault("boot", Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
    path.write_text(json.dumps(owner), encoding="utf-8")


def make_old(path: Path) -> float:
    """When the file is said to have been changed, in seconds since 1970."""
    past_s = round(time.time()) - 100
    os.utime(path, (past_s, past_s))
    return past_s


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def read_failing_at(
    monkeypatch: pytest.MonkeyPatch, path: Path, failures: dict[int, Exception]
) -> Callable[[], int]:
    """Makes the reads of `path` with these numbers (from 1) fail; returns the count of the reads so far."""
    real_read, num_reads = Path.read_text, 0

    def read(self: Path, *args: Any, **options: Any) -> str:
        nonlocal num_reads
        if self == path:
            num_reads += 1
            if num_reads in failures:
                raise failures[num_reads]
        return real_read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", read)
    return lambda: num_reads


def test_lock_is_there_while_held_and_gone_after(lock_file: Path) -> None:
    with OutputLock(lock_file):
        assert json.loads(lock_file.read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert list(lock_file.parent.iterdir()) == []


def test_second_holder_is_refused_with_host_pid_and_age(lock_file: Path) -> None:
    with (
        OutputLock(lock_file),
        pytest.raises(UserError, match=f"process {os.getpid()} on {socket.gethostname()}"),
    ):
        OutputLock(lock_file).__enter__()


def test_lock_of_a_process_that_is_gone_is_taken_over(lock_file: Path) -> None:
    write_owner(lock_file)
    with OutputLock(lock_file) as lock:
        assert lock.dead_token == "old"


def test_number_of_a_dead_process_that_another_one_has_now_does_not_fool_it(lock_file: Path) -> None:
    write_owner(lock_file, pid=os.getpid())
    with OutputLock(lock_file) as lock:
        assert lock.dead_token == "old"


def test_other_machine_is_believed_while_its_heart_beats(lock_file: Path) -> None:
    write_owner(lock_file, host="another-machine")
    with pytest.raises(UserError, match="another-machine"):
        OutputLock(lock_file, stale_after_s=60).__enter__()
    make_old(lock_file)
    with OutputLock(lock_file, stale_after_s=60) as lock:
        assert lock.dead_token == "old"


def test_broken_lock_file_is_taken_over_once_it_is_old(lock_file: Path) -> None:
    lock_file.write_text("{", encoding="utf-8")
    make_old(lock_file)
    with OutputLock(lock_file) as lock:
        assert json.loads(lock_file.read_text(encoding="utf-8"))["token"] == lock.token


def test_of_many_that_find_a_dead_lock_exactly_one_wins(lock_file: Path) -> None:
    write_owner(lock_file)
    won, refused, barrier, done = [], [], threading.Barrier(8), threading.Event()

    def contend() -> None:
        lock = OutputLock(lock_file)
        barrier.wait()
        try:
            with lock:
                won.append(lock.token)
                done.wait(60)
        except UserError:
            refused.append(1)
            if len(refused) == 7:
                done.set()

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)


@pytest.mark.parametrize(
    "failures",
    [
        {1: OSError(errno.ESTALE, "stale"), 2: OSError(errno.EIO, "input/output")},
        {1: ValueError("half of the content")},
        {1: FileNotFoundError(errno.ENOENT, "blinked"), 3: FileNotFoundError(errno.ENOENT, "again, later")},
    ],
)
def test_hiccup_of_the_file_system_does_not_lose_the_lock(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch, failures: dict[int, Exception]
) -> None:
    monkeypatch.setattr("facevox.locks.HEARTBEAT_S", 0.01)
    num_reads = read_failing_at(monkeypatch, lock_file, failures)
    with OutputLock(lock_file) as lock:
        past_s = make_old(lock_file)
        wait_until(lambda: num_reads() > 4)
        assert not lock.lost
        assert lock_file.stat().st_mtime > past_s  # the heart beats on
    assert not lock_file.exists()


def test_lock_that_another_run_has_now_is_lost_and_left_to_it(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facevox.locks.HEARTBEAT_S", 0.01)
    with OutputLock(lock_file) as lock:
        theirs = lock_file.with_name("theirs")
        write_owner(theirs, token="theirs")
        theirs.replace(lock_file)
        wait_until(lambda: lock.lost)
    assert json.loads(lock_file.read_text(encoding="utf-8"))["token"] == "theirs"


def test_lock_that_stays_away_is_lost_at_the_second_beat(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facevox.locks.HEARTBEAT_S", 0.01)
    num_reads = read_failing_at(monkeypatch, lock_file, {})
    with OutputLock(lock_file) as lock:
        lock_file.unlink()
        wait_until(lambda: lock.lost)
        assert num_reads() >= 2


@pytest.mark.parametrize("change", [{"boot": "of another machine"}, {"boot": ""}, {"namespace": "another"}])
def test_machine_of_the_same_name_is_believed_while_its_heart_beats(
    lock_file: Path, change: dict[str, str]
) -> None:
    write_owner(lock_file, **change)
    with pytest.raises(UserError, match="another run is writing there"):
        OutputLock(lock_file).__enter__()
    make_old(lock_file)
    with OutputLock(lock_file) as lock:
        assert lock.dead_token == "old"


def test_hidden_process_of_another_user_is_believed_while_its_heart_beats(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = 2**22 + 1
    write_owner(lock_file, pid=pid)

    def refuse(asked_pid: int, signal_number: int) -> None:
        assert (asked_pid, signal_number) == (pid, 0)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(UserError, match=f"process {pid} "):
        OutputLock(lock_file).__enter__()
    make_old(lock_file)
    with OutputLock(lock_file) as lock:
        assert lock.dead_token == "old"


def test_process_that_ended_but_is_not_yet_collected_is_dead(lock_file: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # to the end, which comes when the child exits
    stat = Path(f"/proc/{child.pid}/stat")
    wait_until(lambda: ") Z " in stat.read_text(encoding="utf-8"))
    start = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    write_owner(lock_file, pid=child.pid, started=start)
    with OutputLock(lock_file) as lock:
        assert lock.dead_token == "old"
    child.communicate()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_lock_works_on_a_file_system_without_hard_links(
    lock_file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    write_owner(lock_file)
    with OutputLock(lock_file) as lock:
        assert lock.dead_token == "old"
        assert json.loads(lock_file.read_text(encoding="utf-8"))["token"] == lock.token
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            OutputLock(lock_file).__enter__()
        assert list(lock_file.parent.iterdir()) == [lock_file]
    assert list(lock_file.parent.iterdir()) == []


def test_link_that_nfs_made_twice_is_still_ours(lock_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_link = os.link

    def link_and_repeat(source: Path, target: Path) -> None:
        real_link(source, target)
        real_link(source, target)

    monkeypatch.setattr(os, "link", link_and_repeat)
    with OutputLock(lock_file) as lock:
        assert json.loads(lock_file.read_text(encoding="utf-8"))["token"] == lock.token
    assert list(lock_file.parent.iterdir()) == []


def test_full_disk_leaves_nothing_behind(lock_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(self: Path, *args: Any, **options: Any) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(OSError, match="No space left"):
        OutputLock(lock_file).__enter__()
    assert list(lock_file.parent.iterdir()) == []
