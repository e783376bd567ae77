"""Leading: what a host does with its scope's lease, and what it tells of itself; the rules are `lease.py`'s.

Each act is one statement that compares and swaps: it says which epoch it has seen, and the server's clock decides once more.
So two hosts that look at once never both get it, and who is told no looks again at his next tick. Needs nothing of the
session, so a pooler may stand between.

What a leader writes is fenced (`PostgresDatabase.fence`): each of its transactions compares holder and epoch under the
lease's row lock, and a former leader's ends as `LeaseLost`, however late it wakes. What stands here is not fenced: taking
compares for itself, and a host's own row is its own whoever leads.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol, cast

from orchestration.errors import HostDoubled, StoreEmpty
from orchestration.host import clock, files
from orchestration.scope import lease as rules
from orchestration.scope.lease import Act, Lease
from orchestration.store.instants import from_text, from_text_or_none
from orchestration.store.port import Database, Row

LATELY = timedelta(minutes=5)
"""Two machines that tick under one name within this time are two, and the second is refused."""
_TELLING = timedelta(seconds=1)
"""A clock that is off by less is left alone: nothing that we decide turns on it."""
_POLL = 1.0
_AFTER = 0.005  # so that the look at a lease's end finds it ended
_MACHINE_ID = "/etc/machine-id"
_ID_FILE = "scope.id"


class FencedDatabase(Database, Protocol):
    """A database that a leader writes to."""

    def fence(self, epoch: int | None) -> None:
        """Refuse every later write (`LeaseLost`) unless this host still leads under this epoch; None: no fence."""
        ...


class Role(StrEnum):
    """What a host was at its last tick."""

    LEADER = "leader"
    STANDBY = "standby"


class Seen(NamedTuple):
    """The lease as a look at the server showed it, and what the look told of the clocks."""

    lease: Lease
    clock_offset: timedelta  # how far this host's clock is ahead of the server's, less half the round trip
    round_trip: timedelta


class CheckedIn(NamedTuple):
    """What a host hears when it tells that it ticks."""

    to_reap: tuple[str, ...]  # the tokens of its cycles that were ended without it
    is_restarted: bool  # it was another boot that ticked last under this name


class Turn(NamedTuple):
    """What came of a host's turn with the lease."""

    leads: bool
    lease: Lease  # as it stood after it


class Leading(NamedTuple):
    """One host's part in its scope."""

    db: FencedDatabase
    here: str
    length: timedelta
    state_dir: str

    def look(self) -> Lease:
        """Return the lease as it stands.

        Raises:
            StoreEmpty: there is none; who opens the database to write makes it.
        """
        found = self.db.rows("leases.look")
        if not found:
            raise StoreEmpty("no host of this scope has ticked yet", hint="the first tick makes its lease: klorosctl tick")
        return _lease(found[0])

    def see(self) -> Seen:
        """Look, and compare the clocks."""
        before = clock.now()
        lease = self.look()
        after = clock.now()
        return Seen(lease, before + (after - before) / 2 - lease.now, after - before)

    def wait(self, *, sleep: Callable[[float], None] = time.sleep) -> Seen:
        """Look, and while another host's lease may end soon, wait for it; see `lease.patience`. Asks once a second."""
        while True:
            seen = self.see()
            waits = rules.patience(seen.lease, self.here, self.length)
            if not waits:
                return seen
            sleep(min(_POLL, waits.total_seconds() + _AFTER))  # nothing tells when a lease lapses

    def follow(self, seen: Seen | None = None) -> None:
        """Go on by the server's clock in this process, if the host's is off: what a scope dates is dated by one clock."""
        seen = self.see() if seen is None else seen
        if abs(seen.clock_offset) > _TELLING + seen.round_trip / 2:
            clock.follow(seen.clock_offset)

    def take_turn(self, seen: Seen) -> Turn:
        """Take, renew or give up the lease as the rules say; what this host writes is fenced from now on if it leads."""
        stands = None
        match rules.act(seen.lease, self.here):
            case Act.TAKE:
                stands = self._swap("leases.take", seen.lease)
            case Act.RENEW:
                stands = self._swap("leases.renew", seen.lease)
            case Act.RELEASE:
                self.release()
            case Act.STAND_BY:
                return Turn(leads=False, lease=seen.lease)
        if stands is None:
            return Turn(leads=False, lease=self.look())
        self.db.fence(stands.epoch)
        return Turn(leads=True, lease=stands)

    def stand_aside(self) -> Lease:
        """Write from now on as a host that does not lead; returns the lease as it stands."""
        self.db.fence(None)
        return self.look()

    def release(self) -> bool:
        """Give up the lease, so that the next tick of any host takes it; False when this host had none."""
        self.db.fence(None)
        return bool(self.db.rows("leases.release"))

    def hand_over(self, seen: Lease) -> bool:
        """Take the lease from its holder, who leaves it to the others for a while; False when it has changed since."""
        return bool(
            self.db.rows("leases.hand_over", holder=seen.holder, epoch=seen.epoch, seconds=rules.GRACE.total_seconds())
        )

    def pin(self, host: str) -> bool:
        """Let one host alone lead from now on; False when that is so already."""
        return bool(self.db.rows("leases.pin", host=host))

    def unpin(self) -> bool:
        """Let any host lead again; False when none was pinned."""
        return bool(self.db.rows("leases.unpin"))

    def check_in(self, seen: Seen, *, boot_id: str, release: str) -> CheckedIn:
        """Tell the scope that this host ticks, and hear what it has for us.

        Raises:
            HostDoubled: another machine ticks under this host's name.
        """
        found = self.db.rows(
            "hosts.check_in",
            machine_id=machine_id(self.state_dir, make=True),
            boot_id=boot_id,
            release=release,
            offset=seen.clock_offset.total_seconds(),
            lately=LATELY.total_seconds(),
        )
        if not found:
            raise HostDoubled(
                f"another machine ticks as host {self.here!r} of this scope; each host needs a name of its own",
                hint="set [scope] host (KLR_SCOPE_HOST) here, or /etc/machine-id where a machine is another's copy: "
                "rm /etc/machine-id && systemd-machine-id-setup",
            )
        return CheckedIn(
            to_reap=tuple(json.loads(cast("str", found[0]["to_reap"]))),
            is_restarted=found[0]["before"] not in (None, boot_id),
        )

    def reaped(self, tokens: tuple[str, ...]) -> None:
        """Tell the scope that nothing of these cycles runs here any more."""
        self.db.rows("hosts.reaped", told=json.dumps(tokens))

    def ended(self, exit_code: int, *, leads: bool) -> None:
        """Tell the scope how this host's tick ended."""
        self.db.rows("hosts.ended", exit_code=exit_code, role=Role.LEADER if leads else Role.STANDBY)

    def _swap(self, query: str, seen: Lease) -> Lease | None:
        found = self.db.rows(query, epoch=seen.epoch, seconds=self.length.total_seconds())
        return _lease(found[0]) if found else None


def _lease(row: Row) -> Lease:
    return Lease(
        now=from_text(cast("str", row["now"])),
        holder=cast("str", row["holder"]),
        epoch=cast("int", row["epoch"]),
        since=from_text_or_none(cast("str | None", row["since"])),
        expires_at=from_text_or_none(cast("str | None", row["expires_at"])),
        pinned_to=cast("str", row["pinned_to"]),
        yielded_by=cast("str", row["yielded_by"]),
        yielded_until=from_text_or_none(cast("str | None", row["yielded_until"])),
    )


class HostSeen(NamedTuple):
    """What a host last told of itself; instants are the server's, aware UTC."""

    host: str
    role: Role
    release: str
    machine_id: str
    boot_id: str
    first_seen_at: datetime
    last_tick_at: datetime
    last_tick_exit: int | None  # None: it has not ended, or was killed
    clock_offset: timedelta
    silent_for: timedelta


def hosts(db: Database) -> list[HostSeen]:
    """Return every host that ever ticked in the scope, by name."""
    return [
        HostSeen(
            host=cast("str", row["host"]),
            role=Role(cast("str", row["role"])),
            release=cast("str", row["release"]),
            machine_id=cast("str", row["machine_id"]),
            boot_id=cast("str", row["boot_id"]),
            first_seen_at=from_text(cast("str", row["first_seen_at"])),
            last_tick_at=from_text(cast("str", row["last_tick_at"])),
            last_tick_exit=cast("int | None", row["last_tick_exit"]),
            clock_offset=timedelta(seconds=cast("float", row["clock_offset_seconds"])),
            silent_for=timedelta(seconds=cast("float", row["silent_seconds"])),
        )
        for row in db.rows("hosts.all")
    ]


def machine_id(state_dir: str, *, make: bool = False, path: str = _MACHINE_ID) -> str:
    """Return what tells this machine from every other: its own id (machine-id(5)), or where there is none, as in many a
    container, that of the state folder, made on first use if `make`; else empty."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            if found := file.read().strip():
                return found
    except OSError:
        pass
    own = os.path.join(state_dir, _ID_FILE)
    if make:
        files.create(own, f"{os.urandom(16).hex()}\n".encode())
    try:
        with open(own, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
