"""Tiny random models with tokenizers trained on the spot, and releases made of them, once per session."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tests.conftest import write_jsonl
from tests.quick_releases import made_once, operators_read_once, traced_once
from tests.trainers.families import rows, trained
from trainers.export import encoder, rewriter
from trainers.export.decoder import export_decoder, quantize_decoder
from trainers.export.encoder import export_encoder
from trainers.export.promotion import export, measure_variant
from trainers.export.reading import quantize_reading
from trainers.export.release import GRAPH, ModelInterface, ModelParts, write_release
from trainers.model.load import load_base
from trainers.prepare.inspect import inspect
from trainers.prepare.release_routes import ROUTES
from trainers.protocol.catalog import METRICS, TASKS, canonical_settings, default_settings
from trainers.protocol.requests import Export, Inspect, Measure
from trainers.protocol.trial_spec import ModelRef, SourceRef, TrialSpec
from trainers.runtime.card import Card
from trainers.runtime.release import Release

BUILDER, TRACED = ROUTES[:2]
LABELS = ("bad", "fair", "good")
MAX_LENGTH = 24
VOCABULARY = 200
CONTEXT = 128

CORPUS = [
    "The film was a quiet wonder, and nobody left before the end.",
    "A dull, overlong sequel: two hours of noise and not one idea.",
    "How are you today? I am fine, thank you, and how was your trip?",
    "Grüße aus Köln, 123 times; naïve café prices rose by 45 % in 2024!",
    "She said that it would rain, so we stayed inside and played chess.",
] * 4

BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
CHAT_TOKENS = {
    "unk_token": "<|endoftext|>",
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
}
CHAT_TEMPLATE = """\
{% for message in messages %}
{% if loop.first and message['role'] not in ['system', 'user'] %}{{ raise_exception('begin with a user') }}{% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
    {% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{% else %}
{{ message['content'] + '<|im_end|>' }}
{%- endif %}
{{ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


@functools.cache
def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """As BERT's: lower case, word pieces, [CLS] text [SEP]. It knows the corpus's words, but spells every eighth one.

    The vocabulary is spelled out, for training breaks ties at random: each process would give the models other ids.
    """
    backend = Tokenizer(models.WordPiece(_wordpieces(), unk_token=BERT_TOKENS["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.decoder = decoders.WordPiece()
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **BERT_TOKENS)


def _wordpieces() -> dict[str, int]:
    text = normalizers.BertNormalizer(lowercase=True).normalize_str(" ".join(CORPUS))
    words = sorted({word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)})
    characters = sorted(set("".join(words)))
    whole = [word for i, word in enumerate(words) if i % 8]
    tokens = dict.fromkeys([*BERT_TOKENS.values(), *characters, *(f"##{c}" for c in characters), *whole])
    assert len(tokens) <= VOCABULARY
    return {token: i for i, token in enumerate(tokens)}


@functools.cache
def chat_tokenizer() -> PreTrainedTokenizerFast:
    """As SmolLM2's: bytes, ChatML, and the end of a turn as padding too."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=320,
        special_tokens=list(dict.fromkeys(CHAT_TOKENS.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE, **CHAT_TOKENS)


def tiny_encoder(kind: str) -> Any:
    """A classifier of two layers whose logits are of the size that trained ones have (1 to 2).

    Larger weights make attention all or nothing, and the model ill-conditioned: at 0.5 torch's own float32 logits
    were off by up to 2e-4, at 0.2 they are off by 2e-6.
    """
    torch.manual_seed(0)
    shared = {"vocab_size": VOCABULARY, "num_labels": len(LABELS), "initializer_range": 0.2, "pad_token_id": 0}
    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**shared, **bert, max_position_embeddings=64)).eval()
    if kind == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**shared, **bert, max_position_embeddings=66)).eval()
    config = DistilBertConfig(**shared, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    return DistilBertForSequenceClassification(config).eval()


def tiny_decoder(family: str = "Llama", **changes: Any) -> Any:
    """Two layers with grouped queries and tied embeddings, whose next token is not always the same."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, f"{family}Config")(**{**sizes, **changes})
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def release(model: Any, tokenizer: Any, folder: Path, **changes: Any) -> Path:
    """A release in `folder`, which holds an exported graph."""
    task = "chat" if tokenizer.chat_template else "text-classification"
    arguments: dict[str, Any] = {
        "task": task,
        "variant": "fp32",
        "labels": () if task == "chat" else LABELS,
        "max_length": CONTEXT if task == "chat" else MAX_LENGTH,
        "tokenizer": tokenizer,
        "model_config": model.config,
        "generation_config": getattr(model, "generation_config", None),
        "max_new_tokens": 16,
    }
    written(folder, **{**arguments, **changes})
    return folder


def written(folder: Path, *, variant: str, tokenizer: Any, model_config: Any, **arguments: Any) -> Card:
    """Write a release; `arguments` are those of `ModelInterface`, and `generation_config`."""
    parts = ModelParts(tokenizer, model_config, arguments.pop("generation_config", None))
    return write_release(folder, variant, ModelInterface(**arguments), parts)


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once() -> Iterator[None]:
    with operators_read_once():
        yield


@pytest.fixture(scope="session")
def encoder_release(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Callable[..., Path]:
    """Gives the release of a tiny encoder, made when first asked for."""
    home = tmp_path_factory.mktemp("encoders")

    def get(kind: str = "bert", variant: str = "fp32") -> Path:
        folder = home / f"{kind}-{variant}"
        if not folder.exists():
            model, tokenizer = tiny_encoder(kind), wordpiece_tokenizer()
            if variant == "fp32":
                with traced_once(graphs, encoder):
                    export_encoder(model, tokenizer, folder)
            else:
                quantize_reading(get(kind), folder, variant)
            release(model, tokenizer, folder, variant=variant)
        return folder

    return get


@pytest.fixture(scope="session")
def chat_release(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Callable[..., Path]:
    """Gives a variant of the tiny chat model, made when first asked for; the quantized ones from fp32."""
    home = tmp_path_factory.mktemp("chat")

    def get(variant: str = "fp32") -> Path:
        folder = home / variant
        if not folder.exists():
            model, tokenizer = tiny_decoder(), chat_tokenizer()
            if variant == "fp32":
                build = functools.partial(export_decoder, model, tokenizer, folder, [BUILDER])
                made_once(graphs, model, "builder", folder / GRAPH, build)
            else:
                quantize_decoder(get("fp32"), folder, variant, BUILDER)
            release(model, tokenizer, folder, variant=variant)
        return folder

    return get


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a release, for a test to damage."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def promoted(family_workload, tiny, tmp_path, graphs):
    """Train a little, export `variants`: (what torch says, what onnxruntime says of the last one, its release, the
    validation rows, the model that was exported)."""

    def promote(family, task, pairs=False, method="lora", variants=("fp32",), layers=2, **settings):
        workload = family_workload(family or "llama", task, layers)
        home = tmp_path / f"{family}-{task}-{method}"
        if family is None:  # a head of 8, as the families' have, is less than onnxruntime's attention takes
            workload = replace(workload, model=ModelRef(str(tiny / "chat")))
        if pairs:
            given = [{**row, "other": f"said {i % 7} times"} for i, row in enumerate(rows(task, 72))]
            data = replace(workload.data, train=SourceRef(str(write_jsonl(tmp_path / "pairs.jsonl", given))))
            workload = replace(workload, data=replace(data, columns={**data.columns, "text_pair": "other"}))
        found = inspect(Inspect(workload))
        metric = TASKS[task].metrics[0]
        chosen = {
            **default_settings(task, method), "learning_rate": 1e-2, "batch_size": 8, "evaluations": 2, **settings,
        }  # fmt: skip
        spec = TrialSpec(
            0, workload, method, canonical_settings(method, chosen), metric, METRICS[metric].direction, 160, 160, 0,
            "i", 1, ("cpu",), str(home / "trial"),
        )  # fmt: skip
        trained(spec, found)
        folder = home / "release"
        base = load_base(workload, found.labels, scale=found.scale)
        with traced_once(graphs, encoder, rewriter):
            exported = export(base, Export(spec, found, list(variants), str(folder)))
        assert not exported.failures
        validation = Path(found.tokens_dir, "validation.jsonl")
        measured = measure_variant(Measure(variants[-1], str(folder), str(validation), 1))
        given = [json.loads(line) for line in validation.read_text().splitlines()]
        return exported, measured, Release.load(folder / variants[-1], 1), given, base.model

    return promote


def assert_equal_numbers(exported, measured):
    assert measured.max_logit_diff < 1e-4
    assert set(measured.metrics) == set(exported.metrics)
    for name, value in exported.metrics.items():
        assert measured.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-4, nan_ok=True), name
