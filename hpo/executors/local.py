"""Runs requests on this machine, through a trial host that forks a child for each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpo.databases.studies import without_studies
from hpo.executors.piped import PipedExecutor
from hpo.module_command import module_command

_HOST_ENVIRONMENT = {
    # The host must stay single-threaded to be forked; children set their own count.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pandas imports Arrow, whose allocator starts one
    "HF_DEACTIVATE_ASYNC_LOAD": "1",
    # Counting devices through NVML leaves CUDA untouched.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads of torch that wait for each other sleep. By default they spin on a core that others could use: beside one
busy process, two-threaded work then takes several times as long. A value of yours stays, and so does a
`GOMP_SPINCOUNT`, which decides before it: they change no result."""


def host_command(worker: str) -> list[str]:
    """What starts a trial host, which answers requests with the module `worker`."""
    return module_command("trainers.host.host", worker)


def host_environment(around: Mapping[str, str]) -> dict[str, str]:
    """The environment of a trial host that is started within `around`; it has no password of a database."""
    return {**PASSIVE_WAITING, **without_studies(around), **_HOST_ENVIRONMENT}


class LocalExecutor(PipedExecutor):
    """One trial host. It is killed where it does not end at once: it may be importing, or standing in a write."""

    name = "the trial host"

    def __init__(self, log: Path, worker: str = "trainers.host.dispatch", keep_fds: Sequence[int] = ()) -> None:
        super().__init__(host_command(worker), host_environment(os.environ), log, keep_fds)
