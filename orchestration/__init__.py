"""Unattended agent work on Linux hosts: decide, lock, run, settle, wake.

Read `tick/tick.py` first; the rest of the program is what that one function calls.
"""

__version__ = "0.1.0"
