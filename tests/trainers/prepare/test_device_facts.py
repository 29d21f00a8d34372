"""What is found of GPUs, against a stand-in for CUDA: this project has no machine with one."""

import pytest
import torch

from trainers.prepare.device_facts import device_facts
from trainers.prepare.inspect import _usable_gpus

CUDA = {
    "is_available": lambda: True, "device_count": lambda: 2, "mem_get_info": lambda number: (3 << 30, 4 << 30),
    "get_device_capability": lambda number: (7, 0), "get_device_name": lambda number: "V100",
}  # fmt: skip


@pytest.fixture
def cuda(monkeypatch):
    """Two GPUs; `has_kernels(False)` makes torch one that was built for others."""
    for name, answer in CUDA.items():
        monkeypatch.setattr(torch.cuda, name, answer)

    def has_kernels(given):
        def ones(size, device):
            if not given:
                raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")
            return torch.zeros(size)

        monkeypatch.setattr(torch, "ones", ones)

    return has_kernels


def test_free_memory_is_in_the_unit_that_trials_are_measured_in(cuda):
    cuda(True)
    gpus, notes = _usable_gpus()
    assert ([(gpu.name, gpu.free_mb) for gpu in gpus], notes) == ([("V100", 3072.0)] * 2, [])


def test_gpus_that_torch_has_no_kernels_for_are_not_used_and_a_note_says_so(cuda):
    cuda(False)
    problem = "CUDA error: no kernel image is available for execution on the device"
    assert device_facts().problem == problem
    assert _usable_gpus() == ([], [f"GPUs cannot be used, trials run on the CPU: {problem}"])
