"""What an operator does with one thread: looks at it and follows it, posts to it, and steers it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from orchestration.errors import Usage
from orchestration.operator import bridging, triggers
from orchestration.operator.console import Console, json_option

if TYPE_CHECKING:
    from orchestration.bridge import wire
    from orchestration.bridge.caller import Caller
    from orchestration.bridge.commands import Commands
    from orchestration.bridge.wake.port import WakeStore
    from orchestration.bridge.wake.state import Wake


def _thread_option(command: Any) -> Any:
    return click.option("--thread-id", required=True, metavar="THREAD", help="Which thread: thr_….")(command)


@click.command("inspect-thread")
@_thread_option
@click.option("--limit-messages", type=click.IntRange(0, 1000), default=20, show_default=True, help="So many, the latest.")
@click.option("--limit-triggers", type=click.IntRange(0, 1000), default=20, show_default=True, help="So many, the latest.")
@json_option
@click.pass_obj
def inspect_thread(console: Console, *, thread_id: str, limit_messages: int, limit_triggers: int) -> None:
    """Show a thread: where it stands, who is in it, what was said last, what is open, and who was to be woken."""
    asked = bridging.of_wire("GetThread", thread_id=thread_id)
    _check_there(console, thread_id)

    async def work(ours: Commands, who: Caller) -> tuple[wire.Thread, list[wire.Message], wire.ThreadSummary]:
        thread = await ours.get_thread(who, asked)
        said = await ours.latest(who, thread_id, limit_messages)
        told = await ours.summarize_thread(who, bridging.of_wire("SummarizeThread", thread_id=thread_id, max_messages=1))
        return thread, said, told

    async def wakes(store: WakeStore) -> tuple[Wake, ...]:
        return await store.wakes(thread_id=thread_id, limit=limit_triggers) if limit_triggers else ()

    thread, said, told = bridging.ask(console, work)
    found = triggers.ask(console, wakes)
    document = {
        "thread": thread.model_dump(mode="json"),
        "messages": [one.model_dump(mode="json") for one in said],
        "open_items": [one.model_dump(mode="json") for one in told.open_items],
        "triggers": [triggers.as_json(one) for one in found],
    }
    console.answer(document, lambda: _inspected(console, thread, said, told, found))


@click.command("escalate-thread")
@_thread_option
@click.option("--reason", required=True, help="Why, for those in the thread.")
@json_option
@click.pass_obj
def escalate_thread(console: Console, *, thread_id: str, reason: str) -> None:
    """Block a thread until somebody has looked at it."""
    if not reason.strip():
        raise Usage("--reason is empty", hint='--reason "the same finding came back three times"')
    _set_status(console, "escalate-thread", thread_id, "blocked", reason)


@click.command("unblock-thread")
@_thread_option
@click.option("--reason", default="", help="Why, for those in the thread.")
@json_option
@click.pass_obj
def unblock_thread(console: Console, *, thread_id: str, reason: str) -> None:
    """Let a blocked thread go on. The loop guards count from anew."""
    _set_status(console, "unblock-thread", thread_id, "active", reason)


@click.command("override-close-thread")
@_thread_option
@click.option("--reason", required=True, metavar="human_override:…", help="Why; starts with human_override: and goes on.")
@json_option
@click.pass_obj
def override_close_thread(console: Console, *, thread_id: str, reason: str) -> None:
    """Close a thread for good, also one that is blocked."""
    if not reason.startswith("human_override:") or not reason.removeprefix("human_override:").strip():
        raise Usage("--reason is to start with human_override: and go on", hint='--reason "human_override: settled by mail"')
    _set_status(console, "override-close-thread", thread_id, "closed", reason)


@click.command()
@_thread_option
@click.option("--body", required=True, help="What to say; - reads it from standard input.")
@click.option(
    "--kind", type=click.Choice(("chat", "event", "system")), default="chat", show_default=True, help="What it is."
)
@click.option("--metadata", metavar="JSON", help='A JSON object; an event takes {"event_type": …}.')
@click.option("--to", help="Only for this participant.")
@click.option("--idempotency-key", help="The same key and text again post nothing more.")
@json_option
@click.pass_obj
def post(
    console: Console,
    *,
    thread_id: str,
    body: str,
    kind: str,
    metadata: str | None,
    to: str | None,
    idempotency_key: str | None,
) -> None:
    """Post a message to a thread, as the operator."""
    asked = bridging.of_wire(
        "PostMessage",
        thread_id=thread_id,
        body=sys.stdin.read() if body == "-" else body,
        kind=kind,
        metadata=_object(metadata),
        to=to,
        idempotency_key=idempotency_key,
    )
    _check_there(console, thread_id)
    posted = bridging.ask(console, lambda ours, who: ours.post_message(who, asked))
    bridging.tell(console)
    console.note("post", f"posts message {posted.seq} to {thread_id}", thread=thread_id)
    console.answer(posted.model_dump(mode="json"), lambda: [f"Message {posted.seq} of {thread_id}: {posted.message_id}"])


@click.command("tail-thread")
@_thread_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what is posted from now on, until Ctrl-C.")
@click.option("--last", type=click.IntRange(0, 1000), default=10, show_default=True, help="Begin with so many.")
@json_option
@click.pass_obj
def tail_thread(console: Console, *, thread_id: str, follow: bool, last: int) -> None:
    """Print the latest messages of a thread, with --json one object a line."""
    asked = bridging.of_wire("GetThread", thread_id=thread_id)
    _check_there(console, thread_id)

    async def work(ours: Commands, who: Caller) -> None:
        since = (await ours.get_thread(who, asked)).last_seq
        _say(console, await ours.latest(who, thread_id, last, until=since))
        while follow:
            wanted = bridging.of_wire("ReadMessages", thread_id=thread_id, since_seq=since, wait_seconds=30)
            read = await ours.read_messages(who, wanted)
            _say(console, read.messages)
            since = read.next_seq

    bridging.ask(console, work)


def _say(console: Console, messages: Any) -> None:
    import json

    for one in messages:
        if console.as_json:
            click.echo(json.dumps(one.model_dump(mode="json")))
        else:
            console.screen.print(_message_lines(console, one))
    sys.stdout.flush()


def _set_status(console: Console, command: str, thread_id: str, status: str, reason: str) -> None:
    asked = bridging.of_wire("UpdateThreadStatus", thread_id=thread_id, status=status, reason=reason)
    _check_there(console, thread_id)
    done = bridging.ask(console, lambda ours, who: ours.update_thread_status(who, asked))
    if done.changed:
        bridging.tell(console)
        why = f": {reason}" if reason else ""
        console.note(command, f"sets thread {thread_id} to {status}{why}", thread=thread_id)
    told = f"Thread {thread_id} is {'now' if done.changed else 'already'} {status}."
    console.answer(done.model_dump(mode="json"), lambda: [told])


def _object(text: str | None) -> object:
    """Read `--metadata`; what else it may hold is for the wire to say. Raises: Usage."""
    import json

    try:
        return json.loads(text) if text is not None else {}
    except ValueError as error:
        raise Usage(f"--metadata is no JSON: {error}", hint='--metadata \'{"event_type": "fix_pushed"}\'') from None


def _check_there(console: Console, thread_id: str) -> None:
    console.become_owner()
    if not bridging.is_made(console):
        raise Usage(f"There is no thread {thread_id}, for nothing has been stored yet.", hint="klorosctl threads list")


def _inspected(
    console: Console, thread: wire.Thread, said: list[wire.Message], told: wire.ThreadSummary, found: tuple[Wake, ...]
) -> Iterator[str]:
    screen, times = console.screen, console.times
    reason = f": {thread.status_reason}" if thread.status_reason else ""
    yield screen.heading(thread.title)
    yield from screen.field("thread", f"{thread.thread_id}, {thread.type} of {thread.workspace_id}")
    yield from screen.field("status", f"{screen.state(thread.status.value)}{reason}")
    yield from screen.field("opened", f"{times.both(thread.created_at)} by {thread.created_by}")
    yield from screen.field("changed", times.both(thread.updated_at))
    yield ""
    rows = [
        (
            one.agent_id,
            str(one.last_read_seq),
            str(one.unread),
            times.ago(one.last_heartbeat_at) if one.last_heartbeat_at else "never",
            one.session_status.value if one.session_status else "",
        )
        for one in thread.participants
    ]
    yield from screen.table(("PARTICIPANT", "READ", "UNREAD", "HEARTBEAT", "SESSION"), rows)
    if told.open_items:
        yield ""
        items = [(one.state.value, one.finding_id, one.reported_by, one.message_id) for one in told.open_items]
        yield from screen.table(("OPEN", "FINDING", "BY", "MESSAGE"), items)
    if found:
        yield ""
        wakes = [
            (
                one.outcome.value if one.outcome else one.status.value,
                one.code.value if one.code else "",
                one.agent_id,
                times.ago(one.created_at),
                one.requested_by,
                one.reason,
            )
            for one in found
        ]
        yield from screen.table(("TRIGGER", "CODE", "FOR", "WHEN", "BY", "REASON"), wakes)
    for one in said:
        yield ""
        yield from _message_lines(console, one)


def _message_lines(console: Console, one: wire.Message) -> Iterator[str]:
    from orchestration.operator.screen import plain

    event = one.metadata.get("event_type")
    kind = f"{one.kind} {plain(str(event))}" if event else one.kind.value
    to = f" to {one.to}" if one.to else ""
    yield f"{one.seq}  {console.times.both(one.created_at)}  {one.sender}{to}  {kind}"
    for line in one.body.splitlines():
        yield f"    {plain(line)}"
