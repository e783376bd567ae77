"""The Grafana dashboard against the metrics: Prometheus's own parser reads every query, and every name in it exists."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from orchestration.pulse import metrics, scope_metrics

DASHBOARD = Path(__file__).parents[2] / "docs" / "reference" / "grafana" / "kloros.json"
OF_PROMETHEUS = {"instance", "alertname", "alertstate"}
OF_A_SCOPE = {family.name for family in scope_metrics.FAMILIES}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def drawn() -> list[dict[str, Any]]:
    return [panel for panel in panels() if panel["type"] != "row"]


def queries(instance: str = "web01:9100") -> list[tuple[str, str, str]]:
    """Return title, expression and legend of each query, for one host."""
    return [
        (panel["title"], target["expr"].replace("$instance", instance), target["legendFormat"])
        for panel in drawn()
        for target in panel["targets"]
    ]


def labels_of(name: str) -> set[str]:
    """Return the labels of a metric as Prometheus stores it: `job` is its own, ours becomes `exported_job`."""
    texts = [text for family in metrics.FAMILIES for series, text in family.series if series == name]
    texts += [f"{label}=" for label in scope_metrics.LABELS.get(name, ())]
    return {label.replace("job", "exported_job") for text in texts for label in re.findall(r"(\w+)=", text)}


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, (_, expr, _) in enumerate(queries())]
    written = tmp_path / "rules.yml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", written], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
    assert len(rules) > 30


def test_every_metric_and_label_exists() -> None:
    known = {name for family in metrics.FAMILIES for name, _ in family.series} | OF_A_SCOPE
    for title, expr, legend in queries():
        names = set(re.findall(r"\bkloros_\w+", expr))
        assert names <= known, title
        assert names or "ALERTS{" in expr, title
        allowed = OF_PROMETHEUS.union(*(labels_of(name) for name in names))
        grouped = {label for group in re.findall(r"by \(([^)]*)\)", expr) for label in group.split(", ")}
        matched = set(re.findall(r'(\w+)(?:=|!=|=~)"', expr))
        assert grouped | matched | set(re.findall(r"{{(\w+)}}", legend)) <= allowed, title


def test_every_metric_is_shown() -> None:
    shown = " ".join(expr for _, expr, _ in queries())
    assert [name for name in (*(family.name for family in metrics.FAMILIES), *OF_A_SCOPE) if name not in shown] == []


def test_each_panel_says_what_it_shows_in_which_unit_and_has_its_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for panel in drawn():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))


def test_the_host_is_chosen_among_those_that_exist() -> None:
    variables = {one["name"]: one for one in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    assert variables.keys() == {"datasource", "instance"}
    assert variables["instance"]["definition"] == "label_values(kloros_build_info, instance)"
    assert not variables["instance"]["multi"], "a host with two sources would be shown twice"
