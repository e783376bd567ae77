"""`klorosctl promotions`: what waits, what was answered, and a person's own answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from orchestration.cycles import ledger as cycles
from orchestration.errors import KlorosError
from orchestration.host.lock import PATIENCE
from orchestration.operator.console import Console, check_reason, json_option, unknown
from orchestration.promotions import ledger
from orchestration.promotions.ledger import Remembered
from orchestration.promotions.scan import ack_name, scan_unacked, stem_of
from orchestration.tick.kernel import Kernel


class Listed(NamedTuple):
    """One promotion that has no ack."""

    stem: str
    state: str  # unacked, parked; refused: the next tick acks it as invalid; unreadable: left for a later tick
    fitness: float | None
    failures: int
    remark: str


@click.group()
def promotions() -> None:
    """Look at promotions, and answer them."""


def _stem_argument(command: Any) -> Any:
    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        console = Console(os.environ)
        with console.looking() as kernel:
            return [stem for stem in _known_stems(console, kernel) if stem.startswith(incomplete)]

    return click.argument("stem", shell_complete=complete)(command)


@promotions.command("list")
@click.option("--limit", type=click.IntRange(0, 100_000), default=10, show_default=True, help="So many answered ones.")
@json_option
@click.pass_obj
def list_(console: Console, *, limit: int) -> None:
    """List the promotions without an answer, and the last ones that have one."""
    with console.looking() as kernel:
        waiting = _waiting(console, kernel)
        answered = [one for one in ledger.recent(kernel.db, limit=limit) if one.state in ("accepted", "rejected")]
        document = {"waiting": [one._asdict() for one in waiting], "answered": [_remembered(one) for one in answered]}
        console.answer(document, lambda: _list_lines(console, waiting, answered))


def _waiting(console: Console, kernel: Kernel) -> list[Listed]:
    from orchestration.promotions.reading import read_promotions

    settings = console.settings
    scan = scan_unacked(kernel.db, promotions_dir=kernel.promotions_dir, acks_dir=kernel.acks_dir, remember=False)
    read = read_promotions(
        kernel.promotions_dir,
        scan.waiting,
        bounds=settings.promotions.bounds,
        strict=settings.promotions.strict,
        now=console.now,
        older_answers=scan.older_answers,
    )
    known = ledger.known(kernel.db, [stem_of(name) for name in scan.waiting + scan.parked])
    found = [_listed(one.stem, "unacked", one.promotion.fitness, known.get(one.stem)) for one in read.candidates]
    found += [_listed(stem_of(name), "parked", None, known.get(stem_of(name))) for name in scan.parked]
    found += [Listed(one.stem, "refused", None, 0, one.reason) for one in read.refused]
    found += [Listed(stem_of(one.name), "unreadable", None, 0, one.reason) for one in read.left]
    return sorted(found)


def _listed(stem: str, state: str, fitness: float | None, known: Remembered | None) -> Listed:
    if known is None:
        return Listed(stem, state, fitness, 0, "new")
    return Listed(stem, state, known.fitness if fitness is None else fitness, known.failures, known.reason)


def _remembered(one: Remembered) -> dict[str, Any]:
    return one._asdict()


def _list_lines(console: Console, waiting: list[Listed], answered: list[Remembered]) -> Iterator[str]:
    screen = console.screen
    if waiting:
        rows = [(w.state, _shown(w.fitness), str(w.failures or ""), w.stem, w.remark) for w in waiting]
        yield from screen.table(("WAITING", "FITNESS", "FAILURES", "PROMOTION", "REMARK"), rows)
    else:
        where = f"of scope {console.settings.scope.name}" if console.settings.database_url else f"in {_own(console)[0]}"
        yield f"Every promotion {where} has its answer."
    if answered:
        yield ""
        done = [
            (one.state, _shown(one.fitness), str(one.cycle or ""), console.times.ago(one.changed_at), one.stem, one.reason)
            for one in answered
        ]
        yield from screen.table(("ANSWER", "FITNESS", "CYCLE", "WHEN", "PROMOTION", "REASON"), done)
    if any(one.state == "parked" for one in waiting):
        yield ""
        yield "Parked ones wait for you: klorosctl promotions retry|reject PROMOTION"


def _shown(fitness: float | None) -> str:
    return "" if fitness is None else f"{fitness:g}"


@promotions.command()
@_stem_argument
@json_option
@click.pass_obj
def show(console: Console, *, stem: str) -> None:
    """Show a promotion: its file, where it stands, its ack."""
    with console.looking() as kernel:
        stem = _find(console, kernel, stem)
        listed = next((one for one in _waiting(console, kernel) if one.stem == stem), None)
        known = ledger.known(kernel.db, [stem]).get(stem)
        path, ack_path = _file(console, kernel, stem), _ack(console, kernel, stem)
        file, ack = _text(path), _text(ack_path)
        document = {
            "stem": stem,
            "state": _state(listed, known, ack),
            "remark": "" if listed is None else listed.remark,
            "remembered": None if known is None else _remembered(known),
            "file": {"path": path, "text": file},
            "ack": {"path": ack_path, "text": ack},
        }
        console.answer(document, lambda: _show_lines(console, document, known))


def _state(listed: Listed | None, known: Remembered | None, ack: str | None) -> str:
    if listed is not None:
        return listed.state
    if known is not None and known.state in ("accepted", "rejected"):
        return known.state
    return "answered" if ack is not None else "answered by an older ack"


def _show_lines(console: Console, document: dict[str, Any], known: Remembered | None) -> Iterator[str]:
    screen = console.screen
    yield f"{screen.heading(document['stem'])}  {screen.state(document['state'])}"
    if document["remark"]:
        yield from screen.field("Remark", document["remark"])
    if known is not None:
        yield from screen.field("First seen", console.times.both(known.first_seen_at))
        yield from screen.field("Changed", console.times.both(known.changed_at))
        if known.failures:
            yield from screen.field("Failures", f"{known.failures} cycles in a row, last cycle {known.cycle}")
        elif known.cycle is not None:
            yield from screen.field("Cycle", f"{known.cycle}: klorosctl show {known.cycle}")
    for name in ("file", "ack"):
        part = document[name]
        yield ""
        yield screen.heading(part["path"]) + ("" if part["text"] is not None else "  (not there)")
        for line in (part["text"] or "").splitlines()[:60]:
            yield from screen.wrap(line, first="  ", rest="    ")


@promotions.command()
@_stem_argument
@json_option
@click.pass_obj
def retry(console: Console, *, stem: str) -> None:
    """Let a parked promotion go again."""
    with console.looking() as kernel:
        stem = _find(console, kernel, stem)
    with console.acting() as kernel:
        with kernel.db.transaction():
            done = ledger.retry(kernel.db, stem, at=kernel.now())
        known = ledger.known(kernel.db, [stem]).get(stem)
    if not done:
        state = "not tried yet" if known is None else known.state
        raise KlorosError(f"promotion {stem} is not parked, it is {state}", hint=f"klorosctl promotions show {stem}")
    console.note("promotions retry", f"lets promotion {stem} go again", promotion=stem)
    message = f"{stem} is unacked again; the next D-REAM cycle takes it. See: klorosctl explain"
    console.answer({"promotion": stem, "state": "unacked"}, lambda: console.screen.wrap(message))


@promotions.command()
@_stem_argument
@click.option("--reason", required=True, help="Why; it stands in the ack.")
@json_option
@click.pass_obj
def reject(console: Console, *, stem: str, reason: str) -> None:
    """Answer an unacked or parked promotion with no: writes its ack."""
    from orchestration.promotions import refusal
    from orchestration.promotions.reading import Refused
    from orchestration.promotions.state import AckVerdict

    check_reason(reason)
    with console.looking() as kernel:
        stem = _find(console, kernel, stem)
    with console.acting() as kernel, kernel.lock.held("klorosctl", patience=PATIENCE):
        if kernel.shared is not None:
            kernel.shared.look()
        _refuse_answered(console, kernel, stem)
        known = ledger.known(kernel.db, [stem]).get(stem)
        identity = known.promotion_id if known is not None else _own_id(console, kernel, stem)
        refused, now = Refused(stem=stem, promotion_id=identity, reason=reason), kernel.now()
        refusal.write(kernel.acks_dir, refused, last_phase=cycles.last_phase(kernel.db), at=now)
        if kernel.shared is not None and not kernel.shared.answer([stem]):
            raise _answered_already(stem)
        with kernel.db.transaction():
            refusal.note(kernel.db, refused, AckVerdict.REJECTED, at=now)
        path = _ack(console, kernel, stem)
        if kernel.shared is not None:
            kernel.shared.exchange()  # if it is a file of this host, its ack is written now
    console.note("promotions reject", f"rejects promotion {stem}: {reason}", promotion=stem)
    document = {"promotion": stem, "state": "rejected", "reason": reason, "ack": path}
    console.answer(document, lambda: _rejected_lines(console, stem, path))


def _rejected_lines(console: Console, stem: str, path: str) -> list[str]:
    host, own = _host_of(console, stem)
    if host not in ("", console.here):
        return [f"{stem} is rejected.", f"  {host} writes {ack_name(own)} with its next tick.", "Undo: remove it there"]
    return [f"{stem} is rejected.", f"  written: {path}", f"Undo: rm {path}"]


def _refuse_answered(console: Console, kernel: Kernel, stem: str) -> None:
    """Refuse what has its answer, and what a cycle is about to answer: it may have set a baseline with it."""
    for cycle in (*cycles.active(kernel.db), *cycles.unsettled(kernel.db)):
        if stem in cycle.origin.promotions:
            hint = f"wait for it, or: klorosctl cancel {cycle.cycle}"
            raise KlorosError(f"cycle {cycle.cycle} is trying promotion {stem} ({cycle.state})", hint=hint)
    scan = scan_unacked(kernel.db, promotions_dir=kernel.promotions_dir, acks_dir=kernel.acks_dir, remember=False)
    if f"{stem}.json" not in (*scan.waiting, *scan.parked):
        raise _answered_already(stem)


def _answered_already(stem: str) -> KlorosError:
    return KlorosError(f"promotion {stem} has its answer already", hint=f"klorosctl promotions show {stem}")


def _own_id(console: Console, kernel: Kernel, stem: str) -> str:
    """Return the id that the file gives itself; the stem when it gives none that can be read."""
    from orchestration.promotions.promotion import Promotion, parse

    text = _text(_file(console, kernel, stem))
    read = parse((text or "").encode("utf-8", "surrogateescape"), bounds={})
    return read.id if isinstance(read, Promotion) else stem


def _find(console: Console, kernel: Kernel, given: str) -> str:
    stem = given.removesuffix(".json")
    known = _known_stems(console, kernel)
    if stem not in known and kernel.shared is not None:  # without a host, it is this host's, or the only one of that name
        named = [one for one in known if one.partition("@")[2] == stem]
        ours = f"{console.here}@{stem}"
        stem = ours if ours in named else named[0] if len(named) == 1 else stem
    if stem not in known:
        raise unknown("promotion", stem, known)
    return stem


def _known_stems(console: Console, kernel: Kernel) -> list[str]:
    try:
        names = os.listdir(kernel.promotions_dir)
    except FileNotFoundError:
        names = []
    files = {stem_of(name) for name in names if name.endswith(".json") and not name.startswith(".")}
    return sorted(files | {one.stem for one in ledger.recent(kernel.db, limit=1000)})


def _file(console: Console, kernel: Kernel, stem: str) -> str:
    """Return where a promotion's file is: on this host, or a copy of one of another host."""
    host, own = _host_of(console, stem)
    if host not in ("", console.here):
        return os.path.join(kernel.promotions_dir, f"{stem}.json")
    return os.path.join(_own(console)[0], f"{own}.json")


def _ack(console: Console, kernel: Kernel, stem: str) -> str:
    host, own = _host_of(console, stem)
    if host not in ("", console.here):
        return os.path.join(kernel.acks_dir, ack_name(stem))
    return os.path.join(_own(console)[1], ack_name(own))


def _host_of(console: Console, stem: str) -> tuple[str, str]:
    """Return whose a promotion is, and its stem there: `lab-1@gen5`; no host where a host is alone."""
    host, at, own = stem.partition("@")
    return (host, own) if at and console.settings.database_url else ("", stem)


def _own(console: Console) -> tuple[str, str]:
    return console.settings.promotions_dir, console.settings.acks_dir


def _text(path: str) -> str | None:
    from orchestration.promotions.document import MAX_BYTES
    from orchestration.promotions.scan import read_regular

    try:
        return read_regular(path, limit=MAX_BYTES)[0].decode("utf-8", "surrogateescape")
    except OSError:
        return None
