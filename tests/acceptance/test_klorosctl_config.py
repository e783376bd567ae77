"""`klorosctl config`: where each value comes from, and every fault at once; and the completion of the shells."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from orchestration.configuration import load
from tests.acceptance.host import PYTHON, Host


def test_every_value_is_shown_with_its_source(host: Host) -> None:
    host.configure('[dream]\ntimeout = "45min"\n[phase.domains.unit]\ncommand = ["make", "test"]\n')
    host.set(KLR_DREAM_TRIAL_RUNS="3")
    found = json.loads(host.run("klorosctl", "config", "show", "--json").stdout)
    assert found["dream.timeout"] == {"value": 2700.0, "source": str(host.config)}
    assert found["dream.trial_runs"] == {"value": 3, "source": "KLR_DREAM_TRIAL_RUNS"}
    assert found["dream.park_after"] == {"value": 5, "source": "default"}
    assert found["acks_dir"] == {"value": f"{host.state}/promotions_ack", "source": "follows state_dir"}
    assert found["phase.domains"]["value"]["unit"]["command"] == ["make", "test"]


@pytest.mark.parametrize("written", [False, True])
def test_only_the_hosts_own_state_writes_the_hosts_textfile(tmp_path: Path, written: bool) -> None:
    """A tick over a copy of the state, by root, must leave alone what node_exporter reads of this host."""
    config = tmp_path / "orchestrator.toml"

    def textfile(state_dir: str) -> str:
        config.write_text(f"state_dir = '{state_dir}'\n" if written else "state_dir = '/var/lib/kloros'\n")
        variables = {} if written else {"KLR_STATE_DIR": state_dir}
        return load({"KLR_CONFIG": str(config), **variables}).textfile

    of_the_host = "/var/lib/prometheus/node-exporter/kloros.prom"
    assert (textfile("/var/lib/kloros"), textfile("/var/lib/kloros/")) == (of_the_host, of_the_host)
    assert textfile(f"{tmp_path}/copy") == f"{tmp_path}/copy/kloros.prom"
    assert textfile("/var/lib/kloros2/") == "/var/lib/kloros2/kloros.prom"
    named = {"KLR_CONFIG": str(config), "KLR_STATE_DIR": str(tmp_path), "KLR_TEXTFILE": "/srv/metrics/k.prom"}
    assert load(named).textfile == "/srv/metrics/k.prom"


def test_the_textfile_of_another_state_is_said_to_follow_it(host: Host) -> None:
    host.config.write_text("")
    found = json.loads(host.run("klorosctl", "config", "show", "--json").stdout)
    assert found["textfile"] == {"value": f"{host.state}/kloros.prom", "source": "follows state_dir"}


def test_what_is_shown_is_a_settings_file_that_means_the_same(host: Host) -> None:
    host.configure('[phase]\nbackoff = ["90s", "1.5s"]\n[phase.domains.unit]\ncommand = ["make", "a b"]\n')
    host.configure('[promotions.bounds]\n"l.r" = [0, 1]\n[phase.needs]\ncpus = 4\n')
    host.configure('[agents.reviewer]\nruntime = "codex"\n')
    shown = host.run("klorosctl", "config", "show").stdout
    assert tomllib.loads(shown)
    before = load(host.environ)
    host.config.write_text(shown)
    assert load({"KLR_CONFIG": str(host.config)}) == before


def test_check_lists_every_fault_and_ends_with_78(host: Host) -> None:
    assert host.run("klorosctl", "config", "check").returncode == 0
    host.configure("windows = 1\n[dream]\npark_after = 0\n[phase]\ncommand = 3\n")
    done = host.run("klorosctl", "config", "check")
    assert done.returncode == 78
    for part in ("windows", "park_after", "phase.command", str(host.config)):
        assert part in done.stderr
    document = host.run("klorosctl", "config", "check", "--json")
    assert (document.returncode, len(json.loads(document.stdout)["faults"])) == (78, 3)


def test_a_command_with_an_open_quote_is_a_fault_of_the_settings(host: Host) -> None:
    host.set(KLR_DREAM_COMMAND='echo "never closed')
    for entry in ("run_once", "run_cycle"):
        done = host.run(entry)
        assert (done.returncode, "KLR_DREAM_COMMAND" in done.stderr, "Traceback" in done.stderr) == (78, True, False)
    host.set(KLR_DREAM_COMMAND="true")
    loop = host.run("run_loop", "--command", 'echo "never closed')
    assert (loop.returncode in (64, 78), "--command" in loop.stderr, "Traceback" in loop.stderr) == (True, True, False)


def test_a_variable_that_no_setting_has_is_told(host: Host) -> None:
    host.set(KLR_DREAM_TIMOUT="3", KLR_CYCLE="4")
    done = host.run("klorosctl", "config", "check")
    assert done.returncode == 0
    assert "KLR_DREAM_TIMOUT is no setting, did you mean KLR_DREAM_TIMEOUT?" in done.stderr
    assert "KLR_CYCLE" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(host: Host, shell: str) -> None:
    script = host.run("klorosctl", "completion", shell).stdout
    assert f"_KLOROSCTL_COMPLETE={shell}_complete" in script


def test_completion_knows_commands_and_names(host: Host) -> None:
    script = host.run("klorosctl", "completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    host.promote("slow-but-sure")
    assert completed(host, "klorosctl sta") == ["plain,status"]
    assert completed(host, "klorosctl promotions show slow") == ["plain,slow-but-sure"]


def completed(host: Host, words: str) -> list[str]:
    environ = {**host.environ, "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    environ["_KLOROSCTL_COMPLETE"] = "bash_complete"
    command = [PYTHON, "-m", "orchestration.klorosctl"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
