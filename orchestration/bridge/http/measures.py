"""The bridge's own metrics: what this process has answered. Every label value is one of ours, never a caller's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestration.serving import exposition

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_DELIVERS: Final = {"read_messages": "read", "thread_events": "stream"}


class Measures(Collector):
    """Requests: how many, how long, how many at once."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._requests = Counter(
            "kloros_bridge_requests",
            "Requests answered, by operation, method and status.",
            ("operation", "method", "status"),
            registry=registry,
        )
        self._errors = Counter(
            "kloros_bridge_errors", "Requests refused or failed, by code of the wire.", ("code",), registry=registry
        )
        self._unauthorized = Counter(
            "kloros_bridge_unauthorized", "Requests whose token was not taken, by rule.", ("rule",), registry=registry
        )
        self._seconds = Histogram(
            "kloros_bridge_request_duration_seconds",
            "Time from a request to the end of its answer, by operation; neither event streams nor long polls are in it.",
            ("operation",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._sent = Counter("kloros_bridge_events_sent", "Messages sent on event streams.", registry=registry)
        self._undelivered = Counter(
            "kloros_bridge_delivery_failures",
            "Reads that failed, and event streams that were broken off, for reasons of ours.",
            ("by",),
            registry=registry,
        )
        for by in _DELIVERS.values():
            self._undelivered.labels(by)
        self._counted: dict[tuple[str, str, int], Counter] = {}
        self._timed: dict[str, Histogram] = {}
        self.open = 0
        self.streams = 0
        self.polls = 0
        self.figures: Callable[[], Mapping[str, float]] = dict
        """More that is known at the moment of asking, by the metric's name without its prefix."""
        self._quiet_since = time.monotonic()
        registry.register(self)

    def began(self) -> float:
        """Note a request; returns when, for `ended`."""
        self.open += 1
        return time.monotonic()

    def ended(self, began: float, *, operation: str, method: str, status: int, timed: bool) -> float:
        """Note its answer; returns the seconds it took."""
        self.open -= 1
        self._quiet_since = now = time.monotonic()
        labels = (operation, method, status)
        if (counter := self._counted.get(labels)) is None:
            counter = self._counted[labels] = self._requests.labels(operation, method, str(status))
        counter.inc()
        if timed:
            if (histogram := self._timed.get(operation)) is None:
                histogram = self._timed[operation] = self._seconds.labels(operation)
            histogram.observe(now - began)
        return now - began

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

    def collect(self) -> list[GaugeMetricFamily]:
        """Give what is known at the moment of asking."""
        return [
            GaugeMetricFamily("kloros_bridge_requests_open", "Requests that are being answered.", self.open),
            GaugeMetricFamily("kloros_bridge_streams_open", "Open event streams.", self.streams),
            GaugeMetricFamily("kloros_bridge_polls_waiting", "Reads that wait for a message.", self.polls),
            *(GaugeMetricFamily(f"kloros_bridge_{name}", f"{name}.", value) for name, value in self.figures().items()),
        ]

    def text(self, *, openmetrics: bool) -> str:
        """Write these metrics."""
        return exposition.text(self._registry, openmetrics=openmetrics)
