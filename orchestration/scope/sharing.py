"""A host's side of what a scope shares: brings its own files up to the store, and puts back what the scope answers.

Owns the folders of one host: `promotions/`, `promotions_ack/`, `intents/`. In `shared_files` a host has one row for each
promotion of its own without an ack, for each intent that lies in its inbox, and for what is on its way back to it:

    promotions   there (until it has an ack, or is taken away)
    intents      there ──decided──► filed ──moved by its host──► (gone)          given ──put in place──► there
    acks         given ──written by its host──► done ──no cycle needs it──► (gone)

Every tick compares the folders with the rows and shares the difference: nothing is remembered of what was done, so a tick
that was killed, doubled or missed for a day changes nothing in the end. What lies on the host's disk is right about the
past: an ack that is there stays, whoever wrote it, and is what the scope believes from then on. A million answered
promotions cost nothing but a listing, and that only when the change time of a folder is another one; once an hour in any
case.

`known.json` keeps the rows as they were under a revision of the table, and the change times under which they agreed with
the folders. It only saves work: without it everything is asked for and looked at again.

Refuses to know what is decided. The leader's side is `mirror.py`.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from orchestration.errors import KlorosError, Unwritable
from orchestration.host import clock, files
from orchestration.intents.inbox import list_names
from orchestration.promotions.scan import ack_name, answer_key, compare, stem_of
from orchestration.scope.mirror import Content, Mirror, Shared, contents, in_batches, origin_of
from orchestration.store.port import Database

if TYPE_CHECKING:
    from datetime import datetime

    from orchestration.settings import Settings

_NAME_MAX = 255  # bytes, limits.h
_KNOWN = "known.json"
_LOOKS_ANYWAY = 3600.0  # seconds after which folders are looked at although nothing tells that they have changed
_SETTLED = 1.0  # seconds; a change time this old can't be that of a later change as well
_FILES_PER_TICK, _BYTES_PER_TICK = 5000, 64 * 1024 * 1024
_MOVES_PER_TICK = 250  # each syncs two folders
_MODE = 0o640
_ACK_LIMIT = 1024 * 1024  # bytes


class _Known(NamedTuple):
    """What the last look left."""

    revision: str = ""
    everything: bool = False
    rows: tuple[Shared, ...] = ()
    agreed: Mapping[str, int] = {}  # folder → its change time when it agreed with the rows
    agreed_at: float = 0.0
    older: Mapping[str, str] = {}  # acks of the older forms: file name → the id that it answers


class _Local(NamedTuple):
    """A file of this host that is to be shared."""

    folder: str
    name: str
    mark: str
    sha256: str
    data: bytes
    stand_in: str
    content_sha: str
    changed_at: float
    owner: str

    def as_row(self) -> dict[str, object]:
        return {**self._asdict(), "content": _base64(self.data), "data": None}


class _Changes(NamedTuple):
    """What is to be told to the store."""

    share: list[_Local]
    touch: list[tuple[str, str, str]]
    withdraw: list[tuple[str, str, str]]
    found: list[dict[str, object]]
    delivered: list[tuple[str, str, str, str]]

    def __bool__(self) -> bool:
        return any(len(part) for part in self)


class Sharing:
    """One host's part in what its scope shares."""

    def __init__(self, settings: Settings, db: Database, here: str, *, boot_id: str, mirror: Mirror | None = None) -> None:
        """Take the host's settings and its store.

        Args:
            here: the host's name in the scope.
            mirror: by default that in `scope` in the state folder, which is the tick's, under its lock.
        """
        self._settings, self._db, self.here = settings, db, here
        self.mirror = mirror or Mirror(os.path.join(settings.state_dir, "scope"), boot_id=boot_id)
        self._folders = {
            "promotions": settings.promotions_dir,
            "acks": settings.acks_dir,
            "intents": os.path.join(settings.state_dir, "intents"),
        }
        self._known: _Known | None = None
        self._kept: _Known | None = None  # as `known.json` has it
        self._is_more = False  # something of ours was not looked at, or is to be looked at again
        self.is_answered = False  # this process has put something on its way to a host
        self.fault: KlorosError | None = None
        """What kept a file of this host from its place, to be raised when all else is done."""

    def exchange(self, *, leading: bool = False) -> None:
        """Put back what the scope has answered, and share what is new; the leader's mirror then says what the store says.

        Costs one query and a look at three folders' change times when nothing is new.

        Raises:
            StoreUnreachable: nothing is lost; the next tick goes on there.
            LeaseLost: as of every write.
            Unwritable: the mirror can't be written. What is wrong with this host's own folders is held in `fault`.
        """
        self.fault, self._is_more = None, False
        self._look(everything=leading)
        changes = _Changes([], [], [], [], [])
        self._bring_back(changes)
        agreed = self._compare(changes)
        swept = self._sweep() if leading else False
        if changes:
            self._tell(changes)
        if changes or swept:
            self._look(everything=leading)
        self._remember(agreed)
        if leading:
            self.mirror.keep_up(self._db, list(self._rows))

    def settled_here(self) -> list[str]:
        """Name the folders of cycles of this host that are settled, and whose manifests are to be written."""
        return [row.name.partition("/")[0] for row in self._mine() if row.folder == "cycles" and row.state == "filed"]

    def forget(self, folder: str) -> None:
        """Let go of one of them."""
        self._db.run("shared_files.withdraw", files=json.dumps([("cycles", f"{folder}/manifest.json", "filed")]))

    def look(self) -> None:
        """Make the mirror what the store says, and leave the host's own folders alone: for people who look or answer."""
        self._look(everything=True)
        self.mirror.keep_up(self._db, list(self._rows))

    # ── What the scope answers ─────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, stems: Iterable[str]) -> bool:
        """Share the acks that lie in the mirror for these promotions, before anything rests on them.

        From then on they stand, whoever leads; each waits for its host. One that somebody else has answered meanwhile keeps
        that answer, which then lies in the mirror.

        Returns:
            False when one of them had another answer: what the caller has made of it holds no more.

        Raises:
            LeaseLost: another leads by now, and answers for itself.
        """
        given = [one for stem in stems if (one := self._ack_in_mirror(stem)) is not None]
        if not given:
            return True
        self.is_answered = True
        with self._db.transaction():
            new = self._give(given)
        keys = [(str(one["host"]), "acks", str(one["name"])) for one in given]
        old = [Shared(*key) for key in keys if key not in new]
        ours = {key: one["sha256"] for key, one in zip(keys, given, strict=True)}
        theirs = [found for key, found in contents(self._db, old).items() if found.sha256 != ours[key]]
        for found in theirs:
            self.mirror.put(found)
        return not theirs

    def give_intents(self, left: Iterable[tuple[str, bytes]], *, now: datetime) -> None:
        """Put intents of our own making (name, content) into this host's inbox and the mirror. Inside a transaction."""
        from orchestration.intents.document import parse

        given: list[dict[str, object]] = []
        for name, data in left:
            changed_at, sha = now.timestamp(), _sha(data)
            found = {"host": self.here, "folder": "intents", "name": name, "sha256": sha, "content": _base64(data)}
            given.append({**found, "content_sha": parse(data).content_sha, "changed_at": changed_at})
            self.mirror.put(Content(self.here, "intents", name, sha, "", changed_at, data))
        if given:
            self.is_answered = True
            self._give(given)

    def _give(self, given: list[dict[str, object]]) -> set[tuple[str, str, str]]:
        rows = self._db.rows("shared_files.give", files=json.dumps(given))
        return {(str(row["host"]), str(row["folder"]), str(row["name"])) for row in rows}

    def _ack_in_mirror(self, stem: str) -> dict[str, object] | None:
        from orchestration.promotions.scan import read_regular

        name = ack_name(stem)
        try:
            data, changed_at = read_regular(self.mirror.path("acks", name), limit=_ACK_LIMIT)
        except OSError:
            return None
        host, own = origin_of(name)
        found: dict[str, object] = {"host": host or self.here, "folder": "acks", "name": own, "sha256": _sha(data)}
        return {**found, "content": _base64(data), "content_sha": "", "changed_at": changed_at}

    # ── What the store says ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _rows(self) -> tuple[Shared, ...]:
        assert self._known is not None
        return self._known.rows

    def _mine(self) -> list[Shared]:
        return [row for row in self._rows if row.host == self.here]

    def _look(self, *, everything: bool) -> None:
        """Bring `_known` up to the store."""
        if self._known is None:
            self._known = self._kept = self._recalled()
        known = self._known
        usable = known.revision if known.everything or not everything else ""
        (row,) = self._db.rows("shared_files.look", known=usable, everything=int(everything))
        if row["listing"] is None:
            return
        rows = tuple(Shared(*one) for one in json.loads(cast("str", row["listing"])))
        self._known = known._replace(revision=str(row["revision"]), everything=everything, rows=rows, agreed_at=0.0)

    def _recalled(self) -> _Known:
        try:
            with open(self.mirror.path(_KNOWN), encoding="utf-8") as file:
                found = json.load(file)
            return _Known(**found)._replace(rows=tuple(Shared(*row) for row in found["rows"]))
        except (OSError, ValueError, TypeError, KeyError):
            return _Known()

    def _remember(self, agreed: dict[str, int] | None) -> None:
        """Keep what is known, if it is other than what was kept."""
        assert self._known is not None
        if agreed is not None:
            self._known = self._known._replace(agreed=agreed, agreed_at=time.time())
        if self._known == self._kept:
            return
        self._kept = self._known
        files.make_folder(self.mirror.folder)
        content = {**self._known._asdict(), "rows": [list(row) for row in self._known.rows]}
        files.replace(self.mirror.path(_KNOWN), json.dumps(content).encode(), durable=False)

    def _sweep(self) -> bool:
        if not any(row.folder == "cycles" or row.state == "done" for row in self._rows):
            return False
        return bool(self._db.run("shared_files.sweep"))

    # ── Back to this host ──────────────────────────────────────────────────────────────────────────────────────────────

    def _bring_back(self, changes: _Changes) -> None:
        """Put in place what the scope gives this host, and move what it has decided on; each may be done again."""
        waiting = [row for row in self._mine() if row.state in ("given", "filed") and row.folder != "cycles"]
        if not waiting:
            return
        given = [row for row in waiting if row.state == "given" or not row.mark]
        fetched = contents(self._db, given)
        moved = 0
        for row in waiting:
            try:
                if row.folder == "acks":
                    self._put_ack(row, fetched.get(row.key), changes)
                elif row.state == "given":
                    self._put_intent(row, fetched.get(row.key), changes)
                elif moved < _MOVES_PER_TICK:
                    moved += 1
                    self._file_intent(row, fetched.get(row.key))
                    changes.withdraw.append((row.folder, row.name, "filed"))
                else:
                    self._is_more = True
            except (KlorosError, OSError) as error:
                self._hold(_as_ours(row, error))

    def _hold(self, fault: KlorosError) -> None:
        """Go on without it, and raise it in the end."""
        self._is_more = True
        self.fault = self.fault or fault

    def _put_ack(self, row: Shared, one: Content | None, changes: _Changes) -> None:
        """Write an ack unless there is one; what is there then is what the scope is told."""
        if one is None:
            return
        name = ack_name(stem_of(self._own_name("promotions", f"{row.name[: -len('_ack.json')]}.json")))
        folder = self._folders["acks"]
        path = os.path.join(folder, name)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise files.unwritable(folder, error) from error
        if not os.path.lexists(path) and files.create(path, one.data, mode=_MODE):
            changes.delivered.append(("acks", row.name, "done", ""))
            return
        theirs = self._ack_on_disk(name, row.name)
        if theirs is None or theirs["sha256"] == one.sha256:
            changes.delivered.append(("acks", row.name, "done", ""))
        else:
            changes.found.append(theirs)

    def _put_intent(self, row: Shared, one: Content | None, changes: _Changes) -> None:
        if one is None:
            return
        files.make_folder(self._folders["intents"])
        path = os.path.join(self._folders["intents"], row.name)
        files.create(path, one.data)
        changes.delivered.append(("intents", row.name, "there", _mark(path) or ""))

    def _file_intent(self, row: Shared, one: Content | None) -> None:
        """Move a decided intent, after its line in a log if it is a note; what has another content by now is another one."""
        from orchestration.intents import filing

        decided = filing.Decided(row.name, row.content_sha, row.filed_as, row.decided_at, row.intent_type)
        folder = self._folders["intents"]
        entry = self._own_name("intents", row.name)
        if not row.mark and one is not None and not os.path.lexists(os.path.join(folder, entry)):
            files.make_folder(folder)
            files.create(os.path.join(folder, entry), one.data)  # decided on before it was ever put in place
        filing.finish(folder, entry, self._settings.state_dir, decided, repeated=True)

    def _own_name(self, folder: str, key: str) -> str:
        """Return the file name that a row's name stands for; that name itself for all but freaks."""
        if os.path.lexists(os.path.join(self._folders[folder], key)):
            return key
        return next((name for name in self._names(folder) if self._key(name) == key), key)

    def _ack_on_disk(self, name: str, key: str) -> dict[str, object] | None:
        """Read an ack of this host for the store; None when it can't be."""
        from orchestration.promotions.scan import read_regular

        try:
            data, changed_at = read_regular(os.path.join(self._folders["acks"], name), limit=_ACK_LIMIT)
        except OSError:
            return None
        return {"name": key, "sha256": _sha(data), "content": _base64(data), "changed_at": changed_at}

    # ── From this host ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _compare(self, changes: _Changes) -> dict[str, int] | None:
        """Find how the folders differ from the rows; return their change times if these can be relied on later."""
        assert self._known is not None
        times = {folder: _changed_at(path) for folder, path in self._folders.items()}
        if not changes and self._agrees(times):
            return None
        looked_at = time.time()
        ending = {(one[0], one[1]) for one in (*changes.withdraw, *changes.delivered)}
        mine = {(row.folder, row.name): row for row in self._mine()}
        found = {str(one["name"]) for one in changes.found}
        try:
            self._compare_promotions(mine, changes, {name for folder, name in ending if folder == "acks"} | found)
        except Unwritable as error:
            self._hold(error)
        try:
            self._compare_intents(mine, changes, ending)
        except Unwritable as error:
            self._hold(error)
        settled = all(changed < (looked_at - _SETTLED) * 1e9 for changed in times.values())
        return times if settled and not self._is_more else {}

    def _agrees(self, times: Mapping[str, int]) -> bool:
        """Tell whether the folders can't differ from the rows."""
        known = self._known
        assert known is not None
        if known.agreed != times or not 0 <= time.time() - known.agreed_at < _LOOKS_ANYWAY:
            return False
        shared = [row for row in self._mine() if row.folder != "acks"]
        return all(not row.stand_in and _mark(self._path(row)) == row.mark for row in shared)

    def _path(self, row: Shared) -> str:
        return os.path.join(self._folders[row.folder], row.name)

    def _compare_promotions(self, mine: dict[tuple[str, str], Shared], changes: _Changes, acked_now: set[str]) -> None:
        names = self._names("promotions")
        acks = self._names("acks")
        listing = compare(names, acks)
        unacked = {self._key(name): name for name in listing.unacked}
        older = self._older_answers(listing.others) if listing.others else {}
        answered_by: dict[str, str] = {}
        for key, name in unacked.items():
            row = mine.get(("promotions", key))
            answer = older and self._answered_by(name, older)
            if answer:
                answered_by[key] = answer
                continue
            ack = mine.get(("acks", ack_name(stem_of(key))))
            if ack is not None and ack.state == "done" and ack.name not in acked_now:
                changes.withdraw.append(("acks", ack.name, "done"))  # its ack was taken away: it is to go again
            self._compare_file("promotions", key, name, row, changes)
        own_acks = set(acks)
        for (folder, key), row in mine.items():
            if folder != "promotions" or (key in unacked and key not in answered_by):
                continue
            changes.withdraw.append(("promotions", key, row.state))
            own = ack_name(stem_of(key))
            theirs = answered_by.get(key, own if own in own_acks else "")
            if theirs and ("acks", own) not in mine and (one := self._ack_on_disk(theirs, own)) is not None:
                changes.found.append(one)

    def _compare_intents(self, mine: dict[tuple[str, str], Shared], changes: _Changes, ending: set[tuple[str, str]]) -> None:
        present = {self._key(name): name for name in list_names(self._folders["intents"])}
        for key, name in present.items():
            row = mine.get(("intents", key))
            if row is not None and row.state != "there":
                if ("intents", key) not in ending or row.state == "given":
                    continue  # its file is still to be moved, or has just been put there
                row = None
            self._compare_file("intents", key, name, row, changes)
        for (folder, key), row in mine.items():
            if folder == "intents" and row.state == "there" and key not in present:
                changes.withdraw.append(("intents", key, "there"))

    def _compare_file(self, folder: str, key: str, name: str, row: Shared | None, changes: _Changes) -> None:
        path = os.path.join(self._folders[folder], name)
        mark = _mark(path)
        if mark is None or (row is not None and row.mark == mark and not row.stand_in):
            return
        if len(changes.share) >= _FILES_PER_TICK or sum(len(one.data) for one in changes.share) >= _BYTES_PER_TICK:
            self._is_more = True
            return
        taken = self._take_promotion(key, name, mark) if folder == "promotions" else self._take_intent(key, name, mark)
        if taken is None:
            self._is_more = True
        elif row is None or (row.sha256, row.stand_in) != (taken.sha256, taken.stand_in):
            changes.share.append(taken)
        elif row.mark != mark:
            changes.touch.append((folder, key, mark))

    def _take_promotion(self, key: str, name: str, mark: str) -> _Local | None:
        """Read a promotion; None when it is gone or in the writing."""
        from orchestration.host import users
        from orchestration.promotions.document import Malformed, parse_json
        from orchestration.promotions.reading import fetch

        read = fetch(self._folders["promotions"], name)
        if read is None:
            return None
        if isinstance(read, str):
            return _Local("promotions", key, mark, _sha(read.encode()), b"", read, "", time.time(), "")
        data, status = read
        if -_SETTLED < time.time() - status.st_mtime < _SETTLED:
            value = parse_json(data)
            if isinstance(value, Malformed) and value.unfinished:
                return None
        owner = users.name_of(status.st_uid)
        return _Local("promotions", key, mark, _sha(data), data, "", "", status.st_mtime, owner)

    def _take_intent(self, key: str, name: str, mark: str) -> _Local | None:
        """Read an intent; None when it is gone or in the writing."""
        from orchestration.host import stand_in
        from orchestration.intents.reading import take

        taken = take(self._folders["intents"], name, clock.now())
        if taken is None or taken[0].unfinished:
            return None
        dropped, data = taken
        changed_at = dropped.changed.timestamp()
        if dropped.content_sha.startswith("kind:"):
            told = stand_in.text(dropped.content_sha.removeprefix("kind:"), dropped.fault)
            return _Local("intents", key, mark, _sha(told.encode()), b"", told, dropped.content_sha, changed_at, "")
        return _Local("intents", key, mark, _sha(data), data, "", dropped.content_sha, changed_at, "")

    def _older_answers(self, names: list[str]) -> dict[str, str]:
        """Return what acks of the older forms answer: key of an id → file name. Each file is opened once."""
        from orchestration.promotions.scan import opened

        assert self._known is not None
        older = dict(self._known.older)
        for name in names:
            if name not in older and (answers := opened(self._folders["acks"], name)) is not None:
                older[name] = answers
        self._known = self._known._replace(older=older)
        return {answer_key(older[name]): name for name in names if older.get(name)}

    def _answered_by(self, name: str, older: Mapping[str, str]) -> str:
        """Return which ack of an older form answers a promotion, by its stem or its own id; empty when none does."""
        from orchestration.promotions.promotion import Promotion, parse
        from orchestration.promotions.reading import fetch

        stem = answer_key(stem_of(name))
        if stem in older:
            return older[stem]
        read = fetch(self._folders["promotions"], name)
        if read is None or isinstance(read, str):
            return ""
        parsed = parse(read[0], bounds={})
        identity = parsed.id if isinstance(parsed, Promotion) else parsed.identity
        return older.get(answer_key(identity), "") if identity else ""

    def _tell(self, changes: _Changes) -> None:
        """Tell the store, what ends first. Every statement compares for itself, so each part may be told again."""
        batches = in_batches(changes.share, lambda one: len(one.data))
        with self._db.transaction():
            for query, part in (
                ("shared_files.withdraw", changes.withdraw),
                ("shared_files.delivered", changes.delivered),
                ("shared_files.found", changes.found),
                ("shared_files.touch", changes.touch),
            ):
                if part:
                    self._db.run(query, files=json.dumps(part))
            if batches:
                self._share(batches[0])
        for batch in batches[1:]:
            with self._db.transaction():
                self._share(batch)

    def _share(self, batch: list[_Local]) -> None:
        self._db.run("shared_files.share", files=json.dumps([one.as_row() for one in batch]))

    def _names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self._folders[folder])
        except FileNotFoundError:
            return []
        except OSError as fault:
            path = self._folders[folder]
            raise Unwritable(f"{path} can't be listed: {fault.strerror}", hint=f"ls -ld {path}") from fault

    def _key(self, name: str) -> str:
        return key_of(name, self.here)


def key_of(name: str, host: str) -> str:
    """Return what a file is called in the store: its name; bytes that are not UTF-8 as `\\xff`, what is too long cut short.

    Too long is what would leave no room for the host's name and the ending of an ack in the mirror.
    """
    room = _NAME_MAX - len(host) - 1 - (len(ack_name("")) - len(".json"))
    if len(name) <= room and name.isascii():
        return name
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    encoded = text.encode()
    if len(encoded) <= room:
        return text
    import hashlib

    ending = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}.json"
    return encoded[: room - len(ending)].decode("utf-8", "ignore") + ending


def _mark(path: str) -> str | None:
    """Return what tells a file from every other that had, or will have, its name; None when it is gone.

    Of one that changed just now it is another one each time, for it may change again without any other sign.
    """
    try:
        found = [os.lstat(path)]
    except OSError:
        return None
    if stat.S_ISLNK(found[0].st_mode):
        try:
            found.append(os.stat(path))
        except OSError:
            found.append(found[0])
    now = time.time()
    young = f"@{now}" if any(abs(now - max(one.st_mtime, one.st_ctime)) < _SETTLED for one in found) else ""
    return " ".join(f"{one.st_ino}.{one.st_size}.{one.st_mtime_ns}.{one.st_ctime_ns}" for one in found) + young


def _changed_at(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _sha(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def _as_ours(row: Shared, error: KlorosError | OSError) -> KlorosError:
    if isinstance(error, KlorosError):
        return error
    return Unwritable(f"{row.name} can't be put where it belongs: {error.strerror}", hint="klorosctl doctor")
