"""All threads at one look: what metrics, health and page are told of them, over both stores."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from orchestration.bridge import watching
from orchestration.bridge.caller import Role
from orchestration.bridge.census import Census, Tally
from orchestration.bridge.commands import Rules
from orchestration.bridge.guards import Limits
from orchestration.bridge.http.measures import Measures
from orchestration.bridge.http.threads_measured import ThreadsMeasured
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wire import ThreadStatus
from tests.acceptance.bridging import Bridge, caller, play

EXECUTIONER, REVIEWER, ADA = caller("executioner"), caller("reviewer"), caller("operator:ada", Role.OPERATOR)
TIGHT = Rules(limits=Limits(agent_per_minute=0, thread_per_minute=0, max_turns=4, max_repeats=2))


def series(measured: ThreadsMeasured) -> dict[tuple[str, ...], float]:
    """Every series that is not 0, by name and label values."""
    registry = CollectorRegistry()
    registry.register(measured)
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {(sample.name.removeprefix("kloros_bridge_"), *sample.labels.values()): sample.value for sample in samples}


async def looked(bridge: Bridge, tally: Tally) -> dict[tuple[str, ...], float]:
    measured = ThreadsMeasured(tally)
    await bridge.store.count(tally)
    measured.census = await bridge.store.census(bridge.clock())
    return series(measured)


def test_messages_are_counted_by_kind_and_type_and_none_twice(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id, other = await bridge.thread(EXECUTIONER, REVIEWER), await bridge.thread(EXECUTIONER, REVIEWER)
        tally = Tally()
        assert (await looked(bridge, tally))["messages_posted_total", "chat", "none"] == 0
        await bridge.post(EXECUTIONER, thread_id)
        await bridge.post(EXECUTIONER, other)
        await bridge.event(EXECUTIONER, thread_id, "fix_pushed")
        await bridge.event(EXECUTIONER, thread_id, "made up by an agent")
        await bridge.event(EXECUTIONER, thread_id, "thread_status_changed")
        await looked(bridge, tally)
        await bridge.post(REVIEWER, other)
        for _ in range(2):
            found = await looked(bridge, tally)
        assert found == await looked(bridge, Tally()) | {
            key: value for key, value in found.items() if key[0].startswith("last_look")
        }
        counted = {key[1:]: value for key, value in found.items() if key[0] == "messages_posted_total" and value}
        assert counted == {("chat", "none"): 3, ("event", "fix_pushed"): 1, ("event", "other"): 2}
        assert "made up" not in str(found)

    play(place, scene)


def test_a_block_is_counted_for_who_did_it(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        turning, repeated, steered, asked = [await bridge.thread(EXECUTIONER, REVIEWER) for _ in range(4)]
        for _ in range(4):
            await bridge.post(EXECUTIONER, turning)
        for _ in range(2):
            await bridge.event(REVIEWER, repeated, "finding_reported", "F-1")
        await bridge.ask(ADA, "update_thread_status", thread_id=steered, status="blocked", reason="look")
        await bridge.ask(EXECUTIONER, "update_thread_status", thread_id=asked, status="blocked", reason="help")
        await bridge.ask(ADA, "post_message", thread_id=asked, kind="system", body="note")
        found = await looked(bridge, Tally())
        assert {key[1]: value for key, value in found.items() if key[0] == "escalations_total"} == {
            "guard": 2,
            "operator": 1,
            "agent": 1,
        }
        assert found["loop_guards_tripped_total", "turns"] == found["loop_guards_tripped_total", "finding"] == 1
        assert found["threads", "blocked"] == 4
        assert found["messages_posted_total", "system", "thread_escalated"] == 4
        assert found["messages_posted_total", "system", "none"] == 1

    play(place, scene, TIGHT)


def test_who_waits_for_whom_and_since_when(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        third = caller("third")
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER, third)
        began = bridge.clock()
        bridge.clock.passes(60)
        await bridge.post(EXECUTIONER, thread_id, "for the reviewer", to="reviewer")
        bridge.clock.passes(60)
        await bridge.post(EXECUTIONER, thread_id, "for all")
        census = await bridge.store.census(bridge.clock())
        assert [(one.agent_id, one.sender, one.since - began) for one in census.waits] == [
            ("reviewer", "executioner", timedelta(seconds=60)),
            ("third", "executioner", timedelta(seconds=120)),
        ]
        await bridge.ask(REVIEWER, "heartbeat_session", **heartbeat("reviewer"))
        await bridge.ask(REVIEWER, "ack_read", thread_id=thread_id, last_read_seq=2)
        await bridge.ask(third, "ack_read", thread_id=thread_id, last_read_seq=1)
        found = await looked(bridge, Tally())
        assert found["unread_oldest_timestamp_seconds", "active"] == (began + timedelta(seconds=120)).timestamp()
        assert found["participants_behind", "active"] == 1
        census = await bridge.store.census(bridge.clock())
        (shown,) = census.shown
        seats = {seat.agent_id: seat for seat in shown.seats}
        assert {name: seat.last_read_seq for name, seat in seats.items()} == {"executioner": 0, "reviewer": 2, "third": 1}
        assert (seats["reviewer"].heartbeat_at, seats["third"].heartbeat_at) == (bridge.clock(), None)

    play(place, scene)


def heartbeat(agent: str) -> dict[str, Any]:
    return {
        "agent_id": agent,
        "workspace_id": "kloros",
        "session_id": "s-1",
        "runtime": "codex",
        "management_mode": "unmanaged",
        "resumable": True,
        "status": "active",
    }


def test_threads_that_wait_for_a_person_are_shown_first(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        threads = []
        for _ in range(30):
            threads.append(await bridge.thread(EXECUTIONER, REVIEWER))
            bridge.clock.passes(1)
        for thread_id in (threads[3], threads[20]):
            await bridge.ask(ADA, "update_thread_status", thread_id=thread_id, status="blocked", reason="look")
            bridge.clock.passes(1)
        census = await bridge.store.census(bridge.clock())
        assert [one.thread_id for one in census.shown][:3] == [threads[3], threads[20], threads[29]]
        assert len(census.shown) == 20
        assert census.threads == {ThreadStatus.BLOCKED: 2, ThreadStatus.ACTIVE: 28}
        assert census.since[ThreadStatus.BLOCKED] == bridge.clock() - timedelta(seconds=2)

    play(place, scene)


def test_a_store_that_does_not_answer_is_looked_at_again(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        await bridge.thread(EXECUTIONER, REVIEWER)
        tally = Tally()
        measured, told = ThreadsMeasured(tally), asyncio.Queue[Census]()
        flaky = _Flaky(bridge.store)
        watched = asyncio.create_task(watching.watch(flaky, tally, measured, told.put, interval=0.01))
        async with asyncio.timeout(10):
            census = await told.get()
        watched.cancel()
        assert census.threads == {ThreadStatus.ACTIVE: 1}
        assert series(measured)["looks_failed_total",] == 2
        assert measured.census is not None

    play(place, scene)


class _Flaky:
    """A store whose first two counts fail."""

    def __init__(self, store: Any) -> None:
        self._store, self._fails = store, 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def count(self, tally: Tally) -> None:
        if self._fails:
            self._fails -= 1
            raise Refused(Code.UNAVAILABLE, "gone", rule="store.unavailable")
        await self._store.count(tally)


def test_the_reference_names_every_metric_of_the_bridge_with_its_kind_and_every_label(place: str) -> None:
    page = Path(__file__).parents[2].joinpath("docs", "reference", "metrics.md").read_text().partition("## The bridge's")[2]
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `kloros_")}

    async def scene(bridge: Bridge) -> None:
        await bridge.thread(EXECUTIONER, REVIEWER)
        measures, measured = Measures(), ThreadsMeasured(Tally())
        measured.census = await bridge.store.census(bridge.clock())
        measures.add(measured)
        measures.figures = lambda: {
            "keys_age_seconds": 1,
            "log_lines_dropped": 1,
            **{f"store_{name}": 1 for name in bridge.store.figures()},
        }
        families = {family.name: family for family in text_string_to_metric_families(measures.text(openmetrics=False))}
        told = {name + "_total" * (family.type == "counter"): family for name, family in families.items()}
        only_postgres = {name for name, row in rows.items() if "only with PostgreSQL" in row}
        assert rows.keys() - (set() if "://" in place else only_postgres) == told.keys()
        for name, family in told.items():
            assert f"| {family.type} |" in rows[name]
            assert " " in family.documentation
            for sample in family.samples:
                assert all(f"`{label}`" in rows[name] for label in sample.labels if label != "le")
                assert all(f"`{value}`" in page for label, value in sample.labels.items() if label != "le")

    play(place, scene)
