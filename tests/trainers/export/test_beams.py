"""Beam search in the released runtime: the answers of transformers' `generate(num_beams=...)`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from tests.quick_releases import traced_once
from tests.trainers.export.conftest import copy_of, written
from tests.trainers.families import build
from trainers.export import rewriter
from trainers.export.rewriter import export_rewriter
from trainers.runtime.beams import Beams, BeamSearch
from trainers.runtime.release import Release
from trainers.runtime.token_rules import TokenRules

__all__ = ["copy_of"]

SETTINGS = [
    Beams(width, penalty, early)
    for width, penalty, early in itertools.product((2, 4), (0.6, 1.0, 2.0), (True, False, "never"))
] + [Beams(3, 0.0), Beams(3, -1.0, "never")]


ENDS = [2, 5, 9, 14, 20, 27]
"""So many that random answers end at many lengths."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory, graphs):
    """Random models of one layer with their graphs, by family: how many there are, beams do not see."""
    made = {}

    def get(family):
        if family not in made:
            home = tmp_path_factory.mktemp(family)
            folder = build(family, home / "model", layers=1)
            model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
            torch.manual_seed(1)
            with torch.no_grad():  # more certain than a new model is, and not always of the same token
                for weights in model.parameters():
                    if weights.dim() > 1:
                        weights.normal_(0, 0.3)
            with traced_once(graphs, rewriter):
                export_rewriter(model, home / "graph")
            made[family] = model, AutoTokenizer.from_pretrained(folder), home / "graph"
        return made[family]

    return get


@pytest.fixture
def random_release(exported, copy_of):
    """A release of such a model; `changes` are of its generation config."""

    def make(family, **changes):
        model, tokenizer, graph = exported(family)
        start = model.config.decoder_start_token_id
        model.generation_config = GenerationConfig(
            decoder_start_token_id=start, pad_token_id=0, eos_token_id=ENDS, **changes
        )
        folder = copy_of(graph)
        forced = {"first": changes.get("forced_bos_token_id"), "last": changes.get("forced_eos_token_id")}
        written(
            folder, variant="fp32", tokenizer=tokenizer, model_config=model.config, task="text-to-text",
            generation_config=model.generation_config, labels=(), max_length=64, columns=("input",),
            start_token_id=start,
            forced_tokens={place: token for place, token in forced.items() if token},
        )  # fmt: skip
        return model, Release.load(folder, 1)

    return make


def torchs(model, release, texts, count, **settings):
    """Torch's tokens for each text: its search takes most of its time for a call, so texts share one."""
    rows = [torch.tensor(release.text_ids(text)) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, **settings)
    return [list(itertools.takewhile(lambda token: token not in ENDS, row[1:].tolist())) for row in found]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("t5", {}), ("bart", {}), ("bart", {"forced_bos_token_id": 3, "forced_eos_token_id": 2}),
        ("bart", {"min_length": 5, "no_repeat_ngram_size": 2}),
        ("t5", {"min_new_tokens": 3, "no_repeat_ngram_size": 1}),
    ],
    ids=["t5", "bart", "forced", "rules", "new-tokens"],
)  # fmt: skip
def test_beams_are_those_of_transformers(random_release, family, changes):
    model, release = random_release(family, **changes)
    counts = (6, 12) if "no_repeat_ngram_size" in changes else (1, 2, 12)  # long enough for what must come
    lengths = set()
    for number, beams in enumerate(SETTINGS):
        texts = ("what is warm", f"it is {number} dull and clever films", "a")
        for count in counts:
            wanted = torchs(
                model, release, texts, count, num_beams=beams.width, length_penalty=beams.length_penalty,
                early_stopping=beams.early_stopping,
            )  # fmt: skip
            for text, tokens in zip(texts, wanted, strict=True):
                assert release.written(text, count, beams) == tokens, (beams, text, count)
            lengths |= set(map(len, wanted))
    assert len(lengths) > 3


def test_a_release_answers_by_beams_where_its_base_model_does(random_release):
    model, release = random_release("bart", num_beams=4, length_penalty=2.0, early_stopping=True)
    assert release.beams == Beams(4, 2.0, True)
    assert release.card.generation["strategy"] == "beams"
    texts = ["what is warm", "it is dull", "a b c"]
    wanted = [release.tokenizer.decode(tokens) for tokens in torchs(model, release, texts, 12)]
    assert [answer["text"] for answer in release.predict(texts, 12)] == wanted


def test_a_release_that_says_nothing_of_beams_is_greedy(random_release):
    model, release = random_release("t5")
    assert release.card.generation["strategy"] == "greedy"
    assert release.beams == Beams() == Beams.of({"strategy": "greedy", "max_new_tokens": 64})  # an earlier release
    text = "what is warm"
    (wanted,) = torchs(model, release, [text], 12)
    assert release.written(text, 12) == list(release.generate(text, 12)) == wanted


def test_a_beam_that_is_worse_now_may_be_the_better_answer():
    """What beams are for: the likeliest first token leads nowhere."""
    search = BeamSearch(Beams(2), 0, 3, {0}, TokenRules())
    first = np.log(np.array([[0.01, 0.5, 0.45, 0.04]] * 2, dtype=np.float32))
    assert not search.take(first)
    assert (search.last.tolist(), search.parents.tolist()) == ([[1], [2]], [0, 0])
    then = np.log(np.array([[0.3, 0.3, 0.2, 0.2], [0.97, 0.01, 0.01, 0.01]], dtype=np.float32))
    over = search.take(then)
    while not over:
        over = search.take(np.zeros((2, 4), dtype=np.float32))
    assert search.answer == [2, 0]


@pytest.mark.parametrize("rules", [{"min_length": 9, "no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 3}])
def test_greedy_answers_follow_the_rules_of_the_generation_config(random_release, rules):
    model, release = random_release("bart", **rules)
    texts = ("what is warm", "dull and clever films")
    for text, wanted in zip(texts, torchs(model, release, texts, 12), strict=True):
        assert release.written(text, 12) == wanted
        assert len(wanted) >= rules.get("min_length", 1) - 1


def test_without_rules_every_token_may_come():
    scores = np.zeros(5, dtype=np.float32)
    assert TokenRules().applied(scores, [1, 2, 1, 2]) is scores


def test_a_run_that_was_written_is_not_written_again_and_the_start_is_part_of_runs():
    scores = np.zeros(5, dtype=np.float32)
    refused = np.flatnonzero(np.isinf(TokenRules(0, no_repeat_ngram_size=2).applied(scores, [1, 2, 0])))
    assert refused.tolist() == [1]
