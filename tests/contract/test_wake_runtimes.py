"""What every runtime that agents live in must do, whatever it is, and what a terminal must do besides."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.bridge.state import Session
from orchestration.bridge.wake.places import Place, Places
from orchestration.bridge.wake.port import Liveness, Runtime, WakeFailed
from orchestration.bridge.wake.runtimes import OfAgent, turns_of
from orchestration.bridge.wake.runtimes.tmux import Tmux, clean
from orchestration.bridge.wake.state import Code
from orchestration.bridge.wire import ManagementMode, SessionStatus
from orchestration.host import process
from orchestration.settings import Agent
from tests.contract.terminals import Terminals, session_of
from tests.waiting import until

pytestmark = pytest.mark.anyio

SESSION = "01a1fdd8-83fa-73d1-a193-1551c93914f5"
HOSTILE = "'; touch /tmp/owned; echo $(id) `id` \"\\\n--last {session} %s"
NO_SESSIONS = ("--last", "-", "a b", "x\ny", "$(id)", "../..", "{prompt}", "x" * 300)


@dataclass(frozen=True)
class Kind:
    """A runtime, with what a turn of it prints."""

    profile: Agent | None
    well: tuple[str, ...] = ()
    badly: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    """Of a turn that is not at its end."""


KINDS = {
    "codex": Kind(
        Agent(runtime="codex", program=("/opt/codex",), arguments=("-c", "x=1"), variables={"CODEX_HOME": "/c"}),
        well=(
            json.dumps({"type": "thread.started", "thread_id": SESSION}),
            "2026-11-21 WARN something",
            json.dumps({"type": "error", "message": "Reconnecting... 1/5"}),
            json.dumps({"type": "turn.completed", "usage": {}}),
        ),
        badly=(
            json.dumps({"type": "thread.started", "thread_id": SESSION}),
            json.dumps({"type": "turn.failed", "error": {"message": "no\nmodel"}}),
        ),
        unknown=(f"Error: thread/resume failed: no rollout found for thread id {SESSION} (code -32600)",),
        waits=(json.dumps({"type": "thread.started", "thread_id": SESSION}), '{"type": "item.comp'),
    ),
    "claude": Kind(
        Agent(runtime="claude", program=("/opt/claude",), arguments=("--model", "x")),
        well=(
            json.dumps({"type": "system", "subtype": "init", "session_id": SESSION}),
            json.dumps({"type": "result", "subtype": "success", "is_error": False, "session_id": SESSION}),
        ),
        badly=(
            json.dumps({"type": "system", "subtype": "init", "session_id": SESSION}),
            json.dumps({"type": "result", "subtype": "error_during_execution", "is_error": True, "session_id": SESSION}),
        ),
        unknown=(f"No conversation found with session ID: {SESSION}",),
        waits=(json.dumps({"type": "system", "subtype": "init", "session_id": SESSION}),),
    ),
    "command": Kind(
        Agent(
            runtime="command",
            spawn=("/opt/agent", "{prompt}"),
            resume=("/opt/agent", "--session={session}", "{prompt}"),
            session_field="sid",
        ),
        well=("hello", json.dumps({"sid": SESSION})),
        waits=(json.dumps({"sid": SESSION}),),
    ),
    "tmux": Kind(None),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def runtime(kind: Kind, tmp_path: Path) -> Runtime:
    terminal = Tmux(Places(str(tmp_path)))
    return terminal if kind.profile is None else OfAgent(kind.profile, terminal)


def somewhere(session_id: str = SESSION, mode: ManagementMode = ManagementMode.MANAGED) -> Session:
    return Session(
        workspace_id="kloros",
        agent_id="reviewer",
        session_id=session_id,
        runtime="codex",
        management_mode=mode,
        resumable=True,
        status=SessionStatus.IDLE,
        heartbeat_at=datetime.now(UTC),
    )


async def test_a_session_that_is_not_here_is_absent_and_nobody_writes_to_it(runtime: Runtime) -> None:
    assert runtime.name in KINDS
    for mode in ManagementMode:
        session = somewhere(mode=mode)
        assert (await runtime.probe(session)).liveness is Liveness.ABSENT
        for refused in (runtime.deliver(session, "wake up"), runtime.press(session, "trg_1")):
            with pytest.raises(WakeFailed) as failed:
                await refused
            assert failed.value.code in (Code.RUNTIME_OFFLINE, Code.RUNTIME_UNMANAGED)


async def test_turns_without_a_terminal_refuse_to_be_written_to(kind: Kind) -> None:
    if kind.profile is None:
        assert turns_of(Agent(runtime="tmux")) is None
        return
    turns = turns_of(kind.profile)
    assert turns is not None
    assert (await turns.probe(somewhere())).liveness is Liveness.ABSENT
    for refused in (turns.deliver(somewhere(), "wake up"), turns.press(somewhere(), "trg_1")):
        with pytest.raises(WakeFailed, match="RUNTIME_UNMANAGED"):
            await refused


@pytest.mark.parametrize("session", ["", SESSION])
def test_a_turn_holds_prompt_and_session_as_they_are_and_no_shell(kind: Kind, runtime: Runtime, session: str) -> None:
    if kind.profile is None:
        with pytest.raises(WakeFailed, match="RUNTIME_UNMANAGED"):
            runtime.turn(HOSTILE, session_id=session)
        return
    turn = runtime.turn(HOSTILE, session_id=session)
    assert turn.prompt == HOSTILE
    assert turn.session_id == session
    assert not [word for word in turn.command if "touch" in word]
    assert sum(session in word for word in turn.command) == (1 if session else len(turn.command))
    assert turn.command[0].startswith("/opt/")
    assert turn.command.count("{prompt}") == (kind.profile.runtime == "command")
    assert dict(turn.variables) == kind.profile.variables
    assert all(word in turn.command for word in kind.profile.arguments)


@pytest.mark.parametrize("session", NO_SESSIONS)
def test_what_could_be_an_option_is_no_session(kind: Kind, runtime: Runtime, session: str) -> None:
    with pytest.raises(WakeFailed) as failed:
        runtime.turn("go on", session_id=session)
    assert failed.value.code is (Code.RUNTIME_UNMANAGED if kind.profile is None else Code.RUNTIME_SESSION_MISMATCH)


def test_what_a_turn_prints_names_its_session_and_what_went_wrong(kind: Kind, runtime: Runtime) -> None:
    named = SESSION if kind.well else ""
    told = runtime.told(kind.well)
    assert (told.session_id, told.failed, told.code) == (named, "", None)
    assert runtime.told(kind.waits).session_id == named
    assert runtime.told(()).session_id == ""
    if kind.badly:
        told = runtime.told(kind.badly)
        assert told.session_id == SESSION
        assert told.failed
        assert "\n" not in told.failed
    if kind.unknown:
        told = runtime.told(kind.unknown)
        assert (told.session_id, told.code) == ("", Code.RUNTIME_NOT_FOUND)
        assert "\n" not in told.failed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "error", "message", "x"]), inner),
    max_leaves=8,
)
EVENTS = st.dictionaries(
    st.sampled_from(["type", "thread_id", "session_id", "sid", "error", "message", "result", "is_error", "subtype"]),
    st.sampled_from(["thread.started", "turn.failed", "error", "result", "turn.completed", "--last", SESSION]) | JSON,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(EVENTS.map(json.dumps) | st.text(max_size=40), max_size=6))
def test_whatever_a_turn_prints_is_read(runtime: Runtime, lines: list[str]) -> None:
    told = runtime.told(lines)
    assert told.session_id == "" or not told.session_id.startswith("-")
    assert "\n" not in told.failed
    assert len(told.failed) <= 300


@pytest.mark.parametrize("name", ["codex", "claude"])
def test_a_program_gets_what_the_turn_says(name: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho --\ncat\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    profile = KINDS[name].profile
    assert profile is not None
    turns = turns_of(profile.model_copy(update={"program": (str(program),)}))
    assert turns is not None
    turn = turns.turn(HOSTILE, session_id=SESSION)
    (tmp_path / "prompt").write_text(turn.prompt)
    process.run(
        turn.command,
        env={"PATH": os.environ["PATH"]},
        cwd=str(tmp_path),
        output=str(tmp_path / "output"),
        output_limit=10_000,
        timeout=timedelta(seconds=60),
        standard_input=str(tmp_path / "prompt"),
    )
    given_words, _, given_prompt = (tmp_path / "output").read_text().partition("--\n")
    assert tuple(given_words.splitlines()) == turn.command[1:]
    assert given_prompt == HOSTILE
    assert SESSION in given_words.splitlines()


# --- terminals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    made = Terminals(tmp_path_factory.mktemp("t"))
    yield made
    made.end()


@pytest.fixture
def place(host: Terminals) -> Place:
    return host.listen()


async def test_a_living_terminal_is_live_and_says_what_runs_there(host: Terminals, place: Place) -> None:
    probe = await host.tmux.probe(session_of(place))
    assert (probe.liveness, probe.typed_at) == (Liveness.LIVE, None), probe
    assert probe.command.startswith("python")
    assert host.tmux.is_here(session_of(place))
    assert not host.tmux.is_here(session_of(place, mode=ManagementMode.UNMANAGED))
    assert not host.tmux.is_here(replace(session_of(place), agent_id="executioner"))
    assert host.heard() == b"", "looking presses no key"


async def test_a_prompt_is_one_bracketed_paste_and_an_enter_of_its_own(host: Terminals, place: Place) -> None:
    prompt = "Zwei Nachrichten: `id` $(id) #{pane_id}\x1b[201~\x03\x1b:q!\r\nzweite\tZeile \x9b31m\u202e; \\ 'x' größe 🜁"
    await host.tmux.deliver(session_of(place), prompt)
    pasted = "Zwei Nachrichten: `id` $(id) #{pane_id}[201~:q!\rzweite Zeile 31m; \\ 'x' größe 🜁"
    until(lambda: host.heard().endswith(b"\r"), "Enter")
    assert host.heard() == b"\x1b[200~" + pasted.encode() + b"\x1b[201~\r"
    assert host.ask("list-buffers") == ""


async def test_a_prompt_of_eight_kibibytes_goes_in_whole_and_a_longer_one_not_at_all(host: Terminals, place: Place) -> None:
    await host.tmux.deliver(session_of(place), "x" * 8192)
    until(lambda: host.heard().endswith(b"\r"), "Enter")
    assert host.heard() == b"\x1b[200~" + b"x" * 8192 + b"\x1b[201~\r"
    for refused in ("x" * 8193, "", "\x1b\x03"):
        with pytest.raises(WakeFailed, match="SEND_KEYS_ERROR"):
            await host.tmux.deliver(session_of(place), refused)
    assert len(host.heard()) == 8192 + 13


async def test_a_person_who_types_is_seen_and_our_own_paste_is_nobody(host: Terminals, place: Place) -> None:
    with host.attached(place) as keyboard:
        os.write(keyboard, b"k")
        until(lambda: host.heard() == b"k", "the key is heard")
        typed = (await host.tmux.probe(session_of(place))).typed_at
        assert typed is not None
        assert abs(datetime.now(UTC) - typed) < timedelta(seconds=10)
        until(lambda: datetime.now(UTC) - typed > timedelta(seconds=2), "two seconds without a key")
        await host.tmux.deliver(session_of(place), "not a person")
        until(lambda: host.heard().endswith(b"\r"), "Enter")
        assert (await host.tmux.probe(session_of(place))).typed_at == typed
        os.write(keyboard, b"l")
        until(lambda: host.heard().endswith(b"l"), "the key is heard")
        later = (await host.tmux.probe(session_of(place))).typed_at
        assert later is not None
        assert later > typed
    until(lambda: not host.ask("list-clients", "-t", place.tmux_session), "the person has gone")
    assert (await host.tmux.probe(session_of(place))).typed_at is None


async def test_who_may_only_look_does_not_type(host: Terminals, place: Place) -> None:
    with host.attached(place, "-r") as keyboard:
        os.write(keyboard, b"k")
        assert (await host.tmux.probe(session_of(place))).typed_at is None


async def test_a_prompt_arrives_although_somebody_has_scrolled_back(host: Terminals, place: Place) -> None:
    host.ask("copy-mode", "-t", place.pane)
    await host.tmux.deliver(session_of(place), "wake up")
    until(lambda: host.heard().endswith(b"\r"), "Enter")
    assert host.heard() == b"\x1b[200~wake up\x1b[201~\r"


async def test_what_stands_in_the_input_line_is_sent_off_and_nothing_else(host: Terminals, place: Place) -> None:
    await host.tmux.press(session_of(place), "trg_17")
    host.ask("send-keys", "-l", "-t", place.pane, "[KLoROS trg_17] you are wanted")
    until(lambda: "wanted" in host.shown(place), "it is shown")
    await host.tmux.press(session_of(place), "trg_18")
    assert host.heard() == b"[KLoROS trg_17] you are wanted"
    await host.tmux.press(session_of(place), "trg_17")
    until(lambda: host.heard().endswith(b"\r"), "Enter")


async def refused(host: Terminals, place: Place, liveness: Liveness, code: Code) -> None:
    before = host.heard()
    probe = await host.tmux.probe(session_of(place))
    assert probe.liveness is liveness, probe
    assert probe.detail
    for attempt in (host.tmux.deliver(session_of(place), "wake up"), host.tmux.press(session_of(place), "trg_1")):
        with pytest.raises(WakeFailed) as failed:
            await attempt
        assert failed.value.code is code
    assert host.heard() == before


async def test_a_pane_that_became_something_else_is_refused(host: Terminals, place: Place) -> None:
    for other in (
        replace(place, keeper_started=place.keeper_started + 1),  # the pid was given out again
        replace(place, keeper=place.program),  # the pane was
        replace(place, boot_id="0" * 36),
        replace(place, tmux_session="$99"),
        replace(place, program=place.keeper, program_started=place.keeper_started),  # not who is in the foreground
    ):
        host.places.note(other)
        await refused(host, other, Liveness.FOREIGN, Code.RUNTIME_SESSION_MISMATCH)
    host.places.note(replace(place, program_started=place.program_started + 1))
    await refused(host, place, Liveness.DEAD, Code.PANE_DEAD)
    host.places.note(replace(place, pane="%99"))
    await refused(host, place, Liveness.ABSENT, Code.RUNTIME_OFFLINE)
    host.places.note(place)
    assert (await host.tmux.probe(session_of(place))).liveness is Liveness.LIVE


async def test_another_program_in_the_foreground_is_not_the_agent(host: Terminals) -> None:
    place = host.start("bash", "--norc", "-i")
    until(lambda: "$" in host.shown(place) or "#" in host.shown(place), "the shell is ready")
    assert (await host.tmux.probe(session_of(place))).liveness is Liveness.LIVE
    host.ask("send-keys", "-t", place.pane, "sleep 300", "Enter")
    until(lambda: "sleep" in host.ask("display-message", "-p", "-t", place.pane, "#{pane_current_command}"), "it runs")
    probe = await host.tmux.probe(session_of(place))
    assert probe.command == "sleep"
    await refused(host, place, Liveness.FOREIGN, Code.RUNTIME_SESSION_MISMATCH)


async def test_a_terminal_whose_keeper_was_killed_is_dead_or_gone(host: Terminals, place: Place) -> None:
    host.ask("set-option", "-g", "remain-on-exit", "on")
    os.kill(place.keeper, signal.SIGKILL)
    until(lambda: not place.program_lives, "the kernel ends the program")
    until(lambda: host.ask("display-message", "-p", "-t", place.pane, "#{pane_dead}").strip() == "1", "the pane is dead")
    await refused(host, place, Liveness.DEAD, Code.PANE_DEAD)
    host.ask("kill-server")
    until(lambda: not host.tmux._places.socket or not _answers(host), "the server is gone")
    await refused(host, place, Liveness.ABSENT, Code.RUNTIME_OFFLINE)


def _answers(host: Terminals) -> bool:
    try:
        host.ask("list-sessions")
    except AssertionError:
        return False
    return True


async def test_without_tmux_it_says_so(host: Terminals, place: Place) -> None:
    with pytest.raises(WakeFailed, match="RUNTIME_NOT_FOUND"):
        await Tmux(host.places, "/no/such/tmux").probe(session_of(place))


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left_of_a_prompt(text: str) -> None:
    cleaned = clean(text)
    assert all(one == "\n" or one.isprintable() or not one.isascii() for one in cleaned)
    assert not set(cleaned) & {"\x1b", "\x9b", "\r", "\t", "\x7f", "\x00"}
    assert clean(cleaned) == cleaned


def test_a_place_that_can_not_be_read_is_none(tmp_path: Path) -> None:
    places = Places(str(tmp_path))
    assert list(places.all()) == []
    (tmp_path / "agents").mkdir()
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"agent": "c"}'), ("d", "null")):
        (tmp_path / "agents" / f"{name}.json").write_text(text)
    assert list(places.all()) == []
