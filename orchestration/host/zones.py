"""Where time zones come from: the host's files, else those of the PyPI package tzdata.

zoneinfo falls back to tzdata by itself, but through importlib.resources, which costs 17 ms of CPU (measured with
Python 3.11). As one more folder of zoneinfo's search path the same files cost 1 ms.
"""

from __future__ import annotations

import os
import zoneinfo
from importlib import import_module


def find(name: str) -> None:
    """Let zoneinfo read the files of tzdata if the host has none for the IANA zone `name`.

    Changes nothing if neither has the zone: constructing it then tells.
    """
    if any(os.path.isfile(os.path.join(folder, name)) for folder in zoneinfo.TZPATH):
        return
    try:
        tzdata = import_module("tzdata")  # not `import tzdata`: it ships no types
    except ImportError:
        return
    bundled = [os.path.join(os.path.abspath(folder), "zoneinfo") for folder in tzdata.__path__]
    zoneinfo.reset_tzpath([*(folder for folder in zoneinfo.TZPATH if folder not in bundled), *bundled])
