"""Answers to prompts with one head: the same as without sharing it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from tests.trainers.export.conftest import CORPUS, chat_tokenizer, tiny_decoder
from trainers.protocol.trial_spec import Generation
from trainers.training import generation
from trainers.training.shared_head import LEAST, shared_head

CPU = torch.device("cpu")


class Prompts:
    """What `generate_answers` reads of a split: prompts with an answer of one token."""

    kind = "token"

    def __init__(self, prompts):
        self._prompts = prompts

    def __len__(self):
        return len(self._prompts)

    def ids(self, row):
        return np.array([*self._prompts[row], 5])

    def targets(self, row):
        return np.array([*([0] * len(self._prompts[row])), 1])


def gpt2():
    torch.manual_seed(0)
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.2}
    config = transformers.GPT2Config(vocab_size=len(chat_tokenizer()), eos_token_id=1, bos_token_id=0, **sizes)
    return transformers.GPT2LMHeadModel(config).eval()


MODELS = {
    "llama": lambda: tiny_decoder(initializer_range=0.2),
    "qwen3": lambda: tiny_decoder("Qwen3", initializer_range=0.2, head_dim=16),
    "gpt2": gpt2,
}


def prompts_of(head):
    rng = np.random.default_rng(0)
    tails = [rng.integers(4, 300, size).tolist() for size in (3, 9, 5, 14, 1, 9)]
    return [chat_tokenizer()(" ".join(CORPUS)).input_ids[:head] + tail for tail in tails]


def answers(model, prompts, most_tokens=200):
    """In batches of two or three."""
    with torch.inference_mode():
        wanted, tokenizer = Generation(len(prompts), 12), chat_tokenizer()
        ends = [tokenizer.eos_token_id]
        return list(generation.generate_answers(model, Prompts(prompts), tokenizer, ends, wanted, most_tokens, CPU))


@pytest.mark.parametrize("head", [0, LEAST - 1, LEAST, 60])
@pytest.mark.parametrize("family", MODELS)
def test_answers_are_those_without_sharing(family, head, monkeypatch):
    model, prompts = MODELS[family](), prompts_of(head)
    with torch.inference_mode():
        assert (shared_head(model, prompts, CPU) is not None) is (head >= LEAST)
    found = answers(model, prompts)
    monkeypatch.setattr(generation, "shared_head", lambda *_: None)
    assert found == answers(model, prompts)
    assert len({answer.generated for answer in found}) > 1


def test_a_prompt_that_is_nothing_but_the_head_keeps_a_token_of_its_own():
    head = prompts_of(50)[0][:50]
    with torch.inference_mode():
        assert shared_head(tiny_decoder(), [head, [*head, 7]], CPU).ids == head[:-1]
        assert shared_head(tiny_decoder(), [head], CPU) is None


def test_a_cache_of_a_window_is_not_shared():
    """It has forgotten the beginning of a long head."""
    model = tiny_decoder("Mistral", sliding_window=16, head_dim=16)
    with torch.inference_mode():
        assert shared_head(model, prompts_of(60), CPU) is None
