"""What a host knows of its threads: told by the bridge, judged by ticks, shown by Pulse; nothing where there are none."""

from __future__ import annotations

import json
import signal
import time
from contextlib import closing
from datetime import timedelta
from typing import Any

from orchestration.bridge.caller import Role
from orchestration.bridge.census import Tally
from orchestration.bridge.telling import AGAIN_AFTER, SHOWN, Teller
from orchestration.host import clock
from orchestration.store.opening import Place
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.bridging import Bridge, Clock, caller, play
from tests.acceptance.host import Host
from tests.acceptance.serving import serving
from tests.acceptance.talking import Agent, issue
from tests.acceptance.test_notices import urls
from tests.acceptance.webhook import Webhook
from tests.waiting import until

EXECUTIONER, REVIEWER, ADA = caller("executioner"), caller("reviewer"), caller("operator:ada", Role.OPERATOR)
OURS = {"bridge_silent", "threads_blocked", "messages_unread"}


def causes(host: Host) -> dict[str, str]:
    """Tick, and return what of ours the verdict rests on, with its evidence."""
    host.decided()
    latest = json.loads((host.state / "latest.json").read_text())
    return {one["condition"]: one["evidence"] for one in latest["causes"] if one["condition"] in OURS}


def document(host: Host) -> Any:
    done = host.run("klorosctl", "pulse", "build", "--out", str(host.home / "page"))
    assert done.returncode == 0, done.stderr
    return json.loads((host.home / "page" / "data" / "dashboard.json").read_text())


def tell(host: Host, place: str, *, age: timedelta = timedelta(0), serving: bool = True) -> None:
    """Have a server tell, that long ago, what it sees."""

    async def scene(bridge: Bridge) -> None:
        tally = Tally()
        await bridge.store.count(tally)
        census = await bridge.store.census(clock.now() - age)
        await Teller(Place(str(host.state / "kloros.db")), tally).tell(census, serving=serving)

    play(place, scene)


def talk(place: str, *, age: timedelta = timedelta(0), blocked: bool = False) -> str:
    """Have the executioner say something to the reviewer, that long ago."""

    async def scene(bridge: Bridge) -> str:
        assert isinstance(bridge.clock, Clock)
        bridge.clock.at = clock.now() - age
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        await bridge.post(EXECUTIONER, thread_id, "done")
        if blocked:
            await bridge.ask(ADA, "update_thread_status", thread_id=thread_id, status="blocked", reason="look <b>")
        return thread_id

    return play(place, scene)


def test_a_host_that_only_ticks_shows_nothing(host: Host) -> None:
    host.decided()
    assert causes(host) == {}
    assert document(host)["threads"] is None
    assert "Threads of agents" not in (host.home / "page" / "index.html").read_text()


def test_no_word_of_threads_where_there_are_none(host: Host) -> None:
    host.decided()
    tell(host, str(host.state / "kloros.db"))
    assert document(host)["threads"] is None


def test_a_blocked_thread_waits_for_a_person(host: Host, place: str) -> None:
    host.decided()
    thread_id = talk(place, blocked=True)
    tell(host, place)
    assert causes(host) == {"threads_blocked": f"1 thread is blocked until a person has looked, {thread_id} for longest"}
    found = document(host)["threads"]
    assert found["totals"] == {"active": 0, "blocked": 1, "resolved": 0, "closed": 0}
    assert found["escalations"] == {"guard": 0, "operator": 1, "agent": 0}
    (shown,) = found["newest"]
    assert (shown["thread_id"], shown["reason"]) == (thread_id, "escalated: look <b>")
    page = (host.home / "page" / "index.html").read_text()
    assert "Threads of agents" in page
    assert "look &lt;b&gt;" in page


def test_a_message_that_nobody_reads_is_told_after_an_hour(host: Host, place: str) -> None:
    host.decided()
    thread_id = talk(place, age=timedelta(minutes=59))
    tell(host, place)
    assert causes(host) == {}
    (waits,) = document(host)["threads"]["waits"]
    assert (waits["agent_id"], waits["sender"]) == ("reviewer", "executioner")
    other = talk(place, age=timedelta(hours=2, minutes=5))
    tell(host, place)
    evidence = f"reviewer has not read for 2 h 5 min what was said in {other}; 2 are behind"
    assert causes(host) == {"messages_unread": evidence}
    assert thread_id != other


def test_a_server_that_falls_silent_is_told_and_one_that_was_stopped_is_not(host: Host, place: str) -> None:
    host.decided()
    talk(place)
    tell(host, place, age=timedelta(minutes=5))
    evidence = "the bridge has told nothing of its threads for 5 min, and was not stopped"
    assert causes(host) == {"bridge_silent": evidence}
    tell(host, place, age=timedelta(minutes=5), serving=False)
    assert causes(host) == {}


def test_a_bridge_that_failed_and_tells_again_is_told_as_well_again(host: Host, place: str) -> None:
    with Webhook() as webhook:
        urls(host, webhook.url)
        host.set(KLR_NOTICES_SETTLE="0s")
        host.stepwise()
        host.decided()
        talk(place)
        tell(host, place, age=timedelta(minutes=5))
        (host.state / "notices").mkdir(parents=True)
        note = {"ts": time.time(), "unit": "kloros-bridge.service", "result": "signal", "exit_status": "KILL"}
        (host.state / "notices" / "kloros-bridge.service-KILL.json").write_text(json.dumps(note))

        def titles() -> list[str]:
            host.decided()
            assert host.run("run_notice").returncode == 0
            return sorted(title.partition(": ")[2] for title in webhook.titles)

        failed = ["KLoROS is degraded: bridge_silent", "kloros-bridge.service failed"]
        assert titles() == failed
        tell(host, place, age=timedelta(0), serving=False)
        assert titles() == ["KLoROS is degraded: bridge_silent", "KLoROS is ok again", "kloros-bridge.service failed"]
        tell(host, place)
        assert "the bridge serves again" in titles()


def test_what_has_not_changed_is_told_once_a_minute(host: Host, place: str) -> None:
    host.decided()
    talk(place)
    path = str(host.state / "kloros.db")

    async def scene(bridge: Bridge) -> list[str]:
        teller, told = Teller(Place(path), Tally()), []
        for seconds in (0, 5, AGAIN_AFTER - 1, AGAIN_AFTER):
            census = await bridge.store.census(clock.now() + timedelta(seconds=seconds))
            await teller.tell(census)
            with closing(SqliteDatabase(path)) as db:
                told += [json.loads(str(row["value"]))["at"] for row in db.rows("facts.get", name=SHOWN)]
        return told

    told = play(place, scene)
    assert told[0] == told[1] == told[2] < told[3]


def test_a_bridge_whose_host_has_no_store_tells_nobody(host: Host, place: str) -> None:
    talk(place)
    path = str(host.state / "elsewhere.db")

    async def scene(bridge: Bridge) -> None:
        await Teller(Place(path), Tally()).tell(await bridge.store.census(clock.now()))

    play(place, scene)
    assert not (host.state / "elsewhere.db").exists()


def test_the_server_counts_and_tells_and_klorosctl_does_without_it(host: Host) -> None:
    host.decided()
    with serving(host, "--bridge", KLR_BRIDGE_MAX_TURNS="3") as served:
        executioner = Agent(served, issue(host, "executioner"))
        asked: dict[str, Any] = {"workspace_id": "kloros", "title": "Retry", "participants": ["reviewer"]}
        thread_id = executioner.ask("create_thread", **asked)["thread_id"]
        for _ in range(3):
            executioner.ask("post_message", thread_id=thread_id, body="again")
        until(lambda: 'loop_guards_tripped_total{guard="turns"} 1.0' in served.get("/metrics").text, what="it is counted")
        text = served.get("/metrics").text
        assert 'kloros_bridge_messages_posted_total{kind="chat",event_type="none"} 3.0' in text
        assert 'kloros_bridge_delivery_failures_total{by="read"} 0.0' in text
        until(lambda: document(host)["threads"], what="it is told")
        assert causes(host).keys() == {"threads_blocked"}
        assert "Threads of agents" in served.get("/").text
        assert served.stop() == 0
    assert not document(host)["threads"]["serving"]
    assert host.run("klorosctl", "unblock-thread", "--thread-id", thread_id).returncode == 0
    assert causes(host) == {}


def test_a_server_that_was_killed_has_not_said_that_it_ends(host: Host) -> None:
    host.decided()
    with serving(host, "--bridge") as served:
        executioner = Agent(served, issue(host, "executioner"))
        executioner.ask("create_thread", workspace_id="kloros", title="Retry", participants=["reviewer"])
        until(lambda: document(host)["threads"], what="it is told")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(10)
    assert document(host)["threads"]["serving"]
