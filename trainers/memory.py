"""Memory: how much a process uses, and whether an error means that it ran out. Standard library only (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Iterator
from pathlib import Path

_WORDS = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc",
    "_status_alloc_failed", "cublas_status_not_initialized", "cudnn_status_not_initialized", "nvml_success ==",
)  # fmt: skip
"""Parts of messages. Those with a status mean that a GPU is too full for cuBLAS or cuDNN to start. The last one comes
from torch where memory ran out and it cannot ask NVML how much there is, which its message would say."""


def peak_rss_mb(pid: int | None = None) -> float:
    """Largest resident memory of this or another process, in MiB: since `forget_peak`, or since its beginning where a
    kernel does not forget. Raises `FileNotFoundError` for a process that is gone."""
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) / (1 << 10)
    if pid is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10)
    return rss_mb(pid)  # a kernel that keeps no peaks, or a process that has just ended


def rss_mb(pid: int | None = None) -> float:
    """Resident memory of this or another process now, in MiB; right after a fork it is the part shared with the
    parent."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def unshared_mb() -> float:
    """Memory that this process alone has written, in MiB: the rest is the parent's too, or comes from files."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Private_Dirty":
            return int(value.split()[0]) / (1 << 10)
    raise ValueError("/proc/self/smaps_rollup has no Private_Dirty")


def forget_peak() -> None:
    """Let `peak_rss_mb` begin anew, from what is in use: the allocator gives back what it only keeps."""
    with contextlib.suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):  # a hardened container may forbid it; then passes that grow show their peaks
        Path("/proc/self/clear_refs").write_text("5")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory: CUDA's, Python's, or the CPU allocator's, which is a `RuntimeError`."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(word in str(error).lower() for word in _WORDS)


@contextlib.contextmanager
def while_memory_lasts() -> Iterator[None]:
    """Leave a block where memory runs out in it; any other error goes on."""
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise


def volunteer_for_oom_kill() -> None:
    """Have the kernel kill this process first when memory runs out: a trial can run again, the sweep cannot."""
    with contextlib.suppress(OSError):  # a hardened container may forbid it; then the kernel chooses by size
        Path("/proc/self/oom_score_adj").write_text("800")


def oom_kills() -> int:
    """How many processes the kernel has killed for memory: in this control group where it counts, else in all."""
    for path in _counters():
        with contextlib.suppress(OSError):  # then read the next place
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _counters() -> Iterator[Path]:
    """Files where the kernel may count, the most precise first: control groups of version 2 and 1, the machine."""
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.exists() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield Path("/sys/fs/cgroup") / path.lstrip("/") / "memory.events"
        elif controllers == "memory":
            yield Path("/sys/fs/cgroup/memory") / path.lstrip("/") / "memory.oom_control"
            yield Path("/sys/fs/cgroup/memory/memory.oom_control")
    yield Path("/proc/vmstat")
