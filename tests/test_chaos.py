"""Thirty kills at random instants in one sweep, of any process: afterwards the books are as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import hpo_here
from tests.processes import children_of

ROOT = Path(__file__).parents[1]
KILLS = 5 * [("sweep", "successor")] + 7 * [("host",)] + 13 * [("child",)]
"""Thirty kills. Where the sweep is killed, so is the process that continues it, within its first seconds."""
POINTS = [{"learning_rate": rate, "lora_r": rank} for rate in (1e-3, 3e-3, 1e-2, 2e-2) for rank in (4, 8)]


@pytest.fixture
def sweep_file(write_yaml):
    return write_yaml(
        name="chaos",
        search_strategy={"type": "random", "num_trials": len(POINTS), "enqueue": POINTS},
        search_space={
            "learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True},
            "lora_r": {"type": "int", "low": 4, "high": 16},
        },
        training={
            **POINTS[0], "max_examples": 1600, "evaluations": 8, "max_length": 64, "batch_size": 8,
            "early_stopping": {"patience": 99},
        },
        pruner={"type": "none"}, promote=False, trials={"retries": 1000}, report_to=["tensorboard"],
    )  # fmt: skip


def start(file: Path, home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(file), "--jobs", "2", "--threads", "1"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def shown(home: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(hpo_here("show", "chaos", "--json", home=home).stdout)
    return result


def victims(sweep: int) -> dict[str, list[int]]:
    hosts = children_of(sweep)
    children = [child for host in hosts for child in children_of(host)]
    return {"sweep": [sweep], "successor": [sweep], "host": hosts, "child": children}


def killed_one(sweep: subprocess.Popen[str], kind: str, chance: random.Random) -> bool:
    """Kill one of a kind at a random instant after there is one; False where the sweep has ended before."""
    while not victims(sweep.pid)[kind] and sweep.poll() is None:
        time.sleep(0.02)
    end = time.monotonic() + chance.uniform(0, 5 if kind == "successor" else 1)
    while sweep.poll() is None:
        found = victims(sweep.pid)[kind]
        if found and time.monotonic() >= end:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)
                return True
        time.sleep(0.02)
    return False


@pytest.mark.timeout(1500)
def test_thirty_kills_change_nothing(sweep_file, home_with_store, tmp_path):
    undisturbed_home, home = home_with_store, tmp_path / "killed"  # where the store is made between kills
    quiet = start(sweep_file, undisturbed_home)
    output, _ = quiet.communicate()
    assert quiet.returncode == 0, output
    chance = random.Random(20)
    killed, outputs = Counter(), []
    process = start(sweep_file, home)
    for kind in [kind for kinds in chance.sample(KILLS, len(KILLS)) for kind in kinds]:
        while not (is_killed := killed_one(process, kind, chance)) and process.returncode != 0:
            outputs.append(process.communicate()[0])
            process = start(sweep_file, home)
        if not is_killed:
            break  # it has outrun us: what there was to kill has been killed
        killed[kind] += 1
        if kind in ("sweep", "successor"):
            outputs.append(process.communicate()[0])
            process = start(sweep_file, home)
    last, _ = process.communicate()
    if process.returncode != 0:
        process = start(sweep_file, home)
        last, _ = process.communicate()
    assert process.returncode == 0, "\n".join([*outputs, last])
    assert "Traceback" not in "".join([*outputs, last])
    assert killed.total() >= 15, f"too quick to be killed: {killed}"
    ended = shown(home)
    assert_as_if_nothing_had_been(shown(undisturbed_home), ended)
    assert_mlflow_is_equal(ended, home)
    assert_tensorboard_is_equal(ended, home)


def assert_as_if_nothing_had_been(want: dict[str, Any], got: dict[str, Any]) -> None:
    assert got["state"] == "complete"
    assert [t["number"] for t in got["trials"]] == list(range(len(POINTS)))
    for ours, theirs in zip(got["trials"], want["trials"], strict=True):
        for key in ("state", "params", "value", "metrics", "curve", "stopped_by", "cause", "reused_from"):
            assert ours[key] == theirs[key], (ours["number"], key, ours["attempts"])
    for key in ("number", "value", "metrics", "params"):
        assert got["champion"][key] == want["champion"][key]


def assert_mlflow_is_equal(sweep: dict[str, Any], home: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("chaos")
    runs = client.search_runs([experiment.experiment_id], "tags.`hpo.sweep` = 'chaos'")
    assert [r for r in runs if r.info.status == "RUNNING"] == []
    found = {int(r.data.tags["hpo.trial"]): r for r in runs if "hpo.trial" in r.data.tags}
    assert len(runs) == len(found) + 1 == len(sweep["trials"]) + 1
    for trial in sweep["trials"]:
        run = found[trial["number"]]
        assert run.info.run_id == trial["run_id"]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["best/f1_macro"] == trial["value"]
        history = client.get_metric_history(run.info.run_id, "validation/f1_macro")
        assert [m.value for m in history] == [value for _, value in trial["curve"]]


def assert_tensorboard_is_equal(sweep: dict[str, Any], home: Path) -> None:
    """Every evaluation is drawn once, and no curve goes back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for trial in sweep["trials"]:
        folder = home / f"tensorboard/chaos/trial-{trial['number']:04d}"
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        values = [e.value for e in events.Scalars("validation/f1_macro")]
        assert values == pytest.approx([value for _, value in trial["curve"]])
        for tag in events.Tags()["scalars"]:
            examples = [e.step for e in events.Scalars(tag)]
            assert examples == sorted(set(examples)), (trial["number"], tag)
