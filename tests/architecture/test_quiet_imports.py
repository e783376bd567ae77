"""What a quiet tick imports. Each module more is paid every minute on every host (docs/reference/benchmarks.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import postgres

LISTED = """
import atexit, runpy, sys
before = set(sys.modules)
atexit.register(lambda: print("\\n".join(sorted(set(sys.modules) - before))))
sys.argv = ["run_once"]
runpy.run_module("orchestration.run_once", run_name="__main__")
"""

COMPILED = """
import typing
texts = []
class Seen(typing.ForwardRef, _root=True):
    def __init__(self, text, **rest):
        texts.append(text)
        super().__init__(text, **rest)
typing.ForwardRef = Seen
import orchestration.run_once, orchestration.pulse.publish
print(texts)
"""


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STANDARD_LIBRARY = words("""
    __future__ _abc _bisect _collections _collections_abc _datetime _functools _json _operator _sqlite3 _sre _stat _struct
    _sysconfigdata__linux_x86_64-linux-gnu _sysconfigdata__x86_64-linux-gnu _sysconfigdata__aarch64-linux-gnu _typing
    _weakref _weakrefset _zoneinfo bisect collections collections.abc contextlib copyreg datetime enum errno
    fcntl functools gc itertools json json.decoder json.encoder json.scanner keyword math operator re re._casefix
    re._compiler
    re._constants re._parser reprlib sqlite3 sqlite3.dbapi2 struct sysconfig time types typing typing.io typing.re tzdata
    warnings weakref zoneinfo zoneinfo._common zoneinfo._tzpath
""")  # each is needed by json, sqlite3, zoneinfo, fcntl, typing or enum; tzdata where the host has no zones

OURS = words("""
    orchestration
    orchestration.configuration orchestration.errors orchestration.exits orchestration.wiring
    orchestration.cycles orchestration.cycles.backoff orchestration.cycles.cycle orchestration.cycles.foreign_locks
    orchestration.cycles.job orchestration.cycles.ledger orchestration.cycles.orphan
    orchestration.host orchestration.host.clock orchestration.host.disk orchestration.host.files
    orchestration.host.journal orchestration.host.lock orchestration.host.process_identity orchestration.host.zones
    orchestration.intents orchestration.intents.inbox orchestration.intents.intent
    orchestration.loop orchestration.loop.status
    orchestration.phase orchestration.phase.window
    orchestration.promotions orchestration.promotions.scan orchestration.promotions.state
    orchestration.pulse orchestration.pulse.evidence orchestration.pulse.health orchestration.pulse.judgement
    orchestration.pulse.metrics
    orchestration.pulse.publish orchestration.pulse.signs orchestration.pulse.textfile
    orchestration.store orchestration.store.counters orchestration.store.instants orchestration.store.opening
    orchestration.store.port
    orchestration.store.queries orchestration.store.sqlite
    orchestration.tick orchestration.tick.calendar orchestration.tick.decision orchestration.tick.gate
    orchestration.tick.history orchestration.tick.kernel orchestration.tick.litter
    orchestration.tick.observation orchestration.tick.observe
    orchestration.tick.prune
    orchestration.tick.reap orchestration.tick.settle orchestration.tick.take_in orchestration.tick.tick
""")

ON_POSTGRES = words("""
    orchestration.pulse.scope orchestration.pulse.scope_metrics orchestration.pulse.scope_rows
    _ctypes ctypes ctypes._endian select
    orchestration.scope orchestration.scope.leading orchestration.scope.lease orchestration.scope.mirror
    orchestration.scope.marks orchestration.scope.sharing
    orchestration.pulse.scope orchestration.pulse.scope_rows
    orchestration.store.libpq orchestration.store.postgres_database orchestration.store.postgres_schema
    orchestration.tick.scoped orchestration.tick.shared
""")  # instead of what SQLite needs, where PostgreSQL decides who leads
ON_SQLITE = words("_sqlite3 sqlite3 sqlite3.dbapi2 orchestration.store.sqlite")

TOO_DEAR = words("""
    argparse dataclasses dateutil importlib.metadata inspect logging pathlib prometheus_client pydantic shutil subprocess
    psycopg tempfile unittest urllib uuid
""")


def quiet_tick(state: Path, **variables: str) -> set[str]:
    """Tick in a process of its own and return the modules that it brought in."""
    environ = {
        "PATH": os.environ["PATH"],
        "KLR_STATE_DIR": str(state),
        "KLR_ORCHESTRATION_MODE": "enabled",
        "KLR_TEXTFILE": str(state / "kloros.prom"),
        "KLR_PHASE_TIME_ZONE": "Pacific/Kiritimati",
        "KLR_PHASE_WINDOW_OPENS": "00:00:00",
        "KLR_PHASE_WINDOW_CLOSES": "00:00:01",
        **variables,
    }
    done = subprocess.run([sys.executable, "-c", LISTED], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "NOOP" in done.stderr
    return set(done.stdout.split())


def test_no_field_has_its_type_as_text(tmp_path: Path) -> None:
    """`from __future__ import annotations` and quotes make one; typing compiles it, 5 % of a tick in all."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_quiet_tick_imports_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    first = quiet_tick(tmp_path)
    assert "pydantic" in first, "the first tick validates the settings: the list sees what is imported"
    modules = quiet_tick(tmp_path)
    assert sorted(modules & TOO_DEAR) == []
    assert sorted(modules - STANDARD_LIBRARY - OURS) == []
    assert sorted(OURS - modules) == [], "on the list for nothing"


def test_one_on_postgresql_imports_its_library_instead_of_sqlite(tmp_path: Path) -> None:
    if told := postgres.missing():
        pytest.skip(told)
    with postgres.running("fsync=off") as cluster:
        url = cluster.new_database()
        quiet_tick(tmp_path, KLR_DATABASE_URL=url)
        modules = quiet_tick(tmp_path, KLR_DATABASE_URL=url)
    assert sorted(modules & (TOO_DEAR | ON_SQLITE)) == []
    assert sorted(modules - STANDARD_LIBRARY - OURS - ON_POSTGRES) == []
    assert sorted(ON_POSTGRES - modules) == [], "on the list for nothing"
