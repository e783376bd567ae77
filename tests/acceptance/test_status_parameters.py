"""What `klorosctl status`, the served document and the metrics tell of baseline and escrow is the same, and short."""

from __future__ import annotations

import json

import pytest

from orchestration.baseline.validation import Verdict
from tests.acceptance.host import Host
from tests.acceptance.serving import serving
from tests.contract.accepted import commit, conclude, hold
from tests.contract.seeded import NOW, Seeded


@pytest.fixture
def filled(host: Host) -> Host:
    """A host whose first version was rolled back, with two changes that wait."""
    host.decided()
    world = Seeded(host.state, KLR_STATE_DIR=str(host.state))
    commit(world, 50, rate=0.01)
    conclude(world, 1, Verdict.KEPT, 0.025)
    commit(world, 40, rate=0.02)
    hold(world, "a" * 12, 30, expires_in=20)
    hold(world, "b" * 12, 2)
    world.db.close()
    return host


def test_status_shows_both_on_a_few_lines(filled: Host) -> None:
    text = filled.run("klorosctl", "status").stdout
    for part in (
        "Baseline   version 2 (cycle) by kloros ",
        "version 1 kept: +2% in the median of 3 PHASEs",
        "version 2 is undecided: 0 of 3 PHASE results",
        "Escrow     2 wait for a person, the oldest for ",
        "klorosctl escrow show|approve|reject ENTRY",
        "aaaaaaaaaaaa  stem-aaaaaaaaaaaa by ada: beta new → 2, learning_rate 0.01 → 0.05 (+400.0 %); expires",
    ):
        assert part in text, text
    assert len(text.splitlines()) <= 24


def test_status_and_the_served_document_say_the_same(filled: Host) -> None:
    said = json.loads(filled.run("klorosctl", "status", "--json").stdout)
    with serving(filled) as served:
        document = served.get("/api/v1/health").json
        metrics = served.get("/metrics").text
    assert said["queues"]["escrow_pending"] == document["queues"]["escrow"]["count"] == 2
    assert said["escrow"] == document["escrow"]
    assert said["baseline"] == document["baseline"]
    assert document["baseline"]["version"] == 2
    assert "kloros_escrow_pending 2.0" in metrics
    assert f"kloros_escrow_oldest_timestamp_seconds {(NOW.timestamp() - 30 * 3600)!r}" in metrics
    assert 'kloros_baseline_verdicts_total{verdict="kept"} 1.0' in metrics
    filled.decided()
    assert "kloros_escrow_pending 2.0" in filled.textfile.read_text(), "and so does the textfile"


def test_the_api_gives_versions_with_verdicts_and_what_became_of_entries(filled: Host) -> None:
    rejected = filled.run("klorosctl", "escrow", "reject", "b" * 12, "--reason", "too much")
    assert rejected.returncode == 0, rejected.stderr
    with serving(filled) as served:
        baseline, escrow = served.get("/api/v1/baseline").json, served.get("/api/v1/escrow").json
        last, health = served.get("/api/v1/baseline?limit=1").json, served.get("/api/v1/health").json
        assert served.get("/api/v1/escrow?limit=0").status == 400
    assert baseline["in_force"] == health["baseline"]
    assert [(one["version"], one["verdict"] and one["verdict"]["verdict"]) for one in baseline["versions"]] == [
        (2, None),
        (1, "kept"),
    ]
    assert [one["changes"] for one in last["versions"]] == [
        [{"name": "rate", "before": 0.01, "after": 0.02, "relative": 1.0}]
    ]
    assert [one["entry"] for one in escrow["pending"]] == ["a" * 12]
    assert [(one["entry"], one["status"], one["reason"]) for one in escrow["decided"]] == [
        ("b" * 12, "rejected", "too much")
    ]
    said = json.loads(filled.run("klorosctl", "escrow", "list", "--json").stdout)
    assert escrow["pending"] == said


def test_a_host_without_either_has_no_line_for_them(host: Host) -> None:
    host.decided()
    text = host.run("klorosctl", "status").stdout
    assert "Baseline" not in text
    assert "Escrow" not in text
    found = json.loads(host.run("klorosctl", "status", "--json").stdout)
    assert (found["baseline"], found["escrow"], found["queues"]["escrow_pending"]) == (None, [], 0)
