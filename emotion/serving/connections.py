"""The connections of the server: few from each address, and one that is idle gives way to a newcomer."""

import functools
import ipaddress
import time
from asyncio import BaseTransport, Transport
from collections import Counter
from collections.abc import Sequence

ARRIVAL_S = 0.5  # of a request or a first frame, after the connection


@functools.lru_cache(maxsize=4096)
def address_key(address: str) -> str:
    """The address by which a client is counted: of IPv6 the /64, of which one household has every address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))


class Connections:
    """All open connections, by the address they come from.

    Those of trusted proxies stand for many clients and are not limited by their address. Each protocol of a
    connection has `idle_since_s`, by `time.monotonic`: None while it serves a client, who is not interrupted.

    Args:
        most: Connections at a time.
        most_each: Of one address.
        proxies: Networks of trusted proxies.
    """

    def __init__(self, most: int, most_each: int, proxies: Sequence[str]) -> None:
        self._most, self._most_each = most, most_each
        self._proxies = [ipaddress.ip_network(proxy) for proxy in proxies]
        self._open: dict[BaseTransport, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, transport: Transport, address: str) -> bool:
        """Counts a new connection; False if there is no room for it."""
        key = address_key(address)
        if self._counts[key] >= self._most_each and not self.is_proxy(address):
            return False
        if len(self._open) >= self._most and not self._end_idle():
            return False
        self._open[transport] = key
        self._counts[key] += 1
        return True

    def remove(self, transport: BaseTransport) -> None:
        """Counts a connection no more; safe to call twice."""
        key = self._open.pop(transport, None)
        if key is not None:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

    def is_proxy(self, address: str) -> bool:
        """True if the address is that of a trusted proxy."""
        if not self._proxies:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    def _end_idle(self) -> bool:
        """Ends the connection that is idle longest, of the address that has most; False: none is idle.

        One whose request may still be on its way is ended only where there is no other.
        """
        now_s = time.monotonic()
        longest: Transport | None = None
        most = (False, 0, 0.0)
        for transport, key in self._open.items():
            since_s = transport.get_protocol().idle_since_s  # type: ignore[attr-defined]
            if since_s is None:
                continue
            rank = (now_s - since_s > ARRIVAL_S, self._counts[key], now_s - since_s)
            if rank > most:
                longest, most = transport, rank  # type: ignore[assignment]
        if longest is None:
            return False
        self.remove(longest)
        longest.abort()
        return True
