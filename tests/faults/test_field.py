"""The field itself: its links, clocks, machines and servers fail as told, and only so."""

from __future__ import annotations

import sys
import time

from tests.acceptance.host import script
from tests.field.database import POOLED_PORT, PORT
from tests.field.field import HOSTS, Field
from tests.waiting import until


def psql(field: Field, host: str, statement: str) -> tuple[int, str, str]:
    """Have a host say something to whichever server takes writes."""
    station = field[host]
    done = station.machine.run("psql", "-qAt", station.environ["KLR_DATABASE_URL"], "-c", statement)
    return done.returncode, done.stdout.strip(), done.stderr


def test_each_host_is_another_machine_and_reaches_the_database(field: Field) -> None:
    field.say("CREATE TABLE words (host text)")
    identities = set()
    for name in HOSTS:
        assert psql(field, name, f"INSERT INTO words VALUES ('{name}')") == (0, "", "")
        done = field[name].machine.run(
            "cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname"
        )
        assert done.stdout.split()[2] == name
        identities |= set(done.stdout.split())
    assert len(identities) == 9
    assert field.ask("SELECT host FROM words ORDER BY 1") == [(name,) for name in sorted(HOSTS)]
    assert psql(field, "north", "SELECT inet_client_addr()")[1] == field["north"].machine.address
    assert psql(field, "east", "SELECT inet_client_addr()")[1] == "", "the pooler asks for it, over its socket"


def test_a_link_that_is_cut_is_silent_and_comes_back(field: Field) -> None:
    machine = field["south"].machine
    server = field.databases.primary.machine
    before = machine.start("psql", field["south"].environ["KLR_DATABASE_URL"], "-c", "SELECT pg_sleep(2)")
    until(
        lambda: field.ask("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"),
        "asked",
    )
    machine.cut()
    for port in (PORT, POOLED_PORT):
        tried = machine.run("timeout", "0.5", "bash", "-c", f": </dev/tcp/{server.address}/{port}")
        assert tried.returncode == 124, "nobody answers, and nobody refuses"
    assert psql(field, "north", "SELECT 1")[0] == 0, "the others' links are their own"
    assert before.poll() is None
    machine.mend()
    assert before.wait(30) == 0, "a connection outlives a short silence"
    assert psql(field, "south", "SELECT 1")[0] == 0


def test_power_takes_everything_but_the_disk(field: Field) -> None:
    station = field["east"]
    boot = station.machine.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    station.machine.start("sh", "-c", "setsid sleep 300 & sleep 300")
    until(lambda: len(station.machine.running("sleep 300")) >= 2, "they run")
    station.machine.cut_power()
    assert not station.machine.is_on
    assert psql(field, "north", "SELECT 1")[0] == 0
    station.machine.boot()
    assert station.machine.pids() == []
    assert station.machine.run("cat", "/proc/sys/kernel/random/boot_id").stdout != boot
    assert psql(field, "east", "SELECT 1")[0] == 0
    assert station.state.exists()


def test_a_machine_that_is_paused_stands_still(field: Field) -> None:
    machine = field["north"].machine
    written = field["north"].home / "written"
    started = machine.start("sh", "-c", f"while :; do echo . >>{written}; sleep 0.01; done")
    until(written.exists, "it writes")
    machine.pause()
    size = written.stat().st_size
    assert psql(field, "south", "SELECT pg_sleep(0.1)")[0] == 0
    assert written.stat().st_size == size
    machine.go_on()
    until(lambda: written.stat().st_size > size, "it goes on")
    assert started.poll() is None


def test_clocks_are_off_by_as_much_as_they_were_moved(field: Field) -> None:
    station = field["south"]
    asked = (sys.executable, "-I", "-c", "import time; print(time.time(), time.monotonic())")
    for hours in (1, -1):
        station.move_clock(f"{hours:+d}h")
        told = station.machine.run(*asked, environ=station.moved).stdout.split()
        assert abs(float(told[0]) - time.time() - hours * 3600) < 60
        assert abs(float(told[1]) - time.monotonic()) < 60
    station.move_clock("+0")


def test_a_server_restarts_and_fails_over_and_forgets_nothing(field: Field) -> None:
    field.say("CREATE TABLE words (word text)")
    for number, mode in enumerate(("fast", "immediate")):
        field.databases.primary.restart(mode)
        for host in HOSTS:
            assert psql(field, host, f"INSERT INTO words VALUES ('{host}{number}')")[0] == 0
    old, new = field.databases.primary, field.databases.replica
    field.databases.fail_over()
    assert field.databases.primary is new
    for host in HOSTS:
        assert psql(field, host, f"INSERT INTO words VALUES ('{host}2')")[0] == 0
    assert field.ask("SELECT count(*), count(DISTINCT word) FROM words") == [(9, 9)]
    assert old.ask("SELECT count(*) FROM words", field.database) == [(6,)], "it is off the network, and knows nothing of it"
    field.databases.take_back()
    assert old.ask("SELECT count(*) FROM words", field.database) == [(9,)]
    for host in HOSTS:
        assert psql(field, host, f"INSERT INTO words VALUES ('{host}3')")[0] == 0


def test_ticks_and_runners_are_started_as_by_the_units(field: Field) -> None:
    """With a store of its own: a host alone."""
    station = field["north"]
    station.set(
        KLR_DATABASE_URL="",
        KLR_DREAM_COMMAND=f"sh {script(station.home, 'job', ['echo {} >$KLR_CYCLE_DIR/artifacts/report.json'])}",
    )
    station.promote("first")
    ticker = station.keep_ticking(0.3)
    until(lambda: not station.waiting(), "it is answered")
    assert {(line["entry"], line["code"]) for line in station.ticks_told()} == {("run_once", 0), ("run_cycle", 0)}
    assert station.ack("first")["accepted"]
    until(lambda: not station.left(), "nothing is left")
    station.machine.cut_power()
    assert ticker.wait(10) != 0
    assert field["east"].ticks_told() == []
