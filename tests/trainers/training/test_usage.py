"""What a trial's process writes of the machine that it uses."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

from trainers.protocol.events import PAUSED, Step
from trainers.training import nvml, usage


def samples(file):
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def test_even_the_shortest_trial_has_a_sample(tmp_path):
    with usage.sampled(tmp_path / "usage.jsonl", ("cpu",)):
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    (sample,) = samples(tmp_path / "usage.jsonl")
    assert 0 < sample["cpu_percent"] <= 110
    assert sample["memory_mb"] > 10
    assert abs(sample["time_ms"] / 1000 - time.time()) < 60
    assert "gpus" not in sample


def test_gpus_are_asked_by_the_ids_that_torch_knows(tmp_path, monkeypatch):
    """Against a stand-in for NVIDIA's library: this project has no machine with a GPU."""

    class Library:
        def nvmlDeviceGetHandleByUUID(self, name, handle):  # noqa: N802  # NVML's names
            handle._obj.value = {b"GPU-of-1": 7}[name]
            return 0

        def nvmlDeviceGetUtilizationRates(self, handle, use):  # noqa: N802
            use._obj.gpu = 90
            return 0

        def nvmlDeviceGetMemoryInfo(self, handle, memory):  # noqa: N802
            memory._obj.used = 3 << 20
            return 0

        def nvmlDeviceGetPowerUsage(self, handle, milliwatts):  # noqa: N802
            return 3  # not supported

    monkeypatch.setattr(nvml, "_nvml", Library)
    cuda = SimpleNamespace(get_device_properties=lambda number: SimpleNamespace(uuid=f"of-{number}"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    with usage.sampled(tmp_path / "usage.jsonl", ("cuda:1",)):
        pass
    assert samples(tmp_path / "usage.jsonl")[0]["gpus"] == [{"percent": 90.0, "memory_mb": 3.0}]


def test_who_hears_of_a_trial_s_end_finds_its_last_sample(tmp_path):
    file, heard = tmp_path / "usage.jsonl", []

    def trial():
        heard.append((yield Step(1, 1, 0.5, 1e-3, 0.0)))
        yield PAUSED

    reports = usage.with_usage(trial(), file, ("cpu",))
    assert isinstance(next(reports), Step)
    assert not file.exists()
    assert reports.send("pause") == PAUSED
    assert (heard, len(samples(file))) == (["pause"], 1)
