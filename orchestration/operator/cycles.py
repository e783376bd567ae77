"""`klorosctl show` and `klorosctl cancel`: one cycle, everything about it, and its end by a person."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import click

from orchestration.cycles import artifacts, claims, ledger, orphan
from orchestration.cycles.cycle import Cycle, CycleEvent, CycleNumber, CycleState, Executor, Result, folder_name
from orchestration.errors import KlorosError, Usage
from orchestration.operator.console import Console, json_option
from orchestration.operator.records import cycle_json, elapsed, took
from orchestration.operator.screen import size, span
from orchestration.tick.kernel import Kernel
from orchestration.tick.observe import waits

_TAIL_LINES = 10
_TAIL_BYTES = 16384
_FILES = 50


def number_argument(command: Any) -> Any:
    """Give a command the argument N, the number of a cycle."""

    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        with Console(os.environ).looking() as kernel:
            numbers = [str(cycle.cycle) for cycle in ledger.recent(kernel.db, 50)]
        return [number for number in numbers if number.startswith(incomplete)]

    return click.argument("number", metavar="N", shell_complete=complete)(command)


def find(kernel: Kernel, number: str) -> Cycle:
    """Return the cycle of this number; `cycle_00042` means it too.

    Raises:
        Usage: there is none; the hint says which there are.
    """
    text = number.removeprefix("cycle_")
    found = ledger.get(kernel.db, CycleNumber(int(text))) if text.isascii() and text.isdigit() and len(text) < 16 else None
    if found is not None:
        return found
    newest = ledger.recent(kernel.db, 1)
    there = f"there are 1 to {newest[0].cycle}; klorosctl history --cycles lists them" if newest else "there is none yet"
    raise Usage(f"there is no cycle {number!r}", hint=there)


def folder_of(console: Console, cycle: Cycle) -> str:
    """Return the cycle's folder."""
    return artifacts.cycle_dir(console.settings.cycles_dir, cycle.cycle)


def elsewhere(console: Console, cycle: Cycle) -> str:
    """Return the other host on whose disk lies what a cycle left; empty when that is this one's."""
    here = claims.here(console.settings)
    return cycle.host if here and cycle.executor is Executor.LOCAL and cycle.host != here else ""


def copy_of(console: Console, kernel: Kernel, cycle: Cycle) -> str:
    """Return where every host finds a copy of its bundle; empty when there is none."""
    from orchestration.cycles.remote import public

    found = kernel.db.rows("federation.get", cycle=cycle.cycle)
    place = str(found[0]["place"]) if found else ""
    return f"{public(console.settings.federation.target).rstrip('/')}/{place}" if place else ""


@click.command()
@number_argument
@json_option
@click.pass_obj
def show(console: Console, *, number: str) -> None:
    """Show everything about cycle N: cause, command, times, result, files, the end of its output."""
    with console.looking() as kernel:
        cycle = find(kernel, number)
        folder = folder_of(console, cycle)
        files, answers = _files(folder), _answers(kernel, cycle)
        tail, packed = _tail(artifacts.output_path(folder)), _bundle(console, kernel, cycle)
        document = {**cycle_json(cycle), "folder": folder, "files": files, "bundle": packed}
        document |= {
            "slurm": _slurm(kernel, cycle),
            "waits": "" if cycle.ended_at is not None else waits(kernel, cycle),
            "phase_result": _phase_result(kernel, cycle),
            "answers": answers,
            "output_tail": tail,
            "elsewhere": elsewhere(console, cycle),
            "copy": copy_of(console, kernel, cycle),
        }
        console.answer(document, lambda: _lines(console, cycle, folder, document))


def _answers(kernel: Kernel, cycle: Cycle) -> list[dict[str, Any]]:
    rows = kernel.db.rows("operator.answered_by", cycle=cycle.cycle)
    return [{name: row[name] for name in ("stem", "state", "fitness", "reason")} for row in rows]


def _slurm(kernel: Kernel, cycle: Cycle) -> dict[str, Any] | None:
    """Give what is known of the job that Slurm runs for it; None when this host runs it itself."""
    if cycle.executor is not Executor.SLURM:
        return None
    from orchestration.cycles.slurm import jobs

    job = jobs.get(kernel.db, cycle.cycle)
    return {"job_id": job.job_id, "state": job.state, "reason": job.reason, "nodes": job.nodes, "gpus": job.gpus}


def _phase_result(kernel: Kernel, cycle: Cycle) -> dict[str, Any] | None:
    """Give what a PHASE came to, for the verdict on the baseline; None when that is not known."""
    rows = kernel.db.rows("validation.result", cycle=cycle.cycle)
    return {name: rows[0][name] for name in ("result", "measure", "phase_type", "version")} if rows else None


def _bundle(console: Console, kernel: Kernel, cycle: Cycle) -> dict[str, Any]:
    """Say where the cycle's bundle is, and why there is none."""
    from orchestration.cycles import bundle, packing

    path = bundle.path_of(folder_name(cycle.cycle), console.settings.bundles_dir)
    known = packing.of(kernel.db, cycle.cycle) or {}
    waits = bool(known) and not known["made"]
    return {"path": path, "error": known["error"] if waits else "", "due_at": known["due_at"] if waits else None}


def _files(folder: str) -> list[dict[str, Any]]:
    from orchestration.host import folders

    below = folders.tree(folder, lambda _path, _error: None)
    found = ({"path": "/".join(names), "bytes": st.st_size} for names, _, st in below if not stat.S_ISDIR(st.st_mode))
    return list(islice(found, _FILES))


def _tail(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode("utf-8", "backslashreplace").splitlines()[-_TAIL_LINES:]
    except OSError:
        return []


def _lines(console: Console, cycle: Cycle, folder: str, document: dict[str, Any]) -> Iterator[str]:
    screen, files, answers, tail = console.screen, document["files"], document["answers"], document["output_tail"]
    yield screen.heading(f"Cycle {cycle.cycle}") + f"  {cycle.job}  {screen.state(cycle.state)}"
    yield ""
    yield from _result_lines(console, cycle, document["waits"])
    if document["phase_result"]:
        yield from screen.field("Came to", _came_to(document["phase_result"]))
    yield from _origin_lines(console, cycle)
    yield from _time_lines(console, cycle)
    yield from screen.field("Command", shlex.join(cycle.command))
    if document["slurm"]:
        yield from screen.field("Slurm", _with_slurm(document["slurm"]))
    elif cycle.runner:
        yield from screen.field("Runner", _runner(cycle.runner))
    if document["elsewhere"]:
        yield from screen.field("Files", f"on {cycle.host}, where it ran: klorosctl show {cycle.cycle}, there")
    else:
        yield from screen.field("Folder", folder if files else f"{folder} (not there)")
        if files:
            yield from screen.field("Files", *(f"{file['path']}  {size(file['bytes'])}" for file in files))
        yield from _bundle_lines(console, document["bundle"])
    if document["copy"]:
        yield from screen.field("Copy", document["copy"])
    if answers:
        yield ""
        rows = [(a["state"], _number(a["fitness"]), a["stem"], a["reason"]) for a in answers]
        yield from screen.table(("ANSWER", "FITNESS", "PROMOTION", "REASON"), rows)
    if tail:
        yield ""
        yield screen.heading(f"The end of its output (all of it: klorosctl logs {cycle.cycle})")
        yield from (f"  {line}" for text in tail for line in screen.wrap(text))


def _came_to(found: dict[str, Any]) -> str:
    version = found["version"]
    under = "no baseline yet" if version == 0 else f"baseline version {version}"
    advised = f", {found['phase_type']}" if found["phase_type"] else ""
    changed = "; the baseline changed meanwhile, or was edited, so it counts for no version"
    return f"{found['result']:.6g}, {found['measure']}{advised}{changed if version is None else f'; under {under}'}"


def _bundle_lines(console: Console, packed: dict[str, Any]) -> Iterator[str]:
    if packed["error"]:
        again = f"it is tried again at {console.times.both(packed['due_at'])}"
        yield from console.screen.field("Bundle", f"can't be made: {packed['error']}", again)
    elif packed["due_at"] is not None:
        yield from console.screen.field("Bundle", "is about to be made")
    elif packed["path"]:
        yield from console.screen.field("Bundle", packed["path"])


def _with_slurm(job: dict[str, Any]) -> str:
    number = "not submitted" if job["job_id"] is None else f"job {job['job_id']}"
    where = f"on {job['nodes']}" if job["nodes"] else ""
    return ", ".join(filter(None, (number, job["state"], where, job["gpus"], job["reason"])))


def _runner(record: str) -> str:
    try:
        found = json.loads(record)
        return f"pid {found['pid']} on {found['host']}"
    except (ValueError, KeyError, TypeError):
        return record


def _number(value: object) -> str:
    return "" if value is None else f"{cast(float, value):g}"


def _result_lines(console: Console, cycle: Cycle, told: str) -> Iterator[str]:
    field = console.screen.field
    result = cycle.result
    if result is None:
        yield from field("Standing", elapsed(cycle, console.now, told))
        return
    how = f"exit code {result.exit_code}" if result.exit_code is not None else ""
    if result.signal:
        how = f"signal {result.signal}"
    yield from field("Result", result.reason, *([how] if how not in result.reason else []))
    used = [
        f"wall {span(result.wall_seconds)}" if result.wall_seconds is not None else "",
        f"CPU {span(result.cpu_seconds)}" if result.cpu_seconds is not None else "",
        f"peak memory {size(result.peak_bytes)}" if result.peak_bytes is not None else "",
        "output was cut at its limit" if result.output_truncated else "",
    ]
    if any(used):
        yield from field("Used", ", ".join(filter(None, used)))
    if result.epoch:
        yield from field("Epoch", result.epoch)
    if result.report:
        yield from field("Report", result.report, *([f"sha256 {result.report_sha}"] if result.report_sha else []))


def _origin_lines(console: Console, cycle: Cycle) -> Iterator[str]:
    field, origin = console.screen.field, cycle.origin
    date = "" if cycle.phase_date is None else f", for the PHASE of {cycle.phase_date}"
    yield from field("Cause", f"{origin.cause}{date}", f"tick {origin.tick_id}")
    if origin.intent:
        yield from field("Intent", origin.intent)
    if origin.topic:
        yield from field("Topic", origin.topic)
    if origin.promotions:
        yield from field("Promotions", *origin.promotions)


def _time_lines(console: Console, cycle: Cycle) -> Iterator[str]:
    instants = {
        "Queued": cycle.queued_at,
        "Started": cycle.started_at,
        "Asked end": cycle.cancel_asked_at,
        "Ended": cycle.ended_at,
        "Settled": cycle.settled_at,
    }
    for name, instant in instants.items():
        if instant is not None:
            yield from console.screen.field(name, console.times.both(instant))
    if cycle.started_at is not None:
        yield from console.screen.field("Took", f"{took(cycle, console.now)}, deadline {span(cycle.timeout)}")


@click.command()
@number_argument
@json_option
@click.pass_obj
def cancel(console: Console, *, number: str) -> int:
    """End cycle N: a queued one at once, a running one by asking its runner."""
    with console.looking() as kernel:
        cycle = find(kernel, number)
    if cycle.ended_at is not None:
        raise KlorosError(
            f"cycle {cycle.cycle} has ended: {cycle.state}, {console.times.ago(cycle.ended_at)}",
            hint=f"nothing to cancel; klorosctl show {cycle.cycle}",
        )
    with console.acting() as kernel:
        said = _cancel(console, kernel, cycle)
    cycle_now = said.pop("cycle")
    console.answer({"cycle": cycle_now, **said}, lambda: console.screen.wrap(said["message"]))
    return 0


def _cancel(console: Console, kernel: Kernel, cycle: Cycle) -> dict[str, Any]:
    """Cancel it where it stands now; whichever change of state came first, counts."""
    name = f"cycle {cycle.cycle}"
    with kernel.db.transaction():
        cycle = ledger.get(kernel.db, cycle.cycle) or cycle
        done = False
        if cycle.state is CycleState.QUEUED and cycle.executor is Executor.LOCAL:
            result = Result(reason=f"cancelled by {console.actor} before it started")
            done = ledger.finish(kernel.db, cycle, CycleEvent.CANCEL, result, now=kernel.now())
            if not done:  # a runner has taken it meanwhile
                cycle = ledger.get(kernel.db, cycle.cycle) or cycle
        if not done:
            done = ledger.ask_cancel(kernel.db, cycle.cycle, now=kernel.now())
    if cycle.executor is Executor.SLURM and cycle.ended_at is None:
        outcome, message = "asked", f"{name} is asked to end, in Slurm too. klorosctl show {cycle.cycle}"
        kernel.start("run_cycle")
    elif cycle.state is CycleState.QUEUED:
        outcome, message = "cancelled", f"{name} is cancelled; it had not started."
    elif cycle.ended_at is not None:
        outcome, message = "ended", f"{name} ended meanwhile: {cycle.state}."
    elif not claims.is_ours(cycle, claims.here(console.settings)):
        outcome, message = "asked", f"{name} is asked to end on {cycle.host}, where it runs. klorosctl show {cycle.cycle}"
    elif orphan.lock_of(console.settings.state_dir, cycle).is_free():
        outcome, message = "lost", f"{name} has no runner any more: the next tick records it as lost and ends what it left."
    elif done:
        grace = span(console.settings.cycles.term_grace)
        outcome = "asked"
        message = (
            f"{name} is asked to end: SIGTERM to all of its processes, SIGKILL {grace} later. klorosctl show {cycle.cycle}"
        )
    else:
        outcome, message = "asked_before", f"{name} was asked before; klorosctl show {cycle.cycle}"
    if done:
        console.note("cancel", f"cancels {name} ({cycle.state})", cycle=cycle.cycle)
    return {"cycle": cycle.cycle, "outcome": outcome, "message": message}
