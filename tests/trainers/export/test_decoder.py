"""Chat models: logits at all positions, a cache that changes nothing, torch's greedy tokens, smaller variants."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import onnx
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.quick_releases import copy_graph
from tests.trainers.export.conftest import BUILDER, CONTEXT, CORPUS, TRACED, chat_tokenizer, release, tiny_decoder
from trainers.export import decoder
from trainers.export.builder import _reason
from trainers.export.decoder import export_decoder, quantize_decoder
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
    assert export_decoder(model, tokenizer, tmp_path / "fp32", [BUILDER]) is BUILDER
    quantize_decoder(tmp_path / "fp32", tmp_path / "int8", "int8", BUILDER)
    for variant in ("fp32", "int8"):
        ours = Release.load(release(model, tokenizer, tmp_path / variant), threads=1)
        differences[variant] = np.abs(ours.token_logits(IDS) - expected).max()
    assert differences["fp32"] < 1e-4
    assert 1e-4 < differences["int8"] < 1
    sizes = [(tmp_path / variant / "model.onnx.data").stat().st_size for variant in ("fp32", "int8")]
    assert sizes[1] < 0.35 * sizes[0], "the embedding is quantized too"


def test_files_can_be_read_by_others(chat_release):
    modes = {(chat_release("int8") / name).stat().st_mode for name in ("model.onnx", "model.onnx.data")}
    assert len(modes) == 1


def tiny_gpt2():
    """Two layers of transposed products, with tied embeddings, whose next token is not always the same."""
    torch.manual_seed(0)
    sizes = {"vocab_size": len(chat_tokenizer()), "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2, bos_token_id=0, eos_token_id=1)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # of zeros none would be traced
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def traced_gpt2(tmp_path_factory):
    """The folder of its graph in fp32."""
    folder = tmp_path_factory.mktemp("gpt2")
    assert export_decoder(tiny_gpt2(), chat_tokenizer(), folder, [TRACED]) is TRACED
    return folder


def test_gpt2_is_traced_with_a_cache_that_grows(traced_gpt2, tmp_path):
    model, tokenizer = tiny_gpt2(), chat_tokenizer()
    shutil.copytree(traced_gpt2, tmp_path / "fp32")
    quantize_decoder(tmp_path / "fp32", tmp_path / "int8", "int8", TRACED)
    ours = Release.load(release(model, tokenizer, tmp_path / "fp32", cache="appended"), threads=1)
    expected = torch_logits(model, IDS)
    assert np.abs(ours.token_logits(IDS) - expected).max() < 1e-4
    answer = list(ours.greedy_tokens(IDS, 30))
    assert answer == torch_answer(model, IDS, 30)
    assert len(set(answer)) > 5
    int8 = Release.load(release(model, tokenizer, tmp_path / "int8", cache="appended"), threads=1)
    assert 1e-4 < np.abs(int8.token_logits(IDS) - expected).max() < 1
    sizes = [(tmp_path / variant / "model.onnx.data").stat().st_size for variant in ("fp32", "int8")]
    assert sizes[1] < 0.35 * sizes[0], "transposed products and the embedding are quantized too"
    graph = onnx.load(tmp_path / "fp32/model.onnx", load_external_data=False).graph
    vocabulary = [tensor.name for tensor in graph.initializer if len(tokenizer) in tensor.dims]
    assert len(vocabulary) == 1, "the head and the embedding are one weight"
    quantize_decoder(tmp_path / "fp32", tmp_path / "int4", "int4", TRACED)
    int4 = Release.load(release(model, tokenizer, tmp_path / "int4", cache="appended"), threads=1)
    assert (int4.token_logits(IDS).argmax(axis=-1) == expected.argmax(axis=-1)).mean() >= 0.5
    bits = [
        onnx.helper.get_attribute_value(attribute)
        for node in onnx.load(tmp_path / "int4/model.onnx", load_external_data=False).graph.node
        for attribute in node.attribute
        if node.op_type == "MatMulNBits" and attribute.name == "bits"
    ]
    assert sorted(bits) == [4] * 6 + [8] * 3, "the head, and value and down projections of one layer, stay in 8 bits"
    with pytest.raises(ExportError, match="the route 'traced decoder' makes fp32, int8, int4"):
        quantize_decoder(tmp_path / "fp32", tmp_path / "fp16", "fp16", TRACED)


def test_the_next_route_is_taken_where_a_graph_is_wrong(traced_gpt2, tmp_path, monkeypatch):
    model = tiny_gpt2()
    with torch.no_grad():
        for weight in model.transformer.h[0].parameters():
            weight.mul_(1.1)
    monkeypatch.setattr(decoder, "build", lambda *given: copy_graph(traced_gpt2 / "model.onnx", given[-1]))
    monkeypatch.setattr(decoder, "export_with_cache", lambda *_: 1 / 0)
    with pytest.raises(ExportError) as error:
        export_decoder(model, chat_tokenizer(), tmp_path / "out", [BUILDER, TRACED])
    assert "builder: its graph differs from torch by" in str(error.value)
    assert "traced decoder: ZeroDivisionError" in str(error.value)
    assert not list((tmp_path / "out").iterdir())


def test_the_builders_own_words_are_passed_on():
    trace = "Traceback (most recent call last):\n  File ...\nKeyError: 'rope_type'\nsome hint\n"
    assert _reason(subprocess.CompletedProcess([], 1, "", trace)) == "KeyError: 'rope_type'"
    assert _reason(subprocess.CompletedProcess([], -9, "", "\n")) == "its process ended with exit code -9"
