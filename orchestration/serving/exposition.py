"""Writes the metrics of a registry as Prometheus reads them, in its own format or in OpenMetrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from orchestration.store.counters import label_text


def text(registry: CollectorRegistry, *, openmetrics: bool) -> str:
    """Write all metrics; as OpenMetrics with the end mark."""
    lines: list[str] = []
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" and not openmetrics else metric.name
        lines += (f"# HELP {name} {metric.documentation}", f"# TYPE {name} {metric.type}")
        for one in metric.samples:
            if not one.name.endswith("_created"):
                lines.append(f"{one.name}{{{label_text(one.labels)}}} {float(one.value)!r}")
    return "\n".join([*lines, *(["# EOF"] if openmetrics else [])]) + "\n"
