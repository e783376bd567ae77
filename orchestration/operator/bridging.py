"""How `klorosctl` speaks to the bridge: the same commands as HTTP and MCP, in this process, as the operator of the host."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestration.errors import KlorosError, StoreUnreachable, Usage
from orchestration.operator.console import Console
from orchestration.store import opening

if TYPE_CHECKING:
    from orchestration.bridge.caller import Caller
    from orchestration.bridge.commands import Commands
    from orchestration.bridge.refusal import Refused

T = TypeVar("T")


class Unanswered(KlorosError):
    """The bridge's rules refuse what an operator asks for."""


def ask(console: Console, work: Callable[[Commands, Caller], Awaitable[T]]) -> T:
    """Do some work with the bridge's commands, as the OS user (and whoever became it by sudo).

    Raises:
        Usage: no such thread, or an argument that is none. StoreUnreachable. Unanswered: another refusal.
    """
    try:
        from orchestration import bridge_wiring
        from orchestration.bridge.refusal import Refused
    except ImportError as error:
        hint = "install the extra bridge: sudo ./install.sh --with bridge, or pip install 'kloros-orchestration[bridge]'"
        raise Usage(f"the bridge needs a package that is not installed: {error.name}", hint=hint) from error
    console.become_owner()
    who = caller(console)

    async def worked() -> T:
        store = await bridge_wiring.store(console.settings)
        try:
            return await work(bridge_wiring.commands(console.settings, store), who)
        finally:
            await store.close()

    try:
        return asyncio.run(worked())
    except Refused as refusal:
        from orchestration.host.journal import Event, log

        log(
            Event.REQUEST_REFUSED,
            f"{console.actor}: {refusal.code}: {refusal.rule}",
            code=refusal.code,
            rule=refusal.rule,
            request_id=who.request_id,
            operator=console.actor,
        )
        raise _told(refusal) from refusal


def tell(console: Console) -> None:
    """Let ticks and pages know what has changed, where no server does so by itself."""
    from orchestration.bridge.census import Tally
    from orchestration.bridge.telling import Teller, is_served

    place = opening.place_of(console.settings)
    if is_served(place):
        return

    async def work(ours: Commands, _who: Caller) -> None:
        tally = Tally()
        await ours.store.count(tally)
        await Teller(place, tally).tell(await ours.store.census(console.now), serving=False)

    ask(console, work)


def is_made(console: Console) -> bool:
    """Say whether there is a store at all, for commands that only look and must not make one."""
    return opening.is_made(opening.place_of(console.settings))


def of_wire(model: str, **values: Any) -> Any:
    """Make a model of the wire from what was typed. Raises: Usage."""
    from pydantic import ValidationError

    from orchestration.bridge import wire

    try:
        return getattr(wire, model).model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0] if fault["loc"] else model)
        hint = "klorosctl threads list" if name == "thread_id" else f"{click.get_current_context().command_path} --help"
        raise Usage(f"--{name.replace('_', '-')}: {fault['msg']}", hint=hint) from None


def caller(console: Console) -> Caller:
    """Name who acts."""
    from orchestration.bridge.caller import Caller, Role, operator_name

    return Caller(
        agent_id=operator_name(console.actor),
        workspace_id=console.settings.bridge.workspace,
        role=Role.OPERATOR,
        request_id=f"klorosctl-{secrets.token_hex(8)}",
    )


def _told(refusal: Refused) -> KlorosError:
    from orchestration.bridge.refusal import Code

    match refusal.code:
        case Code.NOT_FOUND:
            where = "threads list" if refusal.rule == "thread.exists" else "inspect-thread --thread-id …"
            return Usage(refusal.message, hint=f"klorosctl {where}")
        case Code.INVALID_ARGUMENT | Code.PAYLOAD_TOO_LARGE:
            return Usage(refusal.message)
        case Code.UNAVAILABLE:
            return StoreUnreachable(refusal.message, hint="klorosctl doctor")
        case code:
            return Unanswered(refusal.message, hint=f"refused by the rule {refusal.rule} ({code})")
