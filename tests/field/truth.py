"""What must hold of a scope whatever befalls it, as the test sees it: files of every host, rows of the one database.

Beside what the program records of itself, the database keeps an account of its own: a trigger notes, for each write that
only the leader may do, who wrote it (each host's sessions bear its name) and who held the lease under which epoch at
that moment.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from tests.field.field import Field
from tests.field.station import Station
from tests.waiting import until

_ACCOUNT = """
CREATE TABLE IF NOT EXISTS field_account (
    entry BIGSERIAL, writer TEXT, holder TEXT, epoch BIGINT, lapsed BOOLEAN, what TEXT);
CREATE OR REPLACE FUNCTION field_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO field_account (writer, holder, epoch, lapsed, what)
    SELECT current_setting('application_name'), holder, epoch, expires_at < clock_timestamp(), TG_OP || ' ' || TG_TABLE_NAME
    FROM leases;
    RETURN NULL;
END $$;
"""
_LEADERS = (
    ("ticks_led", "ticks", "INSERT", "NEW.epoch IS NOT NULL"),
    ("cycles_queued", "cycles", "INSERT", "true"),
    ("cycles_settled", "cycles", "UPDATE", "NEW.settled_at IS DISTINCT FROM OLD.settled_at"),
    ("dates", "phase_dates", "INSERT OR UPDATE", "true"),
    ("answers", "promotions", "INSERT OR UPDATE", "true"),
    ("intents_decided", "intents", "INSERT", "true"),
    ("versions", "baseline_versions", "INSERT", "true"),
)
_CODES = {0, 69, 75, -9, 1}
"""How ticks and runners may end here: done, no database, another one at it, killed, no runner could be started."""


class Truth:
    """What was left at which host, and what must have become of it."""

    def __init__(self, field: Field) -> None:
        """Take a field whose database has its tables."""
        self._field = field
        self.promotions: dict[str, set[str]] = defaultdict(set)
        self.intents: dict[str, set[str]] = defaultdict(set)
        triggers = [
            f"CREATE OR REPLACE TRIGGER field_{name} AFTER {event} ON {table} FOR EACH ROW WHEN ({when})"
            " EXECUTE FUNCTION field_note()"
            for name, table, event, when in _LEADERS
        ]
        self._field.say(_ACCOUNT)
        for trigger in triggers:
            self._field.say(trigger)

    def promote(self, host: str, stem: str) -> None:
        """Leave a promotion at a host; hosts may well use the same names."""
        self.promotions[host].add(stem)
        self._field[host].promote(stem)

    def intend(self, host: str, kind: str, serial: int) -> None:
        """Leave an intent at a host."""
        self.intents[host].add(self._field[host].intend(kind, serial=serial).name)

    def is_answered(self) -> bool:
        """Tell whether nothing waits anywhere, no cycle is under way, and every host has back what it is owed."""
        waiting = [name for host in self._field.hosts.values() for name in host.waiting()]
        return not waiting and not self._field.ask(_UNDER_WAY) and not self._field.ask(_ON_THEIR_WAY)

    def why_not(self) -> str:
        """Say what keeps it from being so."""
        waiting = {name: host.waiting() for name, host in self._field.hosts.items()}
        ended = {name: host.ticks_told()[-3:] for name, host in self._field.hosts.items()}
        cycles = self._field.ask("SELECT cycle, job, state, host, settled_at FROM cycles ORDER BY cycle DESC LIMIT 4")
        lease = self._field.ask("SELECT holder, epoch, expires_at, clock_timestamp() FROM leases")
        owed = self._field.ask(_ON_THEIR_WAY)
        said = "\n".join(f"{name} said: {host.said()}" for name, host in self._field.hosts.items())
        databases = self._field.databases
        poolers = {"primary": databases.primary.pooler_said(), "replica": databases.replica.pooler_said()}
        logged = "\n".join(f"pooler of the {role} logged: {text}" for role, text in poolers.items())
        return f"waiting {waiting}, cycles {cycles}, owed {owed}, lease {lease}, ended {ended}\n{said}\n{logged}"

    def assert_always(self) -> None:
        """What holds at any moment, in the middle of a fault too."""
        ask = self._field.ask
        assert ask("SELECT * FROM field_account WHERE writer <> holder ORDER BY entry") == [], "who did not lead wrote"
        two = "SELECT epoch FROM ticks WHERE epoch IS NOT NULL GROUP BY epoch HAVING count(DISTINCT host) > 1"
        assert ask(two) == [], "two hosts decided under one epoch"
        led = [int(str(epoch)) for (epoch,) in ask("SELECT epoch FROM ticks WHERE epoch IS NOT NULL ORDER BY tick")]
        assert led == sorted(led), "a former leader decided after a later one"
        phases = "SELECT phase_date FROM cycles WHERE job = 'phase' AND state = 'succeeded'"
        twice = f"{phases} GROUP BY phase_date HAVING count(*) > 1"
        assert ask(twice) == [], "a date had two PHASEs"
        recorded = "SELECT local_date FROM phase_dates WHERE result = 'succeeded'"
        missing = f"{phases} AND settled_at IS NOT NULL AND phase_date NOT IN ({recorded})"
        assert ask(missing) == [], "a PHASE without its date"
        self._assert_numbers()
        for host in self._field.hosts.values():
            told = [line for line in host.ticks_told() if line["code"] not in _CODES]
            assert told == [], f"{told}: {(host.home / 'ticker').read_text()[-3000:]}"

    def _assert_numbers(self) -> None:
        folders = {name: _names(host.state / "cycles", "cycle_*") for name, host in self._field.hosts.items()}
        counted = Counter(name for found in folders.values() for name in found)
        assert [name for name, times in counted.items() if times > 1] == [], f"a number of two hosts: {folders}"
        ran = {f"cycle_{int(str(cycle)):05}": host for cycle, host in self._field.ask("SELECT cycle, host FROM cycles")}
        wrong = [(name, host) for host, found in folders.items() for name in found if ran.get(name) != host]
        assert wrong == [], "a folder of a cycle that ran elsewhere, or that the database does not know"

    def assert_settled(self) -> None:
        """What holds once all is answered and at rest."""
        self.assert_always()
        # A kick may still come to nothing: a runner that looks for a cycle which the one before has taken.
        until(lambda: not any(host.left() for host in self._field.hosts.values()), "no process is left")
        for name, host in self._field.hosts.items():
            self._assert_acks(name, host)
            self._assert_intents(name, host)
            assert not (host.state / "kloros.db").exists(), "a store of its own"
            litter = [path for path in host.state.rglob("*.tmp") if "scope" not in path.parts]
            assert litter == [], "half-written files"

    def _assert_acks(self, name: str, host: Station) -> None:
        acks = _names(host.state / "promotions_ack", "*")
        assert acks == sorted(f"{stem}_ack.json" for stem in self.promotions[name]), f"acks of {name}"
        states = {str(stem): state for stem, state in self._field.ask("SELECT stem, state FROM promotions")}
        for stem in self.promotions[name]:
            ack = json.loads((host.state / "promotions_ack" / f"{stem}_ack.json").read_text())
            assert states[f"{name}@{stem}"] == ("accepted" if ack["accepted"] else "rejected"), f"{name}: {stem}"

    def _assert_intents(self, name: str, host: Station) -> None:
        ours = {str(intent) for (intent,) in self._field.ask("SELECT intent FROM observer_events")}
        filed = [path.name for path in (host.state / "intents").glob("processed/*/*")]
        left = sorted(one for one in filed if one not in ours)
        assert left == sorted(self.intents[name]), f"intents of {name}, each filed once"
        for path in (host.state / "intents").glob("processed/*/*"):
            (found,) = self._field.ask(f"SELECT status FROM intents WHERE name = '{name}@{path.name}'")
            assert found[0] == path.parent.name, f"{name}: {path.name}"


_UNDER_WAY = "SELECT 1 FROM cycles WHERE settled_at IS NULL"
_ON_THEIR_WAY = "SELECT host, folder, name, state FROM shared_files WHERE state IN ('given', 'filed') AND folder <> 'cycles'"


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))
