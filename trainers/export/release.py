"""Turn a folder with an exported graph into a release: tokenizer, card and runtime beside the graph."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trainers import runtime
from trainers.data.tokenizer import chat_template_of, frozen, template_tokens
from trainers.runtime import CLASSIFYING, Card

GRAPH = "model.onnx"
WEIGHTS = "model.onnx.data"
RELEASE_FILES = (GRAPH, WEIGHTS, "tokenizer.json", "runtime.py", "release.json")


class ExportError(Exception):
    """A model could not be exported or released; the message names the architecture or file and the reason."""


def write_release(
    variant_dir: Path,
    *,
    task: str,
    variant: str,
    labels: Sequence[str],
    max_length: int,
    tokenizer: Any,
    model_config: Any,
    generation_config: Any = None,
    max_new_tokens: int = 64,
    columns: Sequence[str] = ("text",),
    prompt_template: str | None = None,
    after_answer: str = "",
    is_followed: bool = False,
) -> Card:
    """Complete `variant_dir`, which holds `model.onnx` (+ `model.onnx.data`); `release.json` appears last.

    `max_length` counts tokens: where training cut a text, or the context window of a model that writes, prompt and
    answer together. `tokenizer` and both configs are transformers' objects; the rest is as in `Card`. Raises
    `ExportError` where the graph is missing or the tokenizer is one that only runs in Python.
    """
    if not (variant_dir / GRAPH).is_file():
        raise ExportError(f"{variant_dir} has no {GRAPH} to release")
    is_chat = task == "chat"
    _refuse_slow(tokenizer)
    frozen(tokenizer, max_length if task in CLASSIFYING else None).save(str(variant_dir / "tokenizer.json"))
    shutil.copyfile(runtime.__file__, variant_dir / "runtime.py")
    present = [name for name in RELEASE_FILES[:-1] if (variant_dir / name).is_file()]
    card = Card(
        task=task,
        variant=variant,
        labels=tuple(labels),
        max_length=max_length,
        pad_token_id=_pad_token_id(tokenizer, model_config),
        eos_token_ids=_eos_token_ids(tokenizer, model_config, generation_config),
        chat_template=chat_template_of(tokenizer) if is_chat else None,
        template_tokens=template_tokens(tokenizer) if is_chat else {},
        generation={"strategy": "greedy", "max_new_tokens": max_new_tokens},
        columns=tuple(columns),
        prompt_template=prompt_template,
        after_answer=after_answer,
        is_followed=is_followed,
        files={name: (variant_dir / name).stat().st_size for name in present},
    )
    _write_last(variant_dir / "release.json", asdict(card))
    return card


def _refuse_slow(tokenizer: Any) -> None:
    """Raises `ExportError` for a tokenizer that a release cannot hold."""
    if not isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        raise ExportError(
            f"{type(tokenizer).__name__} runs in Python only; a release needs a tokenizer with a tokenizer.json"
        )


def _pad_token_id(tokenizer: Any, model_config: Any) -> int:
    # The model's first: one that judges a row by its last token looks for the filler that its own config names.
    for candidate in (model_config.pad_token_id, tokenizer.pad_token_id):
        if candidate is not None:
            return int(candidate)
    return 0  # masked out wherever it is used


def _eos_token_ids(tokenizer: Any, model_config: Any, generation_config: Any) -> tuple[int, ...]:
    """Every id that ends an answer. The configs of a base model often name only its end of document, while its
    chat template ends a turn with the tokenizer's eos: all of them count."""
    found: set[int] = set()
    for owner in (tokenizer, model_config, generation_config):
        ids = getattr(owner, "eos_token_id", None)
        if ids is not None:
            found.update(ids if isinstance(ids, Sequence) else [ids])
    return tuple(sorted(found))


def _write_last(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
