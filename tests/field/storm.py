"""Faults at random: each chosen, aimed and timed by one seeded generator, while every host ticks and work comes in.

A fault is begun and ended by its method; what can last (a clock that is off) lasts until the next of its kind. None waits
for the scope to recover: the next comes as soon as this one is over.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from threading import Event

from tests.field.field import HOSTS, Field
from tests.field.network import send
from tests.field.play import prepare
from tests.field.station import Station
from tests.field.truth import Truth

LEASE, PERIOD, SILENT = 2.0, 0.4, 4.0
_PASSES = Event()  # never set: what passes is time


class Storm:
    """One field under faults."""

    def __init__(self, field: Field, seed: int) -> None:
        """Set the hosts ticking, with jobs that take no or little time."""
        self.field = field
        self.chance = Random(seed)
        self.told: list[str] = []
        for host in field.hosts.values():
            prepare(host, "sleep 0.$((RANDOM % 4))", lease=LEASE, silent=SILENT)
        assert field["north"].run("run_once").returncode == 0, "the first tick makes the tables"
        self.truth = Truth(field)
        for name in HOSTS:
            self._start_ticking(name)
        self._serial = 0
        self._faults: dict[str, Callable[[], str]] = {
            "tick killed": self.kill_a_tick,
            "tick paused": self.pause_a_tick,
            "runner killed": self.kill_a_runner,
            "host paused": self.pause_a_host,
            "power cut": self.cut_power,
            "link cut": self.cut_a_link,
            "host silent": self.silence_a_host,
            "clock moved": self.move_a_clock,
            "database restarted": self.restart_the_database,
            "database crashed": self.crash_the_database,
            "database cut off": self.cut_off_the_database,
            "database failed over": self.fail_over,
            "pooler killed": self.kill_the_pooler,
            "lead yielded": self.yield_the_lead,
        }

    def blow(self, faults: int, *, rest_after: int = 5) -> Counter[str]:
        """Let so many faults come; after some of them, see that all comes to its end. Returns how many of each kind came."""
        came: Counter[str] = Counter()
        for number in range(1, faults + 1):
            self.bring_work()
            kind = self.chance.choice(list(self._faults))
            came[kind] += 1
            self.told.append(f"{number} {kind}: ")
            self.told[-1] += self._faults[kind]()
            self.truth.assert_always()
            if number % rest_after == 0 or number == faults:
                self.rest()
        return came

    def rest(self) -> None:
        """Let everything be answered, and see that it is as it must be."""
        deadline = time.monotonic() + 90
        while not self.truth.is_answered():
            assert time.monotonic() < deadline, self.truth.why_not()
            _PASSES.wait(0.1)
        self.truth.assert_settled()

    def bring_work(self) -> None:
        """Leave promotions and intents at hosts that are on, under names that hosts share."""
        for _ in range(self.chance.randrange(3)):
            if self.chance.random() < 0.5:
                self._promote()
            else:
                self._serial += 1
                kind = self.chance.choice(("suggest_something", "curiosity_bees"))
                self.truth.intend(self.chance.choice(HOSTS), kind, serial=self._serial)

    def _promote(self) -> None:
        """Leave a promotion; every third name is used by another host too."""
        self._serial += 1
        for host in self.chance.sample(HOSTS, 1 + (self._serial % 3 == 0)):
            self.truth.promote(host, f"p{self._serial}")

    # ── Faults ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def kill_a_tick(self) -> str:
        """Kill a tick -9 at any moment of its life; most often the leader's."""
        host = self._aim()
        return self._hit(host, "orchestration.run_once", signal.SIGKILL)

    def pause_a_tick(self) -> str:
        """Stop a tick where it is until its host has certainly lost its lease, then let it go on."""
        host = self._aim()
        told = self._hit(host, "orchestration.run_once", signal.SIGSTOP)
        self._pass(LEASE * 1.3, LEASE * 2)
        host.machine.go_on()
        return told

    def kill_a_runner(self) -> str:
        """Kill a runner -9, wherever one comes to work."""
        self._promote()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            for host in self.field.hosts.values():
                if host.machine.running("orchestration.run_cycle"):
                    return self._hit(host, "orchestration.run_cycle", signal.SIGKILL, within=0.6)
            _PASSES.wait(0.005)
        return "none ran"

    def pause_a_host(self) -> str:
        """Stop a whole machine beyond its lease, as when a virtual machine is moved."""
        host = self._aim()
        host.machine.pause()
        self._pass(LEASE, LEASE * 2.5)
        host.machine.go_on()
        return host.name

    def cut_power(self) -> str:
        """Switch a machine off and on again."""
        host = self._aim()
        host.machine.cut_power()
        self._pass(0, LEASE * 1.5)
        host.machine.boot()
        self._start_ticking(host.name)
        return host.name

    def cut_a_link(self) -> str:
        """Drop all packets of a host for a while, silently."""
        host = self._aim()
        host.machine.cut()
        seconds = self._pass(0.1, LEASE * 2)
        host.machine.mend()
        return f"{host.name} for {seconds:.1f} s"

    def silence_a_host(self) -> str:
        """Cut a host off for so long that the others take it for silent."""
        host = self._aim()
        host.machine.cut()
        self._pass(SILENT, SILENT * 1.5)
        host.machine.mend()
        return host.name

    def move_a_clock(self) -> str:
        """Set a host's clock an hour off, either way, or right."""
        host = self.chance.choice(list(self.field.hosts.values()))
        offset = self.chance.choice(("+1h", "-1h", "+0"))
        host.move_clock(offset)
        return f"{host.name} {offset}"

    def restart_the_database(self) -> str:
        """Restart it in good order."""
        self.field.databases.primary.restart("fast")
        return self.field.databases.primary.machine.name

    def crash_the_database(self) -> str:
        """Kill it, and start it again after a while."""
        self.field.databases.primary.stop("immediate")
        self._pass(0, LEASE * 1.5)
        self.field.databases.primary.start()
        return self.field.databases.primary.machine.name

    def cut_off_the_database(self) -> str:
        """Drop all packets of the primary's machine for a while: every host waits."""
        machine = self.field.databases.primary.machine
        machine.cut()
        seconds = self._pass(0.1, LEASE * 1.5)
        machine.mend()
        return f"{seconds:.1f} s"

    def fail_over(self) -> str:
        """Take the primary off the network, promote the replica; later the old primary becomes its replica."""
        self.field.databases.fail_over()
        self._pass(0, LEASE)
        self.field.databases.take_back()
        return f"to {self.field.databases.primary.machine.name}"

    def kill_the_pooler(self) -> str:
        """Kill the pooler, with every session that goes through it."""
        self.field.databases.primary.restart_pooler()
        return ""

    def yield_the_lead(self) -> str:
        """Have the leader hand over, as an operator does before he works on it."""
        leader = self.leader()
        if leader is None:
            return "nobody led"
        return f"{leader.name}: {leader.run('klorosctl', 'leader', 'yield').returncode}"

    # ── Aim and time ────────────────────────────────────────────────────────────────────────────────────────────────────

    def leader(self) -> Station | None:
        """Return the host that has the lease."""
        found = self.field.ask("SELECT holder FROM leases")
        return self.field.hosts.get(str(found[0][0])) if found else None

    def _aim(self) -> Station:
        """Choose a host: two times of three the leader."""
        leader = self.leader()
        if leader is not None and self.chance.random() < 0.67:
            return leader
        return self.chance.choice(list(self.field.hosts.values()))

    def _hit(self, host: Station, text: str, number: signal.Signals, *, within: float = 0.15) -> str:
        """Send a signal to the processes of an entry, at a random moment after one of them is seen."""
        deadline = time.monotonic() + 3
        while not (found := host.machine.running(text)):
            if time.monotonic() > deadline:
                return f"{host.name} had none"
            _PASSES.wait(0.005)
        seconds = self._pass(0, within)
        for pid in found:
            send(pid, number)
        return f"{host.name} after {seconds * 1e3:.0f} ms"

    def _pass(self, least: float, most: float) -> float:
        seconds = self.chance.uniform(least, most)
        _PASSES.wait(seconds)
        return seconds

    def _start_ticking(self, name: str) -> None:
        self.field[name].keep_ticking(PERIOD, self.chance.uniform(0, PERIOD))
