"""What fits into memory, from coefficients that are easy to count with."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.config.trial_specs import TrialSpecs
from hpo.paths import Home
from hpo.trials.fitting import Fitting, kind_of, largest_pass
from hpo.trials.slots import MARGIN
from tests.hpo.builders import INSPECTION, make_config
from tests.hpo.executors.measured import MODEL
from trainers.protocol.codec import from_json, to_json
from trainers.protocol.files import TrialPaths
from trainers.protocol.memory_model import MemoryModel, Rows


@pytest.fixture
def spec(tmp_path):
    def make(rank=64, batch_size=16, **settings):
        config = make_config(tmp_path, training=settings)
        point = {"lora_r": rank, "batch_size": batch_size}
        return TrialSpecs(config, Home(tmp_path / "home"), INSPECTION).spec(0, point, TrialPaths(tmp_path))

    return make


def fitting(spec, limit_mb, at_a_time=1, **changes):
    return Fitting({kind_of(spec): MODEL}, limit_mb, at_a_time, **changes)


def test_what_is_needed_grows_with_rank_rows_and_length(spec):
    def needs(spec):
        return next(iter(fitting(spec, 1.0).ways(spec, frozenset()))).needs_mb

    assert needs(spec()) == 100 + 64 + 160
    assert needs(spec(rank=8)) == 100 + 8 + 160
    assert needs(spec(batch_size=4)) == 100 + 64 + 40
    assert needs(spec(max_length=8)) == 100 + 64 + 128
    assert needs(spec(gradient_checkpointing=True)) == 100 + 64 + 40


@pytest.mark.parametrize(
    ("needed_mb", "rows", "recomputes"),
    [
        (324, 16, False), (323, 8, False), (204, 4, False), (203, 8, True), (174, 4, True), (173, 2, True),
        (10, 2, True),
    ],
)  # fmt: skip
def test_smaller_passes_come_first_then_activations_twice_then_a_row_at_a_time(spec, needed_mb, rows, recomputes):
    """With the margin; where nothing fits surely, what needs least is tried."""
    given = spec()
    found = fitting(given, needed_mb * MARGIN + 1e-6).fitted(given)
    expected = {**given.settings, "micro_batch_size": rows, "gradient_checkpointing": recomputes}
    assert found.settings == expected
    assert found.fingerprint() == given.fingerprint()
    both = fitting(given, 2 * (needed_mb * MARGIN + 1e-6), at_a_time=2)
    assert both.fitted(given) == found


def test_with_ample_memory_or_without_a_model_a_trial_stays_as_it_is(spec):
    given = spec()
    assert fitting(given, 10_000.0).fitted(given) == given
    assert Fitting().fitted(given) is given
    assert Fitting().refuse(given) is None


def test_what_the_file_says_is_not_changed(spec):
    given = spec()
    assert fitting(given, 100.0, free=frozenset()).fitted(given) == given
    only = fitting(given, 100.0, free=frozenset({"gradient_checkpointing"})).fitted(given)
    assert (only.settings["micro_batch_size"], only.settings["gradient_checkpointing"]) == (16, True)


def test_only_what_cannot_fit_with_all_that_spares_memory_is_refused(spec):
    """One row, computed twice: 100 + 64 + 2.5 MB. An evaluation of 5 MB would be halved, three times at most."""
    given = spec()
    assert fitting(given, 166.5 / MARGIN + 0.1).refuse(given) is None
    why = fitting(given, 166.5 / MARGIN - 0.1).refuse(given)
    assert (why.needs_mb, why.why()) == (166.5, "needs about 0.2 GB of 0.1 GB")
    hungry = Fitting({kind_of(given): dataclasses.replace(MODEL, evaluation_mb=80.0)}, 100.0)
    assert hungry.refuse(given).needs_mb == 174.0
    assert fitting(given, 1.0, impossible=frozenset({kind_of(given)})).refuse(given).why() == "runs out of 1 MB"
    smaller = spec(rank=8)
    assert fitting(given, 166.5 / MARGIN - 0.1).refuse(smaller) is None


def test_the_longest_rows_of_a_batch_go_together():
    lengths = (1, 2, 3, 10)
    assert largest_pass(lengths, "apart", 4, 2, 100) == Rows(13, 109)
    assert largest_pass(lengths, "padded", 4, 2, 100) == Rows(20, 200)
    assert largest_pass(lengths, "packed", 4, 2, 100) == Rows(13, 169)
    assert largest_pass(lengths, "apart", 8, 8, 8).tokens <= 80  # fewer rows than a batch has: some twice


def test_a_model_crosses_the_border_whole():
    assert from_json(MemoryModel, to_json(MODEL)) == MODEL
    unable = dataclasses.replace(MODEL, recomputed=None)
    assert from_json(MemoryModel, to_json(unable)) == unable


# --- several devices -----------------------------------------------------------------------------------


def on(spec, *devices):
    return dataclasses.replace(spec, devices=devices)


@pytest.mark.parametrize(
    ("rows", "devices", "at_a_time"),
    [(16, 2, 8), (16, 3, 6), (8, 2, 8), (4, 2, 4), (12, 2, 12), (16, 16, 1), (1, 32, 1)],
)
def test_a_device_has_a_micro_batch_at_a_time_or_its_share_of_a_batch_that_has_too_few(spec, rows, devices, at_a_time):
    """Of a batch of 16: two micro-batches, one of 12 rows and one of 4, are enough for two devices."""
    given = on(spec(micro_batch_size=rows), *["cuda:0"] * devices)
    [way] = fitting(given, 1.0).ways(given, frozenset())
    assert way.micro_batch_size == at_a_time
    assert way.needs_mb == 100 + 64 + 10 * at_a_time


def test_each_process_needs_its_memory_and_each_gpu_has_its_own(spec):
    given = spec()
    assert fitting(given, 10_000.0).way(on(given, "cpu", "cpu")).needs_mb == 2 * (100 + 64 + 80)
    assert fitting(given, 10_000.0).way(on(given, "cuda:0", "cuda:1")).needs_mb == 100 + 64 + 80
    room = 2 * 204 * MARGIN + 1e-6  # with four rows at a time
    assert fitting(given, room).fitted(on(given, "cpu", "cpu")).settings["micro_batch_size"] == 4
    assert fitting(given, room / 2).fitted(on(given, "cuda:0", "cuda:1")).settings["micro_batch_size"] == 4
    alone = fitting(given, 166.5 / MARGIN + 0.1)
    assert alone.refuse(on(given, "cuda:0", "cuda:1")) is None
    assert alone.refuse(on(given, "cpu", "cpu")).needs_mb == 2 * 166.5


def test_gradients_are_added_up_once_activations_are_gone(spec):
    """Of eight rows at a time these take 80 MB."""
    given = spec()

    def needs(summing_mb, *devices):
        model = dataclasses.replace(MODEL, summing_mb=summing_mb)
        return Fitting({kind_of(given): model}, 10_000.0).way(on(given, *devices)).needs_mb

    assert needs(64.0, "cuda:0", "cuda:1") == 100 + 64 + 80
    assert needs(90.0, "cuda:0", "cuda:1") == 100 + 64 + 90
    assert needs(900.0, "cuda:0") == 100 + 64 + 160
