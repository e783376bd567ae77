"""A timer that is really stopped: real Prometheus, node_exporter and Alertmanager tell it, and that it is over.

Nothing is made quicker: the rules are the shipped ones, so this takes the three minutes that they give a host.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.acceptance.test_alerting import PROGRAMS, Monitoring, Webhook
from tests.system.guest import Guest
from tests.system.operator import Operator
from tests.waiting import until

STALE = "KlorosTickStale"
FOLDER = "/var/lib/prometheus/node-exporter"


def test_a_stopped_timer_raises_the_alert_and_a_started_one_resolves_it(
    guest: Guest, operator: Operator, tmp_path: Path
) -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian packages of these names)")
    guest.sh(f"install -d -o kloros {FOLDER}")
    operator.configure("")
    webhook = Webhook()
    (tmp_path / "monitoring").mkdir()
    with webhook.listening(), Monitoring(tmp_path / "monitoring", guest.path(FOLDER), webhook).running():
        guest.sh("systemctl start kloros-orchestrator.service")
        until(lambda: (guest.path(FOLDER) / "kloros.prom").exists(), what="a tick has written its metrics")
        guest.sh("systemctl stop kloros-orchestrator.timer kloros-orchestrator.path")
        assert webhook.got(STALE, "firing") == []
        (fired, *_) = until(lambda: webhook.got(STALE, "firing"), what="Alertmanager posts the alert", within=300)
        assert fired["annotations"]["runbook_url"] == "docs/runbooks/tick-stale.md"
        guest.sh("systemctl start kloros-orchestrator.timer kloros-orchestrator.path")
        until(lambda: webhook.got(STALE, "resolved"), what="Alertmanager posts that it is over", within=150)
