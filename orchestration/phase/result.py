"""The result of a PHASE: one number, from its report. Higher is better.

Pure. The report is a JSON object.

- With `score`, a finite number, that is the result. `"score": null` says that there is none.
- Else it is the pass rate: of the test groups that came to an answer (`heuristics.answered`), the share that succeeded.

A number says something only beside others of its kind, so `measure` tells what it is of: results can be compared when their
measures are the same text. A group that was added, left out or came to no answer makes another measure.

A PHASE that failed has a result too, or a version of the baseline under which every PHASE fails would never be judged. But
its report must say `"result": "failed"`, that it came to its end: what a PHASE that broke off left is worth nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestration.phase.heuristics import answered

_MOST_GROUPS: Final = 500
_LONGEST: Final = 200  # characters of names that a measure spells out


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """What a PHASE came to: `value` is finite, and `measure` says of what."""

    value: float
    measure: str


def of_report(report: Mapping[str, object], *, succeeded: bool) -> PhaseResult | None:
    """Return the result that a report gives; None when it gives none. `succeeded`: whether the cycle did."""
    if not succeeded and report.get("result") != "failed":
        return None
    if "score" in report:
        value = _finite(report["score"])
        return None if value is None else PhaseResult(value=value, measure="score")
    return _pass_rate(groups(report))


def groups(report: Mapping[str, object]) -> dict[str, str]:
    """Return the status of each test group: `domains`, each with `name` and `status`; empty without such a list."""
    domains = report.get("domains")
    found = [one for one in domains if isinstance(one, dict)] if isinstance(domains, list) else []
    named = [(one.get("name"), one.get("status")) for one in found[:_MOST_GROUPS]]
    return {name: status for name, status in named if isinstance(name, str) and isinstance(status, str)}


def _pass_rate(statuses: Mapping[str, str]) -> PhaseResult | None:
    names = sorted(answered(statuses))
    if not names:
        return None
    passed = sum(statuses[name] == "succeeded" for name in names)
    return PhaseResult(value=passed / len(names), measure=f"pass rate of {_listed(names)}")


def _listed(names: list[str]) -> str:
    text = ", ".join(names)
    if len(text) <= _LONGEST and text.isprintable():  # half a surrogate pair, which no store takes, is not
        return text
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{len(names)} groups ({digest[:12]})"


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of a float
        return None
    return number if math.isfinite(number) else None
