"""The machine as trials see it: Python, cores, memory, and variables that slow them down or hide the network."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator, Mapping

from hpo.care.finding import Finding
from hpo.executors.free_memory import available_memory_mb, ends_together
from hpo.trials.slots import AMPLE_MB
from trainers.runtime.cores import usable_cores

LOW_MEMORY_MB = 2048
FEW_FILES = 1024
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PINNING = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_NO = ("", "0", "false", "no", "off")


def look_at_machine() -> Iterator[Finding]:
    """Python, cores, memory and open files."""
    yield _python()
    every, usable = os.cpu_count() or 1, usable_cores()
    limit = "" if usable == every else f" of {every} (by affinity or a control group's quota)"
    yield Finding("ok", "cores", f"{usable}{limit}; so many trials run side by side where memory allows")
    yield _memory(usable)
    if ends_together():
        found = "where it runs out, the kernel ends the whole sweep, not one trial (memory.oom.group)"
        yield Finding("note", "memory", found, "leave room with trials.memory_gb, or on "
                      "Kubernetes have the kubelet set singleProcessOOMKill: true")  # fmt: skip
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < FEW_FILES:
        yield Finding("note", "open files", f"at most {files}", f"allow more: ulimit -n {FEW_FILES}")


def _python() -> Finding:
    version = f"{platform.python_version()} ({sys.executable})"
    if platform.system() != "Linux":
        return Finding("problem", "Python", f"{version} on {platform.system()}",
                       "trials fork, which is safe on Linux only: use a Linux machine or container")  # fmt: skip
    return Finding("ok", "Python", version)


def _memory(usable: int) -> Finding:
    free = available_memory_mb()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    found = f"{free / 1024:.1f} GiB free of {total / 1024:.1f} GiB"
    if free < LOW_MEMORY_MB:
        return Finding("problem", "memory", found, "end other programs: even one trial may not fit")
    if free < AMPLE_MB * usable:
        return Finding("note", "memory", found, "a sweep will measure a trial first, and may run fewer side by side")
    return Finding("ok", "memory", found)


def look_at_variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that change how fast trials are, or what they reach. Values that may have a password are not shown."""
    yield from _speed(environment)
    offline = [name for name in _OFFLINE if environment.get(name, "").lower() not in _NO]
    if offline:
        yield Finding("note", "hub", f"{', '.join(offline)} is set: hub ids are read from the cache only",
                      "unset it to fetch what the cache lacks")  # fmt: skip
    proxies = [name for name in _PROXIES if environment.get(name) or environment.get(name.upper())]
    if proxies:
        beside = environment.get("no_proxy") or environment.get("NO_PROXY")
        if beside:
            yield Finding("ok", "proxy", f"{', '.join(proxies)}; not for {beside}")
        else:
            yield Finding("note", "proxy", f"{', '.join(proxies)} without no_proxy: requests to your own servers "
                          "go there too", "name them: export no_proxy=localhost,127.0.0.1,HOST")  # fmt: skip


def _speed(environment: Mapping[str, str]) -> Iterator[Finding]:
    counts = [f"{name}={environment[name]}" for name in _THREADS if environment.get(name)]
    if counts:
        yield Finding("ok", "threads", f"{', '.join(counts)}: trials do not use it; --threads sets theirs")
    if environment.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE" or environment.get("GOMP_SPINCOUNT", "0") != "0":
        yield Finding("note", "threads", "OMP_WAIT_POLICY or GOMP_SPINCOUNT makes waiting threads spin: trials beside "
                      "each other then take several times as long", "unset both")  # fmt: skip
    pinning = [name for name in _PINNING if environment.get(name)]
    if environment.get("OMP_PROC_BIND", "false").lower() not in _NO:
        pinning.append("OMP_PROC_BIND")
    if pinning:
        yield Finding("note", "threads", f"{', '.join(pinning)} is set: trials beside each other may be bound to the "
                      "same cores", "unset it")  # fmt: skip
    if environment.get("CUDA_LAUNCH_BLOCKING", "0") != "0":
        yield Finding("note", "CUDA", "CUDA_LAUNCH_BLOCKING is set: every step on a GPU is slower", "unset it")
    if "CUDA_VISIBLE_DEVICES" in environment:
        shown = environment["CUDA_VISIBLE_DEVICES"] or "(empty: no GPU)"
        yield Finding("note", "CUDA", f"CUDA_VISIBLE_DEVICES={shown}: trials see only these GPUs")
