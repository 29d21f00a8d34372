"""`docker/kubernetes/`: manifests that their schemas accept, closed pods, commands and variables that exist."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

from tests.docker.commands import assert_is_a_command
from tests.docker.compose import FOLDER, services
from tests.docker.test_compose import entry_point_s

DOCUMENTS = [
    document
    for path in sorted((FOLDER / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
NAMES = [f"{document['kind']}/{document['metadata']['name']}" for document in DOCUMENTS]


def pods(value: Any) -> list[dict[str, Any]]:
    """The descriptions of pods inside a manifest."""
    if isinstance(value, list):
        return [pod for found in value for pod in pods(found)]
    if not isinstance(value, dict):
        return []
    return [value] if "containers" in value else [pod for found in value.values() for pod in pods(found)]


PODS = [(name, pod) for name, document in zip(NAMES, DOCUMENTS, strict=True) for pod in pods(document)]


def test_there_is_one_of_each():
    assert NAMES == [
        "Job/hpo-fetch", "CronJob/hpo-nightly", "RayCluster/hpo-ray", "Job/hpo-ray-sweep",
        "PersistentVolumeClaim/hpo-home", "Job/hpo-sweep",
    ]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_kubernetes_accepts_it(document):
    """By its own schemas. KubeRay's are not in a package: of its manifest, the pods are looked at."""
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    whole = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod} for pod in pods(document)]
    if document["kind"] != "RayCluster":
        whole.append(document)
    problems = []
    for one in whole:
        try:
            validate.validate(one, validate.latest_version(), strict=True)
        except validate.ValidationError as error:
            problems.append(str(error))
    assert problems == []


@pytest.mark.parametrize("pod", [pod for _, pod in PODS], ids=[name for name, _ in PODS])
def test_a_pod_is_closed(pod):
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


@pytest.mark.parametrize("pod", [pod for _, pod in PODS], ids=[name for name, _ in PODS])
def test_variables_are_those_of_the_compose_file_and_secrets_are_named_only(pod):
    known = {*services()["sweep"].environment, *(f"{name}_FILE" for name in entry_point_s())}
    known |= {"HPO_NODE_HOME", "RAY", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_memory_monitor_refresh_ms"}
    for variable in pod["containers"][0].get("env", []):
        assert variable["name"] in known
        if "TOKEN" in variable["name"]:
            assert "secretKeyRef" in variable["valueFrom"]
        elif variable["name"].endswith("_FILE"):
            assert variable["value"].startswith("/run/secrets/hpo/")


@pytest.mark.parametrize("pod", [pod for _, pod in PODS if "args" in pod["containers"][0]])
def test_a_command_exists_with_its_options(pod):
    words = pod["containers"][0]["args"]
    commands = [words] if words[0] == "hpo" else [shlex.split(part) for part in words[2].split("&&")]
    for command in commands:
        assert_is_a_command([word for word in command if word != "exec"])
    if "fetch" not in words[-1]:  # a sweep pauses with checkpoints
        assert pod["terminationGracePeriodSeconds"] > 120


def test_what_the_demo_sweep_trains_with_is_fetched_first():
    """The sweep that the manifests run names a model and data of the home's cache, which a new claim does not have."""
    sweep = (FOLDER.parent / "search_spaces" / "movie-sentiment.yaml").read_text()
    (pod,) = [pod for name, pod in PODS if name == "Job/hpo-fetch"]
    script = pod["containers"][0]["args"][-1]
    assert set(re.findall(r"hpo fetch (\S+)", script)) == set(re.findall(r"fetch:(\S+)", sweep))


def test_ray_s_workers_see_what_the_command_sees():
    """With `shared_home` nothing is sent: home and sweeps lie on the same paths everywhere."""
    containers = [pod["containers"][0] for name, pod in PODS if "ray" in name]
    mounts = {c["name"]: {mount["name"]: mount["mountPath"] for mount in c["volumeMounts"]} for c in containers}
    for name in ("ray-worker", "sweep"):
        assert (mounts[name]["home"], mounts[name]["sweeps"]) == ("/var/lib/hpo", "/sweeps")


def test_ray_is_started_with_options_that_it_has_and_without_its_dashboard():
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed")
    options = {option for parameter in scripts.start.params for option in parameter.opts}
    spec = next(document["spec"] for document in DOCUMENTS if document["kind"] == "RayCluster")
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"]["include-dashboard"] == "false"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert {f"--{name}" for name in group["rayStartParams"]} <= options
