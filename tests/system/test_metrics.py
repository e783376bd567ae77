"""Our metrics, served by a real node_exporter and read by a real promtool."""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.system.guest import Guest
from tests.system.operator import TICK, Operator
from tests.waiting import until

TEXTFILE = "/var/lib/prometheus/node-exporter/kloros.prom"


def free_port() -> int:
    """A port of the host's loopback, which the guest shares."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_node_exporter_installed_after_us_serves_what_a_tick_wrote(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh("apt-get update -qq && apt-get install -qq -y --no-install-recommends prometheus-node-exporter", timeout=300)
    guest.sh(f"systemctl start {TICK}")
    assert guest.sh(f"stat -c '%U %a' {TEXTFILE}").out == "kloros 644\n"
    port = free_port()
    guest.write("/etc/default/prometheus-node-exporter", f'ARGS="--web.listen-address=127.0.0.1:{port}"\n')
    guest.sh("systemctl restart prometheus-node-exporter")

    def scrape() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            return ""

    served = until(scrape, what="node_exporter answers")
    assert "node_textfile_scrape_error 0" in served
    assert 'kloros_orchestrator_ticks_total{decision="noop"}' in served
    assert f'node_textfile_mtime_seconds{{file="{TEXTFILE}"}}' in served


def test_promtool_finds_no_fault(guest: Guest, operator: Operator) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    operator.without_timer().configure("")
    guest.sh("install -d -o kloros /var/lib/prometheus/node-exporter")
    operator.promote("gen1_fine", learning_rate=0.01)
    operator.drop("suggest_something")
    until(lambda: len(list(guest.path("/var/lib/kloros/promotions_ack").iterdir())) == 1, what="the promotion is answered")
    guest.sh(f"systemctl start {TICK}")
    text = guest.path(TEXTFILE).read_text()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
