"""A base model's files before any weight is loaded: folder, kind and tokenizer, and the problems with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainers.data.hub import download_model
from trainers.data.sources import DataProblem
from trainers.data.tokenizer import part_control_tokens
from trainers.protocol.catalog import TASKS, Family
from trainers.protocol.codec import fingerprint
from trainers.protocol.events import Finding
from trainers.protocol.files import TARGET_SCALE, adapter_files, file_fingerprint, file_hash, joint_fingerprint
from trainers.protocol.model_folder import CONFIG, folder_problems
from trainers.protocol.trial_spec import ModelRef, Workload

TOKENIZER = "tokenizer.json"
_TOKENIZER = f"expected {TOKENIZER}, as the tokenizer's save_pretrained writes it"
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
CODE = "*.py"
T = TypeVar("T")


@dataclass(frozen=True)
class BaseFiles:
    """A base model as its files describe it, without weights."""

    folder: Path
    config: Any
    """transformers' config."""
    family: Family
    tokenizer: Any
    """transformers' fast tokenizer."""
    max_length: int
    """Longest row in tokens: the sweep's `max_length`, or the model's limit without it."""
    notes: list[str] = field(default_factory=list)
    embeddings: int | None = None
    """Number of tokens with an embedding in the model; None where the model could not be examined."""
    unreleasable: dict[str, str] = field(default_factory=dict)
    """Method -> why its champion cannot be released; other methods are left out."""


def look_at_base(workload: Workload, findings: list[Finding]) -> BaseFiles | None:
    """Read the files of the base model and add every problem to `findings`; None without a config or a tokenizer."""
    folder = _collected(lambda: model_folder(workload.model), findings)
    if folder is None:
        return None
    if problems := folder_problems(folder, workload.model.source):
        findings += [Finding("model", *problem) for problem in problems]
        return None
    config = _collected(lambda: load_config(folder, workload.model), findings)
    tokenizer = _collected(lambda: load_tokenizer(folder, workload.model.trust_remote_code), findings)
    if config is None:
        return None
    family = family_of(config)
    findings += [f for f in (_wrong_family(config, family, workload.task),) if f]
    return None if tokenizer is None else BaseFiles(folder, config, family, tokenizer, workload.max_length)


def _collected(look: Callable[[], T], findings: list[Finding]) -> T | None:
    """The result of `look`, or None where it raises `DataProblem`; its findings are then added."""
    try:
        return look()
    except DataProblem as problem:
        findings += problem.findings
        return None


def model_folder(model: ModelRef) -> Path:
    """The folder of a base model; a hub id is first downloaded into the hub's cache: nothing later needs the hub.

    Raises `DataProblem` when it cannot be downloaded.
    """
    if Path(model.source).is_absolute():
        return Path(model.source)
    patterns = (*MODEL_FILES, CODE) if model.trust_remote_code else MODEL_FILES
    return download_model(model.source, model.revision, patterns)


def load_config(folder: Path, model: ModelRef) -> Any:
    """The config of a model folder, as transformers reads it. Raises `DataProblem` when there is none."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except Exception as error:  # transformers raises many kinds of errors; each means that there is no such model
        raise DataProblem([_no_model(folder, model, error)]) from error


def _no_model(folder: Path, model: ModelRef, error: Exception) -> Finding:
    given = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if given.get("auto_map") and not model.trust_remote_code:
        kind = str(given.get("model_type", "a model"))[:40]
        right = f"model: {{source: {model.source}, trust_remote_code: true}} runs that code: only if you trust it"
        return Finding("model", f"{folder}: {kind} needs the Python code that comes with the model", right)
    return Finding("model", f"{folder}: {first_line(error)}", "a transformers model")


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters; its type where the message is empty."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The model's fast tokenizer. Raises `DataProblem` when there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        found = f"{folder} has no readable tokenizer: {first_line(error)}"
        raise DataProblem([Finding("model", found, _TOKENIZER)]) from error
    if not tokenizer.is_fast:
        raise DataProblem([Finding("model", f"{folder} has no fast tokenizer", "a folder with tokenizer.json")])
    if not trust_remote_code and (missing := _missing_vocabulary(folder, tokenizer)):
        found = f"{folder} has no tokenizer: {', '.join([TOKENIZER, *missing])} are missing"
        raise DataProblem([Finding("model", found, _TOKENIZER)])
    part_control_tokens(tokenizer)
    return tokenizer


def _missing_vocabulary(folder: Path, tokenizer: Any) -> list[str]:
    """Missing vocabulary files; without them transformers makes an empty vocabulary, in which every word is unknown."""
    names = [name for name in type(tokenizer).vocab_files_names.values() if name != TOKENIZER]
    return [] if (folder / TOKENIZER).is_file() else [name for name in names if not (folder / name).is_file()]


def family_of(config: Any) -> Family:
    """The kind of model that a config describes: encoder, decoder or encoder-decoder."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if config.is_encoder_decoder:
        return "encoder-decoder"
    is_causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    # BERT and similar models are in both tables: they can be configured as causal models, but are not.
    return "decoder" if is_causal and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "encoder"


def base_hashes(folder: Path, model: ModelRef) -> dict[str, str]:
    """Name -> SHA-256 of the model's files that decide results, with the code that it brings where that may run."""
    paths = [path for pattern in MODEL_FILES for path in folder.glob(pattern)]
    paths += [path for path in folder.rglob(CODE) if path.is_file()] if model.trust_remote_code else []
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(paths)}


def base_fingerprint(hashes: Mapping[str, str], model: ModelRef) -> str:
    """Hash of the model's files, of which `base_hashes` gives each one, and of the earlier training it starts from."""
    content = joint_fingerprint(hashes.items())
    if model.adapter is None:
        return content
    scale = Path(model.adapter) / TARGET_SCALE
    files = [*adapter_files(Path(model.adapter)), *([scale] if scale.is_file() else [])]
    return fingerprint([content, file_fingerprint(files)])


def _wrong_family(config: Any, family: Family, task: str) -> Finding | None:
    if family in TASKS[task].families:
        return None
    found = f"{config.model_type} is {'an' if family[0] == 'e' else 'a'} {family}"
    fitting = [name for name, declared in TASKS.items() if family in declared.families]
    needed = f"task {task} needs a {' or '.join(TASKS[task].families)}; with this model: {', '.join(fitting)}"
    return Finding("model", found, needed)


def positions_of(model: Any) -> int | None:
    """The longest row in tokens that the model has positions for; None where it has no limit.

    RoBERTa and similar models count positions from the padding token's id on: 512 of 514 positions can be used.
    """
    for name, module in model.named_modules():
        is_table = type(module) is torch.nn.Embedding and name.rpartition(".")[2] == "position_embeddings"
        if is_table and module.padding_idx is not None:
            return int(module.num_embeddings) - int(module.padding_idx) - 1
    longest = getattr(model.config, "max_position_embeddings", None)
    return int(longest) if longest is not None and int(longest) > 0 else None


def pad_token_of(config: Any) -> int:
    """The padding token's id: the config's, or its first end-of-text token where the config has no valid one.

    Padding is masked; a decoder with a head for the row also uses it to find the end of a row.
    """
    eos = config.eos_token_id  # some models have several
    candidates = [config.pad_token_id, *(eos if isinstance(eos, list) else [eos])]
    return next((int(token) for token in candidates if token is not None and 0 <= token < config.vocab_size), 0)
