"""The checks where there is a GPU; elsewhere their rehearsal, so that no slip of the pen waits for one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.alone import in_a_process
from tests.gpu.checks import CHECKS, Check
from tests.gpu.machine import left_out, why_no_gpu
from tests.gpu.place import Place
from tests.gpu.rows import Row, from_line, line, shown, summary

ROOT = Path(__file__).parents[2]
WHOLE = """
import sys
for name in ("pytest", "hypothesis", "optuna", "mlflow", "datasets", "rouge_score", "sacrebleu"):
    sys.modules[name] = None
from tests.gpu.__main__ import main
sys.exit(main(["--rehearse", "--only", "ranks", "--json", sys.argv[1]]))
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(why_no_gpu() is not None, reason=str(why_no_gpu()))
def test_the_gpu_passes_every_check(tmp_path):
    done = subprocess.run([sys.executable, "-m", "tests.gpu", "--json", str(tmp_path / "rows.json")], cwd=ROOT)
    assert done.returncode == 0


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_is_rehearsed_on_a_cpu(name, tmp_path):
    rows = list(CHECKS[name].load()(Place("cpu", tmp_path)))
    assert rows
    assert not [shown(row) for row in rows if row.outcome == "failed"]


def test_the_program_runs_without_pytest_and_what_is_tracked(tmp_path):
    command = [sys.executable, "-c", WHOLE, str(tmp_path / "rows.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "REHEARSAL on a CPU" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    whole = json.loads((tmp_path / "rows.json").read_text())
    assert whole["rehearsed"] is True
    assert {"python", "packages", "cuda_of_torch", "driver", "gpus"} <= whole["machine"].keys()
    assert [row["outcome"] for row in whole["checks"]["ranks"]] == ["ok", "ok"]


def test_no_check_imports_what_only_tests_need():
    """A machine with a GPU may lack it."""
    others = [file for file in Path(__file__).parent.glob("*.py") if file != Path(__file__)]
    files = [ROOT / "tests/tiny.py", ROOT / "tests/trainers/families.py", *others]
    wanted = re.compile(r"^(?:from|import) (pytest|hypothesis|tests\.conftest)\b", re.M)
    assert not {file.name: found for file in files if (found := wanted.findall(file.read_text()))}
    names = {file.stem for file in Path(__file__).parent.glob("*.py")}
    assert set(CHECKS) <= names


def test_a_check_that_crashes_or_hangs_is_a_row(tmp_path):
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    [crashed] = in_a_process(Check("no_such_check", "", 60), Place("cpu", first), 60)
    assert crashed.outcome == "failed"
    assert "ended with exit code 1" in crashed.found
    assert "KeyError: 'no_such_check'" in crashed.found
    [late] = in_a_process(Check("losses", "", 0.1), Place("cpu", second), 60)
    assert late.outcome == "failed"
    assert "was killed after 0 s, its limit" in late.found


def test_what_is_missing_is_named_with_what_it_keeps_from_running(monkeypatch):
    monkeypatch.setattr("tests.gpu.machine.is_there", lambda name: name not in ("bitsandbytes", "optuna"))
    assert list(left_out(CHECKS.values())) == [
        "bitsandbytes is missing (methods qlora and loftq, paged and 8-bit optimizers); not run: quantized",
        "optuna is missing (the search itself); no check here needs it",
    ]


def test_rows_fit_a_narrow_terminal_and_come_back_from_json():
    row = Row("a thing whose name takes up nearly all of the line that it is printed on", "failed", "x " * 60, {"a": 1})
    assert from_line(line(row)) == row
    assert max(map(len, shown(row).splitlines())) <= 80
    assert summary([row, Row("b", "not run", "why")]) == "0 ok, 1 failed, 0 measured, 1 not run"
