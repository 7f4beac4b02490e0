"""The lock of an output folder."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from facevox.errors import UserError
from facevox.locks import OutputLock


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    (tmp_path / "manifests").mkdir()
    return tmp_path / "manifests" / "x.lock"


def write_owner(path: Path, **changes: object) -> None:
    owner = {"host": socket.gethostname(), "pid": 2**22 + 1, "started": "boot:1", "token": "old", **changes}
    owner.setdefault("namespace", str(Path("/proc/self/ns/pid").readlink()))
    path.write_text(json.dumps(owner), encoding="utf-8")


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
    past = time.time() - 100
    os.utime(lock_file, (past, past))
    with OutputLock(lock_file, stale_after_s=60) as lock:
        assert lock.dead_token == "old"


def test_broken_lock_file_is_taken_over_once_it_is_old(lock_file: Path) -> None:
    lock_file.write_text("{", encoding="utf-8")
    past = time.time() - 100
    os.utime(lock_file, (past, past))
    with OutputLock(lock_file):
        pass


def test_of_many_that_find_a_dead_lock_exactly_one_wins(lock_file: Path) -> None:
    write_owner(lock_file)
    won, refused, barrier, done = [], [], threading.Barrier(8), threading.Event()

    def contend() -> None:
        lock = OutputLock(lock_file)
        barrier.wait()
        try:
            with lock:
                won.append(lock.token)
                done.wait(5)
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
