"""The bridge's runbooks tried out: cause the fault, follow the page letter by letter, see that the bridge is well again."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.acceptance.host import PYTHON, Host
from tests.acceptance.runbook import HEADINGS, Command, Runbook
from tests.acceptance.serving import Served, serving
from tests.acceptance.talking import Agent, issue, post
from tests.acceptance.test_bridge_health import talk, tell
from tests.acceptance.test_runbooks_of_alerts import told
from tests.contract.bridge_served import AUDIENCE, ISSUER, SigningKey, claims, jwks_server
from tests.contract.postgres import Cluster
from tests.waiting import until

PAGES = (
    "authorization-misconfigured",
    "bridge-store-contention",
    "bridge-unavailable",
    "escalation-flood",
    "message-delivery-delay",
    "token-issuer-outage",
)
THREAD = "thr_019c0a7d1d2f6b0e4f6a8f8f4c2d1a07"
"""The thread on the pages."""


class Installed:
    """A host with a bridge that `systemctl` starts and stops, and a page that speaks of it."""

    def __init__(self, host: Host, page: str, stack: ExitStack) -> None:
        self.host, self.page = host, Runbook(page)
        self._text, self._stack = self.page.text, stack
        self.served: Served | None = None

    def start(self) -> Served:
        self.served = self._stack.enter_context(serving(self.host, "--bridge"))
        self.speak_of()
        return self.served

    def restart(self) -> None:
        if self.served is not None and self.served.process.poll() is None:
            self.served.stop()
        self.start()

    def speak_of(self, thread_id: str = "") -> None:
        """Put the names of this host into the page."""
        port = self.served.port if self.served else 9411
        self._text = self._text.replace(THREAD, thread_id or THREAD)
        text = self._text.replace("127.0.0.1:9411", f"127.0.0.1:{port}").replace("port 9411", f"port {port}")
        self.page.text = text.replace("/etc/kloros/orchestrator.toml", "/srv/orchestrator.toml")

    def follow(self, heading: str) -> None:
        """Do what a section says, one command after the other: a restart gives the rest another port."""
        count = len(self.page.commands(heading))
        assert count
        for number in range(count):
            command = self.page.commands(heading)[number]
            match command.line:
                case "systemctl restart kloros-bridge.service":
                    self.restart()
                case "systemctl status kloros-bridge.service":
                    pass
                case _:
                    self.page.run(self.host, command)


@contextmanager
def installed(host: Host, page: str) -> Iterator[Installed]:
    with ExitStack() as stack:
        yield Installed(host, page, stack)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_each_part_in_order(name: str) -> None:
    assert Runbook(name).headings == HEADINGS


def test_the_bridge_was_killed(host: Host) -> None:
    host.decided()
    with installed(host, "bridge-unavailable") as here:
        served = here.start()
        agent = Agent(served, issue(host, "executioner"))
        agent.ask("create_thread", workspace_id="kloros", title="Retry", participants=["reviewer"])
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(10)
        tell(host, str(host.state / "kloros.db"), age=timedelta(minutes=5))
        host.decided()
        assert "bridge_silent" in told(host)
        here.follow("How to confirm")
        here.follow("How to mend")
        until(lambda: host.decided() and "bridge_silent" not in told(host), what="it tells again")


HOLD = "import sqlite3, time; c = sqlite3.connect({path!r}, isolation_level=None); c.execute('BEGIN IMMEDIATE'); print(flush=True); time.sleep(60)"  # noqa: E501


def test_somebody_holds_the_file(host: Host) -> None:
    host.decided()
    with installed(host, "bridge-store-contention") as here:
        served = here.start()
        agent = Agent(served, issue(host, "executioner"))
        thread_id = agent.ask("create_thread", workspace_id="kloros", title="Retry", participants=["reviewer"])["thread_id"]
        script = HOLD.format(path=str(host.state / "kloros.db"))
        with subprocess.Popen([PYTHON, "-c", script], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            agent.ask("post_message", thread_id=thread_id, body="one", status=503)
            assert agent.ask("read_messages", thread_id=thread_id)["messages"] == []
            here.follow("How to confirm")
            reaped = threading.Thread(target=holder.wait)  # so that the page sees it gone
            reaped.start()
            here.follow("How to mend")
            reaped.join(10)
        agent.ask("post_message", thread_id=thread_id, body="two")


@pytest.mark.xdist_group("postgres")
def test_somebody_holds_rows_of_postgresql(host: Host, cluster: Cluster) -> None:
    url = cluster.new_database()
    host.decided()
    host.set(KLR_DATABASE_URL=url)
    with installed(host, "bridge-store-contention") as here, ExitStack() as stack:
        served = here.start()
        here.page.text = here.page.text.replace("```console\n", "```\n").replace("```console postgres", "```console")
        agent = Agent(served, issue(host, "executioner"))
        thread_id = agent.ask("create_thread", workspace_id="kloros", title="Retry", participants=["reviewer"])["thread_id"]
        holder = stack.enter_context(closing(psycopg.connect(url)))
        holder.execute(b"SELECT thread_id FROM bridge_threads FOR UPDATE")
        held = time.monotonic()
        posting = threading.Thread(target=post, args=(served, "/v1/mcp/post_message", _post(thread_id), agent.token))
        posting.start()
        (confirm,) = here.page.commands("How to confirm")
        until(lambda: _shows(here, confirm), what="it waits", within=2.5)
        posting.join(10)
        agent.ask("post_message", thread_id=thread_id, body="two", status=503)
        until(lambda: time.monotonic() > held + 1, what="it holds it for a second")
        here.follow("How to mend")
        agent.ask("post_message", thread_id=thread_id, body="three")


def _post(thread_id: str) -> dict[str, str]:
    return {"thread_id": thread_id, "body": "one"}


def _shows(here: Installed, command: Command) -> bool:
    try:
        here.page.run(here.host, command)
    except AssertionError:
        return False
    return True


def test_a_reader_does_not_come(host: Host) -> None:
    host.decided()
    with installed(host, "message-delivery-delay") as here:
        thread_id = talk(str(host.state / "kloros.db"), age=timedelta(hours=2))
        here.start()
        here.speak_of(thread_id)
        until(lambda: host.decided() and "messages_unread" in told(host), what="it is told")
        here.follow("How to confirm")
        here.follow("How to mend")
        until(lambda: host.decided() and "messages_unread" not in told(host), what="it is told no more")


def test_tokens_are_for_somebody_else(host: Host) -> None:
    host.configure('\n[bridge]\nauth_audience = "kloros-bridge"\n')
    token = issue(host, "executioner")
    host.config.write_text(host.config.read_text().replace("kloros-bridge", "elsewhere"))
    host.set(TOKEN=token)
    with installed(host, "authorization-misconfigured") as here:
        Agent(here.start(), token).ask("list_threads", status=401)
        here.follow("How to confirm")
        here.follow("How to mend")


def test_the_issuer_is_gone(host: Host) -> None:
    host.configure('\n[bridge]\nauth_keys_keep = "1d"\n')
    key = SigningKey("k-1")
    with jwks_server(key) as issuer, installed(host, "token-issuer-outage") as here:
        host.set(AUTH_JWKS_URL=issuer.url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE)
        served = here.start()
        token = key.sign(claims())
        Agent(served, token).ask("list_threads")
        issuer.status = 500
        here.follow("How to confirm")
        here.follow("How to mend")
        assert here.served is not None
        assert here.served is not served
        Agent(here.served, token).ask("list_threads")
        assert "2d" in host.config.read_text()


def test_many_threads_are_blocked(host: Host) -> None:
    host.decided()
    host.set(KLR_BRIDGE_MAX_TURNS="3")
    with installed(host, "escalation-flood") as here:
        served = here.start()
        agent = Agent(served, issue(host, "executioner"))
        asked: dict[str, Any] = {"workspace_id": "kloros", "title": "Retry", "participants": ["reviewer"]}
        threads = [agent.ask("create_thread", **asked)["thread_id"] for _ in range(3)]
        for thread_id in threads * 3:
            agent.ask("post_message", thread_id=thread_id, body="again")
        here.speak_of(threads[0])
        until(lambda: host.decided() and "threads_blocked" in told(host), what="it is told")
        here.follow("How to confirm")
        here.follow("How to mend")
        until(lambda: host.decided() and "threads_blocked" not in told(host), what="it is told no more")
