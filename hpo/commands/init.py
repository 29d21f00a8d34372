"""`hpo init`: a commented YAML to start from, and the schema by which editors know its keys."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from hpo.commands.schema import schema_text
from hpo.config.schema import TITLE
from hpo.config.starter import SCHEMA_FILE, Starter, default_model, starter_yaml
from hpo.demo.assets import ASSETS
from hpo.errors import UsageError, did_you_mean
from hpo.paths import NAME_PATTERN
from hpo.quoting import clipped, quoted, visible
from trainers.protocol.catalog import TASKS
from trainers.protocol.files import write_atomically

Ask = Callable[[str, str | None, Sequence[str]], str]
"""(what, default, choices or none) -> the answer of a person at a terminal."""


def init_sweep(
    file: Path, task: str | None, model: str | None, data: str | None, columns: Sequence[str], ask: Ask | None = None
) -> str:
    """Write `file` and the schema beside it; returns what to do next. A person is asked for what is None.

    Raises `UsageError`, with nothing written, for a file that exists or a value that cannot be.
    """
    _check_place(file)
    starter = _starter(file, *_asked(task, model, data, ask), columns)
    shown = visible(shlex.quote(str(file))).replace("\n", "\\n")
    text = starter_yaml(starter, file, f"hpo sweep {shown}")
    schema = _schema_beside(file)
    write_atomically(schema, schema_text() + "\n")
    write_atomically(file, text)
    steps = [*starter.fetches(), f"hpo check {shown}"]
    return f"wrote {file}, and {SCHEMA_FILE} beside it for editors; next: {' && '.join(steps)}"


def _check_place(file: Path) -> None:
    if file.suffix not in (".yaml", ".yml") or not NAME_PATTERN.fullmatch(file.stem):
        expected = "expected NAME.yaml, with a NAME of letters, digits, '.', '_' and '-'"
        raise UsageError(f"{clipped(str(file))}: a sweep has the name of its file; {expected}")
    if not file.parent.is_dir():
        raise UsageError(f"no folder {clipped(str(file.parent))}; make it first")
    if os.path.lexists(file):
        raise UsageError(f"{file} already exists; choose another name")


def _schema_beside(file: Path) -> Path:
    """Where the schema goes: a new file, or in the place of an earlier schema of ours."""
    path = file.parent / SCHEMA_FILE
    if not os.path.lexists(path):
        return path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("title") != TITLE:
        raise UsageError(f"{path} already exists and is not a schema of hpo; choose another folder, or move it")
    return path


def _asked(task: str | None, model: str | None, data: str | None, ask: Ask | None) -> tuple[str, str, str]:
    """Task, model and data; where there is somebody to `ask`, what is missing is asked for."""
    if task:
        _check_task(task)
    if ask is None:
        given = {"--task": task, "--model": model, "--data": data}
        if missing := [option for option, value in given.items() if not value]:
            raise UsageError(f"{' and '.join(missing)} missing; only a terminal is asked for what is not given")
        return str(task), str(model), str(data)
    if not task:
        task = ask("task", next(iter(TASKS)), tuple(TASKS))
        _check_task(task)
    model = model or ask("model (hub id, folder or fetch:NAME)", default_model(TASKS[task]), ())
    return task, model, data or ask("data (file, folder, hub id or fetch:NAME)", "train.jsonl", ())


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise UsageError(f"no task {quoted(task)}; {did_you_mean(task, TASKS)}")


def _starter(file: Path, task: str, model: str, data: str, columns: Sequence[str]) -> Starter:
    _check_task(task)
    for value, kind in ((model, "model"), (data, "data")):
        known = [asset.name for asset in ASSETS.values() if asset.kind == kind]
        if value.startswith("fetch:") and (name := value.removeprefix("fetch:")) not in known:
            raise UsageError(f"no demo {kind} {quoted(name)}; {did_you_mean(name, known)}")
    roles = [*TASKS[task].columns, *TASKS[task].optional_columns]
    named: dict[str, str] = {}
    for column in columns:
        role, _, name = column.partition("=")
        if role not in roles:
            raise UsageError(f"--column {quoted(column)}: {task} has no {quoted(role)}; {did_you_mean(role, roles)}")
        if not name:
            raise UsageError(f"--column {quoted(column)}: expected {role}=NAME")
        named[role] = name
    return Starter(task, _from_folder(model, file.parent), _from_folder(data, file.parent), named)


def _from_folder(text: str, folder: Path) -> str:
    """A path that was typed in the current folder, as the YAML's folder sees it; any other text as it is."""
    path = Path(text)
    if path.is_absolute() or not (path.exists() or ("*" in path.name and path.parent.exists())):
        return text
    return os.path.relpath(path.absolute(), folder.absolute())
