"""What only looks: status, explain, forecast, history, show, logs. It answers before the first tick, and changes nothing."""

from __future__ import annotations

import sqlite3
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest

from orchestration.klorosctl import program
from orchestration.store import sqlite
from tests.acceptance.host import PYTHON, Host

LOOKING = (
    ["status"],
    ["explain"],
    ["explain", "--at", "2026-03-01T03:30"],
    ["forecast"],
    ["history"],
    ["history", "--dates"],
    ["history", "--cycles"],
    ["promotions", "list"],
    ["intents", "list"],
    ["doctor"],
    ["config", "show"],
    ["config", "check"],
    ["tick", "--dry-run"],
)
SHOWING = (["show", "1"], ["logs", "1"], ["promotions", "show", "better"], ["intents", "show", "{intent}"])


def said(host: Host, *arguments: str, code: int = 0) -> str:
    done = host.ctl(*arguments, code=code)
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def busy(host: Host) -> Host:
    """A host with a tick, a D-REAM cycle, promotions in every state, acks of both forms, and an intent."""
    host.stepwise()
    host.promote("better")
    host.decided()
    host.run_queued()
    (host.state / "promotions_ack" / "long-ago.ack.json").write_text('{"promotion_id": "long-ago", "accepted": true}')
    host.promote("waiting")
    host.promote("wrong", fitness=-1)
    host.intend("curiosity_gaps", topic="latency")
    return host


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_it_answers_without_a_state_folder_and_makes_none(host: Host, command: list[str]) -> None:
    before = host.snapshot()
    host.answer(*command)
    assert said(host, *command)
    assert host.snapshot() == before
    assert not host.state.exists()


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_it_answers_for_a_store_without_tables(host: Host, command: list[str]) -> None:
    host.state.mkdir()
    (host.state / "kloros.db").touch()
    before = host.snapshot()
    host.answer(*command)
    assert host.snapshot() == before


@pytest.mark.parametrize("command", [*LOOKING, *SHOWING], ids=" ".join)
def test_it_changes_no_byte(busy: Host, command: list[str]) -> None:
    name = next((busy.state / "intents").glob("*.json")).name
    command = [word.replace("{intent}", name) for word in command]
    before = busy.file_contents()
    assert said(busy, *command)
    assert busy.run("klorosctl", *command, "--json").returncode == 0
    assert busy.file_contents() == before


def test_before_the_first_tick_status_says_what_to_do(host: Host) -> None:
    text = said(host, "status")
    assert "no tick yet" in text
    assert "klorosctl tick" in text


def test_status_has_it_all_on_one_screen(busy: Host) -> None:
    busy.decided()
    text = said(busy, "status")
    for part in ("enabled", "DREAM_CYCLE, cycle 2", "unacked_promotions: unacked: waiting", "next window", "intents: 1 ("):
        assert part in text
    assert len(text.splitlines()) <= 24
    found = busy.answer("status")
    assert found["mode"]["value"] == "enabled"
    assert found["last_tick"]["decision"] == "dream_cycle"
    assert [cycle["cycle"] for cycle in found["cycles"]][-1] == 1
    assert found["queues"]["intents_pending"] == 1


def test_status_is_loud_when_ticks_stopped(host: Host) -> None:
    host.decided()
    assert "TICK STALE" not in said(host, "status")
    earlier = datetime.now(UTC) - timedelta(minutes=14, seconds=5)
    change(host, "UPDATE ticks SET started_at = ?", earlier.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    change(host, "UPDATE counters SET value = ? WHERE name LIKE '%_timestamp_seconds'", earlier.timestamp())
    text = said(host, "status")
    assert "Health     STOPPED" in text
    assert "!! TICK STALE: no tick has decided for 14 min, and none has started, for 14min 5s. Do: klorosctl doctor" in text
    found = host.answer("status")
    assert (found["verdict"], found["stale"]) == ("stopped", True)
    assert [cause["condition"] for cause in found["causes"]] == ["tick_stale"]
    host.set(KLR_ORCHESTRATION_MODE="disabled")
    assert "TICK STALE" not in said(host, "status")


def change(host: Host, statement: str, *values: object) -> None:
    with sqlite3.connect(host.state / "kloros.db") as connection:
        connection.execute(statement, values)
    connection.close()


def test_after_an_upgrade_the_history_is_there_before_the_first_tick(host: Host) -> None:
    host.state.mkdir()
    first = Path(sqlite.__file__).parent / "migrations" / "0001_initial.sql"
    with sqlite3.connect(host.state / "kloros.db") as connection:
        connection.executescript(first.read_text() + "PRAGMA user_version = 1;")
    connection.close()
    columns = "job, state, token, cause, origin, command, timeout_seconds, queued_at"
    origin, at = '{"cause": "intent", "tick_id": "", "promotions": []}', "2026-11-21T00:00:00.000000Z"
    change(host, f"INSERT INTO cycles ({columns}) VALUES ('dream', 'queued', 't', 'intent', ?, '[]', 60, ?)", origin, at)
    before = host.file_contents()
    assert [cycle["cycle"] for cycle in host.answer("status")["cycles"]] == [1]
    assert host.file_contents() == before


def test_status_shows_what_holds_everything_up(host: Host) -> None:
    host.decided()
    host.run("klorosctl", "halt")
    host.run("klorosctl", "maintenance", "on")
    host.set(KLR_ORCHESTRATION_MODE="disabled")
    text = said(host, "status")
    for alarm in ("!! HALTED", "!! MAINTENANCE", "!! DISABLED"):
        assert alarm in text


def test_explain_shows_every_rule_in_order_and_which_one_decided(busy: Host) -> None:
    found = busy.answer("explain")
    rules = [rule["rule"] for rule in found["rules"]]
    assert rules == ["maintenance", "active_cycle", "phase_window", "missed_window", "promotions", "intents"]
    assert [rule["rule"] for rule in found["rules"] if rule["decided"]] == ["promotions"]
    assert [rule["asked"] for rule in found["rules"]] == [True] * 5 + [False]
    assert found["first"]["refused"] == ["wrong"]
    text = said(busy, "explain")
    assert "=> 5 promotions" in text
    assert text.rstrip().endswith("Decision: DREAM_CYCLE")
    assert busy.decided()["decision"] == "dream_cycle"


def test_explain_says_when_no_tick_would_get_so_far(host: Host) -> None:
    host.set(KLR_ORCHESTRATION_MODE="disabled")
    assert "No tick would get this far" in said(host, "explain")
    assert host.answer("explain")["refused"]["reason"] == "disabled"


def new_york(host: Host, opens: str = "03:00", closes: str = "07:00") -> None:
    host.set(KLR_PHASE_TIME_ZONE="America/New_York", KLR_PHASE_WINDOW_OPENS=opens, KLR_PHASE_WINDOW_CLOSES=closes)


@pytest.mark.parametrize(
    ("at", "utc", "decision"),
    [
        ("2027-01-10T03:05", "2027-01-10T08:05", "phase"),
        ("2027-01-10T08:05:00Z", "2027-01-10T08:05", "phase"),
        ("2027-01-10T02:59:59", "2027-01-10T07:59:59", "noop"),
        ("2027-07-10T03:05", "2027-07-10T07:05", "phase"),
    ],
)
def test_explain_answers_for_another_instant(host: Host, at: str, utc: str, decision: str) -> None:
    new_york(host)
    found = host.answer("explain", "--at", at)
    assert found["at"].startswith(utc)
    assert found["decision"] == decision


@pytest.mark.parametrize(
    ("at", "hint"),
    [
        ("2027-03-14T02:30", "does not exist"),
        ("2027-11-07T01:30", "is there twice"),
        ("soon", "is not a time"),
        ("0001-01-01", "is more than 3660 days away"),
        ("1999-01-01", "is more than 3660 days away"),
        ("9999-12-31T23:59:59Z", "is more than 3660 days away"),
    ],
)
def test_explain_asks_back_when_a_time_is_not_one_instant(host: Host, at: str, hint: str) -> None:
    new_york(host)
    assert hint in said(host, "explain", "--at", at, code=64)


def test_forecast_marks_clock_changes_and_lost_windows(host: Host) -> None:
    new_york(host, "02:00", "03:00")
    before = datetime.now(ZoneInfo("America/New_York")).date()
    days = host.answer("forecast", "--days", "400")
    today = date.fromisoformat(days[0]["date"])
    assert before <= today <= datetime.now(ZoneInfo("America/New_York")).date()
    assert [day["date"] for day in days] == [str(today + timedelta(days=number)) for number in range(400)]
    changes = {day["clock_change"] for day in days}
    assert {"clocks go forward 1h, EST to EDT", "clocks go back 1h, EDT to EST"} <= changes
    lost = [day for day in days if day["empty"]]
    assert lost
    assert all("forward" in day["clock_change"] and "no window" in day["remark"] for day in lost)
    assert "no window: the clock change leaves it no time" in said(host, "forecast", "--days", "400")


def test_forecast_says_when_a_window_is_moved(host: Host) -> None:
    new_york(host, "02:30", "07:00")
    moved = [day for day in host.answer("forecast", "--days", "400") if day["remark"]]
    assert moved
    assert all(day["remark"] == "opens 03:30, for 02:30 does not exist" for day in moved)


def test_history_shows_ticks_of_a_date_and_cycles(busy: Host) -> None:
    ticks = busy.answer("history", "--limit", "1")
    assert len(ticks) == 1
    newest = [tick["tick"] for tick in busy.answer("history")]
    assert newest == sorted(newest, reverse=True)
    instants = {1: "2026-02-28T23:59:59.999999Z", 2: "2026-03-01T00:00:00.000000Z"}
    for number, instant in instants.items():
        change(busy, "UPDATE ticks SET started_at = ? WHERE tick = ?", instant, number)
    for number, instant in instants.items():
        assert [tick["tick"] for tick in busy.answer("history", "--date", instant[:10])] == [number]
    assert [cycle["cycle"] for cycle in busy.answer("history", "--cycles")] == [1]
    assert "cycle 1: unacked_promotions" in said(busy, "history")
    assert "is not a date" in said(busy, "history", "--date", "yesterday", code=64)


def test_history_shows_phase_dates(host: Host) -> None:
    host.decided()
    assert "No date is accounted for yet" in said(host, "history", "--dates")
    day = (datetime.now(UTC) - timedelta(days=3)).date()
    change(host, "UPDATE facts SET value = ? WHERE name = 'phase.accounted_through'", str(day))
    host.decided()
    dates = host.answer("history", "--dates")
    assert dates
    assert {day["result"] for day in dates} == {"skipped"}
    assert str(day + timedelta(days=1)) in said(host, "history", "--dates")


def test_show_tells_everything_about_a_cycle(busy: Host) -> None:
    found = busy.answer("show", "1")
    assert found["state"] == "succeeded"
    assert found["origin"]["promotions"] == ["better"]
    assert found["answers"][0]["state"] == "accepted"
    assert {"manifest.json", "logs/output.log", "artifacts/verdicts.json"} <= {file["path"] for file in found["files"]}
    assert found["output_tail"]
    assert "token" not in found
    text = said(busy, "show", "cycle_00001")
    for part in ("succeeded", "orchestration.promotions.trial", "better", "Settled", "verdicts.json", "deadline 30min"):
        assert part in text


@pytest.mark.parametrize("command", [["show", "7"], ["logs", "7"], ["cancel", "7"], ["show", "seven"]], ids=" ".join)
def test_an_unknown_cycle_is_answered_with_what_there_is(busy: Host, command: list[str]) -> None:
    message = said(busy, *command, code=64)
    assert "there is no cycle" in message
    assert "1 to 1" in message
    assert "Traceback" not in message


def test_unknown_names_are_answered_with_what_there_is(busy: Host) -> None:
    assert "better" in said(busy, "promotions", "show", "beter", code=64)
    assert "curiosity_gaps" in said(busy, "intents", "show", "curiosity", code=64)
    assert "status" in said(busy, "statsu", code=64)


def test_every_command_speaks_json() -> None:
    silent = [path for path, command in leaves(program, "klorosctl") if "--json" not in options(command)]
    assert silent == []


def leaves(group: click.Group, path: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += leaves(command, f"{path} {name}") if isinstance(command, click.Group) else [(f"{path} {name}", command)]
    return found


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def test_status_imports_nothing_heavy(host: Host) -> None:
    host.decided()
    assert host.run("klorosctl", "baseline", "set", "rate=0.01", "--reason", "it is shown too").returncode == 0
    code = "import sys; from orchestration.klorosctl import main; main(['status']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([PYTHON, "-c", code], env=host.environ, capture_output=True, text=True, check=True)
    assert "Last tick" in done.stdout
    assert "Baseline   version 1" in done.stdout
    assert {"pydantic", "subprocess", "dateutil", "prometheus_client"} & set(done.stderr.split()) == set()


def test_without_a_command_it_helps(host: Host) -> None:
    text = said(host)
    assert "forecast" in text
    assert "klorosctl " in said(host, "--version")


def test_show_names_a_failed_phases_report_without_a_checksum_it_does_not_have(host: Host) -> None:
    host.set(**host.window(opens_in=-timedelta(hours=1)))
    host.set(KLR_PHASE_COMMAND="sh -c 'echo {} > $KLR_CYCLE_DIR/artifacts/report.json; exit 1'")
    host.tick("--wait")
    shown = host.run("klorosctl", "show", "1").stdout
    assert "artifacts/report.json" in shown
    assert "None" not in shown
