"""The whole way of an alert with real parts: node_exporter reads the textfile, Prometheus scrapes and judges by the shipped
rules, Alertmanager posts to a webhook. The rules are not made quicker for it: the last tick is really old (libfaketime).
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.host import Host
from tests.acceptance.moved_clock import run_at
from tests.acceptance.serving import serving
from tests.waiting import until

TOP = Path(__file__).parents[2]
RULES_FILE = TOP / "docs" / "reference" / "prometheus" / "kloros.rules.yml"
DASHBOARD = TOP / "docs" / "reference" / "grafana" / "kloros.json"
PROGRAMS = ("prometheus", "prometheus-node-exporter", "prometheus-alertmanager")
SLOW = 60.0  # seconds; a machine with other work


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Webhook:
    """Receives what Alertmanager posts."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        received = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend(body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    @contextmanager
    def listening(self) -> Iterator[None]:
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()

    def got(self, name: str, status: str) -> list[dict[str, Any]]:
        """Return what was posted of an alert."""
        return [one for one in list(self.alerts) if one["labels"]["alertname"] == name and one["status"] == status]


class Monitoring:
    """A Prometheus with what it needs, on ports of its own, with short intervals."""

    def __init__(self, folder: Path, textfiles: Path, webhook: Webhook) -> None:
        self.folder, self.textfiles, self.webhook = folder, textfiles, webhook
        self.node, self.prometheus, self.alertmanager = free_port(), free_port(), free_port()
        self.pulse: int | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._node_exporter())
            stack.enter_context(self._alertmanager())
            stack.enter_context(self._prometheus())
            yield

    def _node_exporter(self) -> Any:
        collectors = ("--collector.disable-defaults", "--collector.textfile")
        folder = f"--collector.textfile.directory={self.textfiles}"
        listen = f"--web.listen-address=127.0.0.1:{self.node}"
        return self._run("prometheus-node-exporter", *collectors, folder, listen)

    def _alertmanager(self) -> Any:
        quick = {"group_by": ["alertname", "instance"], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
        hook = {"name": "hook", "webhook_configs": [{"url": self.webhook.url, "send_resolved": True}]}
        config = self._write("alertmanager.yml", {"route": {"receiver": "hook", **quick}, "receivers": [hook]})
        return self._run(
            "prometheus-alertmanager",
            f"--config.file={config}",
            f"--storage.path={self.folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.alertmanager}",
            "--cluster.listen-address=",
        )

    def _prometheus(self) -> Any:
        config = self._write(
            "prometheus.yml",
            {
                "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
                "rule_files": [str(RULES_FILE)],
                "alerting": {"alertmanagers": [self._target(self.alertmanager)]},
                "scrape_configs": self._jobs(),
            },
        )
        return self._run(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
            "--rules.alert.resend-delay=1s",
            "--log.level=warn",
        )

    def _jobs(self) -> list[dict[str, Any]]:
        ports = {"node": self.node, "kloros": self.pulse}
        return [{"job_name": name, **self._target(port)} for name, port in ports.items() if port is not None]

    @staticmethod
    def _target(port: int) -> dict[str, Any]:
        return {"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}

    def _write(self, name: str, content: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return path

    @contextmanager
    def _run(self, program: str, *arguments: str) -> Iterator[None]:
        with open(self.folder / f"{program}.log", "wb") as log:
            command = [program, *arguments]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus; nothing while it does not answer yet."""
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is starting
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        except OSError:
            return []


@pytest.fixture
def monitoring(host: Host, tmp_path: Path) -> Iterator[Monitoring]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian packages of these names)")
    webhook = Webhook()
    with webhook.listening():
        (tmp_path / "monitoring").mkdir()
        yield Monitoring(tmp_path / "monitoring", host.textfile.parent, webhook)


def tick_in_the_past(host: Host, minutes: int) -> None:
    """Do a tick under a clock that is this much behind."""
    run_at(host, f"-{minutes}m")


NOTHING_YET = {
    "Alerts that fire",
    "Time to the deadline",
    "Last PHASE that succeeded",
    "Cycles by result",
    "Age of the oldest",
    "Intents by what became of them",
    "Age of the baseline",
    "Escrow by what became of it",
    "Verdicts on versions of the baseline",
    "Iterations by status",
    "Next and last iteration",
    "Attempts to wake by result",
    "Triggers by what came of them",
    "Age of the oldest trigger, and of the supervisor's word",
    "Who leads",
    "Lease",
    "Hosts by what they are",
    "Last tick by host",
    "Clocks",
    "Cycles by host and executor",
    "Store out of reach",
}
"""Panels with nothing to show on a host alone whose ticks have only ever decided to do nothing."""


def dashboard(monitoring: Monitoring) -> dict[str, bool]:
    """Ask every query of the dashboard; whether its panel shows anything, by title."""
    content = DASHBOARD.read_text().replace("$instance", f"127.0.0.1:{monitoring.node}")
    panels = [panel for panel in json.loads(content)["panels"] if panel["type"] != "row"]
    return {panel["title"]: any(monitoring.ask(target["expr"]) for target in panel["targets"]) for panel in panels}


def test_ticks_that_stopped_raise_an_alert_and_the_next_one_resolves_it(host: Host, monitoring: Monitoring) -> None:
    webhook = monitoring.webhook
    tick_in_the_past(host, 10)
    with monitoring.running():
        until(lambda: webhook.got("KlorosTickStale", "firing"), "the alert is posted", within=SLOW)
        fired = webhook.got("KlorosTickStale", "firing")[0]
        assert fired["labels"] == {"alertname": "KlorosTickStale", "instance": "127.0.0.1", "severity": "critical"}
        assert fired["annotations"]["summary"] == "No tick decides on 127.0.0.1"
        assert fired["annotations"]["description"].startswith("The last tick that decided anything is 10m ")
        assert fired["annotations"]["runbook_url"] == "docs/runbooks/tick-stale.md"
        until(lambda: webhook.got("KlorosWatchdog", "firing"), "the watchdog is posted", within=SLOW)
        host.decided()
        until(lambda: webhook.got("KlorosTickStale", "resolved"), "its end is posted", within=SLOW)
        assert [
            one for one in monitoring.ask('ALERTS{alertstate="firing"}') if one["metric"]["alertname"] != "KlorosWatchdog"
        ] == []
        assert monitoring.ask("kloros_health_condition == 1") == [], "the page agrees"
        empty = {title for title, shows in dashboard(monitoring).items() if not shows}
        assert empty - {"Conditions"} == NOTHING_YET
    assert {one["labels"]["alertname"] for one in webhook.alerts} == {"KlorosTickStale", "KlorosWatchdog"}


def test_what_the_tick_has_judged_is_what_the_alert_says(host: Host, monitoring: Monitoring) -> None:
    """A parked promotion: known to the tick, told by the alert with its number, gone when a person has it tried again."""
    webhook = monitoring.webhook
    host.set(KLR_DREAM_COMMAND="/bin/false", KLR_DREAM_PARK_AFTER="1")
    host.promote("unlucky")
    host.tick("--wait")
    host.decided()
    with monitoring.running():
        until(lambda: webhook.got("KlorosPromotionsParked", "firing"), "the alert is posted", within=SLOW)
        fired = webhook.got("KlorosPromotionsParked", "firing")[0]
        assert fired["annotations"]["description"] == "1 failed too often and wait for a person."
        assert host.run("klorosctl", "promotions", "retry", "unlucky").returncode == 0
        host.set(KLR_DREAM_COMMAND="/bin/true")
        host.tick()
        until(lambda: webhook.got("KlorosPromotionsParked", "resolved"), "its end is posted", within=SLOW)


def test_a_host_whose_page_is_scraped_too_has_one_alert_that_agrees_with_it(host: Host, monitoring: Monitoring) -> None:
    """Pulse judges anew at each scrape, so while no tick runs it tells what the textfile can't: the tick is stale."""
    webhook = monitoring.webhook
    tick_in_the_past(host, 10)
    with serving(host) as pulse:
        monitoring.pulse = pulse.port
        with monitoring.running():
            until(lambda: webhook.got("KlorosTickStale", "firing"), "the alert is posted", within=SLOW)
            assert pulse.get("/api/v1/health").json["verdict"] == "stopped"
            stale = 'kloros_health_condition{condition="tick_stale"} == 1'
            until(lambda: monitoring.ask(stale), "Pulse is scraped", within=SLOW)
            assert [one["metric"]["job"] for one in monitoring.ask(stale)] == ["kloros"]
            until(lambda: len(monitoring.ask("kloros_build_info")) == 2, "both are scraped", within=SLOW)
            assert len(monitoring.ask('ALERTS{alertname="KlorosTickStale"}')) == 1
            host.decided()
            until(lambda: webhook.got("KlorosTickStale", "resolved"), "its end is posted", within=SLOW)
            until(lambda: not monitoring.ask(stale), "the page agrees", within=SLOW)
    fired = {json.dumps(one["labels"], sort_keys=True) for one in webhook.got("KlorosTickStale", "firing")}
    assert len(fired) == 1
