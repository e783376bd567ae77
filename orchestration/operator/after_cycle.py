"""What `klorosctl status` says of the accepted parameters: version in force, last verdict, what waits in escrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestration.operator.console import Console
from orchestration.operator.screen import span
from orchestration.pulse import document
from orchestration.pulse.dashboard import wording
from orchestration.pulse.loop_health import Held, LoopHealth, Parameters, Tried

_SHOWN = 3


def as_json(shown: LoopHealth) -> dict[str, Any]:
    """Write them as `loop_health` has them."""
    return {
        "baseline": None if shown.baseline is None else document.baseline(shown.baseline),
        "escrow": [document.held(one) for one in shown.escrow],
    }


def lines(console: Console, shown: LoopHealth) -> Iterator[str]:
    """Write them for a person; nothing where there is neither."""
    if shown.baseline is not None:
        yield from console.screen.field("Baseline", *_in_force(console, shown.baseline))
    if shown.escrow:
        yield from console.screen.field("Escrow", *_waiting(console, shown))


def _in_force(console: Console, shown: Parameters) -> Iterator[str]:
    made = shown.version.provenance
    yield f"version {shown.version.version} ({made.kind}) by {made.actor} {console.times.ago(made.at)}: {made.reason}"
    if shown.last is not None:
        yield _verdict(shown.last)
    if shown.last is None or shown.last.version != shown.version.version:
        yield f"version {shown.version.version} is {shown.verdict}: {shown.results} of {shown.needed} PHASE results"


def _verdict(last: Tried) -> str:
    return f"version {last.version} {wording.STATES.get(last.verdict, last.verdict)}: {last.reason}"


def _waiting(console: Console, shown: LoopHealth) -> Iterator[str]:
    (queue,) = [one for one in shown.queues if one.name == "escrow"]
    oldest = f", the oldest for {span(console.now - queue.oldest)}" if queue.oldest is not None else ""
    waiting = "1 waits" if queue.count == 1 else f"{queue.count} wait"
    yield f"{waiting} for a person{oldest}: klorosctl escrow show|approve|reject ENTRY"
    for one in shown.escrow[:_SHOWN]:
        yield _entry(console, one)
    if queue.count > _SHOWN:
        yield f"and {queue.count - _SHOWN} more: klorosctl escrow list"


def _entry(console: Console, one: Held) -> str:
    changed = ", ".join(f"{change.name} {wording.shift(change)}" for change in one.changes).replace("\u00a0", " ")
    by = f" by {one.emitted_by}" if one.emitted_by else ""
    ends = "never expires" if one.expires is None else f"expires {console.times.ago(one.expires)}"
    return f"{one.entry}  {one.subject}{by}: {changed}; {ends}"
