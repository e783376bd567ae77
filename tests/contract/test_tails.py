"""The end of a log that may be anything: bounded, and harmless to a terminal and a page."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.pulse.tails import plain, tail


def test_it_is_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    found = tail(str(log), lines=3)
    assert found is not None
    assert (found.text, found.size, found.truncated) == ("line 97\nline 98\nline 99", log.stat().st_size, True)


def test_a_short_one_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_text("one\ntwo\n")
    found = tail(str(log))
    assert found is not None
    assert (found.text, found.truncated) == ("one\ntwo", False)


def test_a_line_of_ten_megabytes_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "output.log"
    log.write_bytes(b"x" * 10_000_000)
    found = tail(str(log), most_bytes=1000)
    assert found is not None
    assert (len(found.text), found.size, found.truncated) == (1000, 10_000_000, True)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;owned\x07name", "name"),
        (b"a\x07b\x00c\x7fd", "a\\x07b\\x00c\\x7fd"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"50%\r100%\r\ndone", "50%\n100%\ndone"),
        ("\u202eevil".encode(), "\\u202eevil"),
        ("\u2028".encode(), "\\u2028"),
        (b"\t<script>", "\t<script>"),
    ],
)
def test_what_acts_on_a_screen_is_taken_out_or_written_out(written: bytes, shown: str) -> None:
    assert plain(written) == shown


@given(st.binary(max_size=300))
def test_whatever_was_written_can_be_shown(written: bytes) -> None:
    shown = plain(written)
    shown.encode("utf-8")
    assert all(one.isprintable() or one in "\n\t " for one in shown)


def test_only_a_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent", "."):
        assert tail(str(tmp_path / name)) is None
