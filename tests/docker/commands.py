"""Whether a command that a container or a job starts exists, with the options that it is given."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

DOCKER = Path(__file__).parents[2] / "docker"
_CLICK = {
    "hpo": ("hpo.cli.main", "cli"),
    "mlflow": ("mlflow.cli", "cli"),
    "ray": ("ray.scripts.scripts", "cli"),
}


def assert_is_a_command(words: Sequence[str]) -> None:
    """The program's own parser takes the words; of a script of ours, the file is there. Nothing is run."""
    program, *rest = words
    if program == "python":
        assert (DOCKER / Path(rest[0]).name).exists(), words
        return
    module, name = _CLICK[program]
    try:
        command: Any = getattr(importlib.import_module(module), name)
    except ImportError as error:
        pytest.skip(f"{program} is not installed: {error}")
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    command.make_context(program, rest)
