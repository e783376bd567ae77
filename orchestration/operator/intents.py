"""`klorosctl intents`: what waits in `intents/`, what became of others, and one of your own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, cast

import click

from orchestration.errors import Malformed, Unwritable, Usage
from orchestration.intents import inbox
from orchestration.intents.intent import FINAL, Category, category_of
from orchestration.operator.console import Console, json_option, unknown
from orchestration.store.instants import from_text
from orchestration.store.port import Row
from orchestration.tick.kernel import Kernel

_COLUMNS = ("name", "intent_type", "priority", "status", "reason", "seen_at", "decided_at", "cycle")


@click.group()
def intents() -> None:
    """Look at intents, and leave one."""


@intents.command("list")
@click.option("--limit", type=click.IntRange(0, 100_000), default=10, show_default=True, help="So many decided ones.")
@json_option
@click.pass_obj
def list_(console: Console, *, limit: int) -> None:
    """List the pending intents, next first, and the last ones that were decided."""
    with console.trying() as kernel:
        decided = [_row(row) for row in kernel.db.rows("operator.intents_decided", limit=limit)]
        with kernel.db.transaction():
            sorted_out = inbox.sort_out(kernel.intents_dir, kernel.db, console.now, console.settings.intents)
        pending = [dict(_pending(row)) for row in kernel.db.rows("intents.pending")]
        next_tick = [
            {"name": one.intent.name, "status": str(one.status), "reason": one.reason} for one in sorted_out.verdicts
        ]
        document = {"pending": pending, "next_tick": next_tick, "decided": decided}
        console.answer(document, lambda: _list_lines(console, pending, next_tick, decided))


def _pending(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("name", "intent_type", "priority", "seen_at")}


def _row(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in _COLUMNS}


def _list_lines(
    console: Console, pending: list[dict[str, Any]], next_tick: list[dict[str, Any]], decided: list[dict[str, Any]]
) -> Iterator[str]:
    screen = console.screen
    if pending:
        rows = [
            (str(p["priority"]), p["intent_type"], console.times.ago(from_text(p["seen_at"])), p["name"]) for p in pending
        ]
        yield from screen.table(("PRIORITY", "TYPE", "WAITING SINCE", "INTENT"), rows)
    else:
        where = f"scope {console.settings.scope.name}" if console.settings.database_url else console.path("intents")
        yield f"No intent waits to start anything in {where}."
    if next_tick:
        yield ""
        rows_next = [(n["status"], n["name"], n["reason"]) for n in next_tick]
        yield from screen.table(("NEXT TICK", "INTENT", "WHY"), rows_next)
    if decided:
        yield ""
        done = [(d["status"], console.times.ago(from_text(d["decided_at"])), d["name"], _why(d)) for d in decided]
        yield from screen.table(("BECAME", "WHEN", "INTENT", "WHY"), done)


def _why(decided: dict[str, Any]) -> str:
    return cast(str, decided["reason"])


def _name_argument(command: Any) -> Any:
    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        console = Console(os.environ)
        with console.looking() as kernel:
            return [name for name in _known(console, kernel) if name.startswith(incomplete)]

    return click.argument("name", shell_complete=complete)(command)


@intents.command()
@_name_argument
@json_option
@click.pass_obj
def show(console: Console, *, name: str) -> None:
    """Show an intent: its file, wherever it lies, and what became of it."""
    with console.looking() as kernel:
        name = _named(console, kernel, name)
        rows = [_row(row) for row in kernel.db.rows("operator.intents_named", name=name)]
        paths = _paths(console, kernel, name)
        if not rows and not paths:
            raise unknown("intent", name, _known(console, kernel), more="klorosctl intents list")
        files = [{"path": path, "text": _text(path)} for path in paths]
        document = {"name": name, "files": files, "records": rows}
        console.answer(document, lambda: _show_lines(console, name, files, rows))


def _show_lines(console: Console, name: str, files: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Iterator[str]:
    screen = console.screen
    yield screen.heading(name)
    if not rows:
        yield from screen.field("Standing", "no tick has seen it yet")
    for row in rows:
        since = f"{row['status']}, since {console.times.both(from_text(row['decided_at'] or row['seen_at']))}"
        started = [] if row["cycle"] is None else [f"cycle {row['cycle']}: klorosctl show {row['cycle']}"]
        yield from screen.field("Standing", since, *filter(None, [row["reason"]]), *started)
    for file in files:
        yield ""
        yield screen.heading(file["path"])
        for line in file["text"].splitlines()[:60]:
            yield from screen.wrap(line, first="  ", rest="    ")


def _named(console: Console, kernel: Kernel, given: str) -> str:
    """Return an intent's name: one without a host is this host's, or the only one of that name."""
    if kernel.shared is None or "@" in given:
        return given
    named = {name for name in _known(console, kernel) if name.partition("@")[2] == given}
    ours = f"{console.here}@{given}"
    return ours if ours in named or len(named) != 1 else named.pop()


def _paths(console: Console, kernel: Kernel, name: str) -> list[str]:
    """Return where an intent's file is: on this host, or a copy of one of another host, as long as that one has it."""
    if os.path.basename(name) != name:
        return []
    folder = console.path("intents")
    if kernel.shared is not None:
        host, _, own = name.partition("@")
        if host != console.here:
            return [path for path in [os.path.join(kernel.intents_dir, name)] if os.path.lexists(path)]
        name = own
    places = [folder, *(os.path.join(folder, "processed", status.value) for status in FINAL)]
    return [path for place in places if os.path.lexists(path := os.path.join(place, name))]


def _known(console: Console, kernel: Kernel) -> list[str]:
    decided = kernel.db.rows("operator.intents_decided", limit=200)
    return [*inbox.list_names(kernel.intents_dir), *(cast(str, row["name"]) for row in decided)]


def _text(path: str) -> str:
    from orchestration.promotions.scan import read_regular

    try:
        return read_regular(path, limit=65536)[0].decode("utf-8", "backslashreplace")
    except OSError as error:
        return f"(can't be read: {error.strerror or error})"


@intents.command()
@click.argument("intent_type", metavar="TYPE")
@click.option("--priority", type=click.IntRange(0, 10), required=True, help="0 (lowest) to 10.")
@click.option("--reason", required=True, help="Why, for people.")
@click.option("--data", "data_text", metavar="JSON", default="{}", help="What the type needs: a JSON object.")
@click.option("--topic", default="", help="What a D-REAM cycle is to be about; the same as --data '{\"topic\": …}'.")
@json_option
@click.pass_obj
def add(console: Console, *, intent_type: str, priority: int, reason: str, data_text: str, topic: str) -> None:
    """Leave an intent: trigger_phase…, trigger_dream…, curiosity_…, idle_reflection, suggest_…, alert_…."""
    from orchestration.intents.drop import write_intent

    data = _data(data_text, topic)
    console.become_owner()
    folder = console.path("intents")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unwritable(f"{folder} can't be made: {error.strerror}", hint="run it as the state's owner: sudo") from error
    try:
        path = write_intent(
            folder,
            intent_type=intent_type,
            priority=priority,
            reason=reason,
            data=data,
            emitted_by=f"klorosctl: {console.actor}",
            now=console.now,
        )
    except Malformed as error:
        raise Usage(f"that is no intent: {error.message}", hint="klorosctl intents add --help") from error
    console.note("intents add", f"leaves the intent {os.path.basename(path)}: {reason}", intent=os.path.basename(path))
    category = category_of(intent_type)
    console.answer(
        {"intent": os.path.basename(path), "path": path, "category": category.value},
        lambda: [f"written: {path}", *console.screen.wrap(_MEANS[category])],
    )


_MEANS = {
    Category.PHASE: "The next tick that is free starts a PHASE for it. Which comes first: klorosctl explain",
    Category.DREAM_CYCLE: "The next tick that is free starts a D-REAM cycle for it. Which comes first: klorosctl explain",
    Category.REFLECTION: "The next tick that has nothing else to start starts a reflection. Why none: klorosctl explain",
    Category.SUGGESTION: "The next tick appends it to suggestions.jsonl.",
    Category.ALERT: "The next tick appends it to alerts.jsonl.",
    Category.LOOP_GOAL: 'The continuous loop takes it as the goal of its next iteration, where goal_from = "intents".',
    Category.UNKNOWN: "No rule is there for this type: the next tick files it under processed/unknown.",
}


def _data(text: str, topic: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Usage(f"--data is not JSON: {error}", hint="""write it as --data '{"topic": "latency"}'""") from None
    if not isinstance(data, dict):
        raise Usage(f"--data is {type(data).__name__}, not an object", hint="""write it as --data '{"key": "value"}'""")
    return {**data, "topic": topic} if topic else data
