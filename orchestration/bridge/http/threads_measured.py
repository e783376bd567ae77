"""The bridge's metrics that come from its store: what was posted, where threads stand, and how far cursors are behind.

Counted in the store and not in this process, so that a restart forgets nothing and what klorosctl or another process
posts counts as well. As old as the last look (`watching.py`), which is a metric of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestration.bridge.census import EVENT_TYPES, NO_EVENT, STATUS_CHANGED, By, Census, Guard, Sort, Tally
from orchestration.bridge.message import OTHER
from orchestration.bridge.wire import MessageKind, ThreadStatus

_OPEN = (ThreadStatus.ACTIVE, ThreadStatus.BLOCKED)


class ThreadsMeasured(Collector):
    """What the last look found."""

    def __init__(self, tally: Tally) -> None:
        self.census: Census | None = None
        """The last look; None before the first."""
        self.failed_looks = 0
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        """Give what the last look found; nothing but its failures before the first."""
        yield _counter("kloros_bridge_looks_failed", "Looks that the store did not answer.", self.failed_looks)
        if self.census is None:
            return
        counted = dict(self._tally.counted)
        yield _posted(counted)
        yield _escalations(counted)
        yield _guards(counted)
        yield from _standing(self.census)


def _posted(counted: dict[Sort, int]) -> Metric:
    told = CounterMetricFamily(
        "kloros_bridge_messages_posted",
        "Messages in the store, by kind and type of event; types that the wire does not know are `other`.",
        labels=("kind", "event_type"),
    )
    by: dict[tuple[MessageKind, str], int] = {}
    for kind in MessageKind:
        types: Iterable[str] = EVENT_TYPES if kind is MessageKind.SYSTEM else (*EVENT_TYPES[1:-2], OTHER)
        by |= {(kind, event): 0 for event in ((NO_EVENT,) if kind is MessageKind.CHAT else types)}
    for sort, messages in counted.items():
        event = (
            OTHER if sort.kind is MessageKind.EVENT and sort.event_type in (STATUS_CHANGED, NO_EVENT) else sort.event_type
        )
        by[sort.kind, event] = by.get((sort.kind, event), 0) + messages
    for labels, messages in by.items():
        told.add_metric(labels, messages)
    return told


def _escalations(counted: dict[Sort, int]) -> Metric:
    told = CounterMetricFamily("kloros_bridge_escalations", "Threads that were blocked, by who did it.", labels=("by",))
    for by in By:
        told.add_metric((by,), sum(messages for sort, messages in counted.items() if sort.escalated_by is by))
    return told


def _guards(counted: dict[Sort, int]) -> Metric:
    told = CounterMetricFamily("kloros_bridge_loop_guards_tripped", "Threads that a loop guard blocked.", labels=("guard",))
    for guard in Guard:
        told.add_metric((guard,), sum(messages for sort, messages in counted.items() if sort.guard is guard))
    return told


def _standing(census: Census) -> Iterator[Metric]:
    threads = GaugeMetricFamily("kloros_bridge_threads", "Threads, by where they stand.", labels=("status",))
    unread = GaugeMetricFamily(
        "kloros_bridge_unread_messages",
        "Messages that wait for their readers, up to 1,000 for each, added up.",
        labels=("status",),
    )
    for status in ThreadStatus:
        threads.add_metric((status,), census.threads.get(status, 0))
        unread.add_metric((status,), census.unread.get(status, 0))
    waiting = GaugeMetricFamily(
        "kloros_bridge_participants_behind",
        "Participants of open threads that have not read what another said to them.",
        labels=("status",),
    )
    oldest = GaugeMetricFamily(
        "kloros_bridge_unread_oldest_timestamp_seconds",
        "When the message was posted that has waited longest for a reader; 0 while none waits.",
        labels=("status",),
    )
    for status in _OPEN:
        waits = census.waits_in(status)
        waiting.add_metric((status,), len(waits))
        oldest.add_metric((status,), waits[0].since.timestamp() if waits else 0.0)
    blocked = census.since.get(ThreadStatus.BLOCKED)
    yield from (threads, unread, waiting, oldest)
    yield GaugeMetricFamily(
        "kloros_bridge_blocked_oldest_timestamp_seconds",
        "Since when the thread is blocked that has been so longest; 0 while none is.",
        _seconds(blocked),
    )
    yield GaugeMetricFamily(
        "kloros_bridge_last_look_timestamp_seconds", "When all threads were last looked at.", _seconds(census.at)
    )


def _seconds(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
