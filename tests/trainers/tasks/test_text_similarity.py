"""Two texts, each read alone: the cosine of their embeddings, and the losses on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainers.data.sources import Row
from trainers.data.tokens import Tokens
from trainers.model.load import load_base
from trainers.model.source import load_tokenizer
from trainers.prepare.inspect import inspect
from trainers.prepare.prepared import prepare
from trainers.protocol.events import Finding
from trainers.protocol.requests import Inspect
from trainers.tasks.losses import contrastive
from trainers.tasks.text_similarity import TextSimilarity, cosines
from trainers.training.batches import collate


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_the_cosine_is_that_of_each_text_embedded_alone(family_workload, family):
    workload = family_workload(family, "text-similarity")
    found = inspect(Inspect(workload))
    base, tokenizer = load_base(workload, []), load_tokenizer(Path(workload.model.source), False)
    tokens = Tokens(Path(found.tokens_dir), "validation", "row")
    texts = [row.example.texts for row in _given(workload)]
    by_ids = {tuple(tokenizer(t.text)["input_ids"] + tokenizer(t.pair)["input_ids"]): t for t in texts}

    def embedded(text):
        ids = tokenizer(text, return_tensors="pt")
        return base.model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])[0][0].mean(dim=0)

    rows = list(range(len(tokens)))
    with torch.no_grad():
        ours = cosines(base.model, collate(tokens, rows, base.pad_id, torch.device("cpu")))
        alone = [by_ids[tuple(tokens.ids(row).tolist())] for row in rows]
        theirs = [torch.cosine_similarity(embedded(t.text), embedded(t.pair), dim=0) for t in alone]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)
    assert len({len(tokens.ids(row)) for row in rows}) > 1


def _given(workload):
    from trainers.prepare.prepared import read_given
    from trainers.tasks.table import TASKS

    return read_given(TASKS["text-similarity"], workload.data).splits["train"]


def test_each_text_may_be_as_long_as_the_model_reads(family_workload):
    workload = family_workload("bert", "text-similarity")
    positions = load_base(workload, []).model.config.max_position_embeddings
    assert prepare(replace(workload, max_length=2 * positions)).base.max_length == 2 * positions
    (finding,) = prepare(replace(workload, max_length=2 * positions + 1)).all_findings()
    assert (finding.where, finding.found) == (
        "training.max_length", f"got {2 * positions + 1}, but the model has {positions} positions"
    )  # fmt: skip
    assert finding.expected == f"at most {2 * positions}, half of it for each text"


def test_each_text_is_cut_to_half(family_workload):
    tokenizer = load_tokenizer(Path(family_workload("bert", "text-similarity").model.source), False)
    row = Row("a:1", {"text": "film " * 40, "text_pair": "plot " * 3, "value": 1})
    task = TextSimilarity()
    example = task.check(row, {"text": "text", "text_pair": "text_pair", "value": "value"}).example
    ((encoded,),) = task.encode(tokenizer, [example], [], 20)
    short = len(tokenizer("plot " * 3)["input_ids"])
    assert encoded.types == [0] * 10 + [1] * short


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_similarity_lies_between_0_and_1(value):
    columns = {"text": "text", "text_pair": "text_pair", "value": "value"}
    found = TextSimilarity().check(Row("a:1", {"text": "a", "text_pair": "b", "value": value}), columns)
    assert found == Finding("a:1", f"value is {value:g}", "expected a similarity from 0 to 1")


def test_the_contrastive_loss_leaves_far_unlike_pairs_alone():
    cosine, value = torch.tensor([0.9, 0.2, 0.9, 0.2, 0.6]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.4])
    wanted = torch.tensor([0.1**2, 0.8**2, (0.5 - 0.1) ** 2, 0.0, (0.5 - 0.4) ** 2]) / 2
    torch.testing.assert_close(contrastive(0.5)(cosine, value), wanted)
