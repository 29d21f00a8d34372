"""Run a third-party exporter without its progress reports."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("transformers", "torch.onnx", "onnxscript", "onnx_ir", "onnxruntime", "root")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow prints, warnings and log records below ERROR inside the block.

    The exporters announce every step, every operator they have no use for and every version they were not tested
    with; none of it says whether the graph is right, which is measured afterwards. Errors are raised as ever.
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
