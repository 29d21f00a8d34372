"""How a repetition is compared with its run: what counts as a row with another result."""

from __future__ import annotations

import dataclasses

import numpy as np

from hpo.config.trial_specs import TrialSpecs
from hpo.executors.base import here
from hpo.executors.environment import environment_here
from hpo.paths import Home
from hpo.trials.recorded_run import RecordedRun
from hpo.trials.reproduction import compare
from tests.hpo.builders import INSPECTION, make_config, trial_result
from trainers.metrics.generated import COLUMNS
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.files import TrialPaths


def test_rows_without_a_generated_answer_have_no_other_result(tmp_path):
    rows = np.zeros((20, len(ROW_RESULTS["chat"].columns) + len(COLUMNS)))
    rows[5:, -len(COLUMNS) :] = np.nan
    again = rows.copy()
    again[0, 0] = 1
    first, second = (TrialPaths(tmp_path / name) for name in ("first", "second"))
    for paths, found in ((first, rows), (second, again)):
        paths.all_rows.parent.mkdir(parents=True)
        np.save(paths.all_rows, found)
    spec = TrialSpecs(make_config(tmp_path), Home(tmp_path), INSPECTION).spec(0, {}, first)
    workload = dataclasses.replace(spec.workload, task="chat", metrics=("exact_match",))
    spec = dataclasses.replace(spec, workload=workload, metric="exact_match")
    run = RecordedRun("sweep#0", spec, trial_result(value=0.0), INSPECTION, {}, first)
    found = compare(run, trial_result(value=0.0), spec, second, environment_here(), [], here)
    assert (found.outcome, found.bound.changed) == ("within", 1)
