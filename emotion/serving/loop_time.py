"""The event loop's time that clients take, and their turns where they took too much of it.

All clients share one thread that parses what they send. Time that it spends on frames, files and a few
requests is not counted; what goes beyond is, by the address and by the connection, and forgotten within half
a minute. Who took much waits for a turn, and all those together get a tenth of the loop's time.
"""

import asyncio
import math
import time
from collections.abc import Callable

SHARE = 0.1  # of the loop's time, for all together that took more than FREE_S
BURST_S = 0.3  # of it at once, where there was no need of turns for some seconds
LONGEST_S = 0.3  # without any turn, though others take time without one, as by mere connecting
MEMORY_S = 10.0  # after this time a third of what was taken still counts
FREE_S = 0.05  # 40 requests, and half of that again every ten seconds
WASTE_WEIGHT = 10  # time spent on bytes that carry nothing counts as many times
MOST_ADDRESSES = 10_000


class Account:
    """The time that an address or a connection took lately, weighted."""

    def __init__(self, now_s: float) -> None:
        self._level_s, self._seen_s = 0.0, now_s

    def level_s(self, now_s: float) -> float:
        """Weighted time that counts now."""
        return self._level_s * math.exp((self._seen_s - now_s) / MEMORY_S)

    def add(self, seconds: float, now_s: float) -> float:
        """Counts weighted time; returns what counts now."""
        self._level_s, self._seen_s = self.level_s(now_s) + seconds, now_s
        return self._level_s


class LoopTime:
    """The accounts of all addresses, and the turns of those that took much; for the event loop alone.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses: dict[str, Account] = {}
        # Of those that wait: their account, by which they are ordered, and what they do in their turn.
        self._waiting: dict[object, tuple[Account, Callable[[], None]]] = {}
        self._room_s = -math.inf  # time at which the share is free to the last bit
        self._timer: asyncio.TimerHandle | None = None

    def new_account(self) -> Account:
        """An account that nothing was counted on."""
        return Account(self._clock())

    def of_address(self, key: str) -> Account:
        """The account of an address, as `address_key` returns it."""
        if key not in self._addresses:
            if len(self._addresses) >= MOST_ADDRESSES:
                self._forget_addresses()
            self._addresses[key] = self.new_account()
        return self._addresses[key]

    def _forget_addresses(self) -> None:
        """Keeps the half of the addresses that took most."""
        now_s = self._clock()
        by_level = sorted(self._addresses.items(), key=lambda item: item[1].level_s(now_s))
        self._addresses = dict(by_level[MOST_ADDRESSES // 2 :])

    def add(self, account: Account, seconds: float) -> float:
        """Counts time on an account; returns what counts there now."""
        return account.add(seconds, self._clock())

    def is_over(self, account: Account) -> bool:
        """True if what was taken is more than nobody has to wait for."""
        return account.level_s(self._clock()) > FREE_S

    def take(self, account: Account, seconds: float) -> None:
        """Takes time out of the share of those that have to wait, unless the account is none of them."""
        now_s = self._clock()
        if self.is_over(account):
            room_s = max(self._room_s, now_s - BURST_S / SHARE) + seconds / SHARE
            self._room_s = min(room_s, now_s + LONGEST_S)

    def is_free(self, account: Account) -> bool:
        """True if the client may continue now, without a turn."""
        return not self.is_over(account) or (not self._waiting and self._clock() >= self._room_s)

    def wait(self, client: object, account: Account, turn: Callable[[], None]) -> None:
        """Calls `turn` when the client's turn has come: first who took least."""
        self._waiting[client] = account, turn
        if self._timer is None:
            self._set_timer()

    def forget(self, client: object) -> None:
        """Takes back that a client waits; safe to call without."""
        self._waiting.pop(client, None)

    def _set_timer(self) -> None:
        wait_s = max(self._room_s - self._clock(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.next_turn()
        finally:
            if self._waiting and self._timer is None:
                self._set_timer()

    def next_turn(self) -> None:
        """Gives one client its turn, if there is room."""
        now_s = self._clock()
        if self._waiting and now_s >= self._room_s:
            client = min(self._waiting, key=lambda client: self._waiting[client][0].level_s(now_s))
            _, turn = self._waiting.pop(client)
            turn()
