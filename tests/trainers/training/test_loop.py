"""The loop on tiny models: it learns, it is fair, it is repeatable, and it keeps the best adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainers.data.tokens import Tokens
from trainers.model.load import load_adapter, load_base
from trainers.protocol.events import Evaluation, Failed, Step
from trainers.protocol.files import TrialPaths
from trainers.training.evaluation import score_model
from trainers.training.trainer import Trainer


def metrics_of(base, tokens_dir):
    return score_model(base, tokens_dir, "cpu")[0]


def test_a_trial_is_repeatable_and_its_seed_matters(make_spec, run_trial):
    first, again = (run_trial(make_spec("encoder"))[0] for _ in range(2))
    other, _ = run_trial(make_spec("encoder", seed=1))
    assert first.metrics == again.metrics
    assert first.metrics["loss"] != other.metrics["loss"]


@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_the_update_does_not_depend_on_the_micro_batch(make_spec, inspection, kind):
    """(8, 1), (4, 2) and (1, 8): same loss, same adapter after one step."""
    outcomes = []
    for size in (8, 4, 1):
        spec = make_spec(kind, micro_batch_size=size, batch_size=8, lora_dropout=0.0, warmup_ratio=0.0)
        base = load_base(spec.workload, inspection(kind).labels)
        base.model.config.hidden_dropout_prob = 0.0
        for module in base.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer = Trainer(base, spec, Path(inspection(kind).tokens_dir))
        loss, _ = trainer.step(next(trainer.batches))
        outcomes.append((loss, torch.cat([p.detach().flatten() for p in trainer.parameters])))
    for loss, parameters in outcomes[1:]:
        assert loss == pytest.approx(outcomes[0][0], rel=1e-5)
        torch.testing.assert_close(parameters, outcomes[0][1], rtol=1e-4, atol=1e-5)


def test_evaluations_fall_at_the_same_shares_for_every_batch_size(make_spec, run_trial):
    for batch_size in (5, 16, 64):
        spec = make_spec("encoder", batch_size=batch_size, evaluations=4, max_examples=320)
        result, events = run_trial(spec)
        assert [e.fraction for e in result.evaluations] == [0.25, 0.5, 0.75, 1.0]
        assert all(e.examples >= e.fraction * 320 > e.examples - batch_size for e in result.evaluations)
        assert result.evaluations[-1].examples == 320
        assert isinstance(events[0], Step)


def test_a_stop_verdict_ends_the_trial_as_pruned(make_spec, run_trial):
    result, events = run_trial(make_spec("encoder"), verdicts=("stop",))
    assert (result.state, result.stopped_by) == ("pruned", "pruner")
    assert sum(isinstance(e, Evaluation) for e in events) == 1


def test_no_improvement_for_patience_evaluations_stops_the_trial_early(make_spec, run_trial):
    # A learning rate this small changes no prediction, so F1 stands still.
    spec = make_spec("encoder", evaluations=8, learning_rate=1e-12, **{"early_stopping.patience": 2})
    result, _ = run_trial(spec)
    assert (result.state, result.stopped_by, len(result.evaluations)) == ("complete", "early_stopping", 3)


def test_a_trial_that_has_spent_its_budget_did_not_stop_early(make_spec, run_trial):
    spec = make_spec("encoder", evaluations=3, learning_rate=1e-12, **{"early_stopping.patience": 2})
    result, _ = run_trial(spec)
    assert (result.state, result.stopped_by, len(result.evaluations)) == ("complete", "budget", 3)


def test_the_kept_adapter_is_the_best_evaluations(make_spec, run_trial, inspection):
    spec = make_spec("encoder", evaluations=6, learning_rate=0.3, max_examples=320)
    result, _ = run_trial(spec)
    values = [e.metrics[spec.metric] for e in result.evaluations]
    assert result.value == max(values)
    assert result.best_index == values.index(max(values))
    base = load_base(spec.workload, inspection("encoder").labels)
    base.model = load_adapter(base, spec, TrialPaths(Path(spec.dir)).adapter)
    again = metrics_of(base, Path(inspection("encoder").tokens_dir))
    assert again[spec.metric] == pytest.approx(result.value)


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(make_spec, run_trial):
    spec = make_spec("chat", learning_rate=1.0, max_grad_norm=1e30, lora_alpha=1e20, warmup_ratio=0.0)
    result, _ = run_trial(spec)
    assert isinstance(result, Failed)
    assert result.cause == "diverged"


def test_a_model_that_its_last_step_left_without_numbers_has_diverged(make_spec, run_trial, monkeypatch):
    """Of logits that are no numbers F1 is one all the same; torch's attention makes numbers of them on some CPUs."""
    real = Trainer.step

    def step(trainer, rows):
        done = real(trainer, rows)
        with torch.no_grad():
            trainer.parameters[0].fill_(torch.nan)
        return done

    monkeypatch.setattr(Trainer, "step", step)
    result, _ = run_trial(make_spec("encoder", batch_size=16, max_examples=16, evaluations=1))
    assert isinstance(result, Failed)
    assert (result.cause, result.message) == ("diverged", "a trained weight is no number at step 1")


def test_bf16_stays_near_fp32(make_spec, run_trial, workload):
    import dataclasses

    spec = make_spec("encoder")
    in_bf16 = dataclasses.replace(spec, workload=workload("encoder", "bf16"))
    exact, rounded = run_trial(spec)[0], run_trial(in_bf16)[0]
    assert rounded.metrics["loss"] == pytest.approx(exact.metrics["loss"], abs=0.05)


def test_perplexity_is_that_of_a_plain_forward_pass(workload, inspection):
    """The streamed number against the definition, row by row on the full logits."""
    base = load_base(workload("chat"), [])
    tokens_dir = Path(inspection("chat").tokens_dir)
    rows = Tokens(tokens_dir, "validation", "token")
    nll = count = 0.0
    with torch.no_grad():
        for row in range(len(rows)):
            ids = torch.tensor(rows.ids(row).tolist())[None]
            mask = torch.tensor(rows.targets(row).tolist())[1:].bool()
            logp = base.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            nll -= float(logp[mask].gather(1, ids[0, 1:][mask][:, None]).sum())
            count += int(mask.sum())
    got = metrics_of(base, tokens_dir)
    assert got["perplexity"] == pytest.approx(float(torch.tensor(nll / count).exp()), rel=1e-4)


def test_a_head_that_shares_its_names_with_the_body_is_trained_alone(tmp_path, tiny):
    """RoBERTa's head has a `dense`, as every layer of its body has: only the head's may be trained in full."""

    from transformers import RobertaConfig, RobertaModel

    from trainers.model.load import put_adapter_on
    from trainers.protocol.catalog import canonical_settings, default_settings
    from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload

    config = RobertaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    data = DataRef(SourceRef(""), None, None, {}, 1, 1, 0)
    work = Workload("text-classification", ModelRef(str(tmp_path / "roberta")), data, 16, "fp32", "")
    base = load_base(work, ["a", "b"])
    assert base.new_modules == ["classifier"]
    settings = canonical_settings("lora", default_settings("text-classification", "lora"))
    spec = TrialSpec(0, work, "lora", settings, "f1_macro", "maximize", 10, 10, 0, "i", 1, ("cpu",), "")
    model = put_adapter_on(base, spec)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    assert trained
    assert all("classifier" in name for name in trained)
    assert any("layer.0.output.dense.lora_A" in name for name, p in model.named_parameters() if p.requires_grad)
