"""The step from the older orchestrator to this one, as root on a real host: its D-REAM off, its files taken over."""

from __future__ import annotations

import json

from tests.acceptance.older import lived_in
from tests.system.guest import Guest
from tests.system.operator import STATE, Operator
from tests.waiting import until

HOME = "/home/older"
UNIT = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
MIGRATE = f"klorosctl migrate-legacy --from {HOME}/.kloros --artifacts {HOME}/artifacts"


def test_the_dream_that_starts_by_itself_is_named_and_switched_off(guest: Guest, operator: Operator) -> None:
    guest.write("/etc/systemd/system/dream-background.service", UNIT)
    guest.sh("mkdir -p /etc/cron.d && systemctl daemon-reload && systemctl enable --now dream-background.service")
    guest.write("/etc/cron.d/dream", "0 3 * * * root /home/kloros/dream_overnight.sh\n")
    said = guest.sh("klorosctl doctor", check=False).out
    assert "enabled and active" in said
    assert "systemctl disable --now dream-background.service" in said
    assert "sed -i '1s/^/#/' /etc/cron.d/dream" in said

    assert "Nothing has been changed" in guest.sh("klorosctl autonomous disable").out
    assert guest.sh("systemctl is-active dream-background.service").out == "active\n"
    assert "Switched off: 2 of 2." in guest.sh("klorosctl autonomous disable --yes").out
    assert guest.sh("systemctl is-enabled dream-background.service", check=False).out == "disabled\n"
    assert guest.sh("systemctl is-active dream-background.service", check=False).out == "inactive\n"
    assert guest.path("/etc/cron.d/dream").read_text().startswith("#0 3")
    assert "no unit and no cron line" in guest.sh("klorosctl doctor", check=False).out
    assert guest.sh("systemctl is-active kloros-orchestrator.timer").out == "active\n"


def test_units_of_a_person_are_switched_off_whether_their_systemd_runs_or_not(guest: Guest, operator: Operator) -> None:
    guest.sh("useradd --create-home ada && useradd --create-home bob && loginctl enable-linger ada")
    for person in ("ada", "bob"):
        folder = f"/home/{person}/.config/systemd/user"
        guest.sh(f"mkdir -p {folder}/default.target.wants && ln -s ../dream-runner.service {folder}/default.target.wants/")
        guest.write(f"{folder}/dream-runner.service", UNIT.replace("multi-user", "default"))
        guest.sh(f"chown -R {person}: /home/{person}")
    uid = guest.sh("id -u ada").out.strip()
    until(lambda: guest.path(f"/run/user/{uid}/systemd/private").exists(), what="ada's own systemd runs")
    ada = f"runuser -u ada -- env XDG_RUNTIME_DIR=/run/user/{uid} systemctl --user"
    guest.sh(f"{ada} daemon-reload && {ada} start dream-runner.service")
    assert "Switched off: 2 of 2." in guest.sh("klorosctl autonomous disable --yes").out
    assert guest.sh(f"{ada} is-active dream-runner.service", check=False).out == "inactive\n"
    assert "Nothing starts D-REAM by itself here." in guest.sh("klorosctl autonomous list").out


def test_root_takes_over_what_only_another_user_may_read(guest: Guest, operator: Operator) -> None:
    operator.without_timer()
    guest.sh("systemctl stop kloros-orchestrator.path")  # whose tick would file the intent away before it is looked at
    older = lived_in(guest.path(HOME), "2026-01-01")
    (older.artifacts / "dream/promotions_ack/shadow.json").symlink_to("/etc/shadow")
    guest.sh('mkdir -m 700 /root/hidden && echo \'{"promotion_id": "x"}\' > /root/hidden/x_ack.json')
    guest.sh(f"ln -s /root/hidden {HOME}/.kloros/promotions_ack")
    guest.sh(f"useradd --no-create-home older && chown -R older: {HOME} && chmod -R go= {HOME}")
    before = older.snapshot()
    guest.sh(MIGRATE)
    assert not guest.path(f"{STATE}/promotions_ack/promo_a_ack.json").exists()
    document = json.loads(guest.sh(f"{MIGRATE} --yes --json").out)
    assert document["counts"]["taken_over"] == 5 + 4 + 4 + 2 + 1  # acks, versions, dates, signals, an intent
    assert older.snapshot() == before
    assert not guest.path(f"{STATE}/promotions_ack/x_ack.json").exists()  # the owner of that link may not read it
    owners = set(guest.sh(f"find {STATE} -printf '%u\\n'").out.split())
    assert owners == {"kloros"}
    modes = guest.sh(
        f"stat -c '%a' {STATE}/promotions_ack {STATE}/promotions_ack/promo_a_ack.json {STATE}/intents/*.json"
    ).out
    assert modes.split() == ["700", "640", "600"]
    assert json.loads(guest.sh(f"{MIGRATE} --yes --json").out)["changed"] is False
    guest.sh("systemctl start kloros-orchestrator.service")
    assert guest.sh("klorosctl baseline verify").code == 0
