"""The hints of each PHASE: made from the store's history, recorded in it, and written where the PHASE finds them.

Owns the records (facts of the store) and the files; `heuristics.py` has the rules. What is recorded for cycle 42:

    phase.hints.00042    the hints, with what they were made from that the cycles' rows don't say: cores, baseline version
    phase.groups.00042   status of each test group of its report, noted before the next PHASE, since reports are pruned

Everything else is read from cycles and baseline versions, which stay for ever; so any choice can be made again. A PHASE
without hints (older than this module, or whose hints could not be recorded) is no trial of any type.

    artifacts/hints.json   in the cycle's folder: KLR_HINTS
    <state>/out/hints.json the newest, for anybody
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from orchestration.host import files
from orchestration.phase import heuristics, report
from orchestration.phase.heuristics import Hints, Past, PhaseType
from orchestration.phase.result import groups

if TYPE_CHECKING:
    from orchestration.store.port import Database, Row

_HINTS: Final = "phase.hints."
_GROUPS: Final = "phase.groups."


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The hints that were recorded for a PHASE."""

    cycle: int
    document: Mapping[str, Any]

    @property
    def signals(self) -> Mapping[str, Any]:
        """What they were made from."""
        return cast("Mapping[str, Any]", self.document["signals"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One choice that was made again."""

    given: Given
    again: Mapping[str, Any]

    @property
    def agrees(self) -> bool:
        """Whether every hint is the same."""
        return self.given.document == self.again


class History:
    """What the store knows for choosing; read once, asked for any moment of the past."""

    def __init__(self, db: Database) -> None:
        """Read it; in one look, if the caller wants one."""
        self.given = [
            Given(cycle=_number(row), document=json.loads(str(row["value"]))) for row in db.rows("heuristics.hints")
        ]
        self._types = {one.cycle: PhaseType(one.document["phase_type"]) for one in self.given}
        self._groups = {_number(row): json.loads(str(row["value"])) for row in db.rows("heuristics.groups")}
        self._ended = [cast("dict[str, Any]", {c: row[c] for c in row.keys()}) for row in db.rows("heuristics.ended")]  # noqa: SIM118 (a Row is no dict)
        self._accepted = [(_int(row, "version"), _int(row, "cycle"), _int(row, "accepted")) for row in _accepted(db)]
        self.version = _int(db.rows("heuristics.newest_version")[0], "version")

    def before(self, cycle: int | None, *, version: int | None = None) -> list[Past]:
        """Return the PHASEs with hints before a cycle, oldest first; what came into the baseline up to `version` counts."""
        known = self.version if version is None else version
        accepted: dict[int, int] = {}
        for made, dream, number in self._accepted:
            if made <= known:
                accepted[dream] = accepted.get(dream, 0) + number
        spans: list[list[dict[str, Any]]] = []
        for one in self._ended:
            if cycle is not None and one["cycle"] >= cycle:
                break
            if one["job"] == "phase":
                spans.append([one])
            elif spans:
                spans[-1].append(one)
        return [self._past(span, accepted) for span in spans if span[0]["cycle"] in self._types]

    def read_reports(self) -> dict[int, dict[str, str]]:
        """Take in the reports of the PHASEs whose groups are not noted yet, and return what they say, by cycle."""
        unnoted = [one for one in self._ended if one["cycle"] in self._types and one["cycle"] not in self._groups]
        found = {one["cycle"]: groups(report.read(one["report"], one["report_sha"])) for one in unnoted}
        self._groups |= found
        return found

    def replay(self) -> list[Replayed]:
        """Make every recorded choice again, oldest first."""
        found = []
        for given in self.given:
            version, cores = given.signals["baseline_version"], given.signals["cores"]
            again = _document(given.cycle, self.advise(given.cycle, cores=cores, version=version))
            found.append(Replayed(given=given, again=again))
        return found

    def advise(self, cycle: int | None, *, cores: int, version: int | None = None) -> Hints:
        """Make the hints of a PHASE from what was before it; None for the next one."""
        known = self.version if version is None else version
        return heuristics.advise(self.before(cycle, version=known), cores=cores, more={"baseline_version": known})

    def _past(self, span: list[dict[str, Any]], accepted: Mapping[int, int]) -> Past:
        phase, *after = span
        return Past(
            cycle=phase["cycle"],
            phase_type=self._types[phase["cycle"]],
            succeeded=phase["state"] == "succeeded",
            groups=self._groups.get(phase["cycle"], {}),
            wall_seconds=phase["wall_seconds"],
            timeout_seconds=phase["timeout_seconds"],
            tried=sum(one["tried"] for one in after),
            accepted=sum(accepted.get(one["cycle"], 0) for one in after),
            followed=len(after),
            followed_well=sum(one["state"] == "succeeded" for one in after),
        )


def give(db: Database, cycle: int, *, folder: str, state_dir: str) -> str:
    """Choose for the PHASE that starts now, record it, and write its files; return the path for the PHASE.

    Record and files stand together, or the record is taken back.

    Raises:
        KlorosError, OSError: the store or a file can't be written; the PHASE goes without hints.
    """
    history = History(db)
    reports = history.read_reports()
    document = _document(cycle, history.advise(cycle, cores=cores()))
    content = (json.dumps(document, indent=2) + "\n").encode()
    path = os.path.join(folder, "artifacts", "hints.json")
    with db.transaction():
        for number, statuses in reports.items():
            db.run("facts.set_once", name=f"{_GROUPS}{number:05}", value=json.dumps(statuses))
        db.run("facts.set", name=f"{_HINTS}{cycle:05}", value=json.dumps(document))
        files.make_folder(os.path.join(state_dir, "out"))
        files.replace(os.path.join(state_dir, "out", "hints.json"), content, 0o640)
        files.replace(path, content, 0o640)
    return path


def type_of(db: Database, cycle: int) -> str:
    """Return the type that a PHASE was advised; empty when it was given no hints."""
    rows = db.rows("facts.get", name=f"{_HINTS}{cycle:05}")
    return str(json.loads(str(rows[0]["value"]))["phase_type"]) if rows else ""


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _document(cycle: int, hints: Hints) -> dict[str, Any]:
    """Return the file's content, as it reads back from JSON."""
    return cast("dict[str, Any]", json.loads(json.dumps({"schema": "v1", "cycle": cycle, **asdict(hints)})))


def _accepted(db: Database) -> list[Row]:
    return db.rows("heuristics.accepted")


def _number(row: Row) -> int:
    return int(str(row["name"]).rpartition(".")[2])


def _int(row: Row, column: str) -> int:
    return int(cast("int", row[column]))
