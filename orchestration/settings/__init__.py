"""Every setting: one frozen model, read from TOML under `KLR_*` variables.

A variable beats the file, the file beats the default. A field's docstring is its page in docs/reference/settings.md.
Quiet ticks never import this package: `configuration.py` gives them the same tree from a snapshot.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestration.settings.fields import AbsolutePath, Section
from orchestration.settings.intake import Bounds, Escrow, EscrowRule, Intents, Observer, ObserverRule, Promotions
from orchestration.settings.jobs import Cycles, Domain, Dream, Executor, Needs, Phase, Reflection, Slurm
from orchestration.settings.keeping import Federation, Retention, Validation
from orchestration.settings.loop import Loop
from orchestration.settings.scope import Scope
from orchestration.settings.serving import Bridge, Filter, Pulse
from orchestration.settings.telling import Heartbeat, Notices
from orchestration.settings.waking import Agent, Wake

__all__ = [
    "Agent",
    "Bounds",
    "Bridge",
    "Cycles",
    "Domain",
    "Dream",
    "Escrow",
    "EscrowRule",
    "Executor",
    "Federation",
    "Filter",
    "Heartbeat",
    "Intents",
    "Loop",
    "Needs",
    "Notices",
    "Observer",
    "ObserverRule",
    "Phase",
    "Promotions",
    "Pulse",
    "Reflection",
    "Retention",
    "Scope",
    "Settings",
    "Slurm",
    "Validation",
    "Wake",
]

_SYSTEM_STATE_DIR = "/var/lib/kloros"
_COLLECTED = "/var/lib/prometheus/node-exporter/kloros.prom"  # where Debian's node_exporter reads, of the host's one state


class Settings(Section):
    """All settings."""

    orchestration_mode: Annotated[str, Field(examples=["enabled"])] = "disabled"
    """Must be exactly `enabled` for a tick to do anything."""
    state_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros"])]
    """Folder of the store, locks, intents, cycles: `/var/lib/kloros`, for a plain user `$XDG_STATE_HOME/kloros`."""
    database_url: Annotated[str, Field(pattern=r"^(postgres(ql)?://\S+)?$", examples=["postgresql:///kloros"])] = ""
    """PostgreSQL 15 or later for all that ticks, cycles and the bridge remember, as a libpq URL; if it is empty, `kloros.db`
    in the state folder. Hosts that name the same database are a scope, see `[scope]`. Ticks need libpq
    (libpq5), the bridge the extra `postgres`. Name every server of a replicated one (`postgresql://one,two/kloros`): the
    one that takes writes is used. Keep the password in a passfile (`~/.pgpass`): `klorosctl config` shows settings."""
    promotions_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/promotions"])]
    """Folder where D-REAM leaves promotions; `promotions` in the state folder by default."""
    acks_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/promotions_ack"])]
    """Folder of our answers to promotions; `promotions_ack` in the state folder by default."""
    cycles_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/cycles"])]
    """Folder of the cycles' folders; `cycles` in the state folder by default."""
    bundles_dir: Annotated[AbsolutePath, Field(examples=["/var/lib/kloros/out"])]
    """Folder of the cycles' bundles; `out` in the state folder by default."""
    textfile: Annotated[AbsolutePath, Field(examples=[_COLLECTED])]
    """File for node_exporter's textfile collector: of the state in `/var/lib/kloros` that in the folder of Debian's package,
    `/var/lib/prometheus/node-exporter/kloros.prom`; of any other state `kloros.prom` in its folder by default."""
    agents: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$")], Agent],
        Field(examples=["[agents.reviewer]"]),
    ] = {}
    """Agents that this host may wake, by their names on the bridge."""
    launcher: Annotated[Literal["auto", "systemd", "detached", "external"], Field(examples=["auto"])] = "auto"
    """How cycles are started: by kloros-cycle.path, or as a process of its own; `auto` sees which there is. `external`: not
    by us, for something else runs `python -m orchestration.run_cycle` again and again, such as a CronJob of Kubernetes."""
    phase: Phase = Phase()
    dream: Dream = Dream()
    promotions: Promotions = Promotions()
    escrow: Escrow = Escrow()
    intents: Intents = Intents()
    observer: Observer = Observer()
    reflection: Reflection = Reflection()
    cycles: Cycles = Cycles()
    loop: Loop = Loop()
    validation: Validation = Validation()
    retention: Retention = Retention()
    federation: Federation = Federation()
    slurm: Slurm = Slurm()
    scope: Scope = Scope()
    pulse: Pulse = Pulse()
    bridge: Bridge = Bridge()
    wake: Wake = Wake()
    notices: Notices = Notices()
    heartbeat: Heartbeat = Heartbeat()

    @model_validator(mode="after")
    def _hosts_share_a_store(self) -> Settings:
        for name, job in (("phase", self.phase), ("dream", self.dream)):
            if job.executor == "local" and job.needs.hosts and not self.database_url:
                raise ValueError(
                    f"[{name}.needs] hosts names hosts of a scope, and without database_url there is this one alone: set"
                    f' database_url, or executor = "slurm", or leave hosts empty'
                )
        return self

    @model_validator(mode="before")
    @classmethod
    def _folders_follow_the_state(cls, values: object) -> object:
        if not isinstance(values, dict) or not isinstance(values.get("state_dir"), str):
            return values
        state_dir = values["state_dir"].rstrip("/")
        names = {"promotions_dir": "promotions", "acks_dir": "promotions_ack", "cycles_dir": "cycles", "bundles_dir": "out"}
        folders = {setting: f"{state_dir}/{name}" for setting, name in names.items()}
        textfile = _COLLECTED if state_dir == _SYSTEM_STATE_DIR else f"{state_dir}/kloros.prom"
        return {**folders, "textfile": textfile, **values, "state_dir": state_dir}
