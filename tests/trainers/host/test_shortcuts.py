"""The shortcuts' try-out in a real trial host: once, aside, and told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.executors.local import _HOST_ENVIRONMENT, LocalExecutor
from hpo.trials.calls import run_alone
from trainers.fast.enter import SHORTCUTS
from trainers.protocol.codec import to_json
from trainers.protocol.events import Evaluation, Loaded, Trained, TrialEvent, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Load, Train

ROOT = Path(__file__).parents[3]
ASIDE = """
import json, os, signal, sys, threading
from trainers.host.aside import AsideFailed, done_aside

def runs_out(): raise MemoryError
def exits(): sys.exit(3)
def crashes(): os.kill(os.getpid(), signal.SIGSEGV)
def is_killed(): os.kill(os.getpid(), signal.SIGKILL)

def is_killed_once():
    try: os.rmdir(sys.argv[1])
    except FileNotFoundError: return {"a": "c"}
    is_killed()

def told(work):
    try: return done_aside(work)
    except AsideFailed as error: return str(error)

known = {"seen": []}
said = [told(lambda: known["seen"].append(1) or {"a": "b"}), known["seen"]]
said += [told(work) for work in (runs_out, exits, crashes, is_killed, is_killed_once)]
thread = threading.Thread(target=threading.Event().wait, args=(5,))
thread.start()
print(json.dumps([*said, told(dict)]))
os._exit(0 if not sys.stdout.flush() else 1)
"""


def test_what_is_done_aside_leaves_nothing_behind_and_may_end_as_it_likes(tmp_path):
    (tmp_path / "first").mkdir()
    command = [sys.executable, "-c", ASIDE, str(tmp_path / "first")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    failed = "the process that tried it ended with code"
    assert json.loads(done.stdout) == [
        {"a": "b"},
        [],
        None,
        f"{failed} 1",
        f"{failed} -11",
        f"{failed} -9",
        {"a": "c"},
        None,
    ]


def trained(worker, spec, found, log):
    """Notes of the host, and how a trial in it ended."""
    executor = LocalExecutor(log, worker)
    try:
        loaded = run_alone(executor, Load(spec.workload, found))
        request, ended = executor.submit(Train((spec,), found)), None
        while (message := executor.wait(60)) and isinstance(message[1], TrialEvent):
            ended = message[1].report
            if isinstance(ended, Evaluation):
                executor.reply(request, spec.number, "go")
    finally:
        executor.close()
    assert isinstance(loaded, Loaded)
    assert isinstance(message[1], Trained)
    return loaded.notes, ended


@pytest.mark.parametrize("how", ["nothing", "raises", "crashes"])
def test_a_host_tries_once_and_its_trials_know(how, make_spec, inspection, tmp_path, monkeypatch):
    """A shortcut that takes its process with it costs the child that tries it, and no trial."""
    monkeypatch.setenv("BROKEN_SHORTCUT", how)
    spec, found = make_spec("encoder", lora_dropout=0.0), inspection("encoder")
    notes, ended = trained("tests.trainers.host.broken_shortcut", spec, found, tmp_path / "host.log")
    assert isinstance(ended, TrialResult), ended
    log = TrialPaths(Path(spec.dir)).log.read_text()
    tries = (tmp_path / "host.log").read_text().count("applied") + log.count("applied")
    if how == "nothing":
        assert notes == []
        assert "shortcut" not in log
        assert tries == 2  # in the try-out, and in the trial
        return
    why = "RuntimeError: broken" if how == "raises" else "the process that tried it ended with code -6"
    names = "layers without padding" if how == "raises" else ", ".join(SHORTCUTS)
    assert notes == [f"shortcut not used: {names} ({why}); trials train the plain way: slower, with the same numbers"]
    assert f"shortcut not used: layers without padding ({why})" in log
    assert "applied" not in log


def test_trials_try_the_shortcuts_where_somebody_kills_whoever_tries_them_first(
    make_spec, inspection, tmp_path, monkeypatch
):
    """Without shortcuts they would get other last bits than trials before the kill."""
    monkeypatch.setenv("BROKEN_SHORTCUT", "is killed twice")
    monkeypatch.setenv("KILLED_AT", str(tmp_path / "killed"))
    spec, found = make_spec("encoder", lora_dropout=0.0), inspection("encoder")
    notes, ended = trained("tests.trainers.host.broken_shortcut", spec, found, tmp_path / "host.log")
    assert isinstance(ended, TrialResult), ended
    assert notes == []
    assert (tmp_path / "killed-2").is_dir()
    assert "left to the trials: the process that tried it ended with code -9" in (tmp_path / "host.log").read_text()
    log = TrialPaths(Path(spec.dir)).log.read_text()
    assert "shortcut not used" not in log
    assert log.count("applied") == 2  # in the trial's own try-out, and in its training


def test_a_host_has_one_thread_after_the_try_out(workload, inspection):
    code = (
        "import json, os, sys\n"
        "from trainers.protocol.codec import from_json\n"
        "from trainers.protocol.requests import Load\n"
        "from trainers.host import dispatch, resident\n"
        "list(dispatch.work(from_json(Load, json.loads(sys.argv[1]))))\n"
        "(base,) = (kept.base for kept in resident._resident.values())\n"
        "model = [type(base.model).__name__, any(p.grad is not None for p in base.model.parameters())]\n"
        "print(json.dumps([base.refused_shortcuts, len(os.listdir('/proc/self/task')), *model]))"
    )
    given = json.dumps(to_json(Load(workload("encoder"), inspection("encoder"))))
    done = subprocess.run(
        [sys.executable, "-c", code, given], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, **_HOST_ENVIRONMENT},
    )  # fmt: skip
    assert json.loads(done.stdout) == [{}, 1, "BertForSequenceClassification", False]
