"""Memory that control groups allow, as both versions of the kernel's files say it."""

import math

import pytest

from hpo.executors import free_memory
from hpo.executors.free_memory import MB, allowed_mb, available_memory_mb, ends_together


@pytest.fixture
def machine(tmp_path):
    def make(lines, files):
        for name, content in {"proc/self/cgroup": lines, **files}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")
        return tmp_path

    return make


def test_without_a_limit_there_is_no_bound(machine):
    assert (
        allowed_mb(machine("0::/a", {"sys/fs/cgroup/a/memory.max": "max", "sys/fs/cgroup/a/memory.current": 5}))
        == math.inf
    )


def test_version_2_counts_files_that_can_be_dropped_as_free_and_the_smallest_room_of_all_groups_around(machine):
    root = machine("0::/a/b", {
        "sys/fs/cgroup/a/b/memory.max": 900 * MB, "sys/fs/cgroup/a/b/memory.current": 500 * MB,
        "sys/fs/cgroup/a/b/memory.stat": f"anon 7\ninactive_file {100 * MB}",
        "sys/fs/cgroup/a/memory.max": 600 * MB, "sys/fs/cgroup/a/memory.current": 550 * MB,
    })  # fmt: skip
    assert allowed_mb(root) == 50
    (root / "sys/fs/cgroup/a/memory.max").write_text("max\n")
    assert allowed_mb(root) == 500


def test_version_1_and_a_container_that_sees_only_its_own_group(machine):
    root = machine("9:cpu:/x\n4:memory:/docker/abc", {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 300 * MB, "sys/fs/cgroup/memory/memory.usage_in_bytes": 200 * MB,
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MB}",
    })  # fmt: skip
    assert allowed_mb(root) == 120


@pytest.mark.parametrize(("written", "ends"), [({}, False), ({"a": 0, "a/b": 0}, False), ({"a": 1, "a/b": 0}, True)])
def test_a_group_whose_processes_end_together_is_known(machine, written, ends):
    files = {f"sys/fs/cgroup/{group}/memory.oom.group": flag for group, flag in written.items()}
    assert ends_together(machine("0::/a/b", files)) is ends


def test_a_kernel_that_does_not_estimate_is_named(monkeypatch, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  100 kB\nMemFree:  50 kB\n")
    monkeypatch.setattr(free_memory, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    with pytest.raises(ValueError, match="MemAvailable"):
        available_memory_mb()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  100 kB\nMemAvailable:   2048 kB\n")
    assert available_memory_mb() == 2.0
