"""A base model's files, before any weight is read: its folder, kind and tokenizer, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainers.catalog import TASKS, Family
from trainers.codec import fingerprint
from trainers.files import adapter_files, file_fingerprint
from trainers.sources import DataProblem
from trainers.spec import Finding, ModelRef, Workload
from trainers.tokenizer import part_control_tokens

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
T = TypeVar("T")


@dataclass(frozen=True)
class BaseFiles:
    """A base model as its files describe it."""

    folder: Path
    config: Any
    """transformers' own."""
    family: Family
    tokenizer: Any
    """transformers' fast tokenizer."""
    max_length: int
    """Longest row in tokens: what the sweep asks for, or the most that the model takes where it asks for nothing."""
    notes: list[str]


def look_at_base(workload: Workload, findings: list[Finding]) -> BaseFiles | None:
    """What the files of the base model say; every problem goes to `findings`. None without a config or a tokenizer."""
    folder = _collected(lambda: model_folder(workload.model), findings)
    if folder is None:
        return None
    config = _collected(lambda: load_config(folder, workload.model), findings)
    tokenizer = _collected(lambda: load_tokenizer(folder, workload.model.trust_remote_code), findings)
    if config is None:
        return None
    family = family_of(config)
    findings += [f for f in (_weights(folder), _wrong_family(config, family, workload.task)) if f]
    max_length, too_long = _max_length(config, workload)
    findings += [too_long] if too_long else []
    return None if tokenizer is None else BaseFiles(folder, config, family, tokenizer, max_length, [])


def _collected(look: Callable[[], T], findings: list[Finding]) -> T | None:
    """What `look` returns, or None with its findings collected."""
    try:
        return look()
    except DataProblem as problem:
        findings += problem.findings
        return None


def model_folder(model: ModelRef) -> Path:
    """The folder of a base model; a hub id is brought into the hub's cache first, so that nothing later needs it.

    Raises `DataProblem` when it cannot be brought.
    """
    if Path(model.source).is_absolute():
        return Path(model.source)
    import huggingface_hub

    code = ["*.py"] if model.trust_remote_code else []
    try:
        return Path(
            huggingface_hub.snapshot_download(
                model.source, revision=model.revision, allow_patterns=[*MODEL_FILES, *code]
            )
        )
    except Exception as error:  # the hub client raises what it likes; all of it means: it cannot be had
        first_line = str(error).splitlines()[0]
        raise DataProblem(
            [Finding("model", f"{model.source}: {first_line}", "a folder or a reachable hub id")]
        ) from error


def load_config(folder: Path, model: ModelRef) -> Any:
    """transformers' config of a model folder. Raises `DataProblem` when there is none."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except Exception as error:  # transformers raises what it likes; all of it means: no such model
        first_line = str(error).splitlines()[0]
        raise DataProblem([Finding("model", f"{folder}: {first_line}", "a transformers model")]) from error


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The model's fast tokenizer. Raises `DataProblem` when there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        first_line = str(error).splitlines()[0]
        raise DataProblem([Finding("model", f"{folder} has no tokenizer: {first_line}")]) from error
    if not tokenizer.is_fast:
        raise DataProblem([Finding("model", f"{folder} has no fast tokenizer", "a folder with tokenizer.json")])
    part_control_tokens(tokenizer)
    return tokenizer


def family_of(config: Any) -> Family:
    """What kind of model a config describes."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if config.is_encoder_decoder:
        return "encoder-decoder"
    is_causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    # BERT and its kin are in both tables: they can be told to be causal, and are not.
    return "decoder" if is_causal and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "encoder"


def base_fingerprint(folder: Path, model: ModelRef) -> str:
    """Hash of the files of the model that decide results, and of the earlier training that it goes on from."""
    content = file_fingerprint(path for pattern in MODEL_FILES for path in folder.glob(pattern))
    if model.adapter is None:
        return content
    return fingerprint([content, file_fingerprint(adapter_files(Path(model.adapter)))])


def _weights(folder: Path) -> Finding | None:
    if any(folder.glob("*.safetensors")):
        return None
    return Finding("model", f"{folder} has no *.safetensors", "pickled weights are never read")


def _wrong_family(config: Any, family: Family, task: str) -> Finding | None:
    if family in TASKS[task].families:
        return None
    found = f"{config.model_type} is {'an' if family[0] == 'e' else 'a'} {family}"
    fitting = [name for name, declared in TASKS.items() if family in declared.families]
    needed = f"task {task} needs a {' or '.join(TASKS[task].families)}; with this model: {', '.join(fitting)}"
    return Finding("model", found, needed)


def positions_of(config: Any) -> int | None:
    """The longest row in tokens that the model has positions for; None where there is no bound."""
    longest = getattr(config, "max_position_embeddings", None)
    return None if longest is None else int(longest)


def _max_length(config: Any, workload: Workload) -> tuple[int, Finding | None]:
    """The longest row, and what is wrong with the one that the sweep asks for."""
    longest = positions_of(config)
    if longest is None or workload.max_length <= longest:
        return workload.max_length, None
    if not workload.max_length_is_given:
        return longest, None
    found = f"got {workload.max_length}, but the model has {longest} positions"
    return longest, Finding("training.max_length", found, f"at most {longest}")
