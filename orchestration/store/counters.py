"""The numbers behind the metrics, kept across one-shot processes: counters and histograms, which only grow, and gauges.

A series is a row keyed by metric name and label text exactly as the exposition format writes it (`job="phase"`), so
that publishing them is a loop over rows. Label values come from enums only.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestration.store.port import Database


def count(db: Database, name: str, by: float = 1.0, /, **labels: str) -> None:
    """Add `by` (≥ 0) to the counter series of these labels, creating it at 0."""
    _add(db, [(name, label_text(labels), by)])


def observe(db: Database, name: str, value: float, /, *, buckets: Sequence[float], **labels: str) -> None:
    """Record one value in a cumulative histogram with these ascending bucket bounds (`+Inf` is implied)."""
    own = label_text(labels)
    series = [
        (f"{name}_bucket", label_text({**labels, "le": bound_text(bound)}), 1.0 if value <= bound else 0.0)
        for bound in (*buckets, float("inf"))
    ]
    _add(db, [*series, (f"{name}_sum", own, value), (f"{name}_count", own, 1.0)])


def gauges(db: Database, /, **values: float) -> None:
    """Note what gauges stand at, by name, for those that no table tells."""
    db.run("counters.set", gauges=json.dumps({name: float(value) for name, value in values.items()}))


def label_text(labels: dict[str, str]) -> str:
    """Write labels as the exposition format does, without the braces: `job="phase",result="lost"`."""
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def bound_text(bound: float) -> str:
    """Write a bucket's upper bound as the exposition format does."""
    return "+Inf" if bound == float("inf") else repr(float(bound))


def _add(db: Database, series: list[tuple[str, str, float]]) -> None:
    db.run("counters.add", series=json.dumps(series))
