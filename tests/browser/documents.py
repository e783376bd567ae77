"""Documents for the pages to show: an ordinary day, one full of trouble, and a hostile hand in each text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from orchestration.baseline.version import Change, Kind, Provenance, following
from orchestration.cycles.cycle import Cause as Asked
from orchestration.cycles.cycle import CycleState, JobName
from orchestration.pulse.dashboard import pages
from orchestration.pulse.dashboard.place import Place
from orchestration.pulse.health import Cause, Condition, Judgement, Mode, Verdict
from orchestration.pulse.loop_health import (
    UNDECIDED,
    Advice,
    AwaitedReader,
    Beat,
    CycleLine,
    Failure,
    Heartbeat,
    Held,
    LoopHealth,
    Parameters,
    Parked,
    ParticipantLine,
    PhaseLine,
    Queue,
    Stretch,
    Summary,
    ThreadLine,
    Threads,
    TickLine,
    Tried,
    TriggerLine,
    Waiting,
    Wakes,
    WindowLine,
)
from orchestration.pulse.scope import HostLine, Running, Scope
from orchestration.pulse.views import (
    Answer,
    Artifact,
    CalendarDay,
    CalendarView,
    CycleDetail,
    CyclePage,
    CycleQuery,
    IntentRow,
    IntentsView,
    Log,
    Point,
    PromotionRow,
    PromotionsView,
    Series,
    TickDetail,
)
from orchestration.scope.lease import Lease

NOW = datetime(2026, 11, 21, 4, 47, 12, tzinfo=UTC)
ZONE = "America/New_York"
TRACEBACK = """Traceback (most recent call last):
  File "/opt/kloros/src/phase/run_all_domains.py", line 212, in <module>
    main()
  File "/opt/kloros/src/phase/run_all_domains.py", line 187, in main
    report = domain.measure(budget=remaining)
  File "/opt/kloros/src/phase/domains/conversation.py", line 88, in measure
    raise RuntimeError(f"the model server at {self.url} closed the connection after {waited:.1f} s")
RuntimeError: the model server at http://127.0.0.1:8080 closed the connection after 61.3 s
"""


def minute(ago: int) -> datetime:
    return NOW.replace(second=0) - timedelta(minutes=ago)


def cycle(
    number: int,
    ago: float,
    seconds: float | None = 412.5,
    *,
    job: JobName | str = JobName.DREAM,
    state: CycleState = CycleState.SUCCEEDED,
    cause: Asked | None = Asked.PROMOTIONS,
    reason: str = "exit 0",
    phase_date: date | None = None,
    series: dict[str, float] | None = None,
) -> CycleLine:
    """Return a cycle that began `ago` minutes before NOW."""
    began = NOW - timedelta(minutes=ago)
    given = {"joy": 0.5 + number % 7 / 20, "rage": 0.1 + number % 5 / 50, "entries": 300.0 + number * 3 % 41}
    return CycleLine(
        cycle=number,
        job=job,
        state=state,
        cause=cause,
        phase_date=phase_date,
        queued_at=began - timedelta(seconds=1),
        started_at=None if state is CycleState.QUEUED else began,
        recorded_at=None if seconds is None else began + timedelta(seconds=seconds),
        seconds=seconds,
        timeout_seconds=7200.0 if job is JobName.PHASE else 1800.0,
        reason=reason,
        series=given if series is None else series,
        damaged_lines=0,
    )


def cycles(number: int = 40, *, newest: int = 1288, trouble: bool = False) -> tuple[CycleLine, ...]:
    """Return cycles of the last days, newest first."""
    bad = {3: CycleState.FAILED, 9: CycleState.TIMED_OUT, 17: CycleState.LOST} if trouble else {}
    lines = []
    for one in range(number):
        state = bad.get(one, CycleState.SUCCEEDED)
        reason = {
            CycleState.FAILED: "exit 1",
            CycleState.TIMED_OUT: "no end within 30 min; its process tree was killed",
            CycleState.LOST: "its runner died; how far it came is unknown",
        }.get(state, "exit 0")
        if one % 25 == 12:
            lines.append(
                cycle(
                    newest - one,
                    20 + one * 52,
                    5312.0,
                    job=JobName.PHASE,
                    cause=Asked.WINDOW,
                    phase_date=date(2026, 11, 20),
                    reason=reason,
                )
            )
        else:
            lines.append(cycle(newest - one, 20 + one * 52, 300.0 + one * 37 % 900, state=state, reason=reason))
    return tuple(lines)


def dates(days: int = 30, *, missed: int = 3) -> tuple[PhaseLine, ...]:
    found = []
    for ago in range(1, days):
        day = date(2026, 11, 20) - timedelta(days=ago - 1)
        opens = datetime(day.year, day.month, day.day, 8, tzinfo=UTC)
        ran = ago != missed
        found.append(
            PhaseLine(
                date=day,
                result="succeeded" if ran and ago != 11 else "failed" if ran else "skipped",
                reason="window" if ran else "host_down",
                evidence="" if ran else "no tick between 03:00 and 07:00 EST",
                cycle=1276 - ago * 25 if ran else None,
                opens=opens,
                closes=opens + timedelta(hours=4),
            )
        )
    return tuple(found)


def ordinary() -> LoopHealth:
    """Return an ordinary day: all is well, one cycle runs."""
    starts = [52 * one + 20 for one in range(27)]
    return health(
        judgement=Judgement(Verdict.OK, (), ()),
        heartbeat=_heartbeat(dict.fromkeys(starts, Beat.DREAM_CYCLE) | {630: Beat.PHASE}, {}),
        active=(cycle(1289, 12.4, None, state=CycleState.RUNNING),),
        failures=(),
    )


def trouble() -> LoopHealth:
    """Return a day of trouble: causes of every weight, gaps of every kind, failures, parked promotions."""
    causes = (
        Cause(Condition.PHASE_MISSED, Verdict.FAILING, minute(900), MISSED, "klorosctl history --dates"),
        Cause(Condition.CYCLE_OVERDUE, Verdict.DEGRADED, minute(4), OVERDUE, "klorosctl status"),
        Cause(
            Condition.PROMOTIONS_PARKED,
            Verdict.DEGRADED,
            minute(2000),
            "2 parked after too many failed cycles",
            PARKED_ADVICE,
        ),
    )
    events = {52 * one + 20: Beat.DREAM_CYCLE for one in range(27)} | {630: Beat.PHASE, 411: Beat.FAILED, 412: Beat.FAILED}
    gaps = {
        (1100, 95): (Beat.HOST_DOWN, "the host was started at 10:41:08 UTC"),
        (700, 12): (Beat.LOCK_HELD, "12 ticks found the lock held"),
        (300, 45): (Beat.DISABLED, "12 ticks said so: mode disabled"),
        (150, 7): (Beat.UNKNOWN, "the host was up and no tick was recorded"),
    }
    running = cycle(1289, 34, None, state=CycleState.RUNNING)
    lines = cycles(60, trouble=True)
    bad = [line for line in lines if line.state is not CycleState.SUCCEEDED]
    return health(
        judgement=Judgement(Verdict.FAILING, causes, ()),
        heartbeat=_heartbeat(events, gaps),
        active=(running, cycle(1290, 1, None, state=CycleState.QUEUED, cause=Asked.INTENT)),
        cycles=lines,
        failures=tuple(Failure(line=line, tail=TRACEBACK if number != 1 else "") for number, line in enumerate(bad)),
        parked=(
            Parked(
                stem="candidate-0417", failures=3, reason="failed in 3 cycles, the last 1285: exit 1", since=minute(2000)
            ),
            Parked(
                stem="candidate-0420", failures=3, reason="failed in 3 cycles, the last 1285: exit 1", since=minute(1990)
            ),
        ),
        backoffs=(Waiting(job="dream", failures=2, until=minute(-9)),),
        queues=(
            Queue(name="promotions", count=14, oldest=minute(2000)),
            Queue(name="intents", count=3, oldest=minute(7)),
            Queue(name="cycles", count=1, oldest=minute(1)),
            Queue(name="federation", count=0, oldest=None),
            Queue(name="escrow", count=12, oldest=minute(2900)),
        ),
        escrow=tuple(held(number) for number in range(12)),
        baseline=baseline(),
        advice=Advice(cycle=1287, phase_type="DEEP", rationale="DEEP scores 1.204: the best so far."),
        threads=threads(),
        wakes=wakes(),
        scope=scope(),
        damaged_lines=4,
    )


MISSED = "2026-11-18 has no PHASE: host_down: no tick between 03:00 and 07:00 EST"
OVERDUE = "cycle 1289 runs 4 min past its deadline"
PARKED_ADVICE = "klorosctl promotions list"


def health(**given: object) -> LoopHealth:
    """Return a document with these fields and ordinary others."""
    opens = datetime(2026, 11, 21, 8, tzinfo=UTC)
    fields: dict[str, object] = {
        "generated_at": NOW,
        "host": "alpha",
        "version": "0.1.0",
        "state_dir": "/var/lib/kloros",
        "judgement": Judgement(Verdict.OK, (), ()),
        "mode": Mode.ENABLED,
        "last_tick": tick(),
        "active": (),
        "time_zone": ZONE,
        "open_window": None,
        "next_window": WindowLine(date=date(2026, 11, 21), opens=opens, closes=opens + timedelta(hours=4)),
        "heartbeat": _heartbeat({}, {}),
        "cycles": cycles(),
        "failures": (),
        "summary": SUMMARY,
        "phase_dates": dates(),
        "queues": (
            Queue(name="promotions", count=0, oldest=None),
            Queue(name="intents", count=0, oldest=None),
            Queue(name="cycles", count=0, oldest=None),
            Queue(name="federation", count=0, oldest=None),
            Queue(name="escrow", count=0, oldest=None),
        ),
        "parked": (),
        "backoffs": (),
        "escrow": (),
        "baseline": None,
        "advice": None,
        "threads": None,
        "wakes": None,
        "damaged_lines": 0,
        **given,
    }
    return LoopHealth(**fields)  # type: ignore[arg-type]  # one dict of fields of many types


def threads(text: str = "reviewer", long: str = "Retry patch", *, more: int = 19) -> Threads:
    """Return threads as the bridge told; the texts stand wherever agents may write."""
    seat = ParticipantLine(agent_id=text, last_read_seq=3, unread=4, heartbeat_at=minute(9), session="idle")
    seats = (seat, replace(seat, agent_id="executioner", heartbeat_at=None, session=""))
    line = ThreadLine(
        thread_id="thr_019c0a7d1d2f6b0e4f6a8f8f4c2d1a07",
        workspace_id="kloros",
        title=long,
        status="blocked",
        reason=f"escalated: {text}",
        last_seq=7,
        updated_at=minute(11),
        participants=seats * 4,
    )
    waits = AwaitedReader(
        thread_id=line.thread_id, status="active", agent_id=text, sender=text, since=minute(70), traceparent=""
    )
    return Threads(
        told_at=minute(0),
        serving=True,
        totals={"active": 3, "blocked": 1, "resolved": 0, "closed": 12},
        unread={"active": 14, "blocked": 4, "resolved": 0, "closed": 0},
        escalations={"guard": 2, "operator": 1, "agent": 0},
        behind=9,
        waits=(waits,) * 7,
        lines=(line, *(replace(line, status="active", reason=""),) * more),
    )


def scope(text: str = "lab-1", *, led: bool = True, more: int = 19) -> Scope:
    """Return a scope as its hosts told; the text stands wherever a host's name does."""
    lease = Lease(
        now=NOW, holder=text, epoch=7, since=minute(190), expires_at=NOW + timedelta(seconds=40 if led else -400),
        pinned_to="" if led else text, yielded_by="lab-3", yielded_until=NOW + timedelta(seconds=90),
    )  # fmt: skip
    line = HostLine(text, "leader", "0.1.0", minute(0), 0, 0.002)
    others = (
        line._replace(host="lab-2", last_tick_at=minute(60), clock_offset=-3600.25),
        line._replace(host="lab-3", role="standby", clock_offset=3600.5),
        line._replace(host="lab-4", role="standby", last_tick_exit=2, last_tick_at=minute(6000)),
        line._replace(host="lab-5", role="standby", last_tick_exit=None, last_tick_at=None, clock_offset=None),
        *(line._replace(host=f"lab-{number}", role="standby") for number in range(6, 6 + more)),
    )
    here, there, nowhere = ("local", "running", 1), ("slurm", "queued", 2), ("local", "queued", 3)
    running = (Running(text, *here), Running("lab-3", *there), Running("", *nowhere))
    return Scope(
        name="night-lab", here=text, lease=lease, renewed_at=minute(0), silent_after=timedelta(minutes=15),
        hosts=(line, *others), running=running, known=1 + len(others),
    )  # fmt: skip


def wakes(text: str = "reviewer", *, more: int = 19) -> Wakes:
    """Return triggers as a supervisor told; the text stands wherever agents may write."""
    line = TriggerLine(
        trigger_id="trg_019c0a7d1d2f6b0e4f6a8f8f4c2d1a07",
        thread_id="thr_019c0a7d1d2f6b0e4f6a8f8f4c2d1a07",
        agent_id=text,
        status="dead_lettered",
        outcome="dead_lettered",
        code="RUNTIME_UNMANAGED",
        attempts=5,
        deferrals=2,
        created_at=minute(30),
        ended_at=minute(20),
    )
    stages = ("made", "attempted", "triggered", "fallback_resumed", "fallback_spawned", "already_active", "dead_lettered")
    return Wakes(
        told_at=minute(0),
        serving=True,
        holder="host 42",
        funnel={**dict.fromkeys(stages, 3), "cancelled": 0, "open": 1},
        open=1,
        lines=(line,) * (1 + more),
    )


def held(number: int, text: str = "", *, changes: int = 2) -> Held:
    """Return a change that waits for a person; with `text`, it stands wherever others may write."""
    return Held(
        entry=text or f"{number:012x}",
        subject=text or f"candidate-04{number:02}",
        changes=(
            Change(name=text or "learning_rate", before=0.01, after=0.05),
            *(Change(name=f"parameter_{one}", before=None, after=one) for one in range(1, changes)),
        ),
        rule=text or "learning_rate 0.01 → 0.05, +400 %: {change_over = 0.5}",
        emitted_by=text or ("ada" if number % 2 else ""),
        cycle=1285,
        since=minute(2900 - number),
        expires=minute(-7000) if number else None,
    )


def baseline(text: str = "", *, parameters: int = 12) -> Parameters:
    """Return the version in force, the one before having been rolled back."""
    made = Provenance(at=minute(300), actor=text or "kloros", kind=Kind.ROLLBACK, reason=text or "to version 41", cycle=1270)
    values = {f"{text}parameter_{number:03}": number / 3 for number in range(parameters)}
    version = following(None, made, values)
    last = Tried(
        version=42,
        verdict="rolled_back",
        before=(0.71, 0.74, 0.75),
        after=(0.6, 0.68, 0.7),
        change=-0.0811,
        reason=text or "-8.1 % in the median of 3 PHASEs, by fitness; version 41 is in force again, as version 43",
        at=minute(300),
    )
    return Parameters(version=replace(version, version=43), verdict=UNDECIDED, results=2, needed=3, last=last)


def tick(decision: str = "noop") -> TickLine:
    return TickLine(
        tick=1204417,
        tick_id="20261121T044637Z-3f1c22aa",
        started_at=NOW - timedelta(seconds=35),
        decision=decision,
        exit_code=0,
        cycle=None,
        findings=(
            ("maintenance", "no_maintenance", "no file maintenance_mode"),
            ("active_cycle", "cycle_active", "cycle 1289 (dream) is running"),
            ("phase_window", "outside_phase_window", "the next window, of 2026-11-21, opens 2026-11-21 08:00:00Z"),
        ),
    )


SUMMARY = Summary(
    totals={
        "dream": {"succeeded": 1122, "failed": 71, "timed_out": 9, "lost": 2},
        "phase": {"succeeded": 82, "failed": 2},
    },
    over=200,
    success_rate=0.945,
    streak_state=CycleState.SUCCEEDED,
    streak=3,
    mean_seconds=611.4,
    p95_seconds=1620.0,
    means={"joy": 0.6512, "rage": 0.1377, "entries": 318.2},
)


def _heartbeat(events: dict[int, Beat], gaps: dict[tuple[int, int], tuple[Beat, str]]) -> Heartbeat:
    """Return a day of ticks: single minutes `ago`, and gaps of (minutes ago, length)."""
    beats: list[tuple[Beat, str]] = [(Beat.NOOP, "")] * 1440
    for ago, beat in events.items():
        if 0 < ago <= 1440:
            beats[1440 - ago] = (beat, "")
    for (ago, length), found in gaps.items():
        beats[1440 - ago : 1440 - ago + length] = [found] * length
    stretches: list[Stretch] = []
    for position, (beat, evidence) in enumerate(beats):
        last = stretches[-1] if stretches else None
        if last and (last.beat, last.evidence) == (beat, evidence):
            stretches[-1] = Stretch(beat=beat, start=last.start, minutes=last.minutes + 1, evidence=evidence)
        else:
            stretches.append(Stretch(beat=beat, start=minute(1440 - position), minutes=1, evidence=evidence))
    return Heartbeat(start=minute(1440), minutes=1440, stretches=tuple(stretches))


HOSTILE = (
    '"><script>window.harmed = 1</script>{{ 7 * 7 }} \x1b[31mred\x1b[0m\x1b]0;title\x07'
    " \x00\x08\x9b \u202egnp.exe\u2066 \udcff\udc80 "
    '\' onmouseover=\'window.harmed = 1\' <img src="//evil.example/x" onerror="window.harmed = 1">'
    "{% raw %} javascript:alert(1) </pre></style></title><style>*{display:none}</style>"
)
"""What somebody could put into a log, a name or a goal."""
ENDLESS = "x" * 10_000_000


def hostile() -> LoopHealth:
    """Return a document each of whose texts is hostile, and some of them endless."""
    lines = tuple(
        replace(line, job=HOSTILE, reason=HOSTILE, series={HOSTILE: float("nan"), "joy": float("inf"), ENDLESS: 1.0})
        for line in cycles(3, trouble=True)
    )
    endless = cycle(7, 30, state=CycleState.FAILED, reason=ENDLESS)
    cause = Cause(Condition.PHASE_MISSED, Verdict.FAILING, minute(10), HOSTILE, HOSTILE)
    return health(
        host=HOSTILE,
        state_dir=HOSTILE,
        version=HOSTILE,
        judgement=Judgement(Verdict.FAILING, (cause,), ()),
        heartbeat=_heartbeat({}, {(100, 5): (Beat.UNKNOWN, HOSTILE)}),
        active=(replace(cycle(1290, 3, None, state=CycleState.RUNNING), job=HOSTILE),),
        cycles=(*lines, endless),
        failures=(Failure(line=lines[0], tail=HOSTILE), Failure(line=endless, tail=ENDLESS)),
        phase_dates=(replace(dates(2)[0], reason=HOSTILE, evidence=HOSTILE, cycle=None),),
        queues=(Queue(name=HOSTILE, count=1, oldest=minute(3)),),
        parked=(Parked(stem=HOSTILE, failures=3, reason=ENDLESS, since=minute(3)),),
        backoffs=(Waiting(job=HOSTILE, failures=1, until=minute(-3)),),
        escrow=(held(1, HOSTILE), held(2, ENDLESS)),
        baseline=baseline(HOSTILE),
        advice=Advice(cycle=1, phase_type=HOSTILE, rationale=ENDLESS),
        threads=threads(HOSTILE, ENDLESS, more=1),
        wakes=wakes(HOSTILE, more=1),
        scope=scope(HOSTILE, led=False, more=1),
        last_tick=replace(tick(HOSTILE), findings=((HOSTILE, HOSTILE, HOSTILE),)),
    )


def busiest() -> LoopHealth:
    """Return a day whose every minute differs from the one before, with as much of everything as there can be."""
    alternating = tuple(
        Stretch(beat=Beat.LOCK_HELD if one % 2 else Beat.NOOP, start=minute(1440 - one), minutes=1, evidence="lock " * 20)
        for one in range(1440)
    )
    telemetry = {f"series_{number}_of_many": 1 / 3 for number in range(30)}
    lines = tuple(
        cycle(10**5 - one, one * 4.7 + 5, 281.4, state=CycleState.FAILED, reason="why " * 100, series=telemetry)
        for one in range(300)
    )
    parked = tuple(
        Parked(stem=f"candidate-{one:060}", failures=3, reason="why " * 99, since=minute(9)) for one in range(300)
    )
    return replace(
        trouble(),
        heartbeat=Heartbeat(start=minute(1440), minutes=1440, stretches=alternating),
        cycles=lines,
        failures=tuple(Failure(line=line, tail=TRACEBACK * 50) for line in lines[:5]),
        parked=parked,
        escrow=tuple(held(number, changes=300) for number in range(50)),
        baseline=baseline(parameters=1000),
    )


def cycle_page(text: str = "") -> CyclePage:
    lines = tuple(replace(line, reason=text or line.reason) for line in cycles(20, trouble=True))
    return CyclePage(query=CycleQuery(text=text, limit=20), lines=lines, next_cursor=text or "abc", total=100_000)


def cycle_detail(text: str = "") -> CycleDetail:
    """Return a running cycle; with `text`, it stands wherever others may write."""
    line = cycle(1289, 12.4, None, state=CycleState.RUNNING)
    points = tuple(Point(line=n + 1, at=minute(12 - n % 12), value=0.3 + n % 17 / 30) for n in range(200))
    row = Series(name=text or "joy", last=0.61, count=200, low=0.3, high=0.84, mean=0.55, points=points)
    return CycleDetail(
        preceding=1287,
        following=None,
        line=replace(line, reason=text),
        folder=f"/var/lib/kloros/cycles/cycle_01289{text}",
        pruned_at=None,
        command=("python3", "-m", "src.dream.run", text or "--topic=attention"),
        working_dir=text,
        environment=("HOME", "KLR_CYCLE", "PATH", *filter(None, [text])),
        revision=text or "4f2c9a1",
        exit_code=None,
        signal=None,
        wall_seconds=None,
        cpu_seconds=181.2,
        peak_bytes=1_932_735_283,
        output_truncated=False,
        settled_at=None,
        cancel_asked_at=None,
        deadline=NOW + timedelta(minutes=17.6),
        topic=text or "attention span",
        intent=text,
        intent_reason=text or "the span was short again",
        emitted_by=text or "klorosctl: ada",
        given=("candidate-0417", text or "candidate-0420"),
        answers=(Answer(stem=text or "candidate-0417", state="unacked", fitness=0.734, reason=text),),
        asked_by=tick("dream_cycle"),
        artifacts=(
            Artifact(path="logs/output.log", size=48211, sha256="9f" * 32, media_type="text/plain", present=True),
            Artifact(path=f"artifacts/{text or 'report.json'}", size=None, sha256=None, media_type=text, present=False),
        ),
        omitted=0,
        manifest=f'{{"schema": "v1", "cycle": 1289, "note": "{text}"}}',
        bundle=text,
        logs=(Log(path="logs/output.log", size=48211, tail=text or "epoch 1 joy 0.52\nepoch 2 joy 0.61\n", truncated=True),),
        telemetry=(row, replace(row, name="rage")),
        damaged_lines=2,
    )


def tick_detail(text: str = "") -> TickDetail:
    shown = replace(tick(), findings=(*tick().findings, ("promotions", text or "no_unacked_promotions", text)))
    return TickDetail(
        tick=shown,
        ended_at=NOW - timedelta(seconds=34.9),
        boot_id=text or "1ab5c4f2",
        blocker=text,
        counted=(1, 2),
        cycle=cycle(1289, 12),
        previous=1204416,
        following=None,
    )


def promotions_view(text: str = "") -> PromotionsView:
    row = PromotionRow(
        stem=text or "candidate-0417",
        promotion_id=text or "417",
        state="parked",
        fitness=0.734,
        failures=3,
        reason=text or "failed in 3 cycles",
        first_seen_at=minute(2000),
        changed_at=minute(1000),
        cycle=1285,
    )
    new = replace(row, stem="candidate-0431", state="new", fitness=None, first_seen_at=None, changed_at=None, cycle=None)
    return PromotionsView(
        folder="/var/lib/kloros/promotions",
        waiting=(row, new),
        omitted=0,
        answered=(replace(row, state="accepted"), replace(row, stem="candidate-0390", state="rejected")),
        totals={"accepted": 812, "rejected": 97, "parked": 1},
        unreadable=text,
    )


def intents_view(text: str = "") -> IntentsView:
    row = IntentRow(
        name=text or "1763700000000_trigger_phase_1a2b3c4d.json",
        intent_type=text or "trigger_phase",
        priority=7,
        status="pending",
        reason=text or "asked for by the operator",
        intent_reason=text or "the clocks have changed",
        emitted_by=text or "klorosctl: ada",
        seen_at=minute(7),
        decided_at=None,
        cycle=None,
    )
    decided = replace(row, status="processed", decided_at=minute(300), cycle=1276)
    return IntentsView(
        folder="/var/lib/kloros/intents",
        limit=100,
        waiting=(row,),
        decided=(decided,),
        totals={"processed": 44, "expired": 2},
    )


def calendar_view(text: str = "") -> CalendarView:
    outcomes = dates(30)
    ahead = WindowLine(
        date=date(2026, 11, 21),
        opens=datetime(2026, 11, 21, 8, tzinfo=UTC),
        closes=datetime(2026, 11, 21, 12, tzinfo=UTC),
    )
    days = tuple(
        CalendarDay(
            window=WindowLine(date=one.date, opens=one.opens, closes=one.closes),
            outcome=replace(one, evidence=text or one.evidence),
            cycles=() if one.cycle is None else (one.cycle,),
        )
        for one in outcomes
    )
    return CalendarView(
        time_zone=ZONE,
        days=(CalendarDay(window=ahead, outcome=None, cycles=()), *days),
        totals={"succeeded": 82, "failed": 2, "skipped": 1},
    )


def every_page(place: Place, text: str = "") -> dict[str, str]:
    """Return each page's HTML by name; with `text`, it stands wherever others may write."""
    return {
        "overview": pages.overview(hostile() if text else trouble(), place),
        "well": pages.overview(ordinary(), place),
        "cycles": pages.cycles(cycle_page(text), place, now=NOW),
        "cycle": pages.cycle(cycle_detail(text), place, now=NOW),
        "tick": pages.tick(tick_detail(text), place, now=NOW),
        "promotions": pages.promotions(promotions_view(text), place, now=NOW),
        "intents": pages.intents(intents_view(text), place, now=NOW),
        "calendar": pages.calendar(calendar_view(text), place, now=NOW),
        "problem": pages.problem(404, text or "No such cycle", text or "Cycles there are: /cycles", place, now=NOW),
        "empty": pages.overview(nothing(), place),
    }


PAGES = ("overview", "well", "cycles", "cycle", "tick", "promotions", "intents", "calendar", "problem", "empty")


def nothing() -> LoopHealth:
    """Return a host on which nothing has happened yet."""
    cause = Cause(Condition.NO_TICK_YET, Verdict.UNKNOWN, NOW, "no tick has reached the store yet", "klorosctl doctor")
    empty = Summary(
        totals={},
        over=0,
        success_rate=None,
        streak_state=None,
        streak=0,
        mean_seconds=None,
        p95_seconds=None,
        means={},
    )
    return health(
        judgement=Judgement(Verdict.UNKNOWN, (cause,), ()),
        last_tick=None,
        heartbeat=None,
        cycles=(),
        summary=empty,
        phase_dates=(),
    )
