"""Escrow as an operator meets it: held by a rule, shown, approved or rejected by a person, expired by a tick."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.baseline import escrow_ledger
from orchestration.exits import Exit
from orchestration.host import clock, users
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.host import Host, script

ME = users.name_of(os.getuid())
RULES = 'require = [{ parameter = "learning_*", change_over = 0.5 }, { parameter = "secret" }]'


@pytest.fixture
def ready(host: Host, tmp_path: Path) -> Host:
    """A host whose baseline is version 1, `learning_rate = 0.01`, and which holds large changes of it."""
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["exit 0"]))
    host.stepwise()
    try_promotion(host, "one", learning_rate=0.01)
    host.configure(
        f"[escrow]\n{RULES}\n[observer.rules.promotion_cluster]\nenabled = false\n"
    )  # so that no PHASE comes between
    return host


def try_promotion(host: Host, stem: str, *, fitness: float = 0.5, **changes: float) -> None:
    host.promote(stem, changes=changes, fitness=fitness)
    host.decided()
    host.run_queued()


def refused(host: Host, *arguments: str) -> str:
    done = host.run("klorosctl", *arguments)
    assert done.returncode != Exit.DONE, done.stdout
    return done.stderr


def held(host: Host, stem: str = "large", **changes: float) -> str:
    """Have a cycle accept what the rules hold; return the entry."""
    try_promotion(host, stem, **(changes or {"learning_rate": 0.02}))
    entries = [entry["entry"] for entry in host.answer("escrow", "list") if entry["promotion"]["stem"] == stem]
    assert len(entries) == 1
    return str(entries[0])


def filed(host: Host, entry: str) -> Any:
    return json.loads((host.state / "escrow" / f"escrow-{entry}.json").read_text())


def test_what_a_rule_holds_waits_and_the_rest_goes_on(ready: Host) -> None:
    ready.promote("large", changes={"learning_rate": 0.02}, fitness=0.7)
    ready.promote("small", changes={"batch_size": 8}, fitness=0.6)
    ready.decided()
    ready.run_queued()

    version = ready.answer("baseline", "show")
    assert (version["version"], version["promotion_ids"]) == (2, ["small"])
    assert version["parameters"] == {"batch_size": 8, "learning_rate": 0.01}
    (entry,) = ready.answer("escrow", "list")
    assert entry == filed(ready, entry["entry"])
    assert (entry["schema"], entry["status"], entry["kind"], entry["cycle"]) == (
        "escrow.entry/v1",
        "pending_review",
        "promotion",
        2,
    )
    assert entry["promotion"] == {
        "stem": "large",
        "id": "large",
        "fitness": 0.7,
        "changes": {"learning_rate": 0.02},
        "emitted_by": ME,
    }
    assert entry["diff"] == [{"name": "learning_rate", "before": 0.01, "after": 0.02, "relative": 1.0}]
    assert entry["rule"].startswith("learning_rate 0.01 → 0.02, +100")
    assert entry["evidence"]["folder"] == "cycle_00002"
    ack = ready.ack("large")
    assert (ack["accepted"], ack["escrow"]) == (True, entry["entry"])
    assert "escrow" not in ready.ack("small")


def test_an_approval_makes_a_version_on_top_of_today_s_baseline(ready: Host) -> None:
    entry = held(ready)
    ready.answer("baseline", "set", "learning_rate=0.03", "batch_size=4", "--reason", "meanwhile")
    shown = ready.answer("escrow", "show", entry)
    assert [(one["before"], one["after"]) for one in shown["diff"]] == [(0.01, 0.02)]
    assert [(one["before"], one["after"]) for one in shown["today"]] == [(0.03, 0.02)]

    done = ready.answer("escrow", "approve", f"escrow-{entry}.json", "--reason", "looks right")

    assert (done["changed"], done["status"], done["version"], done["reviewed_by"]) == (True, "approved", 3, ME)
    assert filed(ready, entry) == {name: value for name, value in done.items() if name != "changed"}
    version = ready.answer("baseline", "show")
    assert version["parameters"] == {"batch_size": 4, "learning_rate": 0.02}
    assert (version["kind"], version["cycle"], version["promotion_ids"], version["actor"]) == ("escrow", 2, ["large"], ME)
    assert version["reason"] == f"approved from escrow {entry}: looks right"
    assert json.loads((ready.state / "baseline" / "baseline.json").read_text())["parameters"] == version["parameters"]
    assert ready.answer("baseline", "verify")["faults"] == []
    assert ready.answer("escrow", "list") == []

    assert "Made       version 3: klorosctl baseline show 3" in ready.run("klorosctl", "escrow", "show", entry).stdout
    again = ready.answer("escrow", "approve", entry)
    assert (again["changed"], again["version"]) == (False, 3)
    assert len(ready.answer("baseline", "history")) == 3
    assert "waits no more: it is approved" in refused(ready, "escrow", "reject", entry, "--reason", "too late")


def test_a_rejection_changes_no_baseline_and_is_final(ready: Host) -> None:
    entry = held(ready)
    assert "--reason is empty" in refused(ready, "escrow", "reject", entry, "--reason", " ")
    done = ready.answer("escrow", "reject", entry, "--reason", "too large")
    assert (done["changed"], done["status"], done["reason"], done["version"]) == (True, "rejected", "too large", None)
    assert filed(ready, entry)["status"] == "rejected"
    assert ready.answer("escrow", "reject", entry, "--reason", "again")["changed"] is False
    assert "waits no more: it is rejected" in refused(ready, "escrow", "approve", entry)
    assert ready.answer("baseline", "show")["version"] == 1
    assert [one["reason"] for one in ready.answer("escrow", "list", "--all")] == ["too large"]
    ready.decided()
    assert ready.answer("baseline", "show")["version"] == 1


def test_what_nobody_decides_on_expires_by_a_tick(ready: Host) -> None:
    ready.set(KLR_ESCROW_EXPIRES_AFTER="14d")
    entry = held(ready)
    assert filed(ready, entry)["expires_at"] > filed(ready, entry)["created_at"]
    ready.change("UPDATE escrow SET expires_at = '2020-01-01T00:00:00.000000Z'")
    said = refused(ready, "escrow", "reject", entry, "--reason", "late")
    assert ("expired at 2020" in said, "remove its ack, large_ack.json" in said) == (True, True)
    assert "expired at 2020" in refused(ready, "escrow", "approve", entry)
    ready.decided()
    assert (filed(ready, entry)["status"], filed(ready, entry)["reviewed_by"]) == ("expired", "kloros")
    assert "waits no more: it is expired" in refused(ready, "escrow", "approve", entry)
    assert ready.answer("baseline", "show")["version"] == 1


def test_nobody_approves_what_they_emitted_not_even_by_sudo(ready: Host) -> None:
    ready.set(KLR_ESCROW_FOUR_EYES="true")
    entry = held(ready)
    assert f"{ME} emitted promotion large" in refused(ready, "escrow", "approve", entry)
    ready.set(KLR_ESCROW_FOUR_EYES="false")  # what was held under it keeps to it
    assert f"{ME} emitted promotion large" in refused(ready, "escrow", "approve", entry)
    ready.change("UPDATE escrow SET emitted_by = ''")
    assert "nobody knows who emitted" in refused(ready, "escrow", "approve", entry)
    ready.change("UPDATE escrow SET emitted_by = 'agent-x'")
    ready.set(SUDO_USER="agent-x")
    assert "agent-x emitted promotion large" in refused(ready, "escrow", "approve", entry)
    assert ready.answer("baseline", "show")["version"] == 1
    ready.set(SUDO_USER="ada")
    assert ready.answer("escrow", "approve", entry)["reviewed_by"] == f"ada (sudo, as {ME})"


def test_four_eyes_count_for_what_waited_before_they_were_asked_for(ready: Host) -> None:
    entry = held(ready)
    assert "who can't approve it" not in ready.run("klorosctl", "escrow", "show", entry).stdout
    ready.set(KLR_ESCROW_FOUR_EYES="true")
    assert f"{ME}, who can't approve it" in ready.run("klorosctl", "escrow", "show", entry).stdout
    assert f"{ME} emitted promotion large" in refused(ready, "escrow", "approve", entry)


@pytest.mark.parametrize(("there", "emitted_by"), [(True, ME), (False, None)])
def test_who_emitted_what_an_older_release_handed_over_is_told_by_its_file(
    ready: Host, there: bool, emitted_by: str | None
) -> None:
    ready.promote("large", changes={"learning_rate": 0.02})
    ready.decided()
    assert ready.run("run_cycle").returncode == 0
    handover = ready.state / "cycles" / "cycle_00002" / "promotions.json"
    content = json.loads(handover.read_text())
    assert content["promotions"][0].pop("emitted_by") == ME
    handover.write_text(json.dumps(content))
    if not there:
        (ready.state / "promotions" / "large.json").unlink()
    ready.decided()
    (entry,) = ready.answer("escrow", "list")
    assert entry["promotion"]["emitted_by"] == emitted_by


def test_an_approval_keeps_to_the_bounds_of_today(ready: Host) -> None:
    entry = held(ready)
    ready.configure("[promotions.bounds]\nlearning_rate = [0.001, 0.015]\n")
    assert "'learning_rate' = 0.02 is above its bound 0.015" in refused(ready, "escrow", "approve", entry)
    assert filed(ready, entry)["status"] == "pending_review"
    assert ready.answer("baseline", "show")["version"] == 1
    assert ready.answer("escrow", "reject", entry, "--reason", "out of bounds")["changed"]


def test_rules_by_name_and_by_owner(ready: Host) -> None:
    held(ready, "named", secret=1)
    try_promotion(ready, "nearly", learning_rate=0.015)  # +50 % is not over 50 %
    assert ready.answer("baseline", "show")["promotion_ids"] == ["nearly"]
    ready.config.write_text(ready.config.read_text().replace(RULES, f'require = [{{ actor = "{ME}" }}]'))
    entry = held(ready, "mine", batch_size=2)
    assert filed(ready, entry)["rule"] == f'batch_size new → 2 by {ME}: {{actor = "{ME}"}}'
    try_promotion(ready, "same", learning_rate=0.015)  # changes nothing, so there is nothing to review
    assert ready.answer("baseline", "show")["promotion_ids"] == ["same"]
    ready.config.write_text(ready.config.read_text().replace(f'"{ME}"', '"agent-x"'))
    try_promotion(ready, "theirs", batch_size=4)
    assert ready.answer("baseline", "show")["promotion_ids"] == ["theirs"]


def test_of_two_that_conflict_the_fitter_waits_and_the_other_is_rejected(ready: Host) -> None:
    ready.promote("fitter", changes={"learning_rate": 0.05}, fitness=0.9)
    ready.promote("loser", changes={"learning_rate": 0.011}, fitness=0.8)
    ready.decided()
    ready.run_queued()
    assert [entry["promotion"]["stem"] for entry in ready.answer("escrow", "list")] == ["fitter"]
    lost = ready.ack("loser")
    assert (lost["accepted"], "conflict in one cycle" in lost["rejection_reason"]) == (False, True)
    assert ready.answer("baseline", "show")["version"] == 1


def test_what_is_accepted_anew_waits_once(ready: Host) -> None:
    first = held(ready)
    (ready.state / "promotions_ack" / "large_ack.json").unlink()
    second = held(ready)
    assert (first == second, filed(ready, first)["status"], filed(ready, first)["reason"]) == (
        False,
        "rejected",
        "cycle 3 accepted it anew",
    )
    assert ready.answer("escrow", "approve", second)["version"] == 2


def test_what_an_ack_says_stands_though_the_tick_was_killed_and_the_rules_are_gone(ready: Host) -> None:
    held(ready)
    # as if the tick had been killed between the ack and its transaction
    ready.change("UPDATE cycles SET settled_at = NULL WHERE cycle = 2")
    ready.change("DELETE FROM escrow")
    ready.config.write_text(ready.config.read_text().replace(RULES, "require = []"))
    ready.decided()
    (entry,) = ready.answer("escrow", "list")
    assert (entry["entry"], "its ack says so" in entry["rule"]) == (ready.ack("large")["escrow"], True)
    assert ready.answer("baseline", "show")["version"] == 1


def test_a_dry_run_and_an_explanation_hold_nothing(ready: Host) -> None:
    ready.promote("large", changes={"learning_rate": 0.02})
    ready.decided()
    assert ready.run("run_cycle").returncode == 0
    before = ready.file_contents()
    assert ready.tick("--dry-run").returncode == 0
    assert ready.run("klorosctl", "explain").returncode == 0
    assert ready.answer("escrow", "list") == []
    assert ready.file_contents() == before


def test_the_cycle_of_what_waits_is_not_pruned(ready: Host) -> None:
    entry = held(ready)
    for number in range(2):
        try_promotion(ready, f"later{number}", batch_size=number + 1)
    ready.set(KLR_RETENTION_KEEP_LAST="0", KLR_RETENTION_KEEP_FOR="0")
    ready.decided()
    ready.decided()
    assert (ready.state / "cycles" / "cycle_00002").exists()
    assert not (ready.state / "cycles" / "cycle_00001").exists()
    ready.answer("escrow", "reject", entry, "--reason", "no")
    ready.set(KLR_RETENTION_PER_TICK="3")
    assert ready.answer("prune")
    assert not (ready.state / "cycles" / "cycle_00002").exists()


def test_an_edited_file_changes_nothing_and_is_written_again(ready: Host) -> None:
    entry = held(ready)
    path = ready.state / "escrow" / f"escrow-{entry}.json"
    path.write_text(path.read_text().replace("0.02", "0.09").replace("pending_review", "approved"))
    assert ready.answer("escrow", "approve", entry)["changed"] is True
    assert ready.answer("baseline", "show")["parameters"]["learning_rate"] == 0.02
    assert filed(ready, entry)["promotion"]["changes"] == {"learning_rate": 0.02}


def test_what_is_edited_or_gone_is_found_by_verify_and_doctor_and_mended(ready: Host) -> None:
    entry = held(ready)
    path = ready.state / "escrow" / f"escrow-{entry}.json"
    whole = path.read_text()
    stray = path.with_name("escrow-0123456789ab.json")
    stray.write_text(whole)
    path.write_text(whole.replace("pending_review", "approved"))
    found = ready.run("klorosctl", "baseline", "verify", "--json")
    assert (found.returncode, json.loads(found.stdout)["faults"]) == (
        Exit.FAILED,
        [f"{path} was edited: it differs from byte {whole.index('pending_review')} on", f"{stray} is of no entry of escrow"],
    )
    checks = {one["name"]: one for one in json.loads(ready.run("klorosctl", "doctor", "--json").stdout)["checks"]}
    assert (checks["baseline"]["level"], str(path) in checks["baseline"]["evidence"]) == ("error", True)
    assert checks["baseline"]["advice"].startswith("klorosctl baseline verify --repair")

    assert ready.answer("baseline", "verify", "--repair") == {"faults": [], "mended": [str(path), str(stray)]}
    assert path.read_text() == whole
    assert "approved" in path.with_name(f"{path.name}.edited").read_text()
    path.unlink()
    assert "can't be read" in ready.run("klorosctl", "baseline", "verify").stdout
    assert ready.answer("baseline", "verify", "--repair")["mended"] == [str(path)]
    assert (path.read_text(), path.stat().st_mode & 0o777) == (whole, 0o640)
    checks = {one["name"]: one for one in ready.answer("doctor")["checks"]}
    assert checks["baseline"]["level"] == "ok"
    path.unlink()
    ready.change("UPDATE escrow SET written = 0")  # as if a tick were at it
    checks = {one["name"]: one for one in ready.answer("doctor")["checks"]}
    assert (checks["baseline"]["level"], checks["baseline"]["advice"]) == ("warning", "klorosctl tick")


def test_a_store_that_was_set_back_to_a_copy_writes_its_files_again(ready: Host) -> None:
    entry = held(ready)
    waiting = filed(ready, entry)
    copied = ready.answer("backup")["path"]
    ready.answer("escrow", "approve", entry)
    with closing(sqlite3.connect(copied)) as source, closing(sqlite3.connect(ready.state / "kloros.db")) as target:
        source.backup(target)
    ready.decided()
    assert filed(ready, entry) == waiting
    assert json.loads((ready.state / "baseline" / "manifest.json").read_text())["version"] == 1
    (fault,) = json.loads(ready.run("klorosctl", "baseline", "verify", "--json").stdout)["faults"]
    assert fault.endswith("baseline_v0002.yaml is of no version that the store has")
    assert ready.answer("baseline", "verify", "--repair")["faults"] == []
    assert ready.answer("escrow", "approve", entry)["version"] == 2


def test_a_rollback_that_waits_is_approved_or_rejected_as_any(ready: Host) -> None:
    """As the validation puts it there when it must not roll back by itself."""
    ready.answer("baseline", "set", "learning_rate=0.02", "batch_size=4", "--reason", "worse")
    entry = hold_rollback(ready, 1)
    shown = ready.answer("escrow", "show", entry)
    assert (shown["kind"], shown["promotion"], shown["target"], shown["against"]) == ("rollback", None, 1, 2)
    assert [(one["name"], one["before"], one["after"]) for one in shown["today"]] == [
        ("batch_size", 4, None),
        ("learning_rate", 0.02, 0.01),
    ]
    assert hold_rollback(ready, 1) == ""  # asked for once
    ready.decided()
    assert filed(ready, entry)["rule"] == "-7 % since version 2"
    before = ready.config.read_text()
    ready.configure("[promotions.bounds]\nlearning_rate = [0.015, 0.1]\n")
    assert "'learning_rate' = 0.01 is below its bound 0.015" in refused(ready, "escrow", "approve", entry)
    ready.config.write_text(before)
    assert ready.answer("escrow", "approve", entry, "--reason", "yes")["version"] == 3
    version = ready.answer("baseline", "show")
    assert (version["kind"], version["parameters"]) == ("rollback", {"learning_rate": 0.01})
    assert version["reason"] == f"to version 1, approved from escrow {entry}: yes"
    back = hold_rollback(ready, 2)
    assert ready.answer("escrow", "reject", back, "--reason", "no")["status"] == "rejected"
    assert ready.answer("baseline", "show")["version"] == 3


def test_a_rollback_undoes_what_came_since_only_when_that_is_said(ready: Host) -> None:
    ready.answer("baseline", "set", "learning_rate=0.02", "--reason", "worse")
    entry = hold_rollback(ready, 1)
    ready.answer("baseline", "set", "batch_size=4", "--reason", "meanwhile")
    said = refused(ready, "escrow", "approve", entry)
    assert "the baseline was version 2 when it was held and is version 3 by now" in said
    assert f"klorosctl escrow approve {entry} --anyway" in said
    assert "approve it with --anyway" in ready.run("klorosctl", "escrow", "show", entry).stdout
    assert ready.answer("escrow", "show", entry)["status"] == "pending_review"
    assert ready.answer("baseline", "show")["version"] == 3
    ready.change("UPDATE escrow SET expires_at = '2020-01-01T00:00:00.000000Z'")
    assert "klorosctl baseline rollback 1 does the same" in refused(ready, "escrow", "approve", entry, "--anyway")
    ready.change("UPDATE escrow SET expires_at = NULL")
    assert ready.answer("escrow", "approve", entry, "--anyway")["version"] == 4
    assert ready.answer("baseline", "show")["parameters"] == {"learning_rate": 0.01}


def hold_rollback(host: Host, target: int) -> str:
    with closing(SqliteDatabase(str(host.state / "kloros.db"))) as db, db.transaction():
        evidence: dict[str, object] = {"before": [1.0], "after": [0.93]}
        never = timedelta(0)
        rule = f"-7 % since version {len(db.rows('baseline.all'))}"
        return (
            escrow_ledger.hold_rollback(db, target, rule=rule, evidence=evidence, at=clock.now(), expires_after=never) or ""
        )


def test_people_are_told_what_waits_and_what_to_do(ready: Host) -> None:
    assert "Nothing waits in escrow." in ready.run("klorosctl", "escrow", "list").stdout
    assert f"there is no entry of escrow {'ab' * 6!r}" in refused(ready, "escrow", "show", "ab" * 6)
    ready.set(KLR_ESCROW_FOUR_EYES="true")
    entry = held(ready)
    listed = ready.run("klorosctl", "escrow", "list").stdout
    assert entry in listed
    assert "promotion large; learning_rate 0.01 → 0.02" in listed
    shown = ready.run("klorosctl", "escrow", "show", entry).stdout
    for text in ("pending_review", f"{ME}, who can't approve it", "+100 %", f"klorosctl escrow approve {entry}"):
        assert text in shown
    assert entry in refused(ready, "escrow", "show", entry[:-1] + "x")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{}", "escrow.require.0 = {}: the rule names nothing"),
        ('{ paramter = "lr" }', "write parameter instead"),
        ("{ change_over = -0.1 }", "write for example change_over = 0.2"),
        ("7", "escrow.require.0 = 7: a table is wanted; write for example require = [{"),
        ('{ change_over = "20%" }', "change_over = '20%': a number is wanted; write for example change_over = 0.2"),
        ("{ actor = 7 }", 'actor = 7: a text is wanted; write for example actor = "agent-x"'),
    ],
)
def test_a_rule_that_can_not_be_is_told(host: Host, rule: str, said: str) -> None:
    host.configure(f"[escrow]\nrequire = [{rule}]\n")
    assert said in refused(host, "config", "check")


@pytest.mark.parametrize("given", ['{ parameter = "lr" }', '"lr"'])
def test_what_is_no_list_of_rules_is_told(host: Host, given: str) -> None:
    host.configure(f"[escrow]\nrequire = {given}\n")
    assert "a list is wanted; write for example require = [{" in refused(host, "config", "check")


def test_rules_are_shown_as_the_file_takes_them(ready: Host, tmp_path: Path) -> None:
    shown = ready.run("klorosctl", "config", "show").stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("require = ")]
    other = tmp_path / "shown.toml"
    other.write_text(f"[escrow]\n{line}\n")
    before = ready.answer("config", "show")["escrow.require"]["value"]
    ready.set(KLR_CONFIG=str(other))
    assert ready.answer("config", "show")["escrow.require"]["value"] == before
