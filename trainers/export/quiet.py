"""Runs third-party exporters without their progress reports."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("transformers", "torch.onnx", "onnxscript", "onnx_ir", "onnxruntime", "root")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress prints, warnings and log records below ERROR inside the block; errors are raised as usual.

    The exporters report every step, every unused operator and every version that they were not tested with. None of it
    says whether the graph is right; that is measured afterwards.
    """
    loggers = [logging.getLogger(None if name == "root" else name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
