"""The table of routes tells the truth: what it says can be released is exported here, and has torch's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.trainers.export.conftest import assert_equal_numbers
from tests.trainers.families import CONFIGS, FURTHER
from trainers.export.cached import WithCache
from trainers.prepare.release_routes import ROUTES, routes, why_unreleasable
from trainers.protocol.catalog import METHODS, TASKS

SHORT = {"num_virtual_tokens": 3}
TWO_LAYERS = [("gpt2", "lora"), ("gemma", "adapter"), ("llama", "prompt"), ("bert", "lora")]
"""Of the decoders and encoders that are traced; the others have one, for each takes seconds. Gemma's are unlike."""
JUDGING = [
    ("bert", "text-classification", "adapter"),
    ("gpt2", "multi-label-classification", "adapter"),
    ("distilbert", "regression", "adapter"),
    ("roberta", "token-classification", "adapter"),
    ("bart", "text-classification", "lora"),
    ("t5", "text-classification", "lora"),
]
WRITING = [
    ("gpt2", "instruct", "lora"),
    ("gpt2", "instruct", "prefix"),
    ("neox", "causal-lm", "lora"),
    ("opt", "chat", "lora"),
    ("llama", "instruct", "prompt"),
    ("qwen", "causal-lm", "prefix"),
    ("gemma", "causal-lm", "adapter"),
    ("mistral", "causal-lm", "prompt"),
    ("phi", "causal-lm", "adapter"),
    ("smollm", "causal-lm", "prefix"),
]
"""Every architecture and method of the traced decoder; `test_promotion.py` has the builder."""
REWRITING = [("t5", "lora", 2), ("bart", "adapter", 1)]
"""With layers each in encoder and decoder: T5's first one is unlike the others."""


def layers_of(family, method):
    return 2 if (family, method) in TWO_LAYERS else 1


@pytest.mark.parametrize(("family", "task", "method"), JUDGING)
def test_what_is_kept_beside_the_weights_is_part_of_a_classifier(promoted, family, task, method):
    exported, measured, release, _, _ = promoted(family, task, method=method, layers=layers_of(family, method))
    assert_equal_numbers(exported, measured)
    assert release.card.route == "traced encoder"


@pytest.mark.parametrize(("family", "method"), [("bert", "lora"), ("distilbert", "adapter"), ("modernbert", "lora")])
def test_embeddings(promoted, family, method):
    layers = layers_of(family, method)
    exported, measured, release, given, _ = promoted(family, "text-similarity", method=method, layers=layers)
    assert_equal_numbers(exported, measured)
    pairs = [{"text": row["text"], "text_pair": row["text_pair"]} for row in given]
    values = [answer["value"] for answer in release.predict(pairs)]
    assert sum(abs(value - row["value"]) for value, row in zip(values, given, strict=True)) / len(given) == (
        pytest.approx(measured.metrics["mae"], abs=1e-5)
    )
    assert [answer["value"] for answer in release.predict([json.dumps(pair) for pair in pairs])] == values
    one, other = (np.array(answer["embedding"]) for answer in release.predict(list(pairs[0].values())))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert float(one @ other) == pytest.approx(values[0], abs=1e-5)
    assert release.predict([{"text": pairs[0]["text"]}])[0]["embedding"] == pytest.approx(one.tolist(), abs=1e-6)
    with pytest.raises(ValueError, match="input 0: expected a text, or a mapping of text and text_pair, got int"):
        release.predict([3])
    with pytest.raises(ValueError, match="not a text: text"):
        release.predict([{"text_pair": "a"}])


@pytest.mark.parametrize(("family", "task", "method"), WRITING)
def test_traced_decoders(promoted, family, task, method):
    settings = SHORT if method in ("prompt", "prefix") else {}
    exported, measured, release, given, model = promoted(
        family, task, method=method, layers=layers_of(family, method), **settings
    )
    assert_equal_numbers(exported, measured)
    prompt = given[0]["input_ids"][:5]
    assert list(release.greedy_tokens(prompt, 12)) == greedy(model, prompt, 12)
    if (family, method) in (("gpt2", "lora"), ("neox", "lora"), ("opt", "lora")) or not METHODS[method].merges:
        assert (release.card.route, release.card.cache) == ("traced decoder", "appended")
    learned = SHORT["num_virtual_tokens"] if method in ("prompt", "prefix") else 0
    assert release.card.max_length == 128 - learned


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's
@pytest.mark.parametrize("method", ["prompt", "prefix"])
@pytest.mark.parametrize("family", sorted({family for family, _, _ in WRITING}))
def test_a_learned_prompt_is_keys_and_values_before_the_text(models, family, method):
    """In torch, on every architecture: what is traced gives PEFT's logits, padded on the left and in two steps."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(models(family))
    config = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}[method]
    model = get_peft_model(model, config(task_type="CAUSAL_LM", num_virtual_tokens=3, inference_mode=True)).eval()
    for parameter in model.prompt_encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    cached = WithCache(model).eval()
    ids = torch.randint(3, 20, (1, 9))
    heads, size = next(iter(cached.learned.values()))["key"].shape[1::2]
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -9:]
        empty = {number: dict.fromkeys(("key", "value"), torch.zeros(2, heads, 0, size)) for number in cached.learned}
        both = torch.cat([torch.randint(3, 20, (1, 9)), ids])
        both[1] = torch.cat([torch.tensor([0, 0]), ids[0, :7]])
        mask = torch.ones_like(both)
        mask[1, :2] = 0
        first = cached(both[:, :4], mask[:, :4], empty)
        second = cached(both[:, 4:], mask, first["present"])
    ours = torch.cat([first["logits"], second["logits"]], dim=1)[1:, 2:]
    torch.testing.assert_close(ours, wanted[:, :7], atol=1e-5, rtol=1e-4)
    assert second["present"]["0"]["key"].shape == (2, heads, 9, size)


def greedy(model, prompt, count):
    """Torch's tokens, each from a whole forward pass."""
    ids = list(prompt)
    for _ in range(count):
        with torch.inference_mode():
            given = torch.tensor([ids])
            ids.append(int(model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(("family", "method", "layers"), REWRITING)
def test_encoder_decoders(promoted, family, method, layers):
    exported, measured, release, given, model = promoted(family, "text-to-text", method=method, layers=layers)
    assert_equal_numbers(exported, measured)
    for row in given:
        ids = torch.tensor([release.tokenizer.encode(row["input"]).ids])
        torchs = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        told = [token for token in torchs[0, 1:].tolist() if token not in release.card.eos_token_ids]
        assert list(release.generate(row["input"], 16)) == told
        (answer,) = release.predict([row["input"]], 16)
        assert answer == {"text": release.tokenizer.decode(told)}
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        release.predict([given[0]["input"]], 0)


def test_smaller_variants_of_an_encoder_decoder_and_of_an_embedding(promoted):
    exported, measured, _, _, _ = promoted("t5", "text-to-text", variants=("fp32", "int8"))
    assert exported.variants == ["fp32", "int8"]
    assert measured.metrics["loss"] == pytest.approx(exported.metrics["loss"], rel=0.05)
    assert measured.max_logit_diff > 1e-4
    exported, measured, _, _, _ = promoted("bert", "text-similarity", variants=("fp32", "int8"))
    assert measured.metrics["mae"] == pytest.approx(exported.metrics["mae"], abs=0.05)


def test_a_head_of_its_own_beside_tied_embeddings_is_released(promoted):
    """As the tutorial trains DialoGPT: GPT-2's head is untied, in the release too."""
    exported, measured, _, _, model = promoted("gpt2", "causal-lm", modules_to_save="transformer.ln_f,lm_head")
    assert_equal_numbers(exported, measured)
    assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)


def test_every_cell_of_the_table_is_exported_in_a_test():
    """Each architecture and each method of a route at least once; routes without architectures take any."""
    families = {name: spec[1].removesuffix("Config") for name, spec in (CONFIGS | FURTHER).items()}
    traced = next(route for route in ROUTES if route.name == "traced decoder")
    assert {families[family] for family, _, _ in WRITING} == {
        name.removesuffix("ForCausalLM").removesuffix("LMHeadModel") for name in traced.architectures
    }
    assert {method for _, _, method in WRITING if not METHODS[method].merges} == set(traced.unmerged)
    rewriting = next(route for route in ROUTES if route.name == "traced encoder-decoder")
    assert {f"{families[family]}ForConditionalGeneration" for family, *_ in REWRITING} == rewriting.architectures
    assert {task for _, task, _ in JUDGING} == {
        "text-classification", "multi-label-classification", "regression", "token-classification",
    }  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_cell_without_a_route_has_a_reason(task):
    for method in METHODS:
        for architecture in ("LlamaForCausalLM", "GPT2LMHeadModel", "T5ForConditionalGeneration", "OlmoForCausalLM"):
            why = why_unreleasable(task, architecture, method)
            assert (why is None) is bool(routes(task, architecture, method))
    assert "OlmoForCausalLM has no ONNX export with a KV cache" in str(
        why_unreleasable("chat", "OlmoForCausalLM", "lora")
    )
    assert why_unreleasable("chat", "PhiForCausalLM", "prompt") == (
        "no route to ONNX keeps what method prompt trains beside the weights of PhiForCausalLM"
    )
