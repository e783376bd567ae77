"""What hosts of a scope share, on a real PostgreSQL: each file reaches the leader's mirror, each answer its host, once."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from orchestration.errors import LeaseLost, Unwritable
from orchestration.intents.reading import read
from orchestration.promotions.reading import Sorted, read_promotions
from orchestration.promotions.scan import compare
from orchestration.scope.own_files import key_of
from orchestration.store.instants import to_text
from tests.contract.postgres import Cluster
from tests.contract.scoped import SharingHost

pytestmark = pytest.mark.xdist_group("postgres")

LOOK = "shared_files.look"
Hosts = tuple[SharingHost, SharingHost]
_listed: list[str] = []


def _note_listing(event: str, given: tuple[object, ...]) -> None:
    if event in ("os.listdir", "os.scandir"):
        _listed.append(str(given[0]))


sys.addaudithook(_note_listing)


@pytest.fixture
def hosts(tmp_path: Path, cluster: Cluster) -> Hosts:
    url = cluster.new_database()
    return SharingHost(tmp_path, url, "a"), SharingHost(tmp_path, url, "b")


def age(*paths: Path) -> None:
    """Let files and their folders have changed a minute ago, as most have."""
    before = time.time() - 60
    for path in {*paths, *(path.parent for path in paths)}:
        os.utime(path, (before, before), follow_symlinks=False)


def rest(host: SharingHost, *, leading: bool = False) -> None:
    """Let a host tick until it relies on what it knows: what changed a moment ago is looked at again."""
    deadline = time.monotonic() + 20
    while host.exchange(leading=leading) != [LOOK] or not _known(host)["agreed"]:
        assert time.monotonic() < deadline, "it finds no rest"


def _known(host: SharingHost) -> dict[str, object]:
    found: dict[str, object] = json.loads((host.state / "scope" / "known.json").read_text())
    return found


def answer(leader: SharingHost, stem: str, text: str = '{"accepted": true, "cycle": 1}') -> bool:
    """Let the leader write an ack into its mirror and share it, as a tick does."""
    leader.exchange(leading=True)
    acks = Path(leader.sharing.mirror.path("acks"))
    acks.mkdir(exist_ok=True)
    (acks / f"{stem}_ack.json").write_text(text)
    return leader.sharing.answer([stem])


def decide(leader: SharingHost, name: str, status: str = "processed") -> None:
    """Let the leader decide on an intent, as far as the store goes: its row, then its filing."""
    leader.exchange(leading=True)
    decide_at_once(leader, name, status)


def decide_at_once(leader: SharingHost, name: str, status: str = "processed") -> None:
    """Let it do so in the very tick that put the intent into the mirror."""
    found = read(leader.sharing.mirror.path("intents"), name, datetime.now(UTC))
    assert found is not None
    at = to_text(datetime.now(UTC))
    given = {"name": name, "content_sha": found.content_sha, "decided_at": at}
    kind = "" if found.intent is None else found.intent.intent_type
    with leader.db.transaction():
        leader.db.run(
            "intents.conclude", **given, intent_type=kind, priority=0, status=status, reason="", seen_at=at, cycle=None
        )
    assert leader.db.run("intents.filed", **given) == 1


def rows(host: SharingHost) -> list[tuple[str, str, str, str]]:
    """Return what the store says: host, folder, name, state."""
    listed = json.loads(str(host.db.rows(LOOK, known="", everything=1)[0]["listing"]))
    return [(row[0], row[1], row[2], row[3]) for row in listed]


# ── There ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_leader_sees_the_files_of_every_host(hosts: Hosts) -> None:
    a, b = hosts
    text = a.promote("x").read_text()
    asked = a.intend("y.json").read_text()
    b.promote("x", fitness=0.7)
    a.exchange()
    b.exchange(leading=True)
    found = b.mirrored()
    assert sorted(found) == ["intents/a@y.json", "promotions/a@x.json", "promotions/b@x.json"]
    assert (found["promotions/a@x.json"], found["intents/a@y.json"]) == (text, asked)


def test_a_mirrored_file_is_as_old_as_its_original(hosts: Hosts) -> None:
    a, b = hosts
    path = a.intend("y.json")
    age(path)
    a.exchange()
    b.exchange(leading=True)
    assert Path(b.sharing.mirror.path("intents", "a@y.json")).stat().st_mtime == pytest.approx(
        path.stat().st_mtime, abs=1e-5
    )


def test_what_is_new_is_shared_once_and_then_costs_one_query(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    rest(a)
    rest(b, leading=True)
    _listed.clear()
    kept = b.state / "scope" / "known.json"
    before = kept.stat().st_mtime_ns
    assert a.exchange() == [LOOK]
    assert [folder for folder in _listed if "/a/" in folder] == [], "its folders' change times tell that nothing is new"
    assert b.exchange(leading=True) == [LOOK]
    assert kept.stat().st_mtime_ns == before, "nothing is written"


def test_folders_are_looked_at_now_and_then_whatever_their_change_times_say(hosts: Hosts) -> None:
    a, _ = hosts
    rest(a)
    hidden = os.stat(a.state / "promotions")
    a.promote("x")
    os.utime(a.state / "promotions", ns=(hidden.st_atime_ns, hidden.st_mtime_ns))
    a.exchange()
    assert rows(a) == [], "as a file system would have it that keeps no change times"
    known = _known(a)
    long_ago = {**known, "agreed_at": float(str(known["agreed_at"])) - 3601}
    (a.state / "scope" / "known.json").write_text(json.dumps(long_ago))
    a.exchange()
    assert rows(a) == [("a", "promotions", "x.json", "there")]


def test_what_a_cycle_left_here_is_in_no_folder_that_is_looked_at(hosts: Hosts) -> None:
    host = hosts[0]
    rest(host)
    left = {"name": "cycle_00001/handover.json", "sha256": "0" * 64, "content": "", "stand_in": "", "changed_at": 0}
    host.db.run("shared_files.keep", files=json.dumps([left]))
    for _ in range(3):
        assert host.exchange() == [LOOK]


def test_a_file_that_is_replaced_is_shared_anew(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    b.exchange(leading=True)
    text = a.promote("x", fitness=0.9).read_text()
    a.exchange()
    b.exchange(leading=True)
    assert b.mirrored() == {"promotions/a@x.json": text}


def test_a_file_that_is_replaced_by_one_of_the_same_content_is_told_without_it(hosts: Hosts) -> None:
    a, b = hosts
    path = a.promote("x")
    a.exchange()
    beside = path.with_name(".x")
    beside.write_text(path.read_text())
    beside.rename(path)
    assert "shared_files.share" not in a.exchange()
    assert rows(b) == [("a", "promotions", "x.json", "there")]


def test_a_file_in_the_writing_waits(hosts: Hosts) -> None:
    a, b = hosts
    torn = (a.state / "promotions" / "x.json", a.state / "intents" / "y.json")
    for path in torn:
        path.write_text('{"half')
    a.exchange()
    assert rows(a) == []
    for path in torn:
        age(path)
    a.exchange()
    b.exchange(leading=True)
    assert sorted(b.mirrored()) == ["intents/a@y.json", "promotions/a@x.json"], "they stay so"


def test_what_is_taken_away_leaves_the_mirror(hosts: Hosts) -> None:
    a, b = hosts
    paths = (a.promote("x"), a.intend("y.json"))
    a.exchange()
    b.exchange(leading=True)
    for path in paths:
        path.unlink()
    a.exchange()
    b.exchange(leading=True)
    assert (rows(b), b.mirrored()) == ([], {})


def test_answered_promotions_are_never_shared(hosts: Hosts) -> None:
    a, _ = hosts
    for number in range(50):
        a.promote(f"p{number}")
        (a.state / "promotions_ack" / f"p{number}_ack.json").write_text("{}")
    a.exchange()
    assert rows(a) == []


# ── Judged as on its own host ──────────────────────────────────────────────────────────────────────────────────────────


def judged(folder: str, names: list[str], host: str) -> list[tuple[str, str]]:
    """Say what becomes of promotions in a folder, less the mirror's way of naming them."""
    found: Sorted = read_promotions(folder, names, bounds={}, strict=False, now=datetime.now(UTC) + timedelta(minutes=1))
    told = [("candidate", one.stem, str(one.promotion)) for one in found.candidates]
    told += [("refused", one.stem, one.reason) for one in found.refused]
    told += [("left", one.name.removesuffix(".json"), one.reason) for one in found.left]
    keys = {stem: stem.removeprefix(f"{host}@") if host else key_of(f"{stem}.json", "a")[:-5] for _, stem, _ in told}
    return sorted((kind, f"{keys[stem]} {reason}") for kind, stem, reason in told)


def test_a_promotion_is_judged_in_the_mirror_as_on_its_host(hosts: Hosts) -> None:
    a, b = hosts
    folder = a.state / "promotions"
    a.promote("good")
    a.promote("worst", fitness=-1)
    (folder / "text.json").write_text("no json")
    (folder / "latin.json").write_bytes(b'{"id": "\xff"}')
    (folder / "large.json").write_bytes(b" " * (1024 * 1024 + 10))
    (folder / "full.json").write_bytes(json.dumps({"id": "full"}).encode().ljust(1024 * 1024))
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "fifo.json")
    (folder / "inside.json").symlink_to("good.json")
    (folder / "outside.json").symlink_to("/etc/hostname")
    (folder / "nowhere.json").symlink_to("absent.json")
    (folder / "round.json").symlink_to("round.json")
    (folder / ("n" * 248 + ".json")).write_text("{}")
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.json"))).write_text("{}")
    for path in folder.iterdir():
        age(path)
    a.exchange()
    b.exchange(leading=True)
    own = judged(str(folder), sorted(os.listdir(folder)), "")
    mirror = b.sharing.mirror.path("promotions")
    seen = judged(mirror, sorted(os.listdir(mirror)), "a")
    assert len(own) == 14
    assert seen == own


def test_an_intent_is_judged_in_the_mirror_as_on_its_host(hosts: Hosts) -> None:
    a, b = hosts
    folder = a.state / "intents"
    a.intend("good.json")
    (folder / "text.json").write_text("no json")
    (folder / "large.json").write_bytes(b" " * (1024 * 1024 + 10))
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "fifo.json")
    (folder / "link.json").symlink_to("good.json")
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.json"))).write_text("{}")
    for path in folder.iterdir():
        age(path)
    a.exchange()
    b.exchange(leading=True)
    mirror, now = b.sharing.mirror.path("intents"), datetime.now(UTC) + timedelta(minutes=1)
    for name in os.listdir(folder):
        own, seen = read(str(folder), name, now), read(mirror, f"a@{key_of(name, 'a')}", now)
        assert own is not None
        assert seen is not None
        assert (seen.intent, seen.fault, seen.content_sha) == (own.intent, own.fault, own.content_sha)
        assert abs(seen.changed - own.changed) < timedelta(milliseconds=1)


def test_names_that_have_no_room_for_the_host_are_cut_and_found_again(hosts: Hosts) -> None:
    a, b = hosts
    stem = "é" * 120
    a.promote(stem)
    name = f"{'i' * 250}.json"
    a.intend(name)
    a.exchange()
    b.exchange(leading=True)
    (intent, promotion) = sorted(b.mirrored())
    assert len(os.path.basename(promotion).encode()) + len("_ack") <= 255
    assert answer(b, os.path.basename(promotion).removesuffix(".json"))
    decide(b, os.path.basename(intent))
    a.exchange()
    a.exchange()
    assert (a.state / "promotions_ack" / f"{stem}_ack.json").exists()
    assert (a.state / "intents" / "processed" / "processed" / name).exists()
    assert rows(a) == [] or [row[3] for row in rows(a)] == ["done"]


# ── Back again ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def written(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or put in another's place, and not when it is read."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def test_an_ack_comes_back_to_its_host_once(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    assert answer(b, "a@x", "ours")
    a.exchange()
    path = a.state / "promotions_ack" / "x_ack.json"
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("ours", 0o640)
    before = written(path)
    a.exchange()
    assert written(path) == before
    b.exchange(leading=True)
    assert (rows(b), b.mirrored()) == ([], {}), "nobody needs them any more"


def test_a_host_that_was_away_gets_what_waits_for_it(hosts: Hosts) -> None:
    a, b = hosts
    for number in range(3):
        a.promote(f"x{number}")
    a.intend("y.json")
    a.exchange()
    for number in range(3):
        assert answer(b, f"a@x{number}")
    decide(b, "a@y.json")
    for _ in range(3):
        b.exchange(leading=True)
    assert sorted(b.mirrored()) == [
        f"{folder}/a@x{n}{end}" for folder, end in (("acks", "_ack.json"), ("promotions", ".json")) for n in range(3)
    ]
    a.exchange()
    assert sorted(a.own()) == sorted(
        [f"promotions/x{n}.json" for n in range(3)]
        + [f"promotions_ack/x{n}_ack.json" for n in range(3)]
        + ["intents/processed/processed/y.json"]
    )


def test_an_ack_that_is_there_stays_and_the_scope_believes_it(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    (a.state / "promotions_ack" / "x_ack.json").write_text("theirs")
    assert answer(b, "a@x", "ours")
    a.exchange()
    assert (a.state / "promotions_ack" / "x_ack.json").read_text() == "theirs"
    assert rows(b) == [("a", "acks", "x_ack.json", "done")]
    b.sharing.look()
    assert b.mirrored() == {"acks/a@x_ack.json": "theirs"}


def test_an_answer_given_on_its_host_meanwhile_is_seen_before_anything_rests_on_ours(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    b.exchange(leading=True)
    (a.state / "promotions_ack" / "x_ack.json").write_text("theirs")
    a.exchange()
    acks = Path(b.sharing.mirror.path("acks"))
    (acks / "a@x_ack.json").write_text("ours")
    assert not b.sharing.answer(["a@x"])
    assert (acks / "a@x_ack.json").read_text() == "theirs"
    assert b.sharing.answer(["a@x"]), "that is no other answer"


def test_an_ack_that_was_written_but_not_told_is_told_by_the_next_tick(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    assert answer(b, "a@x", "ours")
    a.restart()

    def die(query: str) -> None:
        if query.startswith("shared_files.") and query != LOOK and query != "shared_files.contents":
            raise KeyboardInterrupt

    a.db.before = die
    with pytest.raises(KeyboardInterrupt):
        a.sharing.exchange()
    path = a.state / "promotions_ack" / "x_ack.json"
    before = written(path)
    a.exchange()
    assert written(path) == before
    assert rows(a) == [("a", "acks", "x_ack.json", "done")]


def test_an_ack_that_is_taken_away_lets_its_promotion_go_again(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    assert answer(b, "a@x")
    a.exchange()
    (a.state / "promotions_ack" / "x_ack.json").unlink()
    a.exchange()
    b.exchange(leading=True)
    assert list(b.mirrored()) == ["promotions/a@x.json"]


@pytest.mark.parametrize("topic", ["", "no \0 in a jsonb", "nor a lone \ud800"])
def test_an_ack_stays_for_the_cycle_that_gave_it_and_goes_when_it_is_taken_away(hosts: Hosts, topic: str) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    origin = json.dumps({"promotions": ["a@x"], "topic": topic})
    unsettled = "INSERT INTO cycles (cycle, job, state, token, cause, origin, command, timeout_seconds, queued_at)"
    with psycopg.connect(a.db.url, autocommit=True) as connection:
        connection.execute(f"{unsettled} VALUES (7, 'dream', 'succeeded', 't', 'promotions', %s, '[]', 1, '')", (origin,))
    assert answer(b, "a@x")
    a.exchange()
    b.exchange(leading=True)
    assert list(b.mirrored()) == ["acks/a@x_ack.json"], "who settles the cycle is to find it"
    (a.state / "promotions_ack" / "x_ack.json").unlink()
    a.exchange()
    b.exchange(leading=True)
    assert list(b.mirrored()) == ["promotions/a@x.json"]


def test_acks_of_the_older_forms_answer_on_their_host_only(hosts: Hosts) -> None:
    a, b = hosts
    for host in (a, b):
        host.promote("x", id="gen:1")
        host.promote("y", id="gen:2")
    (a.state / "promotions_ack" / "gen_1.ack.json").write_text(json.dumps({"promotion_id": "gen:1"}))
    a.exchange()
    b.exchange(leading=True)
    assert sorted(b.mirrored()) == ["promotions/a@y.json", "promotions/b@x.json", "promotions/b@y.json"]
    (a.state / "promotions_ack" / "2026.json").write_text(json.dumps({"promotion_id": "gen:2"}))
    a.exchange()
    b.sharing.look()
    found = b.mirrored()
    assert sorted(found) == ["acks/a@y_ack.json", "promotions/b@x.json", "promotions/b@y.json"]
    assert json.loads(found["acks/a@y_ack.json"]) == {"promotion_id": "gen:2"}, "as a cycle that tries it will see"


def test_an_ack_of_a_host_whose_name_begins_with_a_digit_answers_no_other_hosts_promotion() -> None:
    listing = compare(["lab@x.json"], ["2lab@x_ack.json"])
    assert (listing.unacked, listing.others) == (["lab@x.json"], [])


def test_an_intent_is_filed_where_it_came_from(hosts: Hosts) -> None:
    a, b = hosts
    path = a.intend("y.json", intent_type="suggest_honey")
    text = path.read_text()
    a.exchange()
    decide(b, "a@y.json")
    b.exchange(leading=True)
    assert b.mirrored() == {}, "decided on, it is no news for any leader"
    a.exchange()
    assert a.own() == {"intents/processed/processed/y.json": text}
    (line,) = (a.state / "suggestions.jsonl").read_text().splitlines()
    assert json.loads(line)["intent"] == "y.json"
    a.exchange()
    assert rows(a) == []


def test_what_was_moved_but_not_told_is_told_by_the_next_tick_and_noted_once(hosts: Hosts) -> None:
    a, b = hosts
    a.intend("y.json", intent_type="suggest_honey")
    a.exchange()
    decide(b, "a@y.json")
    a.restart()

    def die(query: str) -> None:
        if query == "shared_files.withdraw":
            raise KeyboardInterrupt

    a.db.before = die
    with pytest.raises(KeyboardInterrupt):
        a.sharing.exchange()
    assert rows(a) == [("a", "intents", "y.json", "filed")]
    a.exchange()
    assert rows(a) == []
    assert len((a.state / "suggestions.jsonl").read_text().splitlines()) == 1
    assert list(a.own()) == ["intents/processed/processed/y.json"]


def test_the_same_content_dropped_again_is_another_intent(hosts: Hosts) -> None:
    a, b = hosts
    a.intend("y.json")
    a.exchange()
    decide(b, "a@y.json")
    a.exchange()
    a.intend("y.json")
    a.exchange()
    b.exchange(leading=True)
    assert list(b.mirrored()) == ["intents/a@y.json"]
    decide(b, "a@y.json")
    a.exchange()
    assert sorted(a.own()) == ["intents/processed/processed/y.json", "intents/processed/processed/y.json.1"]


def test_a_name_that_has_another_content_by_the_time_of_its_answer_is_another_intent(hosts: Hosts) -> None:
    a, b = hosts
    a.intend("y.json")
    a.exchange()
    decide(b, "a@y.json")
    text = a.intend("y.json", reason="another").read_text()
    a.exchange()
    b.exchange(leading=True)
    assert b.mirrored() == {"intents/a@y.json": text}
    assert list(a.own()) == ["intents/y.json"]


def test_an_intent_that_was_replaced_before_the_decision_on_the_old_one_is_not_lost(hosts: Hosts) -> None:
    a, b = hosts
    a.intend("y.json")
    a.exchange()
    b.exchange(leading=True)
    text = a.intend("y.json", reason="another").read_text()
    a.exchange()
    found = read(b.sharing.mirror.path("intents"), "a@y.json", datetime.now(UTC))
    assert found is not None
    at = to_text(datetime.now(UTC))
    given = {"name": "a@y.json", "content_sha": found.content_sha, "decided_at": at}
    b.db.run("intents.conclude", **given, intent_type="x", priority=0, status="stale", reason="", seen_at=at, cycle=None)
    b.db.run("intents.filed", **given)
    a.exchange()
    b.exchange(leading=True)
    assert b.mirrored() == {"intents/a@y.json": text}


def test_an_intent_that_is_replaced_while_the_old_one_is_decided_on_is_another_one(hosts: Hosts) -> None:
    a, b = hosts
    a.intend("y.json")
    a.exchange()
    text = a.intend("y.json", reason="another").read_text()
    a.restart()

    def decided_meanwhile(_query: str) -> None:
        a.db.after = lambda _query: None
        decide(b, "a@y.json")

    a.db.after = decided_meanwhile
    a.sharing.exchange()
    assert rows(a) == [("a", "intents", "y.json", "there")]
    b.exchange(leading=True)
    assert b.mirrored() == {"intents/a@y.json": text}


def test_an_intent_that_is_taken_away_after_its_decision_leaves_no_trace(hosts: Hosts) -> None:
    a, b = hosts
    path = a.intend("y.json")
    a.exchange()
    decide(b, "a@y.json")
    path.unlink()
    a.exchange()
    assert (rows(a), a.own()) == ([], {})


def test_an_intent_of_our_own_is_put_into_the_inbox_of_its_host(hosts: Hosts) -> None:
    _, b = hosts
    b.exchange(leading=True)
    content = json.dumps({"intent_type": "curiosity_bees"}).encode()
    with b.db.transaction():
        b.sharing.give_intents([("1_z.json", content)], now=datetime.now(UTC))
    assert b.mirrored() == {"intents/b@1_z.json": content.decode()}, "this very tick may decide on it"
    b.exchange(leading=True)
    assert b.own() == {"intents/1_z.json": content.decode()}
    decide(b, "b@1_z.json")
    b.exchange(leading=True)
    assert (b.own(), rows(b)) == ({"intents/processed/processed/1_z.json": content.decode()}, [])


def test_an_intent_of_our_own_that_is_decided_on_before_its_host_has_it_is_filed_all_the_same(hosts: Hosts) -> None:
    a, b = hosts
    b.exchange(leading=True)
    with b.db.transaction():
        b.sharing.give_intents([("1_z.json", b'{"intent_type": "suggest_tea"}')], now=datetime.now(UTC))
    decide_at_once(b, "b@1_z.json")
    b.exchange()
    assert list(b.own()) == ["intents/processed/processed/1_z.json"]
    assert len((b.state / "suggestions.jsonl").read_text().splitlines()) == 1
    assert rows(a) == []


def test_filing_what_was_never_put_in_place_may_be_done_again(hosts: Hosts) -> None:
    a, b = hosts
    b.exchange(leading=True)
    with b.db.transaction():
        b.sharing.give_intents([("1_z.json", b'{"intent_type": "suggest_tea"}')], now=datetime.now(UTC))
    decide_at_once(b, "b@1_z.json")

    def die(query: str) -> None:
        if query == "shared_files.withdraw":
            raise KeyboardInterrupt

    b.restart()
    b.db.before = die
    with pytest.raises(KeyboardInterrupt):
        b.sharing.exchange()
    b.exchange()
    assert (list(b.own()), rows(a)) == (["intents/processed/processed/1_z.json"], [])
    assert len((b.state / "suggestions.jsonl").read_text().splitlines()) == 1


def test_what_a_cycle_left_is_no_file_of_the_inbox(hosts: Hosts) -> None:
    a, b = hosts
    rest(a)
    left = {"name": "cycle_00007/promotions.json", "sha256": "", "content": "", "stand_in": "", "changed_at": 0}
    with a.db.transaction():
        a.db.run("shared_files.keep", files=json.dumps([left]))
    rest(a)
    assert rows(a) == [("a", "cycles", "cycle_00007/promotions.json", "there")]
    b.exchange(leading=True)
    assert rows(b) == [], "no cycle of that number waits to be settled"


def test_a_folder_that_cannot_be_written_keeps_its_answers_waiting_and_holds_up_nothing_else(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.intend("y.json")
    a.exchange()
    assert answer(b, "a@x")
    decide(b, "a@y.json")
    acks = a.state / "promotions_ack"
    acks.rmdir()
    acks.write_text("in the way")
    a.exchange()
    assert isinstance(a.sharing.fault, Unwritable)
    a.intend("later.json")
    assert "shared_files.share" in a.exchange()
    acks.unlink()
    a.exchange()
    assert a.sharing.fault is None
    own = [name for name in sorted(a.own()) if "later" not in name]
    assert own == ["intents/processed/processed/y.json", "promotions/x.json", "promotions_ack/x_ack.json"]


# ── The mirror ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_killed_tick_left_in_the_mirror_is_gone_before_the_next_one(hosts: Hosts) -> None:
    a, b = hosts
    text = a.promote("x").read_text()
    asked = a.intend("y.json").read_text()
    a.exchange()
    b.exchange(leading=True)
    mirror = Path(b.sharing.mirror.folder)
    (mirror / "acks" / "a@x_ack.json").write_text("never shared")
    (mirror / "promotions" / "a@gone.json").write_text("{}")
    (mirror / "promotions" / ".a@x.json.1.2.tmp").write_text("{}")
    moved = mirror / "intents" / "processed" / "processed"
    moved.mkdir(parents=True)
    (mirror / "intents" / "a@y.json").rename(moved / "a@y.json")
    b.exchange(leading=True)
    assert b.mirrored() == {"promotions/a@x.json": text, "intents/a@y.json": asked}


def test_a_former_leader_can_share_nothing_of_what_it_has_written(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    b.db.rows("leases.take", epoch=0, seconds=60.0)
    b.db.fence(1)
    b.sharing.exchange(leading=True)
    (Path(b.sharing.mirror.path("acks")) / "a@x_ack.json").write_text("late")
    b.db.fence(None)
    b.db.rows("leases.release")
    a.db.rows("leases.take", epoch=1, seconds=60.0)
    b.db.fence(1)
    with pytest.raises(LeaseLost):
        b.sharing.answer(["a@x"])
    assert rows(a) == [("a", "promotions", "x.json", "there")]
    a.exchange(leading=True)
    assert answer(a, "a@x", "by the one who leads")
    b.exchange(leading=True)
    assert b.mirrored().get("acks/a@x_ack.json") in ("by the one who leads", None)
    a.exchange()
    assert (a.state / "promotions_ack" / "x_ack.json").read_text() == "by the one who leads"


def test_a_mirror_is_made_from_nothing_and_after_a_power_cut(hosts: Hosts) -> None:
    a, b = hosts
    text = a.promote("x").read_text()
    a.exchange()
    b.exchange(leading=True)
    mirrored = Path(b.sharing.mirror.path("promotions", "a@x.json"))
    mirrored.write_text("")  # never synced, it is empty after the cut
    b.boot_id = "another"
    b.exchange(leading=True)
    assert mirrored.read_text() == text
    (b.state / "scope" / "known.json").write_text("torn")
    (b.state / "scope" / "image.json").write_text("{")
    mirrored.unlink()
    b.exchange(leading=True)
    assert mirrored.read_text() == text


def test_a_database_that_was_set_back_is_told_again_what_it_forgot(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    rest(a)
    b.exchange(leading=True)
    with psycopg.connect(a.db.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS TABLE shared_files")
        revision = connection.execute("SELECT revision FROM shared_revision").fetchone()
        a.promote("y")
        rest(a)
        b.exchange(leading=True)
        assert len(b.mirrored()) == 2
        connection.execute("ALTER TABLE shared_files DISABLE TRIGGER USER")  # as a failover to a replica that lagged
        connection.execute("DELETE FROM shared_files")
        connection.execute("INSERT INTO shared_files TABLE kept")
        connection.execute("UPDATE shared_revision SET revision = %s", revision)
        connection.execute("ALTER TABLE shared_files ENABLE TRIGGER USER")
    b.exchange(leading=True)
    assert list(b.mirrored()) == ["promotions/a@x.json"]
    a.exchange()
    b.exchange(leading=True)
    assert sorted(b.mirrored()) == ["promotions/a@x.json", "promotions/a@y.json"]


def test_what_stood_by_sees_all_as_soon_as_it_leads(hosts: Hosts) -> None:
    a, b = hosts
    a.promote("x")
    a.exchange()
    b.exchange()
    b.exchange()
    assert b.mirrored() == {}
    b.exchange(leading=True)
    assert list(b.mirrored()) == ["promotions/a@x.json"]


def test_many_files_are_shared_in_small_transactions(hosts: Hosts) -> None:
    a, b = hosts
    for number in range(1200):
        a.promote(f"p{number}")
    asked = a.exchange()
    assert asked.count("shared_files.share") == 3
    b.exchange(leading=True)
    assert len(b.mirrored()) == 1200
