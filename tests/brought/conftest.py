"""Tiny models of every family, and copies to be changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.brought.looking import edit
from tests.quick_releases import operators_read_once


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once() -> Iterator[None]:
    with operators_read_once():
        yield


@pytest.fixture
def copy_of(models: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A family's folder, to be changed, with keys of its config replaced."""

    def copy(family: str, **config: Any) -> Path:
        folder = tmp_path / f"my-{family}"
        shutil.copytree(models(family), folder)
        edit(folder / "config.json", **config)
        return folder

    return copy
