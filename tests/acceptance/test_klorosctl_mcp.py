"""`klorosctl mcp`: the official client over standard input, as an agent and as the operator; and what it configures."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types.version import LATEST_HANDSHAKE_VERSION

from orchestration.bridge.mcp.tools import ERROR_KEY
from tests.acceptance.host import Host
from tests.acceptance.serving import serving
from tests.contract.mcp_scene import ERAS, Review, over_http, text
from tests.waiting import until

TOKEN = "KLOROS_BRIDGE_TOKEN"
HELLO = {
    "protocolVersion": LATEST_HANDSHAKE_VERSION,
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def issued(host: Host, agent: str, role: str = "participant", *more: str) -> str:
    done = host.run("klorosctl", "token", "issue", "--agent", agent, "--role", role, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@asynccontextmanager
async def spoken(
    host: Host, *flags: str, token: str = "", mode: str = "auto", told: Path | None = None
) -> AsyncIterator[Client]:
    """A client that has started its server."""
    command, *arguments = host.command("klorosctl", "mcp", *flags)
    given = {TOKEN: token} if token else {}
    server = StdioServerParameters(command=command, args=arguments, env={**host.environ, **given})
    async with AsyncExitStack() as stack:
        errors = stack.enter_context((told or Path(os.devnull)).open("w"))
        yield await stack.enter_async_context(Client(stdio_client(server, errlog=errors), mode=mode))


@pytest.mark.parametrize("mode", ERAS)
def test_the_official_client_calls_every_tool_over_standard_input(host: Host, tmp_path: Path, mode: str) -> None:
    agent, auditor = issued(host, "executioner"), issued(host, "auditor", "auditor")
    told = tmp_path / "told"

    async def scene() -> None:
        async with (
            spoken(host, mode=mode, told=told, token=agent) as executioner,
            spoken(host, mode=mode, token=auditor) as reads,
        ):
            await Review(executioner, reads).play()

    asyncio.run(scene())
    lines = [json.loads(line) for line in told.read_text().splitlines() if line.startswith("{")]
    called = [line for line in lines if line["event"] == "request.answered"]
    assert {line["agent_id"] for line in called} == {"executioner"}
    assert all(line["operation"].startswith("mcp.") and line["request_id"] for line in called)
    assert agent not in told.read_text()


def test_the_operator_is_one_only_when_asked_for_and_sees_every_thread(host: Host) -> None:
    token = issued(host, "executioner")

    async def scene() -> None:
        async with spoken(host, token=token) as agent, spoken(host, "--operator") as operator:
            made = await agent.call_tool("create_thread", {"workspace_id": "kloros", "title": "Retry"})
            assert made.structured_content is not None
            thread = {"thread_id": made.structured_content["thread_id"]}
            posted = await operator.call_tool("post_message", {**thread, "body": "go on"})
            assert not posted.is_error, text(posted)
            found = (await agent.call_tool("read_messages", thread)).structured_content
            assert found is not None
            assert [one["sender"].partition(":")[0] for one in found["messages"]] == ["operator"]
            wrong = await agent.call_tool("post_message", {"thread_id": "nowhere", "body": "geheim"})
            assert text(wrong).startswith("INVALID_ARGUMENT: ")
            audit = (await operator.call_tool("get_audit", {"limit": 200})).structured_content
            assert audit is not None
            assert wrong.meta is not None
            assert audit["entries"][-1]["request_id"] == wrong.meta[ERROR_KEY]["request_id"]

    asyncio.run(scene())


@pytest.mark.parametrize("flags", [(), ("--operator",)], ids=["an agent", "the operator"])
def test_what_was_counted_beyond_the_rate_is_written_at_the_end(host: Host, flags: tuple[str, ...]) -> None:
    host.configure("[bridge]\nthread_posts_per_minute = 2\n")
    token = "" if flags else issued(host, "executioner")

    async def scene() -> int:
        async with spoken(host, *flags, token=token) as agent:
            made = await agent.call_tool("create_thread", {"workspace_id": "kloros", "title": "Retry"})
            assert made.structured_content is not None
            post = {"thread_id": made.structured_content["thread_id"], "body": "go on"}
            return sum([(await agent.call_tool("post_message", post)).is_error for _ in range(9)])

    refused = asyncio.run(scene())
    rows = [one for one in host.answer("audit", "list") if one["rule"] == "guards.rate.thread"]
    assert sum(one["after"]["refusals"] if one["after"] else 1 for one in rows) == refused >= 5


def test_a_revoked_token_is_taken_no_more_in_the_middle_of_it(host: Host) -> None:
    made = json.loads(host.run("klorosctl", "token", "issue", "--agent", "executioner", "--json").stdout)

    async def scene() -> None:
        async with spoken(host, token=made["token"]) as agent:
            assert not (await agent.call_tool("list_threads", {})).is_error
            assert host.run("klorosctl", "token", "revoke", made["token_id"]).returncode == 0
            async with asyncio.timeout(20):
                while not (last := await agent.call_tool("list_threads", {})).is_error:
                    await asyncio.sleep(0.1)
            assert text(last) == "UNAUTHORIZED: a valid token is needed"

    asyncio.run(scene())


def test_a_token_that_is_revoked_during_a_wait_ends_it(host: Host) -> None:
    made = json.loads(host.run("klorosctl", "token", "issue", "--agent", "executioner", "--json").stdout)

    async def scene() -> None:
        async with spoken(host, token=made["token"]) as agent:
            thread = (await agent.call_tool("create_thread", {"title": "Retry"})).structured_content
            assert thread is not None
            asked = {"thread_id": thread["thread_id"], "wait_seconds": 30}
            waiting = asyncio.create_task(agent.call_tool("read_messages", asked))
            revoked = await asyncio.to_thread(host.run, "klorosctl", "token", "revoke", made["token_id"])
            assert revoked.returncode == 0
            async with asyncio.timeout(10):
                assert text(await waiting) == "UNAUTHORIZED: a valid token is needed"

    asyncio.run(scene())


def test_a_line_that_is_no_message_is_answered_and_the_next_one_as_well(host: Host) -> None:
    ping = {"jsonrpc": "2.0", "id": 7, "method": "ping"}
    hello = {**ping, "id": 6, "method": "initialize", "params": HELLO}
    lines = ["no JSON", json.dumps(hello), '{"id": 1}', json.dumps(ping), "{"]
    command = host.command("klorosctl", "mcp", "--operator")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=host.environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("\n".join([*lines, ""]))
        answers = [json.loads(client.stdout.readline()) for _ in lines]
        _, said = client.communicate(timeout=20)
    assert client.returncode == 0, said
    assert [(one["id"], one["error"]["code"]) for one in answers if "error" in one] == [
        (None, -32700),
        (None, -32600),
        (None, -32700),
    ]
    assert {one["id"] for one in answers if "result" in one} == {6, 7}
    logged = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    rules = [one["rule"] for one in logged if one["event"] == "request.refused"]
    assert rules == ["mcp.protocol.-32700", "mcp.protocol.-32600", "mcp.protocol.-32700"]


def test_a_message_of_one_client_wakes_the_read_of_another(host: Host) -> None:
    tokens = issued(host, "executioner"), issued(host, "reviewer")

    async def scene() -> None:
        async with spoken(host, token=tokens[0]) as posts, spoken(host, token=tokens[1]) as reads:
            asked = {"workspace_id": "kloros", "title": "Retry", "participants": ["reviewer"]}
            made = (await posts.call_tool("create_thread", asked)).structured_content
            assert made is not None
            thread = {"thread_id": made["thread_id"]}
            waiting = asyncio.create_task(reads.call_tool("read_messages", {**thread, "wait_seconds": 30}))
            await posts.call_tool("post_message", {**thread, "body": "news"})
            async with asyncio.timeout(15):
                found = (await waiting).structured_content
            assert found is not None
            assert [one["body"] for one in found["messages"]] == ["news"]

    asyncio.run(scene())


def test_an_agent_at_the_bridge_and_one_on_standard_input_talk(host: Host) -> None:
    tokens = issued(host, "executioner"), issued(host, "reviewer")
    with serving(host, "--bridge") as served:

        async def scene() -> None:
            async with over_http(served.port, tokens[0]) as posts, spoken(host, token=tokens[1]) as reads:
                made = (
                    await posts.call_tool("create_thread", {"title": "Retry", "participants": ["reviewer"]})
                ).structured_content
                assert made is not None
                thread = {"thread_id": made["thread_id"]}
                for asks, answers in ((posts, reads), (reads, posts)):
                    before = (await answers.call_tool("read_messages", thread)).structured_content
                    assert before is not None
                    asked = {**thread, "since_seq": before["next_seq"], "wait_seconds": 30}
                    waiting = asyncio.create_task(answers.call_tool("read_messages", asked))
                    await asks.call_tool("post_message", {**thread, "body": "news"})
                    async with asyncio.timeout(15):
                        found = (await waiting).structured_content
                    assert found is not None
                    assert [one["body"] for one in found["messages"]] == ["news"]

        asyncio.run(scene())
        with closing(served.connect()) as connection:
            shown = {"authorization": f"Bearer {tokens[0]}", "content-type": "application/json", "host": "evil.example"}
            connection.request("POST", "/mcp", b"{}", shown)
            assert connection.getresponse().status == 403
        until(lambda: {line["rule"] for line in served.log("request.refused")} == {"mcp.host"}, what="it is told")
        operations = {line["operation"] for line in served.log("request.answered")}
        assert operations >= {"mcp.create_thread", "mcp.post_message", "mcp.read_messages"}


def test_who_asks_must_be_said_and_once(host: Host, tmp_path: Path) -> None:
    def ends(*flags: str, **environ: str) -> str:
        host.environ.update(environ)
        done = host.run("klorosctl", "mcp", *flags)
        for name in environ:
            del host.environ[name]
        assert (done.returncode, done.stdout) == (64, ""), done
        return done.stderr

    assert "who asks?" in ends()
    assert "two identities" in ends("--operator", **{TOKEN: "x.y.z"})
    assert "not taken: auth.not_a_token" in ends(**{TOKEN: "x.y.z"})
    kept = tmp_path / "token"
    kept.write_text(issued(host, "executioner"))
    kept.chmod(0o644)
    assert "others may read it" in ends("--token-file", str(kept))
    kept.chmod(0o600)
    done = host.run("klorosctl", "mcp", "--token-file", str(kept))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr  # its client has closed its end at once


def configured(host: Host, *arguments: str) -> str:
    done = host.run("klorosctl", "mcp", "config", *arguments)
    assert done.returncode == 0, done.stderr
    assert TOKEN in done.stderr
    return done.stdout


def test_what_clients_are_told_leads_to_the_bridge_and_holds_no_token(host: Host) -> None:
    host.set(**{"KLR_BRIDGE_HOST": "::", "KLR_BRIDGE_PORT": "9500", TOKEN: "s.e.cret"})
    url = "http://[::1]:9500/mcp"
    codex = tomllib.loads(configured(host, "codex"))["mcp_servers"]["kloros"]
    unattended = {"update_thread_status": {"approval_mode": "approve"}}
    assert codex == {"url": url, "bearer_token_env_var": TOKEN, "tool_timeout_sec": 60, "tools": unattended}
    claude = json.loads(configured(host, "claude", "--name", "bridge"))["mcpServers"]["bridge"]
    assert claude == {"type": "http", "url": url, "headers": {"Authorization": f"Bearer ${{{TOKEN}}}"}}
    codex = tomllib.loads(configured(host, "codex", "--stdio", "--name", 'a "b"'))["mcp_servers"]['a "b"']
    assert codex["args"] == ["mcp"]
    assert codex["env_vars"] == [TOKEN]
    claude = json.loads(configured(host, "claude", "--stdio"))["mcpServers"]["kloros"]
    assert claude["env"] == {TOKEN: f"${{{TOKEN}}}"}
    found: dict[str, Any] = json.loads(host.run("klorosctl", "mcp", "config", "codex", "--json").stdout)
    assert tomllib.loads(found["text"])["mcp_servers"]["kloros"]["url"] == url
    for client in ("codex", "claude"):
        assert "s.e.cret" not in configured(host, client)
    refused: subprocess.CompletedProcess[str] = host.run("klorosctl", "mcp", "config", "codex", "--stdio", "--url", "x")
    assert refused.returncode == 64
