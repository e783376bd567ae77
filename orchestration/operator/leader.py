"""`klorosctl leader`: which host of the scope decides, and who is to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from orchestration import wiring
from orchestration.errors import KlorosError, StoreEmpty, Usage
from orchestration.operator.console import Console, json_option, unknown
from orchestration.scope.leading import HostSeen, Leading, hosts
from orchestration.scope.lease import Lease, describe, remaining


@click.group()
def leader() -> None:
    """Look at which of several hosts decides, and say which one is to."""


@leader.command()
@json_option
@click.pass_obj
def show(console: Console) -> None:
    """Show who leads since when, until when its lease runs, and every host with its last tick."""
    if not console.settings.database_url:
        alone: dict[str, Any] = {"scope": None, "leader": None, "hosts": []}
        console.answer(alone, lambda: ["This host shares its store with no other, and decides alone."])
        return
    with console.looking() as kernel:
        leading = wiring.leading(console.settings, kernel.db)
        try:
            lease = leading.look()
        except (StoreEmpty, KeyError):
            raise _nobody_yet() from None
        seen = hosts(kernel.db)
    document = {"scope": console.settings.scope.name, "here": leading.here, **_document(lease), "hosts": _hosts(seen, lease)}
    console.answer(document, lambda: _shown(console, leading, lease, seen))


@leader.command("yield")
@json_option
@click.pass_obj
def yield_(console: Console) -> None:
    """Take the lead from the host that has it, so that the next tick of another takes it: it leaves it to them for 3 min."""
    with _acting(console) as leading:
        lease = leading.look()
        if lease.pinned_to and lease.pinned_to == lease.holder:
            raise KlorosError(
                f"the lead is pinned to {lease.pinned_to}", hint="let any host lead first: klorosctl leader unpin"
            )
        changed = bool(lease.holder) and leading.hand_over(lease)
        after = leading.look()
    if changed:
        console.note("leader yield", f"takes the lead from {lease.holder} (epoch {lease.epoch})", host=lease.holder)
        until = "" if after.yielded_until is None else f" until {console.times.both(after.yielded_until)}"
        told = f"{lease.holder} leads no more, and leaves the lead to the other hosts{until}"
        lines = [f"{told}: the next of their ticks takes it.", f"Undo: klorosctl leader pin {lease.holder}"]
    else:
        lines = [f"Nothing to yield: {describe(after)}."]
    console.answer({"changed": changed, **_document(after)}, lambda: lines)


@leader.command()
@click.argument("host")
@json_option
@click.pass_obj
def pin(console: Console, host: str) -> None:
    """Let HOST alone lead: whoever else leads loses the lead at once. Nobody leads while HOST is away."""
    with _acting(console) as leading:
        there = [one.host for one in hosts(leading.db)]
        if host not in there:
            raise unknown("host", host, there, more="a host is one once it has ticked")
        before = leading.look()
        changed = leading.pin(host)
        after = leading.look()
    if changed:
        console.note("leader pin", f"pins the lead to {host}", host=host)
        lost = f" {before.holder} leads no more." if before.holder not in ("", host) else ""
        lines = [f"Only {host} may lead.{lost}", f"{describe(after)}.", "Undo: klorosctl leader unpin"]
    else:
        lines = [f"Only {host} may lead already; {describe(after)}."]
    console.answer({"changed": changed, **_document(after)}, lambda: lines)


@leader.command()
@json_option
@click.pass_obj
def unpin(console: Console) -> None:
    """Let any host lead again. Who leads goes on."""
    with _acting(console) as leading:
        before = leading.look()
        changed = leading.unpin()
        after = leading.look()
    if changed:
        console.note("leader unpin", f"lets any host lead, not only {before.pinned_to}")
        lines = [f"Any host may lead; {describe(after)}.", f"Undo: klorosctl leader pin {before.pinned_to}"]
    else:
        lines = [f"Any host may lead already; {describe(after)}."]
    console.answer({"changed": changed, **_document(after)}, lambda: lines)


@leader.command()
@json_option
@click.pass_obj
def release(console: Console) -> None:
    """Give up the lead if this host has it, so that the next tick of any host takes it. For the stop of a host."""
    with _acting(console) as leading:
        changed = leading.release()
        here, after = leading.here, leading.look()
    if changed:
        console.note("leader release", f"gives up the lead of {here}", host=here)
    told = f"{here} leads no more; the next tick of any host takes the lead." if changed else f"{here} does not lead anyway."
    console.answer({"changed": changed, **_document(after)}, lambda: [told])


@leader.command()
@click.argument("host")
@json_option
@click.pass_obj
def forget(console: Console, host: str) -> None:
    """Forget HOST, which was taken away for good, so that it is not told as silent. If it ticks again, it is there again.

    Only one that is silent, does not lead, is not pinned, and on which nothing runs.
    """
    silent = console.settings.scope.silent_after
    with _acting(console) as leading:
        there = [one.host for one in hosts(leading.db)]
        if host not in there:
            raise unknown("host", host, there)
        if not leading.db.run("scope.forget_host", host=host, seconds=silent.total_seconds()):
            hint = f"klorosctl leader show; one is silent after {silent.total_seconds() / 60:g} min, [scope] silent_after"
            raise Usage(f"{host} ticks, leads, is pinned, or a cycle runs there: it is not forgotten", hint=hint)
    console.note("leader forget", f"forgets the host {host}", host=host)
    console.answer({"changed": True, "host": host}, lambda: [f"{host} is forgotten, until it ticks again."])


def released(console: Console) -> str:
    """Give up the lead if this host has it, for who stops its ticks; returns a sentence for people, empty when it had none.

    That the database is away is no reason to fail: the lease then runs out by itself.
    """
    if not console.settings.database_url:
        return ""
    try:
        with console.acting() as kernel:
            leading = wiring.leading(console.settings, kernel.db)
            if not leading.release():
                return ""
    except KlorosError as error:
        return (
            f"Whether this host leads its scope can't be seen ({error.message}); if it does, its lease runs out by itself."
        )
    return f"{leading.here} led its scope and does no more; the next tick of another host takes the lead."


@contextmanager
def _acting(console: Console) -> Iterator[Leading]:
    _check_scope(console)
    with console.acting() as kernel:
        leading = wiring.leading(console.settings, kernel.db)
        try:
            leading.look()
        except StoreEmpty:
            raise _nobody_yet() from None
        yield leading


def _check_scope(console: Console) -> None:
    if not console.settings.database_url:
        raise Usage(
            "this host shares its store with no other, so it decides alone",
            hint="several hosts decide together once database_url (KLR_DATABASE_URL) names a PostgreSQL: "
            "docs/how-to/second-host.md",
        )


def _nobody_yet() -> StoreEmpty:
    return StoreEmpty("no host of this scope has ticked yet", hint="the first tick makes its lease: klorosctl tick")


def _document(lease: Lease) -> dict[str, Any]:
    return {
        "leader": lease.holder or None,
        "epoch": lease.epoch,
        "since": lease.since,
        "expires_at": lease.expires_at,
        "remaining_seconds": round(remaining(lease).total_seconds(), 3) if lease.holder else None,
        "pinned_to": lease.pinned_to or None,
        "yielded_by": lease.yielded_by or None,
        "yielded_until": lease.yielded_until,
        "server_time": lease.now,
    }


def _hosts(seen: list[HostSeen], lease: Lease) -> list[dict[str, Any]]:
    return [
        {
            "host": one.host,
            "leads": _leads(one, lease),
            "release": one.release,
            "last_tick_at": one.last_tick_at,
            "last_tick_exit": one.last_tick_exit,
            "silent_seconds": round(one.silent_for.total_seconds(), 3),
            "clock_offset_seconds": round(one.clock_offset.total_seconds(), 6),
            "machine_id": one.machine_id,
        }
        for one in seen
    ]


def _leads(one: HostSeen, lease: Lease) -> bool:
    return one.host == lease.holder and remaining(lease) > timedelta(0)


def _shown(console: Console, leading: Leading, lease: Lease, seen: list[HostSeen]) -> Iterator[str]:
    yield f"Scope {console.settings.scope.name}: {describe(lease)}."
    if lease.pinned_to:
        yield f"  pinned to {lease.pinned_to}: no other host may lead; klorosctl leader unpin"
    if lease.yielded_until is not None and lease.now < lease.yielded_until:
        yield f"  {lease.yielded_by} yielded, and leaves the lead to others until {console.times.both(lease.yielded_until)}"
    for one in seen:
        role = "leads" if _leads(one, lease) else "stands by"
        ticked = f"ticked {one.silent_for.total_seconds():.0f} s ago, exit {one.last_tick_exit}"
        off = f"clock {one.clock_offset.total_seconds():+.3f} s"
        this = " (this host)" if one.host == leading.here else ""
        yield f"  {one.host:<20} {role:<10} {ticked}, {off}, release {one.release}{this}"
