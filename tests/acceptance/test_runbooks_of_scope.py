"""The runbooks of a scope tried out, on hosts over one PostgreSQL: cause the fault, see it told, follow the page."""

from __future__ import annotations

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.runbook import HEADINGS, Runbook
from tests.acceptance.scopes import Scoped
from tests.acceptance.test_runbooks_of_alerts import told
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")


def host(scope: Scoped, name: str) -> Host:
    made = scope.host(name)
    made.stepwise()
    made.set(KLR_SCOPE_NAME="night-lab")
    made.decided()
    return made


def page_of(name: str, scope: Scoped) -> Runbook:
    """Read a page, and put the database of this test into it."""
    page = Runbook(name)
    page.text = page.text.replace("PostgreSQL kloros", f"PostgreSQL {scope.url.partition('///')[2].partition('?')[0]}")
    return page


@pytest.mark.parametrize("name", ["database-away", "nobody-leads", "host-silent", "host-doubled"])
def test_a_page_has_each_part_in_order(name: str) -> None:
    assert Runbook(name).headings == HEADINGS


def test_the_database_is_away(scope: Scoped, cluster: Cluster) -> None:
    page, lab = page_of("database-away", scope), host(scope, "lab-1")
    cluster.stop()
    try:
        assert lab.tick().returncode == Exit.STORE_UNREACHABLE
        assert told(lab) == {"store_unreachable"}
        page.follow(lab, "How to confirm")
    finally:
        cluster.start()
    page.follow(lab, "How to mend")
    assert told(lab) == set()


def test_nobody_leads(scope: Scoped) -> None:
    page = page_of("nobody-leads", scope)
    _, lab = host(scope, "lab-1"), host(scope, "lab-2")
    scope.do("UPDATE leases SET pinned_to = 'lab-1', expires_at = clock_timestamp() - interval '4 minutes'")
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '312 seconds' WHERE host = 'lab-1'")
    lab.decided()
    assert told(lab) == {"nobody_leads"}
    page.follow(lab, "How to confirm")
    page.follow(lab, "How to mend")
    assert told(lab) == set()
    page.follow(lab, "How to undo")


def test_a_host_is_silent(scope: Scoped) -> None:
    page = page_of("host-silent", scope)
    leader, lab = host(scope, "lab-1"), host(scope, "lab-2")
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '20 minutes' WHERE host = 'lab-2'")
    leader.decided()
    assert told(leader) == {"host_silent"}
    page.follow(leader, "How to confirm")
    page.follow(lab, "How to mend")
    leader.decided()
    assert told(leader) == set()


def test_two_machines_have_one_name(scope: Scoped) -> None:
    page = page_of("host-doubled", scope)
    _, lab = host(scope, "lab-1"), host(scope, "lab-2")
    scope.do("UPDATE hosts SET machine_id = '0123456789abcdef0123456789abcdef' WHERE host = 'lab-2'")
    assert lab.tick().returncode == Exit.SETTINGS_INVALID
    assert told(lab) == {"host_doubled"}
    page.follow(lab, "How to confirm")
    lab.set(KLR_SCOPE_HOST="lab-3")
    page.follow(lab, "How to mend")
    assert told(lab) == set()


def test_a_clock_is_wrong(scope: Scoped) -> None:
    leader, lab = host(scope, "lab-1"), host(scope, "lab-2")
    scope.do("UPDATE hosts SET clock_offset_seconds = 3600.5 WHERE host = 'lab-2'")
    leader.decided()
    scope.do("UPDATE conditions SET since = '2026-01-01T00:00:00.000000Z' WHERE condition = 'clock_offset'")
    leader.decided()
    assert told(leader) == {"clock_offset"}
    assert "lab-2: stands by" in leader.run("klorosctl", "status").stdout
    assert "clock WRONG" in leader.run("klorosctl", "status").stdout
    assert "`klorosctl status` says by how much" in Runbook("clock-wrong").text
    lab.decided()
    leader.decided()
    assert told(leader) == set()
