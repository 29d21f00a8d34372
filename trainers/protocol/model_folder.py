"""What the files of a base model's folder say by their names and first bytes, before any library reads them.

Standard library only: the command line says it at the line of the YAML, and the trainer once a hub's files are there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trainers.protocol.files import ADAPTER_CONFIG

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LFS = b"version https://git-lfs"
_MOST_NAMES = 3
# What repositories of quantized weights add to the name of the model that they were made of.
_QUANTIZED_NAME = re.compile(
    r"([-_.](gptq|awq|gguf|fp8|nf4|fp4|exl2|hqq|quantized|dynamic|unsloth|bnb|int[48]|[48][-_]?bits?|w[48]a(16|8)"
    r"|q[2-8](_[a-z0-9]+)*))+$",
    re.IGNORECASE,
)


def folder_problems(folder: Path, source: str) -> list[tuple[str, str]]:
    """Why the folder is no base model: what was found, and what would be right. `source` is its name in the YAML."""
    if not (folder / CONFIG).is_file():
        return _without_config(folder, source)
    if pointers := _lfs_pointers(folder):
        return [(f"{named(pointers)} in {folder} hold pointers of Git LFS", "the files: run git lfs pull there")]
    config = _json_object(folder / CONFIG)
    if config is None:
        return [(f"{folder / CONFIG} is not a JSON object", "expected a transformers model folder")]
    if (folder / ADAPTER_CONFIG).is_file():
        return [_adapter(folder)]
    if (kind := _quantization(folder, config)) is not None:
        return [(f"{source} is quantized already ({kind})", f"expected {full_precision(folder, source)}")]
    return _weights(folder)


def named(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def full_precision(folder: Path, source: str) -> str:
    """The model that quantized weights were made of: as its model card says, or as its name tells."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace")[:20_000] if card.is_file() else ""
    said = re.search(r"^base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?[\"']?([\w./-]+)", text, re.MULTILINE)
    name = source.rstrip("/").rpartition("/")[2] if Path(source).is_absolute() else source
    stripped = _QUANTIZED_NAME.sub("", name)
    if said and _QUANTIZED_NAME.sub("", said[1]) == said[1]:
        return f"the model in full precision: {said[1]}"
    if stripped != name:
        return f"the model in full precision: {stripped}"
    return "weights in full precision (method qlora quantizes them itself)"


def _without_config(folder: Path, source: str) -> list[tuple[str, str]]:
    if (folder / ADAPTER_CONFIG).is_file():
        return [_adapter(folder)]
    if gguf := sorted(path.name for path in folder.glob("*.gguf")):
        right = f"convert one once: python -m trainers.convert_gguf {folder / gguf[0]} FOLDER"
        return [(f"{folder} holds GGUF files ({named(gguf)})", right)]
    if inner := _sentence_transformer(folder):
        return [(f"{folder} is a sentence-transformers folder", f"its model is in {inner}")]
    if (folder / "model_index.json").is_file():
        return [(f"{folder} is a pipeline of diffusers", "expected a language model")]
    if not any(folder.iterdir()) and _QUANTIZED_NAME.search(source):  # of a hub's GGUF files none is fetched
        return [(f"{source} has no {CONFIG}", f"expected {full_precision(folder, source)}")]
    return [(f"{folder} has no {CONFIG}", "expected a transformers model folder"), *_weights(folder)]


def _adapter(folder: Path) -> tuple[str, str]:
    base = (_json_object(folder / ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
    name = base[:100] if isinstance(base, str) and base else "BASE"
    beside = " beside a model's config" if (folder / CONFIG).is_file() else ", not a whole model"
    return f"{folder} holds an adapter{beside}", f"write model: {{source: {name}, adapter: {folder}}}"


def _sentence_transformer(folder: Path) -> Path | None:
    """The inner folder that holds the transformers model."""
    if not (folder / "modules.json").is_file():
        return None
    return next((path.parent for path in sorted(folder.glob(f"*/{CONFIG}")) if "Transformer" in path.parent.name), None)


def _lfs_pointers(folder: Path) -> list[str]:
    def is_pointer(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(len(_LFS)) == _LFS

    files = [path for pattern in ("*.safetensors", "*.json", "*.model", "*.txt") for path in folder.glob(pattern)]
    return sorted(path.name for path in files if path.is_file() and is_pointer(path))


def _quantization(folder: Path, config: dict[str, Any]) -> str | None:
    """How the weights are quantized; None where they are not."""
    text = config.get("text_config")
    for owner in (config, text if isinstance(text, dict) else {}):
        if isinstance(given := owner.get("quantization_config"), dict):
            return str(given.get("quant_method", "by its quantization_config"))[:40]
    beside = [name for name in ("quantize_config.json", "quant_config.json") if (folder / name).is_file()]
    return f"it has {beside[0]}" if beside else None


def _weights(folder: Path) -> list[tuple[str, str]]:
    if (folder / WEIGHTS).is_file():
        return []
    if (folder / INDEX).is_file():
        return _shards(folder)
    others = sorted(path.name for suffix in ("safetensors", "bin", "pt", "gguf") for path in folder.glob(f"*.{suffix}"))
    found = f"{folder} has no weights" + (f" but {named(others)}" if others else "")
    if any(name.endswith(".safetensors") for name in others):
        return [(found, f"expected {WEIGHTS}, or {INDEX} and the files that it names")]
    return [(found, "expected *.safetensors; pickled weights are never read")]


def _shards(folder: Path) -> list[tuple[str, str]]:
    index = _json_object(folder / INDEX)
    places = index.get("weight_map") if index else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        return [(f"{folder / INDEX} has no weight_map", "expected the index that transformers writes")]
    names = sorted(set(places.values()))
    if outside := [name for name in names if Path(name).name != name]:
        return [(f"{folder / INDEX} names {named(outside)}", "expected files of the same folder")]
    if missing := [name for name in names if not (folder / name).is_file()]:
        found = f"{folder} lacks {len(missing)} of the {len(names)} files that {INDEX} names: {named(missing)}"
        return [(found, "expected all of them: fetch them again")]
    return []


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):  # torn, or no JSON: whoever asks says so
        return None
    return content if isinstance(content, dict) else None
