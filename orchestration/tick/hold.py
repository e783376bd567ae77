"""Which promotions that a cycle accepted wait in escrow instead of going into the baseline; reads, changes nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestration.baseline import history
from orchestration.baseline.escrow import Entry, Kind, Rule, entry_id, required
from orchestration.cycles import artifacts
from orchestration.cycles.cycle import folder_name
from orchestration.host import users
from orchestration.promotions.ack import says_escrow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.cycles.cycle import Cycle
    from orchestration.promotions.handover import Handed
    from orchestration.promotions.promotion import Number
    from orchestration.promotions.verdict import Answer
    from orchestration.tick.kernel import Kernel

_BY_ACK = "its ack says so; the settings or the baseline have changed since"


def held(kernel: Kernel, cycle: Cycle, answers: tuple[Answer, ...]) -> dict[str, Entry]:
    """Return an entry for each accepted promotion that a rule holds: stem → entry.

    A promotion whose ack says that it is held stays so, also when the tick that wrote it was killed and no rule holds it
    any more: others have read the ack.
    """
    accepted = [answer for answer in answers if answer.accepted]
    if not accepted:
        return {}
    settings = kernel.settings
    handover = artifacts.read_handover(kernel.cycle_dir(folder_name(cycle.cycle)))
    handed = {one.stem: one for one in handover.promotions}
    against, baseline = history.in_force(kernel.db, settings.state_dir)
    rules = [Rule(rule.parameter, rule.change_over, rule.actor) for rule in settings.escrow.require]
    entries: dict[str, Entry] = {}
    for answer in accepted:
        one = handed[answer.stem]
        emitted_by = one.emitted_by or _owner(kernel, one.stem)
        why = required(rules, one.changes, baseline, emitted_by)
        if why is None and says_escrow(kernel.acks_dir, one.stem, cycle=cycle.cycle):
            why = _BY_ACK
        if why is not None:
            before = {name: baseline.get(name) for name in one.changes}
            entry = _entry(kernel, cycle, answer, one, rule=why, before=before)
            entries[one.stem] = replace(entry, emitted_by=emitted_by, against=against)
    return entries


def _entry(
    kernel: Kernel, cycle: Cycle, answer: Answer, one: Handed, *, rule: str, before: Mapping[str, Number | None]
) -> Entry:
    settings = kernel.settings.escrow
    return Entry(
        entry=entry_id(cycle.token, one.stem),
        kind=Kind.PROMOTION,
        stem=one.stem,
        promotion_id=one.id,
        cycle=cycle.cycle,
        rule=rule,
        changes=one.changes,
        before=before,
        fitness=answer.fitness,
        evidence=_evidence(cycle, one, answer),
        four_eyes=settings.four_eyes,
        created_at=kernel.now(),
        expires_at=kernel.now() + settings.expires_after if settings.expires_after else None,
    )


def _owner(kernel: Kernel, stem: str) -> str:
    """Return who owns a promotion's file now, for a cycle that did not record it; empty when it is gone."""
    if kernel.shared is not None:  # the mirror's files are all ours
        return ""
    try:
        return users.name_of(os.stat(os.path.join(kernel.promotions_dir, f"{stem}.json")).st_uid)
    except OSError:
        return ""


def _evidence(cycle: Cycle, one: Handed, answer: Answer) -> dict[str, object]:
    return {
        "folder": folder_name(cycle.cycle),
        "verdict": answer.reason,
        "verdicts_sha256": None if cycle.result is None else cycle.result.report_sha,
        "fitness": answer.fitness,
        "claimed_fitness": one.fitness,
        "file": one.path,
    }
