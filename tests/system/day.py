"""The local day of a guest: a zone in which it begins in the hour after noon, and PHASE windows on that day.

The clock is the host's and can't be another one; what hour it is, the settings say. So no test sees the midnight of its
guest, no zone here changes its clocks, and a window is open or shut because a test said so, not because of the hour of the
run. Hours from noon on, not days from now: a window that closes on the next date, or one whose hours have passed already
today, is another date's to the account of PHASE.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

SHUT = timedelta(hours=3)  # until a window opens that is to stay shut: no guest lives as long


class Day(NamedTuple):
    """One guest's day, in a zone of whole hours."""

    offset: int  # hours east of UTC

    @classmethod
    def of(cls, began: datetime) -> Day:
        """The day of a guest that began at this aware UTC instant."""
        return cls(12 - began.hour)

    @property
    def time_zone(self) -> str:
        """The zone's IANA name, which counts the hours west of UTC."""
        return f"Etc/GMT{-self.offset:+d}"

    def window(self, now: datetime, *, opens_in: timedelta = SHUT, lasts: timedelta = timedelta(hours=2)) -> str:
        """The settings of a window relative to the aware instant `now`."""
        opens = (now + opens_in).astimezone(timezone(timedelta(hours=self.offset)))
        closes = opens + lasts
        return f'time_zone = "{self.time_zone}"\nwindow_opens = "{opens:%H:%M:%S}"\nwindow_closes = "{closes:%H:%M:%S}"\n'

    def shut_in(self, shipped: str, now: datetime) -> str:
        """The shipped settings, with a window that is shut instead of the commented default, which may be open."""
        for line in self.window(now).splitlines():
            name = line.split(" = ")[0]
            shipped, found = re.subn(rf"^# {name} = .*$", line, shipped, flags=re.MULTILINE)
            assert found == 1, f"the shipped settings have {name} {found} times"
        return shipped
