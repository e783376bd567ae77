"""Notices and heartbeats, by real processes to a real HTTP server: told once, taken back, held back, tried again."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.webhook import Webhook
from tests.waiting import until


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as webhook:
        yield webhook


def urls(host: Host, *lines: str, mode: int = 0o600) -> Path:
    """Name whom to tell, on a host without systemd."""
    path = host.home / "notices.urls"
    path.write_text("# whom to tell\n\n" + "".join(f"{line}\n" for line in lines))
    path.chmod(mode)
    host.set(KLR_NOTICES_URLS_FILE=str(path), KLR_LAUNCHER="detached")
    return path


@pytest.fixture
def told(host: Host, webhook: Webhook) -> Host:
    """A host that tells the webhook, and good news at once; its verdict is ok."""
    urls(host, webhook.url)
    host.set(KLR_NOTICES_SETTLE="0s")
    host.decided()
    return host


def maintenance(host: Host, on: bool) -> None:
    path = host.state / "maintenance_mode"
    path.touch() if on else path.unlink()


def idle(host: Host) -> None:
    """Wait until no notifier is at work, so that the next tick's is not turned away."""
    lock = host.state / "locks" / "notice.lock"

    def free() -> bool:
        import fcntl

        if not lock.exists():
            return True
        with lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    until(free, "the notifier ends")


def seen(host: Host) -> str:
    """What the notifier last saw."""
    (value,) = host.rows("SELECT coalesce((SELECT value FROM facts WHERE name = 'notices.seen'), '')")[0]
    return str(value)


def test_a_verdict_is_told_once_and_taken_back_once(told: Host, webhook: Webhook) -> None:
    assert webhook.got == []
    maintenance(told, on=True)
    told.decided()
    (first,) = webhook.until(1)
    assert first.document["type"] == "warning"
    assert "KLoROS is degraded: maintenance" in first.document["title"]
    assert "do: klorosctl maintenance off" in first.document["message"]
    assert " UTC" in first.document["message"]
    until(lambda: "maintenance" in seen(told), "it is noted")
    for _ in range(3):
        told.decided()
    assert told.run("run_notice").returncode == 0
    assert len(webhook.got) == 1, "told once"
    maintenance(told, on=False)
    told.decided()
    webhook.until(2)
    assert webhook.titles[1].endswith("KLoROS is ok again")
    assert [request.document["type"] for request in webhook.got] == ["warning", "success"]


def test_only_news_is_a_kick(host: Host, webhook: Webhook) -> None:
    urls(host, webhook.url)
    host.stepwise()
    kick = host.state / "kick" / "notice"
    host.decided()
    assert not kick.exists(), "all is well, and nobody was ever told anything"
    maintenance(host, on=True)
    for _ in range(2):
        host.decided()
        assert kick.exists(), "a kick that is lost is made up for by the next tick"
        kick.unlink()
    assert host.run("run_notice").returncode == 0
    assert len(webhook.got) == 1
    host.decided()
    assert not kick.exists(), "it was told"


def test_the_rate_limit_outlives_the_process(told: Host, webhook: Webhook) -> None:
    told.set(KLR_NOTICES_PER_HOUR="1")
    maintenance(told, on=True)
    told.decided()
    webhook.until(1)
    assert "1 within an hour" in webhook.got[0].document["message"]
    idle(told)
    maintenance(told, on=False)
    told.decided()
    for _ in range(2):
        assert told.run("run_notice").returncode == 0
    assert len(webhook.got) == 1


def test_a_server_that_is_down_is_tried_again_and_meanwhile_status_and_doctor_say_so(host: Host) -> None:
    with Webhook() as gone:
        urls(host, gone.url)
    host.set(KLR_NOTICES_BACKOFF="0s")
    maintenance_on = host.state / "maintenance_mode"
    host.state.mkdir(exist_ok=True)
    maintenance_on.touch()
    assert host.tick().returncode == 0
    until(lambda: host.run("klorosctl", "status", "--json").stdout.count("KLoROS is degraded"), "it is not delivered")
    assert "line 3 (json://…): not taken" in host.run("klorosctl", "status").stdout
    doctor = json.loads(host.run("klorosctl", "doctor", "--json").stdout)
    (check,) = [one for one in doctor["checks"] if one["name"] == "notices"]
    assert check["level"] == "warning"
    idle(host)
    with Webhook(gone.port) as back:
        host.decided()  # which asks again, for what is on its way
        back.until(1)
        until(lambda: json.loads(host.run("klorosctl", "status", "--json").stdout)["notices_undelivered"] == [], "told")
        host.decided()
        assert len(back.got) == 1


def test_who_takes_html_gets_the_text_escaped_with_its_lines(host: Host, webhook: Webhook) -> None:
    urls(host, f"{webhook.url}?format=html")
    folder = host.state / "notices"
    folder.mkdir(parents=True)
    note = {"ts": time.time(), "unit": "a<b>.service", "result": "exit-code", "exit_status": "1"}
    (folder / "unit.json").write_text(json.dumps(note))
    assert host.run("run_notice").returncode == 0
    (message,) = [request.document["message"] for request in webhook.got]
    assert "a&lt;b&gt;.service" in message
    assert message.count("<br") > 5


def test_a_refusing_server_has_not_taken_it(told: Host, webhook: Webhook) -> None:
    webhook.status = 500
    maintenance(told, on=True)
    told.decided()
    webhook.until(1)
    until(lambda: "not taken" in told.run("klorosctl", "status").stdout, "it is not delivered")


def test_a_server_that_does_not_answer_makes_no_tick_longer(told: Host, webhook: Webhook) -> None:
    webhook.go_on.clear()
    maintenance(told, on=True)
    began = time.monotonic()
    told.decided()
    usual = time.monotonic() - began
    webhook.until(1)
    began = time.monotonic()
    for _ in range(3):
        told.decided()
    assert time.monotonic() - began < 3 * usual + 3, "the notifier is waiting for its answer all the while"
    assert not webhook.go_on.is_set()


def test_a_notifier_that_is_killed_while_it_sends_is_made_up_for(told: Host, webhook: Webhook) -> None:
    webhook.go_on.clear()
    told.stepwise()
    maintenance(told, on=True)
    told.decided()
    with subprocess.Popen(told.command("run_notice"), env=told.environ, stderr=subprocess.DEVNULL) as process:
        webhook.until(1)
        process.kill()
    webhook.go_on.set()
    assert told.run("run_notice").returncode == 0
    assert webhook.titles == [webhook.titles[0]] * 2, "rather twice than never"
    assert told.run("run_notice").returncode == 0
    assert len(webhook.got) == 2


def test_urls_that_others_may_read_are_not_used(host: Host, webhook: Webhook) -> None:
    path = urls(host, webhook.url, mode=0o644)
    host.state.mkdir()
    maintenance(host, on=True)
    host.decided()
    done = host.run("run_notice")
    assert done.returncode == 0
    assert f"chmod 600 {path}" in done.stderr
    assert webhook.got == []
    assert seen(host).endswith(" maintenance"), "looked at again in five minutes, and not by every tick"
    path.chmod(0o600)
    assert host.run("run_notice").returncode == 0
    assert len(webhook.got) == 1, "it did not count as told"


def test_a_url_that_fails_keeps_no_other_from_being_told_and_none_is_ever_shown(host: Host, webhook: Webhook) -> None:
    urls(host, "json://user:hunter2@127.0.0.1:9/secret", webhook.url, "nonsense://hunter2")
    host.state.mkdir()
    maintenance(host, on=True)
    host.decided()
    idle(host)
    shown = host.run("run_notice").stderr + host.run("klorosctl", "status").stdout + host.run("run_notice", "--test").stdout
    assert "line 5 (nonsense://…): no URL that Apprise knows" in shown
    assert "1 of 3 reached" in shown
    assert "hunter2" not in shown + (host.state / "logs" / "run_notice.log").read_text()
    assert webhook.titles[-1].endswith(": a test")


def test_a_unit_failure_is_told_although_the_settings_are_invalid(host: Host, webhook: Webhook) -> None:
    """As `kloros-alert@.service` leaves it; the URLs come from systemd's credential then."""
    credentials = host.home / "credentials"
    credentials.mkdir()
    (credentials / "notices.urls").write_text(f"{webhook.url}\n")
    (host.state / "notices").mkdir(parents=True)
    note = {"ts": time.time(), "kind": "unit_failed", "unit": "kloros-orchestrator.service", "result": "exit-code"}
    path = host.state / "notices" / "kloros-orchestrator.service-78.json"
    path.write_text(json.dumps({**note, "exit_status": "78"}))
    host.configure("nonsense = 1\n")
    host.set(CREDENTIALS_DIRECTORY=str(credentials))
    assert host.run("run_notice").returncode == 0
    assert "the settings are invalid" in webhook.got[0].document["message"]
    assert not path.exists()
    assert host.run("run_notice").returncode == 0
    assert len(webhook.got) == 1


def test_a_unit_failure_is_told_although_there_is_no_store(host: Host, webhook: Webhook) -> None:
    urls(host, webhook.url)
    (host.state / "notices").mkdir(parents=True)
    path = host.state / "notices" / "unit-69.json"
    path.write_text(json.dumps({"ts": time.time(), "unit": "unit", "result": "exit-code", "exit_status": "69"}))
    (host.state / "kloros.db").write_text("this is no database, and long enough to say so" * 100)
    webhook.status = 503
    assert host.run("run_notice").returncode == 0
    assert path.exists(), "nobody has taken it"
    webhook.status = 200
    assert host.run("run_notice").returncode == 0
    assert webhook.titles[-1].endswith("unit failed")
    assert not path.exists()


def test_what_was_told_without_the_store_is_told_as_well_again_with_it(host: Host, webhook: Webhook) -> None:
    """A database that is away for an hour: one notice that ticks fail, and one that they decide again."""
    urls(host, webhook.url)
    host.set(KLR_NOTICES_SETTLE="0s", KLR_DATABASE_URL="postgresql://127.0.0.1:1/kloros")
    host.stepwise()
    (host.state / "notices").mkdir(parents=True)
    path = host.state / "notices" / "kloros-orchestrator.service-69.json"
    note = {"ts": time.time(), "unit": "kloros-orchestrator.service", "result": "exit-code", "exit_status": "69"}
    path.write_text(json.dumps(note))
    for _ in range(2):
        assert host.run("run_notice").returncode == 0
    assert len(webhook.got) == 1
    assert "docs/runbooks/database-away.md" in webhook.got[0].document["message"]
    assert [one.name for one in path.parent.iterdir() if one.name[0] != "."] == [], "who waits for a kick would see it"
    host.set(KLR_DATABASE_URL="")
    host.decided()
    for _ in range(2):
        assert host.run("run_notice").returncode == 0
    told = [title.partition(": ")[2] for title in webhook.titles[1:]]
    assert [title for title in told if "degraded" not in title] == ["KLoROS ticks again"]
    assert list(path.parent.iterdir()) == []


def test_units_that_do_well_again_are_told_once(host: Host, webhook: Webhook) -> None:
    """The two beside the ticks; each is found in the store by what it has done since."""
    urls(host, webhook.url)
    host.set(KLR_NOTICES_SETTLE="0s", KLR_DREAM_COMMAND="true")
    host.stepwise()
    (host.state / "notices").mkdir(parents=True)
    for unit in ("kloros-cycle.service", "kloros-loop.service", "kloros-pulse.service"):
        note = {"ts": time.time(), "unit": unit, "result": "exit-code", "exit_status": "1"}
        (host.state / "notices" / f"{unit}-1.json").write_text(json.dumps(note))
    host.decided()
    assert host.run("run_notice").returncode == 0
    assert len(webhook.got) == 3
    host.promote("p1")
    host.decided()
    host.run_queued()
    host.change(
        "INSERT INTO iterations (iteration, token, started_at, status, ended_at, history_path)"
        " VALUES (1, 'token', '2126-11-21T03:00:00.000000Z', 'degraded', '2126-11-21T03:00:00.000000Z', '')"
    )
    for _ in range(2):
        assert host.run("run_notice").returncode == 0
    again = sorted(title.partition(": ")[2] for title in webhook.titles[3:])
    assert again == ["the loop of KLoROS works again", "the runner of KLoROS works again"]


# the dead-man's switch


@pytest.fixture
def beating(host: Host, webhook: Webhook) -> Host:
    """A host that pings; a short deadline."""
    host.set(KLR_HEARTBEAT_URL=webhook.ping_url, KLR_HEARTBEAT_TIMEOUT="2s", KLR_LAUNCHER="detached")
    return host


def test_a_tick_that_decides_pings_start_and_success_with_its_run_id(beating: Host, webhook: Webhook) -> None:
    beating.decided()
    beating.decided()
    webhook.until(4)
    runs: dict[str, list[str]] = {}
    for suffix, run in webhook.pings:
        runs.setdefault(run, []).append(suffix)
    assert list(runs.values()) == [["/start", ""], ["/start", ""]]
    form = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(form, run) for run in runs)
    until(lambda: not list((beating.state / "heartbeat").iterdir()), "nothing is left behind")


def test_a_tick_that_fails_pings_its_exit_code(beating: Host, webhook: Webhook) -> None:
    beating.state.mkdir()
    (beating.state / "kloros.db").write_text("this is no database, and long enough to say so" * 100)
    assert beating.tick().returncode == Exit.STORE_UNREACHABLE
    webhook.until(2)
    assert [suffix for suffix, _ in webhook.pings] == ["/start", "/69"]


@pytest.mark.parametrize("gate", ["halted", "disabled", "lock held"])
def test_a_tick_that_is_turned_away_pings_nothing(beating: Host, webhook: Webhook, gate: str) -> None:
    if gate == "halted":
        beating.state.mkdir()
        (beating.state / "killswitch").touch()
        beating.tick()
    elif gate == "disabled":
        beating.set(KLR_ORCHESTRATION_MODE="disabled")
        beating.tick()
    else:
        import fcntl

        path = beating.state / "locks" / "orchestrator.lock"
        path.parent.mkdir(parents=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert beating.tick().returncode == Exit.LOCK_HELD
    assert beating.run("run_notice").returncode == 0
    folder = beating.state / "heartbeat"
    until(lambda: not folder.exists() or not list(folder.iterdir()), "nothing is left behind")
    assert webhook.got == []


def test_a_tick_that_was_killed_pings_fail(beating: Host, webhook: Webhook) -> None:
    import os

    folder = beating.state / "heartbeat"
    folder.mkdir(parents=True)
    path = folder / "11111111-2222-4333-8444-555555555555"
    path.touch()
    os.utime(path, (time.time() - 90, time.time() - 90))
    assert beating.run("run_notice").returncode == 0
    assert webhook.pings == [("/start", path.name), ("/fail", path.name)]


def test_a_switch_that_does_not_answer_makes_no_tick_longer_and_is_told(beating: Host, webhook: Webhook) -> None:
    beating.decided()
    webhook.until(2)
    webhook.go_on.clear()
    began = time.monotonic()
    beating.decided()
    assert time.monotonic() - began < 2, "the ping's own deadline"
    until(lambda: "no answer within 2 s" in beating.run("klorosctl", "doctor").stdout, "the doctor says so")
    webhook.go_on.set()
    beating.decided()
    until(lambda: "dead-man" not in beating.run("klorosctl", "doctor").stdout, "it is well again")


def test_pings_that_nobody_sends_do_not_pile_up(beating: Host) -> None:
    folder = beating.state / "heartbeat"
    folder.mkdir(parents=True)
    for number in range(60):
        (folder / str(number)).touch()
    beating.stepwise()  # the kick is left, and nobody sees it
    beating.decided()
    assert len(list(folder.iterdir())) == 60


def test_without_a_switch_nothing_is_left_for_one(host: Host) -> None:
    host.decided()
    assert not (host.state / "heartbeat").exists()
