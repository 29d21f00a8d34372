"""How running out of memory is told apart from everything else."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers import memory
from trainers.memory import is_out_of_memory, oom_kills, peak_rss_mb, rss_mb


def caught(call):
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
        return error
    raise AssertionError("nothing was raised")


def test_what_the_cpu_allocator_really_raises_is_out_of_memory():
    error = caught(lambda: torch.empty(1 << 46))
    assert type(error) is RuntimeError
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "call", [lambda: np.empty(1 << 58), lambda: bytearray(1 << 60)], ids=["numpy", "python"]
)  # fmt: skip
def test_what_python_and_numpy_really_raise_is_too(call):
    assert is_out_of_memory(caught(call))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: ..."),
        RuntimeError("[enforce fail at CPUAllocator.cpp:64] DefaultCPUAllocator: not enough memory: you tried to ..."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1131'),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:60],
)
def test_it_has_many_names(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x32 and 64x2)"),
        RuntimeError("unsupported memory format option ChannelsLast"),
        ValueError("the label is 'out of memory'"),
        KeyError("can't allocate memory"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SystemExit(1),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:60],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_resident_memory_rises_and_falls_and_its_peak_stays():
    before = rss_mb()
    block = np.ones(64 << 17)  # 64 MB
    held = rss_mb()
    assert 50 < held - before < 100
    assert peak_rss_mb() >= held - 1
    del block
    assert rss_mb() < held - 50
    assert peak_rss_mb() >= held - 1


def test_a_process_that_has_just_ended_has_no_peak():
    """Until somebody waits for it, the kernel lists it, without any memory."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert peak_rss_mb(pid) == 0
    os.waitpid(pid, 0)


VOLUNTEER = """
from pathlib import Path
from trainers.memory import volunteer_for_oom_kill
volunteer_for_oom_kill()
print(Path("/proc/self/oom_score_adj").read_text())
"""


def test_a_trial_volunteers_to_be_killed_first():
    done = subprocess.run([sys.executable, "-c", VOLUNTEER], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 800


def test_where_it_may_not_it_goes_on(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        memory, "Path", lambda path: asked.append(path) or tmp_path / "no such folder" / path.lstrip("/")
    )
    memory.volunteer_for_oom_kill()
    assert (asked, list(tmp_path.iterdir())) == (["/proc/self/oom_score_adj"], [])


# --- the kernel's counters -----------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Files of a machine, by their paths."""
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / path.lstrip("/"))

    def write(files):
        for path, text in files.items():
            (tmp_path / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path.lstrip("/")).write_text(text)

    return write


VMSTAT = {"/proc/vmstat": "nr_free_pages 9\noom_kill 100\n"}
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        (
            {
                "/proc/self/cgroup": "0::/user.slice/sweep\n",
                "/sys/fs/cgroup/user.slice/sweep/memory.events": "low 0\nhigh 5\nmax 7\noom 3\noom_kill 2\n",
                **VMSTAT,
            },
            2,
        ),
        (
            {
                "/proc/self/cgroup": "9:cpu:/\n4:memory:/docker/abc\n0::/\n",
                "/sys/fs/cgroup/memory/docker/abc/memory.oom_control": V1.format(4),
                "/sys/fs/cgroup/memory/memory.oom_control": V1.format(50),
                **VMSTAT,
            },
            4,
        ),
        (  # a container that sees only its own group, mounted at the top
            {
                "/proc/self/cgroup": "4:memory:/docker/abc\n",
                "/sys/fs/cgroup/memory/memory.oom_control": V1.format(5),
                **VMSTAT,
            },
            5,
        ),
        ({"/proc/self/cgroup": "0::/\n", **VMSTAT}, 100),
        (  # an old kernel, whose group does not count
            {
                "/proc/self/cgroup": "4:memory:/a\n",
                "/sys/fs/cgroup/memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n",
                **VMSTAT,
            },
            100,
        ),
        ({"/proc/self/cgroup": "0::/\n", "/proc/vmstat": "nr_free_pages 9\n"}, 0),
        ({"/proc/self/cgroup": "0::/\n"}, 0),
        (VMSTAT, 100),  # a kernel without control groups
    ],
)
def test_the_most_precise_counter_is_read(machine, files, count):
    machine(files)
    assert oom_kills() == count


def test_this_machine_counts():
    assert oom_kills() >= 0
    assert Path("/proc/vmstat").exists()


def test_a_peak_can_be_forgotten_and_what_was_written_is_this_process_s_own():
    memory.forget_peak()
    before, own = memory.peak_rss_mb(), memory.unshared_mb()
    written = np.ones(64 << 17)  # 64 MiB
    assert memory.peak_rss_mb() > before + 60
    assert memory.unshared_mb() > own + 60
    del written
    memory.forget_peak()
    assert memory.peak_rss_mb() < before + 30
