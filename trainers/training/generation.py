"""Answers generated for a sample of rows, and how they compare with the data's: what BLEU, ROUGE and the like need."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from trainers.data.tokens import TargetKind, Tokens
from trainers.metrics.generated import COLUMNS
from trainers.metrics.table import Rows
from trainers.model.source import pad_token_of, positions_of
from trainers.protocol.trial_spec import Generation
from trainers.runtime.words import MARKS
from trainers.tasks.next_token import has_learned_prompt
from trainers.training.ranks import ALONE, Ranks
from trainers.training.shared_head import Head, shared_head

_WITHOUT_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Chinese characters."""
_WORD = re.compile(rf"[{_WITHOUT_SPACES}]|(?:[^\W_{_WITHOUT_SPACES}]|[{MARKS}])+")


@dataclass(frozen=True)
class Answer:
    """What a model wrote for a row, and what the data has there."""

    row: int
    generated: str
    reference: str


class _Asked(NamedTuple):
    row: int
    prompt: list[int]
    reference: list[int]


def generate_answers(
    model: Any, tokens: Tokens, tokenizer: Any, ends: Sequence[int], wanted: Generation, most_tokens: int,
    device: torch.device, ranks: Ranks = ALONE,
) -> Iterator[Answer]:  # fmt: skip
    """Greedy answers for the sampled rows, in batches of at most `most_tokens` prompt and new tokens; each of the
    token ids `ends` ends an answer.

    Of several ranks each writes those of a share of the batches.
    """
    asked = [_Asked(row, *prompt_and_reference(tokens, row)) for row in sampled_rows(len(tokens), wanted.examples)]
    asked.sort(key=lambda one: len(one.prompt), reverse=True)
    head = shared_head(model, [one.prompt for one in asked], device) if tokens.kind == "token" else None
    for group in ranks.share(_groups(asked, wanted, most_tokens, of_one_width=has_learned_prompt(model))):
        written = _generate(model, [one.prompt for one in group], tokens.kind, tokenizer, ends, wanted, device, head)
        for one, answer in zip(group, written, strict=True):
            yield Answer(one.row, *tokenizer.batch_decode([answer, one.reference], skip_special_tokens=True))


def _groups(
    asked: Sequence[_Asked], wanted: Generation, most_tokens: int, *, of_one_width: bool
) -> Iterator[Sequence[_Asked]]:
    """In batches, the longest prompts first; `of_one_width` for models with a learned prompt."""
    while asked:
        width = len(asked[0].prompt)
        size = max(1, most_tokens // (width + wanted.max_new_tokens))
        if of_one_width:
            # PEFT ignores positions then: padding between the learned prompt and the text would move them apart.
            size = min(size, sum(len(one.prompt) == width for one in asked))
        yield asked[:size]
        asked = asked[size:]


def _generate(
    model: Any, prompts: Sequence[list[int]], kind: TargetKind, tokenizer: Any, ends: Sequence[int],
    wanted: Generation, device: torch.device, head: Head | None,
) -> list[list[int]]:  # fmt: skip
    """Token ids of the answers alone."""
    begun = 0 if head is None else len(head.ids)
    rows = [torch.tensor(prompt[begun:]) for prompt in prompts]
    # A decoder's answer begins right after its prompt; an encoder counts positions from the left.
    side = "right" if kind == "sequence" else "left"
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True, padding_side=side)
    known = model.get_input_embeddings().weight.shape[0]
    fillers = (token for token in (tokenizer.pad_token_id, *ends) if token is not None and token < known)
    filler = next(fillers, pad_token_of(model.config))
    ids, mask = pad(rows, padding_value=filler).to(device), pad([torch.ones_like(row) for row in rows]).to(device)
    cached = {}
    if head is not None:  # padding stands between the head and the rest of a prompt
        ids, mask = head.before(ids), torch.nn.functional.pad(mask, (begun, 0), value=1)
        cached = {"past_key_values": head.cache_of(len(rows))}
    room = _room(model, 0 if kind == "sequence" else ids.shape[1], wanted.max_new_tokens)
    if room < 1:
        return [[] for _ in prompts]
    with warnings.catch_warnings():
        # Where there is no padding, they are what the model counts by itself.
        warnings.filterwarnings("ignore", "Position ids are not supported")
        written = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=room, use_cache=True,
            pad_token_id=filler, eos_token_id=list(ends) or None, **cached,
        )  # fmt: skip
    start = 0 if kind == "sequence" else ids.shape[1]  # a decoder repeats its prompt
    answers: list[list[int]] = written[:, start:].tolist()
    return answers


def _room(model: Any, width: int, wanted: int) -> int:
    """New tokens that the model has positions for, after `width` that it is given and a learned prompt before them."""
    positions = positions_of(model)
    if positions is None:
        return wanted
    learned = model.active_peft_config.num_virtual_tokens if has_learned_prompt(model) else 0
    return int(min(wanted, positions - width - learned))


def sampled_rows(rows: int, most: int) -> list[int]:
    """The same rows in every trial: a sample drawn with a fixed seed."""
    return sorted(np.random.default_rng(0).permutation(rows)[:most].tolist())


def prompt_and_reference(tokens: Tokens, row: int) -> tuple[list[int], list[int]]:
    """Token ids of what the model is given, and of the answer: of several in a row (turns) the last one."""
    ids, targets = tokens.ids(row), tokens.targets(row)
    if tokens.kind == "sequence":
        return ids.tolist(), (targets - 1).tolist()
    end = int(np.flatnonzero(targets)[-1]) + 1
    before = np.flatnonzero(targets[:end] == 0)
    start = int(before[-1]) + 1 if len(before) else 1  # the first token has nothing before it
    return ids[:start].tolist(), ids[start:end].tolist()


class _Words:
    """Splits a text for ROUGE into words of any script, or into characters where a script puts no spaces between words.

    The tokenizer of `rouge_score` knows a to z alone, so that all other texts would score 0; in English this one finds
    the same words.
    """

    def tokenize(self, text: str) -> list[str]:
        """The words in lower case, without punctuation."""
        return _WORD.findall(text.lower())


def compare_answers(answers: Sequence[Answer], count: int) -> Rows:
    """[count, len(COLUMNS)]; NaN in rows that have no answer."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(effective_order=True), CHRF()
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
    results = np.full((count, len(COLUMNS)), np.nan)
    for answer in answers:
        generated, reference = answer.generated.strip(), answer.reference.strip()
        found = rouge.score(reference, generated)
        counted = bleu.sentence_score(generated, [reference])
        results[answer.row] = [
            float(generated == reference),
            *(found[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")),
            chrf.sentence_score(generated, [reference]).score,
            *counted.counts, *counted.totals, counted.sys_len, counted.ref_len,
        ]  # fmt: skip
    return results
