"""The description of what the server answers, as OpenAPI 3.1, made from its table of ways."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from orchestration import __version__
from orchestration.pulse.server.problem import MEDIA_TYPE
from orchestration.pulse.server.ways import LARGEST, Parameter, Way

_IN_PATH: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")
_EXAMPLES: Final[dict[str, Any]] = {"cycle": 1, "path": "artifacts/report.json", "tick": "1", "name": "pulse.css"}
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "hint", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and where."},
        "hint": {"type": "string", "description": "What to do; may be empty."},
        "request_id": {"type": "string", "description": "As in the header x-request-id and in the log."},
    },
}
_EVERYWHERE: Final = {
    400: "The request is not well-formed.",
    401: "A token is needed: beyond loopback only.",
    405: "The address can only be read.",
    421: "The server does not go by the name it was asked under: on loopback only.",
}


def description(ways: Iterable[Way]) -> dict[str, Any]:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "KLoROS Pulse",
            "version": __version__,
            "summary": "How the loop is, what it did and why. It can only be read.",
        },
        "security": [{}, {"bearer": []}, {"basic": []}],
        "paths": {_path(way): {"get": _operation(way)} for way in ways},
        "components": {
            "schemas": {"Problem": _PROBLEM},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The token as the password, any name."},
            },
        },
    }


def _path(way: Way) -> str:
    return _IN_PATH.sub(r"{\1}", way.path)


def _operation(way: Way) -> dict[str, Any]:
    return {
        "operationId": way.name,
        "summary": way.about,
        "parameters": [*map(_in_path, _IN_PATH.findall(way.path)), *map(_parameter, way.parameters)],
        "responses": {
            "200": {"description": "The answer.", "content": {one: {"schema": _schema(one)} for one in way.media_types}},
            **{str(status): _other(status, text, way) for status, text in sorted({**_EVERYWHERE, **way.statuses}.items())},
        },
    }


def _in_path(found: tuple[str, str]) -> dict[str, Any]:
    name, kind = found
    schema = {"type": "integer", "minimum": 0, "maximum": LARGEST} if kind == "int" else {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": _EXAMPLES[name]}


def _parameter(one: Parameter) -> dict[str, Any]:
    return {"name": one.name, "in": one.where, "description": one.about, "required": False, "schema": dict(one.schema)}


def _other(status: int, text: str, way: Way) -> dict[str, Any]:
    if status < 300:
        return {"description": text, "content": {one: {"schema": _schema(one)} for one in way.media_types if status != 204}}
    if status < 400:
        return {"description": text}
    pages = "text/html" in way.media_types
    if status == 503 and way.name == "ready":
        return {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": text, "content": {**problem, **({"text/html": {"schema": {"type": "string"}}} if pages else {})}}


def _schema(media_type: str) -> dict[str, Any]:
    if media_type == "text/event-stream":
        return {}
    return {"type": "object"} if media_type.endswith("json") else {"type": "string"}
