"""A scope played step by step: the test says who ticks when, and who meets which fault in the middle of what."""

from __future__ import annotations

import signal
import subprocess
from datetime import UTC, datetime

import psycopg

from tests.acceptance.host import script
from tests.field.field import Field
from tests.field.network import send
from tests.field.station import Station
from tests.field.truth import Truth
from tests.waiting import until


def prepare(host: Station, line: str, *, lease: float, silent: float) -> None:
    """Give a host jobs that run a line of bash and succeed, a failed one's next attempt soon, and a window that is open."""
    job = script(host.home, "job", (line, "echo '{}' >$KLR_CYCLE_DIR/artifacts/report.json"))
    host.configure('[dream]\nbackoff = ["1s"]\npark_after = 1000\n[phase]\nbackoff = ["1s"]\n')
    host.set(
        KLR_DREAM_COMMAND=f"bash {job}",
        KLR_PHASE_COMMAND=f"bash {job}",
        KLR_SCOPE_LEASE=f"{lease:g}s",
        KLR_SCOPE_SILENT_AFTER=f"{silent:g}s",
        **_at_the_end_of_a_day(),
    )


def _at_the_end_of_a_day() -> dict[str, str]:
    """Return the variables of a window that is always open, where a clock an hour ahead shows another date."""
    east = (23 - datetime.now(UTC).hour) % 24
    east = east if east <= 14 else east - 24
    zone = f"Etc/GMT{-east:+d}" if east else "UTC"  # of these names the sign is turned round: tzdata's etcetera
    return {"KLR_PHASE_TIME_ZONE": zone, "KLR_PHASE_WINDOW_OPENS": "00:00", "KLR_PHASE_WINDOW_CLOSES": "23:59:59"}


class Play:
    """A field whose ticks and runners the test starts."""

    def __init__(self, field: Field, *, line: str = ":", lease: float = 65.0, silent: float = 900.0) -> None:
        """Let every host tick once; north leads."""
        self.field = field
        for host in field.hosts.values():
            prepare(host, line, lease=lease, silent=silent)
        north, *others = field.hosts.values()
        assert north.run("run_once").returncode == 0
        self.truth = Truth(field)
        for host in others:
            assert host.run("run_once").returncode == 0
        self.settle()

    @property
    def lease(self) -> tuple[str, int]:
        """Who leads, under which epoch."""
        ((holder, epoch),) = self.field.ask("SELECT holder, epoch FROM leases")
        return str(holder), int(str(epoch))

    @property
    def leader(self) -> Station:
        return self.field[self.lease[0]]

    @property
    def standbys(self) -> list[Station]:
        return [host for host in self.field.hosts.values() if host.name != self.lease[0]]

    def step(self, host: Station) -> tuple[int, str]:
        """Let a host tick, and run what its tick kicked; returns the tick's exit code and what it logged."""
        done = host.run("run_once")
        kick = host.state / "kick" / "cycle"
        if kick.exists():
            kick.unlink()
            ran = host.run("run_cycle")
            assert ran.returncode == 0, ran.stderr
        return done.returncode, done.stderr

    def settle(self, *hosts: Station) -> None:
        """Let hosts (all, by default) tick until everything is answered and at rest."""
        for _ in range(30):
            for host in hosts or self.field.hosts.values():
                code, said = self.step(host)
                assert code == 0, said
            if self.truth.is_answered():
                return
        raise AssertionError(self.truth.why_not())

    def finish(self) -> None:
        """Let all come to its end, and see that it is as it must be."""
        self.settle()
        self.truth.assert_settled()

    def expire(self) -> None:
        """Let the lease run out. Who pauses in a transaction keeps it locked: his session is ended, as the server does."""
        lapse = "UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'"
        try:
            self.field.say(f"SET lock_timeout = '100ms'; {lapse}")
        except psycopg.errors.LockNotAvailable:
            self.field.say(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state = 'idle in transaction'"
            )
            self.field.say(lapse)

    def until_message(self, host: Station, entry: str, number: int, fault: str) -> subprocess.Popen[str] | None:
        """Run an entry until just before its message of this number to the database, where a signal (STOP, KILL) meets it.

        Returns:
            What runs it, stopped or killed by now; None when it sent fewer and has ended by itself.
        """
        trace = host.home / "trace"
        trace.unlink(missing_ok=True)
        inject = f"inject=sendto:signal=SIG{fault}:when={number}"
        started = host.begin(entry, before=("strace", "-f", "-o", str(trace), "-e", "trace=sendto", "-e", inject))

        def is_stopped() -> bool:
            return trace.exists() and "--- stopped by SIGSTOP ---" in trace.read_text()

        until(lambda: started.poll() is not None or is_stopped(), f"{entry} meets its fault or ends")
        if started.poll() is None or (fault == "KILL" and started.returncode != 0):
            return started
        assert started.returncode == 0, (host.home / "output").read_text()[-2000:]
        return None

    @staticmethod
    def go_on(host: Station) -> None:
        """Let what is stopped there go on."""
        for pid in host.machine.pids():
            send(pid, signal.SIGCONT)
