"""Spans over OTLP, as a collector on loopback receives them from the served bridge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.host import Host
from tests.acceptance.serving import serving
from tests.acceptance.talking import Agent, issue
from tests.acceptance.test_bridge_trace import TRACE, ask
from tests.waiting import until


class Collector:
    """Takes spans on loopback."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                for resource in sent.resource_spans:
                    for scope in resource.scope_spans:
                        outer.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def of(self, operation: str) -> list[Any]:
        return [span for span in self.spans if span.name == operation]


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()


def attributes(span: Any) -> dict[str, str | int]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_each_request_is_a_span_of_the_trace_that_its_caller_named(host: Host) -> None:
    with collecting() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with serving(host, "--bridge", **variables) as served:
            agent = Agent(served, issue(host, "executioner"))
            asked: dict[str, Any] = {"workspace_id": "kloros", "title": "secret title", "participants": ["reviewer"]}
            thread_id = agent.ask("create_thread", **asked)["thread_id"]
            ask(served, agent, "post_message", TRACE, thread_id=thread_id, body="secret body")
            (span,) = until(lambda: collector.of("post_message"), what="its span")
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == tuple(TRACE.split("-")[1:3])
            told = attributes(span)
            assert (told["http.response.status_code"], told["kloros.thread_id"]) == (200, thread_id)
            assert told["kloros.agent_id"] == "executioner"
            assert span.end_time_unix_nano > span.start_time_unix_nano
            agent.ask("get_thread", thread_id="thr_" + "0" * 32, status=404)
            served.stop()
        (refused,) = collector.of("get_thread")
        assert attributes(refused)["error.type"] == "NOT_FOUND", "what waits is sent at the end"
        sent = str(collector.spans)
        assert "secret" not in sent
        assert agent.token not in sent


def test_a_collector_that_is_gone_hinders_nobody(host: Host) -> None:
    with serving(host, "--bridge", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_BSP_SCHEDULE_DELAY="50") as served:
        agent = Agent(served, issue(host, "executioner"))
        agent.ask("create_thread", workspace_id="kloros", title="Retry", participants=["reviewer"])
        until(lambda: any("export" in line.lower() for line in served.lines), what="it says so")
        agent.ask("list_threads")
        assert served.stop(within=8) == 0
