"""The search over a trainer that computes a formula: what runs, what is judged, what survives."""

import json
from collections import Counter
from pathlib import Path

import pytest

import hpo.study
from hpo.errors import ConfigError, SweepError
from hpo.executors.inline import InlineExecutor
from hpo.home import Home
from hpo.report import champion_of
from hpo.search import Search, Slots, Untracked, run_alone
from hpo.study import Study
from hpo.view import Silent
from tests.hpo.builders import INSPECTION, evaluation, make_config
from trainers import fake
from trainers.codec import from_json, to_json
from trainers.spec import (
    TERMINAL,
    Evaluation,
    Failed,
    Finding,
    Inspect,
    Inspection,
    Measure,
    Step,
    TrainRequest,
    TrialResult,
    TrialSpec,
)

SPACE = {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}}


class Recording(InlineExecutor):
    """An inline executor that notes what passes through it."""

    def __init__(self, worker=fake.work):
        super().__init__(worker)
        self.specs: list[TrialSpec] = []
        self.events = []
        self.verdicts = Counter()
        self.most_at_once = 0
        self.devices_at_once = []
        self._open = {}

    def submit(self, request):
        request_id = super().submit(request)
        self.specs.append(request.spec)
        self._open[request_id] = request.spec
        self.most_at_once = max(self.most_at_once, len(self._open))
        self.devices_at_once.append(sorted(spec.device for spec in self._open.values()))
        return request_id

    def wait(self, timeout_s=None):
        message = super().wait(timeout_s)
        if message is not None:
            self.events.append((self._open[message[0]].number, message[1]))
            if isinstance(message[1], TERMINAL):
                del self._open[message[0]]
        return message

    def reply(self, request_id, verdict):
        self.verdicts[self._open[request_id].number, verdict] += 1
        super().reply(request_id, verdict)


class Sweep:
    """A config with its home and its stored study; every `search` is a process of its own."""

    def __init__(self, folder: Path, **changes):
        self.config = make_config(folder, **{"search_space": SPACE, "training": {"max_examples": 100}, **changes})
        self.home = Home(folder / "home")
        self.storage = hpo.study._storage(None)
        self.inspection = INSPECTION

    def search(self, executor=None, jobs=1, gpus=0, tracker=None, view=None, during=lambda study: None):
        study = Study(self.config, self.storage)
        during(study)
        search = Search(
            self.config, self.home, self.inspection, study, tracker or Untracked(), executor or Recording(),
            view or Silent(), Slots(jobs, 1, gpus),
        )  # fmt: skip
        search.run()
        return search

    @property
    def records(self):
        return Study(self.config, self.storage).records()

    def result_on_disk(self, number):
        text = self.home.sweep(self.config.name).trial(number).result.read_text()
        return from_json(TrialResult, json.loads(text))


@pytest.fixture
def sweep(tmp_path):
    def sweep(num_trials=4, **changes):
        return Sweep(tmp_path, **{"search_strategy": {"num_trials": num_trials}, **changes})

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
    search = given.search(jobs=jobs)
    assert search.finished == 6
    assert [r.number for r in given.records] == list(range(6))
    assert {r.state for r in given.records} <= {"complete", "pruned"}
    assert all(r.result == given.result_on_disk(r.number) for r in given.records)


def test_without_a_space_one_trial_runs(sweep):
    given = sweep(search_space={})
    assert given.search(jobs=4).finished == 1


@pytest.mark.parametrize("jobs", [1, 3])
def test_never_more_than_jobs_are_under_way_and_as_many_as_possible(sweep, jobs):
    executor = Recording()
    sweep(num_trials=7).search(executor, jobs=jobs)
    assert executor.most_at_once == jobs


def test_trials_side_by_side_advance_in_turn(sweep):
    executor = Recording()
    sweep(num_trials=2, pruner={"type": "none"}).search(executor, jobs=2)
    numbers = [number for number, event in executor.events if isinstance(event, Evaluation)]
    assert numbers == [0, 1] * 5


def test_a_finished_sweep_trains_nothing_again(sweep):
    given = sweep()
    given.search()
    executor = Recording()
    assert given.search(executor).finished == 4
    assert executor.specs == []


def test_more_trials_may_be_asked_for_later(sweep):
    given = sweep(num_trials=2)
    given.search()
    longer = sweep(num_trials=5)
    longer.storage = given.storage
    executor = Recording()
    longer.search(executor)
    assert [spec.number for spec in executor.specs] == [2, 3, 4]


def test_every_trial_gets_its_slot_s_threads_and_the_sweep_s_budget(sweep):
    executor = Recording()
    sweep().search(executor)
    assert {(spec.threads, spec.device, spec.max_examples) for spec in executor.specs} == {(1, "cpu", 100)}


def test_trials_side_by_side_are_on_different_gpus(sweep):
    """Also when a later one ends first and its device is free again."""
    lasts = {0: 1, 1: 6, 2: 1, 3: 6, 4: 1, 5: 1}  # evaluations of each trial

    def uneven(request):
        for index in range(lasts[request.spec.number]):
            yield evaluation(index, (index + 1) / 6, 0.5)
        yield from finish(request)

    executor = Recording(uneven)
    sweep(num_trials=6, pruner={"type": "none"}).search(executor, jobs=2, gpus=2)
    assert all(len(set(devices)) == len(devices) for devices in executor.devices_at_once)


def finish(request):
    *_, result = drain(fake.work(request))
    yield result


def drain(work):
    try:
        event = next(work)
        while True:
            yield event
            event = work.send("go" if isinstance(event, Evaluation) else None)
    except StopIteration:
        pass


# --- pruning -------------------------------------------------------------------------------------------


def test_bad_trials_are_pruned_side_by_side_with_a_good_one(sweep):
    given = sweep(**grid(1e-3, 1e-1, 9e-2, 8e-2), training={"max_examples": 100, "learning_rate": 1e-3})
    executor = Recording()
    given.search(executor, jobs=4)
    assert [r.state for r in given.records] == ["complete", "pruned", "pruned", "pruned"]
    assert [executor.verdicts[number, "stop"] for number in range(4)] == [0, 1, 1, 1]
    assert all(len(r.curve) < 5 for r in given.records[1:])


def test_the_baseline_is_never_pruned(sweep):
    def baseline_comes_last(request):
        if request.spec.number == 0:
            yield from [Step(0, 0, 0.0, 0.0, 0.0)] * 30
        yield from fake.work(request)

    given = sweep(**grid(1e-3, 2e-3, 1e-1), training={"max_examples": 100, "learning_rate": 0.1})
    executor = Recording(baseline_comes_last)
    given.search(executor, jobs=3)
    assert [number for number, event in executor.events if isinstance(event, TrialResult)][-1] == 0
    assert given.records[0].state == "complete"


def test_a_pruner_of_type_none_stops_nothing(sweep):
    given = sweep(**grid(1e-3, 1e-1), pruner={"type": "none"})
    given.search(jobs=2)
    assert [r.state for r in given.records] == ["complete", "complete"]


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
    assert champion_of(given.records, given.config.objective).number in (0, 2)


def test_a_trial_that_fails_late_keeps_its_evaluations_and_names_its_best(sweep):
    def breaks(request):
        for index, value in enumerate([0.3, 0.6, 0.5]):
            yield evaluation(index, (index + 1) / 10, value)
        if request.spec.number == 1:
            raise RuntimeError("broken")
        yield from finish(request)

    given = sweep(num_trials=2, pruner={"type": "none"})
    given.search(Recording(breaks))
    result = given.records[1].result
    assert (result.cause, result.message) == ("crash", "RuntimeError: broken")
    assert [e.metrics["f1_macro"] for e in result.evaluations] == [0.3, 0.6, 0.5]
    assert (result.best_index, result.metrics, result.value) == (1, {"f1_macro": 0.6}, None)


def test_when_every_trial_fails_the_sweep_does(sweep):
    with pytest.raises(SweepError, match=r"no trial of sweep succeeded; the last one: diverged: loss is nan"):
        sweep(**grid(0.9, 0.8)).search()


def test_a_sweep_whose_trials_all_failed_fails_again_without_training(sweep):
    given = sweep(**grid(0.9))
    for expected in (1, 0):
        executor = Recording()
        with pytest.raises(SweepError):
            given.search(executor)
        assert len(executor.specs) == expected


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


# --- kills ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product may catch it."""


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

    executor = Recording()
    assert given.search(executor).finished == 4
    assert [spec.number for spec in executor.specs] == [2, 3]
    assert given.records[1].result == left
    assert len(given.records[1].curve) == len(left.evaluations)


def test_an_interrupted_trial_is_trained_again_under_its_number_and_point(sweep):
    given = sweep()

    def killed_in_second_trial(request):
        if request.spec.number == 1:
            raise Killed
        yield from fake.work(request)

    with pytest.raises(Killed):
        given.search(Recording(killed_in_second_trial))
    point = given.records[1].params
    executor = Recording()
    given.search(executor)
    assert [spec.number for spec in executor.specs] == [1, 2, 3]
    assert executor.specs[0].settings["learning_rate"] == point["learning_rate"]
    assert given.records[1].params == point


def test_a_killed_sweep_tries_the_points_of_one_that_was_not(sweep, tmp_path):
    given, undisturbed = sweep(), Sweep(tmp_path / "other", search_strategy={"num_trials": 4})
    with pytest.raises(Killed):
        given.search(during=kill_at_finish(1))
    given.search()
    undisturbed.search()
    assert [r.params for r in given.records] == [r.params for r in undisturbed.records]


def leave_result(given, number, spec, value=0.99):
    """What another sweep of the same name had left in a trial's folder."""
    paths = given.home.sweep(given.config.name).trial(number)
    paths.dir.mkdir(parents=True)
    paths.spec.write_text(json.dumps(to_json(spec)))
    result = TrialResult("complete", value, {"f1_macro": value}, 0, [], "budget", 1.0)
    paths.result.write_text(json.dumps(to_json(result)))


def test_a_result_of_another_spec_is_not_booked(sweep, tmp_path):
    given = sweep(num_trials=1)
    other = make_config(tmp_path, search_space=SPACE, seed=9)
    paths = given.home.sweep("sweep").trial(0)
    leave_result(given, 0, other.trial_spec(0, {}, given.home, INSPECTION, paths, 1))
    executor = Recording()
    given.search(executor)
    assert len(executor.specs) == 1
    assert given.records[0].result.value < 0.99


def test_a_result_of_another_spec_does_not_outlive_the_trial(sweep, tmp_path):
    given = sweep(num_trials=1)
    other = make_config(tmp_path, search_space=SPACE, seed=9)
    paths = given.home.sweep("sweep").trial(0)
    leave_result(given, 0, other.trial_spec(0, {}, given.home, INSPECTION, paths, 1))
    given.search()
    assert given.result_on_disk(0) == given.records[0].result


def test_a_result_of_another_spec_is_not_taken_for_that_of_a_killed_trial(sweep, tmp_path):
    def killed(request):
        raise Killed
        yield

    given = sweep(num_trials=1)
    other = make_config(tmp_path, search_space=SPACE, seed=9)
    paths = given.home.sweep("sweep").trial(0)
    leave_result(given, 0, other.trial_spec(0, {}, given.home, INSPECTION, paths, 1))
    with pytest.raises(Killed):
        given.search(Recording(killed))
    given.search()
    assert given.records[0].result.value < 0.99


def test_a_result_of_other_data_is_not_booked(sweep, tmp_path):
    """The study was deleted and the rows of the file changed; the trials' folders are still there."""
    given = sweep(num_trials=1)
    given.search()
    given.storage = hpo.study._storage(None)
    given.inspection = Inspection(**{**to_json(INSPECTION), "fingerprint": "2" * 64})
    executor = Recording()
    given.search(executor)
    assert len(executor.specs) == 1


# --- what is told --------------------------------------------------------------------------------------


class Told(Untracked):
    """A tracker that notes what it is told."""

    def __init__(self):
        self.started = []
        self.best = []

    def start_trial(self, spec, params, run_id):
        self.started.append((spec.number, run_id))
        return f"run{spec.number}"

    def best_so_far(self, finished, value):
        self.best.append((finished, value))


class Seen(Silent):
    """A view that notes which trials ended, and whether as the best so far."""

    def __init__(self):
        self.ended = []

    def trial_finished(self, number, result, finished, *, is_best):
        self.ended.append((number, finished, is_best))


def test_tracking_is_told_after_the_disk_and_before_the_study(sweep):
    given, told = sweep(num_trials=2), Told()
    states = []
    told.finish_trial = lambda number, result, paths: states.append(
        (paths.result.exists(), given.records[number].state)
    )
    given.search(tracker=told)
    assert states == [(True, "running")] * 2


def test_a_run_is_taken_up_by_its_id(sweep):
    given = sweep(num_trials=2)
    with pytest.raises(Killed):
        given.search(tracker=Told(), during=kill_at_finish(1))
    told = Told()
    given.search(tracker=told)
    assert told.started == [(1, "run1")]
    assert [r.run_id for r in given.records] == ["run0", "run1"]


@pytest.mark.parametrize(("metric", "best"), [("f1_macro", max), ("loss", min)])
def test_the_best_so_far_follows_the_metric_s_direction(sweep, metric, best):
    given = sweep(num_trials=6, objective={"metric": metric}, pruner={"type": "none"})
    told, seen = Told(), Seen()
    given.search(tracker=told, view=seen)
    values = [r.result.value for r in given.records]
    assert told.best == [(i + 1, best(values[: i + 1])) for i in range(6)]
    assert seen.ended == [(i, i + 1, values[i] == told.best[i][1]) for i in range(6)]


def test_a_pruned_trial_is_never_the_best_so_far(sweep):
    def pruned_above_all(request):
        number = request.spec.number
        yield evaluation(0, 0.2, 0.1 * (number == 0))
        yield TrialResult("pruned" if number else "complete", 0.1 + number, {}, 0, [], "pruner", 1.0)

    given, told = sweep(num_trials=3), Told()
    given.search(Recording(pruned_above_all), tracker=told)
    assert [value for _, value in told.best] == [0.1] * 3


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
    assert isinstance(run_alone(InlineExecutor(fake.work), inspect_request(given.config)), Inspection)
    spec = given.config.trial_spec(0, {}, given.home, INSPECTION, given.home.sweep("sweep").trial(0), threads=1)

    def no_evaluations(request):
        yield from finish(request)

    assert isinstance(run_alone(InlineExecutor(no_evaluations), TrainRequest(spec, INSPECTION)), TrialResult)


def test_a_request_that_finds_bad_data_is_a_config_error(sweep):
    given = sweep()
    Path(given.config.data.train).unlink()
    with pytest.raises(ConfigError, match=r"train.jsonl: is not there"):
        run_alone(InlineExecutor(fake.work), inspect_request(given.config))


def test_any_other_failure_of_a_request_is_a_sweep_error():
    with pytest.raises(SweepError, match="crash: the fake trainer cannot measure"):
        run_alone(InlineExecutor(fake.work), Measure("chat", "fp32", "folder", 1))
