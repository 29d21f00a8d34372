"""The user's own functions: from a Python file below the YAML's folder, loaded only in a trial's process."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainers.memory import is_out_of_memory


class OwnCodeError(ValueError):
    """The user's code raised an error: `FILE.py:LINE: Error: its message`."""


@contextmanager
def named_by_line(folder: Path, name: str) -> Iterator[None]:
    """Turn what the code of `FILE.py:FUNCTION` raises into `OwnCodeError` with the line. Running out of memory is not
    the code's fault, so such an error is raised as it is."""
    file = name.partition(":")[0]
    path = str((folder / file).resolve())
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        if isinstance(error, SyntaxError) and error.filename == path:
            lines.append(error.lineno)
        where = f"{file}:{lines[-1]}" if lines else file
        raise OwnCodeError(f"{where}: {type(error).__name__}: {error}") from error


def load_function(folder: Path, name: str, key: str) -> Callable[..., Any]:
    """Load `FILE.py:FUNCTION` below `folder`; of a class (a `torch.nn.Module`, say) return an instance, made without
    arguments. `key` is its key in the YAML.

    Raises `ValueError` where the file or function is missing, outside of `folder`, or not callable, and `OwnCodeError`
    where the file raises.
    """
    file, _, function = name.partition(":")
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"{key}: no file {file!r} in {folder}")
    module_spec = importlib.util.spec_from_file_location(f"user_code_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"{key}: {file} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # where dataclasses, for example, look up what a class's annotations mean
    with named_by_line(folder, name):
        module_spec.loader.exec_module(module)
    given = getattr(module, function, None)
    if inspect.isclass(given):
        given = _made(given, folder, name, key)
    if not callable(given):
        raise ValueError(f"{key}: {file} has no function {function!r}")
    loaded: Callable[..., Any] = given
    return loaded


def _made(cls: Any, folder: Path, name: str, key: str) -> Any:
    """An instance of the user's class."""
    if why := _needed_arguments(cls):
        file, _, function = name.partition(":")
        raise ValueError(f"{key}: {file} has a class {function!r} that needs arguments: {why}")
    with named_by_line(folder, name):
        return cls()


def _needed_arguments(cls: Any) -> str | None:
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        return str(error)
    except ValueError:  # a built-in without a signature: calling it will show
        return None
    return None
