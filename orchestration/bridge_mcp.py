"""The composition root of `klorosctl mcp`: one MCP client on standard input, over this host's store and keys.

Beside `bridge_wiring.py`, so that neither a bridge that serves nor one that issues tokens has to know of it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from orchestration import bridge_wiring
from orchestration.bridge.auth.claims import Rejected
from orchestration.bridge.auth.tokens import Verifier
from orchestration.bridge.caller import Caller, Role, operator_name
from orchestration.bridge.mcp import stdio
from orchestration.bridge.methods import METHODS
from orchestration.bridge.refusal import Refused
from orchestration.errors import Usage
from orchestration.host import clock

if TYPE_CHECKING:
    from orchestration.bridge.commands import Commands
    from orchestration.bridge.port import Store
    from orchestration.settings import Settings

_LOOK_AT_REVOKED: Final = 1.0  # seconds for which what is revoked is taken as read


async def speak(settings: Settings, *, token: str, actor: str) -> None:
    """Serve until the client has closed its end.

    Args:
        token: of an agent; empty for the operator. actor: the operator's name.

    Raises:
        Usage: the token is not taken. StoreUnreachable, Unwritable: of the store. KeysUnavailable.
    """
    store = await bridge_wiring.store(settings)
    try:
        commands = bridge_wiring.commands(settings, store)
        try:
            if token:
                await _serve_agent(commands, _Agent(settings, store, token))
            else:
                await stdio.serve(commands, METHODS, _operator(settings, actor))
        finally:
            with suppress(Refused):  # the log has each of them
                await commands.write_beyond_rate(all_of_it=True)
    finally:
        await store.close()


async def _serve_agent(commands: Commands, agent: _Agent) -> None:
    keys = asyncio.create_task(agent.keep_keys())
    try:
        await agent.check()
        await stdio.serve(commands, METHODS, agent.identify)
    finally:
        keys.cancel()
        await asyncio.gather(keys, return_exceptions=True)


def _operator(settings: Settings, actor: str) -> stdio.Identify:
    async def identify(request_id: str, traceparent: str) -> Caller:
        return Caller(
            agent_id=operator_name(actor),
            workspace_id=settings.bridge.workspace,
            role=Role.OPERATOR,
            request_id=request_id,
            traceparent=traceparent,
        )

    return identify


class _Agent:
    """The holder of a token, which is looked at anew with each call."""

    def __init__(self, settings: Settings, store: Store, token: str) -> None:
        self._keys = bridge_wiring.keys(settings)
        issuer, audience = bridge_wiring.trust(settings)
        self._verifier = Verifier(self._keys, issuer=issuer, audience=audience, now=time.time)
        self._store = store
        self._shown = f"Bearer {token}".encode()
        self._looked_at = -_LOOK_AT_REVOKED

    async def keep_keys(self) -> None:
        """Keep the keys fresh, without end."""
        await self._keys.run()

    async def check(self) -> None:
        """See at the start that the token is good. Raises: Usage, KlorosError."""
        try:
            await self.identify("", "")
        except Rejected as error:
            hint = "klorosctl token issue --agent NAME gives a new one"
            raise Usage(f"the token is not taken: {error.rule}", hint=hint) from error

    async def identify(self, request_id: str, traceparent: str) -> Caller:
        """Return who the token says it is. Raises: Rejected, KeysUnavailable."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AT_REVOKED:
            with suppress(Refused):  # those that are known stay
                self._verifier.revoked = await self._store.revoked(clock.now())
                self._looked_at = now
        identity = await self._verifier.verify(self._shown)
        return Caller(
            agent_id=identity.agent_id,
            workspace_id=identity.workspace_id,
            role=identity.role,
            request_id=request_id,
            session_id=identity.session_id,
            token_id=identity.token_id,
            traceparent=traceparent,
        )
