"""Which promotions are unacked, told from names; and that no acked file is ever opened."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.promotions import ledger
from orchestration.promotions.reading import Sorted, read_promotions
from orchestration.promotions.scan import Scan, compare, list_unacked, scan_unacked
from orchestration.store.sqlite import SqliteDatabase

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
VALID = {
    "schema": "v1",
    "id": "p",
    "timestamp": 1761087721,
    "fitness": 0.9,
    "changes": {"learning_rate": 0.01},
}


class Host:
    """Two folders and a store."""

    def __init__(self, root: Path) -> None:
        self.promotions = root / "promotions"
        self.acks = root / "promotions_ack"
        self.promotions.mkdir()
        self.acks.mkdir()
        self.db = SqliteDatabase(str(root / "kloros.db"))

    def promote(self, *names: str, **fields: object) -> None:
        for name in names:
            content = {**VALID, "id": name.removesuffix(".json"), **fields}
            (self.promotions / name).write_text(json.dumps(content))

    def ack(self, *names: str, content: str = "{}") -> None:
        for name in names:
            (self.acks / name).write_text(content)

    def scan(self, *, remember: bool = True) -> Scan:
        return scan_unacked(self.db, promotions_dir=str(self.promotions), acks_dir=str(self.acks), remember=remember)

    def read(self, *names: str, now: datetime | None = None, answers: frozenset[str] = frozenset()) -> Sorted:
        return read_promotions(
            str(self.promotions),
            names,
            bounds={},
            strict=False,
            now=now or datetime.now(UTC),
            older_answers=answers,
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    one = Host(tmp_path)
    yield one
    one.db.close()


def test_a_promotion_is_unacked_until_its_stem_has_an_ack(host: Host) -> None:
    host.promote("b.json", "a.json", "acked.json", "with.dots.promotion.json", "dotted.v2.json")
    host.ack("acked_ack.json", "dotted.v2_ack.json")

    assert host.scan().waiting == ["a.json", "b.json", "with.dots.promotion.json"]


def test_missing_folders_are_empty(tmp_path: Path) -> None:
    listing = list_unacked(str(tmp_path / "none"), str(tmp_path / "nowhere"))

    assert listing.unacked == []
    assert listing.others == []


@pytest.mark.parametrize(
    "name", [".hidden.json", ".p.json.1.2.tmp", "p.json.tmp", "p.txt", "p", ".json", "p.JSON", "json", "p.json~"]
)
def test_other_names_are_no_promotions(host: Host, name: str) -> None:
    (host.promotions / name).write_text("{}")

    assert host.scan().waiting == []


@pytest.mark.parametrize(
    ("promotion", "ack"),
    [
        ("x_ack.json", "x_ack.json"),  # its own ack would be x_ack_ack.json
        ("x.json", "x_ack.json.tmp"),
        ("x.json", ".x_ack.json"),
        ("x.json", "xx_ack.json"),
        ("x.json", "x_ackXjson"),
        ("x.json", "x.json"),
        ("a_ack.json.json", "a_ack.json"),
    ],
)
def test_a_similar_name_is_no_ack(host: Host, promotion: str, ack: str) -> None:
    host.promote(promotion)
    host.ack(ack)

    assert host.scan().waiting == [promotion]


def test_odd_names_are_told_apart(host: Host) -> None:
    host.promote("new\nline.json", "ümlaut.json", "x_ack.json")
    host.ack("new\nline_ack.json", "ümlaut_ack.json", "x_ack_ack.json")

    assert host.scan() == Scan([], [], frozenset())


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("rag_opt_1761087721.ack.json", "rag_opt:1761087721"),
        ("20251021_230201.json", "rag_opt:1761087721"),
        ("20251021_230201_ack.json", "rag_opt:1761087721"),
        ("ack_1761087721.json", "rag_opt_1761087721"),
    ],
)
def test_acks_of_the_older_forms_count(host: Host, name: str, answers: str) -> None:
    host.promote("rag_opt_1761087721.json", "other.json")
    host.ack(name, content=json.dumps({"promotion_id": answers, "status": "applied"}))

    assert host.scan().waiting == ["other.json"]
    assert host.scan(remember=False).waiting == ["other.json"]


def test_an_older_ack_is_opened_once_in_its_life(host: Host) -> None:
    host.promote("old.json")
    host.ack("20251021.json", content='{"promotion_id": "old"}')
    host.ack("20251022.json", content="not an ack")
    os.utime(host.acks / "20251022.json", (1, 1))
    assert host.scan().waiting == []

    for name in ("20251021.json", "20251022.json"):
        (host.acks / name).unlink()
        os.mkfifo(host.acks / name)  # an attempt to open it would find no file

    assert host.scan().waiting == []


def test_a_dry_run_remembers_nothing(host: Host) -> None:
    host.promote("old.json")
    host.ack("20251021.json", content='{"promotion_id": "old"}')

    host.scan(remember=False)

    assert host.db.rows("promotions.older_acks") == []


def test_an_older_ack_that_is_being_written_is_asked_again(host: Host) -> None:
    host.promote("old.json")
    host.ack("20251021.json", content='{"promotion_id": "ol')
    assert host.scan().waiting == ["old.json"]

    host.ack("20251021.json", content='{"promotion_id": "old"}')

    assert host.scan().waiting == []


def test_an_older_ack_that_was_removed_answers_nothing(host: Host) -> None:
    host.promote("old.json")
    host.ack("20251021.json", "20251023.json", content='{"promotion_id": "old"}')
    host.scan()
    (host.acks / "20251021.json").unlink()
    assert host.scan().waiting == []
    (host.acks / "20251023.json").unlink()
    host.ack("20251024.json", content='{"promotion_id": "another"}')

    assert host.scan().waiting == ["old.json"]


def test_an_older_ack_that_is_no_file_answers_nothing_and_holds_up_nothing(host: Host, tmp_path: Path) -> None:
    host.promote("old.json")
    outside = tmp_path / "outside.json"
    outside.write_text('{"promotion_id": "old"}')
    (host.acks / "20251021.json").symlink_to(outside)
    (host.acks / "20251022.json").mkdir()
    os.mkfifo(host.acks / "20251023.json")

    assert host.scan().waiting == ["old.json"]


def test_an_older_ack_answers_by_an_id_that_is_not_the_stem(host: Host) -> None:
    host.promote("spica.promotion.json", id="spica:7")
    host.ack("spica_7.ack.json", content='{"promotion_id": "spica:7"}')

    first = host.scan()
    found = host.read(*first.waiting, answers=first.older_answers)
    assert [(one.stem, one.promotion_id) for one in found.answered] == [("spica.promotion", "spica:7")]
    assert found.candidates == ()
    ledger.see(host.db, "spica.promotion", promotion_id="spica:7", fitness=0.9, at=NOW)

    assert host.scan().waiting == []


def test_an_older_ack_answers_a_promotion_of_an_older_format_too(host: Host) -> None:
    content = {"promotion_id": "spica:7", "winner": {"params": {}}, "apply_map": {}}
    (host.promotions / "spica.promotion.json").write_text(json.dumps(content))
    host.ack("spica_7.ack.json", content='{"promotion_id": "spica:7"}')

    first = host.scan()
    found = host.read(*first.waiting, answers=first.older_answers)

    assert [one.promotion_id for one in found.answered] == ["spica:7"]
    assert found.refused == ()


def test_parked_promotions_are_told_apart(host: Host) -> None:
    host.promote("a.json", "b.json")
    for stem in ("a", "b"):
        ledger.see(host.db, stem, promotion_id=stem, fitness=0.9, at=NOW)
    ledger.fail(host.db, ["b"], cycle=1, reason="exit 1", park_after=1, at=NOW)

    found = host.scan()

    assert found.waiting == ["a.json"]
    assert found.parked == ["b.json"]


def test_no_acked_file_is_ever_opened(host: Host, opened: list[str]) -> None:
    host.promote("acked.json", "unacked.json")
    host.ack("acked_ack.json", "gone_ack.json", "20251021.json")
    opened.clear()

    found = host.scan()
    host.read(*found.waiting)

    assert str(host.promotions / "unacked.json") in opened
    assert str(host.acks / "20251021.json") in opened
    assert not [path for path in opened if "acked_ack" in path or "gone_ack" in path or path.endswith("/acked.json")]


def test_a_quiet_scan_opens_nothing_and_asks_the_store_nothing(host: Host, opened: list[str]) -> None:
    host.promote("acked.json")
    host.ack("acked_ack.json", "older.ack.json")
    host.db.close()
    opened.clear()

    assert host.scan().waiting == []
    assert opened == []


NAMES = st.lists(
    st.from_regex(r"\A(a|b|_ack|\.json|\.|\.ack|1|é){1,6}\Z").filter(lambda name: name not in (".", "..")), unique=True
)


@given(promotions=NAMES, acks=NAMES)
def test_the_fast_comparison_is_the_plain_one(promotions: list[str], acks: list[str]) -> None:
    plain = [name for name in promotions if name.endswith(".json") and not name.startswith(".")]

    found = compare(promotions, acks)

    assert found.unacked == sorted(name for name in plain if f"{name[:-5]}_ack.json" not in acks)
    assert set(found.others) <= set(acks) - {f"{name[:-5]}_ack.json" for name in plain}


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The paths that this process opens, by the interpreter's own audit events (sys.addaudithook)."""
    import sys

    seen: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], str):
            seen.append(arguments[0])

    sys.addaudithook(hook)
    yield seen
    watching = False


def test_a_valid_file_is_a_candidate(host: Host) -> None:
    host.promote("p.json")

    (one,) = host.read("p.json").candidates

    assert one.stem == "p"
    assert one.path == str(host.promotions / "p.json")


def test_what_is_no_regular_file_is_refused_without_waiting(host: Host, tmp_path: Path) -> None:
    outside = tmp_path / "secret.json"
    outside.write_text(json.dumps(VALID))
    (host.promotions / "folder.json").mkdir()
    (host.promotions / "out.json").symlink_to(outside)
    (host.promotions / "circle.json").symlink_to("circle.json")
    os.mkfifo(host.promotions / "fifo.json")
    (host.promotions / "fifo_link.json").symlink_to("fifo.json")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(host.promotions / "socket.json"))
        found = host.read(*host.scan().waiting)

    assert {one.stem: one.reason for one in found.refused} == {
        "circle": "the file is a symbolic link that leads in a circle",
        "fifo": "not a regular file but a FIFO",
        "fifo_link": "not a regular file but a FIFO",
        "folder": "not a regular file but a folder",
        "out": f"the file is a symbolic link that leads out of the folder, to {str(outside)!r}",
        "socket": "not a regular file but a socket",
    }
    assert found.candidates == ()
    assert found.left == ()


def test_a_link_inside_the_folder_is_followed_and_one_to_nothing_is_left(host: Host) -> None:
    host.promote("real.json")
    (host.promotions / "inside.json").symlink_to("real.json")
    (host.promotions / "dangling.json").symlink_to("later.json")

    found = host.read("dangling.json", "inside.json", "real.json")

    assert [one.stem for one in found.candidates] == ["inside", "real"]
    assert [one.name for one in found.left] == ["dangling.json"]


def test_a_file_that_vanished_is_nothing(host: Host) -> None:
    assert host.read("gone.json") == Sorted(candidates=(), refused=(), left=(), answered=())


def test_half_a_file_is_left_while_it_is_fresh_and_refused_when_it_stays(host: Host) -> None:
    path = host.promotions / "half.json"
    path.write_text(json.dumps(VALID)[:30])
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)

    fresh = host.read("half.json", now=changed + timedelta(seconds=0.9))
    stale = host.read("half.json", now=changed + timedelta(seconds=1.1))

    assert [one.name for one in fresh.left] == ["half.json"]
    assert fresh.refused == ()
    assert "not JSON" in stale.refused[0].reason


def test_a_clock_that_jumped_back_keeps_no_malformed_file_for_ever(host: Host) -> None:
    path = host.promotions / "half.json"
    path.write_text("{")

    found = host.read("half.json", now=datetime.now(UTC) - timedelta(days=1))

    assert [one.stem for one in found.refused] == ["half"]


def test_a_complete_but_invalid_file_is_refused_however_fresh(host: Host) -> None:
    host.promote("p.json", fitness=-1)

    (refused,) = host.read("p.json").refused

    assert refused.reason == "fitness: -1 is below 0"
    assert refused.promotion_id == "p"


def test_a_file_that_we_may_not_read_is_left(host: Host) -> None:
    host.promote("p.json")
    (host.promotions / "p.json").chmod(0)
    nobody = 65534
    if os.geteuid() == 0:
        os.seteuid(nobody)
    try:
        found = host.read("p.json")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)

    assert [(one.name, one.reason) for one in found.left] == [("p.json", "can't be read: Permission denied")]


def test_a_name_that_no_ack_can_have_is_left(host: Host) -> None:
    name = f"{'x' * 249}.json"
    host.promote(name)
    with open(os.fsencode(host.promotions) + b"/\xff.json", "wb") as file:
        file.write(b"{}")

    found = host.read(*host.scan().waiting)

    assert [one.name for one in found.left] == [name, "\udcff.json"]
    assert "rename it" in found.left[0].reason
    assert "rename it" in found.left[1].reason
