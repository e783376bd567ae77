"""Lists of hosts as Slurm writes them: `lab-1,node[01-04,7]`. Pure.

One bracket a name, as in "hostlist expressions" of scontrol(1); leading zeros are kept.
"""

import re
from typing import Final

_NAME: Final = re.compile(r"(?P<before>[A-Za-z0-9._-]*)(?:\[(?P<ranges>[0-9,-]+)\](?P<after>[A-Za-z0-9._-]*))?")
_PARTS: Final = re.compile(r",(?![^\[]*\])")
_MOST: Final = 10_000


def expand(text: str) -> tuple[str, ...]:
    """Return the hosts that a list names, in its order and each once; none of an empty one.

    Raises:
        ValueError: it is no such list.
    """
    names: dict[str, None] = {}
    for part in _PARTS.split(text) if text else ():
        found = _NAME.fullmatch(part)
        if not part or found is None:
            raise ValueError(f"{part!r} names no host; hosts are written lab-1,lab-2 or lab-[1-4]")
        for number in _numbers(found["ranges"]) if found["ranges"] else ("",):
            names[f"{found['before']}{number}{found['after'] or ''}"] = None
    return tuple(names)


def _numbers(ranges: str) -> list[str]:
    numbers: list[str] = []
    for one in ranges.split(","):
        first, dash, last = one.partition("-")
        last = last if dash else first
        if not (first.isdigit() and last.isdigit() and int(first) <= int(last) < int(first) + _MOST):
            raise ValueError(f"[{ranges}] is no range of hosts, such as [1-4,7]")
        numbers += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return numbers
