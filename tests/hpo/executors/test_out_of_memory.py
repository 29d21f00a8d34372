"""Memory that really runs out: the real trainer, the real allocator, a limit on a trial's process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpo.config.sweep_config import RetryPolicy
from hpo.executors.local import LocalExecutor
from hpo.progress_view import Silent
from hpo.trials.calls import run_alone
from hpo.trials.job import Job
from hpo.trials.slots import Slots
from tests.hpo.books import Books
from tests.hpo.builders import scheduler
from tests.hpo.executors.driving import HERE
from tests.hpo.executors.tight import SPARED_PASSES
from trainers.protocol.catalog import canonical_settings, default_settings
from trainers.protocol.events import Loaded, PreparedData
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Inspect, Load
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload


@pytest.fixture(scope="module")
def tight(tiny, tmp_path_factory):
    """A host that holds the tiny encoder, and what the data turned out to be."""
    folder = tmp_path_factory.mktemp("tight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parents[2])]))
        executor = LocalExecutor(folder / "host.log", "tight")
    data = DataRef(SourceRef(str(tiny / "reviews.jsonl")), None, None, {"text": "text", "label": "label"}, 40, 20, 0)
    workload = Workload("text-classification", ModelRef(str(tiny / "encoder")), data, 64, "fp32", str(folder / "cache"))
    inspection = run_alone(executor, Inspect(workload))
    assert isinstance(inspection, PreparedData)
    assert isinstance(run_alone(executor, Load(workload, inspection)), Loaded)
    yield executor, workload, inspection
    executor.close()


@pytest.fixture
def train(tight, tmp_path):
    """Train trials with the given micro-batches side by side; the books afterwards, and the specs."""
    executor, workload, inspection = tight

    def train(*micro_batch_sizes, spared_passes=0):
        jobs = []
        for number, micro_batch_size in enumerate(micro_batch_sizes):
            settings = {
                **default_settings("text-classification", "lora"), "batch_size": 32, "evaluations": 2,
                "learning_rate": 1e-2, "lora_dropout": 0.0, "micro_batch_size": micro_batch_size,
            }  # fmt: skip
            folder = tmp_path / f"{number}"
            spec = TrialSpec(
                number, workload, "lora", canonical_settings("lora", settings), "f1_macro", "maximize", 96, 96, 0, "i",
                1, ("cpu",), str(folder),
            )  # fmt: skip
            if spared_passes:
                folder.mkdir()
                (folder / SPARED_PASSES).write_text(str(spared_passes))
            jobs.append(Job(spec, TrialPaths(folder), 0))
        books = Books(jobs)
        scheduler(executor, Slots(len(jobs), 1), RetryPolicy(0, 5), None, Silent(), inspection).run(books)
        return books

    return train


def assert_same_training(got, want):
    """The same steps and, but for the order in which sums are added up, the same numbers."""
    assert [(e.step, e.examples, e.tokens) for e in got.evaluations] == [
        (e.step, e.examples, e.tokens) for e in want.evaluations
    ]
    for ours, theirs in zip(got.evaluations, want.evaluations, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-3)


def test_the_micro_batch_is_halved_until_a_trial_fits_and_the_update_stays_the_same(train):
    """Room for two rows: a micro-batch of 2 fits at once, 4 after one halving, 8 after two, 16 after three."""
    books = train(2, 4, 8, 16)
    fits = books.results[0]
    assert [e.step for e in fits.evaluations] == [2, 3]  # 96 examples, 32 a step
    for number in range(4):
        attempts, result = books.attempts[number], books.results[number]
        assert [(a.cause, a.micro_batch_halvings) for a in attempts] == [("oom", n) for n in range(number)]
        assert all("DefaultCPUAllocator: can't allocate memory" in a.message for a in attempts)
        assert (result.state, result.cause) == ("complete", None)
        assert_same_training(result, fits)


def test_what_never_fits_has_failed_after_three_halvings_and_harms_nobody(train):
    books = train(32, 2)
    failed = books.results[0]
    assert (failed.state, failed.cause, failed.value) == ("failed", "oom", None)
    assert "DefaultCPUAllocator: can't allocate memory" in failed.message
    assert [a.micro_batch_halvings for a in books.attempts[0]] == [0, 1, 2]
    assert books.results[1].state == "complete"
    assert books.attempts[1] == []


def test_memory_that_runs_out_after_an_evaluation_costs_nothing_that_came_before(train):
    """Four passes a step of 32 with a micro-batch of 8: memory is short from the third and last step on."""
    books = train(2, 8, spared_passes=8)
    undisturbed, result = books.results[0], books.results[1]
    assert [(a.cause, a.micro_batch_halvings) for a in books.attempts[1]] == [("oom", 0), ("oom", 1)]
    first, second = books.attempts[1]
    assert (first.resumed_from, second.resumed_from) == (None, 2)
    assert [detail for what, detail in books.of(1) if what == "resumed"] == [2, 2]
    assert result.state == "complete"
    assert_same_training(result, undisturbed)


def test_a_trial_s_log_tells_where(train, tmp_path):
    train(4)
    log = Path(tmp_path, "0", "trial.log").read_text()
    assert "torch.empty" in log
    assert "can't allocate memory" in log
