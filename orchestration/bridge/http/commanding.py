"""`POST /v1/mcp/<method>`: verifies the token, reads the body, calls the command, writes its answer. The hot path.

No framework: what its request and response objects cost is more than all the rest of it (docs/decisions/0024).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from orchestration.bridge.auth.claims import Rejected, Rule
from orchestration.bridge.caller import Caller
from orchestration.bridge.http import body
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wire import ReadMessages

if TYPE_CHECKING:
    from orchestration.bridge.auth.tokens import Verifier
    from orchestration.bridge.http.exchange import Exchange
    from orchestration.bridge.http.measures import Measures
    from orchestration.bridge.methods import Method

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
MOST_POLLS: Final = 512
Refuse: TypeAlias = Callable[[Caller, str, Refused], Awaitable[object]]


class Command:
    """One method: its models, ready for use, and what carries it out."""

    __slots__ = ("asked", "call", "name", "written")

    def __init__(self, method: Method, call: Callable[[Caller, Any], Awaitable[Any]]) -> None:
        self.name = method.name
        self.call = call
        self.asked = TypeAdapter(method.asks).validator.validate_json
        self.written = TypeAdapter(method.answers).serializer.to_json


class Commanding:
    """All methods."""

    def __init__(
        self, commands: object, methods: Iterable[Method], verifier: Verifier, measures: Measures, refuse: Refuse | None
    ) -> None:
        """Take an object with one coroutine function for each method, under its name; `refuse` audits, and raises."""
        self._refuse = refuse
        self._commands: Mapping[str, Command] = {one.name: Command(one, best(commands, one.name)) for one in methods}
        self._addresses = {f"/v1/mcp/{name}": command for name, command in self._commands.items()}
        self._verifier = verifier
        self._measures = measures

    def at(self, path: str) -> Command | None:
        """Return the method that has this address."""
        return self._addresses.get(path)

    async def answer(self, here: Exchange, command: Command) -> None:
        """Answer a request for a method."""
        here.operation = command.name
        if here.scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        caller = await admitted(here, self._verifier)
        raw = await self.read(here, caller)
        await here.answer(200, await self._carried_out(here, command, raw, caller))

    async def read(self, here: Exchange, caller: Caller) -> bytes:
        """Return the body of a request; one that is not taken is noted."""
        try:
            return await body.read(here.scope, here.receive)
        except Refused as refused:
            await self.note(caller, here.operation, refused)
            raise

    async def carry_out(self, here: Exchange, name: str, raw: bytes) -> bytes:
        """Have a method carried out, from JSON to JSON, for whoever the exchange is with; for other faces than this."""
        assert here.caller is not None
        return await self._carried_out(here, self._commands[name], raw, here.caller)

    async def _carried_out(self, here: Exchange, command: Command, raw: bytes, caller: Caller) -> bytes:
        try:
            asked = command.asked(raw, strict=True)
            body.check_names(raw, asked)
        except (ValidationError, Refused) as error:
            refused = body.invalid(error) if isinstance(error, ValidationError) else error
            await self.note(caller, command.name, refused)
            raise refused from None
        here.thread_id = getattr(asked, "thread_id", None)
        if isinstance(asked, ReadMessages) and asked.wait_seconds:
            answer = await self._waited(here, command, asked, caller)
            await admitted(here, self._verifier)  # the token may have expired or been revoked meanwhile
        else:
            answer = await command.call(caller, asked)
        return answer if isinstance(answer, bytes) else command.written(answer)

    async def note(self, caller: Caller, operation: str, refused: Refused) -> None:
        """Have what a verified caller was refused, before any command, in the audit."""
        if self._refuse is not None:
            await self._refuse(caller, operation, refused)

    async def _waited(self, here: Exchange, command: Command, asked: BaseModel, caller: Caller) -> BaseModel | bytes:
        here.waits = True
        if self._measures.polls >= MOST_POLLS:
            told = f"{MOST_POLLS} reads wait already, as many as may"
            raise Refused(Code.UNAVAILABLE, told, rule="http.polls", retry_after=5)
        self._measures.polls += 1
        reading: asyncio.Future[BaseModel | bytes] = asyncio.ensure_future(command.call(caller, asked))
        left = asyncio.ensure_future(here.left())
        try:
            with self._verifier.held(caller.token_id) as revoked:
                await asyncio.wait((reading, left, revoked), return_when=asyncio.FIRST_COMPLETED)
            if revoked.done():
                raise Rejected(Rule.REVOKED)
            if not reading.done():
                raise body.ClientGone
            return reading.result()
        finally:
            self._measures.polls -= 1
            reading.cancel()
            left.cancel()


def best(commands: object, name: str) -> Any:
    """Return the command, or the one that gives its answer as JSON already, where there is such a one."""
    return getattr(commands, f"{name}_text", None) or getattr(commands, name)


async def admitted(here: Exchange, verifier: Verifier) -> Caller:
    """Return who asks, as the token says.

    Raises:
        Rejected, KeysUnavailable
    """
    headers = here.headers
    identity = await verifier.verify(headers.get(b"authorization", b""))
    here.caller = Caller(
        agent_id=identity.agent_id,
        workspace_id=identity.workspace_id,
        role=identity.role,
        request_id=here.request_id,
        session_id=identity.session_id,
        token_id=identity.token_id,
        traceparent=traceparent(headers.get(b"traceparent", b"").decode("latin-1")),
    )
    return here.caller


def traceparent(given: object) -> str:
    """Return a W3C trace context if it is well-formed, else an empty text."""
    return given if given and isinstance(given, str) and _TRACEPARENT.fullmatch(given) else ""
