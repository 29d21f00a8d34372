"""Optuna's samplers by the names of our strategies, and a space in Optuna's words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import optuna

from hpo.config.dimensions import Choice, Dimension, Int
from hpo.config.space import Point, SearchSpace
from trainers.protocol.settings import Setting

STARTUP_TRIALS = 5
"""Points at random before a model of the objective is asked."""


def sampler(kind: str, seed: int, num_trials: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler: a reopened seeded one would start its stream anew, so each ask has a seed of its own."""
    with warnings.catch_warnings():
        # Some options carry Optuna's "experimental" mark; we chose them knowingly.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True
            )
        if kind == "nsga2":
            # About ten generations, whatever the budget.
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, num_trials // 10))
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    return optuna.samplers.RandomSampler(seed=seed)


def suggest(trial: optuna.Trial, space: SearchSpace) -> Point:
    """A value for each dimension that exists at the point, in order of dependence."""
    return space.point(lambda name, dimension: _suggest(trial, name, dimension))


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Setting:
    value: Setting
    if isinstance(dimension, Choice):
        value = trial.suggest_categorical(name, dimension.values)
    elif isinstance(dimension, Int):
        # Optuna takes no step with log.
        value = trial.suggest_int(
            name, dimension.low, dimension.last, log=dimension.log, step=1 if dimension.log else dimension.step
        )
    else:
        value = trial.suggest_float(name, dimension.low, dimension.last, log=dimension.log, step=dimension.step)
    return value


def distributions(space: SearchSpace, point: Mapping[str, Setting]) -> dict[str, optuna.distributions.BaseDistribution]:
    """The distributions of the dimensions that a point has values for."""
    return {name: _distribution(space.dimensions[name]) for name in point}


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(dimension.values)
    if isinstance(dimension, Int):
        step = 1 if dimension.log else dimension.step
        return optuna.distributions.IntDistribution(dimension.low, dimension.last, dimension.log, step)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.last, dimension.log, dimension.step)
