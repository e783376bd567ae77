"""What comes in from others and what waits for a person: promotions, intents, escrow, the observer's rules."""

from __future__ import annotations

import difflib
import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from orchestration.settings.fields import AbsolutePath, Duration, PositiveDuration, Section

Bounds = tuple[float, float]


class Promotions(Section):
    """Which promotions are valid."""

    strict: Annotated[bool, Field(examples=[False])] = False
    """Whether a parameter without bounds makes a promotion invalid."""
    bounds: Annotated[dict[str, Bounds], Field(examples=["learning_rate = [1e-4, 0.1]"])] = {
        "learning_rate": (1e-4, 0.1),
        "batch_size": (1.0, 128.0),
        "temperature": (0.1, 2.0),
        "context_window": (1000.0, 32000.0),
    }
    """Lowest and highest accepted value of each parameter, both included. A table here replaces the default one."""

    @field_validator("bounds")
    @classmethod
    def _bounds_ascend(cls, bounds: dict[str, Bounds]) -> dict[str, Bounds]:
        for name, (low, high) in bounds.items():
            if low > high:
                raise ValueError(f"bounds.{name}: the lowest value {low} is above the highest {high}")
        return bounds


class EscrowRule(Section):
    """One rule of `[escrow] require`: a table such as `{parameter = "lr*", change_over = 0.2}`. What it names must all hold,
    parameter and size of one and the same change; at least one is given."""

    parameter: Annotated[str, Field(examples=["learning_rate"])] = ""
    """Name of a parameter, or a pattern with `*`, `?` and `[…]`. Empty: any."""
    change_over: Annotated[float | None, Field(ge=0, examples=[0.2])] = None
    """Relative change of a parameter beyond which, up or down, it matches (0.2 is 20 %). A new parameter, and any change of
    one that was 0, is beyond every size. Not given: any change."""
    actor: Annotated[str, Field(examples=["agent-x"])] = ""
    """OS user who owns the promotion's file. Empty: anybody."""

    @model_validator(mode="after")
    def _names_something(self) -> EscrowRule:
        if not self.parameter and not self.actor and self.change_over is None:
            raise ValueError('the rule names nothing, so it would hold everything; for that, write parameter = "*"')
        return self


class Escrow(Section):
    """Which accepted promotions wait for a person instead of going into the baseline: `klorosctl escrow`."""

    require: Annotated[tuple[EscrowRule, ...], Field(examples=['require = [{parameter = "lr*"}, {change_over = 0.2}]'])] = ()
    """Rules; an accepted promotion that one of them matches is held. None: nothing is held."""
    four_eyes: Annotated[bool, Field(examples=[True])] = False
    """Whether nobody approves a promotion whose file they owned. What was held under it keeps to it."""
    expires_after: Annotated[Duration, Field(examples=["14d"])] = timedelta(0)
    """Time after which an entry that nobody decided on expires, without a change; 0 for never."""


class Intents(Section):
    """How requests in `intents/` are taken in."""

    max_pending: Annotated[int, Field(ge=1, examples=[50])] = 50
    """Intents that may wait; beyond it those of the lowest priority are dropped. `KLR_MAX_INTENT_QUEUE`."""
    per_tick: Annotated[int, Field(ge=1, examples=[10])] = 10
    """Intents handled by one tick, so that a flood can't make a tick long."""
    expires_after: Annotated[PositiveDuration, Field(examples=["24h"])] = timedelta(hours=24)
    """Age from which an intent is stale."""
    dedup_within: Annotated[Duration, Field(examples=["1h"])] = timedelta(hours=1)
    """Time within which an intent of the same content counts as the same one."""


_INTENT_TYPE = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$"
_GPU_MEMORY = (
    r"(?i)\b(CUDA|HIP)( error)?:? out of memory|(CUDA|hip)_?error_?(OutOf|out_of_)Memory"
    r"|cudaErrorMemoryAllocation"
)


class ObserverRule(Section):
    """One rule of the observer. Six are there by default; a table with the name of one of them changes what it names of it,
    any other name makes a further rule. See [the observer](observer.md)."""

    watch: Annotated[
        Literal["promotions", "phase_failures", "heartbeats", "lock_contention", "output"], Field(examples=["output"])
    ]
    """What is counted: promotions that arrive, PHASEs that end without success, programs whose heartbeat file is silent,
    ticks that found the lock held, or lines of cycles' output that match `pattern`."""
    intent: Annotated[str, Field(pattern=_INTENT_TYPE, examples=["alert_disk"])]
    """Type of the intent, which says what is done about it. A rule makes no reflections."""
    priority: Annotated[int, Field(ge=0, le=10, examples=[8])] = 5
    """The intent's priority, 0 (lowest) to 10."""
    at_least: Annotated[int, Field(ge=1, examples=[3])] = 1
    """How many there must be; no matter for heartbeats."""
    within: Annotated[PositiveDuration, Field(examples=["10min"])] = timedelta(hours=1)
    """Time within which they count; of heartbeats, how long a file may be silent."""
    cooldown: Annotated[Duration, Field(ge=timedelta(minutes=1), examples=["1h"])] = timedelta(hours=1)
    """Time after its intent in which the rule makes no other, across restarts; for heartbeats, none for the same program. At
    least a minute, so that a rule which starts what it watches does not keep itself going."""
    pattern: Annotated[str, Field(max_length=1000, examples=["No space left on device"])] = ""
    """Regular expression of Python for lines of output, given up after ten seconds; empty for everything else."""
    enabled: Annotated[bool, Field(examples=[False])] = True
    """Whether the rule is asked."""

    @model_validator(mode="after")
    def _is_coherent(self) -> ObserverRule:
        if bool(self.pattern) != (self.watch == "output"):
            raise ValueError("pattern belongs to a rule that watches output, and to no other")
        if self.intent == "idle_reflection":
            raise ValueError("no rule may ask for a reflection; [reflection] interval does")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}") from None
        return self


_RULES: dict[str, dict[str, object]] = {
    "promotion_cluster": {
        "watch": "promotions",
        "intent": "trigger_phase_promotion_cluster",
        "priority": 7,
        "at_least": 3,
        "within": "10min",
    },
    "phase_failed": {"watch": "phase_failures", "intent": "alert_phase_failed", "priority": 6, "within": "24h"},
    "heartbeat_silent": {"watch": "heartbeats", "intent": "alert_heartbeat_silent", "priority": 8, "within": "5min"},
    "lock_contention": {
        "watch": "lock_contention",
        "intent": "suggest_lock_contention",
        "priority": 5,
        "at_least": 11,
        "within": "1h",
    },
    "gpu_out_of_memory": {
        "watch": "output",
        "intent": "alert_gpu_out_of_memory",
        "priority": 9,
        "within": "24h",
        "pattern": _GPU_MEMORY,
    },
    "critical_line": {
        "watch": "output",
        "intent": "alert_critical_line",
        "priority": 10,
        "within": "24h",
        "pattern": r"\b(CRITICAL|FATAL)\b",
    },
}
"""The figures 3 in 10 min, 5 min, more than 10 in an hour, an hour of cooldown, and the priorities are the issue's."""


class Observer(Section):
    """What is watched, and asked for when it happens. Each rule leaves an intent, which obeys the same rules and gates as
    everybody's."""

    heartbeats: Annotated[dict[str, AbsolutePath], Field(examples=['trader = "/run/trader/heartbeat"'])] = {}
    """Programs by name, each with the file that it touches while it lives."""
    rules: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")], ObserverRule],
        Field(examples=["[observer.rules.disk_full]"]),
    ] = {}
    """Rules by name. Those of the program are there without being named; `enabled = false` under its name turns one off."""

    @field_validator("rules", mode="before")
    @classmethod
    def _ours_are_there(cls, rules: object) -> object:
        if not isinstance(rules, dict):
            return rules
        for name, rule in rules.items():
            if isinstance(rule, dict) and name not in _RULES and "watch" not in rule:
                near = difflib.get_close_matches(str(name), _RULES, n=1)
                ours = f"did you mean {near[0]}?" if near else f"there are {', '.join(_RULES)}"
                raise ValueError(f"{name} is none of the program's rules ({ours}), and one of yours needs watch and intent")
        changed = {
            name: {**_RULES.get(name, {}), **rule} if isinstance(rule, dict) else rule for name, rule in rules.items()
        }
        return {**_RULES, **changed}
