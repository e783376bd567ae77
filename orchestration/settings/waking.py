"""When and how agents are woken."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestration.settings.fields import STEPS, Command, Duration, PositiveDuration, Section, WorkingDir


class Wake(Section):
    """When and how dormant agents are woken: `python -m orchestration.supervise`, `kloros-supervisor.service`. See
    [waking](waking.md)."""

    interval: Annotated[PositiveDuration, Field(examples=["5s"])] = timedelta(seconds=5)
    """Time between two passes of the supervisor. A message is acted on at once, by a hint; this is how late it may be when
    the hint was lost."""
    lease: Annotated[PositiveDuration, Field(ge=timedelta(seconds=5), examples=["30s"])] = timedelta(seconds=30)
    """How long a supervisor's claim on a trigger holds unless it is renewed; after it another one takes the trigger up. Six
    passes, so that a slow one loses nothing."""
    cooldown: Annotated[Duration, Field(examples=["5s"])] = timedelta(seconds=5)
    """Time after a trigger has ended in which none is made for the same thread and agent; what is posted meanwhile waits for
    it, and makes one trigger. A pass long."""
    attempts_per_minute: Annotated[int, Field(ge=1, examples=[10])] = 10
    """Attempts to wake one agent for one thread within any minute; more wait. One trigger makes at most eight by default,
    so that only triggers on the heels of each other meet it."""
    fresh_within: Annotated[PositiveDuration, Field(examples=["90s"])] = timedelta(seconds=90)
    """Age up to which a session's heartbeat says that it lives. Three beats of half a minute: one that is late makes nobody
    dead."""
    ack_within: Annotated[PositiveDuration, Field(examples=["8s"])] = timedelta(seconds=8)
    """Time in which an agent acknowledges what was put into its terminal: it reads, or says that it is active. Keys that
    were sent are no delivery."""
    retries: Annotated[int, Field(ge=0, examples=[2])] = 2
    """How often a terminal that did not acknowledge is given as long again before another way is taken. Nothing is put in
    twice: a prompt that still stands in the input line is sent off, nothing more."""
    typing_within: Annotated[Duration, Field(examples=["20s"])] = timedelta(seconds=20)
    """Time after a person's last key in a terminal during which nothing is put in; 0: nobody is waited for."""
    defer_every: Annotated[PositiveDuration, Field(examples=["5s"])] = timedelta(seconds=5)
    """How soon a trigger that waits for a person who types is looked at again."""
    defer_at_most: Annotated[Duration, Field(examples=["60s"])] = timedelta(seconds=60)
    """Longest such wait, from the first; then another way is taken, and a collision is told. A minute is a long answer to
    type, and short for who waits."""
    resumes: Annotated[int, Field(ge=0, examples=[2])] = 2
    """Turns of an earlier session that one trigger may try before it spawns a new one; 0: always a new one."""
    resume_within: Annotated[PositiveDuration, Field(examples=["12h"])] = timedelta(hours=12)
    """Silence of a session after which it is not resumed: a new one, with the thread's summary, costs less than a long
    history that is out of date."""
    failures: Annotated[int, Field(ge=1, examples=[3])] = 3
    """Failures of an agent's runtime within `failures_within`, in all its threads, from which no session of it is resumed
    but a new one spawned: what fails again and again may be the session."""
    failures_within: Annotated[PositiveDuration, Field(examples=["15min"])] = timedelta(minutes=15)
    """Time in which those failures count."""
    spawns: Annotated[int, Field(ge=1, examples=[3])] = 3
    """New sessions that one trigger may try; after the last it is a dead letter, which the thread is told."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = STEPS
    """The brake of crash loops: waits after the first, second, … failure beyond `failures` before a session is spawned, and
    before the same unread messages wake an agent again that was woken and has not read them; the last one repeats."""
    unheeded: Annotated[int, Field(ge=1, examples=[5])] = 5
    """Attempts at the same unread messages after which no more are made: an agent that is woken and never reads costs money
    each time. The last trigger is a dead letter."""
    orphaned_after: Annotated[PositiveDuration, Field(examples=["15min"])] = timedelta(minutes=15)
    """Time after which a trigger that no host takes up, since none has a profile for its agent, is a dead letter. Longer
    than a reboot."""


class Agent(Section):
    """An agent that this host may wake: what runs it. Agents without a table here are left to other hosts, and to
    themselves."""

    runtime: Annotated[Literal["codex", "claude", "command", "tmux"], Field(examples=["codex"])] = "codex"
    """What runs its turns: the Codex CLI, Claude Code, any program by `resume` and `spawn`, or nothing: `tmux` is woken in
    its terminal alone. Each kind can also live in a terminal, by `klorosctl agent start`."""
    workspace: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._@:-]{0,127})?$", examples=["kloros"])] = ""
    """Workspace whose agent it is; empty: `[bridge] workspace`."""
    program: Annotated[Command, Field(examples=[["codex"]])] = ()
    """The runtime's program, with arguments that stand before ours; empty: its usual name, in PATH."""
    arguments: Annotated[Command, Field(examples=[["-c", 'sandbox_mode="workspace-write"']])] = ()
    """Further arguments of each turn, before session and prompt; for `codex` and `claude`. They have to be ones that the
    runtime takes with a resumed session too: `codex exec resume` knows `-c`, but no `-s` and no `-C`."""
    start: Annotated[Command, Field(examples=[["codex", "--no-alt-screen"]])] = ()
    """What `klorosctl agent start` runs in the terminal; empty: `program`. For `command` and `tmux` it has to be given there
    or here."""
    resume: Annotated[Command, Field(examples=[["/opt/app/agent", "--session", "{session}"]])] = ()
    """For `command`: one turn of the session `{session}`, run without a shell. An element that is `{prompt}` becomes the
    prompt; without one it comes on standard input. Empty: sessions are not resumed."""
    spawn: Annotated[Command, Field(examples=[["/opt/app/agent", "{prompt}"]])] = ()
    """For `command`: the first turn of a new session, likewise."""
    session_field: Annotated[str, Field(min_length=1, examples=["session_id"])] = "session_id"
    """For `command`: the field of a JSON line of its output that names the session; a turn without one is no session to
    resume."""
    working_dir: WorkingDir = ""
    """Folder in which its turns and its terminal run; empty: a turn's cycle's own, for a terminal the caller's."""
    variables: Annotated[dict[str, str], Field(examples=['CODEX_HOME = "/var/lib/agents/reviewer"'])] = {}
    """Further environment of its turns and its terminal. Keep secrets out: `klorosctl config` shows them."""
    timeout: Annotated[PositiveDuration, Field(examples=["30min"])] = timedelta(minutes=30)
    """Longest turn; after it the whole process tree is ended, and the attempt has failed. As long as a D-REAM cycle."""

    @model_validator(mode="after")
    def _has_a_way(self) -> Agent:
        if self.runtime == "command" and not self.spawn:
            raise ValueError("runtime command needs spawn, the command of a first turn")
        if self.runtime != "command" and (self.resume or self.spawn):
            raise ValueError(
                f"resume and spawn belong to runtime command; {self.runtime} knows its own: use program, arguments"
            )
        if self.resume and not any("{session}" in part for part in self.resume):
            raise ValueError("resume does not say which session: one element has to contain {session}")
        return self
