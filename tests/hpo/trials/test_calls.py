"""Requests while nothing else is under way."""

from __future__ import annotations

from collections import deque

import pytest

from hpo.errors import ConfigError, RequestFailed
from hpo.trials.calls import run_all
from tests.hpo.builders import INSPECTION
from trainers.protocol.events import Failed, Finding, Loaded, Probed, Step
from trainers.protocol.requests import Load
from trainers.protocol.trial_spec import ModelRef, Workload

REQUEST = Load(Workload("chat", ModelRef("m"), None, 8, "fp32", "c"), INSPECTION)


class Script:
    """An executor that ends what is under way in the order of `ends`: the newest first, or the oldest."""

    def __init__(self, newest_first=False, failure=None):
        self.newest_first = newest_first
        self.failure = failure
        self.submitted = 0
        self.under_way = deque()
        self.most = 0

    def submit(self, request):
        self.submitted += 1
        self.under_way.append(self.submitted)
        self.most = max(self.most, len(self.under_way))
        return self.submitted

    def wait(self, timeout_s=None):
        request_id = self.under_way.pop() if self.newest_first else self.under_way.popleft()
        return request_id, self.failure or Loaded(parameters=request_id, seconds=0.0)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (2, 2), (9, 5)])
def test_ends_are_in_the_order_of_requests_and_no_more_run_than_asked_for(newest_first, at_once, most):
    executor = Script(newest_first)
    ended = run_all(executor, [REQUEST] * 5, at_once)
    assert [event.parameters for event in ended] == [1, 2, 3, 4, 5]
    assert executor.most == most


def test_progress_and_strangers_are_passed_over():
    events = deque(
        [None, (7, Loaded(7, 0.0)), (1, Step(1, 8, 0.5, 1e-3, 0.1)), (1, Probed(1, 0.1, 1.0, 1.0, 1.0))]
    )  # fmt: skip
    executor = Script()
    executor.wait = lambda timeout_s=None: events.popleft()
    assert run_all(executor, [REQUEST], 1) == [Probed(1, 0.1, 1.0, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("failure", "error", "says"),
    [
        (Failed("crash", "it broke"), RequestFailed, "crash: it broke"),
        (Failed("data", "", [Finding("x.csv:3", "is empty")]), ConfigError, r"x\.csv:3"),
    ],
)
def test_a_failure_is_raised(failure, error, says):
    with pytest.raises(error, match=says):
        run_all(Script(failure=failure), [REQUEST] * 2, 1)
