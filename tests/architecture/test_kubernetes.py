"""docs/how-to/kubernetes.md: its manifests hold against the published schemas, and say what the program says."""

from __future__ import annotations

import copy
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from orchestration import configuration
from orchestration.bridge.http import face
from orchestration.scope.lease import LONGEST_WAIT
from orchestration.settings import Settings
from tests.acceptance import recipes

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/how-to/kubernetes.md").read_text()
VERSIONS = ("1.25", "1.31", "1.37")
"""The oldest and newest whose schemas the package carries, and one between."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


_MANIFESTS, _VARIABLES = blocks("yaml")
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all(_MANIFESTS))
VARIABLES: list[dict[str, Any]] = yaml.safe_load(_VARIABLES)["env"]
"""What each container of a host gets besides where several share a PostgreSQL."""


def named(kind: str, name: str) -> dict[str, Any]:
    return next(one for one in MANIFESTS if one["kind"] == kind and one["metadata"]["name"] == name)


def pods() -> Iterator[dict[str, Any]]:
    for one in MANIFESTS:
        if one["kind"] == "CronJob":
            yield one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif one["kind"] == "Deployment":
            yield one["spec"]["template"]["spec"]


def containers() -> Iterator[dict[str, Any]]:
    for pod in pods():
        yield from pod["containers"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_a_manifest_holds_against_the_published_schema(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_with_an_unknown_field_does_not() -> None:
    wrong = {**named("Service", "kloros-bridge"), "spec": {"port": 9411}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_no_two_ticks_are_started_at_once() -> None:
    for name in ("kloros-tick", "kloros-cycle"):
        spec = named("CronJob", name)["spec"]
        assert spec["concurrencyPolicy"] == "Forbid"
        assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0, "what failed is tried again by the next tick"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_of_one_host_among_several_holds_too_and_its_variables_are_settings(version: str) -> None:
    for kind, name in (("CronJob", "kloros-tick"), ("CronJob", "kloros-cycle"), ("Deployment", "kloros-bridge")):
        manifest = copy.deepcopy(named(kind, name))
        spec = manifest["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else manifest["spec"]
        for container in spec["template"]["spec"]["containers"]:
            container["env"] = VARIABLES
        kubernetes_validate.validate(manifest, version, strict=True)
    names = [one["name"] for one in VARIABLES]
    assert names == ["KLR_SCOPE_HOST", "KLR_DATABASE_URL"], "a pod's own name is no host's: see the page"
    given = {"KLR_SCOPE_HOST": VARIABLES[0]["value"], "KLR_DATABASE_URL": "postgresql://db/kloros"}
    loaded = configuration.load({"KLR_STATE_DIR": "/nowhere", "KLR_CONFIG": str(TOP / "systemd/orchestrator.toml"), **given})
    assert loaded.scope.host == VARIABLES[0]["value"]


def test_a_tick_may_wait_for_a_lease_before_its_pod_is_ended() -> None:
    job = named("CronJob", "kloros-tick")["spec"]["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] > 2 * LONGEST_WAIT.total_seconds()


def test_each_host_has_one_bridge() -> None:
    assert named("Deployment", "kloros-bridge")["spec"]["replicas"] == 1


def test_every_command_is_an_entry_of_ours() -> None:
    for one in containers():
        *python, module = one["command"][:4]
        assert python == ["python", "-P", "-m"]
        assert importlib.util.find_spec(module), module


def test_probes_ask_what_the_bridge_answers() -> None:
    (bridge,) = [one for one in containers() if one["name"] == "bridge"]
    asked = {name: one["httpGet"]["path"] for name, one in bridge.items() if name.endswith("Probe")}
    assert asked == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert set(asked.values()) <= set(face.PREFIXES)
    assert bridge["ports"][0]["containerPort"] == Settings.model_fields["bridge"].default.port


def test_every_pod_is_confined_and_on_the_node_of_the_state() -> None:
    assert {pod["nodeName"] for pod in pods()} == {"NODE"}
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods())
    for one in containers():
        assert one["securityContext"]["readOnlyRootFilesystem"]
        assert "/var/lib/kloros" in {mount["mountPath"] for mount in one["volumeMounts"]}


def test_its_settings_are_settings() -> None:
    told = tomllib.loads(named("ConfigMap", "kloros")["data"]["orchestrator.toml"])
    Settings.model_validate({"state_dir": "/var/lib/kloros", **told})


RECIPES = {
    "kubernetes.md": "".join(blocks("dockerfile")),
    "continuous-loop.md, container": recipes.fenced("dockerfile"),
    "continuous-loop.md, supervisord": recipes.fenced("ini"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_variable_of_a_recipe_is_a_setting_and_its_value_is_taken(recipe: str) -> None:
    given = dict(re.findall(r'\b(KLR_\w+)="?([^\s"]+)', RECIPES[recipe]))
    assert given
    known = configuration.variables(Settings)
    assert set(given) - {"KLR_CONFIG"} <= set(known)
    configuration.load({"KLR_STATE_DIR": "/nowhere", **given, "KLR_CONFIG": str(TOP / "systemd/orchestrator.toml")})
