"""The machine and its packages, here or on a node: what a trial's numbers depend on besides its spec."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hpo.quoting import clipped, listed

PACKAGES = (
    "hpo", "torch", "transformers", "peft", "safetensors", "tokenizers", "bitsandbytes", "numpy", "scipy", "optuna",
    "mlflow", "onnx", "onnxruntime",
)  # fmt: skip
_OTHER_BUILDS = {"onnxruntime": ("onnxruntime-gpu",)}
"""Package -> other distributions that are installed in its place."""
_DECIDING_FLAGS = ("avx", "amx", "fma", "f16c", "sse", "asimd", "sve", "bf16", "i8mm")
"""How the names of those CPU flags begin by which libraries choose their code."""


class Difference(NamedTuple):
    """One thing that is not as it was."""

    what: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.was} -> {self.now}"


@dataclass(frozen=True)
class Environment:
    """A machine with its packages. It names no user, no folder and no variable."""

    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    """Those of `PACKAGES` that are installed, with their versions."""
    machine: str = ""
    """`x86_64`, `aarch64`."""
    cpu: str = ""
    """The model's name, as the kernel has it."""
    cpu_flags: list[str] = field(default_factory=list)
    """Those that decide which code libraries run."""
    gpus: list[str] = field(default_factory=list)
    is_mixed: bool = False
    """Whether an earlier attempt, whose checkpoint this one went on from, had another one or other threads."""

    def differences(self, now: Environment) -> list[Difference]:
        """In what `now` is another environment, as far as this one was recorded."""
        packages = [Difference(n, was, now.packages.get(n, "absent")) for n, was in sorted(self.packages.items())]
        gone = [flag for flag in self.cpu_flags if flag not in now.cpu_flags]
        new = [flag for flag in now.cpu_flags if flag not in self.cpu_flags]
        hardware = [
            Difference("machine", self.machine, now.machine),
            Difference("CPU", self.cpu, now.cpu),
            Difference("CPU flags", listed(gone) or "-", listed(new) or "-"),
            Difference("GPUs", listed(self.gpus) or "none", listed(now.gpus) or "none"),
        ]
        every = [Difference("Python", self.python, now.python), *packages, *(hardware if self.machine else ())]
        return [found for found in every if found.was != found.now]


def environment_here(gpus: Sequence[str] = ()) -> Environment:
    """This machine with its packages; `gpus` are the names of those that trials may use."""
    cpu, flags = _cpu()
    return Environment(platform.python_version(), dict(_packages()), platform.machine(), cpu, list(flags), list(gpus))


@cache
def _packages() -> tuple[tuple[str, str], ...]:
    return tuple(installed(PACKAGES).items())


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Distribution -> version, of those of the packages that are installed: `onnxruntime` may be `onnxruntime-gpu`."""
    from importlib import metadata  # late: a report only reads what was installed then

    found = {}
    for package in packages:
        for name in (package, *_OTHER_BUILDS.get(package, ())):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue  # another build, or an extra that is not installed
            break
    return found


@cache
def _cpu() -> tuple[str, tuple[str, ...]]:
    """Name and deciding flags of the first core; empty where the kernel does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return "", ()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = (known.get("flags") or known.get("Features") or "").split()
    return clipped(known.get("model name", "")), tuple(sorted(f for f in flags if f.startswith(_DECIDING_FLAGS)))
