"""How many cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use now: those of its affinity, or fewer where a control group's quota of CPU
    time is smaller (rounded, at least 1). `root` is where /proc and /sys are.
    """
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([known, *(int(quota + 0.5) for quota in _cpu_quotas(root))]))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """The quotas of this process's control group and of all groups around it, in cores (Linux, versions 2 and 1)."""
    for line in (_content(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            for group in _groups(root / "sys/fs/cgroup", path):
                quota, _, period = (_content(group / "cpu.max") or "max").partition(" ")
                if quota != "max":
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for group in _groups(root / "sys/fs/cgroup/cpu", path):  # also a link to cpu,cpuacct
                given, per = _content(group / "cpu.cfs_quota_us"), _content(group / "cpu.cfs_period_us")
                if given and per and int(given) > 0:  # -1: without a limit
                    yield int(given) / int(per)


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """A control group's folder and those around it. In a container `path` may be the host's: then only `mount` is
    there, which is the container's own group."""
    group = mount / path.lstrip("/")
    yield group
    while group != mount:
        group = group.parent
        yield group


def _content(file: Path) -> str | None:
    """The content of a kernel's file without the line's end; None where there is none to read."""
    try:
        return file.read_text().strip()
    except OSError:
        return None
