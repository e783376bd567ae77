"""Notices and heartbeats on a real systemd: URLs from its credential, kicks by its path unit, failed units."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.acceptance.webhook import Webhook
from tests.system.guest import Guest
from tests.system.installation import run_installer
from tests.system.operator import CONFIG, STATE, TICK, Operator
from tests.waiting import until

NOTICE = "kloros-notice.service"
URLS = "/etc/kloros/notices.urls"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A server on the host's loopback, which the guest shares."""
    with Webhook() as webhook:
        yield webhook


def idle(operator: Operator) -> None:
    until(lambda: operator.state_of(NOTICE) == "inactive", what="no notifier is at work")


def test_a_failing_tick_and_a_verdict_are_told_through_the_credential(
    guest: Guest, operator: Operator, webhook: Webhook
) -> None:
    run_installer(guest, "--with notices")
    operator.without_timer().configure("[notices]\nsettle = '0s'\n")
    guest.sh(f"systemctl start {TICK}")
    idle(operator)
    guest.path(URLS).write_text(f"# the one that reads it is root\n{webhook.url}\n")
    assert guest.sh(f"stat -c '%U %a' {URLS}").out == "root 600\n"
    assert guest.sh("/opt/kloros/bin/python -m orchestration.run_notice --test").out == "1 of 1 reached\n"
    assert webhook.titles == ["guest: a test"]
    webhook.got.clear()

    guest.sh(f"klorosctl disable && systemctl start {TICK}")
    webhook.until(1)
    assert webhook.titles == ["guest: KLoROS is stopped: disabled"]
    idle(operator)
    guest.sh(f"klorosctl enable && systemctl start {TICK}")
    webhook.until(2)
    assert webhook.titles[1] == "guest: KLoROS is ok again"
    idle(operator)

    good = guest.path(CONFIG).read_text()
    guest.write(CONFIG, f"nonsense = 1\n{good}")
    guest.sh(f"systemctl start {TICK}", check=False)
    webhook.until(3)
    assert webhook.titles[2] == f"guest: {TICK} failed"
    assert "the settings are invalid" in webhook.got[2].document["message"]
    idle(operator)
    guest.sh(f"systemctl start {TICK}", check=False)
    guest.write(CONFIG, good)
    # The settings were invalid when the failure was told, so the next look is due after the default time: look now.
    guest.sh(f"systemctl start {TICK} && systemctl start {NOTICE}")
    webhook.until(4)
    idle(operator)
    assert webhook.titles[3:] == ["guest: KLoROS ticks again"], "and the second failure is not told again"
    assert guest.sh("systemctl list-units --failed --no-legend").out == ""
    assert list(guest.path(f"{STATE}/notices").iterdir()) == []


def test_the_notifier_may_read_no_file_of_urls(guest: Guest) -> None:
    assert guest.sh(f"cat {URLS}", user="kloros", check=False).code != 0


def test_who_is_not_reached_fails_no_unit_and_is_in_status(guest: Guest, operator: Operator) -> None:
    """Here because the extra is not installed."""
    guest.path(URLS).write_text("json://user:hunter2@127.0.0.1:9/told\n")
    operator.without_timer().configure("")
    guest.sh("klorosctl maintenance on")
    guest.sh(f"systemctl start {TICK}")
    until(lambda: operator.ctl("status")["notices_undelivered"], what="it is not delivered")
    said = guest.sh("klorosctl status").out
    assert "notices can't be delivered" in said
    assert "line 1 (json://…): the package apprise is missing: install again with --with notices" in said
    assert guest.sh("systemctl list-units --failed --no-legend").out == ""
    entries = guest.journal("EVENT=notice.failed")
    assert entries
    assert not any("hunter2" in json.dumps(entry) for entry in entries)


def test_ticks_ping_the_switch_from_a_unit_that_has_no_network(guest: Guest, operator: Operator, webhook: Webhook) -> None:
    operator.without_timer().configure(f"[heartbeat]\nurl = '{webhook.ping_url}'\n")
    guest.sh(f"systemctl start {TICK}")
    webhook.until(2)
    assert [suffix for suffix, _ in webhook.pings] == ["/start", ""]
    guest.sh("klorosctl halt")
    guest.sh(f"systemctl start {TICK}", check=False)
    until(lambda: not guest.path(f"{STATE}/kick/notice").exists(), "the notifier has looked")
    idle(operator)
    assert len(webhook.got) == 2


def test_pulse_that_failed_and_stays_up_is_told_as_well_again(guest: Guest, operator: Operator, webhook: Webhook) -> None:
    run_installer(guest, "--with notices,pulse")
    operator.without_timer().configure("[notices]\nsettle = '1s'\n")
    guest.path(URLS).write_text(f"{webhook.url}\n")
    guest.sh("systemctl start kloros-pulse.service")
    guest.sh("systemctl kill --signal=SEGV kloros-pulse.service")
    webhook.until(1)
    assert webhook.titles == ["guest: kloros-pulse.service failed"]
    idle(operator)
    guest.sh(f"systemctl start {NOTICE}")
    assert len(webhook.got) == 1, "it is down"
    guest.sh("systemctl start kloros-pulse.service")

    def told() -> bool:
        guest.sh(f"systemctl start {NOTICE}")
        return len(webhook.got) == 2

    until(told, what="its recovery is told")
    assert webhook.titles[1] == "guest: Pulse serves again"
