"""A tiny random model of every family, from its own config class, and small learnable data for every task."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.tiny import BAD, CHAT_TEMPLATE, GOOD, chats, reviews, word_tokenizer, write_jsonl
from trainers.protocol.events import Evaluation, PreparedData, TrialResult
from trainers.protocol.trial_spec import TrialSpec

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
DECODER = {**SMALL, **TOKENS, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.1}
ENCODER = {
    **SMALL, "pad_token_id": 0, "max_position_embeddings": 130, "initializer_range": 0.1, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip

CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("decoder", "LlamaConfig", DECODER),
    "smollm": ("decoder", "SmolLM3Config", {**DECODER, "no_rope_layers": [1, 1]}),
    "phi": ("decoder", "Phi3Config", DECODER),
    "qwen": ("decoder", "Qwen3Config", {**DECODER, "head_dim": 8}),
    "gemma": ("decoder", "Gemma2Config", {**DECODER, "head_dim": 8}),
    "mistral": ("decoder", "MistralConfig", DECODER),
    "gpt2": ("decoder", "GPT2Config", {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "bert": ("encoder", "BertConfig", ENCODER),
    "roberta": ("encoder", "RobertaConfig", ENCODER),
    "distilbert": (
        "encoder", "DistilBertConfig",
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 128, "dropout": 0.0,
         "attention_dropout": 0.0, "pad_token_id": 0, "initializer_range": 0.1},
    ),
    "deberta": ("encoder", "DebertaV2Config", {**ENCODER, "type_vocab_size": 0, "relative_attention": True}),
    "modernbert": (
        "encoder", "ModernBertConfig",
        {**SMALL, **TOKENS, "cls_token_id": 3, "sep_token_id": 2, "max_position_embeddings": 128,
         "initializer_range": 0.1},
    ),
    "t5": (
        "encoder-decoder", "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "pad_token_id": 0, "eos_token_id": 2,
         "decoder_start_token_id": 0, "dropout_rate": 0.0},
    ),
    "bart": (
        "encoder-decoder", "BartConfig",
        {**TOKENS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
         "decoder_start_token_id": 2, "forced_eos_token_id": None, "dropout": 0.0, "init_std": 0.1},
    ),
}  # fmt: skip
FURTHER: dict[str, tuple[str, str, dict[str, Any]]] = {
    "neox": ("decoder", "GPTNeoXConfig", {**SMALL, **TOKENS, "max_position_embeddings": 128, "initializer_range": 0.1}),
    "opt": (
        "decoder", "OPTConfig",
        {**TOKENS, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "word_embed_proj_dim": 32, "max_position_embeddings": 128, "init_std": 0.1, "dropout": 0.0},
    ),
    "olmo": ("decoder", "OlmoConfig", DECODER),
    "qwen2": ("decoder", "Qwen2Config", DECODER),
}  # fmt: skip
"""Families that are tested where it is about their release; training has nothing special for them."""
LAYERS = {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"}
SPECIAL = ["<pad>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def build(name: str, folder: Path, layers: int = 2) -> Path:
    """The model of a family with a tokenizer, in a folder; an encoder and a decoder have so many layers each."""
    import torch
    import transformers
    from tokenizers.processors import TemplateProcessing

    kind, config_class, settings = (CONFIGS | FURTHER)[name]
    settings = {**settings, **dict.fromkeys(settings.keys() & LAYERS, layers)}
    torch.manual_seed(0)
    tokenizer = word_tokenizer(folder, SPECIAL, CHAT_TEMPLATE)
    if kind == "encoder-decoder":
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A <|end|>", special_tokens=[("<|end|>", tokenizer.eos_token_id)]
        )
        tokenizer.save_pretrained(folder)
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer), **settings)
    auto = {
        "decoder": transformers.AutoModelForCausalLM, "encoder": transformers.AutoModel,
        "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    }[kind]  # fmt: skip
    auto.from_config(config).save_pretrained(folder)
    return folder


def rows(task: str, count: int) -> list[dict[str, Any]]:
    """Rows that a small model learns in a few steps."""
    return {
        "text-classification": reviews, "multi-label-classification": _multi_label, "regression": _ratings,
        "text-similarity": _likenesses, "token-classification": _entities, "causal-lm": _texts,
        "instruct": _questions, "chat": chats, "text-to-text": _questions,
    }[task](count)  # fmt: skip


def _multi_label(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    made = []
    for i in range(count):
        words = rng.sample(GOOD, i % 2 * 3) + rng.sample(BAD, (i // 2) % 2 * 3) + ["film", "plot", str(i % 10)]
        labels = [name for name, known in (("good", GOOD), ("bad", BAD)) if set(words) & set(known)]
        made.append({"text": " ".join([*words, *str(i)]), "labels": labels})
    return made


def _ratings(count: int) -> list[dict[str, Any]]:
    made = []
    for i, row in enumerate(reviews(count)):
        made.append({"text": f"{row['text']} {i}", "value": 2.0 if row["label"] == "positive" else -2.0})
    return made


def _likenesses(count: int) -> list[dict[str, Any]]:
    rows = reviews(count)
    return [
        {"text": f"{a['text']} {i}", "text_pair": b["text"], "value": float(a["label"] == b["label"])}
        for i, (a, b) in enumerate((row, rows[i // 2]) for i, row in enumerate(rows))
    ]


def _entities(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    made = []
    for i in range(count):
        name = [rng.choice(GOOD), rng.choice(GOOD)]
        words = ["the", "film", *name, "is", rng.choice(BAD), *str(i)]
        tags = ["O", "O", "B-NAME", "I-NAME", "O", "B-FLAW", *["O"] * len(str(i))]
        made.append({"words": words, "tags": tags})
    return made


def _questions(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    words = [rng.choice(GOOD + BAD) for _ in range(count)]
    return [{"input": f"what is {word} {i}", "output": f"it is {word}"} for i, word in enumerate(words)]


def _texts(count: int) -> list[dict[str, Any]]:
    return [{"text": f"{row['input']} {row['output']}"} for row in _questions(count)]


def write_task(task: str, folder: Path) -> Path:
    return write_jsonl(folder / f"{task}.jsonl", rows(task, 72))


def trained(spec: TrialSpec, found: PreparedData) -> TrialResult:
    """How a trial ends that is let go on at every evaluation."""
    from trainers.model.load import load_base
    from trainers.training.loop import train

    work = train(load_base(spec.workload, found.labels, scale=found.scale), spec, Path(found.tokens_dir))
    event: Any = next(work)
    while True:
        try:
            event = work.send("go" if isinstance(event, Evaluation) else None)
        except StopIteration:
            assert isinstance(event, TrialResult)
            return event
