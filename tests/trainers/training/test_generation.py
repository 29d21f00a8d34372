"""Generated answers, the metrics of them against their reference libraries, and metrics of the user's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from trainers.data.tokens import Tokens
from trainers.metrics.generated import COLUMNS, generated_metrics
from trainers.metrics.table import row_results
from trainers.model.load import load_base, put_adapter_on
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import GENERATED, METHODS, TASKS, canonical_settings, default_settings
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import Generation, TrialSpec
from trainers.training.evaluation import Evaluator, own_values, score_model
from trainers.training.generation import Answer, compare_answers, prompt_and_reference, sampled_rows

SENTENCES = st.lists(st.sampled_from(["a", "film", "of", "the", "year", "dull", "is"]), max_size=12).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES.filter(bool)), min_size=1, max_size=6)


@given(PAIRS)
@settings(deadline=None)
def test_metrics_of_text_are_those_of_the_reference_libraries(pairs):
    found = generated_metrics(compare_answers([Answer(i, a, b) for i, (a, b) in enumerate(pairs)], len(pairs)))
    written, wanted = [a for a, _ in pairs], [b for _, b in pairs]
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(written, [wanted]).score, abs=1e-6)
    assert found["chrf"] == pytest.approx(np.mean([CHRF().sentence_score(a, [b]).score for a, b in pairs]))
    assert found["exact_match"] == np.mean([a == b for a, b in pairs])
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for ours, theirs in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")):
        assert found[ours] == pytest.approx(np.mean([scorer.score(b, a)[theirs].fmeasure for a, b in pairs]))
    if len(pairs) > 1:
        matches = [float(a == b) for a, b in pairs]
        assert found["exact_match_stderr"] == pytest.approx(np.std(matches, ddof=1) / math.sqrt(len(pairs)))


@pytest.mark.parametrize(
    ("written", "wanted", "share"),
    [
        ("Фильм был хорош", "фильм был плох", 2 / 3),
        ("schöne Grüße", "schöne Tage", 1 / 2),
        ("这部电影很好", "这部电影很差", 5 / 6),
        ("हिन्दी फ़िल्म", "हिन्दी गीत", 1 / 2),
    ],
)
def test_rouge_counts_the_words_of_every_script(written, wanted, share):
    """`rouge_score` by itself gives 0 for all but the letters from a to z."""
    found = generated_metrics(compare_answers([Answer(0, written, wanted)], 1))
    assert found["rouge1"] == found["rouge_l"] == pytest.approx(share)


def test_rows_without_an_answer_do_not_count():
    few = compare_answers([Answer(1, "a film", "a film"), Answer(4, "a", "dull year")], 6)
    assert few.shape == (6, len(COLUMNS))
    assert generated_metrics(few) == generated_metrics(few[[1, 4]])
    assert math.isnan(generated_metrics(few[[0, 2]])["bleu"])


@pytest.mark.parametrize(
    ("family", "task"),
    [("llama", "chat"), ("gpt2", "instruct"), ("gemma", "instruct"), ("t5", "text-to-text"), ("bart", "text-to-text")],
)
def test_answers_of_a_batch_are_those_of_each_row_alone(family_workload, family, task):
    """Prompts of unequal length are padded where the model does not see it."""
    workload = family_workload(family, task)
    found = inspect(Inspect(workload))
    base = load_base(workload, [])
    evaluator = Evaluator(base, Path(found.tokens_dir), "validation", torch.device("cpu"), None)
    torch.manual_seed(0)
    with torch.inference_mode():
        for parameter in base.model.parameters():  # as it comes, a tiny T5 says nothing but padding
            parameter += torch.randn_like(parameter) / 2
        together = {a.row: a for a in evaluator.answers(base.model, Generation(8, 6))}
        evaluator._most_tokens = 1
        alone = {a.row: a for a in evaluator.answers(base.model, Generation(8, 6))}
    lengths = evaluator.tokens.lengths
    assert len(set(lengths.tolist())) > 1
    assert together == alone
    assert any(answer.generated for answer in alone.values())
    assert all(answer.reference.startswith("it is") for answer in alone.values())


@pytest.mark.parametrize("named_by", ["the template", "the model's config"])
def test_an_answer_ends_at_every_token_that_ends_a_turn(family_workload, named_by):
    """As Gemma's tokenizer, this one names the end of a document, and answers end with another token."""
    workload = family_workload("llama", "chat")
    base = load_base(workload, [])
    evaluator = Evaluator(base, Path(inspect(Inspect(workload)).tokens_dir), "validation", torch.device("cpu"), None)
    tokenizer = evaluator._tokenizer
    end, film = tokenizer.convert_tokens_to_ids(["<|end|>", "film"])
    tokenizer.eos_token_id = tokenizer.pad_token_id
    base.model.config.eos_token_id = base.model.generation_config.eos_token_id = None
    if named_by == "the model's config":
        base.model.generation_config.eos_token_id = [5, end]
        tokenizer.chat_template = "{{ raise_exception('not this one') }}"

    def end_then_film(_model, _args, given, output):
        said = torch.where(given["input_ids"][:, -1] == end, film, end)
        output.logits[:, -1] = torch.nn.functional.one_hot(said, output.logits.shape[-1]).float()

    base.model.register_forward_hook(end_then_film, with_kwargs=True)
    with torch.inference_mode():
        assert {answer.generated for answer in evaluator.answers(base.model, Generation(3, 4))} == {""}


def test_the_last_turn_is_the_one_that_is_asked_for(family_workload):
    workload = family_workload("llama", "chat")
    tokens = Tokens(Path(inspect(Inspect(workload)).tokens_dir), "train", "token")
    for row in range(len(tokens)):
        prompt, reference = prompt_and_reference(tokens, row)
        ids, mask = tokens.ids(row).tolist(), tokens.targets(row).tolist()
        assert ids[: len(prompt) + len(reference)] == prompt + reference
        assert mask[len(prompt) - 1] == 0
        assert all(mask[len(prompt) : len(prompt) + len(reference)])
        assert not any(mask[len(prompt) + len(reference) :])


@given(st.integers(1, 300), st.integers(1, 300))
def test_the_sample_is_the_same_every_time(rows, most):
    drawn = sampled_rows(rows, most)
    assert drawn == sampled_rows(rows, most) == sorted(set(drawn))
    assert len(drawn) == min(rows, most)


OWN = """
def long_answers(rows):
    assert all(row["nll"] >= 0 and row["tokens"] > 0 for row in rows)
    return [len(row.get("generated", "").split()) for row in rows]
"""


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if "decoder" in m.families])
def test_every_method_generates_and_is_measured(family_workload, tmp_path, method):
    (tmp_path / "mine.py").write_text(OWN)
    metrics = ["rouge_l", "mine.py:long_answers"]
    workload = family_workload(
        "llama", "instruct", code_dir=str(tmp_path), metrics=metrics, generation=Generation(5, 4)
    )
    found = inspect(Inspect(workload))
    base = load_base(workload, [])
    chosen = canonical_settings(method, default_settings("instruct", method))
    spec = TrialSpec(0, workload, method, chosen, "rouge_l", "maximize", 8, 8, 0, "i", 1, ("cpu",), str(tmp_path))
    inputs = torch.ones(2, 6, dtype=torch.long)
    base.model = put_adapter_on(base, spec, [{"input_ids": inputs, "attention_mask": inputs}] * 2)
    measured, rows = score_model(base, Path(found.tokens_dir), "cpu")
    assert set(measured) > {*TASKS["instruct"].metrics, *GENERATED, "long_answers", "long_answers_stderr"}
    assert 0 < measured["long_answers"] <= 5 * 4 / len(rows)
    assert row_results("instruct", metrics).metrics(rows, []) == measured


TELL = """
def cost(rows):
    return [5.0 if (row["label"], row["predicted"]) == ("positive", "negative") else 0.0 for row in rows]

def share(rows):
    return [row["probability"][row["label"]] for row in rows]
"""


def test_a_metric_of_ones_own_sees_labels_predictions_and_probabilities(family_workload, tmp_path):
    (tmp_path / "mine.py").write_text(TELL)
    names = ["mine.py:cost", "mine.py:share"]
    workload = family_workload("bert", "text-classification", code_dir=str(tmp_path), metrics=names)
    found = inspect(Inspect(workload))
    base = load_base(workload, found.labels)
    measured, rows = score_model(base, Path(found.tokens_dir), "cpu")
    assert found.labels == ["negative", "positive"]
    missed = ((rows[:, 0] == 1) & (rows[:, 1] == 0)).mean()
    assert measured["cost"] == pytest.approx(5 * missed)
    assert measured["share"] == pytest.approx(np.exp(-rows[:, 2]).mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return [1.0]", "expected one number for each of 3 rows"),
        ("return 'no'", "mine.py:f gave str"),
        ("return {}", "mine.py:f gave dict"),
    ],
)
def test_anything_but_a_number_a_row_is_refused(tmp_path, body, problem):
    (tmp_path / "mine.py").write_text(f"def f(rows):\n    {body}\n")
    with pytest.raises(ValueError, match=problem):
        own_values(tmp_path, "mine.py:f", [{}] * 3)
