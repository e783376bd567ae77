"""A server of ours in a guest, asked from outside, on a port of its own: guests share the host's network."""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from tests.system.guest import Guest
from tests.system.test_metrics import free_port


class Served:
    """One service, by its unit."""

    def __init__(self, guest: Guest, service: str) -> None:
        self.guest = guest
        self.service = service
        self.port = free_port()

    def ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Ask; returns status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def pid(self) -> int:
        """The main process, 0 when none is resident."""
        return int(self.guest.sh(f"systemctl show {self.service} --property=MainPID --value").out)
