"""The default D-REAM job as a process: a cycle's folder in, verdicts and exit code out, with a real trial command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.promotions.promotion import Promotion, parse
from orchestration.promotions.verdict import Verdicts, parse_verdicts
from orchestration.settings import Promotions

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PEAK = """
import json, os
p = json.load(open(os.environ["KLR_PARAMETERS"]))
with open(os.environ["KLR_CYCLE_DIR"] + "/seen", "a") as seen:
    print(json.dumps(p), os.environ["KLR_TRIAL_RUN"], os.environ["KLR_CYCLE"], file=seen)
print("training")
print(json.dumps({"fitness": 100 - abs(p["x"] - 10) / p.get("scale", 1)}))
"""


class Cycle:
    """A cycle's folder and environment, as the runner makes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "cycles" / "cycle_00007"
        (self.folder / "artifacts").mkdir(parents=True)
        self.config = root / "orchestrator.toml"
        self.config.write_text("")
        self.baseline = root / "baseline.json"
        self.promotions: list[dict[str, object]] = []

    def trial(self, program: str, *, runs: int = 3) -> None:
        path = self.root / "trial.py"
        path.write_text(program)
        command = json.dumps([sys.executable, str(path)])
        self.config.write_text(f"[dream]\ntrial = {command}\ntrial_runs = {runs}\n")

    def has_baseline(self, fitness: float = 95.0, **parameters: float) -> None:
        content = {"schema": "v1", "parameters": parameters, "fitness": fitness, "cycle": 1, "promotions": [], "ts": 1}
        self.baseline.write_text(json.dumps(content))

    def promote(self, stem: str, fitness: float = 1.0, **changes: float) -> None:
        self.promotions.append({"stem": stem, "id": stem, "fitness": fitness, "changes": changes, "path": "/p"})

    def run(self, **changed: str) -> subprocess.CompletedProcess[str]:
        handed = self.folder / "promotions.json"
        handed.write_text(json.dumps({"schema": "v1", "cycle": 7, "promotions": self.promotions}))
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "KLR_CONFIG": str(self.config),
            "KLR_STATE_DIR": str(self.root),
            "KLR_CYCLE": "7",
            "KLR_CYCLE_DIR": str(self.folder),
            "KLR_PROMOTIONS": str(handed),
            "KLR_BASELINE": str(self.baseline),
            **changed,
        }
        return subprocess.run(
            [sys.executable, "-m", "orchestration.promotions.trial"],
            env={name: value for name, value in env.items() if value},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def verdicts(self) -> dict[str, tuple[bool, float | None, str]]:
        found = parse_verdicts((self.folder / "artifacts" / "verdicts.json").read_bytes())
        assert isinstance(found, Verdicts), found
        return {one.promotion: (one.accepted, one.fitness, one.reason) for one in found.verdicts}

    def wrote_verdicts(self) -> bool:
        return (self.folder / "artifacts" / "verdicts.json").exists()


@pytest.fixture
def cycle(tmp_path: Path) -> Cycle:
    return Cycle(tmp_path)


def test_each_promotion_is_measured_against_the_baseline(cycle: Cycle) -> None:
    cycle.trial(PEAK, runs=2)
    cycle.has_baseline(x=15, scale=1)
    cycle.promote("better", x=10)
    cycle.promote("neutral", x=14)
    cycle.promote("worse", x=25)

    ended = cycle.run()

    assert ended.returncode == 0, ended.stdout
    found = cycle.verdicts()
    assert {stem: one[:2] for stem, one in found.items()} == {
        "better": (True, 100),
        "neutral": (False, 99 - 3),
        "worse": (False, 85),
    }
    assert found["neutral"][2].startswith("neutral: fitness 96 against the baseline's 95, +1.05 %")
    assert found["worse"][2].startswith("worse: ")
    assert "better: better: fitness 100 against the baseline's 95, +5.26 %" in ended.stdout


def test_the_trial_gets_the_baseline_with_the_changes_on_top_and_the_cycle_s_environment(cycle: Cycle) -> None:
    cycle.trial(PEAK, runs=2)
    cycle.has_baseline(x=15, scale=2)
    cycle.promote("p", x=10)

    cycle.run()

    assert (cycle.folder / "seen").read_text().splitlines() == [
        '{"x": 15, "scale": 2} 1 7',
        '{"x": 10, "scale": 2} 1 7',
        '{"x": 15, "scale": 2} 2 7',
        '{"x": 10, "scale": 2} 2 7',
    ]
    assert (cycle.folder / "artifacts/trials/0001/promotion_002.log").read_text().startswith("training\n")


def test_without_a_trial_command_a_promotion_s_own_fitness_is_judged(cycle: Cycle) -> None:
    cycle.has_baseline(fitness=0.1, x=15)
    cycle.promote("edge", fitness=0.102, x=1)
    cycle.promote("below", fitness=0.1019, x=1)

    ended = cycle.run()

    assert ended.returncode == 0, ended.stdout
    assert {stem: one[0] for stem, one in cycle.verdicts().items()} == {"edge": True, "below": False}


@pytest.mark.parametrize("measured", [True, False])
def test_with_no_baseline_yet_a_promotion_is_accepted(cycle: Cycle, measured: bool) -> None:
    if measured:
        cycle.trial(PEAK)
    cycle.promote("first", fitness=0.5, x=10)

    ended = cycle.run()

    assert ended.returncode == 0, ended.stdout
    accepted, fitness, reason = cycle.verdicts()["first"]
    assert accepted
    assert fitness == (100 if measured else 0.5)
    assert reason.startswith("no baseline yet")


def test_a_cycle_with_a_topic_and_no_promotions_succeeds(cycle: Cycle) -> None:
    cycle.trial("raise SystemExit('never run')")

    assert cycle.run(KLR_TOPIC="idle_reflection").returncode == 0
    assert cycle.verdicts() == {}


FAILS_AT_13 = PEAK + "\nif p['x'] == 13: raise SystemExit('out of memory')\n"
PRINTS_GARBAGE_AT_13 = PEAK + "\nif p['x'] == 13: print('done')\n"
KILLED_AT_13 = PEAK + "\nif p['x'] == 13: os.kill(os.getpid(), 9)\n"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (FAILS_AT_13, "exit code 1, its last line 'out of memory'"),
        (PRINTS_GARBAGE_AT_13, "its last line is no finite fitness: 'done'"),
        (KILLED_AT_13, "killed by SIGKILL"),
    ],
)
@pytest.mark.parametrize("with_baseline", [True, False])
def test_a_promotion_that_breaks_the_trial_holds_up_no_other(
    cycle: Cycle, program: str, said: str, with_baseline: bool
) -> None:
    cycle.trial(program)
    if with_baseline:
        cycle.has_baseline(x=15)
    cycle.promote("breaks", x=13)
    cycle.promote("better", x=10)

    ended = cycle.run()

    assert ended.returncode == 0, ended.stdout
    accepted, fitness, reason = cycle.verdicts()["breaks"]
    assert not accepted
    assert fitness is None
    assert said in reason
    assert cycle.verdicts()["better"][0]


@pytest.mark.parametrize("with_baseline", [True, False])
def test_a_trial_that_can_measure_nothing_fails_the_cycle(cycle: Cycle, with_baseline: bool) -> None:
    cycle.trial("raise SystemExit('no GPU')")
    if with_baseline:
        cycle.has_baseline(x=15)
    cycle.promote("p", x=10)

    ended = cycle.run()

    assert ended.returncode == 12
    assert "no GPU" in ended.stdout
    assert not cycle.wrote_verdicts()


def test_a_host_that_breaks_in_the_middle_is_not_the_promotion_s_fault(cycle: Cycle) -> None:
    cycle.trial(
        "import os\n"
        "path = os.environ['KLR_CYCLE_DIR'] + '/runs'\n"
        "runs = open(path, 'a'); runs.write('x'); runs.close()\n"
        "if os.path.getsize(path) > 3: raise SystemExit('disk gone')\n"
        "print(1)\n"
    )
    cycle.has_baseline(x=15)
    cycle.promote("p", x=10)

    ended = cycle.run()

    assert ended.returncode == 12
    assert not cycle.wrote_verdicts()


def test_a_command_that_does_not_exist_fails_the_cycle_and_says_so(cycle: Cycle) -> None:
    cycle.config.write_text('[dream]\ntrial = ["/no/such/trial"]\n')
    cycle.promote("p", x=10)

    ended = cycle.run()

    assert ended.returncode != 0
    assert "/no/such/trial" in ended.stdout
    assert not cycle.wrote_verdicts()


def test_a_trial_s_children_do_not_outlive_their_run(cycle: Cycle) -> None:
    cycle.trial(
        "import subprocess, sys, os\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "open(os.environ['KLR_CYCLE_DIR'] + '/child', 'w').write(str(child.pid))\n"
        "print(1)\n",
        runs=1,
    )
    cycle.promote("p", x=10)

    ended = cycle.run()

    assert ended.returncode == 0, ended.stdout
    assert not Path(f"/proc/{(cycle.folder / 'child').read_text()}").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"KLR_CYCLE_DIR": ""}, "KLR_CYCLE_DIR is not set"),
        ({"KLR_PROMOTIONS": ""}, "KLR_PROMOTIONS is not set"),
        ({"KLR_PROMOTIONS": "/no/such/file"}, "/no/such/file can't be read"),
        ({"KLR_PROMOTIONS": "/etc/passwd"}, "/etc/passwd is not what a cycle hands over"),
    ],
)
def test_outside_a_cycle_it_says_what_is_missing(cycle: Cycle, changed: dict[str, str], said: str) -> None:
    ended = cycle.run(**changed)

    assert ended.returncode == 1
    assert said in ended.stdout
    assert "Traceback" not in ended.stdout


def test_a_damaged_baseline_fails_the_cycle(cycle: Cycle) -> None:
    cycle.baseline.write_text("{")
    cycle.promote("p", x=10)

    ended = cycle.run()

    assert ended.returncode == 1
    assert "is no baseline" in ended.stdout
    assert not cycle.wrote_verdicts()


def test_the_example_does_what_its_readme_says(cycle: Cycle) -> None:
    bounds = Promotions().bounds
    read = {path.stem: parse(path.read_bytes(), bounds=bounds) for path in (EXAMPLES / "promotions").glob("*.json")}
    valid = {stem: one for stem, one in read.items() if isinstance(one, Promotion)}
    assert set(read) == {"gen26_better", "gen26_worse", "gen26_out_of_bounds"}
    assert set(read) - set(valid) == {"gen26_out_of_bounds"}
    cycle.baseline.write_bytes((EXAMPLES / "baseline.json").read_bytes())
    for stem in sorted(valid):
        cycle.promote(stem, valid[stem].fitness, **valid[stem].changes)

    ended = cycle.run(KLR_CONFIG=str(EXAMPLES / "orchestrator.toml"))

    assert ended.returncode == 0, ended.stdout
    readme = (EXAMPLES / "README.md").read_text()
    for stem, (accepted, fitness, reason) in cycle.verdicts().items():
        assert accepted == (stem == "gen26_better")
        assert fitness == valid[stem].fitness
        assert f"{fitness} |" in readme
        assert "against the baseline's 0.591219" in reason
