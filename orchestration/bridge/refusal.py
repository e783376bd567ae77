"""How the bridge says no: one code each, with its HTTP status and whether trying again can help.

The envelope is the wire's (version 1): `{"error": {code, message, details, retryable}, request_id, occurred_at}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

Detail: TypeAlias = str | int | float | bool | None


class Code(StrEnum):
    """Everything that can be wrong with a request, or with us."""

    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    WORKSPACE_MISMATCH = "WORKSPACE_MISMATCH"
    CLAIM_MISMATCH = "CLAIM_MISMATCH"
    INSUFFICIENT_AUTHORITY = "INSUFFICIENT_AUTHORITY"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    INVALID_THREAD_TRANSITION = "INVALID_THREAD_TRANSITION"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    RATE_LIMITED = "RATE_LIMITED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"


STATUS: Final[Mapping[Code, int]] = MappingProxyType(
    {
        Code.UNAUTHORIZED: 401,
        Code.FORBIDDEN: 403,
        Code.WORKSPACE_MISMATCH: 403,
        Code.CLAIM_MISMATCH: 403,
        Code.INSUFFICIENT_AUTHORITY: 403,
        Code.INVALID_ARGUMENT: 400,
        Code.NOT_FOUND: 404,
        Code.CONFLICT: 409,
        Code.INVALID_THREAD_TRANSITION: 409,
        Code.IDEMPOTENCY_CONFLICT: 409,
        Code.PAYLOAD_TOO_LARGE: 413,
        Code.RATE_LIMITED: 429,
        Code.INTERNAL: 500,
        Code.UNAVAILABLE: 503,
    }
)
RETRYABLE: Final = frozenset({Code.RATE_LIMITED, Code.UNAVAILABLE})


class Refused(Exception):
    """A request is not carried out.

    `rule` names the rule that refused, for log and audit, never for the caller; `retry_after` is in seconds.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        rule: str,
        details: Mapping[str, Detail] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.rule = rule
        self.details = dict(details or {})
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The HTTP status of its code."""
        return STATUS[self.code]
