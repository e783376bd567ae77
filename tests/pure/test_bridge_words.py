"""Which words the search knows."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestration.bridge.words import spaced, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("Retry retry RETRY", ["retry"]),
        ("retry-2, foo_bar; a.b@c", ["retry", "2", "foo", "bar", "a", "b", "c"]),
        ("Straße ÄRGER ﬁne", ["strasse", "ärger", "fine"]),
        ("日本語 и я", ["日本語", "и", "я"]),
        ("' \" * & | ! : ( ) \\", []),
        ("x" * 100, ["x" * 64]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_runs_of_letters_and_digits(text: str) -> None:
    assert words(text) == list(dict.fromkeys(word[:64] for word in re.findall("[a-z0-9]+", text.lower())))


@given(st.text(st.characters(max_codepoint=127) | st.sampled_from("abc "), min_size=50) | st.text())
@example("x" * 31 + " " + "y" * 64 + " z")
@example("x" * 31 + " " + "y" * 65 + " z")
@example("a " * 16 + "y" * 62 + " z")
def test_words_for_an_index_are_the_same_cut_alike(text: str) -> None:
    assert list(dict.fromkeys(spaced(text).split())) == words(text)
