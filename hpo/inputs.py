"""The base model and the data a sweep is given: from YAML keys to references that a trainer can open."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from hpo.errors import UsageError
from hpo.fetch import fetched_path
from hpo.home import Home
from hpo.yaml_source import Section
from trainers.catalog import FOLDABLE_ADAPTERS, TASKS
from trainers.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OWN_WEIGHTS, adapter_files
from trainers.model_folder import folder_problems
from trainers.slices import parse_slice
from trainers.spec import DataRef, ModelRef, SourceRef

DOCUMENTS = ("file", "paragraph", "line")
"""What `data.documents` may name; any other text stands between two documents."""
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".conll")


def parse_model(root: Section, file: Path, home: Home) -> ModelRef:
    """`model:`, a text or a mapping. A folder is looked at here: it must hold a config and safetensors."""
    value = root.raw("model")
    revision, trust, adapter = None, False, None
    key: tuple[str, ...] = ("model",)
    if isinstance(value, dict):
        section = root.section("model")
        value, revision = section.text("source"), section.text("revision")
        trust = section.flag("trust_remote_code", False)
        adapter = _parse_adapter(section, file)
        section.finish()
        key = ("model", "source")
    if not isinstance(value, str) or not value:
        root.problem(
            "is missing" if value is None else f"got {value!r}", "expected a hub id, a folder or fetch:NAME", *key
        )
        return ModelRef("")
    path = _resolve(root, value, file, home, key)
    if path is not None:
        _check_model_folder(root, path, key)
    elif value.startswith((".", "/", "~")) or value.endswith(".gguf"):
        root.problem(f"no folder {value!r}", "expected a hub id, a model folder or fetch:NAME", *key)
    return ModelRef(str(path or value), revision, trust, adapter)


def _check_model_folder(root: Section, path: Path, key: tuple[str, ...]) -> None:
    if path.suffix == ".gguf":
        root.problem(f"{path} is a GGUF file", f"convert it once: python -m trainers.convert_gguf {path} FOLDER", *key)
    elif not path.is_dir():
        root.problem(f"{path} is not a folder", "expected a folder with config.json and *.safetensors", *key)
    else:
        for found, expected in folder_problems(path, str(path)):
            root.problem(found, expected, *key)


def _parse_adapter(section: Section, file: Path) -> str | None:
    """`adapter:`, the folder of a PEFT adapter that can be folded into the model's weights, or of all weights anew."""
    given = section.text("adapter")
    if given is None:
        return None
    folder = (file.parent / Path(given).expanduser()).resolve()
    if why := _why_no_adapter(folder):
        section.problem(*why, "adapter")
    return str(folder)


def _why_no_adapter(folder: Path) -> tuple[str, str] | None:
    """What is wrong with an adapter's folder, and what would be right; None where nothing is."""
    if not folder.is_dir():
        return f"no folder {folder}", f"expected one with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}, or {OWN_WEIGHTS}"
    if not (folder / ADAPTER_WEIGHTS).is_file() and (folder / "adapter_model.bin").is_file():
        return f"{folder} has only adapter_model.bin", f"expected {ADAPTER_WEIGHTS}; pickled weights are never read"
    if adapter_files(folder) == [folder / OWN_WEIGHTS]:
        return None  # of the method full; that of another is told when it is read
    if missing := [path.name for path in adapter_files(folder) if not path.is_file()]:
        return f"{folder} has no {' and no '.join(missing)}", "expected a PEFT adapter, or what the method full keeps"
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        return f"{folder / ADAPTER_CONFIG} is not JSON: {error}", "expected a PEFT adapter"
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in FOLDABLE_ADAPTERS:
        return f"an adapter of type {kind!r} cannot be folded into weights", f"one of {', '.join(FOLDABLE_ADAPTERS)}"
    if config.get("loftq_config"):
        return "an adapter of loftq belongs on weights of 4 bits", "continue from one of another method"
    return None


def parse_data(root: Section, file: Path, home: Home, task: str) -> DataRef:
    """`data:`, a mapping or just the training file. `task` is empty when it is not known."""
    if "data" not in root:
        root.problem("is missing", "expected at least data: {train: FILE}", "data")
    raw = root.raw("data")
    section = root.child("data", {"train": raw}) if isinstance(raw, str) else root.section("data")
    columns = {
        role: section.text(role, default) or default for role, default in (TASKS[task].columns if task else {}).items()
    }
    if task:
        columns |= {role: name for role in TASKS[task].optional_columns if (name := section.text(role))}
    else:  # without a task every column key may be right
        for role in {role for t in TASKS.values() for role in (*t.columns, *t.optional_columns)}:
            section.raw(role)
    sources = {split: _parse_source(section, split, file, home) for split in ("train", "validation", "test")}
    sizes = {
        split: section.number(
            f"{split}_size", 0.1, lambda v: 0 < v < 1 or (v >= 1 and v == int(v)),
            "a share below 1 or a whole number of rows",
        )
        for split in ("validation", "test")
    }  # fmt: skip
    documents = _parse_documents(section, task)
    split_seed = section.number("split_seed", 0, lambda v: v >= 0 and v == int(v), "a whole number from 0")
    if "data" in root:
        if section.raw("train") is None:
            section.problem("is missing", "expected a file, a hub id or fetch:NAME", "train")
        section.finish()
    return DataRef(
        train=sources["train"] or SourceRef(""),
        validation=sources["validation"],
        test=sources["test"],
        columns=columns,
        validation_size=float(sizes["validation"]),
        test_size=float(sizes["test"]),
        seed=int(split_seed),
        documents=documents,
    )


def _parse_documents(data: Section, task: str) -> str:
    """What one text of a `.txt` file is: a word of `DOCUMENTS`, or what stands between two texts."""
    value = data.text("documents", "file") or ""
    if "documents" in data and task not in ("", "causal-lm"):
        data.problem("is given", f"only causal-lm reads documents, not {task}: remove it", "documents")
    elif not value:
        data.problem(
            "got ''", f"expected {', '.join(DOCUMENTS)}, or the text that separates two documents", "documents"
        )
    elif value not in DOCUMENTS and (meant := difflib.get_close_matches(value.lower(), DOCUMENTS, 1, 0.8)):
        data.problem(f"got {value!r}", f"did you mean {meant[0]!r}?", "documents")
    return value


def _parse_source(data: Section, role: str, file: Path, home: Home) -> SourceRef | None:
    """The source of a split: a text, or a mapping that says which of its rows."""
    if not isinstance(data.raw(role), dict):
        value = data.text(role)
        return None if value is None else SourceRef(_locate(data, role, value, file, home))
    section = data.section(role)
    value = section.text("source")
    if section.raw("source") is None:
        section.problem("is missing", "expected a file, a hub id or fetch:NAME", "source")
    source = SourceRef(
        source="" if value is None else _locate(section, "source", value, file, home),
        config=section.text("config"),
        revision=section.text("revision"),
        split=section.text("split"),
    )
    section.finish()
    _check_part(section, role, source)
    return source


def _check_part(section: Section, role: str, source: SourceRef) -> None:
    """Which rows: of a hub id all that `datasets` takes, of files a slice of them."""
    is_hub = source.is_hub and not source.source.startswith("fetch:")
    for key in ("config", "revision"):
        if (given := getattr(source, key)) is not None and not is_hub:
            section.problem(f"got {given!r}", f"files have no {key}: only a hub id has; remove it", key)
    if source.split is None:
        return
    try:
        parts = [parse_slice(part.strip()) for part in (source.split.split("+") if is_hub else [source.split])]
    except ValueError as error:
        section.problem(f"got {source.split!r}", str(error), "split")
        return
    if not is_hub and parts[0].name not in ("train", role):
        right = f"the rows of files are train: expected e.g. train[:4096], or {role}[:4096]"
        section.problem(f"got {source.split!r}", right, "split")


def _locate(section: Section, key: str, value: str, file: Path, home: Home) -> str:
    """An absolute path, or pattern of paths; a hub id as it is."""
    path = _resolve(section, value, file, home, (key,))
    if path is None and "*" in value:
        path = (file.parent / Path(value).expanduser()).resolve()
        if not any(path.parent.glob(path.name)):
            section.problem(f"no file matches {value!r}", f"paths start at {file.parent.resolve()}", key)
        return str(path)
    if path is not None:
        if not path.is_dir() and path.suffix not in DATA_SUFFIXES:
            section.problem(f"{path.name} is of no known format", f"expected {', '.join(DATA_SUFFIXES)}", key)
        return str(path)
    if Path(value).suffix in DATA_SUFFIXES or value.startswith((".", "/", "~")):
        section.problem(f"no file {value!r}", f"paths start at {file.parent.resolve()}", key)
        return str((file.parent / Path(value).expanduser()).resolve())
    return value


def _resolve(section: Section, value: str, file: Path, home: Home, key: tuple[str, ...]) -> Path | None:
    """A `fetch:NAME` or an existing path as an absolute one; None for what may be a hub id."""
    if value.startswith("fetch:"):
        name = value.removeprefix("fetch:")
        try:
            path = fetched_path(name, home.dir)
        except UsageError as error:
            section.problem(f"got {value!r}", str(error), *key)
            return None
        if path is None:
            section.problem(f"{value} is not there yet", f"run: hpo fetch {name}", *key)
            return None
        return path
    path = (file.parent / Path(value).expanduser()).resolve()
    return path if path.exists() else None
