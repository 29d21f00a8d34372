"""How many trials side by side, on which device, with how many threads."""

import dataclasses

import pytest

from hpo.executors.free_memory import available_memory_mb
from hpo.trials import slots
from hpo.trials.slots import (
    MARGIN,
    Slots,
    choose_slots,
    cores,
    cpu_jobs,
    first_devices,
    gpu_jobs,
    probes_at_once,
)
from tests.hpo.builders import INSPECTION
from trainers.protocol.events import Probed


def probed(memory_mb):
    return Probed(1000, 0.1, 1.0, memory_mb, 1.0)


def never():
    pytest.fail("nobody needed to ask")


@pytest.fixture
def machine(monkeypatch):
    def make(cores=4, available_mb=1 << 20):
        monkeypatch.setattr(slots, "cores", lambda: cores)
        monkeypatch.setattr(slots, "available_memory_mb", lambda: available_mb)

    return make


def with_gpus(count, memory_mb=0.0):
    return dataclasses.replace(INSPECTION, gpus=count, gpu_memory_mb=memory_mb)


# --- on a CPU ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "planned", "jobs", "threads"),
    [(1, 20, 1, 1), (2, 20, 2, 1), (8, 20, 8, 1), (8, 3, 3, 2), (8, 1, 1, 8), (7, 2, 2, 3)],
)
def test_with_ample_memory_a_trial_per_core_and_nobody_is_asked(machine, cores, planned, jobs, threads):
    machine(cores)
    assert choose_slots(INSPECTION, planned, None, None, never) == Slots(jobs, threads, gpus=0)


def test_ample_is_ample_for_each_of_them(machine):
    machine(cores=4, available_mb=4 * slots.AMPLE_MB)
    assert choose_slots(INSPECTION, 20, None, None, never).jobs == 4
    machine(cores=4, available_mb=4 * slots.AMPLE_MB - 1)
    asked = []
    assert choose_slots(INSPECTION, 20, None, None, lambda: asked.append(1) or probed(10.0)).jobs == 4
    assert asked == [1]


@pytest.mark.parametrize(
    ("available_mb", "needs_mb", "jobs"),
    [(4000, 100, 8), (8 * 125, 100, 8), (8 * 125 - 1, 100, 7), (1000, 400, 2), (499, 400, 1), (100, 400, 1)],
)
def test_where_memory_is_short_as_many_as_fit_with_a_margin(machine, available_mb, needs_mb, jobs):
    assert MARGIN == 1.25
    machine(cores=8, available_mb=available_mb)
    assert choose_slots(INSPECTION, 20, None, None, lambda: probed(needs_mb)).jobs == jobs


def test_a_larger_base_needs_more_to_be_ample_and_what_the_file_allows_is_all_there_is(machine):
    machine(cores=4, available_mb=4 * slots.AMPLE_MB)
    large = dataclasses.replace(INSPECTION, parameters=2 * slots.AMPLE_FOR)
    assert choose_slots(large, 20, None, None, lambda: probed(2 * slots.AMPLE_MB / MARGIN)).jobs == 2
    assert probes_at_once(large) == 1
    assert choose_slots(INSPECTION, 20, None, None, lambda: probed(400), most_mb=1000.0).jobs == 2
    assert choose_slots(with_gpus(1, 80_000), 20, None, None, lambda: probed(400), most_mb=1000.0).jobs == 2


def test_fewer_trials_at_a_time_have_more_threads(machine):
    machine(cores=8, available_mb=1000)
    assert choose_slots(INSPECTION, 20, None, None, lambda: probed(400)) == Slots(2, 4)


def test_a_single_trial_is_not_measured(machine):
    machine(cores=8, available_mb=10)
    assert choose_slots(INSPECTION, 1, None, None, never) == Slots(1, 8)
    assert cpu_jobs(1, never, available_mb=0.0) == 1


@pytest.mark.parametrize(
    ("jobs", "threads", "chosen"),
    [(1, None, Slots(1, 4)), (2, None, Slots(2, 2)), (3, None, Slots(3, 1)), (9, None, Slots(9, 1)),
     (2, 7, Slots(2, 7)), (None, 3, Slots(4, 3))],
)  # fmt: skip
def test_what_a_person_asks_for_is_given(machine, jobs, threads, chosen):
    machine(cores=4)
    assert choose_slots(INSPECTION, 20, jobs, threads, never) == chosen


def test_asked_for_jobs_are_not_measured_even_where_memory_is_short(machine):
    machine(cores=4, available_mb=1)
    assert choose_slots(INSPECTION, 20, 4, None, never).jobs == 4


def test_probes_run_side_by_side_as_trials_will_where_memory_is_ample(machine):
    machine(cores=4, available_mb=4 * slots.AMPLE_MB)
    assert probes_at_once(INSPECTION) == 4
    assert probes_at_once(with_gpus(2)) == 1
    machine(cores=4, available_mb=4 * slots.AMPLE_MB - 1)
    assert probes_at_once(INSPECTION) == 1


# --- on GPUs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "memory_mb", "needs_mb", "cores", "jobs"),
    [
        (1, 10_000, 2_000, 16, 4),
        (2, 10_000, 2_000, 16, 8),
        (2, 10_000, 9_000, 16, 2),  # one each, though the margin does not fit
        (1, 1_000, 2_000, 16, 1),
        (4, 80_000, 1_000, 16, 16),  # no more than cores to feed them
        (4, 80_000, 1_000, 2, 4),  # but one on each
    ],
)
def test_on_each_gpu_as_many_as_its_memory_and_the_cores_allow(machine, gpus, memory_mb, needs_mb, cores, jobs):
    machine(cores, available_mb=1)
    inspection = with_gpus(gpus, memory_mb)
    assert gpu_jobs(inspection, lambda: probed(needs_mb)) == jobs
    chosen = choose_slots(inspection, 100, None, None, lambda: probed(needs_mb))
    assert (chosen.jobs, chosen.gpus, chosen.threads) == (jobs, gpus, max(1, cores // jobs))


def test_where_the_largest_trial_does_not_fit_each_has_a_device_for_itself(machine):
    machine(cores=8, available_mb=1000)
    assert choose_slots(INSPECTION, 20, None, None, lambda: None) == Slots(1, 8)
    assert choose_slots(with_gpus(2, 8000), 20, None, None, lambda: None).jobs == 2


def test_no_more_than_planned(machine):
    machine(16)
    assert choose_slots(with_gpus(4, 80_000), 3, None, None, lambda: probed(1_000)) == Slots(3, 5, 4)


def test_more_jobs_than_gpus_take_turns_on_them():
    assert [Slots(5, 1, 2).devices(slot) for slot in range(5)] == [(f"cuda:{n}",) for n in (0, 1, 0, 1, 0)]
    assert [Slots(2, 1, 4).devices(slot) for slot in range(2)] == [("cuda:0",), ("cuda:1",)]
    assert [Slots(3, 1).devices(slot) for slot in range(3)] == [("cpu",)] * 3


def test_no_gpu_has_two_more_trials_than_another():
    for gpus in range(1, 5):
        for jobs in range(1, 12):
            devices = [Slots(jobs, 1, gpus).devices(slot) for slot in range(jobs)]
            counts = [devices.count((f"cuda:{n}",)) for n in range(gpus)]
            assert sum(counts) == jobs
            assert max(counts) - min(counts) <= 1


# --- several devices a trial ---------------------------------------------------------------------------


def test_trials_of_several_gpus_have_neighbours_and_none_shares_one_before_all_are_taken():
    def devices(gpus, each, slots):
        return [Slots(slots, 1, gpus, devices_per_trial=each).devices(slot) for slot in range(slots)]

    assert devices(4, 2, 3) == [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3"), ("cuda:0", "cuda:1")]
    assert devices(5, 2, 2) == [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]
    assert devices(0, 2, 1) == [("cpu", "cpu")]
    assert first_devices(with_gpus(4), 3) == ("cuda:0", "cuda:1", "cuda:2")
    assert first_devices(with_gpus(1), 2) == ("cuda:0",)  # a recorded run, trained again on what there is


@pytest.mark.parametrize(
    ("inspection", "devices", "chosen"),
    [
        (INSPECTION, 2, Slots(4, 1, devices_per_trial=2)),
        (INSPECTION, 3, Slots(2, 1, devices_per_trial=3)),
        (INSPECTION, 16, Slots(1, 1, devices_per_trial=16)),
        (with_gpus(4, 1000), 2, Slots(2, 2, 4, devices_per_trial=2)),
        (with_gpus(4, 2000), 2, Slots(4, 1, 4, devices_per_trial=2)),
    ],
)
def test_a_trial_takes_cores_or_gpus_for_each_of_its_devices(machine, inspection, devices, chosen):
    machine(cores=8)
    assert choose_slots(inspection, 20, None, None, lambda: probed(800), devices) == chosen


def test_each_process_of_a_trial_needs_its_memory(machine):
    machine(cores=8, available_mb=2000)
    assert choose_slots(INSPECTION, 20, None, None, lambda: probed(400), 2).jobs == 2


# --- the machine itself --------------------------------------------------------------------------------


def test_this_machine_has_cores_and_memory():
    assert cores() >= 1
    assert 1 < available_memory_mb() < 1 << 30
