"""Slots on machines that come and go."""

import pytest

from hpo.executors.base import Place
from hpo.executors.environment import Environment
from hpo.trials.node_slots import choose_node_slots
from hpo.trials.slots import AMPLE_MB
from trainers.protocol.events import Probed


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


def test_gpus_take_turns_and_share_their_memory():
    nodes = Nodes(place("a", cores=8, gpus=2, gpu_memory_mb=10_000.0))
    slots = choose_node_slots(nodes, 20, None, None, lambda: probed(4000.0))
    assert sorted(slots.devices(slot) for slot in slots.open()) == [("cuda:0",)] * 2 + [("cuda:1",)] * 2
    assert slots.devices(99) == ("cpu",)


def test_one_that_does_not_fit_has_a_machine_for_itself():
    nodes = Nodes(place("a", cores=4, memory_mb=100.0))
    assert choose_node_slots(nodes, 20, None, None, lambda: None).open() == [0]
