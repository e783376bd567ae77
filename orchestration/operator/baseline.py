"""`klorosctl baseline`: the accepted parameters, version by version; verified, compared, rolled back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestration.errors import Usage
from orchestration.host.lock import PATIENCE
from orchestration.operator import differences
from orchestration.operator.console import Console, check_reason, json_option
from orchestration.store.instants import to_text
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from orchestration.baseline.verdicts import Concluded
    from orchestration.baseline.version import Change, Provenance, Version

_LIMIT = 20
_reason = click.option("--reason", required=True, help="Why; it stays with the version.")


@click.group()
def baseline() -> None:
    """Look at the accepted parameters and their history, verify them, and go back."""


@baseline.command()
@click.argument("version", type=click.IntRange(1), required=False)
@json_option
@click.pass_obj
def show(console: Console, *, version: int | None) -> None:
    """Show the version in force, or version VERSION."""
    with console.looking() as kernel:
        found = _find(kernel, version)
        judged = _judged(kernel, found)
    document = {**_document(found), "validation": judged}
    console.answer(document, lambda: [*_shown(console, found), *_validation(console, judged)])


@baseline.command()
@click.option("--limit", type=click.IntRange(1, 100_000), default=_LIMIT, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def history(console: Console, *, limit: int) -> None:
    """Show the versions, newest first: when, by whom, why, what changed, and what PHASEs under it showed."""
    from orchestration.baseline import history as versions
    from orchestration.baseline import verdicts
    from orchestration.baseline.version import difference

    with console.looking() as kernel:
        found = versions.recent(kernel.db, limit + 1)
        known = verdicts.verdicts(kernel.db, found[-1].version, found[0].version) if found else {}
    pairs = list(zip(found, [*found[1:], None], strict=False))[:limit]
    document = [
        {
            **_document(one),
            "changes": [difference(change) for change in _changes(before, one)],
            "validation": _concluded(known.get(one.version)),
        }
        for one, before in pairs
    ]
    console.answer(document, lambda: _rows(console, pairs, known))


@baseline.command()
@click.argument("one", type=click.IntRange(1))
@click.argument("other", type=click.IntRange(1))
@json_option
@click.pass_obj
def diff(console: Console, *, one: int, other: int) -> None:
    """Show the parameters that differ between the versions ONE and OTHER."""
    from orchestration.baseline.version import difference

    with console.looking() as kernel:
        before, after = _find(kernel, one), _find(kernel, other)
    changed = _changes(before, after)
    same = ["The two versions have the same parameters."]
    console.answer([difference(change) for change in changed], lambda: differences.table(console.screen, changed) or same)


@baseline.command()
@click.option(
    "--repair", is_flag=True, help="Write the files again from the store; what was edited is put aside as .edited."
)
@json_option
@click.pass_obj
def verify(console: Console, *, repair: bool) -> int:
    """Check the chain of hashes and every file of the baseline and of escrow; exit 1 when a byte was edited."""
    mended: list[str] = []
    if repair:
        with console.acting() as kernel, kernel.lock.held("klorosctl baseline verify", patience=PATIENCE):
            mended = _mended(kernel)
            found = faults(kernel)
        if mended:
            console.note("baseline verify", f"put {len(mended)} files of baseline and escrow right again")
    else:
        with console.looking() as kernel:
            found = faults(kernel)
    document = {"faults": [*found.in_store, *found.in_files], "mended": mended}
    console.answer(document, lambda: _verified(console, found, mended))
    return 1 if found.in_store or found.in_files else 0


class Faults(NamedTuple):
    """What of baseline and escrow is not as it was committed."""

    in_store: list[str]
    in_files: list[str]

    @property
    def advice(self) -> list[str]:
        """Say what to do."""
        store = "restore a backup of kloros.db, for the store itself was changed: docs/how-to/roll-back.md"
        files = "klorosctl baseline verify --repair puts files right; what was edited stays beside them as .edited"
        return [*([store] if self.in_store else []), *([files] if self.in_files else [])]


def faults(kernel: Kernel) -> Faults:
    """Find what is not as it was committed; reads every file."""
    from orchestration.baseline import copies, escrow_files
    from orchestration.baseline import history as versions
    from orchestration.baseline.version import broken_links

    in_files = [*copies.verify(kernel.db, kernel.path("baseline")), *escrow_files.verify(kernel.db, kernel.path("escrow"))]
    return Faults(broken_links(versions.every(kernel.db)), in_files)


def _mended(kernel: Kernel) -> list[str]:
    from orchestration.baseline import copies, escrow_files

    return [*copies.restore(kernel.db, kernel.path("baseline")), *escrow_files.restore(kernel.db, kernel.path("escrow"))]


@baseline.command()
@click.argument("version", type=click.IntRange(1))
@_reason
@json_option
@click.pass_obj
def rollback(console: Console, *, version: int, reason: str) -> None:
    """Put the parameters of VERSION in force again, as a new version."""
    from orchestration.baseline import history as versions
    from orchestration.baseline.version import Kind

    check_reason(reason)
    with console.acting() as kernel, kernel.lock.held("klorosctl baseline rollback", patience=PATIENCE):
        with kernel.db.transaction():
            _check_bounds(kernel, version)
            made = versions.put_back(
                kernel.db, version, _by(console, kernel, Kind.ROLLBACK, f"to version {version}: {reason}")
            )
        _in_force(console, kernel, made)


@baseline.command("set")
@click.argument("assignments", metavar="NAME=VALUE…", nargs=-1, required=True)
@_reason
@json_option
@click.pass_obj
def set_(console: Console, *, assignments: tuple[str, ...], reason: str) -> None:
    """Set parameters by hand, as a new version; the bounds of the settings hold."""
    from orchestration.baseline import history as versions
    from orchestration.baseline.version import Kind

    check_reason(reason)
    given = _assigned(console, assignments)
    with console.acting() as kernel, kernel.lock.held("klorosctl baseline set", patience=PATIENCE):
        with kernel.db.transaction():
            made = versions.put(
                kernel.db, given, _by(console, kernel, Kind.SET, reason), state_dir=kernel.settings.state_dir
            )
        _in_force(console, kernel, made)


def _check_bounds(kernel: Kernel, version: int) -> None:
    from orchestration.baseline import history as versions

    now, wanted = versions.ends(kernel.db, version)
    promotions = kernel.settings.promotions
    found = versions.outside(now, wanted, bounds=promotions.bounds, strict=promotions.strict)
    if found:
        hint = "widen [promotions] bounds first: klorosctl config show; or set what is within them: klorosctl baseline set"
        raise Usage(f"version {version} is out of today's bounds: {found}", hint=hint)


def _assigned(console: Console, assignments: tuple[str, ...]) -> dict[str, int | float]:
    from orchestration.promotions.promotion import checked_changes

    pairs = [assignment.partition("=") for assignment in assignments]
    wrong = next((name for name, sign, _ in pairs if not sign), None)
    if wrong is not None:
        raise Usage(f"{wrong!r} is no NAME=VALUE", hint="klorosctl baseline set temperature=0.7 --reason …")
    settings = console.settings.promotions
    try:
        return checked_changes({n: _number(v) for n, _, v in pairs}, bounds=settings.bounds, strict=settings.strict)
    except ValueError as error:
        hint = "NAME=NUMBER, within [promotions] bounds: klorosctl config show"
        raise Usage(str(error), hint=hint) from error


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _by(console: Console, kernel: Kernel, kind: Any, reason: str) -> Provenance:
    from orchestration.baseline.version import Provenance

    return Provenance(at=kernel.now(), actor=console.actor, kind=kind, reason=reason)


def _in_force(console: Console, kernel: Kernel, made: Version) -> None:
    from orchestration.baseline import copies

    copies.bring_up(kernel.db, kernel.path("baseline"))
    message = f"the baseline is version {made.version} now: {made.provenance.reason}"
    console.note(f"baseline {made.provenance.kind}", message, version=made.version)
    console.answer(_document(made), lambda: [f"Version {made.version} is in force.", *_shown(console, made)])


def _find(kernel: Kernel, version: int | None) -> Version:
    from orchestration.baseline import history as versions

    newest = versions.newest(kernel.db)
    if newest is None:
        raise Usage("there is no baseline version yet", hint="a D-REAM cycle that accepts something makes the first")
    found = newest if version is None else versions.get(kernel.db, version)
    if found is None:
        raise Usage(f"there is no baseline version {version}", hint=f"there is 1 to {newest.version}")
    return found


def _document(version: Version) -> dict[str, Any]:
    from orchestration.baseline.version import origin

    return {**origin(version), "sha256": version.sha256, "parameters": dict(version.parameters)}


def _judged(kernel: Kernel, version: Version) -> dict[str, Any]:
    """Say what was concluded of a version, or how far it is from a conclusion."""
    from orchestration.baseline import history as versions
    from orchestration.baseline import verdicts

    concluded = verdicts.verdict(kernel.db, version.version)
    if concluded is not None:
        return _concluded(concluded)
    results = kernel.settings.validation.results
    found = verdicts.compared(kernel.db, version, versions.get(kernel.db, version.version - 1), results=results)
    return {
        **_concluded(None),
        "before": [one.value for one in found.before],
        "after": [one.value for one in found.after],
        "cycles_before": [one.cycle for one in found.before],
        "cycles_after": [one.cycle for one in found.after],
        "reason": f"{len(found.after)} of {results} PHASE results that can be compared with those under the version before",
    }


def _concluded(concluded: Concluded | None) -> dict[str, Any]:
    if concluded is None:
        return {"verdict": "undecided"}
    return {
        "verdict": str(concluded.verdict),
        "change": concluded.change,
        "before": list(concluded.before),
        "after": list(concluded.after),
        "cycles_before": list(concluded.cycles_before),
        "cycles_after": list(concluded.cycles_after),
        "reason": concluded.reason,
        "cycle": concluded.cycle,
        "made": concluded.made,
        "entry": concluded.entry,
        "at": to_text(concluded.at),
    }


def _validation(console: Console, judged: Mapping[str, Any]) -> Iterator[str]:
    yield from console.screen.field("Verdict", judged["verdict"], judged["reason"])
    sides = [("Before", judged["before"], judged["cycles_before"]), ("After", judged["after"], judged["cycles_after"])]
    for name, values, cycles in sides:
        if values:
            results = ", ".join(f"{value:.6g}" for value in values)
            yield from console.screen.field(name, results, f"PHASEs {', '.join(map(str, cycles))}")


def _changes(before: Version | None, after: Version) -> tuple[Change, ...]:
    from orchestration.baseline.version import changes

    return changes({} if before is None else before.parameters, after.parameters)


def _shown(console: Console, version: Version) -> Iterator[str]:
    made, screen = version.provenance, console.screen
    yield from screen.field("Version", f"{version.version}, {made.kind}", console.times.both(made.at))
    yield from screen.field("By", made.actor)
    yield from screen.field("Why", made.reason)
    yield from screen.field("SHA-256", version.sha256)
    rows = [(name, str(value)) for name, value in version.parameters.items()]
    yield from screen.table(("PARAMETER", "VALUE"), rows)


def _rows(console: Console, pairs: list[tuple[Version, Version | None]], known: Mapping[int, Concluded]) -> list[str]:
    rows = []
    for one, before in pairs:
        made = one.provenance
        local, _ = console.times.columns(made.at)
        why = f"{differences.told(_changes(before, one))}; {made.reason}"
        rows.append((str(one.version), local, str(made.kind), made.actor, _verdict(known.get(one.version)), why))
    if not rows:
        return ["There is no baseline version yet."]
    return console.screen.table(("VERSION", "AT", "KIND", "BY", "VERDICT", "CHANGES; WHY"), rows)


def _verdict(concluded: Concluded | None) -> str:
    from orchestration.promotions.judgement import percent

    return "undecided" if concluded is None else f"{concluded.verdict} {percent(concluded.change)}"


def _verified(console: Console, found: Faults, mended: list[str]) -> Iterator[str]:
    for path in mended:
        yield f"put right: {path}"
    for fault in (*found.in_store, *found.in_files):
        yield from console.screen.alarm(fault)
    folders = f"{console.path('baseline')} and {console.path('escrow')}"
    yield from found.advice or [f"Every version and every file of {folders} is as it was committed."]
