"""`klorosctl triggers` and `why-not-woken`: who was to be woken, what came of it, and why somebody still sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestration.errors import KlorosError, StoreUnreachable, Usage
from orchestration.operator import bridging
from orchestration.operator.console import Console, check_reason, json_option
from orchestration.store import opening

if TYPE_CHECKING:
    from orchestration.bridge.wake.port import WakeStore
    from orchestration.bridge.wake.state import Attempt, Wake

T = TypeVar("T")
_STATUSES = ("queued", "claimed", "done", "dead_lettered", "cancelled")
_UNDER_WAY = {"claimed": "under way", "queued": "under way"}  # of one without an end; a trigger that is over had it ended
_SILENT = 180.0  # seconds after which a supervisor that has told nothing does not go on


def ask(console: Console, work: Callable[[WakeStore], Awaitable[T]]) -> T:
    """Do some work with the store of waking.

    Raises:
        Usage: a package is missing. StoreUnreachable.
    """
    try:
        from orchestration import wake_wiring
        from orchestration.bridge.refusal import Refused
    except ImportError as error:
        hint = "install the extra bridge: sudo ./install.sh --with bridge, or pip install 'kloros-orchestration[bridge]'"
        raise Usage(f"waking needs a package that is not installed: {error.name}", hint=hint) from error
    console.become_owner()

    async def worked() -> T:
        store = await wake_wiring.store(console.settings)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(worked())
    except Refused as refusal:
        raise StoreUnreachable(refusal.message, hint="klorosctl doctor") from refusal


@click.group()
def triggers() -> None:
    """List the triggers by which dormant agents are woken, try one again, cancel one."""


@triggers.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only those that stand there.")
@click.option("--open", "open_", is_flag=True, help="Only those that are still to be woken for: queued or claimed.")
@click.option("--thread-id", metavar="THREAD", help="Only those of this thread.")
@click.option("--agent", help="Only those for this agent.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_(
    console: Console, *, status: str | None, open_: bool, thread_id: str | None, agent: str | None, limit: int
) -> None:
    """List triggers, the newest first."""
    if status and open_:
        raise Usage("--status and --open exclude each other")
    statuses = ("queued", "claimed") if open_ else (status,)

    async def work(store: WakeStore) -> list[Wake]:
        from orchestration.bridge.wake.state import Status

        found: list[Wake] = []
        for one in statuses:
            wanted = Status(one) if one else None
            found += await store.wakes(thread_id=thread_id, agent_id=agent, status=wanted, limit=limit)
        return sorted(found, key=lambda wake: wake.created_at, reverse=True)[:limit]

    found = ask(console, work) if _there(console) else []
    console.answer(
        [as_json(one) for one in found], lambda: table(console, found) if found else ["There is no such trigger."]
    )


@triggers.command()
@click.argument("trigger_id", metavar="TRIGGER")
@json_option
@click.pass_obj
def show(console: Console, *, trigger_id: str) -> None:
    """Show a trigger with every attempt."""

    async def work(store: WakeStore) -> Wake | None:
        return await store.wake(trigger_id)

    found = ask(console, work) if _there(console) else None
    if found is None:
        raise _unknown(trigger_id)
    wake = found
    console.answer(as_json(wake), lambda: _shown(console, wake))


@triggers.command()
@click.argument("trigger_id", metavar="TRIGGER")
@click.option("--reason", default="an operator asks for it", show_default=True, help="Why, for the audit.")
@click.option(
    "--force-override",
    is_flag=True,
    help="Put the prompt into the terminal although somebody types there: it may end up in the middle of their line.",
)
@json_option
@click.pass_obj
def retry(console: Console, *, trigger_id: str, reason: str, force_override: bool) -> None:
    """Have a trigger tried again that was given up or cancelled, or at once that waits. Attempts count from anew."""
    _steer(console, "retry", trigger_id, "queued", reason, forced=force_override)


@triggers.command()
@click.argument("trigger_id", metavar="TRIGGER")
@click.option("--reason", required=True, help="Why, for the audit.")
@json_option
@click.pass_obj
def cancel(console: Console, *, trigger_id: str, reason: str) -> None:
    """Cancel a trigger that is open; a turn that runs for it is ended. New messages make a new trigger."""
    _steer(console, "cancel", trigger_id, "cancelled", reason, forced=False)


@click.command("why-not-woken")
@click.option("--agent", required=True, help="Who.")
@click.option("--thread", "thread_id", required=True, metavar="THREAD", help="For which thread: thr_….")
@click.option("--rules", is_flag=True, help="Also list what every rule has seen that was asked; --json always does.")
@json_option
@click.pass_obj
def why_not_woken(console: Console, *, agent: str, thread_id: str, rules: bool) -> None:
    """Say in one sentence why an agent is, or is not, woken for a thread, with the evidence. It changes nothing.

    It asks the rules of the supervisor, as this host sees the agent now.
    """
    if not _there(console):
        raise Usage(f"There is no thread {thread_id}, for nothing has been stored yet.", hint="klorosctl threads list")

    async def work(store: WakeStore) -> dict[str, Any]:
        from orchestration import wake_wiring

        return await wake_wiring.why(console.settings, console.environ, store, agent_id=agent, thread_id=thread_id)

    found = ask(console, work)
    if not found["known"]:
        raise Usage(found["sentence"], hint="klorosctl threads list")
    sentence = found["sentence"]
    silent = _supervisor(console)
    document = {**{name: value for name, value in found.items() if name != "known"}, "supervisor": silent}
    seen = [f"  {line}" for line in found["evidence"]] if rules else []
    lines = [sentence, *([f"And {silent}."] if silent else []), *seen]
    console.answer(document, lambda: lines)


def as_json(one: Wake) -> dict[str, object]:
    """Write a trigger for `--json`."""
    return {
        "trigger_id": one.trigger_id,
        "workspace_id": one.workspace_id,
        "thread_id": one.thread_id,
        "agent_id": one.agent_id,
        "reason": one.reason,
        "requested_by": one.requested_by,
        "forced": one.forced,
        "status": one.status.value,
        "outcome": one.outcome and one.outcome.value,
        "code": one.code and one.code.value,
        "detail": one.detail,
        "created_at": one.created_at,
        "due_at": one.due_at,
        "holder": one.holder,
        "lease_until": one.lease_until,
        "deferrals": one.deferrals,
        "deferred_at": one.deferred_at,
        "ended_at": one.ended_at,
        "traceparent": one.traceparent,
        "attempts": [_attempt(attempt) for attempt in one.attempts],
    }


def table(console: Console, found: list[Wake] | tuple[Wake, ...]) -> list[str]:
    """Write triggers as a table."""
    times = console.times
    rows = [
        (
            one.outcome.value if one.outcome else one.status.value,
            one.code.value if one.code else "",
            one.agent_id,
            times.ago(one.created_at),
            _many(one),
            one.trigger_id,
        )
        for one in found
    ]
    return console.screen.table(("TRIGGER", "CODE", "FOR", "MADE", "ATTEMPTS", "ID"), rows)


def _attempt(one: Attempt) -> dict[str, object]:
    return {
        "number": one.number,
        "way": one.way.value,
        "session_id": one.session_id,
        "holder": one.holder,
        "cycle": one.cycle,
        "began_at": one.began_at,
        "ended_at": one.ended_at,
        "outcome": one.outcome and one.outcome.value,
        "code": one.code and one.code.value,
        "detail": one.detail,
    }


def _many(one: Wake) -> str:
    tried = sum(attempt.outcome != "deferred" for attempt in one.attempts)
    return f"{tried}, put off {one.deferrals}×" if one.deferrals else str(tried)


def _shown(console: Console, one: Wake) -> Iterator[str]:
    screen, times = console.screen, console.times
    ended = f", ended {times.ago(one.ended_at)}" if one.ended_at else ""
    came_to = f"{one.outcome or one.status}{f' ({one.code})' if one.code else ''}"
    yield screen.heading(f"{one.agent_id} in {one.thread_id}")
    yield from screen.field("trigger", one.trigger_id)
    yield from screen.field("stands", f"{came_to}{ended}{f': {one.detail}' if one.detail else ''}")
    yield from screen.field("made", f"{times.both(one.created_at)} by {one.requested_by}: {one.reason}")
    if one.holder:
        yield from screen.field("claimed", f"by {one.holder}, until {times.both(one.lease_until or one.due_at)}")
    if one.forced:
        yield from screen.field("forced", "an operator has it put into the terminal, whoever types there")
    if one.attempts:
        yield ""
        rows = [
            (
                str(attempt.number),
                attempt.way.value,
                attempt.outcome.value if attempt.outcome else _UNDER_WAY.get(one.status.value, "broken off"),
                attempt.code.value if attempt.code else "",
                times.ago(attempt.began_at),
                str(attempt.cycle or ""),
                attempt.detail,
            )
            for attempt in one.attempts
        ]
        yield from screen.table(("ATTEMPT", "WAY", "CAME TO", "CODE", "BEGAN", "CYCLE", "DETAIL"), rows)


def _steer(console: Console, command: str, trigger_id: str, status: str, reason: str, *, forced: bool) -> None:
    check_reason(reason)
    if not _there(console):
        raise _unknown(trigger_id)
    actor = bridging.caller(console).agent_id

    async def work(store: WakeStore) -> tuple[Wake | None, Wake | None]:
        from orchestration import wake_wiring
        from orchestration.bridge.wake.state import Status

        before = await store.wake(trigger_id)
        if before is None:
            return None, None
        after = await store.steer(trigger_id, Status(status), actor=actor, reason=reason, forced=forced)
        if after is not None and after.status is Status.CANCELLED:
            await wake_wiring.end_turn(console.settings, console.environ, after)
        return before, after

    before, after = ask(console, work)
    if before is None or after is None:
        raise _unknown(trigger_id)
    if after.status.value != status:
        can_not = "tried again" if status == "queued" else status
        raise KlorosError(
            f"trigger {trigger_id} stays {after.status}: it can't be {can_not}", hint=f"klorosctl triggers show {trigger_id}"
        )
    changed = before != after
    if changed:
        how = ", by force" if forced else ""
        console.note(
            f"triggers {command}", f"sets trigger {trigger_id} to {after.status}{how}: {reason}", trigger=trigger_id
        )
    told = f"Trigger {trigger_id} is {'now' if changed else 'already'} {after.status}."
    console.answer({**as_json(after), "changed": changed}, lambda: [told])


def _supervisor(console: Console) -> str:
    """Say that nobody wakes anybody on this host, if that is so."""
    from orchestration.bridge.wake.telling import last_word
    from orchestration.tick.gate import gate

    if refused := gate(console.settings):
        return f"this host wakes nobody: {refused[2]}"
    told = last_word(opening.place_of(console.settings))
    if told is None:
        return "no supervisor of this host has ever told how it stands: systemctl status kloros-supervisor.service"
    serving, at = told
    if not serving:
        return f"the supervisor of this host was stopped {console.times.ago(at)}"
    if (console.now - at).total_seconds() > _SILENT:
        return f"the supervisor of this host has told nothing since {console.times.both(at)}"
    return ""


def _there(console: Console) -> bool:
    console.become_owner()
    return bridging.is_made(console)


def _unknown(trigger_id: str) -> Usage:
    return Usage(f"there is no trigger {trigger_id}", hint="klorosctl triggers list")
