"""The default D-REAM job, `python -m orchestration.promotions.trial`: try each promotion and write `verdicts.json`.

With a `[dream] trial` command, each promotion is measured against the baseline: the command is run with the
baseline's parameters and with the promotion's (the baseline's with its changes on top) in turn, `trial_runs`
times each, so that a machine that slows down meanwhile slows both. The medians are compared (`judgement`).
Without the command a promotion is judged by the fitness it claims against the baseline's. With no baseline
yet a valid promotion is accepted.

The trial command
  gets     KLR_PARAMETERS   path of a JSON object {name: number}
           KLR_TRIAL_RUN    1 to `trial_runs`: the same for both sides of a comparison, so a good seed
           and the cycle's whole environment (KLR_CYCLE, KLR_CYCLE_DIR, …)
  prints   as the last line of its output (stdout and stderr are one here) a number, or {"fitness": number};
           higher is better
  exits    0
What each run got and printed stays in the cycle's folder under `artifacts/trials/`.

A run that fails or prints something else is either the promotion's fault or the host's. The baseline tells
them apart: if it can still be measured, the promotion is not accepted, with the reason; if not, the whole
cycle fails and writes no verdicts, so that every promotion goes again later, and is parked rather than
rejected when the host stays broken. With no baseline, another promotion that could be measured serves as the
proof. One bad promotion so never holds up the others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

from orchestration import configuration
from orchestration.errors import KlorosError
from orchestration.exits import Exit
from orchestration.host import files, process
from orchestration.promotions.baseline import Baseline, baseline_path, read_baseline
from orchestration.promotions.document import Malformed
from orchestration.promotions.handover import Handed, parse_handover
from orchestration.promotions.judgement import Judgement, Standing, fitness_of, judge, judge_runs
from orchestration.promotions.promotion import Number
from orchestration.settings import Dream, Settings

Parameters: TypeAlias = Mapping[str, Number]
Measure: TypeAlias = Callable[[str, Parameters, int], float]
"""Run the trial once: where it is recorded (`0001/baseline`), its parameters, the number of the run."""


class HandoverInvalid(KlorosError):
    """What the cycle handed over can't be understood."""


class TrialBroken(KlorosError):
    """The trial can't measure even what it could measure before, so nothing can be said of any promotion."""

    exit = Exit.DREAM_FAILED
    retryable = True


class RunFailed(Exception):
    """One run of the trial gave no fitness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A promotion's trial gave no fitness; whether that is its fault is decided once the others were tried."""

    reason: str


def main() -> int:
    """Try the promotions that `KLR_PROMOTIONS` names; return the exit code."""
    try:
        settings = configuration.load(os.environ)
        folder = os.path.join(_variable("KLR_CYCLE_DIR"), "artifacts")
        promotions = _handed(_variable("KLR_PROMOTIONS"))
        baseline = read_baseline(os.environ.get("KLR_BASELINE") or baseline_path(settings.state_dir))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        measure = trial_measure(settings, os.path.join(folder, "trials"))
        judgements = try_all(promotions, baseline, settings.dream, measure=measure)
        files.replace(os.path.join(folder, "verdicts.json"), verdicts_content(judgements), mode=0o640)
    except KlorosError as error:
        _say(f"failed: {error}")
        return error.exit
    except OSError as error:
        _say(f"failed: {error}")
        return Exit.UNWRITABLE
    return Exit.DONE


def try_all(
    promotions: tuple[Handed, ...], baseline: Baseline | None, dream: Dream, *, measure: Measure
) -> dict[str, Judgement]:
    """Judge every promotion, in order; stem → judgement.

    Raises:
        TrialBroken: the trial does not work on this host now.
    """
    _say(_introduction(promotions, baseline, dream))
    results: dict[str, Judgement | Failed] = {}
    for number, handed in enumerate(promotions, start=1):
        _say(f"{handed.stem}: {_assignments(handed.changes)}")
        results[handed.stem] = _try_one(handed, f"{number:04}", baseline, dream, measure)
        _say(f"{handed.stem}: {results[handed.stem].reason}")
    failures = [stem for stem, result in results.items() if isinstance(result, Failed)]
    if failures and baseline is None and len(failures) == len(results):
        raise TrialBroken(
            f"no trial gave a fitness; {failures[0]}: {results[failures[0]].reason}",
            hint="run the [dream] trial command by hand with KLR_PARAMETERS naming a file of parameters",
        )
    return {stem: _final(result) for stem, result in results.items()}


def verdicts_content(judgements: Mapping[str, Judgement]) -> bytes:
    """Write judgements as `verdicts.json`."""
    verdicts = [
        {
            "promotion": stem,
            "accepted": judgement.accepted,
            "reason": judgement.reason,
            "fitness": judgement.fitness,
        }
        for stem, judgement in judgements.items()
    ]
    return json.dumps({"schema": "v1", "verdicts": verdicts}, indent=2).encode() + b"\n"


def _try_one(handed: Handed, place: str, baseline: Baseline | None, dream: Dream, measure: Measure) -> Judgement | Failed:
    if not dream.trial:
        return _judge_claim(handed, baseline, dream)
    if baseline is None:
        return _first(handed, place, dream, measure)
    proposed = {**baseline.parameters, **handed.changes}
    old: list[float] = []
    new: list[float] = []
    for run in range(1, dream.trial_runs + 1):
        old.append(_measure_baseline(baseline, place, run, measure))
        try:
            new.append(measure(f"{place}/promotion", proposed, run))
        except RunFailed as error:
            _measure_baseline(baseline, place, run, measure)
            return Failed(reason=f"its trial failed in run {run}: {error}")
    _say(f"  baseline  {_series(old)}")
    _say(f"  promotion {_series(new)}")
    return judge_runs(old, new, accept_at=dream.accept_at, reject_below=dream.reject_below)


def _judge_claim(handed: Handed, baseline: Baseline | None, dream: Dream) -> Judgement:
    if baseline is None:
        reason = f"no baseline yet: its own fitness {handed.fitness:.6g} starts one"
        return Judgement(standing=Standing.BETTER, fitness=handed.fitness, reason=reason)
    return judge(baseline.fitness, handed.fitness, accept_at=dream.accept_at, reject_below=dream.reject_below)


def _first(handed: Handed, place: str, dream: Dream, measure: Measure) -> Judgement | Failed:
    try:
        runs = [measure(f"{place}/promotion", handed.changes, run) for run in range(1, dream.trial_runs + 1)]
    except RunFailed as error:
        return Failed(reason=f"its trial failed: {error}")
    _say(f"  promotion {_series(runs)}")
    fitness = median(runs)
    reason = f"no baseline yet: its measured fitness {fitness:.6g} starts one"
    return Judgement(standing=Standing.BETTER, fitness=fitness, reason=reason)


def _measure_baseline(baseline: Baseline, place: str, run: int, measure: Measure) -> float:
    try:
        return measure(f"{place}/baseline", baseline.parameters, run)
    except RunFailed as error:
        raise TrialBroken(
            f"the trial can't measure the baseline's own parameters: {error}",
            hint="run the [dream] trial command by hand; the promotions go again when this cycle has failed",
        ) from error


def _final(result: Judgement | Failed) -> Judgement:
    if isinstance(result, Failed):
        return Judgement(standing=Standing.WORSE, fitness=None, reason=result.reason)
    return result


def trial_measure(settings: Settings, folder: str) -> Measure:
    """Return a measure that starts the `[dream] trial` command and records each run under `folder`."""

    def measure(place: str, parameters: Parameters, run: int) -> float:
        path = os.path.join(folder, f"{place}.json")
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        files.replace(path, json.dumps(dict(parameters), indent=2).encode() + b"\n", mode=0o640)
        output = os.path.join(folder, f"{place}_{run:03}.log")
        ended = process.run(
            settings.dream.trial,
            env={**os.environ, "KLR_PARAMETERS": path, "KLR_TRIAL_RUN": str(run)},
            cwd=os.getcwd(),
            output=output,
            output_limit=settings.cycles.log_limit_bytes,
            timeout=settings.dream.timeout,
            grace=settings.cycles.term_grace,
        )
        return _fitness(ended, output)

    return measure


def _fitness(ended: process.Completed, output: str) -> float:
    with open(output, "rb") as file:
        text = file.read().decode("utf-8", errors="replace")
    if not ended.succeeded:
        last = text.strip().rpartition("\n")[2]
        raise RunFailed(f"{ended.describe()}, its last line {last[-200:]!a}; see {output}")
    try:
        return fitness_of(text)
    except ValueError as error:
        raise RunFailed(f"{error}; see {output}") from error


def _handed(path: str) -> tuple[Handed, ...]:
    try:
        with open(path, "rb") as file:
            handover = parse_handover(file.read())
    except OSError as error:
        raise HandoverInvalid(f"{path} can't be read: {error.strerror}") from error
    if isinstance(handover, Malformed):
        raise HandoverInvalid(f"{path} is not what a cycle hands over: {handover.reason}")
    return handover.promotions


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise HandoverInvalid(
            f"{name} is not set", hint="this program is the job of a D-REAM cycle; `klorosctl tick --wait` starts one"
        )
    return value


def _introduction(promotions: tuple[Handed, ...], baseline: Baseline | None, dream: Dream) -> str:
    how = f"{dream.trial_runs} runs a side of {' '.join(dream.trial)}" if dream.trial else "their own fitness"
    against = f"the baseline ({_assignments(baseline.parameters)})" if baseline else "no baseline yet"
    return f"{len(promotions)} promotions, by {how}, against {against}"


def _assignments(parameters: Parameters) -> str:
    return ", ".join(f"{ascii(name)[1:-1]}={value}" for name, value in parameters.items()) or "no changes"


def _series(values: list[float]) -> str:
    return f"{'  '.join(f'{value:.6g}' for value in values)}  median {median(values):.6g}"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
