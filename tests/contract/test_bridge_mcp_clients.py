"""MCP's own conformance suite against `/mcp`, and real clients with the configuration that `klorosctl mcp config` prints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.bridge import wire
from orchestration.bridge.auth.tokens import Verifier
from orchestration.bridge.caller import Caller
from orchestration.bridge.http.face import Face
from orchestration.bridge.mcp import clients
from orchestration.bridge.methods import METHODS, Method
from orchestration.bridge.refusal import Code, Refused
from orchestration.pulse.server.admission import Admission
from tests.contract import mcp_programs
from tests.contract.bridge_served import (
    AT,
    AUDIENCE,
    ISSUER,
    THREAD,
    Bridged,
    FixedKeys,
    Remembering,
    SigningKey,
    bridged,
    claims,
    served,
)

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

BASELINE = Path(__file__).with_name("mcp_baseline.yml")
ASKED_FOR = (
    Method("test_simple_text", wire.ListThreads, wire.ThreadCreated, "What the suite calls to see an answer."),
    Method("test_error_handling", wire.ListThreads, wire.ThreadCreated, "What the suite calls to see a refusal."),
)
"""Methods of the suite, by our own way of answering and refusing."""


class Conforming(Remembering):
    """Commands with those of the suite."""

    def __getattr__(self, name: str) -> Callable[[Caller, Any], Awaitable[Any]]:
        return {"test_simple_text": _answers, "test_error_handling": _refuses}.get(name) or super().__getattr__(name)


async def _answers(*_: object) -> wire.ThreadCreated:
    return wire.ThreadCreated(thread_id=THREAD, status=wire.ThreadStatus.ACTIVE, created_at=AT)


async def _refuses(*_: object) -> wire.ThreadCreated:
    raise Refused(Code.CONFLICT, "as the suite wants it", rule="test")


@asynccontextmanager
async def conforming() -> AsyncIterator[int]:
    """Serve them, under our own names only, with a token put to every request: the suite has none. Gives the port."""
    key = SigningKey("k-1")
    verifier = Verifier(FixedKeys(key), issuer=ISSUER, audience=AUDIENCE, now=time.time)
    shown = (b"authorization", f"Bearer {key.sign(claims())}".encode())

    async def fine() -> dict[str, str]:
        return {}

    face = Face(
        Conforming(),
        verifier,
        checks=fine,
        jwks=dict,
        methods=(*METHODS, *ASKED_FOR),
        names=Admission(token=None),
    )

    async def with_token(scope: Scope, receive: Receive, send: Send) -> None:
        await face({**scope, "headers": [*scope["headers"], shown]}, receive, send)

    async with served(face, with_token) as port:
        yield port


def test_the_conformance_suite_finds_what_the_baseline_says(tmp_path: Path) -> None:
    async def scene() -> None:
        async with conforming() as port:
            url = f"http://127.0.0.1:{port}/mcp"
            asked = ("server", "--url", url, "--suite", "all", "--expected-failures", str(BASELINE))
            done = await mcp_programs.run("node", str(mcp_programs.CONFORMANCE), *asked, home=tmp_path)
            assert done.code == 0, done.said
            lines = done.said.splitlines()
            passed = {line.split()[1].rstrip(":") for line in lines if line.startswith("✓") and " 0 passed" not in line}
            assert passed >= {
                "server-initialize",
                "ping",
                "tools-list",
                "tools-call-simple-text",
                "tools-call-error",
                "dns-rebinding-protection",
            }

    asyncio.run(scene())


def address(bridge: Bridged) -> clients.Http:
    return clients.Http(f"http://127.0.0.1:{bridge.port}/mcp")


def test_codex_lists_our_server_and_its_tools(tmp_path: Path) -> None:
    """Its app server connects to what its configuration names, and says what it has found there."""

    async def scene() -> None:
        async with bridged() as bridge:
            (tmp_path / ".codex").mkdir()
            (tmp_path / ".codex" / "config.toml").write_text(clients.codex("kloros", address(bridge)))
            token = {clients.TOKEN: bridge.token}
            done = await mcp_programs.run("codex", "mcp", "list", "--json", home=tmp_path, environ=token)
            assert done.code == 0, done.said
            (listed,) = json.loads(done.said[done.said.index("[\n") :])
            assert listed["transport"]["url"] == address(bridge).url
            assert (listed["enabled"], listed["auth_status"], listed["tool_timeout_sec"]) == (True, "bearer_token", 60)
            async with CodexServer(tmp_path, token) as codex:
                (found,) = (await codex.ask("mcpServerStatus/list", {}))["data"]
                assert found["serverInfo"]["name"] == "kloros-bridge"
                assert set(found["tools"]) == {method.name for method in METHODS}

    asyncio.run(scene())


class CodexServer:
    """`codex app-server`: JSON-RPC in lines, as editors speak it."""

    def __init__(self, home: Path, environ: dict[str, str]) -> None:
        self._home, self._environ = home, environ

    async def __aenter__(self) -> CodexServer:
        own = {"PATH": mcp_programs.path(), "HOME": str(self._home), "CODEX_HOME": f"{self._home}/.codex"}
        self._process = await asyncio.create_subprocess_exec(
            "codex",
            "app-server",
            env={**own, **self._environ},
            cwd=self._home,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=4 * 1024 * 1024,
            start_new_session=True,
        )
        await self.ask("initialize", {"clientInfo": {"name": "test", "title": "test", "version": "1"}})
        self._send({"method": "initialized"})
        return self

    async def __aexit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        self._send({"id": method, "method": method, "params": params})
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            while True:
                answer = json.loads(await self._process.stdout.readline())
                if answer.get("id") == method:
                    return answer["result"]

    def _send(self, document: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(document).encode() + b"\n")


def test_claude_code_connects_to_our_server(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bridged() as bridge:
            (tmp_path / ".mcp.json").write_text(clients.claude("kloros", address(bridge)))
            (tmp_path / ".claude").mkdir()
            (tmp_path / ".claude" / "settings.json").write_text('{"enabledMcpjsonServers": ["kloros"]}')
            trusted = {"projects": {str(tmp_path): {"hasTrustDialogAccepted": True}}}
            (tmp_path / ".claude.json").write_text(json.dumps(trusted))
            for token, is_good in ((bridge.token, True), ("nonsense", False)):
                done = await mcp_programs.run("claude", "mcp", "list", home=tmp_path, environ={clients.TOKEN: token})
                (line,) = (line for line in done.said.splitlines() if line.startswith("kloros: "))
                assert ("Connected" in line) is is_good, done.said

    asyncio.run(scene())
