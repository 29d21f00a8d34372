"""What a trial's processes use of the machine, sampled by a thread beside the training: CPU, memory, GPUs."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainers.memory import rss_mb
from trainers.protocol.events import TRIAL_ENDS, TrialReport
from trainers.protocol.requests import Verdict
from trainers.runtime.cores import usable_cores
from trainers.training.nvml import Gpus

EVERY_S = 10.0
"""A sample takes a tenth of a millisecond on a CPU, and about one with GPUs."""


@contextmanager
def sampled(file: Path, devices: Sequence[str], pids: Sequence[int] = ()) -> Iterator[None]:
    """While inside, add a sample to `file` every `EVERY_S` seconds, and one at the end: of the processes `pids`, or of
    this one."""
    file.parent.mkdir(parents=True, exist_ok=True)  # a trial may end before it has written anything
    over = threading.Event()
    thread = threading.Thread(
        target=_sample, args=(file, Gpus(devices), pids or [os.getpid()], over), name="usage", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def with_usage(
    trial: Generator[TrialReport, Verdict | None, None], file: Path, devices: Sequence[str], pids: Sequence[int] = ()
) -> Generator[TrialReport, Verdict | None, None]:
    """The reports of a trial that is sampled meanwhile. Its end comes after the last sample: who hears of the end finds
    all of them."""
    verdict: Verdict | None = None
    with sampled(file, devices, pids):
        while not isinstance(report := trial.send(verdict), TRIAL_ENDS):
            verdict = yield report
    yield report


def _sample(file: Path, gpus: Gpus, pids: Sequence[int], over: threading.Event) -> None:
    is_over = False
    while not is_over:
        began, cpu = time.monotonic(), sum(map(cpu_seconds, pids))
        is_over = over.wait(EVERY_S)
        seconds = max(time.monotonic() - began, 1e-3)
        sample: dict[str, float | list[dict[str, float]]] = {
            "time_ms": int(time.time() * 1000),
            "cpu_percent": round(100 * (sum(map(cpu_seconds, pids)) - cpu) / seconds / usable_cores(), 1),
            "memory_mb": round(sum(map(rss_mb, pids)), 1),
        }
        if found := gpus.sample():
            sample["gpus"] = found
        with file.open("a", encoding="utf-8") as lines:
            lines.write("\n" + json.dumps(sample))  # the line end first: a line that a kill cut stays alone


def cpu_seconds(pid: int) -> float:
    """That a process has used so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
