"""The bridge's face over HTTP, as a client sees it: what is taken, what is refused, and in which words."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from orchestration.bridge import wire
from orchestration.bridge.auth.claims import Rule
from orchestration.bridge.caller import Role
from orchestration.bridge.http import body, openapi
from orchestration.bridge.http.body import LARGEST
from orchestration.bridge.http.journal import AnswerLog
from orchestration.bridge.methods import METHODS
from orchestration.bridge.refusal import STATUS, Code, Refused
from orchestration.errors import StoreUnreachable
from tests.contract.bridge_served import THREAD, Answer, Bridged, SigningKey, bridged, claims, until

POST = {"thread_id": THREAD, "body": "done"}


def on_bridge(test: Callable[[Bridged], Awaitable[None]], **given: Any) -> None:
    async def run() -> None:
        async with bridged(**given) as bridge:
            await test(bridge)

    asyncio.run(run())


def log_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_method_is_called_with_who_asks_and_what(capfd: pytest.CaptureFixture[str]) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def test(bridge: Bridged) -> None:
        answer = await bridge.post("post_message", POST, x_request_id="r-1.A_b", traceparent=trace)
        assert answer.status == 200
        assert answer.json["seq"] == 1
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "r-1.A_b"
        assert answer.headers["cache-control"] == "no-store"
        ((operation, caller, asked),) = bridge.commands.asked
        assert operation == "post_message"
        assert (caller.agent_id, caller.workspace_id, caller.role) == ("executioner", "kloros", Role.PARTICIPANT)
        assert (caller.session_id, caller.token_id, caller.request_id) == ("s-1", "t-1", "r-1.A_b")
        assert caller.traceparent == trace
        assert asked == wire.PostMessage(thread_id=THREAD, body="done")

    on_bridge(test)
    (line,) = [one for one in log_lines(capfd.readouterr().err) if one["event"] == "request.answered"]
    assert line["request_id"] == "r-1.A_b"
    assert line["traceparent"] == trace
    assert (line["operation"], line["status"], line["thread_id"]) == ("post_message", 200, THREAD)
    assert (line["agent_id"], line["workspace_id"]) == ("executioner", "kloros")


def test_nothing_of_an_answered_request_waits_for_garbage_collection() -> None:
    """Each had hung in a reference cycle: a dozen objects, and a collection every few hundred requests."""

    async def test(bridge: Bridged) -> None:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                assert (await bridge.post("post_message", POST)).status == 200
            await until(lambda: not cycles(), what="the end of the last connection")
        finally:
            gc.enable()

    def cycles() -> list[object]:
        return [one for one in gc.get_objects() if isinstance(one, RequestResponseCycle)]

    on_bridge(test)


def test_who_comes_when_too_many_connections_are_open_is_told_in_the_words_of_the_wire() -> None:
    async def test(bridge: Bridged) -> None:
        bridge.face.crowded = lambda: True
        answer = await bridge.post("post_message", POST)
        assert (answer.status, answer.json["error"]["code"]) == (503, "UNAVAILABLE")
        assert answer.headers["retry-after"] == "5"
        assert answer.json["request_id"] == answer.headers["x-request-id"]

    on_bridge(test)


@pytest.mark.parametrize("refused", [False, True])
def test_more_answers_than_a_log_takes_are_counted_and_refusals_never(
    capfd: pytest.CaptureFixture[str], refused: bool
) -> None:
    async def test(bridge: Bridged) -> None:
        bridge.face.answers = AnswerLog(pace=1, most=5)
        if refused:
            bridge.commands.raises = Refused(Code.CONFLICT, "no", rule="test.no")
        for _ in range(100):
            await bridge.post("post_message", POST)
        assert (bridge.face.answers.dropped > 0) is not refused

    on_bridge(test)
    lines = [one for one in log_lines(capfd.readouterr().err) if one["event"].startswith("request.")]
    if refused:
        assert sum(one["event"] == "request.refused" for one in lines) == 100
    else:
        counted = sum(one.get("lines", 0) for one in lines)
        assert 0 < counted < 100
        assert counted + sum("lines" not in one for one in lines) == 100


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", "a/b", "a;b"])
def test_a_request_id_of_another_form_is_replaced(given: str) -> None:
    async def test(bridge: Bridged) -> None:
        answer = await bridge.post("post_message", POST, x_request_id=given)
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
        assert bridge.commands.asked[0][1].request_id == answer.headers["x-request-id"]

    on_bridge(test)


@pytest.mark.parametrize(
    "given",
    ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-x"],
)
def test_a_trace_of_another_form_is_left_out(given: str) -> None:
    async def test(bridge: Bridged) -> None:
        assert (await bridge.post("post_message", POST, traceparent=given)).status == 200
        assert bridge.commands.asked[0][1].traceparent == ""

    on_bridge(test)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ('{"thread_id": "%s", "body": "done", "body": "gone"}', "body"),
        ('{"thread_id": "%s", "body": "a: \\": b", "b\\u006fdy" : "gone"}', "body"),
        ('{"thread_id": "%s", "body": "x", "more": {"deep": [{"": 1, "": 2}]}}', ""),
        ('{"thread_id": "%s", "body": "x", "kind": "chat", "metadata": {"a": {"b": 1, "b": 1}}}', "b"),
    ],
)
def test_a_name_that_stands_twice_is_refused_wherever_it_is(sent: str, named: str) -> None:
    async def test(bridge: Bridged) -> None:
        error = refused(await bridge.post("post_message", raw=(sent % THREAD).encode()), Code.INVALID_ARGUMENT)
        assert error["details"] == {named or "body": "stands twice"}
        assert not bridge.commands.asked

    on_bridge(test)


def test_names_are_alike_only_within_one_object() -> None:
    metadata = {"body": 'body": "', "a": {"body": 1}, "b": [{"body": 1}, {"body": 2}]}

    async def test(bridge: Bridged) -> None:
        answer = await bridge.post("post_message", {**POST, "body": '"body": "body":', "metadata": metadata})
        assert answer.status == 200, answer

    on_bridge(test)


def test_a_body_with_more_names_than_a_message_can_hold_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tens of thousands take long enough to be felt by all others."""
    monkeypatch.setattr(body, "repeated", lambda _: pytest.fail("it was read anew"))
    names = ",".join(f'"\\": {number}" : 1' for number in range(30_000))

    async def test(bridge: Bridged) -> None:
        sent = f'{{"thread_id":"{THREAD}","body":"x",{names},"x":1}}'
        error = refused(await bridge.post("post_message", raw=sent.encode()), Code.INVALID_ARGUMENT)
        assert error["details"] == {"most_names": 4096}

    on_bridge(test)


def test_a_text_full_of_what_looks_like_names_is_taken() -> None:
    async def test(bridge: Bridged) -> None:
        answer = await bridge.post("post_message", {**POST, "body": '"a": ' * 10_000, "metadata": {"a": {"b": 1}}})
        assert answer.status == 200, answer

    on_bridge(test)


def test_of_a_list_full_of_faults_the_first_is_told() -> None:
    """To find and tell them all took a tenth of a second, of everybody's."""
    sent = {"title": "x", "participants": ["executioner", *["no name"] * 40_000]}

    async def test(bridge: Bridged) -> None:
        error = refused(await bridge.post("create_thread", sent), Code.INVALID_ARGUMENT)
        assert list(error["details"]) == ["participants[1]"]

    on_bridge(test)


def refused(answer: Answer, code: Code) -> dict[str, Any]:
    """See that an answer is the envelope of this code; returns the error in it."""
    assert answer.status == STATUS[code], answer
    assert answer.headers["content-type"] == "application/json"
    document = answer.json
    assert document.keys() == {"error", "request_id", "occurred_at"}
    assert document["request_id"] == answer.headers["x-request-id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", document["occurred_at"])
    error: dict[str, Any] = document["error"]
    assert error.keys() == {"code", "message", "details", "retryable"}
    assert error["code"] == code
    assert error["retryable"] is (code in (Code.RATE_LIMITED, Code.UNAVAILABLE))
    return error


def test_every_token_that_is_not_taken_gets_the_very_same_words(capfd: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    async def test(bridge: Bridged) -> None:
        key = SigningKey("k-1")
        at = time.time()
        bad = {
            Rule.NO_TOKEN: "",
            Rule.NOT_A_TOKEN: "Bearer nonsense",
            Rule.SIGNATURE: f"Bearer {key.sign(claims())}",
            Rule.UNKNOWN_KEY: f"Bearer {SigningKey('k-2').sign(claims())}",
            Rule.EXPIRED: f"Bearer {_own(bridge, claims(exp=at - 60))}",
            Rule.NOT_YET_VALID: f"Bearer {_own(bridge, claims(nbf=at + 60))}",
            Rule.ISSUER: f"Bearer {_own(bridge, claims(iss='other'))}",
            Rule.AUDIENCE: f"Bearer {_own(bridge, claims(aud='other'))}",
            Rule.ROLE: f"Bearer {_own(bridge, claims(role='operator'))}",
            Rule.CLAIM_MISSING: f"Bearer {_own(bridge, claims(jti=None))}",
        }
        bridge.verifier.revoked = frozenset({"t-revoked"})
        bad[Rule.REVOKED] = f"Bearer {_own(bridge, claims(jti='t-revoked'))}"
        shown.extend(bad.values())
        bodies = set()
        for number, authorization in enumerate(bad.values()):
            answer = await bridge.post("post_message", POST, authorization=authorization, x_request_id=f"r-{number}")
            refused(answer, Code.UNAUTHORIZED)
            assert answer.headers["www-authenticate"] == 'Bearer realm="KLoROS"'
            document = {**answer.json, "request_id": "", "occurred_at": ""}
            bodies.add(json.dumps(document))
        assert len(bodies) == 1
        assert bridge.commands.asked == []
        metrics = (await bridge.ask("GET", "/metrics")).body.decode()
        assert all(f'kloros_bridge_unauthorized_total{{rule="{rule}"}} 1.0' in metrics for rule in bad)

    on_bridge(test)
    said = capfd.readouterr().err
    rules = [one["rule"] for one in log_lines(said) if one["event"] == "request.refused"]
    assert set(rules) == {*Rule} - {Rule.ALGORITHM, Rule.CLAIM_MALFORMED}
    _no_token_in(said, shown)


def _own(bridge: Bridged, said: Mapping[str, object]) -> str:
    return bridge.key.sign(said)


def _no_token_in(said: str, shown: list[str]) -> None:
    for token in shown:
        for part in token.removeprefix("Bearer ").split("."):
            assert len(part) < 8 or part not in said


def test_no_token_ever_stands_in_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    tokens: list[str] = []

    async def test(bridge: Bridged) -> None:
        tokens.append(bridge.token)
        for error in (None, RuntimeError("boom"), StoreUnreachable("gone"), Refused(Code.FORBIDDEN, "no", rule="r")):
            bridge.commands.raises = error
            await bridge.post("post_message", POST)
        await bridge.post("post_message", raw=b"{")
        await bridge.ask("GET", f"/v1/threads/{THREAD}/events?since_seq=x&access_token={bridge.token}")
        await bridge.ask("GET", "/nowhere")

    on_bridge(test)
    _no_token_in(capfd.readouterr().err, tokens)


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        (b"", {"body"}),
        (b"{", {"body"}),
        (b"\xff\xfe", {"body"}),
        (b"[" * 100_000, {"body"}),
        (b"[]", {"body"}),
        (b'"x"', {"body"}),
        (b"{}", {"thread_id", "body"}),
        (json.dumps({**POST, "thread_id": "thr_1"}).encode(), {"thread_id"}),
        (json.dumps({**POST, "kind": "shout"}).encode(), {"kind"}),
        (json.dumps({**POST, "schema_version": 2}).encode(), {"schema_version"}),
        (json.dumps({**POST, "schema_version": "1"}).encode(), {"schema_version"}),
        (json.dumps({**POST, "schema_version": True}).encode(), {"schema_version"}),
        (json.dumps({**POST, "idempotency_key": "a\0"}).encode(), {"idempotency_key"}),
        (json.dumps({**POST, "body": 7}).encode(), {"body"}),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else "",
)
def test_what_is_not_valid_is_refused_by_field(sent: bytes, fields: set[str]) -> None:
    async def test(bridge: Bridged) -> None:
        error = refused(await bridge.post("post_message", raw=sent), Code.INVALID_ARGUMENT)
        assert error["details"].keys() == fields
        assert bridge.commands.asked == []

    on_bridge(test)


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_a_text_that_is_too_long_is_too_large_in_whatever_letters(letter: str) -> None:
    async def test(bridge: Bridged) -> None:
        asked = {**POST, "body": letter * (64 * 1024 + 1)}
        assert refused(await bridge.post("post_message", asked), Code.PAYLOAD_TOO_LARGE)["details"].keys() == {"body"}
        asked = {"title": letter * 201}
        assert refused(await bridge.post("create_thread", asked), Code.PAYLOAD_TOO_LARGE)["details"].keys() == {"title"}
        asked = {**POST, "body": letter * (64 * 1024 + 1), "kind": "shout"}
        assert refused(await bridge.post("post_message", asked), Code.INVALID_ARGUMENT)["details"].keys() == {"body", "kind"}

    on_bridge(test)


def test_a_refusal_repeats_nothing_of_what_was_sent() -> None:
    async def test(bridge: Bridged) -> None:
        answer = await bridge.post("post_message", {**POST, "kind": "s3cret", "thread_id": "s3cret", "s3cret": 1})
        assert "s3cret" not in answer.body.decode()

    on_bridge(test)


def test_fields_of_a_later_minor_version_are_ignored() -> None:
    async def test(bridge: Bridged) -> None:
        assert (await bridge.post("post_message", {**POST, "priority": 5, "schema_version": 1})).status == 200

    on_bridge(test)


@pytest.mark.parametrize("method", [one.name for one in METHODS])
def test_a_newer_major_version_is_refused_by_every_method(method: str) -> None:
    async def test(bridge: Bridged) -> None:
        error = refused(await bridge.post(method, {"schema_version": 2}), Code.INVALID_ARGUMENT)
        assert "schema_version" in error["details"]

    on_bridge(test)


@pytest.mark.parametrize(
    ("method", "field"), [("read_messages", "since_seq"), ("ack_read", "last_read_seq"), ("get_audit", "after")]
)
def test_no_number_is_larger_than_stores_can_hold(method: str, field: str) -> None:
    async def test(bridge: Bridged) -> None:
        error = refused(await bridge.post(method, {"thread_id": THREAD, field: 2**53}), Code.INVALID_ARGUMENT)
        assert error["details"].keys() == {field}

    on_bridge(test)


def test_a_nested_field_is_named_by_its_path() -> None:
    async def test(bridge: Bridged) -> None:
        asked = {"workspace_id": "kloros", "title": "t", "participants": ["a", "not ok"]}
        error = refused(await bridge.post("create_thread", asked), Code.INVALID_ARGUMENT)
        assert error["details"].keys() == {"participants[1]"}

    on_bridge(test)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_while_it_comes(chunked: bool) -> None:
    async def test(bridge: Bridged) -> None:
        sent = b'{"body": "' + b"x" * LARGEST + b'"}'
        if chunked:
            parts = [sent[at : at + 65_536] for at in range(0, len(sent), 65_536)]
            framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            length = "transfer-encoding: chunked"
        else:
            framed, length = sent, f"content-length: {len(sent)}"
        head = f"POST /v1/mcp/post_message HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bridge.token}\r\n{length}\r\n\r\n"
        answer = await asyncio.to_thread(_raw, bridge.port, head.encode() + framed)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "PAYLOAD_TOO_LARGE"
        assert bridge.commands.asked == []

    on_bridge(test)


def test_who_asks_before_sending_too_much_is_told_at_once() -> None:
    async def test(bridge: Bridged) -> None:
        head = f"POST /v1/mcp/post_message HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bridge.token}\r\n"
        head += f"content-length: {LARGEST + 1}\r\nexpect: 100-continue\r\n\r\n"
        async with asyncio.timeout(5):
            answer = await asyncio.to_thread(_raw, bridge.port, head.encode())
        assert answer.startswith(b"HTTP/1.1 413 ")

    on_bridge(test)


def _raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def test_an_answer_is_the_same_however_its_request_comes() -> None:
    async def test(bridge: Bridged) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
        request = _request(bridge.token)
        writer.write(request)
        heads = [await _head(reader, seq=1)]  # whole in one piece, on a connection that stays
        writer.write(request[:-3])
        await until(lambda: bridge.face.measures.open, what="a request that has begun")
        writer.write(request[-3:])
        heads.append(await _head(reader, seq=2))
        writer.write(request + request + _request(bridge.token, "connection: close"))
        heads += [await _head(reader, seq=seq) for seq in (3, 4, 5)]
        assert await reader.read() == b""
        writer.close()
        assert heads[-1].pop("connection") == "close"
        assert len({head.pop("x-request-id") for head in heads}) == 5
        assert all(head == heads[0] for head in heads)
        assert heads[0]["x-content-type-options"] == "nosniff"

    on_bridge(test)


def _request(token: str, *more: str) -> bytes:
    sent = json.dumps(POST)
    lines = ["POST /v1/mcp/post_message HTTP/1.1", "host: x", f"authorization: Bearer {token}", *more]
    return "\r\n".join([*lines, f"content-length: {len(sent)}", "", sent]).encode()


async def _head(reader: asyncio.StreamReader, *, seq: int) -> dict[str, str]:
    """Read one answer, to the post with this number; returns its headers."""
    async with asyncio.timeout(15):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        assert (status, len(headers)) == ("HTTP/1.1 200 OK", len(lines))
        assert json.loads(await reader.readexactly(int(headers["content-length"])))["seq"] == seq
    return headers


def test_a_head_that_never_ends_is_cut_off() -> None:
    async def test(bridge: Bridged) -> None:
        head = b"POST /v1/mcp/post_message HTTP/1.1\r\n" + b"x: " + b"a" * 70_000
        answer = await asyncio.to_thread(_raw, bridge.port, head)
        assert _envelope(answer, b"HTTP/1.1 413 ") == "PAYLOAD_TOO_LARGE"

    on_bridge(test)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/mcp/list_threads HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n{}",
        b"POST /v1/mcp/list_threads HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"SHOUT /v1/mcp/list_threads HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_the_envelope_too(sent: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    async def test(bridge: Bridged) -> None:
        assert _envelope(await asyncio.to_thread(_raw, bridge.port, sent), b"HTTP/1.1 400 ") == "INVALID_ARGUMENT"

    on_bridge(test)
    (line,) = [one for one in log_lines(capfd.readouterr().err) if one["event"] == "request.refused"]
    assert line["rule"] == "http.not_http"


def _envelope(answer: bytes, status: bytes) -> str:
    head, _, sent = answer.partition(b"\r\n\r\n")
    document = json.loads(sent)
    assert head.startswith(status)
    assert f"x-request-id: {document['request_id']}".encode() in head
    return str(document["error"]["code"])


@pytest.mark.parametrize("also", ["Bearer nonsense", "{own}"])
def test_two_tokens_are_none(also: str) -> None:
    async def test(bridge: Bridged) -> None:
        own = f"Bearer {bridge.token}"
        head = f"POST /v1/mcp/list_threads HTTP/1.1\r\nhost: x\r\nauthorization: {own}\r\n"
        head += f"authorization: {also.format(own=own)}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
        assert _envelope(await asyncio.to_thread(_raw, bridge.port, head.encode()), b"HTTP/1.1 401 ") == "UNAUTHORIZED"

    on_bridge(test)


@pytest.mark.parametrize("code", [*Code])
def test_each_refusal_has_its_status(code: Code, capfd: pytest.CaptureFixture[str]) -> None:
    async def test(bridge: Bridged) -> None:
        bridge.commands.raises = Refused(code, "because", rule="a.rule", details={"why": 7}, retry_after=2.2)
        answer = await bridge.post("post_message", POST, x_request_id="r-9")
        error = refused(answer, code)
        assert (error["message"], error["details"]) == ("because", {"why": 7})
        assert "a.rule" not in answer.body.decode()
        assert answer.headers.get("retry-after") == ("3" if error["retryable"] else None)
        metrics = (await bridge.ask("GET", "/metrics")).body.decode()
        assert f'kloros_bridge_errors_total{{code="{code}"}} 1.0' in metrics
        labels = f'operation="post_message",method="POST",status="{STATUS[code]}"'
        assert f"kloros_bridge_requests_total{{{labels}}} 1.0" in metrics

    on_bridge(test)
    (line,) = [one for one in log_lines(capfd.readouterr().err) if one["event"] == "request.refused"]
    assert (line["rule"], line["code"], line["request_id"]) == ("a.rule", code, "r-9")


def test_a_defect_tells_nothing_of_what_is_inside(capfd: pytest.CaptureFixture[str]) -> None:
    async def test(bridge: Bridged) -> None:
        bridge.commands.raises = RuntimeError("INSERT INTO messages VALUES ('done')")
        answer = await bridge.post("post_message", POST, x_request_id="r-7")
        refused(answer, Code.INTERNAL)
        assert "INSERT" not in answer.body.decode()
        assert "Traceback" not in answer.body.decode()

    on_bridge(test)
    (line,) = [one for one in log_lines(capfd.readouterr().err) if one["event"] == "bridge.failed"]
    assert "RuntimeError" in line["message"]
    assert line["request_id"] == "r-7"


def test_a_store_that_is_away_is_told_as_such() -> None:
    async def test(bridge: Bridged) -> None:
        bridge.commands.raises = StoreUnreachable("/var/lib/kloros/kloros.db is locked")
        answer = await bridge.post("post_message", POST)
        assert "kloros.db" not in answer.body.decode()
        refused(answer, Code.UNAVAILABLE)
        assert int(answer.headers["retry-after"]) >= 1

    on_bridge(test)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/v1/mcp/no_such_method", 404, None),
        ("POST", "/v1/mcp/", 404, None),
        ("POST", "/v1/mcp/post_message/x", 404, None),
        ("GET", "/v1/nowhere", 404, None),
        ("GET", "/v1/mcp/__class__", 404, None),
        ("GET", "/v1/mcp/post_message", 405, "POST"),
        ("PUT", "/v1/mcp/post_message", 405, "POST"),
        ("POST", f"/v1/threads/{THREAD}/events", 405, "GET, HEAD"),
        ("POST", "/health", 405, "GET, HEAD"),
    ],
)
def test_addresses_that_are_not_there(method: str, path: str, status: int, allow: str | None) -> None:
    async def test(bridge: Bridged) -> None:
        answer = await bridge.ask(method, path)
        assert answer.status == status
        assert answer.json["error"]["code"] == ("NOT_FOUND" if status == 404 else "INVALID_ARGUMENT")
        assert allow is None or sorted(answer.headers["allow"].split(", ")) == allow.split(", ")

    on_bridge(test)


def test_health_and_readiness_are_open_and_say_what_is_wrong() -> None:
    wrong = {"store": "", "keys": ""}

    async def checks() -> Mapping[str, str]:
        return wrong

    async def test(bridge: Bridged) -> None:
        assert (await bridge.ask("GET", "/health", authorization="")).json == {"status": "ok"}
        ready = await bridge.ask("GET", "/ready", authorization="")
        assert (ready.status, ready.json) == (200, {"ready": True, "reasons": {}})
        wrong["keys"] = "none"
        ready = await bridge.ask("GET", "/ready", authorization="")
        assert (ready.status, ready.json) == (503, {"ready": False, "reasons": {"keys": "none"}})

    on_bridge(test, checks=checks)


def test_whoever_is_one_too_many_is_told_so_as_described_at_every_address() -> None:
    async def test(bridge: Bridged) -> None:
        described = (await bridge.ask("GET", "/v1/openapi.json", authorization="")).json
        bridge.face.crowded = lambda: True
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                answer = await bridge.ask(method.upper(), path.replace("{thread_id}", THREAD))
                assert (answer.status, "503" in operation["responses"]) == (503, True), path

    on_bridge(test)


def test_keys_description_and_page_are_open_and_load_nothing() -> None:
    async def test(bridge: Bridged) -> None:
        (key,) = (await bridge.ask("GET", "/.well-known/jwks.json", authorization="")).json["keys"]
        assert key["kid"] == "k-1"
        assert "d" not in key
        described = (await bridge.ask("GET", "/v1/openapi.json", authorization="")).json
        operations = {one["operationId"] for methods in described["paths"].values() for one in methods.values()}
        assert {one.name for one in METHODS} < operations
        page = await bridge.ask("GET", "/v1/docs", authorization="")
        text = page.body.decode()
        assert not re.search(r"(src|href)=\"(?!#|/v1/)|<script|<link|<img|@import|url\(", text)
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert all(f'id="{one.name}"' in text for one in METHODS)

    on_bridge(test)


def test_malformed_bursts_stay_cheap_and_keep_nobody_waiting() -> None:
    async def test(bridge: Bridged) -> None:
        bad = [b"{", b"[" * 50_000, b"\x00" * 1000, json.dumps({"metadata": {"a" * 60_000: 1}}).encode()]

        async def burst() -> None:
            for number in range(50):
                answer = await bridge.post("post_message", raw=bad[number % len(bad)])
                assert answer.status == 400

        slowest = 0.0
        bursts = [asyncio.create_task(burst()) for _ in range(8)]
        while not all(one.done() for one in bursts):
            began = time.monotonic()
            assert (await bridge.post("post_message", POST)).status == 200
            slowest = max(slowest, time.monotonic() - began)
        await asyncio.gather(*bursts)
        assert slowest < 2.0

    on_bridge(test)


def test_a_client_that_leaves_in_the_middle_is_no_failure(capfd: pytest.CaptureFixture[str]) -> None:
    async def test(bridge: Bridged) -> None:
        head = f"POST /v1/mcp/post_message HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bridge.token}\r\n"
        head += "content-length: 99\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", bridge.port)) as connection:
            connection.sendall(head.encode())
            await asyncio.sleep(0.05)
        while bridge.face.measures.open:
            await asyncio.sleep(0.01)
        assert (await bridge.post("post_message", POST)).status == 200

    on_bridge(test)
    assert "bridge.failed" not in capfd.readouterr().err


@pytest.mark.parametrize("begins", [False, True])
def test_a_body_that_does_not_come_is_not_waited_for_without_end(begins: bool) -> None:
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}] if begins else [])

    async def receive() -> Any:
        for part in parts:
            return part
        return await asyncio.Event().wait()

    with pytest.raises(Refused) as caught:
        asyncio.run(body.read({"headers": []}, receive, patience=0.05))
    assert (caught.value.code, caught.value.rule) == (Code.INVALID_ARGUMENT, "http.slow_body")


def test_a_body_that_is_too_large_is_told_so_even_when_it_does_not_come() -> None:
    scope = {"headers": [(b"content-length", b"99999999")]}
    with pytest.raises(Refused) as caught:
        asyncio.run(body.read(scope, _never, patience=0.05))
    assert caught.value.code is Code.PAYLOAD_TOO_LARGE


async def _never() -> Any:
    await asyncio.Event().wait()


def test_the_description_names_the_refusal_of_metrics_too() -> None:
    documented = openapi.description(METHODS)["paths"]["/metrics"]["get"]["responses"]
    assert documented.keys() == {"200", "401", "405", "500", "503"}
