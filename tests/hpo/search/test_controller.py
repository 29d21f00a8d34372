"""The search over a trainer that computes a formula: what runs, what is judged, what survives."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from hpo.config.budget import Spent
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError, RequestFailed, SweepError
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.pruning.base import Never
from hpo.results.champion import choose_champion
from hpo.results.time_left import Ahead
from hpo.study.study import Study
from hpo.tracking.base import Untracked
from hpo.trials.calls import run_alone
from hpo.trials.fitting import Fitting, kind_of
from tests.hpo.builders import (
    INSPECTION,
    RATE,
    Elsewhere,
    Killed,
    Recording,
    Said,
    Sweep,
    evaluation,
    make_config,
    of_one_trial,
    work,
)
from tests.hpo.trials.test_fitting import MODEL
from trainers.host import fake
from trainers.protocol.codec import to_json
from trainers.protocol.events import (
    PAUSED,
    Evaluation,
    Failed,
    Finding,
    PreparedData,
    Resumed,
    Step,
    Trained,
    TrialResult,
)
from trainers.protocol.requests import Inspect, Measure, Train


@pytest.fixture
def sweep(tmp_path):
    def sweep(num_trials=4, folder=tmp_path, **changes):
        return Sweep(folder, **{"search_strategy": {"type": "random", "num_trials": num_trials}, **changes})

    return sweep


def grid(*rates):
    return {
        "search_strategy": {"type": "grid"},
        "search_space": {"learning_rate": {"type": "choice", "values": list(rates)}},
    }


# --- all trials become final ---------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 3, 8])
@pytest.mark.parametrize("pruner", ["successive_halving", "none"])
def test_every_planned_trial_becomes_final(sweep, jobs, pruner):
    given = sweep(num_trials=6, pruner={"type": pruner})
    assert given.search(jobs=jobs).finished_count == 6
    assert [r.number for r in given.records] == list(range(6))
    assert {r.state for r in given.records} <= {"complete", "pruned"}
    assert all(r.result == given.result_on_disk(r.number) for r in given.records)


def test_without_a_space_one_trial_runs(sweep):
    assert sweep(search_space={}).search(jobs=4).finished_count == 1


@pytest.mark.parametrize("jobs", [1, 3])
def test_never_more_than_jobs_are_under_way_and_as_many_as_possible(sweep, jobs):
    given = sweep(num_trials=7)
    given.search(jobs=jobs)
    assert given.executor.most_at_once == jobs


def test_trials_side_by_side_advance_in_turn(sweep):
    given = sweep(num_trials=2, pruner={"type": "none"})
    given.search(jobs=2)
    numbers = [number for number, event in given.executor.events if isinstance(event, Evaluation)]
    assert numbers == [0, 1] * 5


def test_a_finished_sweep_trains_nothing_again(sweep):
    given = sweep()
    given.search()
    assert given.search().finished_count == 4
    assert given.executor.specs == []


def test_more_trials_may_be_asked_for_later(sweep):
    given = sweep(num_trials=2)
    given.search()
    given.edit(search_strategy={"type": "random", "num_trials": 5})
    given.search()
    assert [spec.number for spec in given.executor.specs] == [2, 3, 4]


def test_every_trial_gets_its_slot_s_threads_and_the_sweep_s_budget(sweep):
    given = sweep()
    given.search()
    assert {(spec.threads, spec.devices, spec.max_examples) for spec in given.executor.specs} == {(1, ("cpu",), 100)}


def test_trials_side_by_side_are_on_different_gpus(sweep):
    """Also when a later one ends first and its device is free again."""
    lasts = {0: 1, 1: 6, 2: 1, 3: 6, 4: 1, 5: 1}  # evaluations of each trial

    def uneven(request):
        for index in range(lasts[request.spec.number]):
            yield evaluation(index, (index + 1) / 6, 0.5)
        yield from finish(request)

    given = sweep(num_trials=6, pruner={"type": "none"})
    given.search(Recording(uneven), jobs=2, gpus=2)
    assert all(len(set(devices)) == len(devices) for devices in given.executor.devices_at_once)


def test_time_on_gpus_is_counted(sweep):
    given = sweep(num_trials=3, pruner={"type": "none"})
    given.search(jobs=2, gpus=2)
    assert given.open().state.spent.gpu_seconds == pytest.approx(3 * 5 * 0.01)


QUEUE = [{"learning_rate": rate} for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)]


def test_results_of_a_queue_do_not_depend_on_how_many_run_side_by_side(sweep, tmp_path):
    results = []
    for jobs in (1, 2, 3, 7):
        given = sweep(
            folder=tmp_path / str(jobs), pruner={"type": "none"},
            search_strategy={"type": "random", "num_trials": 7, "enqueue": QUEUE},
        )  # fmt: skip
        given.search(jobs=jobs)
        results.append([(r.number, r.params, r.state, r.result.value, r.curve) for r in given.records])
    assert results[1:] == results[:1] * 3
    assert [params for _, params, *_ in results[0]] == [given.config.baseline(), *QUEUE]


def finish(request):
    *_, result = changed(work(request))
    yield result


def changed(events, change=lambda event: event):
    """A worker's events, each changed before it is told; verdicts go back to the worker."""
    verdict = None
    while True:
        try:
            event = events.send(verdict)
        except StopIteration:
            return
        verdict = yield change(event)


# --- equal points --------------------------------------------------------------------------------------

EQUAL = {"lora_alpha": {"type": "choice", "values": [None, 16, 32]}}
"""None is alpha_ratio times the rank, 2 x 8: the same as 16."""


def test_an_equal_point_takes_the_stored_result_and_no_budget(sweep):
    given = sweep(9, search_space=EQUAL)
    given.search()
    reused = [r for r in given.records if r.reused_from]
    assert reused
    assert len(given.executor.specs) == 2
    for record in reused:
        twin = given.records[int(record.reused_from)]
        assert record.fingerprint == twin.fingerprint
        assert record.result == twin.result
        assert (record.state, record.curve) == (twin.state, [])
        assert not given.paths(record.number).result.exists()


def test_an_equal_point_of_a_trial_under_way_waits_for_its_result(sweep):
    given, seen = sweep(9, search_space=EQUAL, pruner={"type": "none"}), Seen()
    given.search(jobs=3, view=seen)
    reused = [r for r in given.records if r.reused_from]
    assert reused
    assert len(given.executor.specs) == 2
    assert [r.result for r in reused] == [given.records[int(r.reused_from)].result for r in reused]
    ended = [number for number, _, _ in seen.ended]
    assert all(ended.index(r.number) > ended.index(int(r.reused_from)) for r in reused)


def test_a_waiting_duplicate_survives_a_kill(sweep):
    given = sweep(9, search_space=EQUAL, pruner={"type": "none"})
    with pytest.raises(Killed):
        given.search(jobs=3, during=kill_at_finish(0))
    assert [r for r in given.records if r.reused_from and not r.is_over]
    given.search(jobs=3)
    assert all(r.is_over for r in given.records)
    assert len({r.result.value for r in given.records if r.fingerprint == given.records[0].fingerprint}) == 1


def test_an_equal_point_of_a_trial_that_is_lost_is_trained_as_after_a_restart(sweep):
    given = sweep(9, search_space=EQUAL, pruner={"type": "none"}, trials={"retries": 0})
    given.search(breaking(0), jobs=3)
    equal = [r for r in given.records if r.fingerprint == given.records[0].fingerprint]
    assert [(r.state, r.reused_from) for r in equal[:2]] == [("failed", None), ("complete", None)]
    assert {r.reused_from for r in equal[2:]} == {str(equal[1].number)}
    assert given.open().state.baseline == equal[1].number
    assert all(r.is_over for r in given.records)


def test_tracking_hears_of_a_trial_that_was_not_trained(sweep):
    given, noting = sweep(9, search_space=EQUAL), Noting()
    given.search(tracker=noting)
    reused = {r.number for r in given.records if r.reused_from}
    assert {number for number, record, _ in noting.started if record.reused_from} == reused
    assert reused <= set(noting.ended)


# --- pruning -------------------------------------------------------------------------------------------


def test_bad_trials_are_pruned_side_by_side_with_a_good_one(sweep):
    given = sweep(
        **grid(1e-3, 1e-1, 9e-2, 8e-2), training={"max_examples": 100, "learning_rate": 1e-3},
        pruner={"type": "successive_halving"},
    )  # fmt: skip
    given.search(jobs=4)
    assert [r.state for r in given.records] == ["complete", "pruned", "pruned", "pruned"]
    assert [given.executor.verdicts[number, "stop"] for number in range(4)] == [0, 1, 1, 1]
    assert all(len(r.curve) < 5 for r in given.records[1:])


def baseline_comes_last(request):
    if request.spec.number == 0:
        yield from [Step(0, 0, 0.0, 0.0, 0.0)] * 30
    yield from work(request)


@pytest.mark.parametrize("pruner", ["successive_halving", "median", "percentile"])
def test_the_baseline_is_never_pruned(sweep, pruner):
    given = sweep(
        **grid(1e-3, 2e-3, 3e-3, 4e-3, 1e-1), training={"max_examples": 100, "learning_rate": 0.1},
        pruner={"type": pruner},
    )  # fmt: skip
    given.search(Recording(baseline_comes_last), jobs=5)
    assert [number for number, event in given.executor.events if isinstance(event, TrialResult)][-1] == 0
    assert given.records[0].state == "complete"


def test_the_baseline_is_not_pruned_after_an_interruption_either(sweep):
    given = sweep(
        **grid(1e-3, 2e-3, 1e-1), training={"max_examples": 100, "learning_rate": 0.1},
    )  # fmt: skip
    with pytest.raises(Killed):
        given.search(Recording(baseline_comes_last), jobs=3, during=kill_at_finish(0))
    given.paths(0).result.unlink()
    given.search()
    assert given.records[0].state == "complete"
    assert given.open().state.baseline == 0


def test_a_pruner_of_type_none_stops_nothing(sweep):
    given = sweep(**grid(1e-3, 1e-1), pruner={"type": "none"})
    assert isinstance(given.config.pruner.rule, Never)
    given.search(jobs=2)
    assert [r.state for r in given.records] == ["complete", "complete"]


def test_examples_are_compared_where_the_rule_looks_at_them(sweep):
    """The fake trainer leaves per-row results as the real one does."""
    given = sweep(**grid(1e-3, 1e-1), training={"max_examples": 100, "learning_rate": 1e-3}, pruner={"type": "paired"})
    given.search()
    assert [r.state for r in given.records] == ["complete", "pruned"]


def test_examples_that_trainers_left_on_another_machine_are_fetched(sweep, tmp_path):
    given = sweep(**grid(1e-3, 1e-1), training={"max_examples": 100, "learning_rate": 1e-3}, pruner={"type": "paired"})
    given.search(Elsewhere(tmp_path))
    assert not given.paths(0).rows(0).exists()
    assert [r.state for r in given.records] == ["complete", "pruned"]


def test_a_pruner_may_look_at_another_objective(sweep):
    def two_metrics(request):
        def change(event):
            if isinstance(event, Evaluation):
                event.metrics["loss"] = float(request.spec.number)
            return event

        yield from changed(work(request), change)

    given = sweep(
        num_trials=3, objective=[{"metric": "f1_macro"}, {"metric": "loss"}],
        pruner={"type": "threshold", "metric": "loss", "upper": 1.5},
    )  # fmt: skip
    given.search(Recording(two_metrics))
    assert [value for r in given.records for _, value in r.curve] == [0.0] * 5 + [1.0] * 5 + [2.0]
    assert given.executor.verdicts[2, "stop"] == 1


# --- failures ------------------------------------------------------------------------------------------


def test_a_diverging_trial_is_a_result_and_the_sweep_goes_on(sweep):
    given = sweep(**grid(1e-3, 0.9, 2e-3), pruner={"type": "none"})
    given.search()
    assert [r.state for r in given.records] == ["complete", "failed", "complete"]
    failed = given.records[1].result
    assert (failed.cause, failed.message, failed.value, failed.stopped_by) == (
        "diverged", "loss is nan", None, "failure",
    )  # fmt: skip
    assert given.result_on_disk(1) == failed
    assert choose_champion(given.records, given.config.objective, {}, None).number in (0, 2)


def breaking(*numbers, message="broken"):
    def breaks(request):
        for index, value in enumerate([0.3, 0.6, 0.5]):
            yield evaluation(index, (index + 1) / 10, value)
        if request.spec.number in numbers:
            raise RuntimeError(message.format(request.spec.number))
        yield from finish(request)

    return Recording(breaks)


def test_a_trial_that_fails_late_keeps_its_evaluations_and_names_its_best(sweep):
    given = sweep(num_trials=2, pruner={"type": "none"}, trials={"retries": 0})
    given.search(breaking(1))
    result = given.records[1].result
    assert (result.cause, result.message) == ("crash", "RuntimeError: broken")
    assert [e.metrics["f1_macro"] for e in result.evaluations] == [0.3, 0.6, 0.5]
    assert (result.best_index, result.metrics, result.value) == (1, {"f1_macro": 0.6}, None)


def test_attempts_are_recorded_as_they_happen(sweep):
    given = sweep(num_trials=2, pruner={"type": "none"}, trials={"retries": 1})
    given.search(breaking(1))
    [attempt] = given.records[1].attempts
    assert (attempt.cause, attempt.message) == ("crash", "RuntimeError: broken")
    assert given.records[1].state == "failed"


def test_attempts_of_earlier_sessions_count(sweep):
    given = sweep(num_trials=2, pruner={"type": "none"}, trials={"retries": 1})

    def kill_at_second_attempt(request):
        if given.records[-1].number == 1 and given.records[1].attempts:
            raise Killed
        return crash(request)

    def crash(request):
        if request.spec.number == 1:
            raise RuntimeError("broken")
        yield from work(request)

    with pytest.raises(Killed):
        given.search(Recording(kill_at_second_attempt))
    given.search(Recording(crash))
    assert len(given.executor.specs) == 1
    assert len(given.records[1].attempts) == 1
    assert given.records[1].state == "failed"


def test_three_trials_in_a_row_with_the_same_crash_stop_the_sweep_with_the_log_s_end(sweep):
    def crash(request):
        if request.spec.number:
            Path(request.spec.dir, "trial.log").write_text("\n".join(f"line {i}" for i in range(50)))
            raise RuntimeError("no space")
        yield from work(request)

    given = sweep(num_trials=9, trials={"retries": 0})
    with pytest.raises(SweepError, match=r"(?s)3 trials in a row crashed alike: RuntimeError: no space.*line 49") as e:
        given.search(Recording(crash))
    assert "line 20" not in str(e.value)
    assert [r.state for r in given.records] == ["complete", "failed", "failed", "failed"]


@pytest.mark.parametrize(
    ("numbers", "message"), [((1, 2, 4, 5), "broken"), ((1, 2, 3, 4), "broken {}")], ids=["not in a row", "not alike"]
)
def test_other_crashes_do_not_stop_the_sweep(sweep, numbers, message):
    given = sweep(num_trials=6, pruner={"type": "none"}, trials={"retries": 0})
    given.search(breaking(*numbers, message=message))
    assert [r.number for r in given.records if r.state == "failed"] == list(numbers)


def test_a_crashed_point_is_trained_again_when_it_is_proposed_again(sweep):
    given = sweep(9, search_space=EQUAL, trials={"retries": 0}, pruner={"type": "none"})
    given.search(breaking(0))
    identity = given.records[0].fingerprint
    assert given.records[0].result.cause == "crash"
    again = [r for r in given.records[1:] if r.fingerprint == identity and not r.reused_from]
    assert len(again) == 1
    assert again[0].state == "complete"


def losing(is_lost):
    """Trials of which `is_lost` is true make no progress and are given up."""

    def work_or_not(request):
        if is_lost(request.spec):
            yield Failed("timeout", "no progress")
            return
        yield from work(request)

    return Recording(work_or_not)


def test_a_lost_baseline_is_tried_again_after_all_others_and_what_replaces_it_is_the_baseline(sweep):
    given, noting = sweep(num_trials=3, pruner={"type": "none"}, trials={"retries": 0}), Noting()
    search = given.search(losing(lambda spec: spec.number == 0), tracker=noting)
    assert [r.state for r in given.records] == ["failed", "complete", "complete", "complete"]
    assert [r.params == given.config.baseline() for r in given.records] == [True, False, False, True]
    assert (given.open().state.baseline, search.finished_count) == (3, 3)
    assert [is_baseline for _, _, is_baseline in noting.started] == [True, False, False, True]
    assert given.search().finished_count == 3
    assert given.executor.specs == []


def test_a_baseline_that_is_lost_again_ends_no_search_and_is_tried_first_by_the_next_session(sweep):
    given = sweep(num_trials=3, pruner={"type": "none"}, trials={"retries": 0})
    rate = given.config.baseline()["learning_rate"]
    given.search(losing(lambda spec: spec.settings["learning_rate"] == rate))
    assert [r.state for r in given.records] == ["failed", "complete", "complete", "failed"]
    given.edit(search_strategy={"type": "random", "num_trials": 4})
    assert given.search().finished_count == 4
    assert [spec.settings["learning_rate"] == rate for spec in given.executor.specs] == [True, False]
    assert given.open().state.baseline == 4


def test_trials_that_crashed_before_any_succeeded_are_not_counted_by_a_third_session_either(sweep):
    given = sweep(num_trials=4, pruner={"type": "none"}, trials={"retries": 0})
    with pytest.raises(SweepError, match="3 trials in a row"):
        given.search(breaking(0, 1, 2))
    with pytest.raises(Killed):
        given.search(during=kill_at_finish(4))
    assert given.search().finished_count == 4
    assert [r.state for r in given.records] == ["failed"] * 3 + ["complete"] * 4


def test_a_sweep_of_which_every_trial_was_lost_tries_them_again(sweep):
    given = sweep(**grid(1e-3, 2e-3), trials={"retries": 0})
    with pytest.raises(SweepError, match="timeout: no progress; fix that, and the same command tries again"):
        given.search(losing(lambda spec: True))
    assert given.search().finished_count == 2
    assert [r.state for r in given.records] == ["failed", "failed", "complete", "complete"]


def test_when_every_trial_fails_the_sweep_does(sweep):
    with pytest.raises(SweepError, match=r"no trial of sweep succeeded; the last one: diverged: loss is nan"):
        sweep(**grid(0.9, 0.8)).search()


def test_a_sweep_whose_trials_all_failed_fails_again_without_training(sweep):
    given = sweep(**grid(0.9))
    for expected in (1, 0):
        with pytest.raises(SweepError):
            given.search()
        assert len(given.executor.specs) == expected


def test_unusable_data_ends_the_sweep_as_a_config_error(sweep):
    def bad(request):
        yield Failed("data", "bad data", [Finding("train.jsonl:3", "no text"), Finding("train.jsonl:9", "no label")])

    given = sweep()
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*train.jsonl:3: no text.*train.jsonl:9: no label"):
        given.search(Recording(bad))
    assert [r.state for r in given.records] == ["running"]  # the corrected sweep trains it under the same number


def test_unusable_data_without_findings_still_says_why(sweep):
    def bad(request):
        yield Failed("data", "cannot be tokenized")

    with pytest.raises(ConfigError, match="data: cannot be tokenized"):
        sweep().search(Recording(bad))


# --- budget --------------------------------------------------------------------------------------------


class Clock:
    """Hours pass as evaluations do."""

    def __init__(self, hours_each):
        self.hours = 1000.0
        self.each = hours_each

    def __call__(self):
        return self.hours * 3600

    def tick(self, event):
        self.hours += self.each * isinstance(event, Evaluation)
        return event


def timed(given, hours_each, change=lambda event: event):
    given.clock = Clock(hours_each)
    return Recording(lambda request: changed(work(request), lambda event: change(given.clock.tick(event))))


def test_a_budget_of_trials_is_a_bound(sweep):
    given = sweep(num_trials=6, budget={"trials": 3})
    assert given.search(jobs=2).finished_count == 3


def test_when_the_hours_are_spent_no_trial_begins_and_those_under_way_are_interrupted(sweep):
    given = sweep(num_trials=9, budget={"hours": 1.3}, pruner={"type": "none"})
    search = given.search(timed(given, 0.1), view=Said())
    assert search.stopped_by == "hours: 1.3"
    assert [(r.state, len(r.curve)) for r in given.records] == [("complete", 5)] * 2 + [("running", 3)]
    assert [attempt.message for attempt in given.records[2].attempts] == [PAUSED.message]
    assert given.open().state.spent.seconds == pytest.approx(1.3 * 3600)


def test_what_the_budget_interrupted_continues_from_its_checkpoint_with_a_larger_one(sweep):
    given, noting = sweep(num_trials=2, budget={"hours": 0.8}, pruner={"type": "none"}), Noting()
    assert given.search(timed(given, 0.1)).finished_count == 1
    before = given.records[1]
    assert (before.state, len(before.curve)) == ("running", 3)
    given.search(timed(given, 0.1), tracker=noting).end()
    assert (given.executor.specs, noting.started) == ([], [])

    again = given.edit(budget={"hours": 9}).search(timed(given, 0.1))
    assert ([spec.number for spec in given.executor.specs], again.finished_count) == ([1], 2)
    assert [event.step for _, event in given.executor.events if isinstance(event, Resumed)] == [2]
    after = given.records[1]
    assert (after.state, after.resumed_from, len(after.curve), after.curve[:3]) == ("complete", 2, 5, before.curve)
    assert not given.paths(1).checkpoints.exists()


def test_hours_of_all_sessions_count(sweep):
    given = sweep(num_trials=9, budget={"hours": 0.9}, pruner={"type": "none"})

    def killed_after_seven(event):
        return _kill() if isinstance(event, Evaluation) and given.clock.hours > 1000.65 else event

    with pytest.raises(Killed):
        given.search(timed(given, 0.1, killed_after_seven))
    assert given.open().state.spent.seconds == pytest.approx(0.6 * 3600)
    shutil.rmtree(given.paths(1).checkpoints)
    given.search(timed(given, 0.1))
    assert [len(r.curve) for r in given.records] == [5, 3]
    given.search(timed(given, 0.1))
    assert given.executor.specs == []


def test_there_is_always_a_champion(sweep):
    """The budget ends within the first trials: the one that is furthest on goes to its end."""
    given = sweep(num_trials=9, budget={"hours": 0.25}, pruner={"type": "none"})
    given.search(timed(given, 0.1), jobs=2)
    assert sorted(r.state for r in given.records) == ["complete", "running"]


def test_a_budget_that_is_spent_before_anything_began_still_gives_a_champion(sweep):
    given = sweep(num_trials=9, budget={"hours": 1e-9}, pruner={"type": "none"})
    given.search(timed(given, 0.1), jobs=2)
    assert [r.state for r in given.records].count("complete") == 1


@pytest.mark.parametrize(("finals", "hours"), [(Ahead(2, 3), 4.0), (Ahead(3, 3), 5.5)])
def test_room_is_kept_for_the_finalists(sweep, finals, hours):
    """A trial takes half an hour by the trainer's word. On two slots, two contestants with three seeds take three of
    them, and three contestants take six: a seed waits for the one before it."""

    def half_an_hour(event):
        return dataclasses.replace(event, seconds=1800.0) if isinstance(event, TrialResult) else event

    given = sweep(num_trials=30, budget={"hours": hours}, pruner={"type": "none"})
    search = given.search(timed(given, 0.05, half_an_hour), jobs=2, ahead=finals)
    assert search.stopped_by == f"hours: {hours:g}"
    assert 2.5 <= given.open().state.spent.seconds / 3600 < 2.7


def test_room_in_gpu_hours_is_kept_for_the_finalists_on_all_their_devices(sweep):
    """A trial takes half an hour of two GPUs; of ten hours, two contestants with three seeds take six."""

    def half_an_hour(event):
        return dataclasses.replace(event, seconds=1800.0) if isinstance(event, TrialResult) else event

    training = {"max_examples": 100, "devices": 2}
    given = sweep(num_trials=30, budget={"gpu_hours": 10}, pruner={"type": "none"}, training=training)
    executor = Recording(lambda request: changed(work(request), half_an_hour))
    assert given.search(executor, gpus=2, devices=2, ahead=Ahead(2, 3)).stopped_by == "gpu_hours: 10"
    assert given.open().state.spent.gpu_seconds == 4 * 3600


def test_gpu_hours_of_trials_under_way_count_and_of_those_that_were_interrupted(sweep):
    """An evaluation is ten minutes of a GPU away from the next one."""

    def ten_minutes_each(event):
        if isinstance(event, Step):
            return dataclasses.replace(event, seconds=600.0 * event.step)
        if isinstance(event, Evaluation):
            return dataclasses.replace(event, seconds=600.0 * (event.index + 1))
        return dataclasses.replace(event, seconds=3000.0) if isinstance(event, TrialResult) else event

    def executor():
        return Recording(lambda request: changed(work(request), ten_minutes_each))

    given = sweep(num_trials=4, budget={"gpu_hours": 1}, pruner={"type": "none"})
    assert given.search(executor(), jobs=2, gpus=2).stopped_by == "gpu_hours: 1"
    assert [(r.state, len(r.curve)) for r in given.records] == [("complete", 5), ("running", 3)]
    spent = given.open().state.spent
    assert (spent.gpu_seconds, spent.under_way_gpu_seconds) == (3000, 1800)
    given.edit(budget={"gpu_hours": 1.3}).search(executor(), gpus=2)  # 50 minutes of the one, 30 of the other
    assert given.executor.specs == []
    assert given.open().state.spent.all_gpu_seconds == 4800
    given.edit(budget={"gpu_hours": 1.6}).search(executor(), gpus=2)
    assert [spec.number for spec in given.executor.specs] == [1]
    assert given.open().state.spent.all_gpu_seconds == given.open().state.spent.gpu_seconds == 6000


def test_a_baseline_that_the_budget_interrupted_is_trained_where_the_budget_is_raised(sweep):
    def baseline_waits(request):
        for _ in range(30 * (request.spec.number == 0)):
            if (yield Step(0, 0, 0.0, 0.0, 0.0)) == "pause":
                yield PAUSED
                return
        yield from work(request)

    given = sweep(num_trials=3, budget={"hours": 0.25}, pruner={"type": "none"})
    given.clock = Clock(0.1)
    given.search(Recording(lambda request: changed(baseline_waits(request), given.clock.tick)), jobs=2)
    assert [r.state for r in given.records] == ["running", "complete"]
    given.edit(budget={"hours": 9})
    assert given.search(timed(given, 0.1)).finished_count == 3
    assert [r.params == given.config.baseline() for r in given.records] == [True, False, False]
    assert given.open().state.baseline == 0


def test_a_spent_budget_leaves_alone_what_a_kill_interrupted(sweep):
    """Its run is closed already: whoever opens the sweep's runs closes those that a kill left open."""

    def killed_in_second_trial(request):
        yield from changed(work(request), lambda event: _kill() if request.spec.number else event)

    given, noting = sweep(num_trials=3, pruner={"type": "none"}), Noting()
    with pytest.raises(Killed):
        given.search(Recording(killed_in_second_trial), tracker=noting)
    given.open().update_state(spent=Spent(3600.0, 0.0))
    given.edit(budget={"hours": 0.5})
    noting.started.clear()
    search = given.search(tracker=noting)
    search.end()
    assert (search.stopped_by, given.executor.specs, noting.started, noting.paused) == ("hours: 0.5", [], [], [])
    given.edit(budget=None).search()
    assert [r.state for r in given.records] == ["complete"] * 3


def test_what_waits_for_an_interrupted_trial_has_no_run_that_is_still_open(sweep):
    given, noting = sweep(9, search_space=EQUAL, budget={"hours": 0.25}, pruner={"type": "none"}), Noting()
    given.search(timed(given, 0.1), jobs=3, tracker=noting).end()
    left = {number for number, _, _ in noting.started} - set(noting.ended)
    assert [number for number in left if given.records[number].reused_from]
    assert sorted(noting.paused) == sorted(left)
    given.edit(budget=None).search(jobs=3)
    assert {record.state for record in given.records} == {"complete"}


def _kill():
    raise Killed


def test_trial_minutes_end_a_trial_and_what_it_has_counts(sweep):
    def a_minute_each(event):
        return dataclasses.replace(event, seconds=60.0 * (event.index + 1)) if isinstance(event, Evaluation) else event

    given = sweep(num_trials=1, budget={"trial_minutes": 2.5})
    given.search(Recording(lambda request: changed(work(request), a_minute_each)))
    [record] = given.records
    assert (record.state, record.result.stopped_by, len(record.curve)) == ("complete", "trial_minutes", 3)


# --- kills ---------------------------------------------------------------------------------------------


def kill_at_finish(number, original=Study.finish):
    """The process ends after a trial's result is on disk and before the study hears of it."""

    def patch(study):
        def finish(ended, result):
            if ended == number:
                raise Killed
            original(study, ended, result)

        study.finish = finish

    return patch


@pytest.mark.parametrize("validation_size", [0.1, 40])
def test_a_result_left_on_disk_is_booked_without_training_again(sweep, validation_size):
    data = {"train": "train.jsonl", "validation_size": validation_size, "test_size": validation_size}
    given = sweep(data=data)
    with pytest.raises(Killed):
        given.search(during=kill_at_finish(1))
    left = given.result_on_disk(1)
    assert [r.state for r in given.records] == ["complete", "running"]

    assert given.search().finished_count == 4
    assert [spec.number for spec in given.executor.specs] == [2, 3]
    assert given.records[1].result == left
    assert len(given.records[1].curve) == len(left.evaluations)


def test_an_interrupted_trial_goes_on_under_its_number_from_its_checkpoint(sweep):
    given = sweep(pruner={"type": "none"})

    def killed_in_second_trial(request):
        def change(event):
            if request.spec.number == 1 and isinstance(event, Evaluation) and event.index == 2:
                raise Killed
            return event

        yield from changed(work(request), change)

    with pytest.raises(Killed):
        given.search(Recording(killed_in_second_trial))
    point = given.records[1].params
    given.search()
    assert [spec.number for spec in given.executor.specs] == [1, 2, 3]
    assert [event.evaluations[-1].index for _, event in given.executor.events if isinstance(event, Resumed)] == [1]
    assert given.records[1].params == point
    assert given.records[1].resumed_from == 2
    assert [share for share, _ in given.records[1].curve] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert not given.paths(1).checkpoints.exists()


def test_an_interrupted_trial_goes_on_in_the_way_that_it_began_in_unless_the_file_names_one(sweep):
    """Memory has come free meanwhile, but other groups of rows would draw other dropout. A trial that had not begun
    takes what there is now. Tracking is told of what is trained."""
    given = sweep(num_trials=2, pruner={"type": "none"})
    kind = kind_of(given.specs.spec(0, {}, given.paths(0)))

    def killed(request):
        raise Killed
        yield

    def ways(limit_mb, executor):
        given.fitting, tracker = Fitting({kind: MODEL}, limit_mb), Noting()
        with suppress(Killed):
            given.search(executor, tracker=tracker)
        assert [spec.settings for spec in tracker.specs] == [spec.settings for spec in given.executor.specs]
        return [(s.settings["micro_batch_size"], s.settings["gradient_checkpointing"]) for s in given.executor.specs]

    assert ways(160.0, Recording(killed)) == [(8, True)]
    assert ways(10_000.0, Recording(killed)) == [(8, True)]
    given.edit(training={"max_examples": 100, "micro_batch_size": 2})
    assert ways(10_000.0, Recording()) == [(2, True), (2, False)]


def test_a_killed_sweep_tries_the_points_of_one_that_was_not(sweep, tmp_path):
    given, undisturbed = sweep(), sweep(folder=tmp_path / "other")
    with pytest.raises(Killed):
        given.search(during=kill_at_finish(1))
    given.search()
    undisturbed.search()
    assert given.points == undisturbed.points
    assert [r.result for r in given.records] == [r.result for r in undisturbed.records]


def leave_result(given, number, spec, value=0.99):
    """What another sweep of the same name had left in a trial's folder."""
    paths = given.paths(number)
    paths.dir.mkdir(parents=True)
    paths.spec.write_text(json.dumps(to_json(spec)))
    result = TrialResult("complete", value, {"f1_macro": value}, 0, [], "budget", 1.0)
    paths.result.write_text(json.dumps(to_json(result)))


@pytest.fixture
def of_another_spec(sweep, tmp_path):
    """A sweep whose first trial's folder holds a result of another seed."""
    other = make_config(tmp_path, search_space=RATE, seed=9)
    given = sweep(num_trials=1)
    leave_result(given, 0, TrialSpecs(other, given.home, INSPECTION).spec(0, {}, given.paths(0)))
    return given


def test_a_result_of_another_spec_is_not_booked(of_another_spec):
    of_another_spec.search()
    assert len(of_another_spec.executor.specs) == 1
    assert of_another_spec.records[0].result.value < 0.99
    assert of_another_spec.result_on_disk(0) == of_another_spec.records[0].result


def test_a_result_of_another_spec_is_not_taken_for_that_of_a_killed_trial(of_another_spec):
    def killed(request):
        raise Killed
        yield

    with pytest.raises(Killed):
        of_another_spec.search(Recording(killed))
    of_another_spec.search()
    assert of_another_spec.records[0].result.value < 0.99


def test_a_result_of_other_data_is_not_booked(sweep):
    """The study was deleted and the rows of the file changed; the trials' folders are still there."""
    given = sweep(num_trials=1)
    given.search()
    forgetful = sweep(num_trials=1)
    forgetful.inspection = PreparedData(**{**to_json(INSPECTION), "fingerprint": "2" * 64})
    forgetful.search()
    assert len(forgetful.executor.specs) == 1


# --- what is told --------------------------------------------------------------------------------------


class Noting(Untracked):
    """A tracker that notes what it gets."""

    def __init__(self):
        self.started = []
        self.specs = []
        self.ended = []
        self.paused = []
        self.best = []

    def start_trial(self, spec, record, *, is_baseline):
        self.started.append((spec.number, record, is_baseline))
        self.specs.append(spec)
        return f"run{spec.number}"

    def finish_trial(self, number, result, paths):
        self.ended.append(number)

    def pause_trial(self, number):
        self.paused.append(number)

    def best_so_far(self, finished, value):
        self.best.append((finished, value))


class Seen(Silent):
    """A view that notes which trials ended, and whether as the best so far."""

    def __init__(self):
        self.ended = []

    def trial_finished(self, number, result, finished, *, is_best):
        self.ended.append((number, finished, is_best))


def test_tracking_is_told_after_the_disk_and_before_the_study(sweep):
    given, noting = sweep(num_trials=2), Noting()
    states = []
    noting.finish_trial = lambda number, result, paths: states.append(
        (paths.result.exists(), given.records[number].state)
    )
    given.search(tracker=noting)
    assert states == [(True, "running")] * 2


def test_a_run_is_taken_up_by_its_id(sweep):
    given = sweep(num_trials=2)
    with pytest.raises(Killed):
        given.search(tracker=Noting(), during=kill_at_finish(1))
    noting = Noting()
    given.search(tracker=noting)
    assert [(number, record.run_id) for number, record, _ in noting.started] == [(1, "run1")]
    assert [r.run_id for r in given.records] == ["run0", "run1"]


def test_tracking_knows_the_baseline(sweep):
    given, noting = sweep(num_trials=3), Noting()
    given.search(tracker=noting)
    assert [is_baseline for _, _, is_baseline in noting.started] == [True, False, False]


@pytest.mark.parametrize(("metric", "best"), [("f1_macro", max), ("loss", min)])
def test_the_best_so_far_follows_the_metric_s_direction(sweep, metric, best):
    given = sweep(num_trials=6, objective={"metric": metric}, pruner={"type": "none"})
    noting, seen = Noting(), Seen()
    given.search(tracker=noting, view=seen)
    values = [r.result.value for r in given.records]
    assert noting.best == [(i + 1, best(values[: i + 1])) for i in range(6)]
    assert seen.ended == [(i, i + 1, values[i] == noting.best[i][1]) for i in range(6)]


def test_a_pruned_trial_is_never_the_best_so_far(sweep):
    def pruned_above_all(request):
        number = request.spec.number
        yield evaluation(0, 0.2, 0.1 * (number == 0))
        state, value = "pruned" if number else "complete", 0.1 + number
        yield TrialResult(state, value, {"f1_macro": value}, 0, [], "pruner", 1.0)

    given, noting = sweep(num_trials=3), Noting()
    given.search(Recording(pruned_above_all), tracker=noting)
    assert [value for _, value in noting.best] == [0.1] * 3


def test_what_exceeds_a_constraint_is_never_the_best_so_far(sweep, tmp_path):
    def better_and_slower(request):
        number = request.spec.number
        yield evaluation(0, 0.2, 0.1 + number)
        yield TrialResult("complete", 0.1 + number, {"f1_macro": 0.1 + number}, 0, [], "budget", 1.0 + number)

    given, noting, seen = sweep(num_trials=3, constraints={"max_seconds": 2.5}), Noting(), Seen()
    given.search(Recording(better_and_slower), tracker=noting, view=seen)
    assert [value for _, value in noting.best] == [0.1, 1.1, 1.1]
    assert [is_best for _, _, is_best in seen.ended] == [True, True, False]
    nothing = sweep(num_trials=2, folder=tmp_path / "none", constraints={"max_seconds": 0.5})
    assert nothing.search(Recording(better_and_slower)).best is None


def test_a_continued_sweep_knows_its_best(sweep):
    given = sweep(**grid(1e-3, 1e-1), pruner={"type": "none"})
    with pytest.raises(Killed):
        given.search(during=kill_at_finish(1))
    seen = Seen()
    given.search(view=seen)
    assert seen.ended == [(1, 2, False)]


# --- one request alone ---------------------------------------------------------------------------------


def inspect_request(config):
    return Inspect(config.workload(Home(Path("home"))))


def test_one_request_gives_its_last_event(sweep):
    given = sweep()
    assert isinstance(run_alone(InlineExecutor(fake.work), inspect_request(given.config)), PreparedData)
    spec = TrialSpecs(given.config, given.home, INSPECTION).spec(0, {}, given.paths(0))

    def no_evaluations(request):
        yield from finish(request)

    assert isinstance(run_alone(InlineExecutor(of_one_trial(no_evaluations)), Train((spec,), INSPECTION)), Trained)


def test_a_request_that_finds_bad_data_is_a_config_error(sweep):
    given = sweep()
    Path(given.config.data.train.source).unlink()
    with pytest.raises(ConfigError, match=r"train.jsonl: is not there"):
        run_alone(InlineExecutor(fake.work), inspect_request(given.config))


def test_the_fake_trainer_costs_no_imports():
    """A host of it is forked for many tests, and benchmarks measure the sweep with it."""
    code = "import sys, trainers.host.fake; print(sorted({'numpy', 'torch', 'hpo'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_any_other_failure_of_a_request_is_a_sweep_error():
    with pytest.raises(RequestFailed, match="crash: the fake trainer cannot measure"):
        run_alone(InlineExecutor(fake.work), Measure("fp32", "folder", "rows", 1))
