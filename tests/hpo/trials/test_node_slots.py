"""Slots on machines that come and go."""

import dataclasses
from types import SimpleNamespace

import pytest

from hpo.config.sweep_config import RetryPolicy
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ClusterError
from hpo.executors.base import Place
from hpo.executors.environment import Environment
from hpo.paths import Home
from hpo.trials import node_slots
from hpo.trials.job import Job
from hpo.trials.node_slots import choose_node_slots
from hpo.trials.slots import AMPLE_FOR, AMPLE_MB, MARGIN
from tests.hpo.builders import INSPECTION, make_config, scheduler
from trainers.protocol.events import Failed, Probed, Trained, TrialEvent, TrialResult


def place(name, cores=2, memory_mb=10.0 * AMPLE_MB, gpus=0, gpu_memory_mb=0.0):
    return Place(name, name, cores, memory_mb, gpus, gpu_memory_mb, Environment(cpu=name))


class Nodes:
    """Machines, and where requests were submitted."""

    def __init__(self, *places):
        self.now = list(places)
        self.submitted = []

    def places(self):
        return self.now

    def submit(self, request, place=""):
        self.submitted.append((request, place))
        return len(self.submitted)


def probed(memory_mb):
    return Probed(1, 0.1, 0.1, memory_mb, 1.0)


def never():
    raise AssertionError("memory is ample")


def test_slots_are_the_sum_of_what_machines_have():
    nodes = Nodes(place("a", cores=2), place("b", cores=3))
    slots = choose_node_slots(nodes, 20, None, None, never)
    assert (slots.open(), slots.jobs, slots.threads) == ([0, 1, 2, 3, 4], 5, 1)
    assert {slots.environment(slot).cpu for slot in slots.open()} == {"a", "b"}


def test_a_machine_that_joins_has_new_slots_and_one_that_leaves_gives_its_numbers_back():
    nodes = Nodes(place("a"))
    slots = choose_node_slots(nodes, 20, None, None, never)
    assert slots.open() == [0, 1]
    nodes.now.append(place("b", cores=1))
    assert slots.open() == [0, 1, 2]
    del nodes.now[0]
    assert slots.open() == [2]
    nodes.now.append(place("c"))
    assert slots.open() == [0, 1, 2]
    assert [slots.environment(slot).cpu for slot in (0, 1, 2)] == ["c", "c", "b"]


def test_a_request_goes_to_the_machine_of_its_slot_or_to_none_where_that_has_left():
    nodes = Nodes(place("a", cores=1), place("b", cores=1))
    slots = choose_node_slots(nodes, 20, None, None, never)
    where = {slots.environment(slot).cpu: slot for slot in slots.open()}
    slots.submit(nodes, where["b"], "request")
    del nodes.now[1]
    slots.submit(nodes, where["b"], "another")
    assert nodes.submitted == [("request", "b"), ("another", "-")]
    assert slots.environment(where["b"]) is None


@pytest.mark.parametrize(
    ("places", "planned", "jobs", "threads", "expected"),
    [
        ([place("a", 8)], 1, None, None, (1, 8)),  # one trial has all cores
        ([place("a", 8), place("b", 4)], 2, None, None, (2, 4)),  # threads are the same everywhere
        ([place("a", 8)], 20, 2, None, (2, 4)),
        ([place("a", 2)], 20, None, 3, (2, 3)),
    ],
)
def test_threads_are_the_same_on_all_machines(places, planned, jobs, threads, expected):
    slots = choose_node_slots(Nodes(*places), planned, jobs, threads, never)
    assert (slots.jobs, slots.threads) == expected


def test_memory_limits_what_a_machine_takes():
    nodes = Nodes(place("a", cores=4, memory_mb=1000.0), place("b", cores=4))
    slots = choose_node_slots(nodes, 20, None, None, lambda: probed(400.0))
    assert len(slots.open()) == 2 + 4


def test_a_larger_base_needs_more_to_be_ample_and_what_the_file_allows_is_all_there_is_on_a_machine():
    nodes = Nodes(place("a", cores=4, memory_mb=4.0 * AMPLE_MB))
    large = choose_node_slots(nodes, 20, None, None, lambda: probed(2 * AMPLE_MB / MARGIN), parameters=2 * AMPLE_FOR)
    assert len(large.open()) == 2
    assert len(choose_node_slots(nodes, 20, None, None, lambda: probed(400.0), most_mb=1000.0).open()) == 2
    gpu = Nodes(place("a", cores=8, gpus=1, gpu_memory_mb=80_000.0))
    assert len(choose_node_slots(gpu, 20, None, None, lambda: probed(400.0), most_mb=1000.0).open()) == 2


def test_gpus_take_turns_and_share_their_memory():
    nodes = Nodes(place("a", cores=8, gpus=2, gpu_memory_mb=10_000.0))
    slots = choose_node_slots(nodes, 20, None, None, lambda: probed(4000.0))
    assert sorted(slots.devices(slot) for slot in slots.open()) == [("cuda:0",)] * 2 + [("cuda:1",)] * 2
    assert slots.devices(99) == ("cpu",)


def test_one_that_does_not_fit_has_a_machine_for_itself():
    nodes = Nodes(place("a", cores=4, memory_mb=100.0))
    assert choose_node_slots(nodes, 20, None, None, lambda: None).open() == [0]


def test_a_machine_with_fewer_gpus_than_a_trial_takes_has_no_slot():
    small, large = place("a", gpus=1, gpu_memory_mb=1e5), place("b", cores=8, gpus=4, gpu_memory_mb=1e5)
    for jobs in (None, 2):
        slots = choose_node_slots(Nodes(small, large), 20, jobs, None, lambda: probed(1e5), devices=2)
        assert [slots.environment(slot).cpu for slot in slots.open()] == ["b", "b"]
        assert slots.devices(1) == ("cuda:2", "cuda:3")
    with pytest.raises(ClusterError, match=r"no node has had the 2 GPUs that a trial takes \(training\.devices\)"):
        choose_node_slots(Nodes(small), 20, None, None, never, devices=2)


def test_machines_take_turns_so_that_few_trials_are_spread_over_all():
    nodes = Nodes(place("b", cores=2), place("c", cores=1), place("a", cores=3))
    slots = choose_node_slots(nodes, 20, None, None, never)
    assert [slots.environment(slot).cpu for slot in slots.open()] == ["b", "c", "a", "b", "a", "a"]
    nodes.now = [nodes.now[2], place("d", cores=2)]  # slots of machines that have left are given anew
    assert [slots.environment(slot).cpu for slot in slots.open()] == ["d", "d", "a", "a", "a"]


def test_machines_of_which_none_takes_a_trial_are_not_waited_for_for_ever(monkeypatch):
    small, large = place("a", gpus=1), place("b", gpus=2)
    nodes, clock = Nodes(small, large), [0.0]
    monkeypatch.setattr(node_slots, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    slots = choose_node_slots(nodes, 20, 1, None, never, devices=2)

    def open_at(seconds, *places):
        clock[0], nodes.now = seconds, list(places)
        return slots.open()

    long = node_slots.WITHOUT_SLOT_S
    assert [open_at(0.0, small), open_at(long, small), open_at(2 * long, small, large)] == [[], [], [0]]
    assert [open_at(3 * long, small), open_at(4 * long, small)] == [[], []]
    with pytest.raises(ClusterError, match=r"for 120 s no node has had the 2 GPUs .* the same command continues"):
        open_at(4 * long + 1, small)


def test_without_any_machine_slots_wait_for_one():
    nodes = Leaving(joins_after=2)
    slots = choose_node_slots(nodes, 20, None, None, lambda: probed(1e5))
    assert (nodes.waits, len(slots.open())) == (2, 1)


# --- the scheduler on them -----------------------------------------------------------------------------


class Leaving(Nodes):
    """Machines that answer each trial in turn: one leaves with its first trial, and another one joins later."""

    def __init__(self, *places, joins_after):
        super().__init__(*places)
        self.events = []
        self.joins_after = joins_after
        self.waits = 0

    def submit(self, request, place=""):
        request_id = super().submit(request, place)
        if request_id == 1:
            self.now = [other for other in self.now if other.id != place]
            self.events.append((request_id, Failed("interrupted", f"node {place} left")))
        else:
            ended = TrialResult("complete", 0.5, {"f1_macro": 0.5}, 0, [], "budget", 1.0)
            self.events += [(request_id, TrialEvent(request.spec.number, ended)), (request_id, Trained())]
        return request_id

    def wait(self, timeout_s=None):
        if self.events:
            return self.events.pop(0)
        self.waits += 1
        if self.waits == self.joins_after:
            self.now.append(place("new", gpus=1, gpu_memory_mb=1e5, cores=1))
        return None


class Controller:
    """Hands out jobs, and notes which ones ended."""

    def __init__(self, *jobs):
        self.jobs = list(jobs)
        self.ended = []

    def next_job(self, slot):
        return dataclasses.replace(self.jobs.pop(0), slot=slot) if self.jobs else None

    def is_spent(self):
        return False

    def spared(self, jobs):
        return None

    def retrying(self, job):
        pass

    def finished(self, job, result):
        self.ended.append((job.number, result.state, job.spec.devices))


@pytest.fixture
def jobs(tmp_path):
    home = Home(tmp_path / "home")
    specs = TrialSpecs(make_config(tmp_path), home, INSPECTION)
    folders = [home.sweep("sweep").trial(number) for number in range(3)]
    return [Job(specs.spec(number, {}, paths), paths, 0) for number, paths in enumerate(folders)]


def run_on(nodes, controller):
    slots = choose_node_slots(nodes, 20, None, 1, never)
    scheduler(nodes, slots, RetryPolicy(1, 30)).run(controller)


def test_a_trial_whose_machine_left_goes_on_on_another_one(jobs):
    nodes, controller = Leaving(place("a", cores=1), place("b", cores=1), joins_after=0), Controller(*jobs)
    run_on(nodes, controller)
    assert sorted(number for number, _, _ in controller.ended) == [0, 1, 2]
    first = nodes.submitted[0][1]
    assert {where for _, where in nodes.submitted[1:]} == {"a", "b"} - {first}


def test_without_any_machine_trials_wait_for_one_and_get_its_devices(jobs):
    nodes, controller = Leaving(place("a", cores=1), joins_after=3), Controller(*jobs)
    run_on(nodes, controller)
    assert sorted(controller.ended) == [
        (0, "complete", ("cuda:0",)),
        (1, "complete", ("cpu",)),
        (2, "complete", ("cpu",)),
    ]
    assert nodes.waits == 3
