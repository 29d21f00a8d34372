"""How many cores a process may use: its affinity, and the quotas of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.runtime.cores import usable_cores

PERIOD = 100_000


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


def written(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


def version_2(root: Path, group: str, quotas: dict[str, str]) -> Path:
    """`quotas`: a group below /sys/fs/cgroup -> its cpu.max."""
    files = {f"sys/fs/cgroup/{name}/cpu.max": quota for name, quota in quotas.items()}
    return written(root, **{"proc/self/cgroup": f"0::{group}"}, **files)


def version_1(root: Path, group: str, quotas: dict[str, int]) -> Path:
    files = {f"sys/fs/cgroup/cpu/{name}/cpu.cfs_quota_us": str(quota) for name, quota in quotas.items()}
    periods = {f"sys/fs/cgroup/cpu/{name}/cpu.cfs_period_us": str(PERIOD) for name in quotas}
    groups = f"5:memory:/elsewhere\n4:cpuacct,cpu:{group}\n0::/"
    return written(root, **{"proc/self/cgroup": groups}, **files, **periods)


def test_a_machine_without_control_groups_has_the_cores_of_the_affinity(tmp_path):
    assert usable_cores(tmp_path) == 16


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({}, 16),
        ({".": "max 100000"}, 16),
        ({".": "max 100000", "a/b": "200000 100000"}, 2),
        ({"a": "300000 100000", "a/b": "max 100000"}, 3),  # a group around it
        ({".": "800000 100000", "a": "100000 50000", "a/b": "400000 100000"}, 2),  # the smallest
        ({"a/b": "3200000 100000"}, 16),  # more than there are
        ({"a/b/c": "100000 100000", "d": "100000 100000"}, 16),  # not around it
    ],
)
def test_the_smallest_quota_of_a_group_and_those_around_it(tmp_path, quotas, cores):
    assert usable_cores(version_2(tmp_path, "/a/b", quotas)) == cores


@pytest.mark.parametrize(("quotas", "cores"), [({"a": -1, "a/b": 250_000}, 3), ({".": 400_000, "a/b": -1}, 4)])
def test_version_1(tmp_path, quotas, cores):
    assert usable_cores(version_1(tmp_path, "/a/b", quotas)) == cores


@pytest.mark.parametrize("group", ["/docker/4f1c", "/../../system.slice", "/"])
def test_in_a_container_only_its_own_group_is_seen(tmp_path, group):
    assert usable_cores(version_2(tmp_path, group, {".": "200000 100000"})) == 2


@given(millicores=st.integers(1, 64_000))
def test_a_quota_is_rounded_and_never_none_at_all(tmp_path_factory, millicores):
    root = version_2(tmp_path_factory.mktemp("root"), "/", {".": f"{millicores * PERIOD // 1000} {PERIOD}"})
    assert 1 <= usable_cores(root) <= 16
    assert abs(usable_cores(root) - min(16.0, millicores / 1000)) <= 0.5 or millicores < 500
