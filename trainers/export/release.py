"""Completes a folder with an exported graph to a release, with the tokenizer, the card and the runtime."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trainers import runtime
from trainers.data.tokenizer import chat_template_of, end_tokens, frozen, template_tokens
from trainers.runtime.card import CUTTING, REWRITING, Card

GRAPH = "model.onnx"
WEIGHTS = "model.onnx.data"
ENCODER = "encoder.onnx"
"""The second graph of an encoder-decoder: it reads the text."""
_GRAPHS = (GRAPH, WEIGHTS, ENCODER, f"{ENCODER}.data")
RUNTIME = "runtime"
"""The folder with the code of a release, and the package that it is a copy of."""


class ExportError(Exception):
    """A model could not be exported or released; the message names the architecture or file, and the reason."""


@dataclass(frozen=True)
class ModelInterface:
    """The inputs and answers of a release; the fields are those of `Card`."""

    task: str
    labels: Sequence[str]
    max_length: int
    columns: Sequence[str] = ("text",)
    prompt_template: str | None = None
    after_answer: str = ""
    is_followed: bool = False
    max_new_tokens: int = 64
    route: str = ""
    cache: str = "in place"
    start_token_id: int | None = None
    forced_tokens: Mapping[str, int] = field(default_factory=dict)
    adapters: Sequence[str] = ()
    champion: str = ""
    target: str = "cpu"
    attention: str = ""


@dataclass(frozen=True)
class ModelParts:
    """The tokenizer and configs (transformers' objects) of the model that a release is made of."""

    tokenizer: Any
    config: Any
    generation_config: Any = None


def write_release(variant_dir: Path, variant: str, interface: ModelInterface, parts: ModelParts) -> Card:
    """Complete `variant_dir`, which contains `model.onnx` (and `model.onnx.data`); `release.json` is written last.

    Raises `ExportError` where the graph is missing, or the tokenizer runs only in Python.
    """
    if not (variant_dir / GRAPH).is_file():
        raise ExportError(f"{variant_dir} has no {GRAPH} to release")
    tokenizer, is_chat = parts.tokenizer, interface.task == "chat"
    _refuse_slow(tokenizer)
    cut_at = interface.max_length if interface.task in CUTTING else None
    frozen(tokenizer, cut_at).save(str(variant_dir / "tokenizer.json"))
    code = _copy_runtime(variant_dir)
    present = [name for name in (*_GRAPHS, "tokenizer.json") if (variant_dir / name).is_file()]
    card = Card(
        task=interface.task,
        variant=variant,
        labels=tuple(interface.labels),
        max_length=interface.max_length,
        pad_token_id=_pad_token_id(parts),
        eos_token_ids=tuple(end_tokens(tokenizer, parts.config, parts.generation_config, is_chat=is_chat)),
        chat_template=chat_template_of(tokenizer) if is_chat else None,
        template_tokens=template_tokens(tokenizer) if is_chat else {},
        generation=_generation(interface, parts.generation_config),
        columns=tuple(interface.columns),
        prompt_template=interface.prompt_template,
        after_answer=interface.after_answer,
        is_followed=interface.is_followed,
        route=interface.route,
        cache=interface.cache,
        start_token_id=interface.start_token_id,
        forced_tokens=dict(interface.forced_tokens),
        adapters=tuple(interface.adapters),
        champion=interface.champion,
        target=interface.target,
        attention=interface.attention,
        files={name: (variant_dir / name).stat().st_size for name in (*present, *code)},
    )
    write_card(variant_dir, card)
    return card


def write_card(folder: Path, card: Card) -> None:
    """Write `release.json`, at once and whole."""
    write_last(folder / "release.json", asdict(card))


def _copy_runtime(variant_dir: Path) -> list[str]:
    """Copy the package that answers; returns its files, relative to the release."""
    source = Path(runtime.__file__).parent
    shutil.copytree(source, variant_dir / RUNTIME, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return sorted(f"{RUNTIME}/{file.name}" for file in source.glob("*.py"))


def _refuse_slow(tokenizer: Any) -> None:
    """Raise `ExportError` for a tokenizer without a `tokenizer.json`, which a release needs."""
    if not isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        raise ExportError(
            f"{type(tokenizer).__name__} runs in Python only; a release needs a tokenizer with a tokenizer.json"
        )


def _generation(interface: ModelInterface, config: Any) -> dict[str, Any]:
    """How answers are written: greedily, but by beams and rules where the base model's own config says so."""
    greedy = {"strategy": "greedy", "max_new_tokens": interface.max_new_tokens}
    if interface.task != REWRITING or config is None:
        return greedy
    width, penalty = int(config.num_beams or 1), config.length_penalty
    shortest = config.min_length or 0
    if config.min_new_tokens:  # transformers counts the token that an answer begins after
        shortest = 1 + int(config.min_new_tokens)
    return {
        **greedy,
        "strategy": "greedy" if width == 1 else "beams",
        "num_beams": width,
        "length_penalty": 1.0 if penalty is None else float(penalty),
        "early_stopping": config.early_stopping or False,
        "min_length": shortest,
        "no_repeat_ngram_size": config.no_repeat_ngram_size or 0,
    }


def _pad_token_id(parts: ModelParts) -> int:
    # The model's first: a classifier that reads a row's last token finds it by the padding that its config names.
    for candidate in (parts.config.pad_token_id, parts.tokenizer.pad_token_id):
        if candidate is not None:
            return int(candidate)
    return 0  # padding is always masked


def write_last(path: Path, content: Mapping[str, Any]) -> None:
    """Write a card as a whole, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
