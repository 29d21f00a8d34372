"""What the trial host's own process does with a request."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADS = """
import os, sys, torch
torch.cuda.is_available = lambda: {gpus}
from trainers.spec import DataRef, Load, ModelRef, SourceRef, Workload
from trainers.work import work
data = DataRef(SourceRef("/nowhere"), None, None, {{}}, 1, 1, 0)
workload = Workload("chat", ModelRef("/nowhere"), data, 8, "fp32", "/nowhere")
[loaded] = list(work(Load(workload, None)))
import importlib.util
print(loaded.parameters, "trainers.loop" in sys.modules, "bitsandbytes" in sys.modules,
      importlib.util.find_spec("bitsandbytes") is not None, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize(("gpus", "imports_it"), [(True, False), (False, True)])
def test_before_the_data_is_known_imports_are_loaded_and_gpus_are_left_alone(gpus, imports_it):
    """bitsandbytes asks GPUs what they can when it is imported: no child of this process could use them then."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS.format(gpus=gpus)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "HF_DEACTIVATE_ASYNC_LOAD": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "True", str(imports_it), "True", "1"]
