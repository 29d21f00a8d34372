"""The base model and the data a sweep is given: from YAML keys to references that a trainer can open."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from hpo.config.keys import TEXT, Described, Flag, Group, Share, Text, Whole, read_all
from hpo.config.lookup import look_up
from hpo.config.yaml_source import Section
from hpo.demo.fetch import fetched_path
from hpo.errors import UsageError
from hpo.given_path import given_path
from hpo.paths import Home
from hpo.quoting import quoted
from trainers.protocol.catalog import DATA_SUFFIXES, FOLDABLE_ADAPTERS, TASKS
from trainers.protocol.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OWN_WEIGHTS, adapter_files
from trainers.protocol.model_folder import folder_problems
from trainers.protocol.slices import parse_slice
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef

DOCUMENTS = ("file", "paragraph", "line")
"""What `data.documents` may name; any other text stands between two documents."""
MOST_ROWS = 1_000_000_000_000
_REQUIRED_TEXT = {"type": "string", "minLength": 1}
MODEL = Group(
    "model", None, "hub id, folder, or `fetch:NAME` (after `hpo fetch NAME`)", is_required=True, short=("string",),
    keys=(
        Described("source", None, "hub id, folder, or `fetch:NAME` (after `hpo fetch NAME`)", is_required=True,
                  described=_REQUIRED_TEXT),
        Text("revision", None, "of a hub id: a branch, tag or commit"),
        Flag("trust_remote_code", False, "whether code that comes with a model of the hub may run on this machine"),
        Text("adapter", None, "folder of an earlier training that is folded into the weights"),
    ),
)  # fmt: skip
SOURCE = (
    Described("source", None,
              "a file, a folder, a pattern, a hub id, or `fetch:NAME`",
              is_required=True, described=_REQUIRED_TEXT),
    Text("config", None, "of a hub id: which of its configurations (`name` of `datasets.load_dataset`)"),
    Text("revision", None, "of a hub id: a branch, tag or commit"),
    Text("split", None, "which rows: `train[:4096]`, `train[10:20]`, `train[-100:]`, `train[80%:]`",
         shown="all rows; of a hub id the split's own name"),
)  # fmt: skip
_COLUMNS = ("text", "label", "labels", "value", "words", "tags", "entities", "messages", "input", "output")
_FURTHER_COLUMNS = {
    "text_pair": "name of the column with the second text of a pair",
    "answer": "`instruct`: the first column that is learned; by default the template's last",
    "text_template": "`instruct`: makes one text of a row's columns, see the tasks",
}
_SHOWN = {
    "text_pair": "-; of `text-similarity` the same word",
    "text_template": f"`{json.dumps(TASKS['instruct'].columns['text_template'])}`",
}
_HELD_OUT = "rows of its own; a row that is also in train is taken out of train"
_SHARE = "a share below 1 (test first, then validation of what is left), or a number of rows"
DATA = Group(
    "data", None, "the training rows, or a mapping of splits and columns", is_required=True, short=("string",),
    keys=(
        Group("train", None,
              "rows to train on; validation and test rows are cut from them where those are not given",
              is_required=True, short=("string",), keys=SOURCE),
        *(Group(split, None, _HELD_OUT, shown='cut from train, or see "Splits by name"', short=("string",), keys=SOURCE)
          for split in ("validation", "test")),
        *(Share(f"{split}_size", 0.1, _SHARE, most=MOST_ROWS) for split in ("validation", "test")),
        Whole("split_seed", 0, "of the cut; independent of `seed`, so that the sealed test set stays the same",
              low=0, most=(1 << 63) - 1),
        *(Described(role, None, "name of the task's column", shown="the same word", described=TEXT)
          for role in _COLUMNS),
        *(Described(role, None, means, described=TEXT, shown=_SHOWN.get(role, ""))
          for role, means in _FURTHER_COLUMNS.items()),
        Described("label_names", None,
                  "names of labels or tags that the data holds as numbers, the name of 0 first: "
                  "`[negative, positive]`; also the names of lists of 0 and 1",
                  described={"type": "array", "items": {"type": "string", "pattern": r"\S"}, "minItems": 2,
                             "uniqueItems": True}),
        Text("documents", "file",
             "`causal-lm` only, what one text of a `.txt` is: the whole `file`, a `paragraph` (empty lines part them), "
             'a `line`, or any other text that stands between two, e.g. `"\\n***\\n"`'),
    ),
)  # fmt: skip


def parse_model(root: Section, file: Path, home: Home) -> ModelRef:
    """`model:`, a text or a mapping. A folder is looked at here: it must hold a config and safetensors."""
    value = root.raw("model")
    given: dict[str, Any] = {"revision": None, "trust_remote_code": False, "adapter": None}
    key: tuple[str, ...] = ("model",)
    if isinstance(value, dict):
        section = root.section("model")
        value, given = section.text("source"), read_all(section, MODEL.keys)
        if given["adapter"] is not None:
            given["adapter"] = _parse_adapter(section, given["adapter"], file)
        section.finish()
        key = ("model", "source")
    if not isinstance(value, str) or not value:
        if value is None:
            root.problem("is missing", "expected a hub id, a folder or fetch:NAME", *key)
        else:
            root.got(value, "expected a hub id, a folder or fetch:NAME", *key)
        return ModelRef("")
    found = _look_up(root, key, value, file, home, "folder", is_hub=given["revision"] is not None)
    if isinstance(found, Path):
        _check_model_folder(root, found, key)
        if (revision := given["revision"]) is not None:
            root.got(revision, "a folder has no revision: only a hub id has; remove it", "model", "revision")
    return ModelRef(str(found or value), **given)


def _check_model_folder(root: Section, path: Path, key: tuple[str, ...]) -> None:
    if path.suffix == ".gguf":
        root.problem(f"{path} is a GGUF file", f"convert it once: python -m trainers.convert_gguf {path} FOLDER", *key)
    elif not path.is_dir():
        root.problem(f"{path} is not a folder", "expected a folder with config.json and *.safetensors", *key)
    else:
        for found, expected in folder_problems(path, str(path)):
            root.problem(found, expected, *key)


def _parse_adapter(section: Section, given: str, file: Path) -> str | None:
    """`adapter:`, the folder of a PEFT adapter that can be folded into the model's weights, or of all weights anew."""
    try:
        folder = given_path(given, file.parent)
    except ValueError as error:
        section.problem(f"got {quoted(given)}: {error}", "expected the folder of an adapter", "adapter")
        return None
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
        return None  # kept by the method full; that of another method is refused when it is read
    if missing := [path.name for path in adapter_files(folder) if not path.is_file()]:
        return f"{folder} has no {' and no '.join(missing)}", "expected a PEFT adapter, or what the method full keeps"
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        return f"{folder / ADAPTER_CONFIG} is not JSON: {error}", "expected a PEFT adapter"
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in FOLDABLE_ADAPTERS:
        return (
            f"an adapter of type {quoted(kind)} cannot be folded into weights",
            f"one of {', '.join(FOLDABLE_ADAPTERS)}",
        )
    if config.get("loftq_config"):
        return "an adapter of loftq belongs on weights of 4 bits", "continue from one of another method"
    return None


def parse_data(root: Section, file: Path, home: Home, task: str) -> DataRef:
    """`data:`, a mapping or just the training file. `task` is empty when it is not known."""
    if "data" not in root:
        root.problem("is missing", "expected at least data: {train: FILE}", "data")
    raw = root.raw("data")
    section = root.child("data", {"train": raw}) if isinstance(raw, str) else root.section("data")
    columns = _parse_columns(section, task)
    sources = {split: _parse_source(section, split, file, home) for split in ("train", "validation", "test")}
    given, label_names = read_all(section, DATA.keys), _parse_label_names(section, task)
    _check_documents(section, task, given["documents"])
    if "data" in root:
        if section.raw("train") is None:
            section.problem("is missing", "expected a file, a hub id or fetch:NAME", "train")
        section.finish()
    return DataRef(
        train=sources["train"] or SourceRef(""),
        validation=sources["validation"],
        test=sources["test"],
        columns=columns,
        validation_size=float(given["validation_size"]),
        test_size=float(given["test_size"]),
        seed=given["split_seed"],
        documents=given["documents"],
        label_names=label_names,
    )


def _parse_columns(data: Section, task: str) -> dict[str, str]:
    """Role -> column, as given or as by default; empty where the task is not known."""
    if not task:  # every column key may be right
        for role in (*_COLUMNS, *_FURTHER_COLUMNS):
            data.raw(role)
        return {}
    columns = {role: data.text(role, default) or default for role, default in TASKS[task].columns.items()}
    return columns | {role: name for role in TASKS[task].optional_columns if (name := data.text(role))}


def _check_documents(data: Section, task: str, value: str) -> None:
    """Refuse `documents`, a word of `DOCUMENTS` or what stands between two texts, where it cannot be meant."""
    if "documents" in data and task not in ("", "causal-lm"):
        data.problem("is given", f"only causal-lm reads documents, not {task}: remove it", "documents")
    elif value not in DOCUMENTS and (meant := difflib.get_close_matches(value.lower(), DOCUMENTS, 1, 0.8)):
        data.got(value, f"did you mean {meant[0]!r}?", "documents")


def _parse_label_names(data: Section, task: str) -> list[str]:
    """Names of labels that the data holds as numbers, in the order of these."""
    value = data.raw("label_names")
    if "label_names" not in data:
        return []
    if task and not {"label", "labels", "tags"} & set(TASKS[task].columns):
        data.problem("is given", f"{task} has no labels: remove it", "label_names")
    elif not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        data.got(value, "expected a list of names, the name of label 0 first, e.g. [negative, positive]", "label_names")
    elif len(names := list(dict.fromkeys(name.strip() for name in value))) < max(2, len(value)):
        data.got(value, "expected at least two names, each of them once", "label_names")
    else:
        return names
    return []


def _parse_source(data: Section, role: str, file: Path, home: Home) -> SourceRef | None:
    """The source of a split: a text, or a mapping that says which of its rows."""
    if not isinstance(data.raw(role), dict):
        if role == "train" and data.raw(role) is None:
            return None  # it is missing
        value = data.text(role)
        return None if value is None else SourceRef(_locate(data, role, value, file, home))
    section = data.section(role)
    if section.raw("source") is None:
        section.problem("is missing", "expected a file, a hub id or fetch:NAME", "source")
        value = None
    else:
        value = section.text("source")
    given = read_all(section, SOURCE)
    is_hub = given["config"] is not None or given["revision"] is not None
    place = "" if value is None else _locate(section, "source", value, file, home, is_hub=is_hub)
    source = SourceRef(place, **given)
    section.finish()
    _check_part(section, role, source)
    return source


def _check_part(section: Section, role: str, source: SourceRef) -> None:
    """Which rows: of a hub id all that `datasets` takes, of files a slice of them."""
    for key in ("config", "revision"):
        if (given := getattr(source, key)) is not None and not source.is_hub:
            section.got(given, f"files have no {key}: only a hub id has; remove it", key)
    if source.split is None:
        return
    try:
        parts = [parse_slice(part.strip()) for part in (source.split.split("+") if source.is_hub else [source.split])]
    except ValueError as error:
        section.got(source.split, str(error), "split")
        return
    if not source.is_hub and parts[0].name not in ("train", role):
        right = f"local files have no named splits: write train[:4096], or {role}[:4096]"
        section.got(source.split, right, "split")


def _locate(section: Section, key: str, value: str, file: Path, home: Home, *, is_hub: bool = False) -> str:
    """An absolute path, or pattern of paths; a hub id as it is."""
    found = _look_up(section, (key,), value, file, home, "file", is_hub=is_hub)
    if found is None:
        return str(file.parent.resolve() / "nowhere")
    if isinstance(found, Path) and found.exists() and not found.is_dir():
        _check_data_file(section, key, found)
    return str(found)


def _check_data_file(section: Section, key: str, path: Path) -> None:
    if not path.is_file():
        section.problem(f"{path.name} is not a regular file (a pipe or a device)", "expected a file or a folder", key)
    elif path.suffix.lower() not in DATA_SUFFIXES:
        section.problem(f"{path.name} has an unknown format", f"expected {', '.join(DATA_SUFFIXES)}", key)


def _look_up(
    section: Section, key: tuple[str, ...], value: str, file: Path, home: Home, kind: str, *, is_hub: bool
) -> Path | str | None:
    """What is fetched as an absolute path, too; None after a problem of `key`."""
    if not value.startswith("fetch:"):
        return look_up(section, key, value, file, kind, is_hub=is_hub)
    name = value.removeprefix("fetch:")
    try:
        path = fetched_path(name, home.dir)
    except UsageError as error:
        section.got(value, str(error), *key)
        return None
    if path is None:
        section.problem(f"{value} is not there yet", f"run: hpo fetch {name}", *key)
    return path
