"""The description of the bridge as OpenAPI 3.1, made from the table of methods and the wire's models.

Operation ids are the methods' names: they stay as long as the wire's version does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from orchestration import __version__
from orchestration.bridge.methods import Method
from orchestration.bridge.refusal import STATUS, Code
from orchestration.bridge.wire import LARGEST_SEQ, Message

_REF: Final = "#/components/schemas/{model}"
_JSON: Final = "application/json"
_REQUEST_ID: Final = {
    "name": "x-request-id",
    "in": "header",
    "required": False,
    "description": "Names the request in answer, log and audit; another form than this is replaced by a new id.",
    "schema": {"type": "string"},
    "example": "9f2c-1",
}
_TRACEPARENT: Final = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "W3C trace context; kept with what the request makes. One that is not well-formed is left out.",
    "schema": {"type": "string"},
    "example": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
_ERROR: Final = {
    "type": "object",
    "required": ["error", "request_id", "occurred_at"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "retryable"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string", "enum": [str(code) for code in Code]},
                "message": {"type": "string", "description": "What is wrong, for people."},
                "details": {"type": "object", "description": "More, for programs; wrong fields by their paths."},
                "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
            },
        },
        "request_id": {"type": "string"},
        "occurred_at": {"type": "string", "format": "date-time"},
    },
}
_MEANING: Final = {
    400: "What was asked is not well-formed; `details` names the fields.",
    401: "A valid token is needed. The answer is the same whatever is wrong with the one shown.",
    403: "The token's holder may not do this.",
    404: "There is no such thing, or it is another workspace's.",
    405: "The address is asked by another HTTP method.",
    409: "It can't be done as things stand now.",
    413: "The request is too large.",
    429: "Too often; Retry-After says when to come again.",
    500: "A defect of ours.",
    503: "The bridge can't answer now; Retry-After says when to come again.",
}
_STATUSES: Final = tuple(sorted({*STATUS.values()}))


def description(methods: Iterable[Method]) -> dict[str, Any]:
    """Return the document."""
    listed = tuple(methods)
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((one.asks, "validation") for one in listed),
        *((one.answers, "serialization") for one in listed),
        (Message, "serialization"),
    ]
    names, schemas = models_json_schema(models, ref_template=_REF)
    refs = {(model, mode): found for (model, mode), found in names.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "KLoROS bridge",
            "version": __version__,
            "summary": "Durable threads in which agents talk, and an operator sees and steers every one.",
        },
        "security": [{"token": []}],
        "paths": {
            **{f"/v1/mcp/{one.name}": {"post": _operation(one, refs)} for one in listed},
            "/v1/threads/{thread_id}/events": {"get": _events()},
            "/health": {"get": _open("health", "Whether this process works.")},
            "/ready": {"get": _open("ready", "Whether store and keys are there.", unready=True)},
            "/metrics": {"get": _open("metrics", "Metrics for Prometheus.", media_type="text/plain", guarded=True)},
            "/.well-known/jwks.json": {"get": _open("jwks", "The public keys of this host's own issuer of tokens.")},
        },
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {str(status): _refused(status) for status in (*_STATUSES, 405)},
        },
    }


def _operation(method: Method, refs: dict[Any, Any]) -> dict[str, Any]:
    return {
        "operationId": method.name,
        "summary": method.about.partition("\n")[0],
        "parameters": [_REQUEST_ID, _TRACEPARENT],
        "requestBody": {"required": True, "content": {_JSON: {"schema": refs[method.asks, "validation"]}}},
        "responses": {
            "200": _answered("The answer.", {_JSON: {"schema": refs[method.answers, "serialization"]}}),
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in (*_STATUSES, 405)},
        },
    }


def _events() -> dict[str, Any]:
    sent = "Server-sent events, one `message` per message of the thread; `data` is a Message, `id` its seq. It has no end."
    seq = {"type": "integer", "minimum": 0, "maximum": LARGEST_SEQ}
    return {
        "operationId": "thread_events",
        "summary": "Follow a thread, from a message on.",
        "parameters": [
            {
                "name": "thread_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "pattern": "^thr_[0-9a-f]{32}$"},
                "example": "thr_0f0e0d0c0b0a09080706050403020100",
            },
            {"name": "since_seq", "in": "query", "required": False, "schema": {**seq, "default": 0}, "example": 0},
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "The last event that the reader has; counts more than `since_seq`.",
                "schema": seq,
                "example": 0,
            },
            _REQUEST_ID,
            _TRACEPARENT,
        ],
        "responses": {
            "200": _answered(sent, {"text/event-stream": {"schema": {"type": "string"}}}),
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in (*_STATUSES, 405)},
        },
    }


def _open(name: str, about: str, *, media_type: str = _JSON, unready: bool = False, guarded: bool = False) -> dict[str, Any]:
    schema = {"type": "object"} if media_type == _JSON else {"type": "string"}
    responses: dict[str, Any] = {
        "200": _answered("The answer.", {media_type: {"schema": schema}}),
        # 503: so many connections are open that this one is too many.
        **{str(status): {"$ref": f"#/components/responses/{status}"} for status in (405, 500, 503)},
    }
    if guarded:
        responses["401"] = {"$ref": "#/components/responses/401"}
    if unready:
        responses["503"] = _answered("It is not; `reasons` says why.", {_JSON: {"schema": schema}})
    return {"operationId": name, "summary": about, "security": [], "responses": responses}


def _answered(about: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "headers": {"x-request-id": {"schema": {"type": "string"}}}, "content": content}


def _refused(status: int) -> dict[str, Any]:
    found = _answered(_MEANING[status], {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}})
    if status in (429, 503):
        found["headers"] = {**found["headers"], "Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return found
