"""What is recorded of the machine that trains a trial, and of the repository around a sweep."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from importlib import metadata

from hpo.executors.environment import Environment, environment_here, installed
from hpo.release.manifest import versions_here
from hpo.trials.environment import git_commit, read_environment, write_environment
from hpo.trials.trial_files import write_spec
from tests.hpo.builders import Sweep


def test_this_machine_has_packages_and_a_cpu():
    here = environment_here(["H200"])
    assert {"hpo", "torch", "numpy"} <= set(here.packages)
    assert (here.python.count("."), here.gpus, bool(here.machine)) == (2, ["H200"], True)
    assert here.differences(here) == []
    other = dataclasses.replace(here, packages={**here.packages, "torch": "0"}, gpus=[])
    assert [d.what for d in here.differences(other)] == ["torch", "GPUs"]


def test_a_package_may_be_installed_under_another_name(monkeypatch):
    def version(name):
        if name in ("onnxruntime", "jinja2"):
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    assert installed(["numpy", "onnxruntime", "jinja2"]) == {"numpy": "1.2", "onnxruntime-gpu": "1.2"}
    assert versions_here()["onnxruntime-gpu"] == "1.2"


def test_an_attempt_that_goes_on_elsewhere_is_marked(tmp_path):
    sweep = Sweep(tmp_path)
    paths = sweep.paths(0)
    spec = sweep.specs.spec(0, {"learning_rate": 1e-3}, paths)
    here = environment_here()

    def attempt(environment=here, threads=1):
        one = dataclasses.replace(spec, threads=threads)
        write_environment(environment, one, paths)
        write_spec(one, paths)
        return read_environment(paths).is_mixed

    assert read_environment(paths) is None
    assert not attempt()
    assert not attempt(threads=2)  # nothing was trained yet: it begins anew
    paths.checkpoints.mkdir()
    assert not attempt(threads=2)
    assert attempt(threads=1)
    assert attempt(threads=1)  # it stays marked
    paths.environment.unlink()
    assert not attempt()
    assert attempt(dataclasses.replace(here, python="2.7"))
    assert "home" not in json.dumps(dataclasses.asdict(here))


def test_the_commit_of_a_folder(tmp_path):
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert git_commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "a"], check=True)
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_what_was_not_recorded_is_no_difference():
    assert Environment().differences(environment_here())[0].what == "Python"
    assert Environment("3.11", {}).differences(dataclasses.replace(environment_here(), python="3.11")) == []
