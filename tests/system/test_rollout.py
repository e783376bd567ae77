"""`klorosctl rollback-rollout` on a bare Debian 12: back to the version before, or to no installation at all."""

from __future__ import annotations

import json

from tests.system.guest import Guest
from tests.system.installation import SOURCE, run_installer
from tests.system.operator import CONFIG, DISABLE_BY_SED, STATE, TICK, Operator
from tests.waiting import until

TIMER = "kloros-orchestrator.timer"
OURS = "find / -xdev -iname '*kloros*' -not -path '/root/kloros*' -not -path '/tmp/*' -not -path '/var/log/journal/*'"
PLACES = "/opt/kloros/bin /opt/kloros/README.md /etc/systemd/system /etc/*.d /usr/local"
LAID = f"find {PLACES} -xtype f -exec sha256sum {{}} + | sort -k2"


def version_of(guest: Guest) -> str:
    return guest.path("/opt/kloros/bin/python").read_text().split("/versions/")[1].split("/")[0]


def newer_release(guest: Guest, *, schema: bool = False) -> None:
    """Make the source in the guest a newer release: another unit more, a unit that differs, perhaps a newer store."""
    guest.sh(
        f"cd {SOURCE} && sed -i 's/^version = .*/version = \"9.9.9\"/' pyproject.toml"
        " && sed -i 's/TimeoutStartSec=50/TimeoutStartSec=40/' systemd/kloros-orchestrator.service"
        " && cp systemd/kloros-cycle.path systemd/kloros-more.path"
        " && sed -i 's/kloros-loop.service$/kloros-loop.service kloros-more.path/;"
        " s/^started_units=(/started_units=(kloros-more.path /' install.sh"
        " && printf '[Path]\\nUnit=kloros-cycle.service\\n' >>systemd/kloros-more.path"
    )
    if schema:
        guest.sh(
            f'cd {SOURCE}/orchestration/store && newest=$(basename "$(ls migrations/*.sql | tail -1)" | cut -c1-4)'
            " && next=$((10#$newest + 1))"
            " && printf 'CREATE TABLE more (one INTEGER);\\n' >migrations/$(printf %04d $next)_more.sql"
            ' && sed -i "s/^SCHEMA_VERSION = .*/SCHEMA_VERSION = $next/" sqlite.py'
        )


def test_after_an_upgrade_the_version_before_ticks_on(guest: Guest, operator: Operator) -> None:
    operator.configure("").without_timer()
    guest.sh(f"systemctl start {TICK}")
    before, laid = version_of(guest), guest.sh(LAID).out
    newer_release(guest, schema=True)
    run_installer(guest)
    assert version_of(guest).startswith("9.9.9-")
    assert operator.state_of("kloros-more.path") == "active", "a unit that a release brings is enabled"
    guest.sh(f"systemctl start {TICK}")
    guest.sh(DISABLE_BY_SED)

    listed = operator.ctl("rollback-rollout")
    assert (listed["done"], listed["back_to"]) == (False, before)
    assert version_of(guest).startswith("9.9.9-"), "listing changes nothing"
    by_action: dict[str, list[str]] = {}
    for step in listed["steps"]:
        by_action.setdefault(step["action"], []).append(step["name"])
    assert "/etc/systemd/system/kloros-more.path" in by_action["remove"]
    assert "/etc/systemd/system/kloros-orchestrator.service" in by_action["restore"]
    assert by_action["set back"] == [f"{STATE}/kloros.db"]
    assert "leave" not in by_action, "switching the mode is no change of the unit"

    said = guest.sh("klorosctl rollback-rollout --yes").out
    assert f"Done. {before} runs again." in said
    disabled = guest.sh("grep -c MODE=disabled /etc/systemd/system/kloros-orchestrator.service").out
    assert disabled == "1\n", "what was switched off stays off"
    guest.sh("sed -i s/MODE=disabled/MODE=enabled/ /etc/systemd/system/kloros-orchestrator.service; systemctl daemon-reload")
    assert guest.sh(LAID).out == laid
    assert [path.name for path in guest.path("/opt/kloros/versions").iterdir()] == [before]
    assert len(list(guest.path(f"{STATE}/backups").glob("replaced-*.db"))) == 1, "what was recorded since is kept"
    assert guest.sh(f"stat -c %U {STATE}/kloros.db {STATE}/backups/*").out.split() == ["kloros"] * 3

    count = len(operator.ticks())
    guest.sh(f"systemctl start {TICK}")
    assert len(operator.ticks()) == count + 1
    assert operator.state_of("kloros-orchestrator.path") == "active"
    assert guest.sh("systemctl list-units --failed --no-legend").out == ""


def test_after_a_first_installation_nothing_is_left_but_what_it_keeps(guest: Guest, operator: Operator) -> None:
    operator.configure("")
    guest.sh(f"systemctl start {TICK}")
    guest.write("/etc/systemd/system/kloros-loop.service", "[Unit]\nDescription=mine\n[Service]\nExecStart=/bin/true\n")
    guest.write("/opt/kloros/mine.txt", "mine\n")
    said = guest.sh("klorosctl rollback-rollout").out
    assert "Nothing has been changed" in said
    assert guest.path("/usr/local/bin/klorosctl").is_symlink()

    document = json.loads(guest.sh("klorosctl rollback-rollout --yes --json").out)
    assert [step["name"] for step in document["left"]] == ["/etc/systemd/system/kloros-loop.service"]
    left = set(guest.sh(OURS).out.split())
    kept = {
        "/opt/kloros",
        "/etc/kloros",
        "/etc/systemd/system/kloros-loop.service",
        "/var/lib/systemd/timers/stamp-" + TIMER,
    }
    assert {path for path in left if not path.startswith(STATE)} == kept
    assert [path.name for path in guest.path("/opt/kloros").iterdir()] == ["mine.txt"]
    assert guest.path(CONFIG).exists()
    assert guest.path(f"{STATE}/kloros.db").exists()
    assert operator.ticks()
    assert guest.sh("systemctl list-units --all 'kloros*' --no-legend --plain").out == ""

    # The state is there for the next installation, which goes on with it.
    assert run_installer(guest).code == 0
    count = len(operator.ticks())
    guest.sh(f"systemctl start {TICK}")
    until(lambda: len(operator.ticks()) > count, what="it ticks again")


def test_extras_are_installed_and_kept_by_upgrades(guest: Guest) -> None:
    imports = "/opt/kloros/bin/python -c 'import zstandard; print(1); import fsspec, s3fs; print(2)'"
    assert guest.sh(imports, check=False).out == "1\n"
    run_installer(guest, "--with federation,s3")
    assert guest.sh(imports).out == "1\n2\n"
    with_extras = version_of(guest)
    assert "is here already" in run_installer(guest).out
    assert version_of(guest) == with_extras
    guest.sh("klorosctl rollback-rollout --yes")
    assert guest.sh(imports, check=False).out == "1\n"


def test_an_interrupted_installation_is_told_and_gone_on_with(guest: Guest) -> None:
    guest.sh('sed -i \'s/"complete": true/"complete": false/\' /opt/kloros/rollouts/0001/record.json')
    assert "warning  rollout" in guest.sh("klorosctl doctor", check=False).out
    run_installer(guest)
    assert " rollout " not in guest.sh("klorosctl doctor", check=False).out
    assert len(list(guest.path("/opt/kloros/rollouts").iterdir())) == 1
