"""What a message may be: sizes, words of an event, whom it reaches, and when two posts are the same one.

Sizes are of the UTF-8 text, metadata as compact JSON. A text with a NUL or half a surrogate pair has no form that every
store and reader shares, so it is refused. A directed message (`to`) is read by its sender, by the one it is meant for,
and by roles that see everything; the others' reading skips it, and it is no unread message of theirs.

Pure. Refuses to know how a message is kept, and who may post at all (`authority.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wire import (
    MAX_BODY,
    MAX_METADATA,
    MAX_METADATA_DEPTH,
    MAX_TITLE,
    EventType,
    MessageKind,
    PostMessage,
)

OTHER: Final = "other"
MAX_EVENT_TYPE: Final = 64
MAX_FINDING: Final = 200


class Event(NamedTuple):
    """What an event says, as the rules read it."""

    type: str
    finding: str = ""
    """Which finding it is about; empty when it is about none."""

    @property
    def label(self) -> str:
        """Its type as metrics name it: one that the wire knows, or `other`."""
        return self.type if self.type in _KNOWN else OTHER


_KNOWN: Final = frozenset(kind.value for kind in EventType)
_ABOUT_FINDINGS: Final = frozenset(
    {
        EventType.FINDING_REPORTED,
        EventType.FIX_PUSHED,
        EventType.RE_REVIEW_REQUESTED,
        EventType.FINDING_VERIFIED,
        EventType.FINDING_REJECTED,
    }
)


def check_text(name: str, text: str, *, limit: int) -> None:
    """Refuse a text that no store can hold as it is, or that is too long (`limit` in bytes of UTF-8)."""
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise _invalid(name, "holds half a surrogate pair, which is no Unicode text") from None
    if "\0" in text:
        raise _invalid(name, "holds a NUL character")
    if size > limit:
        raise _too_large(name, size, limit)


def check_title(title: str) -> None:
    """Refuse a title without a visible character, of several lines, or of more than 200 characters."""
    check_text("title", title, limit=4 * MAX_TITLE)
    if len(title) > MAX_TITLE:
        raise _too_large("title", len(title), MAX_TITLE)
    if not title.strip() or not title.isprintable():
        raise _invalid("title", "is to be one line of visible characters")


def check(asked: PostMessage) -> None:
    """Refuse a message by its sizes and its form.

    Raises:
        Refused: PAYLOAD_TOO_LARGE (body, metadata) or INVALID_ARGUMENT.
    """
    check_text("body", asked.body, limit=MAX_BODY)
    check_metadata(asked.metadata)
    if asked.idempotency_key is not None:
        check_text("idempotency_key", asked.idempotency_key, limit=800)
    if asked.kind is MessageKind.EVENT:
        _check_event(asked.metadata)


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata beyond 16 KiB as compact JSON, beyond eight levels, or that is no JSON."""
    if not metadata:
        return
    if _deeper_than(metadata, MAX_METADATA_DEPTH):
        raise _invalid("metadata", f"is nested deeper than {MAX_METADATA_DEPTH} levels")
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError):
        raise _invalid("metadata", "is no JSON: NaN and infinities are not") from None
    if "\\u0000" in text and _holds_nul(metadata):
        raise _invalid("metadata", "holds a NUL character")
    check_text("metadata", text, limit=MAX_METADATA)


def _check_event(metadata: Mapping[str, Any]) -> None:
    kind = metadata.get("event_type")
    if not isinstance(kind, str) or not kind.strip() or len(kind) > MAX_EVENT_TYPE or not kind.isprintable():
        raise _invalid("metadata.event_type", f"is to name the event in 1 to {MAX_EVENT_TYPE} visible characters")
    finding = metadata.get("finding_id")
    if finding is not None and (not isinstance(finding, str) or not 0 < len(finding) <= MAX_FINDING):
        raise _invalid("metadata.finding_id", f"is to be a text of 1 to {MAX_FINDING} characters")


def event_of(kind: MessageKind, metadata: Mapping[str, Any], *, in_reply_to: str | None, message_id: str) -> Event | None:
    """Read the event that a message is; None when it is none.

    A report without `finding_id` names its finding by its own message id; an answer to one, by what it replies to.
    """
    if kind is not MessageKind.EVENT:
        return None
    name = str(metadata.get("event_type", OTHER))
    if name not in _ABOUT_FINDINGS:
        return Event(name)
    own = message_id if name == EventType.FINDING_REPORTED else ""
    return Event(name, str(metadata.get("finding_id") or in_reply_to or own))


def digest(asked: PostMessage) -> str:
    """Tell one payload from another under the same idempotency key: SHA-256 of what is said, in hexadecimal."""
    metadata = json.dumps(asked.metadata, sort_keys=True, separators=(",", ":")) if asked.metadata else "{}"
    said = (asked.kind, asked.in_reply_to or "", asked.to or "", metadata, asked.body)  # only the body may have a NUL
    return hashlib.sha256("\0".join(said).encode()).hexdigest()


def id_after(message_id: str) -> str:
    """Return the id that a message has which another one brings about: the next one."""
    kind, _, number = message_id.partition("_")
    return f"{kind}_{int(number, 16) + 1:032x}"


def check_repeat(first: str, again: str) -> None:
    """Refuse another payload under a key that is taken; told by their digests."""
    if first != again:
        raise Refused(
            Code.IDEMPOTENCY_CONFLICT,
            "This idempotency key belongs to another message of yours in this thread. Use a new one.",
            rule="message.idempotency",
        )


def reaches(reader: str, *, sender: str, to: str | None, sees_all: bool = False) -> bool:
    """Say whether somebody reads a message: everybody without `to`, else sender, addressee and who sees all."""
    return sees_all or to is None or reader in (sender, to)


def _deeper_than(value: object, levels: int) -> bool:
    below: Mapping[str, object] | list[object] | tuple[object, ...]
    if not isinstance(value, Mapping | list | tuple):
        return False
    below = value
    if levels == 0:
        return True
    return any(_deeper_than(part, levels - 1) for part in (below.values() if isinstance(below, Mapping) else below))


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, Mapping):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list | tuple) and any(map(_holds_nul, value))


def _invalid(field: str, what: str) -> Refused:
    return Refused(Code.INVALID_ARGUMENT, f"{field} {what}.", rule=f"message.{field}", details={"field": field})


def _too_large(field: str, size: int, limit: int) -> Refused:
    return Refused(
        Code.PAYLOAD_TOO_LARGE,
        f"{field} is too large: {size} of at most {limit}.",
        rule=f"message.{field}_size",
        details={"field": field, "size": size, "limit": limit},
    )


Mask = Callable[[str], str]


def masked(metadata: Mapping[str, Any], mask: Mask) -> dict[str, Any]:
    """Put every text in metadata, keys included, through a content filter."""
    return {mask(key): _masked(value, mask) for key, value in metadata.items()}


def _masked(value: Any, mask: Mask) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return masked(value, mask)
    return [_masked(part, mask) for part in value] if isinstance(value, list | tuple) else value
