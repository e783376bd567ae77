"""What the page says, and what text from outside may no longer do once it says it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles.cycle import Cause, CycleState, JobName
from orchestration.pulse.dashboard import wording
from orchestration.pulse.health import Condition, Verdict
from orchestration.pulse.loop_health import Beat

NOW = datetime(2026, 11, 21, 4, 47, 12, tzinfo=UTC)
CLOCK = wording.Clock(ZoneInfo("America/New_York"), NOW)


@pytest.mark.parametrize(
    ("words", "members"),
    [
        (wording.VERDICTS, Verdict),
        (wording.MEANINGS, Verdict),
        (wording.CONDITIONS, Condition),
        (wording.BEATS, Beat),
        (wording.STATES, CycleState),
        (wording.JOBS, JobName),
        (wording.CAUSES, Cause),
    ],
)
def test_there_are_words_for_everything(words: Mapping[str, str], members: Collection[str]) -> None:
    assert {str(member) for member in members} <= {str(key) for key in words}
    assert all(words.values())


@given(st.text(alphabet=st.characters(codec=None)))
def test_inert_text_can_be_written_and_does_nothing(text: str) -> None:
    shown = wording.inert(text)
    assert isinstance(shown, str)
    shown.encode()  # no half characters
    assert not [sign for sign in shown if (ord(sign) < 32 and sign not in "\t\n") or 0x7F <= ord(sign) < 0xA0]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u2028\u2029")
    assert wording.inert(shown) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x07", "link"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("half \x1b[", "half ␛["),
        ("\udcff\ud800", "\ufffd\ufffd"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("größe 漢字 🜁\tx", "größe 漢字 🜁\tx"),
    ],
)
def test_what_acts_is_shown_instead(given: str, shown: str) -> None:
    assert wording.inert(given) == shown


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("one\ntwo\n", "one\ntwo"),
        ("\n".join("abcdef"), "…\nd\ne\nf"),
        ("x" * 30, "… " + "x" * 20),
        ("", ""),
    ],
)
def test_the_end_of_a_text_says_that_it_is_one(text: str, kept: str) -> None:
    assert wording.tail(text, lines=3, characters=20) == kept


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.26, "0.3 s"), (7, "7 s"), (59.7, "1 min"), (3605, "1 h"), (7830, "2 h 10 min"), (90061, "1 d 1 h")],
)
def test_spans(seconds: float, text: str) -> None:
    assert wording.span(seconds).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (1.1333, "113 %"),
        (0.97, "97 %"),
        (0.9996, "99.9 %"),
        (0.9951, "99.5 %"),
        (0.0001, "< 0.1 %"),
    ],
)
def test_a_share_is_whole_only_when_it_is(share: float, text: str) -> None:
    assert wording.percent(share).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (0.123456, "0.1235"), (1234567.0, "1\u202f234\u202f567"), (float("nan"), "nan")]
)
def test_figures(value: float, text: str) -> None:
    assert wording.figure(value) == text


def test_instants_are_written_with_their_zone() -> None:
    assert CLOCK.local(NOW) == "20\u00a0Nov 23:47:12\u00a0EST"
    assert CLOCK.utc(NOW) == "21\u00a0Nov 04:47:12\u00a0UTC"
    assert CLOCK.local(NOW.replace(year=2025, month=7)) == "21\u00a0Jul\u00a02025 00:47:12\u00a0EDT"
    assert CLOCK.machine(NOW) == "2026-11-21T04:47:12Z"
    assert CLOCK.day(date(2026, 11, 20)) == "Fri\u00a020\u00a0Nov"
    assert CLOCK.ago(NOW.replace(minute=40)) == "7\u00a0min ago"
    assert CLOCK.ago(NOW.replace(hour=5)) == "in 1\u00a0h"
