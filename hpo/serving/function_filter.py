"""A filter that is a function of the operator's own file; without its verdict no text passes."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpo.config.serve_config import Hold
from hpo.errors import UsageError
from hpo.serving.filters import Exchange, Filter, Verdict, certain_by

_NUMBERS = itertools.count(1)
"""Of the files that are loaded."""


class FunctionFilter(Filter):
    """Calls a function with each text, in another thread: it may take its time, and several calls run at once."""

    def __init__(self, name: str, function: Callable[[Exchange], Any], hold: Hold) -> None:
        super().__init__(name)
        self._function = function
        self._hold = hold

    def certain(self, text: str) -> int:
        return certain_by(self._hold, text)

    async def judge(self, exchange: Exchange) -> Verdict:
        verdict = await asyncio.to_thread(self._function, exchange)
        if not isinstance(verdict, Verdict):
            expected = "what allow(), redact(text) or refuse(category) returns"
            raise TypeError(f"{self.name} returned {type(verdict).__name__}; expected {expected}")
        return verdict


def load_function(file: Path, function: str) -> Callable[[Exchange], Any]:
    """The function of a Python file, which runs. Raises `UsageError` for one that raises or has no such function."""
    # A name of its own: a file that is called `json.py` takes nobody's place, and two filters have two modules.
    name = f"hpo filter {next(_NUMBERS)} {file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file}: cannot be loaded; expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses, say, look for the names in annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it may raise anything
        del sys.modules[name]
        raise UsageError(f"{place_of(error, file)}: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise UsageError(f"{file}: has no function {function!r}")
    loaded: Callable[[Exchange], Any] = found
    return loaded


def place_of(error: Exception, file: Path | None = None) -> str:
    """Where an error was raised, as `FILE:LINE`: the last place in `file`, or the last one at all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if file is None or frame.filename == str(file)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(file)
