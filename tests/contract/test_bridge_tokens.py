"""Tokens against keys, as they come: every way to forge one, rotation, an issuer that is down, clocks that differ."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from orchestration.bridge.auth.claims import LEEWAY, Rejected, Rule
from orchestration.bridge.auth.fetching import LARGEST, fetcher
from orchestration.bridge.auth.jwks import keys_of
from orchestration.bridge.auth.keys import FLOOR, KeysUnavailable, RemoteKeys
from orchestration.bridge.auth.tokens import LONGEST, MOST_REMEMBERED, Verifier
from orchestration.errors import KlorosError, Malformed
from tests.contract.bridge_served import AUDIENCE, ISSUER, FixedKeys, JwksServer, SigningKey, claims, jwks, jwks_server

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


def verifier(*keys: SigningKey, now: Callable[[], float] = lambda: NOW) -> Verifier:
    return Verifier(FixedKeys(*keys), issuer=ISSUER, audience=AUDIENCE, now=now)


def verified(one: Verifier, token: str, scheme: str = "Bearer") -> Rule | None:
    try:
        asyncio.run(one.verify(f"{scheme} {token}".encode() if token else b""))
    except Rejected as error:
        return error.rule
    return None


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_good_token_is_taken_and_nothing_changed_in_it_is(algorithm: str) -> None:
    key, other = SigningKey("k", algorithm), SigningKey("k", algorithm)
    one = verifier(key)
    token = key.sign(claims(NOW))
    head, payload, signature = token.split(".")
    assert verified(one, token) is None
    assert verified(one, token, "bearer") is None
    assert verified(one, other.sign(claims(NOW))) is Rule.SIGNATURE
    assert verified(one, f"{head}.{segment(claims(NOW, role='coordinator'))}.{signature}") is Rule.SIGNATURE
    assert verified(one, f"{head}.{payload}.") is Rule.SIGNATURE
    assert verified(one, f"{head}.{payload}.{segment('x')}") is Rule.SIGNATURE


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "RS512", "PS256", "ES384", "", None, 7])
def test_the_header_chooses_no_algorithm(algorithm: object) -> None:
    one = verifier(SigningKey("k", "RS256"))
    token = f"{segment({'alg': algorithm, 'kid': 'k'})}.{segment(claims(NOW))}."
    assert verified(one, token) in (Rule.ALGORITHM, Rule.NOT_A_TOKEN)


def test_an_algorithm_that_is_not_ours_asks_nobody_for_keys() -> None:
    token = f"{segment({'alg': 'none', 'kid': 'unknown'})}.{segment(claims(NOW))}."
    assert verified(verifier(SigningKey("k")), token) is Rule.ALGORITHM


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_a_public_key_is_no_secret(encoding: serialization.Encoding) -> None:
    key = SigningKey("k", "RS256")
    public = key.private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    import hashlib
    import hmac

    signed = f"{segment({'alg': 'HS256', 'kid': 'k', 'typ': 'JWT'})}.{segment(claims(NOW))}"
    signature = base64.urlsafe_b64encode(hmac.new(public, signed.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    assert verified(verifier(key), f"{signed}.{signature}") is Rule.ALGORITHM


def test_a_key_is_good_for_its_own_algorithm_only() -> None:
    rs, es = SigningKey("k-rs", "RS256"), SigningKey("k-es", "ES256")
    one = verifier(rs, es)
    crossed = jwt.encode(claims(NOW), es.private, "ES256", headers={"kid": "k-rs"})
    assert verified(one, crossed) is Rule.ALGORITHM


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ({"kid": "other"}, Rule.UNKNOWN_KEY),
        ({"kid": None}, Rule.UNKNOWN_KEY),
        ({"crit": ["exp"]}, Rule.NOT_A_TOKEN),
    ],
)
def test_headers_that_mislead(header: dict[str, object], rule: Rule) -> None:
    key = SigningKey("k")
    body = {"alg": "EdDSA", "kid": "k", **header}
    unsigned = f"{segment({name: value for name, value in body.items() if value is not None})}.{segment(claims(NOW))}"
    signature = base64.urlsafe_b64encode(key.private.sign(unsigned.encode())).rstrip(b"=").decode()
    assert verified(verifier(key), f"{unsigned}.{signature}") is rule


@pytest.mark.parametrize(
    ("authorization", "rule"),
    [
        (b"", Rule.NO_TOKEN),
        (b"Bearer", Rule.NOT_A_TOKEN),
        (b"Bearer ", Rule.NOT_A_TOKEN),
        (b"Basic dXNlcjpwYXNz", Rule.NOT_A_TOKEN),
        (b"Bearer a.b", Rule.NOT_A_TOKEN),
        (b"Bearer a.b.c", Rule.NOT_A_TOKEN),
        (b"Bearer \xff\xfe.\x00.\xff", Rule.NOT_A_TOKEN),
        (b"Bearer " + b"a" * (LONGEST + 1), Rule.NOT_A_TOKEN),
        (b"Bearer " + b"[" * LONGEST, Rule.NOT_A_TOKEN),
        (b"Bearer " + base64.urlsafe_b64encode(b"[" * 4000).rstrip(b"=") + b".e30.e30", Rule.NOT_A_TOKEN),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_token(authorization: bytes, rule: Rule) -> None:
    with pytest.raises(Rejected) as caught:
        asyncio.run(verifier(SigningKey("k")).verify(authorization))
    assert caught.value.rule is rule


def test_a_payload_that_is_no_object_is_no_token() -> None:
    key = SigningKey("k")
    token = jwt.api_jws.encode(b"[1]", key.private, "EdDSA", headers={"kid": "k"})
    assert verified(verifier(key), token) is Rule.NOT_A_TOKEN


def test_what_was_verified_is_remembered_until_it_expires_or_is_revoked() -> None:
    key, clock = SigningKey("k"), Clock()
    one = verifier(key, now=clock)
    token = key.sign(claims(NOW, exp=NOW + 60))
    assert verified(one, token) is None
    one._keys.keys = {}  # type: ignore[attr-defined]  # it is not looked at again
    assert verified(one, token) is None
    one.revoked = frozenset({"t-1"})
    assert verified(one, token) is Rule.REVOKED
    one.revoked = frozenset()
    clock.at = NOW + 60 + LEEWAY
    assert verified(one, token) is Rule.EXPIRED


def test_other_keys_make_it_look_again() -> None:
    key, keys = SigningKey("k"), FixedKeys(SigningKey("k"))
    keys.keys = keys_of(jwks(key))
    one = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, now=lambda: NOW)
    token = key.sign(claims(NOW))
    assert verified(one, token) is None
    keys.keys, keys.generation = keys_of(jwks(SigningKey("other"))), 2
    assert verified(one, token) is Rule.UNKNOWN_KEY


def test_memory_is_bounded_and_holds_no_refusals() -> None:
    key = SigningKey("k")
    one = verifier(key)

    async def many() -> None:
        for number in range(MOST_REMEMBERED + 10):
            await one.verify(f"Bearer {key.sign(claims(NOW, jti=str(number)))}".encode())

    asyncio.run(many())
    assert len(one._good) == MOST_REMEMBERED
    verified(one, SigningKey("k").sign(claims(NOW)))
    assert len(one._good) == MOST_REMEMBERED


@pytest.mark.parametrize(
    "more",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"alg": "RS512"},
        {"kid": ""},
        {"kid": 7},
        {"n": "AQAB"},
        {"e": "!"},
        {"kty": "oct"},
    ],
    ids=repr,
)
def test_keys_that_are_not_for_us_are_left_out(more: dict[str, object]) -> None:
    document = json.dumps({"keys": [SigningKey("bad", "RS256").jwk(**more), SigningKey("good").jwk(), 7, None]}).encode()
    assert list(keys_of(document)) == ["good"]


def test_a_short_rsa_key_is_none() -> None:
    short = SigningKey("short", "RS256")
    short.private = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert list(keys_of(jwks(short, SigningKey("good")))) == ["good"]


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"null", b'{"keys": 7}', b'{"keys": []}', b"[" * 100_000, b"\xff"])
def test_what_is_no_jwks_is_refused(document: bytes) -> None:
    with pytest.raises(Malformed):
        keys_of(document)


def remote(server: JwksServer, clock: Clock, *, keep: float = 3600, copy: str = "", patience: float = 5.0) -> RemoteKeys:
    return RemoteKeys(fetcher(server.url, patience=patience), url=server.url, now=clock, refresh=600, keep=keep, copy=copy)


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await test()

    asyncio.run(run())


def test_a_new_key_is_asked_for_once_and_then_not_before_the_floor() -> None:
    first, second = SigningKey("first"), SigningKey("second", "ES256")
    clock = Clock()
    with jwks_server(first) as server:
        keys = remote(server, clock)
        one = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, now=clock)

        async def test() -> None:
            await one.verify(b"Bearer " + first.sign(claims(NOW)).encode())
            assert server.asked == 1
            server.body = jwks(first, second)
            token = b"Bearer " + second.sign(claims(NOW)).encode()
            for _ in range(3):
                with pytest.raises(Rejected):
                    await one.verify(token)
            assert server.asked == 1
            clock.at += FLOOR
            found = await asyncio.gather(*(one.verify(token) for _ in range(20)))
            assert {identity.agent_id for identity in found} == {"executioner"}
            assert server.asked == 2

        in_loop(test)


def test_a_key_that_is_withdrawn_counts_no_more() -> None:
    first, second = SigningKey("first"), SigningKey("second")
    clock = Clock()
    with jwks_server(first, second) as server:
        keys = remote(server, clock)
        one = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, now=clock)

        async def test() -> None:
            token = b"Bearer " + first.sign(claims(NOW)).encode()
            await one.verify(token)
            server.body = jwks(second)
            await keys._renew()
            with pytest.raises(Rejected) as caught:
                await one.verify(token)
            assert caught.value.rule is Rule.UNKNOWN_KEY

        in_loop(test)


@pytest.mark.parametrize("answer", ["down", "500", "302", "no keys", "too large", "hangs"])
def test_an_outage_of_the_issuer_is_bridged_and_then_told_as_ours(answer: str, tmp_path: Path) -> None:
    key, clock = SigningKey("k"), Clock()
    copy = str(tmp_path / "keys/jwks.json")
    with jwks_server(key) as server:
        keys = remote(server, clock, keep=3600, copy=copy, patience=0.3)
        one = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, now=clock)
        token = b"Bearer " + key.sign(claims(NOW, exp=NOW + 86_400)).encode()

        async def test() -> None:
            await one.verify(token)
            match answer:
                case "down":
                    server.close()
                case "500" | "302":
                    server.status = int(answer)
                case "no keys":
                    server.body = b'{"keys": []}'
                case "too large":
                    server.body = jwks(key) + b" " * LARGEST
                case _:
                    server.hangs.set()
            clock.at += 600
            await keys._renew()
            assert keys.failures == 1
            assert (await one.verify(token)).agent_id == "executioner"
            again = Verifier(remote(server, clock, copy=copy), issuer=ISSUER, audience=AUDIENCE, now=clock)
            assert (await again.verify(token)).agent_id == "executioner", "a restart of ours loses no keys"
            clock.at += 3601
            with pytest.raises(KeysUnavailable):
                await one.verify(token)

        in_loop(test)


def test_an_issuer_that_hangs_keeps_nobody_else_waiting() -> None:
    key, clock = SigningKey("k"), Clock()
    with jwks_server(key) as server:
        keys = remote(server, clock, patience=1.0)
        one = Verifier(keys, issuer=ISSUER, audience=AUDIENCE, now=clock)

        async def test() -> None:
            good = b"Bearer " + key.sign(claims(NOW)).encode()
            await one.verify(good)
            server.hangs.set()
            clock.at += FLOOR
            waiting = asyncio.create_task(one.verify(b"Bearer " + SigningKey("x").sign(claims(NOW)).encode()))
            for _ in range(100):
                await asyncio.sleep(0)
                await one.verify(good)
            assert not waiting.done()
            with pytest.raises(Rejected):
                await waiting

        in_loop(test)


def test_a_drip_is_no_answer() -> None:
    """An answer that comes byte by byte would hold a thread for ever."""
    with jwks_server() as server:
        server.body, server.drips = b" " * 1000, True
        with pytest.raises(KlorosError, match=r"in time|within"):
            asyncio.run(asyncio.wait_for(fetcher(server.url, patience=0.3)(), 5))
