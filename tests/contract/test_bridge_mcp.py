"""The bridge at `/mcp`: the official client calls every tool in every protocol there is, and what is refused says why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

from orchestration.bridge.commands import Commands
from orchestration.bridge.http.commanding import MOST_POLLS
from orchestration.bridge.mcp.tools import ERROR_KEY
from orchestration.bridge.methods import METHODS
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.store.sqlite import SqliteStore
from orchestration.pulse.server.admission import Admission
from tests.contract.bridge_served import THREAD, Answer, Bridged, Remembering, bridged, claims, until
from tests.contract.conftest import opened_at
from tests.contract.mcp_scene import ERAS, Review, over_http, text

NEWER = {
    PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
    CLIENT_CAPABILITIES_META_KEY: {},
}


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[Bridged]:
    """A bridge over a real store."""
    store = SqliteStore(str(folder / "kloros.db"))
    commands = Commands(store)
    try:
        async with bridged(commands, refuse=commands.refuse) as bridge:
            yield bridge
    finally:
        await store.close()


async def rpc(bridge: Bridged, method: str, params: Any = None, *, newer: bool = False, **headers: str) -> Answer:
    """Send one message as a client does that knows the older protocol, or the newer."""
    document: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method}
    version = LATEST_HANDSHAKE_VERSION
    if newer:
        version = LATEST_MODERN_VERSION
        headers.setdefault("mcp_method", method)
        params = {**(params or {}), "_meta": NEWER}
    if params is not None:
        document["params"] = params
    return await sent(bridge, document, **{"mcp_protocol_version": version, **headers})


async def sent(bridge: Bridged, document: Any, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    common = {"content_type": "application/json", "accept": "application/json, text/event-stream"}
    return await bridge.ask("POST", "/mcp", body, **{**common, **headers})


@pytest.mark.parametrize("mode", ERAS)
def test_the_official_client_calls_every_tool(tmp_path: Path, mode: str) -> None:
    async def scene() -> None:
        async with stored(tmp_path) as bridge:
            auditor = bridge.key.sign(claims(agent_id="auditor", role="auditor", jti="t-2"))
            async with (
                over_http(bridge.port, bridge.token, mode) as executioner,
                over_http(bridge.port, auditor, mode) as reads,
            ):
                await Review(executioner, reads).play()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('"body": "y"', "a name stands twice in the same object"),
        (",".join(f'"n{number}": 1' for number in range(5_000)), "a request may have 4096 names in its objects"),
    ],
    ids=["twice", "too many"],
)
def test_names_that_stand_twice_in_a_call_or_are_too_many_are_refused(more: str, told: str) -> None:
    async def scene() -> None:
        async with bridged() as bridge:
            arguments = f'{{"thread_id": "{THREAD}", "body": "x", {more}}}'
            call = f'{{"name": "post_message", "arguments": {arguments}}}'
            message = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {call}}}'
            answer = await sent(bridge, message.encode(), mcp_protocol_version=LATEST_HANDSHAKE_VERSION)
            assert (answer.status, answer.json["error"]["code"], answer.json["error"]["message"]) == (400, -32600, told)
            assert not bridge.commands.asked

    asyncio.run(scene())


def test_a_number_past_the_latest_message_is_refused_by_every_way_in(place: str) -> None:
    """A cursor from before a restore, say: its reader would wait for ever, and miss what comes meanwhile."""

    async def scene() -> None:
        store = await opened_at(place)
        commands = Commands(store)
        try:
            async with bridged(commands, refuse=commands.refuse) as bridge, over_http(bridge.port, bridge.token) as agent:
                thread = (await bridge.post("create_thread", {"title": "Retry"})).json["thread_id"]
                await bridge.post("post_message", {"thread_id": thread, "body": "one"})
                asked = {"thread_id": thread, "since_seq": 2, "wait_seconds": 20}
                events = f"/v1/threads/{thread}/events"
                async with asyncio.timeout(10):
                    for answer in (
                        await bridge.post("read_messages", asked),
                        await bridge.ask("GET", f"{events}?since_seq=2"),
                        await bridge.ask("GET", events, last_event_id="2"),
                    ):
                        assert answer.status == 400
                        error = answer.json["error"]
                        assert (error["code"], error["details"]["last_seq"]) == ("INVALID_ARGUMENT", 1)
                    told = await agent.call_tool("read_messages", asked)
                assert text(told).startswith("INVALID_ARGUMENT: since_seq is past the latest message, 1.")
        finally:
            await store.close()

    asyncio.run(scene())


@pytest.mark.parametrize("mode", ERAS)
def test_what_no_method_takes_is_in_the_audit_as_over_http(tmp_path: Path, mode: str) -> None:
    async def scene() -> None:
        async with stored(tmp_path) as bridge, over_http(bridge.port, bridge.token, mode) as client:
            found = await client.call_tool("post_message", {"thread_id": "nowhere", "body": "geheim"})
            assert text(found).startswith("INVALID_ARGUMENT: ")
            assert found.meta is not None
            (entry,) = await bridge.commands.store.audit(workspace_id="kloros")
            assert (entry.operation, entry.request_id) == ("post_message", found.meta[ERROR_KEY]["request_id"])
            assert "geheim" not in entry.model_dump_json()

    asyncio.run(scene())


def test_the_tools_are_the_methods_with_their_hints_and_schemas_without_references() -> None:
    async def scene() -> None:
        async with bridged() as bridge, over_http(bridge.port, bridge.token) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert list(listed) == [method.name for method in METHODS]
            for method in METHODS:
                tool = listed[method.name]
                hints = tool.annotations
                assert hints is not None
                assert hints.read_only_hint is method.read_only
                assert hints.destructive_hint is method.destructive
                assert hints.idempotent_hint is (method.idempotent or method.read_only)
                assert hints.open_world_hint is False
                assert tool.description == method.about
                assert set(tool.input_schema["properties"]) == set(method.asks.model_fields)
                assert tool.output_schema is not None
                assert set(tool.output_schema["properties"]) == set(method.answers.model_fields)
                assert "$ref" not in json.dumps([tool.input_schema, tool.output_schema])

    asyncio.run(scene())


@pytest.mark.parametrize("mode", ERAS)
def test_a_refused_call_is_an_error_of_the_tool_with_code_and_message(mode: str) -> None:
    async def scene() -> None:
        commands = Remembering()
        async with bridged(commands) as bridge, over_http(bridge.port, bridge.token, mode) as client:
            commands.raises = Refused(
                Code.RATE_LIMITED, "too many", rule="guards.rate", details={"limit": 3}, retry_after=2.5
            )
            found = await client.call_tool("post_message", {"thread_id": THREAD, "body": "x"})
            assert found.is_error
            assert found.structured_content is None
            assert text(found) == "RATE_LIMITED: too many (limit: 3) Try again after 2.5 s."
            assert found.meta is not None
            error = found.meta[ERROR_KEY]
            assert error.pop("request_id")
            assert error == {
                "code": "RATE_LIMITED",
                "message": "too many",
                "details": {"limit": 3},
                "retryable": True,
                "retry_after": 2.5,
            }
            commands.raises = RuntimeError("SELECT secret FROM messages")
            found = await client.call_tool("post_message", {"thread_id": THREAD, "body": "x"})
            assert text(found).startswith("INTERNAL: ")
            assert "secret" not in found.model_dump_json()
            found = await client.call_tool("post_message", {"thread_id": "nowhere", "body": "geheim" * 20_000})
            assert text(found).startswith("INVALID_ARGUMENT: ")
            assert "thread_id" in text(found)
            assert "body" in text(found)
            assert "geheim" not in found.model_dump_json()
            with pytest.raises(MCPError, match="no such tool"):
                await client.call_tool("drop_thread", {})
            counted = (await bridge.ask("GET", "/metrics")).body.decode()
            assert 'kloros_bridge_errors_total{code="RATE_LIMITED"} 1.0' in counted
            assert 'kloros_bridge_errors_total{code="INTERNAL"} 1.0' in counted
            labels = '{operation="mcp.post_message",method="POST",status="200"}'
            assert f"kloros_bridge_requests_total{labels} 3.0" in counted

    asyncio.run(scene())


@pytest.mark.parametrize("newer", [False, True])
def test_a_caller_is_who_the_token_says_with_the_requests_id_and_trace(newer: bool) -> None:
    async def scene() -> None:
        commands = Remembering()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        call = {"name": "post_message", "arguments": {"thread_id": THREAD, "body": "x"}, "_meta": {"traceparent": trace}}
        async with bridged(commands) as bridge:
            if newer:
                NEWER["traceparent"] = trace
            try:
                answer = await rpc(bridge, "tools/call", call, newer=newer, mcp_name="post_message", x_request_id="r-7")
            finally:
                NEWER.pop("traceparent", None)
            assert answer.status == 200, answer.body
            assert answer.headers["x-request-id"] == "r-7"
            ((method, caller, _),) = commands.asked
            assert (method, caller.agent_id, caller.request_id, caller.traceparent) == (
                "post_message",
                "executioner",
                "r-7",
                trace,
            )
            await rpc(bridge, "tools/call", {**call, "_meta": {"traceparent": "00-nonsense"}})
            assert commands.asked[1][1].traceparent == ""

    asyncio.run(scene())


def test_nobody_gets_in_without_a_token_or_from_a_page_of_another_site() -> None:
    async def scene() -> None:
        async with bridged(names=Admission(token=None)) as bridge:
            for wrong in ("", "Bearer nonsense"):
                answer = await rpc(bridge, "tools/list", authorization=wrong)
                assert (answer.status, answer.json["error"]["code"]) == (401, "UNAUTHORIZED")
                assert answer.headers["www-authenticate"].startswith("Bearer ")
            for origin, status in (("https://evil.example", 403), ("null", 403), ("http://localhost:3000", 200)):
                assert (await rpc(bridge, "tools/list", origin=origin)).status == status
            assert (await rpc(bridge, "tools/list", host="evil.example")).status == 403

    asyncio.run(scene())


MALFORMED = {
    "no JSON": (b"{", -32700),
    "not finite": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"a": NaN}}', -32700),
    "deep": (b'{"a":' * 5000, -32700),
    "no UTF-8": (b'{"jsonrpc": "2.0", "id": 1, "method": "\xff"}', -32700),
    "a batch": (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
    "an answer": (b'{"jsonrpc": "2.0", "id": 1, "result": {}}', -32600),
    "no method": (b'{"jsonrpc": "2.0", "id": 1}', -32600),
    "an id of null": (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600),
    "text": (b'"ping"', -32600),
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("version", [LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION])
def test_what_is_no_message_is_400_with_the_protocols_code(what: str, version: str) -> None:
    async def scene() -> None:
        raw, code = MALFORMED[what]
        async with bridged() as bridge:
            answer = await sent(bridge, raw, mcp_protocol_version=version)
            assert (answer.status, answer.json["error"]["code"], answer.json["id"]) == (400, code, None)

    asyncio.run(scene())


def test_each_request_stands_for_itself_and_nothing_is_streamed() -> None:
    async def scene() -> None:
        async with bridged() as bridge:
            answer = await rpc(bridge, "tools/list")
            assert answer.status == 200
            assert "mcp-session-id" not in answer.headers
            assert answer.headers["content-type"] == "application/json"
            note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            noted = await sent(bridge, note)
            assert (noted.status, noted.body) == (202, b"")
            for method in ("GET", "DELETE", "PUT"):
                answer = await bridge.ask(method, "/mcp")
                assert (answer.status, answer.headers["allow"]) == (405, "POST")
            assert (await rpc(bridge, "nothing/there")).json["error"]["code"] == -32601
            unknown = await rpc(bridge, "nothing/there", newer=True)
            assert (unknown.status, unknown.json["error"]["code"]) == (404, -32601)
            assert (await rpc(bridge, "tools/list", newer=True, mcp_method="ping")).status == 400
            assert (await rpc(bridge, "tools/list", newer=True, mcp_protocol_version="2099-01-01")).status == 400
            for answer in (
                await rpc(bridge, "tools/list", content_type="text/plain"),
                await rpc(bridge, "tools/list", accept="text/event-stream"),
            ):
                assert (answer.status, answer.json["error"]["code"]) == (400, "INVALID_ARGUMENT")
            answer = await sent(bridge, b" " * (600 * 1024))
            assert (answer.status, answer.json["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")

    asyncio.run(scene())


def test_a_header_that_says_two_things_is_refused() -> None:
    """Who reads the first and who reads the last would think differently of the same request."""

    async def scene() -> None:
        async with bridged() as bridge:
            params = {"name": "list_threads", "arguments": {}, "_meta": NEWER}
            document = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            body = json.dumps(document).encode()
            head = (
                f"POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {bridge.token}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
                f"mcp-protocol-version: {LATEST_MODERN_VERSION}\r\nmcp-method: tools/call\r\n"
                "mcp-name: post_message\r\nmcp-name: list_threads\r\n\r\n"
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
            writer.write(head.encode() + body)
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"more than once" in answer
            assert bridge.commands.asked == []

    asyncio.run(scene())


def test_a_read_that_waits_is_a_poll_among_the_others() -> None:
    async def scene() -> None:
        commands = Remembering()
        async with bridged(commands) as bridge, over_http(bridge.port, bridge.token) as client:
            asked = {"thread_id": THREAD, "wait_seconds": 20}
            reading = asyncio.create_task(client.call_tool("read_messages", asked))
            await until(lambda: bridge.face.measures.polls == 1, what="a poll waits")
            commands.put("news")
            found = (await reading).structured_content
            assert found is not None
            assert [one["body"] for one in found["messages"]] == ["news"]
            bridge.face.measures.polls = MOST_POLLS
            full = await client.call_tool("read_messages", {**asked, "since_seq": 1})
            assert text(full).startswith("UNAVAILABLE: ")

    asyncio.run(scene())
