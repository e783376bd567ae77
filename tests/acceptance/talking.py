"""Agents that talk over a served bridge, each with its token, in the bridge's own wire."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.acceptance.host import Host
from tests.acceptance.serving import Answer, Served


def issue(host: Host, agent: str, *more: str) -> str:
    done = host.run("klorosctl", "token", "issue", "--agent", agent, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Agent:
    """One agent with its token."""

    def __init__(self, served: Served, token: str) -> None:
        self.served, self.token = served, token

    def ask(self, method: str, *, status: int = 200, **asked: object) -> Any:
        """Call a method of the wire."""
        answer = post(self.served, f"/v1/mcp/{method}", asked, self.token)
        assert answer.status == status, answer
        return answer.json

    @contextmanager
    def events(self, thread_id: str, last: int = 0) -> Iterator[Iterator[dict[str, Any]]]:
        """Follow a thread."""
        connection = self.served.connect(timeout=20)
        headers = {"authorization": f"Bearer {self.token}", "last-event-id": str(last)}
        connection.request("GET", f"/v1/threads/{thread_id}/events", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        try:
            yield messages(answer)
        finally:
            connection.close()


def messages(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def post(served: Served, path: str, document: object, token: str = "", **more: str) -> Answer:
    with closing(served.connect()) as connection:
        headers = {name.replace("_", "-"): text for name, text in more.items()}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        connection.request("POST", path, json.dumps(document), headers)
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
