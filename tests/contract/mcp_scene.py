"""One review by MCP's official client: calls every tool that there is, as those who may, and looks at what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import BaseModel

from orchestration.bridge.methods import METHODS

ERAS = ("legacy", LATEST_MODERN_VERSION, "auto")
_ANSWERS: Mapping[str, type[BaseModel]] = {method.name: method.answers for method in METHODS}


@asynccontextmanager
async def over_http(port: int, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    """A client as an agent has it: the address and its token."""
    async with AsyncExitStack() as stack:
        headers = {"authorization": f"Bearer {token}"}
        asks = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=40))
        transport = streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=asks)
        yield await stack.enter_async_context(Client(transport, mode=mode))


def text(result: CallToolResult) -> str:
    """The one text of a result."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


class Review:
    """Everybody's clients, and which tools have answered."""

    def __init__(self, executioner: Client, auditor: Client) -> None:
        self._executioner, self._auditor = executioner, auditor
        self.answered: set[str] = set()

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must answer; the client has held its answer against the output schema already."""
        client = self._auditor if tool == "get_audit" else self._executioner
        result = await client.call_tool(tool, arguments)
        assert not result.is_error, text(result)
        found = result.structured_content
        assert isinstance(found, dict)
        assert json.loads(text(result)) == found
        _ANSWERS[tool].model_validate(found)
        self.answered.add(tool)
        return found

    async def play(self, *, executioner: str = "executioner", workspace: str = "kloros") -> str:
        """Play it; returns the thread's id."""
        ask = self.ask
        made = await ask("create_thread", workspace_id=workspace, title="Retry", participants=[executioner, "reviewer"])
        thread: dict[str, Any] = {"thread_id": made["thread_id"]}
        finding = {"event_type": "finding_reported", "finding_id": "F-1"}
        key = {"idempotency_key": "k-1"}
        first = await ask("post_message", **thread, kind="event", body="it loses data", metadata=finding, **key)
        again = await ask("post_message", **thread, kind="event", body="it loses data", metadata=finding, **key)
        assert first == again
        assert first["seq"] == 1
        read = await ask("read_messages", **thread, since_seq=0, wait_seconds=5)
        assert [one["metadata"] for one in read["messages"]] == [finding]
        assert (await ask("ack_read", **thread, last_read_seq=read["next_seq"]))["last_read_seq"] == 1
        assert [one["finding_id"] for one in (await ask("summarize_thread", **thread))["open_items"]] == ["F-1"]
        assert [one["seq"] for one in (await ask("search_messages", query="loses data"))["messages"]] == [1]
        await ask("heartbeat_session", session_id="s-1", runtime="codex", status="idle")
        await ask("add_participant", **thread, agent_id="third")
        people = (await ask("list_participants", **thread))["participants"]
        assert {one["agent_id"] for one in people} >= {executioner, "reviewer", "third"}
        await ask("remove_participant", **thread, agent_id="third")
        queued = await ask("trigger_participant", **thread, target_agent_id="reviewer", reason="look", trigger_prompt="look")
        assert queued["status"] == "queued"
        assert [one["thread_id"] for one in (await ask("list_threads"))["threads"]] == [made["thread_id"]]
        changed = await ask("update_thread_status", **thread, status="resolved", reason="verified")
        assert (changed["status"], changed["changed"]) == ("resolved", True)
        assert (await ask("get_thread", **thread))["status"] == "resolved"
        operations = [one["operation"] for one in (await ask("get_audit", **thread))["entries"]]
        assert operations.count("post_message") >= 1
        assert self.answered == set(_ANSWERS)
        return str(made["thread_id"])
