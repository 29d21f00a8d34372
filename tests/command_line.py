"""`hpo` on the command line, run in this process: a process of its own spends most of its time on imports."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest


def hpo_here(*arguments: object, home: Path) -> CompletedProcess[str]:
    """What a process with these arguments would end with."""
    from hpo.cli.main import main

    words = ["hpo", "--home", str(home), *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
