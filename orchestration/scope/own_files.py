"""The folders of one host, as sharing sees them: what lies there, what it is called in the store, and whether it is still
that.

Opens without trust, as everything that reads these folders; refuses to know rows and revisions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from orchestration.errors import Unwritable
from orchestration.host import clock, stand_in
from orchestration.promotions.scan import ack_name, answer_key, opened, read_regular, stem_of
from orchestration.scope.marks import SETTLED, base64_of, sha_of

_ACK_LIMIT = 1024 * 1024  # bytes
_NAME_MAX = 255  # bytes, limits.h


class Local(NamedTuple):
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
        return {**self._asdict(), "content": base64_of(self.data), "data": None}


class OwnFiles(NamedTuple):
    """The three folders of a host."""

    here: str
    promotions: str
    acks: str
    intents: str

    def folder(self, name: str) -> str:
        """Return one of them by its name in the store."""
        return {"promotions": self.promotions, "acks": self.acks, "intents": self.intents}[name]

    def path(self, folder: str, name: str) -> str:
        """Return where a file lies."""
        return os.path.join(self.folder(folder), name)

    def names(self, folder: str) -> list[str]:
        """List a folder; nothing where there is none.

        Raises:
            Unwritable: it is there and can't be listed.
        """
        path = self.folder(folder)
        try:
            return os.listdir(path)
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise Unwritable(f"{path} can't be listed: {fault.strerror}", hint=f"ls -ld {path}") from fault

    def key(self, name: str) -> str:
        """Return what a file is called in the store."""
        return key_of(name, self.here)

    def named(self, folder: str, key: str) -> str:
        """Return the file name that a row's name stands for; that name itself for all but freaks."""
        if os.path.lexists(self.path(folder, key)):
            return key
        return next((name for name in self.names(folder) if self.key(name) == key), key)

    def ack(self, name: str, key: str) -> dict[str, object] | None:
        """Read an ack for the store, under the name it is to have there; None when it can't be."""
        return read_ack(self.path("acks", name), key)

    def promotion(self, key: str, name: str, mark: str) -> Local | None:
        """Read a promotion; None when it is gone or in the writing."""
        from orchestration.host import users
        from orchestration.promotions.document import Malformed, parse_json
        from orchestration.promotions.reading import fetch

        read = fetch(self.promotions, name)
        if read is None:
            return None
        if isinstance(read, str):
            return Local("promotions", key, mark, sha_of(read.encode()), b"", read, "", time.time(), "")
        data, status = read
        if -SETTLED < time.time() - status.st_mtime < SETTLED:
            value = parse_json(data)
            if isinstance(value, Malformed) and value.unfinished:
                return None
        owner = users.name_of(status.st_uid)
        return Local("promotions", key, mark, sha_of(data), data, "", "", status.st_mtime, owner)

    def intent(self, key: str, name: str, mark: str) -> Local | None:
        """Read an intent; None when it is gone or in the writing."""
        from orchestration.intents.reading import take

        taken = take(self.intents, name, clock.now())
        if taken is None or taken[0].unfinished:
            return None
        dropped, data = taken
        changed_at = dropped.changed.timestamp()
        if dropped.content_sha.startswith("kind:"):
            told = stand_in.text(dropped.content_sha.removeprefix("kind:"), dropped.fault)
            return Local("intents", key, mark, sha_of(told.encode()), b"", told, dropped.content_sha, changed_at, "")
        return Local("intents", key, mark, sha_of(data), data, "", dropped.content_sha, changed_at, "")

    def older_answers(self, names: list[str], known: Mapping[str, str]) -> dict[str, str]:
        """Return what acks of the older forms answer: file name → id. Each file is opened once: `known` are those before."""
        older = {name: known[name] for name in names if name in known}
        for name in names:
            if name not in older and (answers := opened(self.acks, name)) is not None:
                older[name] = answers
        return older

    def answered_by(self, name: str, older: Mapping[str, str]) -> str:
        """Return which ack of an older form answers a promotion, by its stem or its own id; empty when none does.

        `older`: key of an id → file name, as `by_answer` gives it.
        """
        from orchestration.promotions.promotion import Promotion, parse
        from orchestration.promotions.reading import fetch

        stem = answer_key(stem_of(name))
        if stem in older:
            return older[stem]
        read = fetch(self.promotions, name)
        if read is None or isinstance(read, str):
            return ""
        parsed = parse(read[0], bounds={})
        identity = parsed.id if isinstance(parsed, Promotion) else parsed.identity
        return older.get(answer_key(identity), "") if identity else ""


def read_ack(path: str, key: str) -> dict[str, object] | None:
    """Read an ack for the store, under the name it is to have there; None when it can't be."""
    try:
        data, changed_at = read_regular(path, limit=_ACK_LIMIT)
    except OSError:
        return None
    return {"name": key, "sha256": sha_of(data), "content": base64_of(data), "changed_at": changed_at}


def by_answer(older: Mapping[str, str]) -> dict[str, str]:
    """Turn it around: key of an id → name of the file that answers it."""
    return {answer_key(identity): name for name, identity in older.items() if identity}


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
