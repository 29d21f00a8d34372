"""What the trial host's own process does with a request."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.executors.local import _HOST_ENVIRONMENT
from trainers.codec import to_json
from trainers.files import TrialPaths
from trainers.spec import Load

ROOT = Path(__file__).parents[2]
LOADS = """
import json, os, sys
import trainers.work
from trainers.codec import from_json
from trainers.spec import Load
trainers.work.GPU_DRIVERS = (sys.argv[1],)
events = [list(trainers.work.work(from_json(Load, json.loads(given))))[-1] for given in sys.argv[2:]]
loaded = "bitsandbytes" in sys.modules
from peft.import_utils import is_bnb_available
print(events[-1].parameters > 0, "trainers.loop" in sys.modules, loaded, is_bnb_available(),
      len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize(("driver", "imports_it"), [("/dev/null", False), ("/nowhere", True)])
@pytest.mark.parametrize("what", ["imports", "model", "model with an adapter"])
def test_where_there_is_a_gpu_nothing_that_is_loaded_touches_it(
    workload, inspection, make_spec, run_trial, driver, imports_it, what
):
    """bitsandbytes asks GPUs what they can when it is imported: no child of this process could use them then."""
    given = workload("encoder")
    loads = [Load(given, None)]
    if what != "imports":
        loads.append(Load(given, inspection("encoder")))
    if what == "model with an adapter":
        spec = make_spec("encoder")
        run_trial(spec)
        adapter = str(TrialPaths(Path(spec.dir)).adapter)
        with_adapter = dataclasses.replace(given, model=dataclasses.replace(given.model, adapter=adapter))
        loads[-1] = Load(with_adapter, inspection("encoder"))
    done = subprocess.run(
        [sys.executable, "-c", LOADS, driver, *(json.dumps(to_json(load)) for load in loads)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **_HOST_ENVIRONMENT},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(what != "imports"), "True", str(imports_it), "True", "1"]
