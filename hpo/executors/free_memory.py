"""Memory that new processes can use: what the kernel has, and what the control groups around this process still allow
(Linux, versions 2 and 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

MB = 1 << 20
FILES = {
    "2": ("memory.max", "memory.current", "inactive_file"),
    "1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Version -> where the limit and the use are, and what `memory.stat` calls pages of files that can be dropped."""


def available_memory_mb() -> float:
    """Memory that new processes can use without swapping, as the kernel estimates it, or less where a control group
    allows less.

    Raises `ValueError` where /proc/meminfo does not say it.
    """
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return min(int(value.split()[0]) / 1024, allowed_mb())
    raise ValueError("/proc/meminfo has no MemAvailable")


def allowed_mb(root: Path = Path("/")) -> float:
    """In MiB; infinite without a limit. `root` is where /proc and /sys are."""
    return min((_room_mb(group, *names) for group, names in _groups(root)), default=math.inf)


def ends_together(root: Path = Path("/")) -> bool:
    """Whether the kernel, where the memory of a control group around this process runs out, ends all processes there
    instead of one. `root` is as above."""
    return any(_content(group / "memory.oom.group") == "1" for group, _ in _groups(root))


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The control groups around this process, each with the names of its `FILES`."""
    for line in (_content(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mount, names = root / "sys/fs/cgroup", FILES["2"]
        elif "memory" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/memory", FILES["1"]
        else:
            continue
        group = mount / path.lstrip("/")
        # In a container the path may be the host's: then only `mount` is there, which is the container's own group.
        for folder in (group, *group.parents[: len(group.parts) - len(mount.parts)]):
            yield folder, names


def _room_mb(group: Path, limit: str, used: str, droppable: str) -> float:
    most, now, stat = (_content(group / name) for name in (limit, used, "memory.stat"))
    if not most or not now or most == "max":
        return math.inf
    freed = sum(int(value) for name, _, value in (line.partition(" ") for line in (stat or "").splitlines())
                if name == droppable)  # fmt: skip
    return max(0.0, (int(most) - int(now) + freed) / MB)


def _content(file: Path) -> str | None:
    """The content of a kernel's file without the line's end; None where there is none to read."""
    try:
        return file.read_text().strip()
    except OSError:
        return None
