"""PostgreSQL as the commands on databases take it: where its extra is installed."""

from __future__ import annotations

from typing import Any

from orchestration.errors import Usage


def load() -> Any:
    """Import what reads and writes PostgreSQL as a whole. Raises: Usage, with the extra that it needs."""
    try:
        from orchestration.bridge.store import transfer_postgres
    except ImportError as error:
        hint = "install the extra postgres: sudo ./install.sh --with bridge,postgres, or unset KLR_DATABASE_URL"
        raise Usage(f"PostgreSQL needs a package that is not installed: {error.name}", hint=hint) from error
    return transfer_postgres
