"""What there is to run on: packages, the GPU by NVML's account, and what is therefore left out."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from collections.abc import Iterable, Iterator
from importlib import metadata

from tests.gpu.checks import Check

TRAINING = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy")
"""Packages of the trainers."""
BESIDES = {
    "bitsandbytes": "methods qlora and loftq, paged and 8-bit optimizers",
    "onnx": "releases as ONNX",
    "onnxruntime": "releases as ONNX",
    "onnxscript": "releases as ONNX",
    "datasets": "rows from the hub",
    "rouge_score": "metrics of generated text",
    "sacrebleu": "metrics of generated text",
    "optuna": "the search itself",
    "mlflow": "tracking and the registry",
    "rich": "the command line's tables",
    "click": "the command line",
    "yaml": "sweep files",
    "pytest": "the project's own tests",
}
"""Package -> what of the project needs it."""
_NAME_BYTES = 96


def is_there(package: str) -> bool:
    """Whether a package can be imported, without doing so."""
    return importlib.util.find_spec(package) is not None


def versions() -> dict[str, str]:
    """Package -> its version, of those that are there."""
    names = [name for name in (*TRAINING, *BESIDES) if is_there(name)]
    return {name: metadata.version({"yaml": "pyyaml"}.get(name, name)) for name in names}


def left_out(checks: Iterable[Check]) -> Iterator[str]:
    """A line for each missing package: what of the project it is for, and which checks do not run without it."""
    for name in (*TRAINING, *BESIDES):
        if not is_there(name):
            without = [check.name for check in checks if name in check.needs]
            not_checked = f"not run: {', '.join(without)}" if without else "no check here needs it"
            yield f"{name} is missing ({BESIDES.get(name, 'training')}); {not_checked}"


def facts() -> dict[str, object]:
    """Of the machine: Python, packages, CUDA as torch is built with it, GPUs and their driver as NVML knows them."""
    import torch

    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions(),
        "cuda_of_torch": torch.version.cuda,
        "visible_gpus": torch.cuda.device_count(),
        **_by_nvml(),
    }


def _by_nvml() -> dict[str, object]:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return {"driver": None, "gpus": []}
    if nvml.nvmlInit_v2() != 0:
        return {"driver": None, "gpus": []}
    text = ctypes.create_string_buffer(_NAME_BYTES)
    nvml.nvmlSystemGetDriverVersion(text, _NAME_BYTES)
    driver, names, count = text.value.decode(), [], ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for number in range(count.value):
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) == 0:
            nvml.nvmlDeviceGetName(handle, text, _NAME_BYTES)
            names.append(text.value.decode())
    return {"driver": driver, "gpus": names}


def why_no_gpu() -> str | None:
    """Why nothing can run here; None where torch sees a GPU."""
    if not is_there("torch"):
        return "torch is not installed"
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} is built with CUDA {torch.version.cuda}, but sees no GPU (nvidia-smi?)"
    return None
