"""The GPUs of this machine, as a child process finds them: this process does not touch CUDA."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

from hpo.care.finding import Finding
from hpo.module_command import module_command
from trainers.protocol.codec import from_json
from trainers.protocol.device_facts import DeviceFacts, Gpu

LIMIT_S = 90.0
"""Importing torch takes seconds, and more on a busy machine."""
_DRIVER_LIMIT_S = 20.0
_CROWDED = 0.9
_BF16_FROM = 8


def look_at_gpus() -> Iterator[Finding]:
    """Torch's build, the driver's GPUs, and those of them that torch can use."""
    command = module_command("trainers.prepare.device_facts")
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        yield Finding("problem", "torch", f"cannot be imported: {last[:200]}", "install it again")
        return
    facts = from_json(DeviceFacts, json.loads(done.stdout.splitlines()[-1]))
    yield Finding("ok", "torch", f"{facts.torch}, built for {f'CUDA {facts.built_for}' if facts.built_for else 'CPUs'}")
    present = driver_gpus()
    if facts.problem or not facts.gpus:
        yield _none(facts, present)
    elif len(present) > len(facts.gpus):
        yield Finding("note", "GPUs", f"torch can use {len(facts.gpus)} of the driver's {len(present)}")
    for number, gpu in enumerate(facts.gpus):
        yield _gpu(number, gpu, present[0].partition(", ")[2] if present else "")


def driver_gpus() -> list[str]:
    """`NAME, DRIVER` of each GPU that NVIDIA's driver knows; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_LIMIT_S, check=False)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _none(facts: DeviceFacts, present: list[str]) -> Finding:
    if facts.problem:
        return Finding(
            "problem",
            "GPUs",
            f"cannot be used, so trials run on the CPU: {facts.problem}",
            "install a torch that was built for them, update the driver, or end what holds them",
        )
    if not present:
        return Finding("ok", "GPUs", "none; trials run on the CPU")
    there = f"{len(present)} ({present[0]})"
    if not facts.built_for:
        return Finding("problem", "GPUs", f"{there}, but torch was built for CPUs",
                       "install a build for CUDA: make TORCH_INDEX=URL install")  # fmt: skip
    return Finding("problem", "GPUs", f"{there}, but torch, built for CUDA {facts.built_for}, finds none",
                   "update the driver, or install a torch that was built for an earlier CUDA")  # fmt: skip


def _gpu(number: int, gpu: Gpu, driver: str) -> Finding:
    found = f"{gpu.name}, {gpu.free_mb / 1024:.1f} GiB free of {gpu.memory_mb / 1024:.1f} GiB"
    found += f", driver {driver}" if driver else ""
    if int(gpu.capability.partition(".")[0]) < _BF16_FROM:
        found += f", compute capability {gpu.capability}: precision bf16 is slow on it, fp16 is not"
    if gpu.free_mb < (1 - _CROWDED) * gpu.memory_mb:
        return Finding("note", f"GPU {number}", found, "other programs hold most of its memory: end them")
    return Finding("ok", f"GPU {number}", found)
