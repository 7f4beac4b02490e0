"""The event loop's time that clients take, counted without sockets."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from emotion.serving import intake
from emotion.serving.intake import LARGEST_BYTES, MOST_WASTE_S, PIECE_BYTES, Intake
from emotion.serving.loop_time import (
    BURST_S,
    FREE_S,
    LONGEST_S,
    MEMORY_S,
    MOST_ADDRESSES,
    SHARE,
    Account,
    LoopTime,
)

WASTE = b"\x89\x80\0\0\0\0"


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_was_taken_is_forgotten_in_time(clock: Clock) -> None:
    times = LoopTime(clock)
    account = times.of_address("192.0.2.1")
    times.take(account, 10.0)  # others have taken the share: those who took little need none of it
    assert times.is_free(account)
    times.add(account, 2 * FREE_S)
    times.take(account, BURST_S + 0.01)
    assert times.of_address("192.0.2.1") is account
    assert not times.is_free(account)
    assert times.is_free(times.of_address("192.0.2.2"))
    clock.now_s += MEMORY_S
    assert account.level_s(clock()) == pytest.approx(2 * FREE_S / 2.71828, rel=1e-4)
    assert times.is_free(account)


def test_those_who_took_much_have_a_tenth_together(clock: Clock) -> None:
    times = LoopTime(clock)
    accounts = [times.of_address(str(k)) for k in range(20)]
    turns_s: list[float] = []
    asyncio.run(share_turns(times, accounts, clock, turns_s))  # 20 s
    taken_s = 0.005 * len(turns_s)
    assert BURST_S + SHARE * 20 - 0.02 < taken_s < BURST_S + SHARE * 20 + 0.02


async def share_turns(times: LoopTime, accounts: list[Account], clock: Clock, turns_s: list[float]) -> None:
    """Lets all take turns of 5 ms for twenty seconds of `clock`."""

    def turn(account: Account) -> None:
        turns_s.append(clock())
        times.add(account, 0.05)
        times.take(account, 0.005)
        times.wait(account, account, lambda: turn(account))

    for account in accounts:
        times.add(account, 2 * FREE_S)
        times.wait(account, account, lambda account=account: turn(account))  # type: ignore[misc]
    for _ in range(20_000):
        times.next_turn()
        clock.now_s += 0.001


def test_who_took_least_has_the_next_turn_and_who_left_has_none(clock: Clock) -> None:
    times, calls = LoopTime(clock), list[str]()

    async def run() -> None:
        for name, seconds in (("much", 3.0), ("little", 1.0), ("gone", 0.5), ("more", 2.0)):
            account = times.of_address(name)
            times.add(account, seconds)
            times.wait(name, account, lambda name=name: calls.append(name))  # type: ignore[misc]
        times.forget("gone")
        times.forget("nobody")
        while len(calls) < 3:
            times.next_turn()

    asyncio.run(run())
    assert calls == ["little", "more", "much"]


def test_turns_come_though_others_take_time_without_one(clock: Clock) -> None:
    times = LoopTime(clock)
    account = times.of_address("192.0.2.1")
    times.add(account, 100.0)
    for _ in range(1000):
        times.take(account, 1.0)
    clock.now_s += LONGEST_S + 1e-6
    assert times.is_free(account)


def test_table_of_addresses_is_bounded_and_keeps_those_who_took_most(clock: Clock) -> None:
    times = LoopTime(clock)
    worst = times.of_address("worst")
    times.add(worst, 1.0)
    for k in range(3 * MOST_ADDRESSES):
        times.of_address(str(k))
        assert len(times._addresses) <= MOST_ADDRESSES
    assert times.of_address("worst") is worst


class Line:
    """A connection without a socket, whose parser takes `cost_s` for each empty frame."""

    def __init__(self, times: LoopTime, cost_s: float = 1e-5, address: str | None = "192.0.2.1") -> None:
        self.is_reading, self.is_closed, self.is_cut = True, False, False
        self.pieces: list[bytes] = []
        self.cost_s = cost_s
        transport = SimpleNamespace(
            pause_reading=lambda: setattr(self, "is_reading", False),
            resume_reading=lambda: setattr(self, "is_reading", True),
            is_closing=lambda: self.is_closed,
            get_extra_info=lambda name: name,
        )
        account = None if address is None else times.of_address(address)
        self.intake = Intake(cast(asyncio.Transport, transport), times, account, self.parse, self.end)

    def parse(self, piece: bytes) -> None:
        self.pieces.append(bytes(piece))
        Threads.now_s += self.cost_s * self.pieces[-1].count(WASTE)

    def end(self) -> None:
        self.is_cut = self.is_closed = True


class Threads:
    """The time that the thread has worked."""

    now_s = 0.0


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser's time is the stated one."""
    Threads.now_s = 0.0
    monkeypatch.setattr(intake, "time", SimpleNamespace(thread_time=lambda: Threads.now_s))


@pytest.mark.usefixtures("worked")
def test_pictures_are_parsed_at_once_and_never_counted(clock: Clock) -> None:
    times = LoopTime(clock)
    line = Line(times)
    for _ in range(1000):
        line.pieces.clear()
        line.intake.put(bytes(200_000))
        Threads.now_s += 0.0001
        assert b"".join(line.pieces) == bytes(200_000)
        assert line.is_reading
    assert times.of_address("192.0.2.1").level_s(clock()) == 0
    assert line.intake.get_extra_info("peername") == "peername"  # all else is the transport's


@pytest.mark.usefixtures("worked")
def test_packets_of_a_network_are_not_counted_and_single_bytes_are(clock: Clock) -> None:
    times = LoopTime(clock)
    packets, single = Line(times, address="192.0.2.1"), Line(times, address="192.0.2.2")
    for _ in range(1000):
        packets.intake.put(bytes(1448))
    assert times.of_address("192.0.2.1").level_s(clock()) == 0

    async def run() -> None:
        for _ in range(1000):
            single.intake.put(b"x")

    asyncio.run(run())
    assert times.of_address("192.0.2.2").level_s(clock()) > FREE_S


@pytest.mark.usefixtures("worked")
def test_waste_stops_reading_until_its_turn_and_ends_in_a_cut(clock: Clock) -> None:
    times = LoopTime(clock)
    line = Line(times)
    data = 43_000 * WASTE  # a read of asyncio's

    async def run() -> float:
        start_s = clock()
        while not line.is_cut:
            before_s = Threads.now_s
            if line.is_reading:
                line.intake.put(data)
            await asyncio.sleep(0)
            times.next_turn()
            assert Threads.now_s - before_s < 0.04  # the turn, and some more where none is needed yet
            clock.now_s += max(Threads.now_s - before_s, 0.001)
            assert clock() < start_s + 30
        return clock() - start_s

    seconds = asyncio.run(run())
    assert Threads.now_s < BURST_S + SHARE * seconds + 0.05
    assert MOST_WASTE_S < Threads.now_s < 2 * MOST_WASTE_S
    assert len(line.pieces[0]) == len(line.pieces[-2]) == PIECE_BYTES
    assert max(map(len, line.pieces)) <= LARGEST_BYTES


@pytest.mark.usefixtures("worked")
def test_address_that_comes_back_still_waits_and_others_do_not(clock: Clock) -> None:
    times = LoopTime(clock)
    account = times.of_address("192.0.2.1")
    times.add(account, 5.0)
    for _ in range(10):
        times.take(account, 1.0)

    async def run() -> None:
        back, other, proxy = Line(times), Line(times, address="192.0.2.2"), Line(times, address=None)
        for line in (back, other, proxy):
            line.intake.put(b"GET")
        assert (back.pieces, other.pieces, proxy.pieces) == ([], [b"GET"], [b"GET"])
        assert not back.is_reading
        clock.now_s += LONGEST_S + 0.01
        times.next_turn()
        assert back.pieces == [b"GET"]
        assert back.is_reading
        times.take(account, 1.0)
        back.intake.put(b"more")
        back.intake.drop()  # it is gone, and so is what it sent
        clock.now_s += LONGEST_S + 0.01
        times.next_turn()
        assert back.pieces == [b"GET"]

    asyncio.run(run())


@pytest.mark.usefixtures("worked")
def test_camera_is_not_held_up_by_others_of_its_address(clock: Clock) -> None:
    times = LoopTime(clock)
    camera = Line(times)
    camera.intake.become_camera(camera.parse, camera.end)
    account = times.of_address("192.0.2.1")
    times.add(account, 5.0)
    times.take(account, 100.0)
    camera.intake.put(b"frame")
    assert camera.pieces == [b"frame"]


@pytest.mark.usefixtures("worked")
def test_protocol_that_paused_gets_the_rest_when_it_goes_on(clock: Clock) -> None:
    line = Line(LoopTime(clock))

    def parse(piece: bytes) -> None:
        line.pieces.append(bytes(piece))
        line.intake.pause_reading()

    async def run() -> None:
        line.intake.become_camera(parse, line.end)
        data = bytes(range(256)) * 50
        line.intake.put(data)
        while len(b"".join(line.pieces)) < len(data):
            assert not line.is_reading
            before = len(line.pieces)
            line.intake.resume_reading()
            await asyncio.sleep(0)
            assert len(line.pieces) == before + 1
        assert b"".join(line.pieces) == data
        line.intake.resume_reading()
        assert line.is_reading

    asyncio.run(run())
