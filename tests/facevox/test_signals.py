"""Flags that signals raise."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from facevox.signals import PATIENCE_S, STOP_SIGNALS, StopFlag


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_signal_raises_the_flag_and_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in STOP_SIGNALS]
    with StopFlag() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal_name == number.name
    assert [signal.getsignal(one) for one in STOP_SIGNALS] == before


def test_flag_inside_a_raised_one_is_raised() -> None:
    with StopFlag() as outer:
        with StopFlag() as early:
            assert not early
        os.kill(os.getpid(), signal.SIGUSR2)
        assert outer
        with StopFlag() as inner:
            assert inner.signal_name == "SIGUSR2"


def test_second_interrupt_is_not_waited_for() -> None:
    with StopFlag(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


WAITING = """
import os, signal, time
from facevox.signals import StopFlag

with StopFlag() as stop:
    os.kill(os.getpid(), signal.{name})
    while not stop:
        time.sleep(0.01)
"""


@pytest.mark.parametrize(("name", "said"), [("SIGINT", b"Ctrl-C again stops at once"), ("SIGTERM", b"")])
def test_ctrl_c_is_answered_on_a_terminal(name: str, said: bytes) -> None:
    reader, writer = pty.openpty()
    try:
        words = [sys.executable, "-c", WAITING.format(name=name)]
        assert subprocess.run(words, stderr=writer, timeout=120).returncode == 0
        os.write(writer, b"|")
        shown = os.read(reader, 1000)
    finally:
        os.close(reader)
        os.close(writer)
    assert said in shown
    assert (shown == b"|") == (said == b"")


STUBBORN = """
import multiprocessing, time
from facevox.signals import end_children_at_exit, ignore_stop_signals

def stay(started):
    ignore_stop_signals()
    started.set()
    time.sleep(600)

end_children_at_exit()
context = multiprocessing.get_context("fork")
started = context.Event()
child = context.Process(target=stay, args=(started,), daemon=True)
child.start()
started.wait()
print(child.pid)
"""


def test_program_ends_though_a_worker_ignores_the_signals() -> None:
    command = [sys.executable, "-c", STUBBORN]
    done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_patience_for_the_item_at_hand(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with StopFlag() as stop:
        assert not stop.is_overdue
        os.kill(os.getpid(), number)
        most_s = PATIENCE_S.get(number.name, 1e9)
        now_s += most_s - 1
        assert stop
        assert not stop.is_overdue
        now_s += 2
        assert stop.is_overdue == (number != signal.SIGINT)


def test_second_signal_can_only_shorten_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        now_s += 100
        os.kill(os.getpid(), signal.SIGTERM)
        now_s += PATIENCE_S["SIGTERM"] - 1
        assert not stop.is_overdue
        now_s += 2
        assert stop.is_overdue
        with StopFlag() as inner:
            assert inner.is_overdue
