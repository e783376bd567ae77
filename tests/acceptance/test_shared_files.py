"""Several hosts of one scope, driven by ticks: what lies on one is decided on another, and its answer comes back, once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.acceptance.host import Host, script
from tests.acceptance.scopes import Scoped

pytestmark = pytest.mark.xdist_group("postgres")


def run_on(host: Host) -> None:
    """Let this host's runner run what is queued."""
    done = host.run("run_cycle")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def scope(scope: Scoped) -> Scoped:
    """Three hosts, of which the second leads."""
    scope.trying("abc", 'backoff = ["1s"]')
    scope.tick("b")
    scope.lead("b")
    scope.tick("bac")
    return scope


def test_a_promotion_of_one_host_led_by_a_second_and_tried_on_a_third(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    text = a.promote("good_one").read_text()
    a.promote("bad_one", changes={"learning_rate": 0.02})
    scope.tick("ab")
    run_on(c)
    scope.tick("b")
    assert not (a.state / "promotions_ack").exists(), "its host has not ticked since"
    scope.tick("a")
    ack = a.ack("good_one")
    assert ack["promotion_id"] == "good_one"
    assert (ack["accepted"], ack["cycle"], ack["schema"]) == (True, 1, "v1")
    assert a.ack("bad_one")["rejection_reason"] == "tried"
    (seen,) = (c.state / "cycles").glob("cycle_00001/artifacts/seen.json")
    handed = json.loads(seen.read_text())["promotions"]
    assert sorted(one["stem"] for one in handed) == ["a@bad_one", "a@good_one"]
    assert all(Path(one["path"]).is_relative_to(c.state) for one in handed)
    assert (a.state / "promotions" / "good_one.json").read_text() == text
    assert not any(host.state.joinpath("promotions_ack").exists() for host in (b, c))
    before = (a.state / "promotions_ack" / "good_one_ack.json").stat()
    scope.tick("abcabc")
    after = (a.state / "promotions_ack" / "good_one_ack.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert scope.ask("SELECT * FROM shared_files") == []
    assert [row["state"] for row in scope.ask("SELECT state FROM promotions ORDER BY stem")] == ["rejected", "accepted"]
    assert len(scope.ask("SELECT * FROM cycles")) == 1


def test_what_a_cycle_left_is_found_from_every_host(scope: Scoped, tmp_path: Path) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    for host in (a, b, c):
        host.set(KLR_FEDERATION_TARGET=f"file://{tmp_path}/copies")
    a.promote("good_one")
    scope.tick("ab")
    run_on(c)
    shown = a.run("klorosctl", "show", "1").stdout
    assert "Files      on c, where it ran: klorosctl show 1, there" in shown
    assert "not there" not in shown
    scope.tick("bc")
    run_on(c)
    (entry,) = json.loads((tmp_path / "copies" / "index.json").read_text())["entries"].values()
    copy = f"file://{tmp_path}/copies/{entry['bundle']}"
    assert f"Copy       {copy}" in a.run("klorosctl", "show", "1").stdout
    refused = a.run("klorosctl", "logs", "1")
    assert refused.returncode == 1
    assert "the output of cycle 1 is on c, where it ran" in refused.stderr
    assert f"klorosctl logs 1, there; its bundle is {copy}" in refused.stderr
    assert c.run("klorosctl", "logs", "1").returncode == 0
    assert "Folder" in c.run("klorosctl", "show", "1").stdout


def test_an_intent_of_one_host_is_filed_there_and_its_cycle_runs_elsewhere(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    asked = a.intend("curiosity_bees")
    noted = a.intend("suggest_honey")
    text = asked.read_text()
    scope.tick("ab")
    assert asked.exists(), "its host has not ticked since"
    run_on(c)
    (c.state / "cycles" / "cycle_00001" / "manifest.json").unlink()  # as if its runner had died before
    scope.tick("ab")
    filed = a.state / "intents" / "processed" / "processed"
    assert sorted(path.name for path in filed.iterdir()) == sorted([asked.name, noted.name])
    assert (filed / asked.name).read_text() == text
    lines = (a.state / "suggestions.jsonl").read_text().splitlines()
    assert [json.loads(line)["intent"] for line in lines] == [noted.name]
    assert not (b.state / "suggestions.jsonl").exists()
    scope.tick("abcabc")
    assert [path.name for path in a.state.glob("intents/*.json")] == []
    rows = scope.ask("SELECT name, status, filed FROM intents ORDER BY name")
    assert [(row["name"], row["status"], row["filed"]) for row in rows] == sorted(
        [(f"a@{asked.name}", "processed", 1), (f"a@{noted.name}", "processed", 1)]
    )
    assert [(row["job"], row["state"]) for row in scope.ask("SELECT job, state FROM cycles")] == [("dream", "succeeded")]
    manifest = json.loads((c.state / "cycles" / "cycle_00001" / "manifest.json").read_text())
    assert manifest["state"] == "succeeded"
    assert not (b.state / "cycles").exists()


def test_every_host_has_the_baseline_that_was_accepted(scope: Scoped) -> None:
    a, _, c = (scope.hosts[name] for name in "abc")
    c.promote("good_one")
    scope.tick("cb")
    run_on(a)
    scope.tick("bac")
    texts = {host.name: (host.state / "baseline" / "baseline.json").read_text() for host in map(_named, scope.hosts.items())}
    assert len(set(texts.values())) == 1
    assert json.loads(texts["a"])["parameters"] == {"learning_rate": 0.01}


class _Named:
    def __init__(self, name: str, state: Path) -> None:
        self.name, self.state = name, state


def _named(found: tuple[str, Host]) -> _Named:
    return _Named(found[0], found[1].state)


def test_a_promotion_that_a_person_answers_on_its_host_while_a_cycle_tries_it(scope: Scoped) -> None:
    a, _, c = (scope.hosts[name] for name in "abc")
    a.promote("good_one")
    scope.tick("ab")
    run_on(c)
    acks = a.state / "promotions_ack"
    acks.mkdir()
    own = json.dumps({"promotion_id": "good_one", "accepted": False, "rejection_reason": "by hand"})
    (acks / "good_one_ack.json").write_text(own)
    scope.tick("aba")
    assert (acks / "good_one_ack.json").read_text() == own
    assert scope.ask("SELECT * FROM baseline_versions") == []
    scope.tick("babc")
    assert scope.ask("SELECT * FROM shared_files") == []


def test_the_lead_changes_between_a_cycle_and_its_settling(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    a.promote("good_one")
    a.intend("suggest_honey")
    scope.tick("ab")
    run_on(b)
    scope.lead("c")
    scope.tick("cba")
    assert a.ack("good_one")["accepted"] is True
    assert len((a.state / "suggestions.jsonl").read_text().splitlines()) == 1
    assert not (c.state / "suggestions.jsonl").exists()
    assert len(scope.ask("SELECT * FROM cycles")) == 1
    scope.tick("cbacba")
    assert scope.ask("SELECT * FROM shared_files") == []


def test_a_person_sees_and_answers_the_files_of_every_host_from_any(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    a.promote("good_one")
    a.promote("bad_one")
    asked = a.intend("loop_goal", goal="tea")
    scope.tick("a")
    for host in (a, c):
        listed = json.loads(host.run("klorosctl", "promotions", "list", "--json").stdout)
        assert [one["stem"] for one in listed["waiting"]] == ["a@bad_one", "a@good_one"]
        explained = host.run("klorosctl", "explain")
        assert "DREAM_CYCLE" in explained.stdout, explained.stderr
        intents = json.loads(host.run("klorosctl", "intents", "list", "--json").stdout)
        assert [one["name"] for one in intents["pending"]] == [f"a@{asked.name}"]
    shown = json.loads(c.run("klorosctl", "promotions", "show", "good_one", "--json").stdout)
    assert (shown["stem"], json.loads(shown["file"]["text"])["id"]) == ("a@good_one", "good_one")
    shown = json.loads(a.run("klorosctl", "intents", "show", asked.name, "--json").stdout)
    assert (shown["name"], shown["files"][0]["path"]) == (f"a@{asked.name}", str(asked))
    done = c.run("klorosctl", "promotions", "reject", "a@bad_one", "--reason", "no")
    assert done.returncode == 0, done.stderr
    assert "a writes bad_one_ack.json with its next tick" in done.stdout
    twice = b.run("klorosctl", "promotions", "reject", "bad_one", "--reason", "no")
    assert twice.returncode == 1
    assert "has its answer already" in twice.stderr
    done = a.run("klorosctl", "promotions", "reject", "good_one", "--reason", "neither")
    assert done.returncode == 0, done.stderr
    assert a.ack("good_one")["rejection_reason"] == "neither", "it is written at once"
    scope.tick("abc")
    assert a.ack("bad_one")["rejection_reason"] == "no"
    assert scope.ask("SELECT * FROM cycles") == []


def test_a_goal_of_one_host_is_taken_by_the_loop_of_the_host_that_leads(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    asked = a.intend("loop_goal", goal="tea")
    scope.tick("ab")
    flags = ("--goal-from", "intents", "--sleep", "0", "--max-backoff", "0", "--archives", "", "--iterations", "1")
    for host in (c, b):
        (host.home / "tree").mkdir()
        command = script(host.home, "iterate", ('echo "$RUN_CYCLE_GOAL" > seen',))
        done = host.run("run_loop", "--working-dir", str(host.home / "tree"), "--command", command, "--goal", "own", *flags)
        assert done.returncode == 0, done.stderr
    assert (c.home / "tree" / "seen").read_text() == "own\n", "it does not lead"
    assert (b.home / "tree" / "seen").read_text() == "tea\n"
    scope.tick("ab")
    assert (a.state / "intents" / "processed" / "processed" / asked.name).exists()


def test_a_phase_of_one_host_is_judged_by_another_from_its_report(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    lines = ('echo \'{"score": 0.75}\' > "$KLR_CYCLE_DIR/artifacts/report.json"', 'test -s "$KLR_BASELINE"')
    command = script(a.home, "phase", lines)
    for host in (a, b, c):
        host.configure(f'[phase]\ncommand = ["{command}"]\n')
    assert a.run("klorosctl", "baseline", "set", "learning_rate=0.01", "--reason", "test").returncode == 0
    a.intend("trigger_phase_test")
    scope.tick("ab")
    run_on(c)
    (c.state / "cycles" / "cycle_00001" / "artifacts" / "report.json").unlink()  # as b sees it: not at all
    scope.tick("b")
    (result,) = scope.ask("SELECT cycle, measure, result FROM phase_results")
    assert result == {"cycle": 1, "measure": "score", "result": 0.75}
    assert scope.ask("SELECT baseline_began FROM cycles") == [{"baseline_began": 1}], "brought there by its runner"
    report = json.loads(scope.ask("SELECT result FROM cycles")[0]["result"])["report"]
    assert Path(report).is_relative_to(c.state)
    scope.tick("bc")
    assert not list((b.state / "scope" / "cycles").glob("*")), "it is settled"


def test_what_a_reflection_of_one_host_leaves_is_taken_up_by_whoever_leads_once(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    lines = ["mkdir artifacts/intents", "mkfifo artifacts/intents/fifo.json"]
    for name in ("suggest_tea", "idle_reflection"):
        lines.append(f"echo '{json.dumps({'intent_type': name, 'priority': 4})}' > artifacts/intents/{name}.json")
    command = script(a.home, "reflect", lines)
    for host in (a, b, c):
        host.configure(f'[reflection]\ncommand = ["{command}"]\nmax_load = 1e5\nmax_pressure = 100\nmax_gpu = 100\n')
    a.intend("idle_reflection")
    scope.tick("ab")
    run_on(c)
    assert scope.ask("SELECT job, state FROM cycles") == [{"job": "reflection", "state": "succeeded"}]
    scope.lead("a")
    scope.tick("abc" * 3)
    rows = scope.ask("SELECT name, intent_type, status, reason FROM intents WHERE cycle IS NULL OR status <> 'processed'")
    found = sorted((row["status"], row["intent_type"] or row["reason"]) for row in rows)
    assert found == [("failed", "idle_reflection"), ("malformed", "FIFO, not a regular file"), ("processed", "suggest_tea")]
    assert len((a.state / "suggestions.jsonl").read_text().splitlines()) == 1, "who led has it in its inbox"
    assert len(list((a.state / "intents" / "processed" / "processed").iterdir())) == 2, "and the one that asked for it"
    assert scope.ask("SELECT * FROM shared_files") == []


def test_whose_file_a_promotion_is_counts_wherever_it_is_tried(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    for host in (a, b, c):
        host.configure('[escrow]\nrequire = [{ actor = "nobody" }]\n')
    os.chown(a.promote("good_theirs"), 65534, -1)
    a.promote("good_ours", changes={"batch_size": 2})
    scope.tick("ab")
    run_on(c)
    scope.tick("ba")
    assert [row["stem"] for row in scope.ask("SELECT stem FROM escrow")] == ["a@good_theirs"]
    assert scope.ask("SELECT parameters FROM baseline_versions") == [{"parameters": '{"batch_size": 2}'}]
    assert a.ack("good_theirs")["escrow"] == scope.ask("SELECT entry FROM escrow")[0]["entry"]
    assert scope.ask("SELECT emitted_by FROM escrow") == [{"emitted_by": "nobody"}]
    assert len(list((a.state / "escrow").iterdir())) == 1, "each host has a copy"


def test_an_intent_of_the_observer_reaches_the_inbox_of_who_leads_once(scope: Scoped) -> None:
    a, b, c = (scope.hosts[name] for name in "abc")
    for host in (a, b, c):
        host.configure(
            '[observer.rules.arrivals]\nwatch = "promotions"\nintent = "suggest_look"\npriority = 4\nat_least = 1\n'
        )
    a.promote("bad_one")
    scope.tick("ab" * 3)
    events = scope.ask("SELECT intent, written FROM observer_events WHERE rule = 'arrivals'")
    assert [row["written"] for row in events] == [1]
    assert [row["name"] for row in scope.ask("SELECT name FROM intents")] == [f"b@{events[0]['intent']}"]
    assert len((b.state / "suggestions.jsonl").read_text().splitlines()) == 1
    assert (b.state / "intents" / "processed" / "processed" / events[0]["intent"]).exists()


def test_an_invalid_promotion_is_refused_on_its_host(scope: Scoped) -> None:
    a, b = scope.hosts["a"], scope.hosts["b"]
    a.promote("worst", fitness=-1)
    scope.tick("ab")
    scope.tick("a")
    ack = a.ack("worst")
    assert (ack["accepted"], ack["cycle"], ack["promotion_id"]) == (False, None, "worst")
    assert "fitness" in ack["rejection_reason"]
    scope.tick("bab")
    assert scope.ask("SELECT stem, state FROM promotions") == [{"stem": "a@worst", "state": "rejected"}]
    assert b.run("klorosctl", "promotions", "list").returncode == 0
