"""NVIDIA's own counters of a trial's GPUs (NVML), where its library is installed: use, memory, power."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

_LIBRARY = "libnvidia-ml.so.1"
"""It comes with the driver."""


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]  # as ctypes wants it


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Gpus:
    """The GPUs of a trial; none on a CPU, and none where NVML does not know them."""

    def __init__(self, devices: Sequence[str]) -> None:
        numbers = [int(device.partition(":")[2]) for device in devices if device.startswith("cuda:")]
        self._nvml = _nvml() if numbers else None
        self._handles = [handle for number in numbers if (handle := self._handle(number)) is not None]

    def sample(self) -> list[dict[str, float]]:
        """A GPU's share of the time in use (%), memory in use (MB) and power (W), as far as NVML tells."""
        return [self._of(handle) for handle in self._handles]

    def _handle(self, number: int) -> ctypes.c_void_p | None:
        """NVML counts all GPUs, and CUDA those that are visible: so they are matched by their ids."""
        if self._nvml is None:
            return None
        import torch

        name = f"GPU-{torch.cuda.get_device_properties(number).uuid}".encode()
        handle = ctypes.c_void_p()
        return handle if self._nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)) == 0 else None

    def _of(self, handle: ctypes.c_void_p) -> dict[str, float]:
        assert self._nvml is not None  # noqa: S101  # there are handles
        use, memory, milliwatts = _Utilization(), _Memory(), ctypes.c_uint()
        found: dict[str, float] = {}
        if self._nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(use)) == 0:
            found["percent"] = float(use.gpu)
        if self._nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
            found["memory_mb"] = round(memory.used / (1 << 20), 1)
        if self._nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(milliwatts)) == 0:
            found["power_w"] = milliwatts.value / 1000
        return found


def _nvml() -> ctypes.CDLL | None:
    """The library, ready to be asked; None where it is not installed, or has no driver to ask."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None
