"""The promotions of one cycle as the job gets them: the JSON file that `KLR_PROMOTIONS` names.

Pure. It is written when the cycle starts and read again when its result is settled, so what is acked is what
was tried, even if the promotion's own file was changed or removed meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.promotions.document import Malformed, faults, parse_json
from orchestration.promotions.promotion import Number

if TYPE_CHECKING:
    from orchestration.promotions.reading import Candidate

_FROZEN = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True, allow_inf_nan=False)


class Handed(BaseModel):
    """One promotion of the cycle."""

    model_config = _FROZEN

    stem: str
    id: str
    fitness: float
    changes: dict[str, Number]
    path: str
    emitted_by: str = ""
    """The OS user who owned the file that was read; empty when unknown, as in handovers of older releases."""


class Handover(BaseModel):
    """All promotions of the cycle, in the order in which they are to be tried."""

    model_config = _FROZEN

    version: Literal["v1"] = Field(default="v1", validation_alias="schema", serialization_alias="schema")
    cycle: int
    promotions: tuple[Handed, ...] = Field(strict=False)


def hand_over(
    cycle: int,
    candidates: Iterable[Candidate],
    *,
    user: Callable[[int], str],
    owners: Mapping[str, str] | None = None,
) -> Handover:
    """Make the handover of a cycle; `user` gives the name of a uid, unless it is told whose each file is: stem → name."""
    promotions = tuple(
        Handed(
            stem=one.stem,
            id=one.promotion.id,
            fitness=one.promotion.fitness,
            changes=dict(one.promotion.changes),
            path=one.path,
            emitted_by=user(one.owner) if owners is None else owners.get(one.stem, ""),
        )
        for one in candidates
    )
    return Handover(cycle=cycle, promotions=promotions)


def to_bytes(handover: Handover) -> bytes:
    """Write the file's content."""
    return json.dumps(handover.model_dump(by_alias=True), indent=2).encode() + b"\n"


def parse_handover(data: bytes) -> Handover | Malformed:
    """Read the file's content; up to 1 MiB a promotion file is enforced before, so this one may be larger."""
    value = parse_json(data, limit=None)
    if isinstance(value, Malformed):
        return value
    try:
        return Handover.model_validate(value)
    except ValidationError as error:
        return faults((fault["loc"], fault["msg"]) for fault in error.errors(include_url=False))
