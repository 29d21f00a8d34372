"""Your own files that a sweep names: below the YAML's folder, known by their hash, read but never run here."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.config.dimensions import Choice
from hpo.config.space import from_resolved
from hpo.config.sweep_config import SweepConfig
from hpo.config.yaml_source import Section
from hpo.errors import did_you_mean
from hpo.given_path import given_path
from hpo.quoting import clipped, quoted
from trainers.protocol.catalog import TASKS
from trainers.protocol.files import file_fingerprint


def own_code(root: Section, config: SweepConfig) -> tuple[str, ...]:
    """Hashes of your own files that `loss` and `metrics` name; each must lie below the YAML's folder."""
    dimension = config.space.dimensions.get("loss")
    searched = [str(v) for v in dimension.values] if isinstance(dimension, Choice) else []
    folder, hashes = config.file.resolve().parent, []
    for name in dict.fromkeys([str(config.settings["loss"]), *searched]):
        key = ("search_space", "loss") if name in searched else ("training", "loss")
        losses = TASKS[config.task].losses if config.task else (name,)
        if ":" in name:
            hashes.append(_own_file(root, name, folder, *key))
        elif name not in losses:
            right = f"{config.task} has {', '.join(losses)}, or one of yours: FILE.py:FUNCTION"
            root.got(name, right, *key)
    hashes += [_own_file(root, name, folder, "metrics") for name in config.metrics if ":" in name]
    return tuple(hash_ for hash_ in hashes if hash_)


def named_files(resolved: Mapping[str, Any]) -> list[str]:
    """Your own files that a stored config names, in the order of their hashes; below the folder of its YAML."""
    losses = from_resolved(resolved["search_space"]).dimensions.get("loss")
    searched = [str(value) for value in losses.values] if isinstance(losses, Choice) else []
    names = [*dict.fromkeys([str(resolved["training"]["loss"]), *searched]), *resolved.get("metrics", [])]
    return [name.partition(":")[0] for name in names if ":" in name]


def _own_file(root: Section, name: str, folder: Path, *key: str) -> str | None:
    """The hash of the file that `FILE.py:NAME` names; None, and a problem at `key`, where it is of no use: not there,
    no Python, or without a function or class of that name."""
    file, _, function = name.partition(":")
    try:
        path = given_path(file, folder)
    except ValueError as error:
        root.problem(f"got {quoted(name)}: {error}", f"expected a file below {folder}", *key)
        return None
    if not path.is_relative_to(folder):
        root.got(name, f"expected a file below {folder}", *key)
    elif not path.is_file():
        root.problem(f"no file {quoted(file)}", f"paths start at {folder}", *key)
    elif why := why_of_no_use(path, file, function):
        root.problem(*why, *key)
    else:
        return file_fingerprint([path])
    return None


def why_of_no_use(path: Path, file: str, function: str) -> tuple[str, str] | None:
    """What is wrong with a file of Python, and what would be right."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes: Python says so when it runs
            tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        return f"{file}:{error.lineno or 1} is not Python: {clipped(error.msg)}", "correct it"
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL; brackets in brackets in brackets
        return f"{file} is not Python: {clipped(str(error) or type(error).__name__)}", "correct it"
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}", "expected a Python file"
    names = list(_names(tree.body))
    if function in names or "*" in names:
        return None
    return f"{file} has no function or class {quoted(function)}", _suggestion(function, names)


def _suggestion(function: str, names: Sequence[str]) -> str:
    return did_you_mean(function, dict.fromkeys(names)) if names else "expected it at the top level of the file"


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    """What a module's top level gives a name; `*` for what another module may bring."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        else:
            yield from (
                node.id
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            )
            yield from _nested(statement)


def _nested(statement: ast.stmt) -> Iterator[str]:
    """Names that are given inside `if`, `try`, `with` and loops."""
    for block in ("body", "orelse", "finalbody"):
        yield from _names(getattr(statement, block, []))
    for handler in getattr(statement, "handlers", []):
        yield from _names(handler.body)
