"""Whether a link stays inside: by cases, and by asking the file system itself."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles.links import stays_inside


@pytest.mark.parametrize(
    ("links", "path", "expected"),
    [
        ({"a": "b"}, "a", True),
        ({"a": "."}, "a", True),
        ({"a": "absent/deeper/../x"}, "a", True),
        ({"d/a": "../b"}, "d/a", True),
        ({"a": ".."}, "a", False),
        ({"d/a": "../../b"}, "d/a", False),
        ({"a": "/etc/passwd"}, "a", False),
        ({"a": "d/../../x"}, "a", False),
        ({"a": "a"}, "a", False),
        ({"a": "b", "b": "a"}, "a", False),
        ({"here": ".", "a": "here/../x"}, "a", False),  # by its letters alone it stays inside
        ({"deep": "x/y/z", "a": "deep/../../.."}, "a", True),  # by its letters alone it leaves
        ({"abs": "/etc", "a": "abs/passwd"}, "a", False),
        ({"up": "d/..", "a": "up/../x"}, "a", False),
    ],
)
def test_cases(links: dict[str, str], path: str, expected: bool) -> None:
    known = {tuple(one.split("/")): target for one, target in links.items()}
    assert stays_inside(tuple(path.split("/")), known) is expected


PARTS = st.sampled_from(["a", "b", "c", "..", ".", ""])
TARGETS = st.lists(PARTS, min_size=1, max_size=5).map("/".join).filter(bool)


@given(st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/e/c"]), TARGETS, min_size=1))
def test_what_is_said_to_stay_inside_does(links: dict[str, str]) -> None:
    known = {tuple(path.split("/")): target for path, target in links.items()}
    with tempfile.TemporaryDirectory() as top:
        folder = Path(os.path.realpath(top)) / "folder"
        (folder / "d" / "e").mkdir(parents=True)
        for path, target in links.items():
            (folder / path).symlink_to(target)
        for path in links:
            if stays_inside(tuple(path.split("/")), known):
                reached = Path(os.path.realpath(folder / path))
                assert reached == folder or folder in reached.parents
