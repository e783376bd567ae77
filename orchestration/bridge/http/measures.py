"""The bridge's own metrics: what this process has answered. Every label value is one of ours, never a caller's."""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as LockedCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestration.serving import exposition

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

FIGURES: Final = {
    "keys_age_seconds": "Time since the issuer of tokens last answered.",
    "log_lines_dropped": "Log lines of requests that went well that were counted instead of written.",
    "store_waiting_changes": "Changes that wait for a commit.",
    "store_commits": "Commits since the start.",
    "store_changes": "Changes committed since the start; several share a commit.",
    "store_waiters": "Readers that wait for news of a thread.",
    "store_pool_size": "Connections of the pool.",
    "store_pool_available": "Connections of the pool that are idle.",
    "store_pool_waiting": "Readers that wait for a connection.",
    "store_listening": "1 while it hears at once what other servers write.",
    "store_down": "1 while the server of the database can't be reached.",
}
"""What is known at the moment of asking, by the metric's name without its prefix, and what it says."""

_DELIVERS: Final = {"read_messages": "read", "thread_events": "stream"}


class _Times:
    """How long the answers of one operation took."""

    __slots__ = ("answers", "seconds")

    def __init__(self) -> None:
        self.answers = [0] * (len(_BUCKETS) + 1)
        """By the bucket that they fall in; the last is for those beyond all."""
        self.seconds = 0.0


class Measures(Collector):
    """Requests: how many, how long, how many at once.

    What every request counts is counted here, and made into metrics when somebody asks: prometheus_client's own counters
    take a lock each, which cost 4 µs a request.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._answered = Counter[tuple[str, str, int]]()
        """By operation, method and status."""
        self._times = defaultdict[str, _Times](_Times)
        """By operation."""
        self._errors = LockedCounter(
            "kloros_bridge_errors", "Requests refused or failed, by code of the wire.", ("code",), registry=registry
        )
        self._unauthorized = LockedCounter(
            "kloros_bridge_unauthorized", "Requests whose token was not taken, by rule.", ("rule",), registry=registry
        )
        self._sent = LockedCounter("kloros_bridge_events_sent", "Messages sent on event streams.", registry=registry)
        self._undelivered = LockedCounter(
            "kloros_bridge_delivery_failures",
            "Reads that failed, and event streams that were broken off, for reasons of ours.",
            ("by",),
            registry=registry,
        )
        for by in _DELIVERS.values():
            self._undelivered.labels(by)
        self.open = 0
        self.streams = 0
        self.polls = 0
        self.figures: Callable[[], Mapping[str, float]] = dict
        """More that is known at the moment of asking, out of `FIGURES`."""
        self._quiet_since = time.monotonic()
        registry.register(self)

    def began(self) -> float:
        """Note a request; returns when, for `ended`."""
        self.open += 1
        return time.monotonic()

    def ended(self, began: float, operation: str, method: str, status: int, *, timed: bool) -> float:
        """Note its answer; returns the seconds it took."""
        self.open -= 1
        self._quiet_since = now = time.monotonic()
        seconds = now - began
        self._answered[operation, method, status] += 1
        if timed:
            times = self._times[operation]
            times.answers[bisect_left(_BUCKETS, seconds)] += 1
            times.seconds += seconds
        return seconds

    def delivered(self, operation: str, status: int, rule: str) -> None:
        """Note how a request ended that was to bring messages to a reader: not at all, when the fault is ours."""
        if operation in _DELIVERS and (status >= 500 or rule.startswith("store.")):
            self._undelivered.labels(_DELIVERS[operation]).inc()

    def add(self, collector: Collector) -> None:
        """Take in metrics that are counted elsewhere."""
        self._registry.register(collector)

    def failed(self, code: str) -> None:
        """Note an error."""
        self._errors.labels(code).inc()

    def not_taken(self, rule: str) -> None:
        """Note a token that was not taken."""
        self._unauthorized.labels(rule).inc()

    def sent(self, events: int) -> None:
        """Note messages that went out on a stream."""
        self._sent.inc(events)

    @property
    def quiet_seconds(self) -> float:
        """For how long nobody has asked for anything; 0 while somebody is being answered."""
        return 0.0 if self.open else time.monotonic() - self._quiet_since

    def collect(self) -> Iterator[Metric]:
        """Give what is known at the moment of asking."""
        yield self._requests()
        yield self._durations()
        yield GaugeMetricFamily("kloros_bridge_requests_open", "Requests that are being answered.", self.open)
        yield GaugeMetricFamily("kloros_bridge_streams_open", "Open event streams.", self.streams)
        yield GaugeMetricFamily("kloros_bridge_polls_waiting", "Reads that wait for a message.", self.polls)
        for name, value in self.figures().items():
            yield GaugeMetricFamily(f"kloros_bridge_{name}", FIGURES[name], value)

    def _requests(self) -> Metric:
        about = "Requests answered, by operation, method and status."
        told = CounterMetricFamily("kloros_bridge_requests", about, labels=("operation", "method", "status"))
        for (operation, method, status), answers in self._answered.items():
            told.add_metric((operation, method, str(status)), answers)
        return told

    def _durations(self) -> Metric:
        about = "Time from a request to the end of its answer, by operation; neither event streams nor long polls are in it."
        told = HistogramMetricFamily("kloros_bridge_request_duration_seconds", about, labels=("operation",))
        bounds = (*map(str, _BUCKETS), "+Inf")
        for operation, times in self._times.items():
            up_to = list(zip(bounds, itertools.accumulate(times.answers), strict=True))
            told.add_metric((operation,), buckets=up_to, sum_value=times.seconds)
        return told

    def text(self, *, openmetrics: bool) -> str:
        """Write these metrics."""
        return exposition.text(self._registry, openmetrics=openmetrics)
