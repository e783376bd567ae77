"""MCP over standard input and output, for a client that starts its servers itself: one client, until it closes its end.

The commands work on the store of this host, beside a bridge that may run or not. Who asks is either an agent, by a token
that is looked at anew with each call, or the operator.
"""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mcp.server.stdio import stdio_server
from pydantic import ValidationError

from orchestration.bridge.caller import Caller
from orchestration.bridge.http import body, errors
from orchestration.bridge.http.commanding import best, traceparent
from orchestration.bridge.mcp.server import server
from orchestration.bridge.mcp.tools import result
from orchestration.bridge.refusal import Code, Refused
from orchestration.host.journal import Event, Priority, log

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from orchestration.bridge.mcp.tools import Tool
    from orchestration.bridge.methods import Method

Identify = Callable[[str, str], Awaitable[Caller]]
"""Returns who asks, for a request id and a trace context. Raises: Rejected, KlorosError."""
_DEFECT: Final = "a defect of ours; the request id leads to it in our log"


async def serve(commands: Any, methods: Sequence[Method], identify: Identify) -> None:
    """Serve until the client has closed its end.

    Args:
        commands: an object with one coroutine function per method, and `refuse` for what no method takes, which audits it.
        identify: asked at each call.
    """

    def door_of(_ctx: ServerRequestContext[Any, Any]) -> _Door:
        return _Door(commands, identify, secrets.token_hex(8))

    serves = server(methods, door_of)
    async with stdio_server() as (reads, writes):
        await serves.run(reads, writes, serves.create_initialization_options())


@dataclass(slots=True)
class _Door:
    """A call that came by standard input."""

    commands: Any
    identify: Identify
    request_id: str
    tool: str = ""
    began: float = 0.0
    caller: Caller | None = None

    async def carry_out(self, tool: Tool, raw: bytes, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        self.tool, self.began = tool.name, time.monotonic()
        self.caller = await self.identify(self.request_id, traceparent(meta.get("traceparent")))
        try:
            asked = tool.asked(raw)
        except ValidationError as error:
            refused = body.invalid(error)
            await self.commands.refuse(self.caller, tool.name, refused)
            raise refused from None
        answer = tool.answered(await best(self.commands, tool.name)(self.caller, asked))
        self._tell(Event.REQUEST_ANSWERED, "answered", Priority.INFO)
        return result(answer)

    def refusal(self, error: Exception) -> Refused:
        """Say what an error means."""
        found = errors.refusal(error)
        if found is None:
            defect = "".join(traceback.format_exception(error))
            log(Event.BRIDGE_FAILED, defect, priority=Priority.ERROR, request_id=self.request_id)
            found = Refused(Code.INTERNAL, _DEFECT, rule="defect")
        self._tell(Event.REQUEST_REFUSED, f"{found.code}: {found.rule}", Priority.INFO, code=found.code, rule=found.rule)
        return found

    def _tell(self, event: Event, what: str, priority: Priority, **more: object) -> None:
        caller = self.caller
        log(
            event,
            f"mcp {self.tool} {what}",
            priority=priority,
            operation=f"mcp.{self.tool}",
            seconds=round(time.monotonic() - self.began, 6),
            request_id=self.request_id,
            agent_id=caller.agent_id if caller else None,
            workspace_id=caller.workspace_id if caller else None,
            token_id=caller.token_id or None if caller else None,
            **more,
        )
