"""Numbers as users bring them: predicted in their own unit, and not tied by what a model computes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.brought.labels import TEXTS, workload
from tests.conftest import reviews
from tests.trainers.families import build, trained
from trainers.data.sources import DataProblem
from trainers.data.tokens import Tokens
from trainers.export.promotion import export, measure_variant
from trainers.model.load import load_adapter, load_base
from trainers.model.source import load_tokenizer
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import canonical_settings, default_settings
from trainers.protocol.events import Scale
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Export, Inspect, Measure
from trainers.protocol.trial_spec import TrialSpec, Workload
from trainers.runtime.release import Release
from trainers.tasks.units import scale_of
from trainers.training.evaluation import score_model
from trainers.training.trainer import Trainer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of a family."""
    return cache(lambda family: build(family, tmp_path_factory.mktemp("models") / family))


# --- numbers in their own unit -------------------------------------------------------------------------


def prices(count: int) -> list[dict[str, Any]]:
    """About 250,000, as a word says."""
    return [
        {"text": f"{row['text']} {i}", "value": 250_000 + (60_000 if row["label"] == "positive" else -60_000) + 100 * i}
        for i, row in enumerate(reviews(count))
    ]


def regression_spec(given: Workload, folder: Path, method: str = "lora", **settings: Any) -> TrialSpec:
    chosen = {
        **default_settings("regression", method), "learning_rate": 1e-2, "batch_size": 8, "evaluations": 2, **settings,
    }  # fmt: skip
    return TrialSpec(
        0, given, method, canonical_settings(method, chosen), "r2", "maximize", 320, 320, 0, "i", 1, ("cpu",),
        str(folder / "trial"),
    )  # fmt: skip


@pytest.mark.parametrize(("family", "method"), [("bert", "lora"), ("llama", "lora"), ("bert", "full")])
def test_prices_are_predicted_in_their_own_unit_in_training_and_in_the_release(family, method, models, tmp_path):
    given = workload("regression", models(family), prices(120), tmp_path)
    found = inspect(Inspect(given))
    assert found.scale is not None
    assert found.scale.mean == pytest.approx(256_000, rel=0.05)
    spec = regression_spec(given, tmp_path, method, **({"learning_rate": 1e-3} if method == "full" else {}))
    result = trained(spec, found)
    assert result.metrics["r2"] > 0.5
    assert result.metrics["mae"] < 50_000
    adapter = TrialPaths(Path(spec.dir)).adapter
    base = load_base(given, found.labels, scale=found.scale)
    base.model = load_adapter(base, spec, adapter)
    scored, rows = score_model(base, Path(found.tokens_dir), "cpu")
    assert scored["r2"] == pytest.approx(result.metrics["r2"], abs=1e-4)
    assert rows[:, 1].mean() == pytest.approx(256_000, rel=0.2)
    base = load_base(given, found.labels, scale=found.scale)
    exported = export(base, Export(spec, found, ["fp32"], str(tmp_path / "release")))
    assert exported.metrics["r2"] == pytest.approx(result.metrics["r2"], abs=1e-4)
    validation = Path(found.tokens_dir, "validation.jsonl")
    measured = measure_variant(Measure("fp32", str(tmp_path / "release"), str(validation), 1))
    assert measured.max_logit_diff < 1e-4
    assert measured.metrics["r2"] == pytest.approx(result.metrics["r2"], abs=1e-3)
    texts = [json.loads(line)["text"] for line in validation.read_text().splitlines()]
    answers = Release.load(tmp_path / "release" / "fp32", 1).predict(texts)
    assert [answer["value"] for answer in answers] == pytest.approx(rows[:, 1].tolist(), rel=1e-3)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_checkpoint_for_one_number_goes_on_in_its_own_unit(family, models, tmp_path):
    """Its answers are the same before training, whether its head has a bias or not."""
    import transformers

    torch.manual_seed(0)
    plain = models(family)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(plain, num_labels=1)
    with torch.no_grad():
        model.get_submodule("classifier" if family == "bert" else "score").weight.normal_(std=2e4)
    model.save_pretrained(tmp_path / "checkpoint")
    load_tokenizer(plain).save_pretrained(tmp_path / "checkpoint")
    given = workload("regression", tmp_path / "checkpoint", prices(60), tmp_path)
    found = inspect(Inspect(given))
    assert "the model has a head for one number: training starts from it" in found.notes
    as_it_is, scaled = load_base(given, []), load_base(given, [], scale=found.scale)
    assert as_it_is.drawn_parameters == scaled.drawn_parameters == []
    expected = score_model(as_it_is, Path(found.tokens_dir), "cpu")[1]
    assert expected[:, 1].std() > 100
    assert score_model(scaled, Path(found.tokens_dir), "cpu")[1] == pytest.approx(expected, rel=1e-4, abs=5)
    spec = regression_spec(given, tmp_path, learning_rate=1e-9)
    assert trained(spec, found).metrics["mae"] == pytest.approx(abs(expected[:, 1] - expected[:, 0]).mean(), rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_earlier_training_goes_on_in_the_unit_of_the_new_data(method, models, tmp_path):
    given = workload("regression", models("bert"), prices(60), tmp_path)
    found = inspect(Inspect(given))
    spec = regression_spec(given, tmp_path, method)
    trained(spec, found)
    base = load_base(given, [], scale=found.scale)
    adapter = TrialPaths(Path(spec.dir)).adapter
    base.model = load_adapter(base, spec, adapter)
    expected = score_model(base, Path(found.tokens_dir), "cpu")[1]
    later = replace(given, model=replace(given.model, adapter=str(adapter)))
    other = load_base(later, [], scale=Scale(1000.0, 77.0))
    assert scale_of(other.model) == Scale(1000.0, 77.0)
    assert score_model(other, Path(found.tokens_dir), "cpu")[1] == pytest.approx(expected, rel=1e-4)


def test_numbers_beyond_float32_are_a_finding_and_close_ones_stay_apart(models, tmp_path):
    rows = [{"text": text, "value": 1e300 if i else 0} for i, text in enumerate(TEXTS)]
    with pytest.raises(DataProblem) as problem:
        inspect(Inspect(workload("regression", models("bert"), rows, tmp_path)))
    assert [(f.found, f.expected) for f in problem.value.findings] == [("has the value 1e+300", "values up to 1e+30")]
    seconds = [{"text": text, "value": 1_700_000_000 + i} for i, text in enumerate(TEXTS)]
    found = inspect(Inspect(workload("regression", models("bert"), seconds, tmp_path)))
    tokens = Tokens(Path(found.tokens_dir), "train", "row")
    assert len({float(tokens.targets(row)[0]) for row in range(len(tokens))}) == len(tokens)


# --- heads in float32 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "modernbert", "bart"])
@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_different_texts_do_not_tie_in_bf16(family, method, models, tmp_path):
    rows = [{"text": f"{text} {i * 7919 % 997}", "value": i % 10} for i, text in enumerate(TEXTS)]
    given = replace(workload("regression", models(family), rows, tmp_path), precision="bf16")
    given = replace(given, data=replace(given.data, validation_size=70.0))
    found = inspect(Inspect(given))
    base = load_base(given, [], scale=found.scale)
    trainer = Trainer(base, regression_spec(given, tmp_path, method), Path(found.tokens_dir))
    _, rows_told = trainer.evaluate()
    assert len(set(rows_told[:, 1].tolist())) == len(rows_told)
    loss, _ = trainer.step(list(range(8)))
    assert loss > 0
