"""Candidates that D-REAM left for us, our answers to them, and the parameters we have accepted so far.

Importing the package costs nothing: a quiet tick needs only `scan`, so the public function is found on first
use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.promotions.public import scan_unacked_promotions

__all__ = ["scan_unacked_promotions"]


def __getattr__(name: str) -> object:
    if name == "scan_unacked_promotions":
        from orchestration.promotions.public import scan_unacked_promotions

        return scan_unacked_promotions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
