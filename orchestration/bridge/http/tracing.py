"""Spans of requests for OpenTelemetry: one for each answer, below the trace that the caller named. Off unless asked for.

Asked for by OpenTelemetry's own variables, `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin, sent as OTLP over HTTP by a thread of
its own. Names come from our table of operations, attributes from ids that we gave or verified; texts and tokens never.
https://opentelemetry.io/docs/specs/otel/protocol/exporter/ https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from orchestration.errors import Usage

if TYPE_CHECKING:
    from orchestration.bridge.http.exchange import Exchange

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SERVICE: Final = "kloros-bridge"
_CLOSING_SECONDS: Final = 3.0


class Tracing(Protocol):
    """Where spans go."""

    def answered(self, exchange: Exchange, method: str, seconds: float) -> None:
        """Note a request that has just been answered."""
        ...

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        ...


def tracing(environ: Mapping[str, str]) -> Tracing | None:
    """Begin to export if the environment asks for it.

    Raises:
        Usage: a package is missing.
    """
    if not any(environ.get(name) for name in ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        return _Otlp()
    except ImportError as error:
        hint = "install the extra otel: sudo ./install.sh --with bridge,otel, or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        raise Usage(f"OpenTelemetry needs a package that is not installed: {error.name}", hint=hint) from error


class _Otlp:
    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({SERVICE_NAME: _SERVICE})  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count over it
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("orchestration.bridge")
        self._kind, self._error = SpanKind.SERVER, StatusCode.ERROR
        self._trace = TraceContextTextMapPropagator()

    def answered(self, exchange: Exchange, method: str, seconds: float) -> None:
        caller, ended = exchange.caller, time.time_ns()
        told: dict[str, str | int | None] = {
            "http.request.method": method,
            "http.response.status_code": exchange.status,
            "kloros.request_id": exchange.request_id,
            "kloros.thread_id": exchange.thread_id,
            "kloros.agent_id": caller.agent_id if caller else None,
            "kloros.workspace_id": caller.workspace_id if caller else None,
            "error.type": exchange.code or None,
            "kloros.rule": exchange.rule or None,
        }
        span = self._tracer.start_span(
            exchange.operation,
            context=self._trace.extract({"traceparent": caller.traceparent} if caller else {}),
            kind=self._kind,
            attributes={name: value for name, value in told.items() if value is not None},
            start_time=ended - int(seconds * 1e9),
        )
        if exchange.status >= 500:
            span.set_status(self._error)
        span.end(ended)

    def close(self) -> None:
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)  # a collector that is gone is asked again
        ending.start()
        ending.join(_CLOSING_SECONDS)
