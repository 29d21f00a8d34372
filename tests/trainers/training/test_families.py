"""Every method on every family, the tasks in turn: it learns, comes back the same, and merges where it says so."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.trainers.families import CONFIGS, trained
from trainers.data.sources import DataProblem
from trainers.model.load import load_adapter, load_base, merge
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import METHODS, METRICS, TASKS, canonical_settings, default_settings
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import TrialSpec
from trainers.training.evaluation import score_model


def _pairs():
    """(family, method, task): every possible pair of the first two once, the tasks taking turns."""
    turns = {kind: itertools.cycle([t.name for t in TASKS.values() if kind in t.families]) for kind in KINDS}
    for family, method in itertools.product(CONFIGS, METHODS.values()):
        kind = CONFIGS[family][0]
        task = next((t for t in itertools.islice(turns[kind], len(TASKS)) if not method.refuse(t, kind)), None)
        if task is not None:
            yield pytest.param(family, method.name, task, id=f"{family}-{method.name}-{task}")


KINDS = ("encoder", "decoder", "encoder-decoder")


@pytest.mark.parametrize(("family", "method", "task"), list(_pairs()))
def test_a_method_learns_comes_back_and_merges(family_workload, tmp_path, family, method, task):
    given = family_workload(family, task)
    found = inspect(Inspect(given))
    metric = TASKS[task].metrics[0]
    chosen = {
        **default_settings(task, method), "learning_rate": RATES.get(method, 1e-2), "batch_size": 8, "evaluations": 4,
        "lora_dropout": 0.0, "num_virtual_tokens": 4, "warmup_ratio": 0.0, "micro_batch_size": 8,
    }  # fmt: skip
    spec = TrialSpec(
        0, given, method, canonical_settings(method, chosen), metric, METRICS[metric].direction, 160, 160, 0, "i", 1,
        ("cpu",), str(tmp_path / "trial"),
    )  # fmt: skip
    result = trained(spec, found)
    losses = [evaluation.metrics["loss"] for evaluation in result.evaluations]
    # Values of 2 and -2 are learned by the first evaluation: their variance is what a mean would cost.
    assert min(losses[1:]) < (4.0 if task == "regression" else losses[0])
    adapter = TrialPaths(Path(spec.dir)).adapter
    assert not [p for p in adapter.iterdir() if p.suffix in (".bin", ".pt", ".pkl", ".md")]
    base = load_base(given, found.labels, scale=found.scale)
    base.model = load_adapter(base, spec, adapter)
    tokens_dir = Path(found.tokens_dir)
    assert score_model(base, tokens_dir, "cpu")[0]["loss"] == pytest.approx(result.metrics["loss"], abs=1e-4)
    if METHODS[method].merges:
        base = load_base(given, found.labels, scale=found.scale)
        base.model = merge(base, spec, adapter)
        tolerance = 0.2 if method == "qlora" else 1e-3  # the base of 4 bits is not the one it is merged into
        assert score_model(base, tokens_dir, "cpu")[0]["loss"] == pytest.approx(result.metrics["loss"], abs=tolerance)


RATES = {"full": 3e-3, "prompt": 0.3, "prefix": 3e-2, "ia3": 2e-2}


@pytest.mark.parametrize(
    ("family", "task"),
    [(f, t.name) for f, (kind, _, _) in CONFIGS.items() for t in TASKS.values() if kind not in t.families],
)
def test_a_task_refuses_a_model_of_the_wrong_kind(family_workload, family, task):
    with pytest.raises(DataProblem) as problem:
        inspect(Inspect(family_workload(family, task)))
    assert f"task {task} needs a" in problem.value.findings[0].expected
