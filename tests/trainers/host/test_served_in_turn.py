"""A process that serves one request after the other trains each trial on the base model as it was loaded.

The trial host forks a child for each; `hpo.executors.inline` does not, and hosts on other machines may not either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.executors.inline import InlineExecutor
from hpo.executors.local import LocalExecutor
from tests.hpo.executors.driving import next_event, run_to_end, until
from trainers.host import dispatch
from trainers.protocol.events import Evaluation, Failed, Scored, Step, TrialResult
from trainers.protocol.files import TrialPaths, adapter_files, file_fingerprint
from trainers.protocol.requests import Load, Score, Train
from trainers.protocol.trial_spec import TrialSpec

SMALL: dict[str, Any] = {"max_examples": 32, "learning_rate": 1e-3}
DIVERGES: dict[str, Any] = {"max_examples": 32, "learning_rate": 1e30, "max_grad_norm": 1e30}
TRIALS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "encoder": [
        ("lora", {**SMALL, "lora_dropout": 0.2}),
        ("full", SMALL),
        ("lora", {**SMALL, "target_modules": "query,value", "gradient_checkpointing": True}),
        ("full", DIVERGES),
        ("adapter", SMALL),
        ("ia3", {**SMALL, "neftune_noise_alpha": 5.0}),
        ("qlora", SMALL),
        ("pissa", SMALL),
        ("eva", SMALL),
        ("lora", {**SMALL, "lora_dropout": 0.2}),
    ],
    "chat": [
        ("full", SMALL),
        ("lora", {**SMALL, "modules_to_save": "lm_head"}),
        ("prefix", SMALL),
        ("lora", {**SMALL, "packing": True}),
    ],
}


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(tmp_path / "host.log")
    yield executor
    executor.close()


def outcome(executor: Any, spec: TrialSpec, inspection: Any) -> list[str]:
    """All that a trial reports but times and memory, to the last digit, and the hash of what it learned."""
    [events] = run_to_end(executor, Train((spec,), inspection))
    told: list[Any] = []
    for report in (getattr(event, "report", event) for event in events):
        if isinstance(report, Step):
            told.append((report.step, report.loss))
        elif isinstance(report, Evaluation):
            told.append((report.step, report.metrics))
        elif isinstance(report, TrialResult):
            told.append((report.state, report.value, report.trainable_parameters))
            weights = [file for file in adapter_files(TrialPaths(Path(spec.dir)).adapter) if file.suffix != ".json"]
            told.append(file_fingerprint(weights))
        elif isinstance(report, Failed):
            told.append(report)
    return [repr(thing) for thing in told]


def kill_half_way(executor: InlineExecutor, spec: TrialSpec, inspection: Any) -> None:
    request_id = executor.submit(Train((spec,), inspection))
    until(executor, Evaluation)
    executor.kill(request_id)
    assert isinstance(next_event(executor)[1], Failed)


@pytest.mark.parametrize("kind", TRIALS)
def test_trials_in_turn_in_one_process_equal_those_in_processes_of_their_own(
    kind: str,
    forked: LocalExecutor,
    make_spec: Callable[..., TrialSpec],
    workload: Any,
    inspection: Any,
    tmp_path: Path,
) -> None:
    found = inspection(kind)
    in_turn = InlineExecutor(dispatch.work)
    for executor in (forked, in_turn):
        run_to_end(executor, Load(workload(kind), found))
    untouched = Score(workload(kind), found, 1, ("cpu",))
    [[before]] = run_to_end(in_turn, untouched)
    for number, (method, settings) in enumerate(TRIALS[kind]):
        spec = dataclasses.replace(make_spec(kind, method, logging_steps=1, **settings), number=number)
        apart, here = (dataclasses.replace(spec, dir=str(tmp_path / who / str(number))) for who in ("apart", "here"))
        expected = outcome(forked, apart, found)
        assert outcome(in_turn, here, found) == expected, f"trial {number}: {method}"
        assert (settings is DIVERGES) == expected[-1].startswith("Failed(cause='diverged'"), expected[-1]
        if settings is DIVERGES:
            killed = dataclasses.replace(make_spec(kind, method, **SMALL), number=number, dir=str(tmp_path / "killed"))
            kill_half_way(in_turn, killed, found)
        else:
            scored = [
                run_to_end(executor, Score(workload(kind), found, 1, ("cpu",), "test", spec))[0][-1]
                for executor, spec in ((forked, apart), (in_turn, here))
            ]
            assert all(isinstance(score, Scored) for score in scored), scored
            # To the bit only where both use shortcuts: a process with threads cannot fork to try them first.
            assert scored[0].metrics == pytest.approx(scored[1].metrics, rel=1e-6)
        [[after]] = run_to_end(in_turn, untouched)
        assert after.metrics == before.metrics, f"after trial {number}: {method}"
