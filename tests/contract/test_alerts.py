"""The alert rules, judged by Prometheus's own tool: each fires when it should, not before, and not any more afterwards."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from orchestration.pulse import evidence, metrics, notice, scope_metrics
from orchestration.pulse.health import RULES, Condition, Verdict

TOP = Path(__file__).parents[2]
RULES_FILE = TOP / "docs" / "reference" / "prometheus" / "kloros.rules.yml"
GUIDE = TOP / "docs" / "how-to" / "alerting.md"
NODE = 'instance="web01:9100",job="node"'
PULSE = 'instance="web01:9410",job="kloros"'
OF_NODE_EXPORTER = {"node_textfile_scrape_error", "up"}
METRIC = re.compile(r"(?<![:\w])((?:instance:)?(?:kloros|node_textfile)_\w+(?::\w+)?|up\b)")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES_FILE.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


class Case(NamedTuple):
    """What is fed to an alert's rule, and when it is to fire; minutes from the start."""

    quiet_at: int  # the last minute at which it must not fire yet
    fires_at: int
    resolved_at: int
    description: str
    series: dict[str, str]  # in the notation of promtool, a sample each minute
    instance: str | None = "web01"
    step: int = 1  # minutes from one sample, and one evaluation, to the next


def condition(name: str) -> str:
    return f'kloros_health_condition{{{NODE},condition="{name}"}}'


def holding(name: str, description: str, *, minutes: int = 0, **raw: str) -> Case:
    """A condition that holds from minute 5 until the alert has fired; `minutes` is how long it must have held before."""
    fires = 5 + minutes
    series = {condition(name): f"0+0x4 1+0x{minutes + 4} 0+0x5"}
    for metric, values in raw.items():
        series[f"kloros_{metric}{{{NODE}}}"] = f"{values}+0x{fires + 9}" if values.isdigit() else values
    return Case(fires - 1, fires, fires + 5, description, series)


def with_series(case: Case, **series: str) -> Case:
    return case._replace(series={**case.series, **series})


def labelled(metric: str, labels: str = "") -> str:
    return f"kloros_{metric}{{{NODE}{',' if labels else ''}{labels}}}"


LAST_TICK = labelled("orchestrator_last_tick_timestamp_seconds")
LAST_ATTEMPT = labelled("orchestrator_last_attempt_timestamp_seconds")
BUILD = labelled("build_info", 'version="0.1.0"')

CASES = {
    # Ticks until minute 4. At minute 7 three minutes have passed, which is the limit; a minute later it is exceeded.
    "KlorosTickStale": Case(
        7,
        8,
        10,
        "The last tick that decided anything is 4m 0s old; 3 minutes are 3 missed ticks. "
        "A tick last came as far as the store 2m 0s ago.",
        {LAST_TICK: "0 60 120 180 240+0x5 600+0x3", LAST_ATTEMPT: "0 60 120 180 240 300 360+0x3 600+0x3"},
    ),
    "KlorosLoopSilent": Case(
        70,
        71,
        72,
        "It was to go on 1h 1m 0s ago, and no tick works on this host.",
        {
            labelled("loop_next_run_timestamp_seconds"): "600+0x71 4320+0x5",
            labelled("loop_last_iteration_timestamp_seconds"): "60+0x80",
            LAST_ATTEMPT: "0+0x80",
            labelled("cycle_active", 'exported_job="loop"'): "0+0x80",
        },
    ),
    "KlorosMetricsAbsent": Case(
        9,
        10,
        15,
        "Neither node_exporter's textfile nor Pulse has given kloros_build_info to this Prometheus for 5 minutes.",
        {BUILD: "1+0x4 stale _x9 1+0x5"},
        instance=None,
    ),
    "KlorosMetricsGone": Case(
        9,
        10,
        15,
        "There were some within a day, and there have been none for 5 minutes: the host is down, or node_exporter, or the "
        "textfile was removed. After a day this alert forgets the host.",
        {BUILD: "1+0x4 stale _x9 1+0x5"},
    ),
    "KlorosTextfileScrapeError": Case(
        9,
        10,
        15,
        "node_textfile_scrape_error is 1: one of the *.prom files, perhaps kloros.prom, is damaged or can't be opened; "
        "what it holds is missing or old.",
        {BUILD: "1+0x4 stale _x9 1+0x5", f"node_textfile_scrape_error{{{NODE}}}": "0+0x4 1+0x9 0+0x5"},
    ),
    "KlorosTextfileAbsent": Case(
        9,
        10,
        15,
        "There were some within a day, and for 5 minutes web01 has had none but those of Pulse: the textfile was removed, "
        "or node_exporter does not answer. After a day this alert forgets it.",
        {BUILD: "1+0x4 stale _x9 1+0x5", BUILD.replace(NODE, PULSE): "1+0x20"},
    ),
    "KlorosPulseUnavailable": Case(
        9,
        10,
        15,
        "up is 0: the scrape of job kloros fails. Ticks don't need Pulse; the page and its API are out of reach.",
        {f"up{{{PULSE}}}": "1+0x4 0+0x9 1+0x5", f"up{{{NODE}}}": "0+0x19"},
    ),
    "KlorosClockWrong": Case(
        9,
        10,
        15,
        "Its last tick lies 5m 0s in the future of this Prometheus: one of the two clocks is wrong, and KlorosTickStale "
        "is blind meanwhile.",
        {LAST_ATTEMPT: "0 60 120 180 240 600+60x9 900 960 1020"},
    ),
    "KlorosNoTickYet": holding(
        "no_tick_yet",
        "kloros_health_condition is 1: neither a tick nor an iteration of the loop has ever been recorded, for 15 minutes.",
        minutes=15,
    ),
    "KlorosDisabled": holding(
        "disabled",
        "For an hour no tick has done anything, because the mode is not 'enabled'. The last one that decided was at "
        "1970-01-01 00:04:00 +0000 UTC.",
        minutes=60,
        orchestrator_last_tick_timestamp_seconds="240",
    ),
    "KlorosHalted": holding(
        "halted",
        "For an hour no tick has done anything, because the kill switch is set. The last one that decided was at never.",
        minutes=60,
    ),
    "KlorosMaintenance": holding(
        "maintenance",
        "For 4 hours ticks have started nothing new; 7 promotions and 3 intents wait.",
        minutes=240,
        promotions_unacked="7",
        intents_pending="3",
    ),
    "KlorosStoreUnreachable": holding(
        "store_unreachable",
        "For 3 minutes ticks have ended with 69 and decided nothing, since 1970-01-01 00:05:00 +0000 UTC; files wait and "
        "are taken up afterwards.",
        minutes=3,
        store_unreachable_timestamp_seconds="300",
    ),
    "KlorosHostDoubled": holding(
        "host_doubled",
        "Ticks of this machine have been refused since 1970-01-01 00:05:00 +0000 UTC: two machines of a scope have one "
        "name.",
        store_unreachable_timestamp_seconds="300",
    ),
    "KlorosNobodyLeads": holding(
        "nobody_leads",
        "Nothing has been decided for 4m 30s; klorosctl leader show tells why.",
        scope_lease_expires_timestamp_seconds="30",
    ),
    "KlorosTickFailing": with_series(
        holding("tick_failing", "The last 3 ticks ended with an error; within 10 minutes there were about 3."),
        **{labelled("orchestrator_skipped_total", 'reason="failed"'): "0+0x2 1 2 3+0x10"},
    ),
    "KlorosLockContention": with_series(
        holding("lock_contention", "About 15 ticks within an hour were turned away because another held the lock."),
        **{labelled("orchestrator_lock_contention_total"): "0+3x5 15+0x10"},
    ),
    "KlorosPhaseMissed": holding(
        "phase_missed",
        "The newest local date has no PHASE. The last one that succeeded ended at 1970-01-01 00:03:00 +0000 UTC.",
        phase_last_success_timestamp_seconds="180",
    ),
    "KlorosPhaseFailing": holding(
        "phase_failing",
        "The last date's PHASE failed, or the last 3 PHASE cycles did. The last one that succeeded ended at never.",
        phase_last_success_timestamp_seconds="0",
    ),
    "KlorosPhaseDuration": holding(
        "phase_duration",
        "It took 1h 30m 0s: more than 3 times, or less than a third of, the median of those before.",
        phase_last_duration_seconds="5400",
    ),
    "KlorosDreamFailing": with_series(
        holding(
            "dream_failing", "More than half of the last D-REAM cycles did not succeed; of those within a day about 75%."
        ),
        **{
            labelled("cycles_total", 'exported_job="dream",result="failed"'): "0 1 2+0x20",
            labelled("cycles_total", 'exported_job="dream",result="lost"'): "0 1+0x20",
            labelled("cycles_total", 'exported_job="dream",result="cancelled"'): "0 5+0x20",
            labelled("cycles_total", 'exported_job="dream",result="succeeded"'): "0 1+0x20",
            labelled("cycles_total", 'exported_job="phase",result="failed"'): "0 9+0x20",
        },
    ),
    "KlorosCycleOverdue": holding(
        "cycle_overdue", "Its runner was to end it 4m 10s ago.", cycle_deadline_timestamp_seconds="50"
    ),
    "KlorosCycleLost": with_series(
        holding("cycle_lost", "About 2 within a day ended without anybody knowing how far they came."),
        **{
            labelled("cycles_total", 'exported_job="dream",result="lost"'): "0+0x3 1+0x20",
            labelled("cycles_total", 'exported_job="phase",result="lost"'): "0+0x3 1+0x20",
        },
    ),
    "KlorosHostSilent": with_series(
        holding("host_silent", "2 silent for longer than scope.silent_after; klorosctl status names it."),
        **{labelled("scope_hosts", 'role="silent"'): "2+0x20", labelled("scope_hosts", 'role="standby"'): "9+0x20"},
    ),
    "KlorosClockOffset": with_series(
        holding(
            "clock_offset",
            "One is 1h 0m 0s from that of the database server; klorosctl status names the host.",
        ),
        **{
            labelled("scope_clock_offset_seconds", 'host="lab-1"'): "0.01+0x20",
            labelled("scope_clock_offset_seconds", 'host="lab-2"'): "-3600+0x20",
        },
    ),
    "KlorosPromotionsParked": holding(
        "promotions_parked", "2 failed too often and wait for a person.", promotions_parked="2"
    ),
    "KlorosPromotionsPilingUp": holding(
        "promotions_piling_up",
        "21 have waited for an hour, the oldest for 4m 50s.",
        promotions_unacked="21",
        promotions_oldest_timestamp_seconds="10",
    ),
    "KlorosEscrowWaiting": holding(
        "escrow_waiting",
        "3 in escrow wait for a decision, the oldest for 4m 50s: for more than a day, or one expires within a day.",
        escrow_pending="3",
        escrow_oldest_timestamp_seconds="10",
    ),
    "KlorosBaselineRolledBack": holding(
        "baseline_rolled_back",
        "Within a day, because PHASE results under the new parameters were worse. Version 43 is in force.",
        baseline_version="43",
    ),
    "KlorosIntentsOverflowing": with_series(
        holding(
            "intents_overflowing",
            "50 wait of 50 that may; about 15 were dropped within an hour.",
            intents_pending="50",
            intents_max="50",
        ),
        **{
            labelled("intents_total", 'status="queue_overflow"'): "0+3x5 15+0x10",
            labelled("intents_total", 'status="processed"'): "0+9x15",
        },
    ),
    "KlorosLoopStopped": holding("loop_stopped", "It ended after 5 failures in a row.", loop_consecutive_failures="5"),
    "KlorosUrgentAlert": holding(
        "urgent_alert", "An alert of priority 8 or more was raised on web01 within an hour; klorosctl intents list names it."
    ),
    "KlorosArchivesStale": holding(
        "archives_stale",
        "Its last 3 iterations or more ended without one; the last ended 4m 40s ago.",
        loop_last_iteration_timestamp_seconds="20",
    ),
    "KlorosFederationBehind": holding(
        "federation_behind",
        "4 wait, the oldest for 4m 59s.",
        federation_pending="4",
        federation_oldest_timestamp_seconds="1",
    ),
    "KlorosBridgeSilent": holding(
        "bridge_silent",
        "Its server last told of its threads 4m 50s ago, and was not stopped; agents may be unable to talk.",
        threads_told_timestamp_seconds="10",
    ),
    "KlorosThreadsBlocked": holding(
        "threads_blocked",
        "3 blocked by a loop guard, an agent or an operator, the oldest for 4m 50s; "
        "klorosctl threads list --status blocked names them.",
        threads_blocked="3",
        threads_blocked_oldest_timestamp_seconds="10",
    ),
    "KlorosMessagesUnread": holding(
        "messages_unread",
        "What another said to it has waited for a participant of an active thread for 4m 50s; klorosctl status names it.",
        threads_unread_oldest_timestamp_seconds="10",
    ),
    "KlorosSupervisorSilent": holding(
        "supervisor_silent",
        "It last told how it stands 4m 50s ago, and was not stopped; nobody on this host wakes agents.",
        supervisor_told_timestamp_seconds="10",
    ),
    "KlorosWakesDeadLettered": holding(
        "wakes_dead_lettered",
        "2 triggers were given up after every way to wake; klorosctl triggers list --status dead_lettered names them.",
        wake_dead_letters="2",
    ),
    "KlorosWakesWaiting": holding(
        "wakes_waiting",
        "3 triggers are open, the oldest for 4m 50s; klorosctl why-not-woken tells why.",
        wake_queue="3",
        wake_queue_oldest_timestamp_seconds="10",
    ),
    "KlorosAgentsUnmanaged": holding(
        "agents_unmanaged",
        "2 triggers were given up for want of a runtime that may be used; klorosctl status names an agent.",
        wake_unmanaged="2",
    ),
    "KlorosPromptsCollided": holding(
        "prompts_collided",
        "2 prompts within an hour took another way because a person went on typing in the terminal.",
        wake_collisions="2",
    ),
    "KlorosDiskLow": holding(
        "disk_low",
        "5GiB are free for the state folder, fewer than retention.low_disk.",
        minutes=5,
        state_free_bytes="5368709120",
    ),
    "KlorosBaselineUnchanged": Case(
        7 * 24 * 60 + 60,
        7 * 24 * 60 + 120,
        7 * 24 * 60 + 180,
        "Version 42 is 7d 1h 0m 0s old: no promotion was accepted since.",
        {
            labelled("baseline_changed_timestamp_seconds"): f"3600+0x{7 * 24 + 2} 612000+0x5",
            labelled("baseline_version"): "42+0x180",
        },
        step=60,
    ),
}
NEVER_RESOLVED = {"KlorosWatchdog"}


def promtool(tmp_path: Path, test: dict[str, Any], *, step: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a unit test against the shipped rules."""
    written = tmp_path / "test.yml"
    every = f"{step}m"
    content = {"rule_files": [str(RULES_FILE)], "evaluation_interval": every, "tests": [{"interval": every, **test}]}
    written.write_text(yaml.safe_dump(content))
    return subprocess.run(["promtool", "test", "rules", written], capture_output=True, text=True, check=False)


def expect(name: str, minute: int, *alerts: dict[str, Any]) -> dict[str, Any]:
    return {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": list(alerts)}


def alert_of(name: str, *, instance: str | None, description: str, runbooks: str = "docs/runbooks") -> dict[str, Any]:
    """Spell out one alert as Alertmanager gets it."""
    rule = ALERTS[name]
    summary = rule["annotations"]["summary"].replace("{{ $labels.instance }}", str(instance))
    page = rule["annotations"]["runbook_url"].rpartition("/")[2]
    labels = {"severity": rule["labels"]["severity"], **({} if instance is None else {"instance": instance})}
    if name == "KlorosTextfileScrapeError":
        labels |= {"instance": f"{instance}:9100", "job": "node"}
        summary = summary.replace(str(instance), f"{instance}:9100")
    if name == "KlorosPulseUnavailable":
        labels |= {"instance": f"{instance}:9410", "job": "kloros"}
        summary = summary.replace(str(instance), f"{instance}:9410")
    if "condition=" in rule["expr"] and name != "KlorosTickStale":
        labels["condition"] = re.findall(r'condition="(\w+)"', rule["expr"])[0]
    annotations = {"summary": summary, "description": description, "runbook_url": f"{runbooks}/{page}"}
    return {"exp_labels": labels, "exp_annotations": annotations}


def series_of(case: Case) -> list[dict[str, str]]:
    return [{"series": series, "values": values} for series, values in case.series.items()]


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_when_it_should_and_neither_before_nor_after(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    fires = alert_of(name, instance=case.instance, description=case.description)
    when = [expect(name, case.quiet_at), expect(name, case.fires_at, fires), expect(name, case.resolved_at)]
    done = promtool(tmp_path, {"input_series": series_of(case), "alert_rule_test": when}, step=case.step)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_and_each_condition_an_alert() -> None:
    assert CASES.keys() | NEVER_RESOLVED == ALERTS.keys()
    by_condition = re.findall(r'condition="(\w+)"', "".join(rule["expr"] for rule in ALERTS.values()))
    silent = {Condition.TICK_STALE, Condition.LOOP_SILENT}
    assert sorted(by_condition) == sorted(set(Condition) - silent)


def test_a_notice_leads_to_the_page_of_the_alert() -> None:
    """What Prometheus alone would tell, `tick_stale` and `loop_silent`, has an alert with an expression of its own."""
    pages = {
        Condition.TICK_STALE: ALERTS["KlorosTickStale"],
        Condition.LOOP_SILENT: ALERTS["KlorosLoopSilent"],
        **{
            condition: alert
            for condition in Condition
            for alert in ALERTS.values()
            if f'max{{condition="{condition}"}}' in alert["expr"]
        },
    }
    expected = {
        condition: alert["annotations"]["runbook_url"].rpartition("/")[2].removesuffix(".md")
        for condition, alert in pages.items()
    }
    assert expected.keys() == set(Condition)
    assert dict(notice.RUNBOOKS) == expected


def test_what_the_verdict_says_is_as_severe_as_the_alert() -> None:
    """Switches that people set themselves only warn, and so does what has not begun."""
    by_people = {Condition.DISABLED, Condition.HALTED, Condition.NO_TICK_YET}
    severity = {Verdict.DEGRADED: "warning", Verdict.FAILING: "critical", Verdict.STOPPED: "critical"}
    for rule in RULES:
        for alert in ALERTS.values():
            if f'condition="{rule.condition}"' in alert["expr"]:
                expected = "warning" if rule.condition in by_people else severity[rule.verdict]
                assert alert["labels"]["severity"] == expected, alert["alert"]


def test_the_watchdog_always_fires(tmp_path: Path) -> None:
    fires = alert_of(
        "KlorosWatchdog",
        instance=None,
        description="Always firing, value 1: send it to a dead-man's switch, which tells when it no longer comes.",
    )
    when = [expect("KlorosWatchdog", minute, fires) for minute in (0, 60)]
    assert promtool(tmp_path, {"input_series": [], "alert_rule_test": when}).returncode == 0


@pytest.mark.parametrize("name", ["KlorosPromotionsParked", "KlorosTickStale"])
def test_two_sources_of_one_host_are_one_alert(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    both = series_of(case) + [
        {"series": series.replace(NODE, PULSE), "values": values} for series, values in case.series.items()
    ]
    fires = alert_of(name, instance=case.instance, description=case.description)
    when = [expect(name, case.quiet_at), expect(name, case.fires_at, fires), expect(name, case.resolved_at)]
    done = promtool(tmp_path, {"input_series": both, "alert_rule_test": when})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("told", ["KlorosMetricsGone", "KlorosTextfileScrapeError", "KlorosPulseUnavailable"])
def test_a_textfile_that_is_gone_for_a_reason_told_otherwise_is_told_once(told: str, tmp_path: Path) -> None:
    """Pulse is gone with it, or is all there ever was; or the file is there and can't be read."""
    pulse, error = BUILD.replace(NODE, PULSE), f"node_textfile_scrape_error{{{NODE}}}"
    series = {
        "KlorosMetricsGone": {BUILD: "1+0x4 stale", pulse: "1+0x4 stale"},
        "KlorosTextfileScrapeError": {BUILD: "1+0x4 stale", pulse: "1+0x20", error: "0+0x4 1+0x15"},
        "KlorosPulseUnavailable": {pulse: "1+0x20", f"up{{{PULSE}}}": "0+0x20"},
    }[told]
    given = [{"series": one, "values": values} for one, values in series.items()]
    fires = alert_of(told, instance="web01", description=CASES[told].description)
    when = [expect("KlorosTextfileAbsent", 15), expect(told, 15, fires)]
    done = promtool(tmp_path, {"input_series": given, "alert_rule_test": when})
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_textfile_that_grows_old_does_not_count_against_pulse_that_is_fresh(tmp_path: Path) -> None:
    series = [
        {"series": LAST_TICK, "values": "60+0x20"},
        {"series": LAST_TICK.replace(NODE, PULSE), "values": "0+60x20"},
    ]
    when = [expect("KlorosTickStale", minute) for minute in (5, 10, 20)]
    assert promtool(tmp_path, {"input_series": series, "alert_rule_test": when}).returncode == 0


def test_what_pulse_judges_now_counts_more_than_what_a_tick_has_judged(tmp_path: Path) -> None:
    """And while Pulse does not answer, the textfile counts again."""
    name = "KlorosPromotionsParked"
    held = condition("promotions_parked")
    series = [
        {"series": held, "values": "1+0x20"},
        {"series": held.replace(NODE, PULSE), "values": "0+0x9 stale"},
        {"series": labelled("promotions_parked"), "values": "2+0x20"},
    ]
    fires = alert_of(name, instance="web01", description="2 failed too often and wait for a person.")
    when = [expect(name, 5), expect(name, 12, fires)]
    done = promtool(tmp_path, {"input_series": series, "alert_rule_test": when})
    assert done.returncode == 0, done.stdout + done.stderr


def test_hosts_and_labels_of_ones_own_are_kept_apart(tmp_path: Path) -> None:
    name, series, fires = "KlorosPromotionsParked", [], []
    for instance, team in (("web01", "a"), ("10.0.0.7", "a"), ("[fd00::1]", "b")):
        place = f'instance="{instance}:9100",job="node",team="{team}"'
        series += [
            {"series": f'kloros_health_condition{{{place},condition="promotions_parked"}}', "values": "1+0x5"},
            {"series": f"kloros_promotions_parked{{{place}}}", "values": "3+0x5"},
        ]
        fired = alert_of(name, instance=instance, description="3 failed too often and wait for a person.")
        fires.append({**fired, "exp_labels": {**fired["exp_labels"], "team": team}})
    done = promtool(tmp_path, {"input_series": series, "alert_rule_test": [expect(name, 2, *fires)]})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("switch", ["disabled", "halted"])
def test_ticks_that_a_person_switched_off_are_not_stale(switch: str, tmp_path: Path) -> None:
    series = [{"series": LAST_TICK, "values": "60+0x90"}, {"series": condition(switch), "values": "1+0x90"}]
    when = [expect("KlorosTickStale", minute) for minute in (5, 30, 90)]
    assert promtool(tmp_path, {"input_series": series, "alert_rule_test": when}).returncode == 0


@pytest.mark.parametrize("alive", [LAST_ATTEMPT, labelled("cycle_active", 'exported_job="loop"')])
def test_a_loop_beside_ticks_or_in_the_middle_of_a_cycle_is_not_silent(alive: str, tmp_path: Path) -> None:
    case = CASES["KlorosLoopSilent"]
    series = [{"series": name, "values": "1+0x80" if name == alive else values} for name, values in case.series.items()]
    when = [expect("KlorosLoopSilent", minute) for minute in (60, 71)]
    assert promtool(tmp_path, {"input_series": series, "alert_rule_test": when}).returncode == 0


def test_a_description_without_its_number_is_still_told(tmp_path: Path) -> None:
    """An older release on a host may lack a metric that these rules know."""
    name = "KlorosPromotionsPilingUp"
    fires = alert_of(
        name, instance="web01", description="More than 20 have waited for an hour, the oldest for an unknown time."
    )
    series = [{"series": condition("promotions_piling_up"), "values": "1+0x5"}]
    done = promtool(tmp_path, {"input_series": series, "alert_rule_test": [expect(name, 2, fires)]})
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_runbooks_may_lie_elsewhere(tmp_path: Path) -> None:
    name, case = "KlorosPromotionsParked", CASES["KlorosPromotionsParked"]
    place = "https://wiki.example.org/kloros"
    fires = alert_of(name, instance="web01", description=case.description, runbooks=place)
    when = [expect(name, case.fires_at, fires)]
    outside = {"external_labels": {"kloros_runbooks": place}}
    done = promtool(tmp_path, {"input_series": series_of(case), "alert_rule_test": when, **outside})
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_what_where_how_bad_and_what_to_do() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info", "none"), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert "{{ " in rule["annotations"]["description"] or name.startswith("KlorosMetrics"), f"{name}: no value"
        page = rule["annotations"]["runbook_url"].rpartition("/")[2]
        assert (TOP / "docs" / "runbooks" / page).exists(), f"{name}: {page} does not exist"


def test_every_metric_in_the_rules_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = {name for family in metrics.FAMILIES for name, _ in family.series} | OF_NODE_EXPORTER
    known |= {family.name for family in scope_metrics.FAMILIES}
    text = " ".join(rule["expr"] + " " + str(rule.get("annotations", {}).get("description", "")) for rule in rules())
    text = re.sub(r'"[^"]*"', lambda quoted: quoted[0] if "%s" in quoted[0] else '""', text)
    used = set(METRIC.findall(text))
    assert len(used) > 30
    assert used - known - recorded == set()
    assert recorded - used == set(), "recorded and never used"


def test_the_limits_of_silence_are_those_of_health() -> None:
    assert f"> {evidence.TICKS_MISSED / timedelta(seconds=1):.0f} " in ALERTS["KlorosTickStale"]["expr"]
    assert f"> {evidence.SILENT_AFTER / timedelta(seconds=1):.0f})" in ALERTS["KlorosLoopSilent"]["expr"]


def test_what_must_hold_for_a_while_is_held_once() -> None:
    """A rule of health that waits by itself would wait twice."""
    for rule in RULES:
        for alert in ALERTS.values():
            if rule.after and f'condition="{rule.condition}"' in alert["expr"]:
                assert "for" not in alert, alert["alert"]


def documented(language_comment: str) -> str:
    """Return the configuration that the guide shows under this first line."""
    (block,) = [
        found for found in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL) if language_comment in found
    ]
    return str(block)


def test_prometheus_takes_the_configuration_of_the_guide(tmp_path: Path) -> None:
    shown = documented("/etc/prometheus/prometheus.yml").replace("/etc/prometheus/kloros.rules.yml", str(RULES_FILE))
    (tmp_path / "prometheus.yml").write_text(shown)
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    jobs = [job["job_name"] for job in yaml.safe_load(shown)["scrape_configs"]]
    assert jobs == ["node", "kloros"]
    assert 'job="kloros"' in ALERTS["KlorosPulseUnavailable"]["expr"]


def test_alertmanager_takes_the_configuration_of_the_guide_and_routes_by_it(tmp_path: Path) -> None:
    written = tmp_path / "alertmanager.yml"
    written.write_text(documented("/etc/prometheus/alertmanager.yml"))
    done = subprocess.run(["amtool", "check-config", written], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, receiver in {
        "KlorosWatchdog": "dead-mans-switch",
        "KlorosTickStale": "on-call",
        "KlorosDiskLow": "team",
        "KlorosBaselineUnchanged": "team",
    }.items():
        labels = [f"alertname={name}", f"severity={ALERTS[name]['labels']['severity']}"]
        command = [
            "amtool",
            "config",
            "routes",
            "test",
            f"--config.file={written}",
            f"--verify.receivers={receiver}",
            *labels,
        ]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0, name


def test_the_guide_lists_every_alert_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w*) \| \[.*\]\(\.\./runbooks/(.+)\) \|$", GUIDE.read_text(), re.MULTILINE)
    expected = [
        (name, rule["labels"]["severity"], rule.get("for", ""), rule["annotations"]["runbook_url"].rpartition("/")[2])
        for name, rule in ALERTS.items()
    ]
    assert rows == expected
