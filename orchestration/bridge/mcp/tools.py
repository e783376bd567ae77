"""The table of methods as MCP tools: what each is asked and answers, and how an answer and a refusal look to a client.

A refusal is a tool's error and not the protocol's, so that the model behind the client reads it and can do something else:
code and message as text, the wire's envelope in `_meta`. Schemas are written out without references, which not every
client's way to a model survives. https://modelcontextprotocol.io/specification/2025-11-25/server/tools
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import mcp_types as types
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json

from orchestration.bridge.methods import Method
from orchestration.bridge.refusal import RETRYABLE, Refused

ERROR_KEY: Final = "kloros/error"
"""Where `_meta` of a refused call has the wire's error."""
_DEFS: Final = "$defs"
_REF: Final = "$ref"


class Tool:
    """One method as a tool: its models, ready for use."""

    __slots__ = ("_answers", "_asks", "listed", "name")

    def __init__(self, method: Method) -> None:
        self.name = method.name
        self._asks: TypeAdapter[BaseModel] = TypeAdapter(method.asks)
        self._answers: TypeAdapter[BaseModel] = TypeAdapter(method.answers)
        self.listed = types.Tool(
            name=method.name,
            title=method.name.replace("_", " ").capitalize(),
            description=method.about,
            input_schema=_written_out(self._asks.json_schema(mode="validation")),
            output_schema=_written_out(self._answers.json_schema(mode="serialization")),
            annotations=types.ToolAnnotations(
                read_only_hint=method.read_only,
                destructive_hint=method.destructive,
                idempotent_hint=method.idempotent or method.read_only,
                open_world_hint=False,
            ),
        )

    def asked(self, raw: bytes) -> BaseModel:
        """Read what a client asks. Raises: ValidationError."""
        return self._asks.validate_json(raw, strict=True)

    def answered(self, answer: BaseModel | bytes) -> bytes:
        """Write an answer as JSON, if it is not that already."""
        return answer if isinstance(answer, bytes) else self._answers.dump_json(answer)


def result(text: bytes, *, with_data: bool = True) -> dict[str, Any]:
    """Write an answer for a client: as text for one that knows no other, and as data, unless somebody else adds that."""
    found: dict[str, Any] = {
        "content": [{"type": "text", "text": text.decode()}],
        "isError": False,
        "resultType": "complete",
    }
    if with_data:
        found["structuredContent"] = from_json(text)
    return found


def tools(methods: Iterable[Method]) -> dict[str, Tool]:
    """Return the tools by name."""
    return {method.name: Tool(method) for method in methods}


def refused(refusal: Refused, request_id: str) -> dict[str, Any]:
    """Write a refusal as what a tool says when it fails."""
    error: dict[str, Any] = {
        "code": refusal.code.value,
        "message": refusal.message,
        "details": refusal.details,
        "retryable": refusal.code in RETRYABLE,
        "request_id": request_id,
    }
    if refusal.retry_after is not None:
        error["retry_after"] = refusal.retry_after
    text = f"{refusal.code.value}: {refusal.message}"
    details = "; ".join(f"{name}: {what}" for name, what in refusal.details.items())
    again = f" Try again after {refusal.retry_after:g} s." if refusal.retry_after is not None else ""
    return {
        "content": [{"type": "text", "text": text + (f" ({details})" if details else "") + again}],
        "isError": True,
        "resultType": "complete",
        "_meta": {ERROR_KEY: error},
    }


def _written_out(schema: dict[str, Any]) -> dict[str, Any]:
    """Put every definition where it is referred to, and leave out what only programmers read: titles, what an enum is for.

    The wire's models refer to none of their own kind.
    """
    defs = schema.get(_DEFS, {})

    def inlined(node: Any, *, is_named: bool = False) -> Any:
        if isinstance(node, list):
            return [inlined(one) for one in node]
        if not isinstance(node, dict):
            return node
        if is_named:  # its keys are names of fields, and no keywords
            return {name: inlined(value) for name, value in node.items()}
        here = {name: value for name, value in node.items() if name not in (_REF, _DEFS, "title")}
        if _REF in node:
            meant = {name: value for name, value in defs[node[_REF].rpartition("/")[2]].items() if name != "description"}
            return inlined({**meant, **here})
        return {name: inlined(value, is_named=name == "properties") for name, value in here.items()}

    found: dict[str, Any] = inlined({name: value for name, value in schema.items() if name != "description"})
    return found
