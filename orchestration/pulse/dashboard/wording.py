"""How the page says things: states, lengths of time, instants, numbers with their unit, and text that others wrote.

Pure. Whatever a template prints passes through `inert` (jinja's finalize), so that no log line, goal or file name can
steer a terminal that the page is pasted into, reorder what stands beside it, or make the page unwritable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from orchestration.baseline.version import Change
from orchestration.pulse.health import Condition, Verdict
from orchestration.pulse.loop_health import Beat

VERDICTS: Mapping[Verdict, str] = {
    Verdict.OK: "OK",
    Verdict.DEGRADED: "Degraded",
    Verdict.FAILING: "Failing",
    Verdict.STOPPED: "Stopped",
    Verdict.UNKNOWN: "Unknown",
}

MEANINGS: Mapping[Verdict, str] = {
    Verdict.OK: "The loop decides and what it runs succeeds. Nothing wants a person's eye.",
    Verdict.DEGRADED: "The loop works, and something wants a person's eye.",
    Verdict.FAILING: "The loop runs, and what it runs does not succeed.",
    Verdict.STOPPED: "Nothing is decided or run.",
    Verdict.UNKNOWN: "There is nothing to judge by.",
}

CONDITIONS: Mapping[Condition, str] = {
    Condition.NO_TICK_YET: "No tick yet",
    Condition.DISABLED: "Orchestration is disabled",
    Condition.HALTED: "The kill switch is set",
    Condition.STORE_UNREACHABLE: "The store can't be reached",
    Condition.HOST_DOUBLED: "Another machine has this host's name",
    Condition.TICK_STALE: "Ticks have stopped",
    Condition.NOBODY_LEADS: "No host leads",
    Condition.LOOP_STOPPED: "The loop gave up",
    Condition.LOOP_SILENT: "The loop is silent",
    Condition.TICK_FAILING: "Ticks fail",
    Condition.PHASE_FAILING: "PHASE fails",
    Condition.PHASE_MISSED: "A PHASE was missed",
    Condition.DREAM_FAILING: "D-REAM fails",
    Condition.CYCLE_OVERDUE: "A cycle is past its deadline",
    Condition.CYCLE_LOST: "A cycle was lost",
    Condition.HOST_SILENT: "A host has gone silent",
    Condition.CLOCK_OFFSET: "A host's clock is wrong",
    Condition.MAINTENANCE: "Maintenance is on",
    Condition.LOCK_CONTENTION: "Ticks find the lock held",
    Condition.PHASE_DURATION: "PHASE took an unusual time",
    Condition.PROMOTIONS_PARKED: "Promotions are parked",
    Condition.PROMOTIONS_PILING_UP: "Promotions pile up",
    Condition.ESCROW_WAITING: "Changes wait for a person",
    Condition.BASELINE_ROLLED_BACK: "The baseline was rolled back",
    Condition.INTENTS_OVERFLOWING: "Intents overflow",
    Condition.URGENT_ALERT: "Urgent alert",
    Condition.ARCHIVES_STALE: "No new archives",
    Condition.FEDERATION_BEHIND: "Copies of bundles are behind",
    Condition.BRIDGE_SILENT: "The bridge is silent",
    Condition.THREADS_BLOCKED: "Threads wait for a person",
    Condition.MESSAGES_UNREAD: "Messages are not read",
    Condition.SUPERVISOR_SILENT: "The supervisor is silent",
    Condition.WAKES_DEAD_LETTERED: "Agents were not woken",
    Condition.WAKES_WAITING: "Agents wait to be woken",
    Condition.AGENTS_UNMANAGED: "Agents can't be woken",
    Condition.PROMPTS_COLLIDED: "Prompts met a person typing",
    Condition.DISK_LOW: "The disk is nearly full",
}

BEATS: Mapping[Beat, str] = {
    Beat.PHASE: "PHASE started",
    Beat.DREAM_CYCLE: "D-REAM started",
    Beat.REFLECTION: "reflection started",
    Beat.NOOP: "nothing to start (NOOP)",
    Beat.FAILED: "ticks failed",
    Beat.LOCK_HELD: "lock held",
    Beat.HALTED: "halted",
    Beat.DISABLED: "disabled",
    Beat.HOST_DOWN: "host down",
    Beat.UNKNOWN: "no tick, cause unknown",
    Beat.BEFORE: "before the first tick",
}

WAKE_STAGES: Mapping[str, str] = {
    "made": "made",
    "attempted": "attempted",
    "triggered": "prompted in a terminal",
    "fallback_resumed": "resumed",
    "fallback_spawned": "spawned",
    "already_active": "reading already",
    "dead_lettered": "given up",
    "cancelled": "cancelled",
    "open": "open",
}
"""How far a trigger comes, in this order."""

STATES: Mapping[str, str] = {
    "queued": "queued",
    "running": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "lost": "lost",
    "skipped": "skipped",
    "rolled_back": "rolled back",
    "escrowed": "worse, a rollback waits",
    "worse": "worse, not rolled back",
}

JOBS: Mapping[str, str] = {"phase": "PHASE", "dream": "D-REAM", "loop": "loop", "reflection": "reflection", "wake": "turn"}

DECISIONS: Mapping[str, str] = {"phase": "PHASE", "dream_cycle": "D-REAM cycle", "reflection": "reflection", "noop": "NOOP"}

CAUSES: Mapping[str, str] = {
    "window": "PHASE window",
    "missed_window": "missed window",
    "promotions": "promotions",
    "intent": "intent",
    "loop": "loop iteration",
    "direct": "started by hand",
    "wake": "a trigger of the bridge",
}

_CONTROL_SEQUENCES = re.compile(
    r"\x1b\[[0-9:;<=>?]*[ -/]*[@-~]"  # CSI: colours, cursor (ECMA-48 § 5.4)
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # DCS, SOS, PM, APC
)
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SHOWN: Mapping[int, str | None] = {
    **{code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)},  # control pictures: ␀, ␛ …
    0x7F: "\u2421",
    **{code: f"\u27e8U+{code:04X}\u27e9" for code in (*range(0x80, 0xA0), *map(ord, _BIDI), 0x2028, 0x2029, 0xFEFF)},
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # half characters: bytes of a file name that are no UTF-8
    **dict.fromkeys((0xFFFE, 0xFFFF), "\ufffd"),
}


def inert(value: object) -> object:
    """Return text that shows what it holds and does nothing: no control sequence, no reordering, no half characters.

    Text that is markup already stays.
    """
    if type(value) is not str:
        return value
    if value.isascii() and value.isprintable():
        return value
    return _CONTROL_SEQUENCES.sub("", value.replace("\r\n", "\n")).translate(_SHOWN)


def tail(text: str, lines: int, characters: int) -> str:
    """Return the end of a text: at most so many lines and characters, with a mark where something was left out."""
    kept = text.rstrip().rsplit("\n", lines)[-lines:]
    end = "\n".join(kept)
    cut = end[-characters:] if len(end) > characters else end
    return cut if cut == text.rstrip() else f"…\n{cut}" if len(cut) == len(end) else f"… {cut}"


def excerpt(text: str, characters: int) -> str:
    """Return the beginning of a text that others wrote, with a mark where it was cut."""
    return text if len(text) <= characters else f"{text[:characters].rstrip()} …"


_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def span(length: timedelta | float) -> str:
    """Write a length of time by its two largest units: `2 h 10 min`, `42 s`; under ten seconds with a tenth."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if 0 < seconds < 10 and round(seconds, 1) != int(seconds):
        return f"{seconds:.1f}\u00a0s"
    left, parts = round(seconds), []
    for unit, size in _UNITS:
        amount, left = divmod(left, size)
        if amount:
            parts.append(f"{amount}\u00a0{unit}")
        elif parts:
            break  # neighbouring units only: no `1 d 3 s`
    return " ".join(parts[:2]) or "0\u00a0s"


def size(number: int) -> str:
    """Write a number of bytes: `1.5 GiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f}\u00a0{unit}" if unit == "B" or value >= 100 else f"{value:.1f}\u00a0{unit}"
        value /= 1024
    return f"{value:.1f}\u00a0TiB"


def amount(number: int) -> str:
    """Write a whole number in groups of three, as ISO 80000-1 has them: `100 000`."""
    return f"{number:,}".replace(",", "\u202f")


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number of things: `1 cycle`, `3 cycles`."""
    return f"{amount(number)} {one if number == 1 else many or one + 's'}"


def figure(value: float) -> str:
    """Write a measured value in four digits at most."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return amount(int(value))
    return f"{value:.4g}"


def percent(share: float) -> str:
    """Write a share: `97 %`, `99.8 %`, `113 %`; 100 % and 0 % only when it is."""
    hundredth = share * 100
    digits = 1 if 0 < hundredth < 1 or 99 < hundredth < 100 else 0
    text = f"{hundredth:.{digits}f}"
    if share > 0 and text == "0.0":
        text = "<\u00a00.1"
    return f"{'99.9' if text in ('100', '100.0') and share < 1 else text}\u00a0%"


_LARGEST_SHOWN = 100
"""Times; a larger change is one from near zero, and its digits mean nothing."""


def gain(share: float) -> str:
    """Write a relative change with its sign: `+2.5 %`."""
    return f"{share * 100:+.1f}\u00a0%"


def shift(change: Change) -> str:
    """Write what becomes of a parameter: `0.01 → 0.05 (+400.0 %)`, `new → 3`, `3 → removed`."""
    before = "new" if change.before is None else str(change.before)
    after = "removed" if change.after is None else str(change.after)
    small = change.relative is not None and abs(change.relative) < _LARGEST_SHOWN
    return f"{before} → {after}" + (f" ({gain(change.relative or 0.0)})" if small else "")


class Clock(NamedTuple):
    """Writes instants: in the zone of the windows and in UTC, seen from the instant of the look."""

    zone: ZoneInfo
    now: datetime

    @property
    def in_utc(self) -> bool:
        """Whether the zone of the windows is UTC itself, which then is written once."""
        return self.zone.key in ("UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu")

    @staticmethod
    def machine(instant: datetime) -> str:
        """Write for programs: `2026-11-21T08:00:00Z`."""
        return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def local(self, instant: datetime, *, day: bool = True, seconds: bool = True) -> str:
        """Write in the zone of the windows: `21 Nov 03:00:00 EST`; the year is there when it is not this one."""
        local = instant.astimezone(self.zone)
        year = f"\u00a0{local.year}" if local.year != self.now.astimezone(self.zone).year else ""
        date = f"{local.day}\u00a0{local:%b}{year} " if day else ""
        return f"{date}{local:%H:%M:%S}\u00a0{local:%Z}" if seconds else f"{date}{local:%H:%M}\u00a0{local:%Z}"

    def utc(self, instant: datetime, *, seconds: bool = True) -> str:
        """Write in UTC: `08:00:00 UTC`, with the date when the local one is another."""
        utc, local = instant.astimezone(UTC), instant.astimezone(self.zone)
        date = "" if utc.date() == local.date() else f"{utc.day}\u00a0{utc:%b} "
        return f"{date}{utc:%H:%M:%S}\u00a0UTC" if seconds else f"{date}{utc:%H:%M}\u00a0UTC"

    def ago(self, instant: datetime) -> str:
        """Write `42 s ago`, or `in 2 h 10 min`."""
        distance = self.now - instant
        return f"{span(distance)} ago" if distance >= timedelta(0) else f"in {span(-distance)}"

    def since(self, instant: datetime) -> str:
        """Write how long ago that was: `42 s`."""
        return span(max(self.now - instant, timedelta(0)))

    @staticmethod
    def day(day: date) -> str:
        """Write a local date: `Sat 21 Nov`."""
        return f"{day:%a}\u00a0{day.day}\u00a0{day:%b}"
