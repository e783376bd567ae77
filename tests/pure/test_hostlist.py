"""Lists of hosts as Slurm writes them."""

from __future__ import annotations

import pytest

from orchestration.host.hostlist import expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("lab-1", ("lab-1",)),
        ("lab-1,lab-2.example.org", ("lab-1", "lab-2.example.org")),
        ("node[1-3]", ("node1", "node2", "node3")),
        ("node[08-11]", ("node08", "node09", "node10", "node11")),
        ("a[1,3-4]b,c", ("a1b", "a3b", "a4b", "c")),
        ("a,a,a[1-2],a1", ("a", "a1", "a2")),
    ],
)
def test_a_list_is_read(text: str, names: tuple[str, ...]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize("text", [",", "a,,b", "a[", "a]", "a[]", "a[x]", "a[3-1]", "a[1-999999]", "a[1-2]b[1-2]", "a b"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"names no host|no range of hosts"):
        expand(text)
