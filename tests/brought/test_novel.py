"""A book as a `.txt` file: learned as it stands, held out as a stretch, and as hard to predict as for transformers."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import FILLER, GOOD
from trainers.data.tokens import Tokens
from trainers.model.load import load_base
from trainers.model.source import load_tokenizer
from trainers.prepare.check import check
from trainers.prepare.inspect import inspect
from trainers.protocol.requests import Check, Inspect
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload
from trainers.training.evaluation import score_model

LINES = 400


@pytest.fixture
def novel(tiny: Path, tmp_path: Path) -> Workload:
    """A text with verses that come again."""
    rng = random.Random(0)
    verses = [" ".join(rng.choices(FILLER + GOOD, k=6)) for _ in range(40)]
    # The tests' tokenizer knows words between blanks.
    text = "".join(f"{rng.choice(verses)} \n{chr(10) * (line % 9 == 0)} " for line in range(LINES))
    file = tmp_path / "novel.txt"
    file.write_text(text)
    data = DataRef(SourceRef(str(file)), None, None, {"text": "text"}, 0.2, 0.1, 0)
    return Workload("causal-lm", ModelRef(str(tiny / "chat")), data, 32, "fp32", str(tmp_path / "cache"))


def blocks(workload: Workload, split: str) -> list[list[int]]:
    tokens = Tokens(Path(inspect(Inspect(workload)).tokens_dir), split, "token")
    return [tokens.ids(row).tolist() for row in range(len(tokens))]


def test_every_token_of_the_text_is_there_once_and_in_order(novel):
    tokenizer = load_tokenizer(Path(novel.model.source))
    whole = tokenizer(Path(novel.data.train.source).read_text(), add_special_tokens=False)["input_ids"]
    read = [token for split in ("train", "validation", "test") for block in blocks(novel, split) for token in block]
    assert read == [*whole, tokenizer.eos_token_id]


def test_its_perplexity_is_that_of_transformers_on_the_same_blocks(novel):
    from transformers import AutoModelForCausalLM

    found = inspect(Inspect(novel))
    ours, _ = score_model(load_base(novel, []), Path(found.tokens_dir), "cpu")
    model = AutoModelForCausalLM.from_pretrained(novel.model.source).eval()
    losses, count = 0.0, 0
    with torch.inference_mode():
        for block in blocks(novel, "validation"):
            ids = torch.tensor([block])
            losses += float(model(input_ids=ids, labels=ids).loss) * (len(block) - 1)
            count += len(block) - 1
    assert ours["perplexity"] == pytest.approx(math.exp(losses / count), rel=1e-5)


@pytest.mark.parametrize(
    ("documents", "texts"), [("file", 1), ("paragraph", 46), ("line", LINES), ("warm", None)]
)  # fmt: skip
def test_what_a_text_of_the_file_is_can_be_said(novel, documents, texts):
    asked = replace(novel, data=replace(novel.data, documents=documents))
    checked = check(Check(asked))
    rows = sum(facts.rows for facts in checked.splits.values())
    parted = sum(facts.rows > 0 for facts in checked.splits.values()) - 1  # a cut may fall into a text
    assert not checked.findings
    assert texts is None or texts <= rows <= texts + parted
    assert not any("duplicate" in note for note in checked.notes)


def test_lines_of_a_file_are_not_cut_into_rows_by_default(novel):
    assert check(Check(novel)).splits["train"].duplicates == 0
    assert {len(block) for block in blocks(novel, "train")[:-1]} == {32}
