"""How long one who is about to hear from another process goes without sleep."""

from __future__ import annotations

import os
from typing import Final

AWAKE: Final = 0.0002 if len(os.sched_getaffinity(0)) > 1 else 0.0
"""Seconds: to be woken takes 50 µs and more on a virtual machine. With one processor the other needs it."""
