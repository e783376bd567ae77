"""What the server reads from a request: media types, hosts, tokens, ranges; and where a character ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.pulse.server.admission import Admission
from orchestration.pulse.server.files import _span, open_beneath
from orchestration.pulse.server.following import _whole
from orchestration.pulse.server.words import preferred

TEXT, OPEN = "text/plain", "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", TEXT),
        (OPEN, OPEN),
        (f"{OPEN};version=1.0.0;q=0.5,text/plain;q=0.4", OPEN),
        (f"{OPEN};q=0.4,text/*;q=0.5", TEXT),
        (f"{OPEN};q=0,*/*;q=0.1", TEXT),
        (f"text/plain;q=0,{OPEN};q=0.1", OPEN),
        ("application/json", None),
        ("text/plain;q=nonsense", None),
        (";;,,", None),
    ],
)
def test_the_preferred_media_type(accept: str, chosen: str | None) -> None:
    assert preferred(accept, (TEXT, OPEN)) == chosen


def test_a_token_is_shown_whole_or_not_at_all() -> None:
    admission = Admission(token="correct horse battery"[:7] + "-0123456789")
    assert admission.admits("Bearer correct-0123456789")
    assert admission.admits("bearer  correct-0123456789 ")
    assert admission.admits("Basic OmNvcnJlY3QtMDEyMzQ1Njc4OQ==")
    for wrong in ("", "correct-0123456789", "Bearer correct", "Bearer correct-0123456789é", "Basic OmNvcnJlY3Q=", "Basic é"):
        assert not admission.admits(wrong), wrong
    assert Admission(token=None).admits("")


@given(st.text(max_size=40), st.integers(min_value=0, max_value=10**6))
def test_no_header_makes_a_range_that_is_none(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        span = _span(text, size)
        if span not in (None, (0, 0)):
            assert span is not None
            assert 0 <= span[0] < span[1] <= size


@given(st.text(), st.integers(min_value=1, max_value=12))
def test_parts_of_a_text_are_the_text(text: str, length: int) -> None:
    data, at, parts = text.encode("utf-8", "replace"), 0, []
    while at < len(data):
        part = data[at : at + max(length, 4)]
        whole = _whole(part) or part
        parts.append(whole.decode())
        at += len(whole)
    assert "".join(parts) == data.decode()


@given(st.binary(min_size=4, max_size=40))
def test_bytes_that_are_no_text_stop_nothing(data: bytes) -> None:
    assert len(_whole(data)) > len(data) - 4


def test_a_path_stays_beneath_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/file").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo")
    descriptor = open_beneath(str(folder), "inner/file")
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    before = len(os.listdir("/proc/self/fd"))
    for path in ("link", "out/secret", "../secret", "inner/../inner/file", "./inner/file", "inner//file", "inner", "fifo",
                 "", "/etc/passwd", "none", "inner/file/more", "inner/file\0"):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            open_beneath(str(folder), path)
    assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left behind"
