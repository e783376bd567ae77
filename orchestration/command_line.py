"""The command line of an entry: argparse, with our exit code for wrong use."""

from __future__ import annotations

import argparse
from typing import NoReturn

from orchestration.errors import Usage
from orchestration.exits import Exit


class Parser(argparse.ArgumentParser):
    """A parser for entries: wrong use ends with `Exit.USAGE`."""

    def error(self, message: str) -> NoReturn:
        """End with `Exit.USAGE`; argparse's own 2 would say "disabled"."""
        self.exit(Exit.USAGE, f"{self.format_usage()}{self.prog}: {message}\n")


class RaisingParser(Parser):
    """A parser for commands within `klorosctl`, which says itself what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Raise Usage."""
        raise Usage(message, hint=f"{self.prog} --help")
