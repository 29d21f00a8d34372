"""The replay of pruning rules: whoever is not pruned is trained to the end, once."""

import pytest

from hpo.pruning.base import Never
from hpo.pruning.threshold import Threshold
from tests.bench.rules import CURVES, STARTING, replay


@pytest.mark.parametrize("jobs", [1, 2, 24])
def test_without_pruning_every_trial_comes_to_its_end(jobs):
    end, best = replay(CURVES, Never(), jobs)
    assert end == pytest.approx(24 / jobs * (STARTING + 10))
    assert best == max(map(max, CURVES))


def test_all_but_the_baseline_may_be_stopped_at_once():
    end, best = replay(CURVES, Threshold(lower=1.0), 1)
    assert end == pytest.approx(STARTING + 10 + 23 * (STARTING + 1))
    assert best == max(CURVES[0])
