"""What a D-REAM cycle says of its promotions: `artifacts/verdicts.json`, and what follows from it.

Pure. Where there are verdicts, a promotion without one is not accepted, and says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.promotions.baseline import Accepted, conflicts
from orchestration.promotions.document import Malformed, faults, parse_json
from orchestration.promotions.handover import Handover

NO_VERDICT = "no verdict"


class Verdict(BaseModel):
    """The cycle's word on one promotion."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    promotion: str
    """The stem of the promotion's file."""
    accepted: bool
    reason: str = ""
    fitness: float | None = None
    """What the cycle measured; None when it measured nothing."""


class Verdicts(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    version: Literal["v1"] = Field(alias="schema")
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What we answer to one promotion of a succeeded cycle."""

    stem: str
    promotion_id: str
    accepted: bool
    reason: str
    fitness: float
    """As measured by the cycle, else as the promotion claims."""


def parse_verdicts(data: bytes) -> Verdicts | Malformed:
    """Read `verdicts.json`; two verdicts on one promotion are a fault.

    Any bytes give one or the other, never an exception.
    """
    value = parse_json(data, limit=None)
    if isinstance(value, Malformed):
        return value
    try:
        read = Verdicts.model_validate(value)
    except ValidationError as error:
        return faults((fault["loc"], fault["msg"]) for fault in error.errors(include_url=False))
    named = Counter(verdict.promotion for verdict in read.verdicts)
    twice = sorted(name for name, number in named.items() if number > 1)
    if twice:
        return Malformed(reasons=tuple(f"two verdicts on the promotion {name!a}" for name in twice))
    return read


def conclude(handover: Handover, verdicts: Verdicts | None) -> tuple[Answer, ...]:
    """Answer every promotion of a succeeded cycle, in the cycle's order.

    A command that leaves no such file (`verdicts` is None) has accepted every promotion by succeeding, as KLoROS's own
    does; one that leaves it must name each promotion that it accepts. Verdicts on promotions the cycle was not given are
    ignored. Of accepted promotions that want different values for one parameter the fitter is accepted, the other is not.
    """
    by_stem = {verdict.promotion: verdict for verdict in verdicts.verdicts} if verdicts else {}
    unnamed = (True, "the command succeeded and left no verdicts") if verdicts is None else (False, NO_VERDICT)
    answers = []
    for handed in handover.promotions:
        verdict = by_stem.get(handed.stem, Verdict(promotion=handed.stem, accepted=unnamed[0], reason=unnamed[1]))
        fitness = handed.fitness if verdict.fitness is None else verdict.fitness
        answers.append(
            Answer(
                stem=handed.stem,
                promotion_id=handed.id,
                accepted=verdict.accepted,
                reason=verdict.reason or ("" if verdict.accepted else "not accepted, no reason given"),
                fitness=fitness,
            )
        )
    lost = conflicts(accepted_of(handover, answers))
    return tuple(_unless_lost(answer, lost.get(answer.stem)) for answer in answers)


def without(handover: Handover, stems: frozenset[str]) -> Handover:
    """Leave out promotions that somebody else has answered meanwhile: they neither win nor lose a conflict."""
    left = tuple(handed for handed in handover.promotions if handed.stem not in stems)
    return handover.model_copy(update={"promotions": left})


def accepted_of(handover: Handover, answers: tuple[Answer, ...] | list[Answer]) -> tuple[Accepted, ...]:
    """Return what the baseline takes in."""
    changes = {handed.stem: handed.changes for handed in handover.promotions}
    return tuple(
        Accepted(stem=answer.stem, changes=changes[answer.stem], fitness=answer.fitness)
        for answer in answers
        if answer.accepted
    )


def _unless_lost(answer: Answer, reason: str | None) -> Answer:
    if reason is None:
        return answer
    return Answer(
        stem=answer.stem,
        promotion_id=answer.promotion_id,
        accepted=False,
        reason=reason,
        fitness=answer.fitness,
    )
