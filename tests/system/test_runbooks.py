"""Drills: each runbook's fault is caused on a real systemd, the page's own commands are typed, and the host is well again.

All share one guest, each with a state of its own. With KLR_WRITE_DRILLS=1 they write what they saw into docs/runbooks.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.system.installation import SOURCE, Installed, run_installer, running
from tests.system.operator import CONFIG, STATE, TICK, Operator
from tests.system.runbook import WRITES, Drill, all_pages, write_evidence
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("runbooks")

WATCHING = "kloros-orchestrator.timer kloros-orchestrator.path kloros-cycle.path kloros-notice.path"
SERVICES = "kloros-orchestrator.service kloros-cycle.service kloros-notice.service"


class Scene(NamedTuple):
    """One drill: how the fault comes, and what shows it, its mending and its undoing."""

    cause: str  # in words
    happen: Callable[[Operator], None]
    faulty: Callable[[Operator, str], str]  # asserts, and says what was seen; gets what `confirm` printed
    well: Callable[[Operator, str], str]  # likewise of what `mend` printed
    undone: Callable[[Operator], bool] | None = None


@pytest.fixture(scope="module")
def shared(installed: Installed) -> Iterator[Operator]:
    """Somebody at a guest that all drills share."""
    with running(installed.stack, "kloros-drill") as guest:
        yield Operator(guest)


@pytest.fixture(scope="module")
def record(shared: Operator) -> Iterator[list[Drill]]:
    """The drills that went well; written down in the end, when that is wanted and none is missing."""
    done: list[Drill] = []
    yield done
    if WRITES and {drill.page for drill in done} == set(all_pages()):
        for drill in reversed(done):  # the first of two on a page is the one shown
            drill.write_page()
        name = shared.guest.sh(". /etc/os-release; echo $PRETTY_NAME").out.strip()
        write_evidence(done, f"{name} with {shared.guest.sh('systemctl --version').out.split(' (')[0]}")


def anew(operator: Operator) -> None:
    """Give the guest an empty state and the settings of an installation, with one tick done and the timer running."""
    operator.guest.sh(
        f"systemctl stop {WATCHING} {SERVICES}; find {STATE} -mindepth 1 -delete;"
        "systemd-tmpfiles --create /etc/tmpfiles.d/kloros.conf; rm -f /etc/kloros/*.before;"
        f"systemctl reset-failed 'kloros-*'; systemctl daemon-reload"
    )
    operator.configure("")
    operator.guest.sh(f"systemctl start {WATCHING} && systemctl start {TICK}")


def latest(operator: Operator) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(operator.guest.path(f"{STATE}/latest.json").read_text())
    return found


def conditions(operator: Operator) -> list[str]:
    return [str(cause["condition"]) for cause in latest(operator)["causes"]]


def without_timer(operator: Operator) -> None:
    operator.without_timer()


def ticks(operator: Operator, number: int = 1, *, check: bool = True) -> None:
    for _ in range(number):
        # One that runs already, at a full minute, is not one that begins now: systemd would join us to it.
        until(lambda: operator.state_of(TICK) in ("inactive", "failed"), what="no tick runs")
        operator.guest.sh(f"systemctl start {TICK}", check=check)


def holds(condition: str) -> Callable[[Operator, str], str]:
    def check(operator: Operator, _printed: str) -> str:
        assert condition in conditions(operator)
        return f"the condition `{condition}`"

    return check


def fails(code: int) -> Callable[[Operator, str], str]:
    def check(operator: Operator, _printed: str) -> str:
        # The timer may have begun another tick meanwhile, which ends likewise.
        assert operator.exit_of(TICK) == str(code)
        return f"ticks that end with {code}"

    return check


def says_nothing_of(text: str) -> Callable[[Operator, str], str]:
    def check(_operator: Operator, printed: str) -> str:
        assert text not in printed, printed
        return "nothing that is over"

    return check


def decides(operator: Operator, _printed: str) -> str:
    """A tick that begins now decides."""
    before = len(operator.ticks())
    ticks(operator)
    last = operator.ticks()[-1]
    assert len(operator.ticks()) > before
    assert last["exit_code"] == 0
    return f"a tick decides ({last['decision']}), the verdict is `{latest(operator)['verdict']}`"


def all_of(*checks: Callable[[Operator, str], str]) -> Callable[[Operator, str], str]:
    return lambda operator, printed: "; ".join(check(operator, printed) for check in checks)


def prints(*texts: str) -> Callable[[Operator, str], str]:
    def check(_operator: Operator, printed: str) -> str:
        assert [text for text in texts if text not in printed] == [], printed
        return "its output says so"

    return check


def gone(condition: str) -> Callable[[Operator, str], str]:
    def check(operator: Operator, _printed: str) -> str:
        ticks(operator)
        assert condition not in conditions(operator)
        return f"`{condition}` is gone"

    return check


# the faults


def settings_invalid(operator: Operator) -> None:
    operator.configure("[phase]\nwindow_openz = '02:00'\n")
    ticks(operator, check=False)


def bystander(operator: Operator) -> None:
    """Somebody who has the store open and writes nothing, as the runner of a long cycle has."""
    look = (
        "import sqlite3, time; c = sqlite3.connect('/var/lib/kloros/kloros.db', isolation_level=None);"
        "c.execute('SELECT count(*) FROM ticks').fetchall(); time.sleep(600)"
    )
    operator.guest.sh(f'systemd-run --quiet --collect --unit=bystander --uid=kloros /usr/bin/python3 -c "{look}"')
    until(lambda: "kloros.db" in operator.guest.sh("lslocks --output PATH").out, what="somebody has the store open")


def unharmed(operator: Operator, _printed: str) -> str:
    assert operator.state_of("bystander.service") == "active"
    operator.guest.sh("systemctl stop bystander.service")
    return "who only has the store open is unharmed"


def store_written(operator: Operator) -> None:
    """A script with an open transaction, as an `sqlite3` shell left alone has it."""
    bystander(operator)
    hang = (
        "import sqlite3, time; c = sqlite3.connect('/var/lib/kloros/kloros.db', isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); open('/tmp/held', 'w').close(); time.sleep(600)"
    )
    operator.guest.path("/tmp/held").unlink(missing_ok=True)
    operator.guest.sh(f'systemd-run --quiet --collect --uid=kloros /usr/bin/python3 -c "{hang}"')
    until(lambda: operator.guest.path("/tmp/held").exists(), what="the store is held")
    ticks(operator, check=False)


def lock_held(operator: Operator) -> None:
    """A tool that takes the lock of ticks and hangs."""
    hang = (
        "import fcntl, time; f = open('/var/lib/kloros/locks/orchestrator.lock', 'r+'); fcntl.flock(f, fcntl.LOCK_EX);"
        "open('/tmp/held', 'w').close(); time.sleep(600)"
    )
    operator.guest.path("/tmp/held").unlink(missing_ok=True)
    operator.guest.sh(f'systemd-run --quiet --collect --uid=kloros /usr/bin/python3 -c "{hang}"')
    until(lambda: operator.guest.path("/tmp/held").exists(), what="the lock is held")
    ticks(operator)


def timer_stopped(operator: Operator) -> None:
    operator.guest.sh("systemctl disable --now kloros-orchestrator.timer kloros-orchestrator.path")
    operator.guest.sh(
        "python3 - <<'END'\n"
        "import sqlite3\n"
        "c = sqlite3.connect('/var/lib/kloros/kloros.db')\n"
        "c.execute(\"UPDATE ticks SET started_at = strftime('%Y-%m-%dT%H:%M:%S.000000Z', 'now', '-42 minutes')\")\n"
        "c.commit()\nEND"
    )


REPORTS = """
command = ["sh", "-c", "mkdir -p $KLR_CYCLE_DIR/artifacts && echo '{}' >$KLR_CYCLE_DIR/artifacts/report.json"]
"""


def window_slept_through(operator: Operator) -> None:
    """A window of two seconds in which nothing ticks."""
    without_timer(operator)
    second = timedelta(seconds=1)
    operator.configure(f"[phase]{REPORTS}", window_opens_in=second, lasts=second)
    closes = datetime.now(UTC) + 2 * second
    until(lambda: datetime.now(UTC) > closes + second, what="the window has closed")
    ticks(operator)


def dream_broken(operator: Operator) -> None:
    without_timer(operator)
    operator.guest.sh("mkdir -p /srv/dream/new && ln -sf /bin/true /srv/dream/new/run")
    operator.configure("[dream]\ncommand = ['/srv/dream/old/run']\nbackoff = ['0s']\n")
    for number in range(1, 5):
        operator.drop("trigger_dream")
        operator.ended_cycle(number)
        until(lambda: latest(operator)["active_cycle"] is None, what=f"cycle {number} is settled")
    ticks(operator)


def promotion_parked(operator: Operator) -> None:
    without_timer(operator)
    command = "['sh', '-c', 'test -e /srv/ready || { echo not ready; exit 1; }']"
    operator.configure(f"[dream]\ncommand = {command}\npark_after = 1\nbackoff = ['0s']\n")
    operator.promote("gen7_warm", learning_rate=0.01)
    operator.ended_cycle(1)
    until(lambda: "promotions_parked" in conditions(operator), what="it is parked")
    operator.guest.path("/srv/ready").touch()


def disk_filled(operator: Operator) -> None:
    """The state on a disk of its own, which a cycle's core dump fills."""
    guest = operator.guest
    operator.configure("[dream]\ncommand = ['sh', '-c', 'mkdir -p $KLR_CYCLE_DIR/artifacts']\n")
    operator.drop("trigger_dream")
    operator.ended_cycle(1)
    guest.sh(f"systemctl stop {WATCHING} {SERVICES}")
    options = "size=24m,mode=0700,uid=$(id -u kloros),gid=$(id -g kloros)"
    copy = f"cp -a /run/state/. {STATE}/ && rm -r /run/state"
    guest.sh(f"cp -a {STATE} /run/state && mount -t tmpfs -o {options} full {STATE} && {copy}")
    core = f"{STATE}/cycles/cycle_00001/artifacts/core"
    guest.sh(f"dd if=/dev/zero of={core} bs=64k status=none; chown kloros: {core}", check=False)
    guest.sh(f"systemctl start {WATCHING}")
    ticks(operator, check=False)


def disk_back(operator: Operator) -> None:
    operator.guest.sh(f"systemctl stop {WATCHING} {SERVICES}; umount --lazy {STATE}", check=False)


def more_room(operator: Operator, _printed: str) -> str:
    operator.guest.sh(f"mount -o remount,size=64m {STATE}")
    return "there is room again for what was moved away, on a larger disk"


CLOCK = f"/etc/systemd/system/{TICK}.d/clock.conf"


def clock_ahead(operator: Operator) -> None:
    """A container can't set the clock: the tick's unit gets one that is a month ahead, and later the right one again."""
    guest = operator.guest
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")  # of the host's package faketime
    shutil.copy(library, guest.path("/usr/lib/libfaketimeMT.so.1"))
    guest.write(CLOCK, "[Service]\nEnvironment=LD_PRELOAD=/usr/lib/libfaketimeMT.so.1 FAKETIME=+30d\n")
    guest.sh("systemctl daemon-reload")
    ticks(operator)


def clock_set_right(operator: Operator) -> None:
    operator.guest.path(CLOCK).unlink(missing_ok=True)
    operator.guest.sh("systemctl daemon-reload")


def ticked_ahead(operator: Operator, printed: str) -> str:
    ahead = operator.ticks()[-1]["started_at"]
    assert datetime.fromisoformat(ahead) > datetime.now(UTC) + timedelta(days=1)
    assert ahead[:10] in printed
    clock_set_right(operator)
    return f"a tick dated {ahead[:19]}Z"


def dated_now(operator: Operator, _printed: str) -> str:
    age = datetime.now(UTC) - datetime.fromisoformat(operator.ticks()[-1]["started_at"])
    assert timedelta(0) <= age < timedelta(minutes=2)
    assert latest(operator)["verdict"] == "ok"
    return "the next tick is dated now"


def answered(operator: Operator, _printed: str) -> str:
    acks = operator.guest.path(f"{STATE}/promotions_ack")
    assert [path.name for path in acks.iterdir()] == ["gen7_warm_ack.json"]
    return "the promotion has its answer"


def upgraded(operator: Operator) -> None:
    """A newer release whose ticks fail."""
    guest = operator.guest
    guest.sh(f"sed -i 's/^version = .*/version = \"9.9.9\"/' {SOURCE}/pyproject.toml")
    guest.sh(
        f"sed -i 's/^from orchestration import configuration, wiring/import absent\\n&/' {SOURCE}/orchestration/run_once.py"
    )
    run_installer(guest)
    ticks(operator, check=False)


def is_version(start: str, *, then: Callable[[Operator, str], str]) -> Callable[[Operator, str], str]:
    def check(operator: Operator, printed: str) -> str:
        assert f"/versions/{start}" in printed
        return f"version {start} runs; {then(operator, printed)}"

    return check


SCENES = {
    "service-unavailable": Scene(
        "a setting that does not exist",
        settings_invalid,
        all_of(fails(78), prints("window_openz")),
        decides,
        lambda operator: "\nwindow_openz" in operator.guest.path(CONFIG).read_text(),
    ),
    "store-locked": Scene(
        "a script with an open transaction in the store",
        store_written,
        all_of(fails(69), prints("python3")),
        all_of(decides, unharmed),
    ),
    "store-locked, the lock": Scene(
        "a tool that holds the lock of ticks",
        lock_held,
        all_of(
            fails(75),
            prints("python3", "orchestrator.lock", "held by another process; its record"),
            says_nothing_of("database is locked"),  # of the drill before
        ),
        decides,
    ),
    "tick-stale": Scene(
        "the timer stopped, the last tick 42 minutes ago",
        timer_stopped,
        prints("inactive", "none for 42min"),
        decides,
        lambda operator: operator.state_of("kloros-orchestrator.timer") == "inactive",
    ),
    "phase-missed": Scene(
        "a window in which nothing ticked",
        window_slept_through,
        all_of(holds("phase_missed"), prints("skipped")),
        all_of(gone("phase_missed"), prints("succeeded")),
    ),
    "dream-failing": Scene(
        "a command that is no longer where the settings say",
        dream_broken,
        all_of(holds("dream_failing"), prints("failed", "/srv/dream/old/run")),
        prints("succeeded"),
        lambda operator: "/srv/dream/old" in operator.guest.path(CONFIG).read_text(),
    ),
    "promotion-parked": Scene(
        "a cycle that failed while what it needs was not ready",
        promotion_parked,
        all_of(holds("promotions_parked"), prints("gen7_warm", "not ready")),
        all_of(gone("promotions_parked"), answered),
    ),
    "disk-full": Scene(
        "a core dump that fills a disk of 24 MiB",
        disk_filled,
        all_of(fails(74), prints("100%", "artifacts/core")),
        all_of(decides, more_room),
        lambda operator: operator.guest.path(f"{STATE}/cycles/cycle_00001/artifacts/core").exists(),
    ),
    "clock-wrong": Scene("a clock a month ahead in the tick's unit", clock_ahead, ticked_ahead, all_of(decides, dated_now)),
    "upgrade-and-rollback": Scene(
        "an upgrade to a release whose ticks fail",
        upgraded,
        is_version("9.9.9-", then=fails(1)),
        is_version("0.1.0-", then=decides),
    ),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_page_mends_the_fault(name: str, shared: Operator, record: list[Drill]) -> None:
    scene, page = SCENES[name], name.partition(",")[0]
    anew(shared)
    began = time.monotonic()
    drill = Drill(page, shared.guest, cause=scene.cause)
    try:
        scene.happen(shared)
        drill.saw = scene.faulty(shared, drill.type("confirm"))
        drill.then = scene.well(shared, drill.type("mend"))
        if scene.undone is not None:
            drill.type("undo")
            assert scene.undone(shared)
            drill.then += "; what was done is undone"
    finally:
        disk_back(shared) if page == "disk-full" else clock_set_right(shared)
    drill.seconds = time.monotonic() - began
    record.append(drill)


def test_every_page_with_commands_has_its_drill() -> None:
    assert sorted({name.partition(",")[0] for name in SCENES}) == all_pages()
