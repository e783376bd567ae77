"""`klorosctl token`: issue, list, rotate, revoke; what is on disk, in the log and in the audit afterwards."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from orchestration.bridge.auth.claims import Identity, Rejected, Rule
from orchestration.bridge.auth.keys import LocalKeys
from orchestration.bridge.auth.ring import Ring
from orchestration.bridge.auth.tokens import Verifier
from orchestration.bridge.store.sqlite import SqliteStore
from tests.acceptance.host import Host


def issued(host: Host, *more: str, agent: str = "reviewer") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.ctl("token", "issue", "--agent", agent, *more, "--json").stdout)
    return found


def ring(host: Host) -> Ring:
    return Ring(str(host.state / "keys/tokens.json"), str(host.state / "locks/tokens.lock"))


def identity(host: Host, token: str, *, now: float | None = None, revoked: frozenset[str] = frozenset()) -> Identity:
    keys = LocalKeys(ring(host), now=lambda: now or time.time())
    verifier = Verifier(keys, issuer="kloros", audience="kloros-bridge", now=lambda: now or time.time())
    verifier.revoked = revoked
    return asyncio.run(verifier.verify(f"Bearer {token}".encode()))


def revoked(host: Host) -> frozenset[str]:
    async def look() -> frozenset[str]:
        store = SqliteStore(str(host.state / "kloros.db"))
        try:
            assert not (await store.verify()).faults
            return await store.revoked(datetime.now(UTC))
        finally:
            await store.close()

    return asyncio.run(look())


def test_a_token_says_what_was_asked_for_and_is_kept_nowhere(host: Host) -> None:
    done = host.ctl("token", "issue", "--agent", "reviewer", "--role", "auditor", "--ttl", "2h", "--session", "s-9")
    token = done.stdout.strip()
    who = identity(host, token)
    assert (who.agent_id, who.workspace_id, who.role, who.session_id) == ("reviewer", "kloros", "auditor", "s-9")
    assert 7190 < who.expires_at - time.time() <= 7200
    assert who.token_id in done.stderr
    for part in token.split("."):
        assert part not in done.stderr
        files = [path for path in host.state.rglob("*") if path.is_file()]
        assert files
        assert not any(part.encode() in path.read_bytes() for path in files)


def test_the_private_key_is_its_owners_alone_and_never_served(host: Host) -> None:
    issued(host)
    path = host.state / "keys/tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (private,) = (one["d"] for one in json.loads(path.read_text())["keys"] if "d" in one)
    (public,) = ring(host).jwks(time.time())["keys"]
    assert private not in json.dumps(public)
    assert public.keys() == {"kty", "crv", "alg", "use", "kid", "x"}


def test_a_key_that_others_may_read_signs_nothing(host: Host) -> None:
    issued(host)
    (host.state / "keys/tokens.json").chmod(0o640)
    done = host.ctl("token", "issue", "--agent", "reviewer", code=1)
    assert "may be read by others" in done.stderr


def test_rotation_keeps_tokens_good_and_their_key_only_as_long(host: Host) -> None:
    old = issued(host, "--ttl", "1h")
    host.ctl("token", "rotate")
    new = issued(host, "--ttl", "3h")
    kids = [jwt.get_unverified_header(one["token"])["kid"] for one in (old, new)]
    assert kids[0] != kids[1]
    assert identity(host, old["token"]).token_id == old["token_id"]
    assert identity(host, new["token"]).token_id == new["token_id"]
    held = json.loads((host.state / "keys/tokens.json").read_text())["keys"]
    assert [("d" in one) for one in held] == [False, True], "the private part of the old one is gone"
    assert [one["kid"] for one in ring(host).jwks(time.time() + 1800)["keys"]] == kids
    later = time.time() + 3600 + 60
    assert [one["kid"] for one in ring(host).jwks(later)["keys"]] == [kids[1]]


def test_a_revoked_token_is_in_the_store_with_its_audit(host: Host) -> None:
    first, second = issued(host), issued(host, agent="executioner")
    done = host.ctl("token", "revoke", first["token_id"], "--json")
    assert json.loads(done.stdout) == {"token_id": first["token_id"], "revoked": True, "changed": True}
    assert revoked(host) == {first["token_id"]}
    with pytest.raises(Rejected) as caught:
        identity(host, first["token"], revoked=revoked(host))
    assert caught.value.rule is Rule.REVOKED
    assert identity(host, second["token"], revoked=revoked(host)).agent_id == "executioner"
    again = host.ctl("token", "revoke", first["token_id"], "--json")
    assert json.loads(again.stdout)["changed"] is False
    rows = json.loads(host.ctl("token", "list", "--json").stdout)
    assert [(row["agent_id"], row["revoked"]) for row in rows] == [("reviewer", True), ("executioner", False)]
    assert all("token" not in row for row in rows)


def test_a_token_itself_is_not_taken_on_the_command_line(host: Host) -> None:
    token = issued(host)["token"]
    done = host.ctl("token", "revoke", token, code=64)
    assert token not in done.stderr


def test_an_id_that_is_none_of_ours_revokes_nothing(host: Host) -> None:
    issued(host)
    assert "none of the tokens" in host.ctl("token", "revoke", "nonsense", code=64).stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ("--agent", "a b"),
        ("--agent", "operator:root"),
        ("--role", "operator"),
        ("--ttl", "0"),
        ("--ttl", "9999d"),
        ("--workspace", "../x"),
    ],
)
def test_what_no_token_can_say_is_refused(host: Host, wrong: tuple[str, str]) -> None:
    host.ctl("token", "issue", *(() if wrong[0] == "--agent" else ("--agent", "reviewer")), *wrong, code=64)
    assert not (host.state / "keys/tokens.json").exists()


def test_with_an_issuer_elsewhere_this_host_signs_nothing(host: Host) -> None:
    host.set(AUTH_JWKS_URL="https://id.example.org/jwks.json", AUTH_ISSUER="https://id.example.org/", AUTH_AUDIENCE="x")
    assert "https://id.example.org/jwks.json" in host.ctl("token", "issue", "--agent", "reviewer", code=64).stderr
    host.ctl("token", "revoke", "their-token-1")
    assert revoked(host) == {"their-token-1"}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"AUTH_JWKS_URL": "http://id.example.org/jwks.json", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}, "https://"),
        ({"AUTH_JWKS_URL": "file:///etc/passwd", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}, "https://"),
        ({"AUTH_JWKS_URL": "https://id.example.org/jwks.json"}, "auth_issuer"),
    ],
)
def test_settings_that_would_trust_anybody_are_refused(host: Host, variables: dict[str, str], told: str) -> None:
    host.set(**variables)
    assert told in host.ctl("config", "check", code=78).stderr


def test_a_state_folder_that_the_first_token_makes_is_for_its_owner_alone(host: Host) -> None:
    host.ctl("token", "issue", "--agent", "reviewer")
    assert stat.S_IMODE(host.state.stat().st_mode) == 0o700
