"""The JSON Schema of a sweep's YAML (draft 2020-12), for editors: made of the declared keys, held nowhere else.

It refuses a key that does not exist and a value that can never be. What depends on several keys (a metric of the task,
a budget given twice) and on files is left to `hpo check`. Only words that draft-07 has in the same meaning are used,
besides `$defs`, because some editors know no later draft.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hpo.config.budget import BUDGET
from hpo.config.extra_metrics import GENERATION, METRICS_KEY
from hpo.config.file import METHOD_KEY, NAME, SEED, TASK
from hpo.config.keys import Described, Group, Key
from hpo.config.model_and_data import DATA, MODEL
from hpo.config.nightly import NIGHTLY
from hpo.config.objective import CONSTRAINTS, OBJECTIVE
from hpo.config.pruner import DEFAULT, NUMBERS, PRUNER
from hpo.config.run import RUN
from hpo.config.setting_schema import COMMON, space_group, training_group
from hpo.config.small_sections import EXPERIMENT, FINALISTS, PROMOTE, REPORT_TO, TRIALS
from hpo.config.space_section import DIMENSION
from hpo.config.strategy import STRATEGY
from hpo.pruning.table import RULES

Schema = dict[str, Any]
TITLE = "A sweep of hpo"


def sweep_keys() -> tuple[Key, ...]:
    """Every key of the top level, in the order of the grammar page."""
    metric = Group("", "", "", keys=OBJECTIVE).shape()
    return (
        NAME,
        TASK,
        MODEL,
        DATA,
        METHOD_KEY,
        Group("search_strategy", None, "which points are tried, and how many", keys=STRATEGY),
        space_group(),
        training_group(),
        METRICS_KEY,
        Group("generation", None, "how much is generated for metrics of generated text", keys=GENERATION),
        Group("objective", None, "what is optimized: a metric, or a list of them", keys=OBJECTIVE, short=("array",),
              more={"items": metric, "minItems": 1}),
        Group("constraints", None, "what no champion may exceed", keys=CONSTRAINTS),
        _pruner("pruner", PRUNER),
        Group("budget", None, "what a sweep may spend; whatever is reached first ends the search", keys=BUDGET),
        FINALISTS,
        TRIALS,
        RUN,
        PROMOTE,
        REPORT_TO,
        NIGHTLY,
        EXPERIMENT,
        SEED,
    )  # fmt: skip


def json_schema() -> Schema:
    """The schema of the whole file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "description": "The YAML that `hpo sweep FILE` reads. Made by `hpo schema`.",
        **Group("", "", "", keys=sweep_keys()).shape(),
        "patternProperties": {"^x-": {"description": "Free: holds what anchors share."}},
        "$defs": {
            "rule": _pruner("rule", PRUNER[:1]).shape(),
            **{key.name: key.schema() for key in DIMENSION if key.name in COMMON},
        },
    }


def _pruner(name: str, first: tuple[Key, ...]) -> Group:
    """A pruning rule: the numbers of all rules, and for each rule which are its own. No `type` is the default rule."""
    rule = Described("rule", None, "`patient`: the rule that it waits for", described={"$ref": "#/$defs/rule"})
    variants = []
    for kind, cls in RULES.items():
        own = [field.name for field in dataclasses.fields(cls)]
        required = [*(["type"] if kind != DEFAULT else []), *(["rule"] if "rule" in own else [])]
        names = {"enum": [*(key.name for key in first), *own]}
        variants.append({"properties": {"type": {"const": kind}}, "propertyNames": names, "required": required})
    keys = (*first, *NUMBERS.values(), rule)
    return Group(name, None, "which trials are stopped early", keys=keys, more={"anyOf": variants})
