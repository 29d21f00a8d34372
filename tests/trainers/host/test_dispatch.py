"""What the trial host's own process does with a request."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from hpo.executors.local import _HOST_ENVIRONMENT
from trainers.host.child import events_of
from trainers.host.dispatch import work
from trainers.host.host import _Verdicts
from trainers.protocol.codec import to_json
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Inspect, Load, Train

ROOT = Path(__file__).parents[3]
WORKS = """
import json, os, sys
from trainers.protocol.codec import from_json
from trainers.protocol.requests import Load, Train
from trainers.host.dispatch import work
kinds = {"Load": Load, "Train": Train}
threads = lambda: len(os.listdir("/proc/self/task"))
def worked(last, requests):
    for kind, given in requests:
        last = list(work(from_json(kinds[kind], given)))[-1]
    from peft.import_utils import is_bnb_available
    return [type(last).__name__, getattr(last, "parameters", 0) > 0, "trainers.training.loop" in sys.modules,
            sys.modules.get("bitsandbytes") is not None, is_bnb_available(), max(before, threads())]
[imported] = work(from_json(Load, json.loads(sys.argv[1])))
before = threads()  # a fork has none of them
for line in sys.stdin:
    if os.fork() == 0:
        print(json.dumps(worked(imported, json.loads(line))), flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""


@pytest.fixture(scope="module")
def worked(workload):
    """What a process is like after `Load` without a model and then these requests: (type of the last answer, whether it
    has parameters, whether what trials need is imported, whether bitsandbytes is, whether PEFT may have it, threads).

    One process imports for seconds; for each list of requests it forks, as a trial host does.
    """
    command = [sys.executable, "-c", WORKS, json.dumps(to_json(Load(workload("encoder"), None)))]
    env = {**os.environ, **_HOST_ENVIRONMENT}
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:

        def worked(*requests):
            process.stdin.write(json.dumps([(type(request).__name__, to_json(request)) for request in requests]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, "the process has ended; its error is on standard error"
            return tuple(json.loads(line))

        yield worked


@pytest.mark.parametrize("what", ["imports", "model", "model with an adapter"])
def test_a_host_is_loaded_without_bitsandbytes_and_without_threads(
    worked, workload, inspection, make_spec, run_trial, what
):
    """It asks GPUs what they can when it is imported: no child of this process could use them then."""
    given = workload("encoder")
    loads = []
    if what != "imports":
        loads.append(Load(given, inspection("encoder")))
    if what == "model with an adapter":
        spec = make_spec("encoder")
        run_trial(spec)
        adapter = str(TrialPaths(Path(spec.dir)).adapter)
        with_adapter = dataclasses.replace(given, model=dataclasses.replace(given.model, adapter=adapter))
        loads = [Load(with_adapter, inspection("encoder"))]
    assert worked(*loads) == ("Loaded", what != "imports", True, False, False, 1)


@pytest.mark.parametrize(
    ("method", "settings", "imports_it"),
    [("lora", {}, False), ("qlora", {}, True), ("loftq", {}, True), ("lora", {"optim": "adamw_bnb_8bit"}, True)],
)
def test_a_trial_has_bitsandbytes_where_it_needs_it(
    worked, workload, inspection, make_spec, method, settings, imports_it
):
    spec = make_spec("encoder", method, **settings)
    found = inspection("encoder")
    after = worked(Load(workload("encoder"), found), Train((spec,), found))
    assert after[:5] == ("Trained", False, True, imports_it, imports_it)


IMPORTS = """
import json, os, sys
from trainers.host.dispatch import work
from trainers.protocol.codec import from_json
from trainers.protocol.requests import Import, Inspect, Load
def after(request):
    before = set(sys.modules)
    [last] = work(request)
    return type(last).__name__, sorted(name for name in set(sys.modules) - before if sys.modules[name])
inspect = from_json(Inspect, json.loads(sys.argv[1]))
shared, threads = after(Import()), len(os.listdir("/proc/self/task"))
print(json.dumps([shared, threads, after(inspect), after(Load(inspect.workload, None))]))
"""


def test_what_a_host_imports_no_child_imports_again(workload):
    """The host has it before it forks the child that inspects, and still has no threads; PEFT it imports meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, json.dumps(to_json(Inspect(workload("encoder"))))],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **_HOST_ENVIRONMENT},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (imported, shared), threads, (inspected, late), (loaded, for_trials) = json.loads(done.stdout)
    assert (imported, inspected, loaded, threads) == ("Loaded", "PreparedData", "Loaded", 1)
    assert {"torch", "transformers.modeling_utils", "trainers.prepare.inspect"} <= set(shared)
    # A tokenizer and the classes of one architecture are all that is left for the child.
    assert {".".join(name.split(".")[:2]) for name in late} <= {"transformers", "transformers.models"}, late
    assert "peft" in for_trials
    heavy = {"bitsandbytes", "datasets", "pandas", "pyarrow", "sklearn"}
    assert not heavy & {name.partition(".")[0] for name in (*shared, *late, *for_trials)}


def test_arrow_starts_no_thread_in_a_host():
    """Some versions of transformers import scikit-learn, and with it pandas and Arrow, wherever it is installed."""
    command = [sys.executable, "-c", "import os, pyarrow; print(len(os.listdir('/proc/self/task')))"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_HOST_ENVIRONMENT}, check=True)
    assert done.stdout == "1\n"


def test_several_trials_of_one_request_are_refused(make_spec, inspection):
    """As an error of the request: no trial of it is to blame."""
    spec, found = make_spec("encoder"), inspection("encoder")
    [failed] = events_of(partial(work, Train((spec, spec), found)), _Verdicts(None))
    assert failed.cause == "crash"
    assert "exactly one" in failed.message
