"""Whatever JSON comes to `/mcp`, whoever sent it is told what is wrong with it: never a 5xx, never nothing."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

from orchestration.bridge.auth.tokens import Verifier
from orchestration.bridge.http.face import Face
from orchestration.bridge.methods import METHODS
from orchestration.bridge.refusal import Code, Refused
from tests.contract.bridge_served import AUDIENCE, ISSUER, THREAD, FixedKeys, Remembering, SigningKey, claims

KEY = SigningKey("k-1")
TOKEN = KEY.sign(claims(time.time(), exp=time.time() + 86_400))
PROTOCOL = ["initialize", "ping", "tools/list", "tools/call", "server/discover", "resources/list", "notifications/cancelled"]
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
META = st.dictionaries(
    st.sampled_from(
        [PROTOCOL_VERSION_META_KEY, CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, "traceparent", "progressToken"]
    ),
    st.sampled_from([LATEST_MODERN_VERSION, {}, {"name": "x", "version": "1"}]) | ANY_JSON,
)
NAMED = {"thread_id": st.just(THREAD) | ANY_JSON, "body": ANY_JSON, "limit": ANY_JSON, "metadata": ANY_JSON}
ARGUMENTS = st.fixed_dictionaries({}, optional=NAMED) | ANY_JSON
CALL = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([method.name for method in METHODS]) | ANY_JSON,
        "arguments": ARGUMENTS,
        "_meta": META | ANY_JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers() | st.text(max_size=8) | ANY_JSON,
        "method": st.sampled_from(PROTOCOL) | ANY_JSON,
        "params": CALL | ANY_JSON,
    },
)


NEWER = {PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION, CLIENT_CAPABILITIES_META_KEY: {}}
A_CALL = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0"),
        "id": st.integers(),
        "method": st.just("tools/call"),
        "params": st.fixed_dictionaries(
            {
                "name": st.sampled_from([method.name for method in METHODS]),
                "arguments": st.fixed_dictionaries({}, optional=NAMED),
            },
            optional={"_meta": st.just(NEWER) | META},
        ),
    }
)
"""A call that is one, with arguments that may be none."""


class Known(Remembering):
    """Commands of which a post and a read are carried out; the rest is refused."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("post_message", "read_messages") else _elsewhere


async def _elsewhere(*_: object) -> Any:
    raise Refused(Code.NOT_FOUND, "there is no such thing", rule="test")


async def _fine() -> dict[str, str]:
    return {}


FACE = Face(
    Known(),
    Verifier(FixedKeys(KEY), issuer=ISSUER, audience=AUDIENCE, now=time.time),
    checks=_fine,
    jwks=dict,
)


async def answered(body: bytes, version: str, method: object, name: object) -> tuple[int, Any]:
    headers = [
        (b"authorization", f"Bearer {TOKEN}".encode()),
        (b"content-type", b"application/json"),
        (b"mcp-protocol-version", version.encode()),
        (b"mcp-method", str(method).encode("ascii", "replace")),
        (b"mcp-name", str(name).encode("ascii", "replace")),
    ]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "query_string": b"", "headers": headers}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await FACE(scope, receive, send)
    text = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(text) if text else None


@settings(max_examples=300)
@given(
    message=MESSAGE | ANY_JSON | A_CALL,
    version=st.sampled_from([LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION, "2099-01-01"]),
)
def test_no_message_is_too_strange(message: Any, version: str) -> None:
    method = message.get("method") if isinstance(message, dict) else None
    params = message.get("params") if isinstance(message, dict) else None
    name = params.get("name") if isinstance(params, dict) else None
    status, answer = asyncio.run(answered(json.dumps(message).encode(), version, method, name))
    assert status in (200, 202, 400, 404), answer
    if status == 202:
        assert answer is None
        return
    assert answer["jsonrpc"] == "2.0"
    assert ("result" in answer) != ("error" in answer)
    if answer.get("result", {}).get("isError"):
        assert not answer["result"]["content"][0]["text"].startswith("INTERNAL"), answer
