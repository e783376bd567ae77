"""The lease: which host of a scope decides. What a host may do with it is a table.

Pure. Every instant here is the server's, `now` included: the hosts' clocks decide nothing. The epoch goes up whenever the
lease is taken, also by the host that had it before; whoever writes says under which epoch he decided (the fencing token),
and a former leader's is refused.

    standing \\ permit   open       here       elsewhere  yielded
    free                take       take       stand_by   stand_by
    ours                renew      renew      release    release
    lapsed              take       take       stand_by   stand_by
    theirs              stand_by   stand_by   stand_by   stand_by
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, assert_never

FRESH = timedelta(seconds=30)
"""A lease younger than this is not waited for: its holder was alive a moment ago."""
LONGEST_WAIT = timedelta(seconds=35)
"""No tick waits longer for a lease; its unit ends a tick after 50 s."""
GRACE = timedelta(seconds=180)
"""How long who yielded leaves the lease to the others: long enough for a tick of each of them."""


class Lease(NamedTuple):
    """The lease as it stood when the server was asked; instants are aware UTC, by the server's clock."""

    now: datetime
    holder: str  # host; empty when nobody has it
    epoch: int
    since: datetime | None  # since when the holder leads
    expires_at: datetime | None
    pinned_to: str = ""  # the only host that may have it; empty for any
    yielded_by: str = ""  # the host that leaves it to the others …
    yielded_until: datetime | None = None  # … until then


class Standing(StrEnum):
    """How the lease stands, seen from a host."""

    FREE = "free"  # nobody has it
    OURS = "ours"
    LAPSED = "lapsed"  # whoever had it has not renewed it in time, we included
    THEIRS = "theirs"


class Permit(StrEnum):
    """Whether a host may have the lease at all."""

    OPEN = "open"
    HERE = "here"  # pinned to this host
    ELSEWHERE = "elsewhere"  # pinned to another
    YIELDED = "yielded"  # this host leaves it to the others for a while


class Act(StrEnum):
    """What a host's tick does with the lease."""

    TAKE = "take"
    RENEW = "renew"
    RELEASE = "release"
    STAND_BY = "stand_by"


RULES: Mapping[tuple[Standing, Permit], Act] = MappingProxyType(
    {
        (Standing.FREE, Permit.OPEN): Act.TAKE,
        (Standing.FREE, Permit.HERE): Act.TAKE,
        (Standing.FREE, Permit.ELSEWHERE): Act.STAND_BY,
        (Standing.FREE, Permit.YIELDED): Act.STAND_BY,
        (Standing.OURS, Permit.OPEN): Act.RENEW,
        (Standing.OURS, Permit.HERE): Act.RENEW,
        (Standing.OURS, Permit.ELSEWHERE): Act.RELEASE,
        (Standing.OURS, Permit.YIELDED): Act.RELEASE,
        (Standing.LAPSED, Permit.OPEN): Act.TAKE,
        (Standing.LAPSED, Permit.HERE): Act.TAKE,
        (Standing.LAPSED, Permit.ELSEWHERE): Act.STAND_BY,
        (Standing.LAPSED, Permit.YIELDED): Act.STAND_BY,
        (Standing.THEIRS, Permit.OPEN): Act.STAND_BY,
        (Standing.THEIRS, Permit.HERE): Act.STAND_BY,
        (Standing.THEIRS, Permit.ELSEWHERE): Act.STAND_BY,
        (Standing.THEIRS, Permit.YIELDED): Act.STAND_BY,
    }
)


def act(lease: Lease, here: str) -> Act:
    """Return what this host's tick does with the lease."""
    return RULES[standing(lease, here), permit(lease, here)]


def standing(lease: Lease, here: str) -> Standing:
    """Return how the lease stands, seen from here."""
    if not lease.holder:
        return Standing.FREE
    if remaining(lease) <= timedelta(0):
        return Standing.LAPSED
    return Standing.OURS if lease.holder == here else Standing.THEIRS


def permit(lease: Lease, here: str) -> Permit:
    """Return whether this host may have the lease; a pin beats what was yielded."""
    if lease.pinned_to:
        return Permit.HERE if lease.pinned_to == here else Permit.ELSEWHERE
    yields = lease.yielded_by == here and lease.yielded_until is not None and lease.now < lease.yielded_until
    return Permit.YIELDED if yields else Permit.OPEN


def remaining(lease: Lease) -> timedelta:
    """Return how long the lease still runs; zero or less when it has lapsed."""
    return timedelta(0) if lease.expires_at is None else lease.expires_at - lease.now


def patience(lease: Lease, here: str, length: timedelta) -> timedelta:
    """Return how long this host's tick waits for the lease of another to end; zero when it need not.

    Without it a takeover could take a tick's interval longer than the lease: the standby's tick that comes a second before
    the lease ends would go, and the next one comes a minute later. Say a dead leader's last renewal was at 0, a lease lasts
    65 s, ticks come each minute: the standby's first tick after it comes at x < 60. For x >= 30 it waits until 65. Else it
    goes, and its next one comes at 60 + x < 90, which waits until 65 or takes the lease at once. So 90 s are the longest,
    whatever x is; of a longer lease, its length and 25 s. A leader who lives renews each minute, which ends the wait: where
    the hosts' timers agree, after some milliseconds.
    """
    if standing(lease, here) is not Standing.THEIRS or permit(lease, here) not in (Permit.OPEN, Permit.HERE):
        return timedelta(0)
    left = remaining(lease)
    return left if left <= min(length - FRESH, LONGEST_WAIT) else timedelta(0)


def describe(lease: Lease) -> str:
    """Say who leads, for people."""
    if not lease.holder or lease.since is None or lease.expires_at is None:
        told = "no host leads"
    elif remaining(lease) > timedelta(0):
        told = f"{lease.holder} leads since {_utc(lease.since)}, its lease runs until {_utc(lease.expires_at)}"
    else:
        told = f"{lease.holder} led since {_utc(lease.since)}, its lease ended {_utc(lease.expires_at)}"
    return f"{told} (epoch {lease.epoch})"


def why_not(lease: Lease, here: str) -> str:
    """Say why this host does not lead, for people."""
    match permit(lease, here):
        case Permit.ELSEWHERE:
            return f"{describe(lease)}; the lease is pinned to {lease.pinned_to}"
        case Permit.YIELDED:
            assert lease.yielded_until is not None
            return f"{describe(lease)}; {here} yielded it, and leaves it to others until {_utc(lease.yielded_until)}"
        case Permit.OPEN | Permit.HERE:
            return describe(lease)
        case other:
            assert_never(other)


def _utc(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%SZ}"
