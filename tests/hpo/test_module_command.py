"""Modules started in processes of their own: nothing of the current folder takes a library's place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hpo.module_command import module_command

ROOT = Path(__file__).parents[2]


def test_a_module_of_the_current_folder_is_another_one(tmp_path, monkeypatch):
    (tmp_path / "hpo").mkdir()
    (tmp_path / "hpo" / "__init__.py").write_text("raise ImportError('of somebody else')")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(module_command("hpo", "--help"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_in_a_checkout_nothing_need_be_installed(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert module_command("hpo.serving", "order") == [sys.executable, "-m", "hpo.serving", "order"]


def test_a_current_folder_that_is_gone_is_no_checkout(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert module_command("hpo")[:3] == [sys.executable, "-P", "-m"]


def test_no_other_command_imports_from_the_current_folder():
    """Schedulers have commands with -P; pip runs in a folder of its own, and a conversion in that of the packages."""
    others = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "hpo").rglob("*.py")
        if re.search(r'sys\.executable, "-m"', path.read_text())
    }
    assert others == {"hpo/demo/converters.py", "hpo/demo/download.py"}
