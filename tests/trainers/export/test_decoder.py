"""Chat models: logits at all positions, a cache that changes nothing, torch's greedy tokens, smaller variants."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.trainers.export.conftest import CONTEXT, CORPUS, chat_tokenizer, release, tiny_decoder
from trainers.export.decoder import _reason, export_decoder
from trainers.export.release import ExportError
from trainers.runtime.release import Release

IDS = chat_tokenizer()(" ".join(CORPUS[:3])).input_ids[:60]


def torch_logits(model, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


def torch_answer(model, ids: list[int], count: int) -> list[int]:
    """Greedy, an end of text being a token like any other."""
    model.generation_config.eos_token_id = None
    answer = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=count, do_sample=False
    )
    return answer[0, len(ids) :].tolist()


def test_fp32_gives_torchs_logits_at_all_positions(chat_release):
    ours = Release.load(chat_release(), threads=1).token_logits(IDS)
    expected = torch_logits(tiny_decoder(), IDS)
    assert expected.std() > 0.5
    assert np.abs(ours - expected).max() < 1e-4


def test_greedy_tokens_are_torchs(chat_release):
    ours = list(Release.load(chat_release(), threads=1).greedy_tokens(IDS, 40))
    assert ours == torch_answer(tiny_decoder(), IDS, 40)
    assert len(set(ours)) > 5


def test_decoding_with_the_cache_equals_a_full_forward(chat_release):
    chat = Release.load(chat_release(), threads=1)
    answer = list(chat.greedy_tokens(IDS, 20))
    full = chat.token_logits(IDS + answer[:-1])
    assert full[len(IDS) - 1 :].argmax(axis=-1).tolist() == answer


@pytest.mark.parametrize(("variant", "least_agreement"), [("int8", 0.9), ("int4", 0.5)])
def test_quantized_variants_are_smaller_and_near(variant, least_agreement, chat_release):
    sizes = {name: (chat_release(name) / "model.onnx.data").stat().st_size for name in ("fp32", variant)}
    assert sizes[variant] < 0.35 * sizes["fp32"]
    ours = Release.load(chat_release(variant), threads=1).token_logits(IDS)
    expected = torch_logits(tiny_decoder(), IDS)
    agreement = (ours.argmax(axis=-1) == expected.argmax(axis=-1)).mean()
    assert agreement >= least_agreement


def test_another_family_with_untied_embeddings_and_a_window(tmp_path):
    """Mistral's window covers all layers, which the builder alone would leave out."""
    model, tokenizer = tiny_decoder("Mistral", tie_word_embeddings=False, sliding_window=8), chat_tokenizer()
    expected = torch_logits(model, IDS)
    differences = {}
    for variant in ("fp32", "int8"):
        fp32_dir = tmp_path / "fp32" if variant == "int8" else None
        export_decoder(model, tokenizer, tmp_path / variant, variant, fp32_dir)
        ours = Release.load(release(model, tokenizer, tmp_path / variant), threads=1)
        differences[variant] = np.abs(ours.token_logits(IDS) - expected).max()
    assert differences["fp32"] < 1e-4
    assert 1e-4 < differences["int8"] < 1
    sizes = [(tmp_path / variant / "model.onnx.data").stat().st_size for variant in ("fp32", "int8")]
    assert sizes[1] < 0.35 * sizes[0], "the embedding is quantized too"


def test_files_can_be_read_by_others(chat_release):
    modes = {(chat_release("int8") / name).stat().st_mode for name in ("model.onnx", "model.onnx.data")}
    assert len(modes) == 1


def test_an_unsupported_architecture_is_named_and_nothing_written(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=CONTEXT))
    for variant in ("fp32", "int4"):
        with pytest.raises(ExportError, match=r"GPT2LMHeadModel has no ONNX export .*LlamaForCausalLM"):
            export_decoder(model, chat_tokenizer(), tmp_path / "out", variant)
    with pytest.raises(ExportError, match="'fp16'"):
        export_decoder(tiny_decoder(), chat_tokenizer(), tmp_path / "out", "fp16")
    assert not list(tmp_path.iterdir())


def test_a_failure_on_the_way_names_the_variant(tmp_path, monkeypatch):
    model = tiny_decoder()
    monkeypatch.setattr(model, "save_pretrained", lambda _: 1 / 0)
    with pytest.raises(ExportError, match="LlamaForCausalLM could not be exported as int8: ZeroDivisionError"):
        export_decoder(model, chat_tokenizer(), tmp_path, "int8")
    assert not list(tmp_path.iterdir())


def test_the_builders_own_words_are_passed_on():
    trace = "Traceback (most recent call last):\n  File ...\nKeyError: 'rope_type'\nsome hint\n"
    assert _reason(subprocess.CompletedProcess([], 1, "", trace)) == "KeyError: 'rope_type'"
    assert _reason(subprocess.CompletedProcess([], -9, "", "\n")) == "its process ended with exit code -9"
