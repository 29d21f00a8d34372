"""The checks by name, in the order in which they run: the most telling first, in case time runs out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.gpu.place import Place
from tests.gpu.rows import Row

Run = Callable[[Place], Iterator[Row]]


@dataclass(frozen=True)
class Check:
    """Rows about one subject, from the function `run` of a file of this folder."""

    name: str
    """Of the file."""
    about: str
    limit_s: float
    """After that its process is killed; the rows that it has handed up by then stay."""
    needs: tuple[str, ...] = ()
    """Packages without which none of it can run."""

    def load(self) -> Run:
        """Its function; what it needs is imported now."""
        run: Run = importlib.import_module(f"tests.gpu.{self.name}").run
        return run


_TRAINING = ("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")

CHECKS = {
    check.name: check
    for check in (
        Check("losses", "fp32, bf16 and fp16 against the CPU's losses", 70, _TRAINING),
        Check("host", "a host that leaves CUDA alone, its trials, memory that runs out", 190, _TRAINING),
        Check("padding", "rows without padding, and weights rounded once", 60, _TRAINING),
        Check("speed", "a step of a 1 B Llama against transformers' Trainer", 110, (*_TRAINING, "accelerate")),
        Check("methods", "every method: trained, kept, loaded, evaluated", 60, _TRAINING),
        Check("tasks", "every task against the CPU's losses", 60, _TRAINING),
        Check("quantized", "4 and 8 bits: bases and optimizers", 60, (*_TRAINING, "bitsandbytes")),
        Check("release", "fp16 as ONNX on the GPU", 60, (*_TRAINING, "onnx", "onnxruntime", "onnxscript")),
        Check("ranks", "one trial on two GPUs", 60, _TRAINING),
    )
}
