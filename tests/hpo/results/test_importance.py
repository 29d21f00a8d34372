"""Importances: Optuna's numbers, with how sure they are."""

from __future__ import annotations

import math
import random

import numpy as np
import optuna
import pytest

from hpo.config.dimensions import Choice, Float, Int
from hpo.config.objective import Objective
from hpo.config.space import SearchSpace
from hpo.results.importance import FEWEST_TRIALS, _quantile, importances
from hpo.study.samplers import distributions
from tests.hpo.builders import trial_record

SPACE = SearchSpace({
    "learning_rate": Float(1e-5, 1e-2, log=True),
    "lora_r": Int(4, 64, log=True),
    "warmup_ratio": Float(0.0, 0.2),
    "lora_dropout": Float(0.0, 0.3, step=0.1),
    "batch_size": Choice((8, 16, 32)),
})  # fmt: skip
F1, LOSS = Objective("f1_macro", "maximize"), Objective("loss", "minimize")


def searched(count, seed=0, noise=0.05, sign=1.0, digits=9):
    """Trials in which the learning rate decides, the rank helps a little, and nothing else does anything."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        point = SPACE.point(lambda _, dimension: dimension.at(rng.random()))
        best = -((math.log10(point["learning_rate"]) + 3.5) ** 2) + 0.1 * math.log(point["lora_r"])
        found.append(trial_record(number, value=round(sign * (best + rng.gauss(0, noise)), digits), params=point))
    return found


@pytest.mark.parametrize(("objective", "sign"), [(F1, 1.0), (LOSS, -1.0)])
@pytest.mark.parametrize("digits", [9, 1])  # few rows give few values: many trials tie
@pytest.mark.parametrize("count", [50, 200])
def test_they_are_optunas(count, objective, sign, digits):
    records = searched(count, sign=sign, digits=digits)
    study = optuna.create_study(direction=objective.direction)
    study.add_trials([
        optuna.trial.create_trial(params=r.params, distributions=distributions(SPACE, r.params), value=r.result.value)
        for r in records
    ])  # fmt: skip
    theirs = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.1)
    )
    ours = importances(records, SPACE, objective)
    assert {i.dimension: i.share for i in ours} == pytest.approx(theirs)
    assert ours[0].dimension == "learning_rate"


def test_the_interval_is_wide_where_trials_are_few_and_holds_the_share_of_many():
    wide = importances(searched(15), SPACE, F1)[0]
    narrow = importances(searched(1000), SPACE, F1)[0]
    assert narrow.dimension == "learning_rate"
    assert narrow.low <= narrow.share <= narrow.high
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_what_says_nothing_is_left_out():
    records = searched(30)
    assert importances(records[: FEWEST_TRIALS - 1], SPACE, F1) == []
    assert importances([trial_record(r.number, "pruned", params=r.params) for r in records], SPACE, F1) == []
    assert importances([trial_record(r.number, value=0.5, params=r.params) for r in records], SPACE, F1) == []
    fixed = [trial_record(r.number, value=r.result.value, params={**r.params, "batch_size": 8}) for r in records]
    assert "batch_size" not in {i.dimension for i in importances(fixed, SPACE, F1)}
    conditional = [trial_record(r.number, value=r.result.value, params={"lora_r": 4 + r.number}) for r in records[:1]]
    assert {i.dimension for i in importances([*records, *conditional], SPACE, F1)} == {"lora_r"}
    diverged = [trial_record(99, value=math.nan, params=records[0].params)]
    assert importances([*records, *diverged], SPACE, F1) == importances(records, SPACE, F1)


def test_one_study_has_one_answer():
    assert importances(searched(40), SPACE, F1) == importances(searched(40), SPACE, F1)


def test_the_interval_has_numpys_quantiles():
    drawn = np.random.default_rng(0).random((100, 3))
    found = [_quantile(np.sort(drawn, axis=0), level) for level in (0.05, 0.95)]
    assert np.array_equal(found, np.quantile(drawn, [0.05, 0.95], axis=0))


def test_null_is_a_value_of_a_choice():
    space = SearchSpace({"neftune_noise_alpha": Choice((None, 5.0)), "lora_r": Int(4, 64, log=True)})
    rng = random.Random(0)
    records = [
        trial_record(n, value=rng.random() + 9 * (n % 2), params={"neftune_noise_alpha": None if n % 2 else 5.0,
                                                                  "lora_r": rng.randint(4, 64)})
        for n in range(30)
    ]  # fmt: skip
    assert {i.dimension for i in importances(records, space, F1)} == {"neftune_noise_alpha", "lora_r"}
