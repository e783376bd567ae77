"""How many posts a second the bridge's face answers with a null command: `python -m tests.benchmarks.bridge_face [seconds]`.

The face as it is served, in a process of its own, with tokens, log, metrics and all; the clients in this one. The figures of
docs/decisions/0024 were made so.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

from tests.contract.bridge_served import THREAD

CONNECTIONS = (1, 8, 32)


class Client(asyncio.Protocol):
    """Posts again as soon as it is answered."""

    answered = 0
    _transport: asyncio.Transport
    _held = b""

    def __init__(self, request: bytes) -> None:
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200 "), head
        self._held = b""
        self.answered += 1
        self._transport.write(self._request)

    def close(self) -> None:
        self._transport.close()


async def rate(port: int, token: str, connections: int, seconds: float) -> float:
    """Posts a second."""
    body = json.dumps({"thread_id": THREAD, "body": "hello " * 30, "metadata": {"finding_id": "F-1"}}).encode()
    head = f"POST /v1/mcp/post_message HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    request = head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: Client(request), "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.sleep(seconds / 4)
    before, began = sum(one.answered for one in clients), time.monotonic()
    await asyncio.sleep(seconds)
    found = (sum(one.answered for one in clients) - before) / (time.monotonic() - began)
    for one in clients:
        one.close()
    return found


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    command = [sys.executable, "-m", "tests.contract.bridge_alone", "--null"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        port, token = process.stdout.readline().split()
        for connections in CONNECTIONS:
            print(f"{connections:3} connections: {asyncio.run(rate(int(port), token, connections, seconds)):,.0f} posts/s")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
