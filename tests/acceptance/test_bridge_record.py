"""What is on record of each request and of each command of a person: its id and the rule that refused, in log and audit."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

import click
import pytest

from orchestration.klorosctl import program
from tests.acceptance.bridge_world import token_of
from tests.acceptance.host import Host
from tests.acceptance.serving import Served, serving
from tests.waiting import until

NOWHERE = "thr_" + "0" * 32
OF_THREADS = (
    "inspect-thread", "escalate-thread", "unblock-thread", "override-close-thread", "tail-thread", "post",
    "threads list", "threads import", "threads expire", "audit verify", "audit list", "token issue", "token revoke",
    "token rotate", "token list", "db migrate", "db check", "db backup", "db restore", "db copy", "mcp config",
)  # fmt: skip


def asked(served: Served, token: str, method: str, request_id: str, **document: object) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)) as connection:
        headers = {"authorization": f"Bearer {token}", "x-request-id": request_id}
        connection.request("POST", f"/v1/mcp/{method}", json.dumps(document), headers)
        answer = connection.getresponse()
        assert answer.getheader("x-request-id") == request_id
        return answer.status, json.loads(answer.read())


def test_each_request_is_in_log_and_audit_under_its_id_and_each_refusal_with_its_rule(host: Host) -> None:
    with serving(host, "--bridge", KLR_BRIDGE_AGENT_POSTS_PER_MINUTE="2") as served:
        executioner, stranger = token_of(host, "executioner"), token_of(host, "stranger")
        auditor = token_of(host, "ada", "auditor")
        new = {"workspace_id": "kloros", "title": "t", "participants": ["reviewer"]}
        _, thread = asked(served, executioner, "create_thread", "id-create", **new)
        of = {"thread_id": thread["thread_id"]}
        wanted = {
            "id-post": (200, executioner, "post_message", {**of, "body": "x", "idempotency_key": "k"}),
            "id-conflict": (409, executioner, "post_message", {**of, "body": "y", "idempotency_key": "k"}),
            "id-post-2": (200, executioner, "post_message", {**of, "body": "x"}),
            "id-rate": (429, executioner, "post_message", {**of, "body": "x"}),
            "id-forbidden": (403, stranger, "get_thread", of),
            "id-unknown": (404, executioner, "get_thread", {"thread_id": NOWHERE}),
            "id-invalid": (400, executioner, "read_messages", {"thread_id": "x"}),
            "id-large": (413, executioner, "post_message", {**of, "body": "x" * 600_000}),
            "id-past": (400, executioner, "ack_read", {**of, "agent_id": "executioner", "last_read_seq": 99}),
            "id-agent": (403, executioner, "ack_read", {**of, "agent_id": "reviewer", "last_read_seq": 1}),
            "id-workspace": (403, executioner, "create_thread", {**new, "workspace_id": "other"}),
            "id-block": (200, executioner, "update_thread_status", {**of, "status": "blocked", "reason": "x"}),
            "id-close": (409, executioner, "update_thread_status", {**of, "status": "closed", "reason": "x"}),
            "id-override": (
                403,
                executioner,
                "update_thread_status",
                {**of, "status": "closed", "reason": "human_override: x"},
            ),
            "id-auditor": (403, auditor, "post_message", {**of, "body": "x"}),
        }
        told = {}
        for name, (status, token, method, document) in wanted.items():
            got, answer = asked(served, token, method, name, **document)
            assert got == status, (name, answer)
            told[name] = answer.get("error", {}).get("code", "done")
        assert asked(served, "nonsense", "get_thread", "id-nobody", **of)[0] == 401
        _, audit = asked(served, auditor, "get_audit", "id-audit", limit=200)
        rows = {row["request_id"]: row for row in audit["entries"]}
        refused = {name for name, (status, *_) in wanted.items() if status != 200}
        until(lambda: len(served.log("request.refused")) > len(refused), what="all is logged")
        logged = {line["request_id"]: line for line in served.log("request.refused")}
        assert logged.keys() == refused | {"id-nobody"}
        assert all(line["rule"] and line["code"] for line in logged.values())
        assert rows.keys() == {"id-create", *wanted}, "every mutation and every refusal; who is nobody has no workspace"
        for name in wanted:
            assert rows[name]["outcome"] == told[name]
            assert rows[name]["rule"] == (logged[name]["rule"] if name in refused else "")
            assert rows[name]["actor"] == (
                "stranger" if name == "id-forbidden" else "ada" if name == "id-auditor" else "executioner"
            )
        well = {"id-create", "id-post", "id-post-2", "id-block"}
        until(
            lambda: well <= {line["request_id"] for line in served.log("request.answered")}, what="what went well is logged"
        )
        answered = served.log("request.answered")
        assert all(line["request_id"] for line in answered)


@pytest.mark.parametrize("name", OF_THREADS)
def test_each_command_answers_programs_too(name: str) -> None:
    command: click.Command | None = program
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), part)
    assert command is not None
    assert "--json" in {text for option in command.params for text in option.opts}
