"""What a failure means for a trial."""

import dataclasses

import pytest

from hpo.config.trial_specs import TrialSpecs
from hpo.paths import Home
from hpo.results.records import Attempt
from hpo.trials.retries import (
    MOST_HALVINGS,
    NOT_PAUSED,
    halvings_of_next_attempt,
    halvings_to_begin_with,
    is_disk_full,
)
from tests.hpo.builders import INSPECTION, make_config
from trainers.protocol.events import PAUSED, Failed


@pytest.fixture
def spec(tmp_path):
    """The default trial (a micro-batch of 8 rows) with another micro-batch and number of micro_batch_halvings."""

    def make(micro_batch_size=8, micro_batch_halvings=0):
        config = make_config(tmp_path, training={"micro_batch_size": micro_batch_size, "batch_size": 64})
        home = Home(tmp_path / "home")
        made = TrialSpecs(config, home, INSPECTION).spec(0, {}, home.sweep("sweep").trial(0))
        return dataclasses.replace(made, micro_batch_halvings=micro_batch_halvings)

    return make


def attempts(*causes):
    return [Attempt(cause, "why", 1.0, None, 0) for cause in causes]


# --- what is worth another try --------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["crash", "interrupted", "timeout"])
@pytest.mark.parametrize("retries", [0, 1, 2])
def test_chance_and_the_machine_s_faults_are_tried_again_so_often(spec, cause, retries):
    for failures in range(4):
        answer = halvings_of_next_attempt(Failed(cause, "why"), spec(), attempts(*[cause] * failures), retries)
        assert answer == (0 if failures < retries else None)


def test_different_causes_share_the_retries(spec):
    earlier = attempts("crash", "timeout")
    assert halvings_of_next_attempt(Failed("interrupted", "why"), spec(), earlier, 3) == 0
    assert halvings_of_next_attempt(Failed("interrupted", "why"), spec(), earlier, 2) is None


@pytest.mark.parametrize("cause", ["diverged", "data"])
def test_what_would_only_happen_again_is_not_tried_again(spec, cause):
    assert halvings_of_next_attempt(Failed(cause, "why"), spec(), [], 100) is None


@pytest.mark.parametrize("pause", [PAUSED, NOT_PAUSED])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_pause_costs_none(spec, pause, retries):
    paused = [Attempt(pause.cause, pause.message, 1.0, None, 0)] * 5
    assert halvings_of_next_attempt(pause, spec(), paused, retries) == 0
    assert halvings_of_next_attempt(pause, spec(), attempts(*["crash"] * retries), retries) == 0
    crashed = halvings_of_next_attempt(Failed("crash", "why"), spec(), paused, retries)
    assert crashed == (0 if retries else None)


def test_a_retry_keeps_the_micro_batch_that_fits(spec):
    assert (
        halvings_of_next_attempt(Failed("crash", "why"), spec(micro_batch_halvings=2), attempts("oom", "oom"), 1) == 2
    )


# --- memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batch_size", [64, 4, 1])
def test_memory_is_halved_up_to_three_times(spec, micro_batch_size):
    """Whatever `retries` says: each attempt is another trial as far as memory goes. With one row a micro-batch it may
    be the evaluation that is too large."""
    micro_batch_halvings, seen = 0, []
    while micro_batch_halvings is not None:
        seen.append(micro_batch_halvings)
        earlier = attempts(*["oom"] * len(seen[:-1]))
        micro_batch_halvings = halvings_of_next_attempt(
            Failed("oom", "why"), spec(micro_batch_size, micro_batch_halvings), earlier, 0
        )
    assert seen == list(range(MOST_HALVINGS + 1))


def test_crashes_between_halvings_use_up_retries_only(spec):
    earlier = attempts("crash", "oom", "crash")
    assert halvings_of_next_attempt(Failed("oom", "why"), spec(micro_batch_halvings=1), earlier, 2) == 2
    assert halvings_of_next_attempt(Failed("crash", "why"), spec(micro_batch_halvings=1), earlier, 2) is None


def attempt(cause, micro_batch_halvings):
    return Attempt(cause, "why", 1.0, None, micro_batch_halvings)


@pytest.mark.parametrize(
    ("earlier", "micro_batch_halvings"),
    [
        ([], 0),
        ([attempt("crash", 0)], 0),
        ([attempt("oom", 0)], 1),
        ([attempt("oom", 0), attempt("oom", 1)], 2),
        ([attempt("oom", 0), attempt("interrupted", 1)], 1),
        ([attempt("oom", 0), attempt("crash", 1), attempt("oom", 1), attempt("interrupted", 2)], 2),
        ([attempt("oom", n) for n in range(4)], 3),
    ],
)
def test_the_next_session_begins_with_what_this_one_learned_of_memory(earlier, micro_batch_halvings):
    assert halvings_to_begin_with(earlier) == micro_batch_halvings


# --- a full disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "OSError: [Errno 28] No space left on device: '/x/trial.log'",
        "OSError: [Errno 122] Disk quota exceeded",
        "SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)",
        "OSError: 120000 requested and 496 written",
        "OperationalError: database or disk is full",
    ],
)
def test_a_full_disk_is_known_by_what_libraries_say(message):
    assert is_disk_full(Failed("crash", message))


@pytest.mark.parametrize(
    "failed",
    [
        Failed("crash", "OSError: [Errno 5] Input/output error"),
        Failed("crash", "the trial's process was killed by SIGKILL"),
        Failed("oom", "OSError: [Errno 12] Cannot allocate memory"),
        Failed("diverged", "loss is nan"),
        Failed("data", "No space left on device"),
    ],
)
def test_nothing_else_is_taken_for_one(failed):
    assert not is_disk_full(failed)
