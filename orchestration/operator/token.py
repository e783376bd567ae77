"""`klorosctl token`: the tokens that agents show to the bridge, on a host that is its own issuer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from orchestration.errors import Usage
from orchestration.operator.console import Console, json_option

if TYPE_CHECKING:
    from orchestration.bridge.auth.ring import Ring
    from orchestration.bridge.port import Store

_ROLES = ("participant", "coordinator", "auditor")


class _Span(click.ParamType[timedelta]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read `90`, `15min`, `1h` as the settings do."""
        from pydantic import TypeAdapter, ValidationError

        from orchestration.bridge.auth.issuer import LONGEST
        from orchestration.settings.fields import PositiveDuration

        try:
            span: timedelta = TypeAdapter(PositiveDuration).validate_python(value)
        except ValidationError as error:
            self.fail(f"{value!r}: {error.errors()[0]['msg']}", param, ctx)
        if not timedelta(seconds=1) <= span <= LONGEST:
            self.fail(f"{value!r}: a token lasts from 1 s to {LONGEST.days} days", param, ctx)
        return span


@click.group()
def token() -> None:
    """Issue and revoke the tokens that agents show to the bridge.

    For hosts that are their own issuer; with AUTH_JWKS_URL set, tokens come from there, and only `revoke` is of use.
    """


@token.command()
@click.option("--agent", required=True, help="Whose it is: the agent_id.")
@click.option("--role", type=click.Choice(_ROLES), default="participant", show_default=True, help="What it may do.")
@click.option("--workspace", default="", help="Where; [bridge] workspace by default.")
@click.option("--ttl", type=_Span(), default="1h", show_default=True, help="How long it counts: 15min, 1h, 30d.")
@click.option("--session", default="", help="Its session_id; one of its own by default.")
@json_option
@click.pass_obj
def issue(console: Console, *, agent: str, role: str, workspace: str, ttl: timedelta, session: str) -> None:
    """Sign a token, and print it: it is kept nowhere."""
    from orchestration import bridge_wiring
    from orchestration.bridge.auth import claims, issuer

    ring = _own(console)
    place = workspace or console.settings.bridge.workspace
    for option, name in (("--agent", agent), ("--workspace", place)):
        if not claims.is_name(name):
            raise Usage(
                f"{option} {name!r} is no name", hint="letters, digits and ._@:-, at most 128, a letter or digit first"
            )
    if not claims.is_agent(agent):
        raise Usage(
            f"--agent {agent!r} is the name of a person or of the bridge itself",
            hint=f"an agent's name does not begin with {' or '.join(claims.RESERVED)}",
        )
    trust = bridge_wiring.trust(console.settings)
    made = issuer.issue(
        ring,
        issuer=trust.issuer,
        audience=trust.audience,
        agent_id=agent,
        workspace_id=place,
        role=role,
        session_id=session or f"{agent}-{int(time.time())}",
        ttl=ttl,
        by=console.actor,
        now=time.time(),
    )
    until = datetime.fromtimestamp(made.expires_at, UTC)
    told = f"issues a token to {agent}, {role} of {place}, until {until:%Y-%m-%dT%H:%M:%SZ}"
    console.note("token issue", told, token_id=made.token_id, agent_id=agent, role=role, workspace_id=place)
    document = {
        "token": made.text,
        "token_id": made.token_id,
        "agent_id": agent,
        "workspace_id": place,
        "role": role,
        "expires_at": until,
    }
    console.answer(document, tuple)
    if not console.as_json:
        click.echo(made.text)
        click.echo(f"for {agent}, {role} of {place}, until {console.times.both(until)}; its id: {made.token_id}", err=True)


@token.command()
@json_option
@click.pass_obj
def rotate(console: Console) -> None:
    """Let a new key sign from now on. Tokens that are out stay good until they expire."""
    kid = _own(console).rotate(time.time())
    console.note("token rotate", f"lets the key {kid} sign tokens", kid=kid)
    console.answer({"kid": kid}, lambda: [f"The key {kid} signs from now on. Tokens of older keys count until they expire."])


@token.command(name="list")
@json_option
@click.pass_obj
def list_(console: Console) -> None:
    """List the tokens that were issued on this host and have not expired."""
    from orchestration.bridge.auth.ring import Issued

    issued = _own(console).issued(time.time())
    revoked = _revoked(console) if issued else frozenset()

    def document(one: Issued) -> dict[str, object]:
        at, until = (datetime.fromtimestamp(instant, UTC) for instant in (one.issued_at, one.expires_at))
        return {**one._asdict(), "issued_at": at, "expires_at": until, "revoked": one.token_id in revoked}

    rows = [document(one) for one in issued]
    console.answer(rows, lambda: _listed(console, rows))


@token.command()
@click.argument("token_id", metavar="JTI")
@json_option
@click.pass_obj
def revoke(console: Console, *, token_id: str) -> None:
    """Let a token count no more, by its id (`jti`). A bridge that runs knows within seconds."""
    import asyncio

    from orchestration import bridge_wiring

    if not (0 < len(token_id) <= 200 and token_id.isprintable() and token_id.count(".") < 2):
        raise Usage("that is no token's id", hint="klorosctl token list; the token itself has no business on a command line")
    ring = _ring(console)
    expires_at = next((one.expires_at for one in ring.issued(time.time()) if one.token_id == token_id), None)
    if expires_at is None and not console.settings.bridge.auth_jwks_url:
        told = f"{token_id!r} is none of the tokens that were issued here and have not expired"
        raise Usage(told, hint="klorosctl token list")

    async def work() -> bool:
        store = await bridge_wiring.store(console.settings)
        try:
            return await _revoke(store, token_id, expires_at, console.actor)
        finally:
            await store.close()

    changed = asyncio.run(work())
    if changed:
        console.note("token revoke", f"revokes the token {token_id}", token_id=token_id)
    message = f"Token {token_id} {'counts no more' if changed else 'was revoked already'}."
    console.answer({"token_id": token_id, "revoked": True, "changed": changed}, lambda: [message])


async def _revoke(store: Store, token_id: str, expires_at: float | None, actor: str) -> bool:
    import secrets

    from orchestration.bridge.auth.issuer import LONGEST
    from orchestration.bridge.caller import Role
    from orchestration.bridge.state import Ask, AuditNote, Change, Facts, Revocation
    from orchestration.host import clock

    now = clock.now()
    if token_id in await store.revoked(now):
        return False
    until = now + LONGEST if expires_at is None else datetime.fromtimestamp(expires_at, UTC)
    request_id = secrets.token_hex(8)

    def plan(facts: Facts) -> Change[bool]:
        return Change(
            answer=True,
            revocation=Revocation(token_id=token_id, expires_at=until, revoked_at=facts.now, revoked_by=actor),
            audit=(
                AuditNote(
                    at=facts.now,
                    workspace_id="",
                    actor=actor,
                    role=Role.OPERATOR,
                    request_id=request_id,
                    operation="revoke_token",
                    after={"token_id": token_id},
                ),
            ),
        )

    return await store.change(Ask(workspace_id=None), plan)


def _ring(console: Console) -> Ring:
    try:
        from orchestration import bridge_wiring
    except ImportError as error:
        hint = "install the extra bridge: sudo ./install.sh --with bridge, or pip install 'kloros-orchestration[bridge]'"
        raise Usage(f"tokens need a package that is not installed: {error.name}", hint=hint) from error
    console.become_owner()
    return bridge_wiring.ring(console.settings)


def _own(console: Console) -> Ring:
    url = console.settings.bridge.auth_jwks_url
    if url:
        raise Usage(f"tokens come from the issuer whose keys are at {url}", hint="unset AUTH_JWKS_URL to be your own issuer")
    return _ring(console)


def _revoked(console: Console) -> frozenset[str]:
    import asyncio

    from orchestration import bridge_wiring
    from orchestration.host import clock

    async def work() -> frozenset[str]:
        store = await bridge_wiring.store(console.settings)
        try:
            return await store.revoked(clock.now())
        finally:
            await store.close()

    return asyncio.run(work())


def _listed(console: Console, rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        yield "No token is out."
        return
    table = [
        (
            str(row["token_id"]),
            str(row["agent_id"]),
            str(row["role"]),
            str(row["workspace_id"]),
            "revoked" if row["revoked"] else console.times.both(row["expires_at"]),
        )
        for row in rows
    ]
    yield from console.screen.table(("JTI", "AGENT", "ROLE", "WORKSPACE", "UNTIL"), table)
