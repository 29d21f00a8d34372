"""Tiny random models and data that a few steps learn something from. Without pytest, for machines that lack it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

GOOD = ["warm", "funny", "bright", "lovely", "clever", "moving"]
BAD = ["dull", "lifeless", "boring", "clumsy", "stale", "empty"]
FILLER = ["a", "the", "film", "plot", "scene", "with", "and", "story", "is", "was", "of", "it", "this"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def reviews(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Texts whose label can be read off one of their words."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        label, words = ("positive", GOOD) if i % 2 else ("negative", BAD)
        text = rng.choices(FILLER, k=rng.randint(1, 6)) + rng.choices(words, k=5)
        rng.shuffle(text)
        rows.append({"text": " ".join(text), "label": label})
    return rows


def chats(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        messages = []
        for _ in range(rng.randint(1, 3)):
            word = rng.choice(GOOD + BAD)
            messages.append({"role": "user", "content": f"what is {word} {i}"})
            messages.append({"role": "assistant", "content": f"it is {word}"})
        rows.append({"messages": messages})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def word_tokenizer(folder: Path, special: list[str], chat_template: str | None = None) -> Any:
    """A word-level fast tokenizer over all words of the fixtures."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*GOOD, *BAD, *FILLER, "what", "\n", *(str(i) for i in range(10))]
    vocabulary = {word: i for i, word in enumerate([*special, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    if chat_template is None:
        cls, sep = special[2], special[3]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}", special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])]
        )
        names = {"pad_token": special[0], "unk_token": special[1], "cls_token": cls, "sep_token": sep}
    else:
        names = {"pad_token": special[0], "unk_token": special[1], "eos_token": "<|end|>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=special[4:], model_max_length=128, **names
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return fast


def encoder(folder: Path) -> None:
    """A tiny BERT without a head."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = word_tokenizer(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=128, pad_token_id=0, initializer_range=0.2,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)


def decoder(folder: Path) -> None:
    """A tiny Llama that knows a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    special = ["<pad>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer = word_tokenizer(folder, special, CHAT_TEMPLATE)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, pad_token_id=0, bos_token_id=2,
        eos_token_id=2, initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
