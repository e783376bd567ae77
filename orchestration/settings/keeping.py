"""What becomes of results: the verdict on baselines, how long things are kept, copies elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from orchestration.settings.fields import STEPS, Duration, PositiveDuration, Section


class Validation(Section):
    """What becomes of a version of the baseline, by the results of the PHASEs under it and under the version before; see
    docs/explanation/validation.md."""

    keep_at: Annotated[float, Field(ge=0, examples=[0.02])] = 0.02
    """Relative gain of the median from which a version counts as kept (0.02 is +2 %); between the two it is neutral."""
    roll_back_below: Annotated[float, Field(le=0, examples=[-0.05])] = -0.05
    """Relative gain of the median below which the version before is put in force again."""
    results: Annotated[int, Field(ge=3, examples=[3])] = 3
    """PHASE results on each side that are needed; with fewer, a version stays undecided. Three outvote one outlier."""
    automatic: Annotated[bool, Field(examples=[True])] = True
    """Whether ticks roll back by themselves. Off: the rollback waits in escrow for a person."""


class Retention(Section):
    """How long cycles stay on disk. One goes, with its bundle, when neither number nor age keeps it; its row in the store
    stays. Pinned cycles, unsettled ones, and those that something refers to are never removed. The loop's logs of iterations
    go by the same numbers."""

    keep_last: Annotated[int, Field(ge=0, examples=[200])] = 200
    """The newest cycles are kept whatever their age: so many PHASEs and so many D-REAM cycles. The loop's and reflections
    push none of these out; they are kept when among so many newest of all."""
    keep_for: Annotated[Duration, Field(examples=["90d"])] = timedelta(days=90)
    """Cycles that ended within this time are kept whatever their number. A quarter, so that its report can be checked."""
    per_tick: Annotated[int, Field(ge=0, examples=[2])] = 2
    """Cycles that one tick removes, so that a backlog can't make a tick long. 0: only `klorosctl prune` removes any."""
    keep_ticks: Annotated[Duration, Field(ge=timedelta(days=1), examples=["400d"])] = timedelta(days=400)
    """Ticks in the store are kept for this long; at least a day. So a year can be looked back at."""
    keep_processed: Annotated[Duration, Field(ge=timedelta(days=1), examples=["90d"])] = timedelta(days=90)
    """Intents in `intents/processed/`, with what the store remembers of them, and signals are kept for this long, the signal
    of the last PHASE that succeeded for good; at least a day."""
    keep_versions: Annotated[int, Field(ge=10, examples=[100])] = 100
    """Files of the newest versions of the baseline are kept in `baseline/versions/`: so many, at least 10. The store keeps
    every version, so that each can still be shown, compared and rolled back to."""
    low_disk: Annotated[int, Field(ge=0, examples=[10737418240])] = 10 * 1024**3
    """With fewer bytes free where the state folder lies, health is `degraded` and says so, and `klorosctl doctor` warns; 0:
    never. Less than 10 GiB suits a small disk."""
    threads: Annotated[dict[str, PositiveDuration], Field(examples=["[retention.threads]"])] = {}
    """Threads of the bridge that are resolved or closed, by workspace, `*` for all that are not named: this long after their
    last change they go out of the store, once they are safe in `archive/threads/` of the state directory. Not named: for
    ever. `klorosctl threads import` gives one back."""


class Federation(Section):
    """Where the bundles of finished cycles are copied to. Off unless `target` is set."""

    target: Annotated[str, Field(pattern=r"^([a-z][a-z0-9+.-]*://.+)?$", examples=["s3://bucket/kloros"])] = ""
    """Folder or bucket as a URL that fsspec knows (`file://`, `s3://`, `sftp://`, …); empty: bundles stay here. Needs the
    extra `federation`, for S3 the extra `s3`, for SFTP `sftp`. Keep credentials out of it: they belong into the environment
    of the cycle service, such as `AWS_ACCESS_KEY_ID`, or a file that it names."""
    options: Annotated[dict[str, str | int | bool], Field(examples=['endpoint_url = "https://minio.example"'])] = {}
    """Further options for fsspec's file system of that URL, by its own names."""
    timeout: Annotated[PositiveDuration, Field(examples=["10min"])] = timedelta(minutes=10)
    """Longest time for one bundle; it has then failed, and is tried again. On systemd the next cycle waits for it."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = STEPS
    """Waits after the first, second, … failed attempt for a cycle; the last one repeats, for as long as it takes."""
