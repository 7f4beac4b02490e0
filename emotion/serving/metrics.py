"""Counts and latencies of the server, for Prometheus.

Source: Prometheus text exposition format 0.0.4.
"""

import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

STAGES = ("wait", "decode", "detect", "classify", "total")
# Upper ends of the buckets, seconds: a frame takes 10 to 50 ms, the queue of many clients up to seconds.
BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "connections_total": "WebSocket connections that were accepted.",
    "connections_refused_total": "WebSocket connections that were turned away because there were too many.",
    "frames_received_total": "Frames that arrived over WebSockets.",
    "frames_analysed_total": "Frames that were analysed.",
    "frames_dropped_total": "Frames that a newer one of the same client replaced.",
    "frames_refused_total": "Frames that were not analysed, by reason.",
    "faces_total": "Faces found in frames and uploads.",
    "uploads_total": "Uploaded files that were analysed, by kind.",
    "uploads_refused_total": "Uploaded files that were not analysed, by reason.",
    "closes_total": "WebSocket connections that ended, by close code.",
}


class Metrics:
    """All counts since the start; for the event loop alone."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _HELP}
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS_S) + 1))
        self._sums_s: dict[str, float] = defaultdict(float)

    def count(self, name: str, by: int = 1, label: str = "") -> None:
        """Adds to a counter; `label` is like `code="rate"`.

        Raises:
            KeyError: No such counter.
        """
        self._counts[name][label] += by

    def value(self, name: str, label: str = "") -> int:
        """The present value of a counter."""
        return self._counts[name][label]

    def observe(self, stage: str, seconds: float) -> None:
        """Adds the duration of a stage of a frame."""
        self._buckets[stage][bisect_left(BUCKETS_S, seconds)] += 1
        self._sums_s[stage] += seconds

    def expose(self, gauges: dict[str, tuple[str, float]]) -> str:
        """The text of /metrics.

        Args:
            gauges: Name -> (help, present value).
        """
        return "\n".join([*self._counter_lines(), *self._histogram_lines(), *_gauge_lines(gauges)]) + "\n"

    def _counter_lines(self) -> Iterator[str]:
        for name, text in _HELP.items():
            yield f"# HELP emotion_{name} {text}"
            yield f"# TYPE emotion_{name} counter"
            for label, value in sorted((self._counts[name] or {"": 0}).items()):
                yield f"emotion_{name}{f'{{{label}}}' if label else ''} {value}"

    def _histogram_lines(self) -> Iterator[str]:
        name = "emotion_frame_seconds"
        yield f"# HELP {name} Seconds of a frame, by stage; total is from its arrival to its result."
        yield f"# TYPE {name} histogram"
        for stage in STAGES:
            total = 0  # each bucket includes the ones below
            for end_s, number in zip((*BUCKETS_S, "+Inf"), self._buckets[stage], strict=True):
                total += number
                yield f'{name}_bucket{{stage="{stage}",le="{end_s}"}} {total}'
            yield f'{name}_sum{{stage="{stage}"}} {self._sums_s[stage]:.6f}'
            yield f'{name}_count{{stage="{stage}"}} {total}'


def _gauge_lines(gauges: dict[str, tuple[str, float]]) -> Iterator[str]:
    for name, (text, value) in gauges.items():
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} gauge"
        yield f"{name} {value:g}" if value < 1e6 else f"{name} {value:.0f}"


def resident_bytes() -> int:
    """Memory of this process; 0 where the system has no /proc."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
