"""The accepted parameters as a D-REAM command reads them, `baseline/baseline.json`, and how a cycle's promotions join them.

The file is a copy of the newest version (`orchestration.baseline`). `fitness` is that of the fittest promotion that it
added. When one cycle accepts several promotions of different parameters, their joint fitness is not known until the next
trial measures the baseline again; the trial never relies on the number kept here when it can measure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.errors import KlorosError
from orchestration.exits import Exit
from orchestration.promotions.document import Malformed, faults, parse_json
from orchestration.promotions.promotion import Number


class BaselineInvalid(KlorosError):
    """The baseline file is not ours or was damaged; we never guess what was accepted."""

    exit = Exit.FAILED


class Baseline(BaseModel):
    """The parameters in force."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, strict=True, allow_inf_nan=False)

    version: Literal["v1"] = Field(default="v1", validation_alias="schema", serialization_alias="schema")
    parameters: dict[str, Number]
    fitness: float
    cycle: int
    """The cycle that set it; 0 for one that a person put there."""
    promotions: tuple[str, ...] = Field(strict=False)
    """The stems of the promotions that this cycle added."""
    ts: int
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A promotion that its cycle accepted."""

    stem: str
    changes: Mapping[str, Number]
    fitness: float


def baseline_path(state_dir: str) -> str:
    """Return where the baseline is kept."""
    return os.path.join(state_dir, "baseline", "baseline.json")


def read_baseline(path: str) -> Baseline | None:
    """Read the baseline; None when there is none yet.

    Raises:
        BaselineInvalid: there is one, and it can't be read or understood.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BaselineInvalid(f"{path} can't be read: {error.strerror}", hint="check its owner and mode") from error
    result = parse_baseline(data)
    if isinstance(result, Malformed):
        hint = "restore it from a backup, or move it away: the next accepted promotion then starts a new one"
        raise BaselineInvalid(f"{path} is no baseline: {result.reason}", hint=hint)
    return result


def parse_baseline(data: bytes) -> Baseline | Malformed:
    """Read a baseline's content; pure."""
    value = parse_json(data, limit=None)
    if isinstance(value, Malformed):
        return value
    try:
        return Baseline.model_validate(value)
    except ValidationError as error:
        return faults((fault["loc"], fault["msg"]) for fault in error.errors(include_url=False))


def conflicts(accepted: Iterable[Accepted]) -> dict[str, str]:
    """Say who loses when accepted promotions want different values for one parameter: stem → reason. Pure.

    The fitter wins, of equals the first by stem. A loser sets nothing, so it can't beat a third one.
    """
    settled: dict[str, tuple[Number, str]] = {}
    lost: dict[str, str] = {}
    for one in _by_fitness(accepted):
        rivals = [
            f"{name!a} = {value} while the fitter {settled[name][1]!a} sets {settled[name][0]}"
            for name, value in one.changes.items()
            if name in settled and settled[name][0] != value
        ]
        if rivals:
            lost[one.stem] = f"conflict in one cycle: sets {'; '.join(rivals)}"
            continue
        for name, value in one.changes.items():
            settled.setdefault(name, (value, one.stem))
    return lost


def with_accepted(
    before: Mapping[str, Number], accepted: Iterable[Accepted]
) -> tuple[dict[str, Number], float, tuple[str, ...]]:
    """Take accepted promotions (at least one) into parameters; pure.

    Returns:
        The parameters after, the fitness of the fittest winner, and the stems of the winners by name.
    """
    given = list(accepted)
    lost = conflicts(given)
    winners = [one for one in _by_fitness(given) if one.stem not in lost]
    parameters = dict(before)
    for one in winners:
        parameters.update(one.changes)
    return parameters, winners[0].fitness, tuple(sorted(one.stem for one in winners))


def to_bytes(baseline: Baseline) -> bytes:
    """Write the file's content."""
    return json.dumps(baseline.model_dump(by_alias=True), indent=2).encode() + b"\n"


def _by_fitness(accepted: Iterable[Accepted]) -> list[Accepted]:
    return sorted(accepted, key=lambda one: (-one.fitness, one.stem))
