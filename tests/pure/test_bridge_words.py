"""Which words the search knows."""

from __future__ import annotations

import pytest

from orchestration.bridge.words import words


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
