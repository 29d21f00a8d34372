"""Functions of the user's: from a file below the YAML's folder, loaded in a trial's process only."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load_function(folder: Path, name: str, key: str) -> Callable[..., Any]:
    """`FILE.py:FUNCTION` below `folder`, or a class there (of torch's modules, say): then one of it, made without
    arguments. `key` is what the YAML calls it.

    Raises `ValueError` where it is not there, lies outside, or cannot be called.
    """
    file, _, function = name.partition(":")
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"{key}: no file {file!r} in {folder}")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise ValueError(f"{key}: {file} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    given = getattr(module, function, None)
    if inspect.isclass(given):
        try:
            given = given()
        except TypeError as error:
            raise ValueError(f"{key}: {file} has a class {function!r} that needs arguments: {error}") from error
    if not callable(given):
        raise ValueError(f"{key}: {file} has no function {function!r}")
    loaded: Callable[..., Any] = given
    return loaded
