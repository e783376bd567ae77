"""What MCP costs beside plain HTTP: `python -m tests.benchmarks.bridge_mcp [--write]`; three minutes.

The same calls with the same arguments, once by POST /v1/mcp/<method> and once as a tool at /mcp, in both kinds of protocol;
one server in a process of its own, over SQLite with its syncs, with tokens, rules, audit, log and metrics; the clients in
this one, each asking again as soon as it is answered. The sides take turns of half a second; medians, of the ratios too.
`--write` puts the figures into docs/reference/benchmarks.md; `--turns N` takes fewer.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from typing import Any

from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commands import Commands, Rules
from orchestration.bridge.guards import Limits
from orchestration.bridge.store.sqlite import SqliteStore
from orchestration.bridge.wire import CreateThread, PostMessage
from tests.benchmarks import page
from tests.benchmarks.bridge_face import Client
from tests.benchmarks.tick import _machine
from tests.contract.bridge_served import bridged

TURNS, SECONDS = 9, 0.5
CLIENTS = (1, 8, 32)
BODY = "The fix is on branch retry-2; tests pass here. " * 4
MESSAGES = 2000
MARKS = ("<!-- bridge mcp: written by tests/benchmarks/bridge_mcp.py -->", "<!-- /bridge mcp -->")
_ALL = Rules(limits=Limits(agent_per_minute=0, thread_per_minute=0, max_turns=0, max_repeats=0))


async def serve(folder: str) -> None:
    """Be the server: print the port, a token and a thread with messages, and go on."""
    commands = Commands(SqliteStore(f"{folder}/kloros.db"), _ALL)
    who = Caller(agent_id="executioner", workspace_id="kloros", role=Role.PARTICIPANT, request_id="r-1")
    thread_id = (await commands.create_thread(who, CreateThread(title="Retry"))).thread_id
    post = PostMessage(thread_id=thread_id, body=BODY)
    for _ in range(MESSAGES // 100):
        await asyncio.gather(*(commands.post_message(who, post) for _ in range(100)))
    async with bridged(commands, refuse=commands.refuse) as bridge:
        print(bridge.port, bridge.token, thread_id, flush=True)
        await asyncio.Event().wait()


def request(side: str, token: str, tool: str, arguments: dict[str, Any]) -> bytes:
    """One call as bytes: plain, or in the older or the newer protocol of MCP."""
    head = [
        f"authorization: Bearer {token}",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
    ]
    document: dict[str, Any] = arguments
    path = f"/v1/mcp/{tool}"
    if side != "HTTP":
        path, version = "/mcp", LATEST_HANDSHAKE_VERSION
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        if side == "newer":
            version = LATEST_MODERN_VERSION
            params["_meta"] = {PROTOCOL_VERSION_META_KEY: version, CLIENT_CAPABILITIES_META_KEY: {}}
            head += ["mcp-method: tools/call", f"mcp-name: {tool}"]
        head.append(f"mcp-protocol-version: {version}")
        document = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = json.dumps(document).encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", *head, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def rate(port: int, asked: bytes, clients: int) -> float:
    """Calls a second, after a while to warm up."""
    loop = asyncio.get_running_loop()
    open_ = [(await loop.create_connection(lambda: Client(asked), "127.0.0.1", port))[1] for _ in range(clients)]
    await asyncio.sleep(SECONDS / 4)
    before, began = sum(one.answered for one in open_), time.monotonic()
    await asyncio.sleep(SECONDS)
    found = (sum(one.answered for one in open_) - before) / (time.monotonic() - began)
    for one in open_:
        one.close()
    return found


async def measure(port: int, token: str, thread_id: str, turns: int) -> list[str]:
    """Every call at every number of clients, the sides in turns."""
    thread = {"thread_id": thread_id}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("post_message", "post_message", {**thread, "body": BODY, "metadata": {"finding_id": "F-1"}}),
        (f"read_messages, 50 of {MESSAGES:,}", "read_messages", {**thread, "since_seq": MESSAGES // 2}),
        ("get_thread", "get_thread", thread),
    ]
    lines = [
        "| tool | clients | HTTP | MCP, handshake | ratio | MCP, 2026-07-28 | ratio | goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, tool, arguments in calls:
        for clients in CLIENTS:
            found: dict[str, list[float]] = {"HTTP": [], "older": [], "newer": []}
            for _ in range(turns):
                for side, rates in found.items():
                    rates.append(await rate(port, request(side, token, tool, arguments), clients))
            plain, older, newer = (statistics.median(rates) for rates in found.values())
            ratios = [
                statistics.median(ours / bare for ours, bare in zip(found[side], found["HTTP"], strict=True))
                for side in ("older", "newer")
            ]
            told = f"{plain:,.0f} | {older:,.0f} | {ratios[0]:.2f} | {newer:,.0f} | {ratios[1]:.2f}"
            lines.append(f"| {name} | {clients} | {told} | ≥ 0.4 |")
    return lines


def main() -> None:
    """Measure, print, and write if asked to."""
    if "--serve" in sys.argv:
        asyncio.run(serve(sys.argv[-1]))
    turns = int(sys.argv[sys.argv.index("--turns") + 1]) if "--turns" in sys.argv else TURNS
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {_machine()}", ""]
    with tempfile.TemporaryDirectory(prefix="kloros-benchmark-") as folder:
        command = [sys.executable, "-m", "tests.benchmarks.bridge_mcp", "--serve", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert process.stdout is not None
            port, token, thread_id = process.stdout.readline().split()
            lines += asyncio.run(measure(int(port), token, thread_id, turns))
        finally:
            process.kill()
            process.wait()
    print("\n".join(lines))
    if "--write" in sys.argv:
        page.write(MARKS, "\n".join(lines))


if __name__ == "__main__":
    main()
