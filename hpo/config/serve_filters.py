"""The `filter` of a serve configuration: block lists, classifiers and functions, each by its file or its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpo.config.keys import Described, Key, OneOf, Text, read_all
from hpo.config.serve_config import FilterKind, FilterSpec
from hpo.config.user_code import why_of_no_use
from hpo.config.yaml_source import Section
from hpo.errors import UsageError, did_you_mean
from hpo.given_path import given_path
from hpo.paths import NAME_PATTERN
from hpo.quoting import quoted

REGISTRY = "models:/"
"""What a release's name may begin with, as MLflow writes it."""
HALF = 0.5
"""The threshold of a label that is just `on`."""
KINDS: tuple[FilterKind, ...] = ("block_list", "classifier", "function")
ReleaseFolder = Callable[[str], Path]
"""Finds a release by its name; raises `UsageError` for one that does not exist."""
FILTER: tuple[Key, ...] = (
    Text("block_list", None, "a file with a word or phrase a line"),
    Text("classifier", None, "a released model, as `hpo serve` takes it or as `models:/NAME@ALIAS`"),
    Text("function", None, "`FILE.py:NAME`, beside the configuration or below its folder"),
    Text("name", None, "what `/metrics` and answers call it", shown="that of the file, the model or the function"),
    OneOf("action", "refuse", "of a block list: `refuse` the text, or `redact` the phrase with asterisks",
          choices=("refuse", "redact")),
    Described("labels", None, "of a classifier: the labels that refuse a text, each with the probability from which it "
              "does, `on` (0.5) or `off`", shown="with several labels a text: all of them on",
              described={"type": "object"}),
    OneOf("hold", "answer", "of a classifier or a function: what of an answer is held back and judged at once, the "
          "whole `answer` or each `sentence` by itself", choices=("answer", "sentence")),
)  # fmt: skip


def parse_filters(section: Section, folder: Path, release_folder: ReleaseFolder) -> tuple[FilterSpec, ...]:
    """`filter:`, a filter or a list of them; paths start at `folder`."""
    given = section.raw("filter")
    if given is None and "filter" in section:
        section.got(given, "expected a filter or a list of filters", "filter")
    every = given if isinstance(given, list) else [] if given is None else [given]
    keys = [f"filter[{index}]" if isinstance(given, list) else "filter" for index in range(len(every))]
    read = [_filter(section, key, one, folder, release_folder) for key, one in zip(keys, every, strict=True)]
    filters = [one for one in read if one is not None]
    names = [one.name for one in filters]
    for name in sorted({name for name in names if names.count(name) > 1}):
        section.problem(f"several filters are called {quoted(name)}", "give each its own name:", "filter")
    return tuple(filters)


def _filter(above: Section, key: str, given: Any, folder: Path, release_folder: ReleaseFolder) -> FilterSpec | None:
    """One filter, a text or a mapping; None after a problem with what it is."""
    if isinstance(given, str) and given:
        given = {_kind_of(given): given}
    if not isinstance(given, dict):
        above.got(given, "expected FILE.py:NAME, models:/NAME, a file of phrases, or a mapping", key)
        return None
    section = above.child(key, given)
    values = read_all(section, FILTER)
    section.raw("labels")
    kinds = [kind for kind in KINDS if kind in section]
    spec = None
    if len(kinds) != 1:
        section.problem(f"has {len(kinds)} of {', '.join(KINDS)}", "expected one of them")
    elif values[kinds[0]] is not None:
        spec = _of_kind(section, kinds[0], values, folder, release_folder)
    elif section.raw(kinds[0]) is None and not section.is_empty(kinds[0]):
        section.got(None, "expected text", kinds[0])
    section.finish()
    return spec


def _kind_of(text: str) -> FilterKind:
    if ".py:" in text:
        return "function"
    return "classifier" if text.startswith(REGISTRY) else "block_list"


def _of_kind(
    section: Section, kind: FilterKind, values: dict[str, Any], folder: Path, release_folder: ReleaseFolder
) -> FilterSpec | None:
    for key, kinds in {"action": KINDS[:1], "labels": KINDS[1:2], "hold": KINDS[1:]}.items():
        if key in section and kind not in kinds:
            section.problem("is given", f"a {kind} has no {key}: remove it", key)
    given = values[kind]
    file, _, function = given.partition(":") if kind == "function" else (given, "", "")
    default = {"block_list": Path(given).stem, "classifier": given.removeprefix(REGISTRY), "function": function}[kind]
    name = values["name"] or re.sub(r"[^A-Za-z0-9._-]+", "-", default).strip("-._") or kind
    if values["name"] and not NAME_PATTERN.fullmatch(name):
        section.got(name, "expected letters, digits, '.', '_' and '-'", "name")
    thresholds: dict[str, float] = {}
    if kind == "classifier":
        path = _release(section, given, folder, release_folder)
        thresholds = {} if path is None else _thresholds(section, path)
    else:
        path = _file(section, kind, file, function, folder)
    if path is None:
        return None
    return FilterSpec(kind, name, str(path), values["action"], values["hold"], function, thresholds)


def _file(section: Section, kind: FilterKind, given: str, function: str, folder: Path) -> Path | None:
    """A file of phrases, or of Python, that can be used; None after a problem."""
    try:
        path = given_path(given, folder)
    except ValueError as error:
        section.problem(f"got {quoted(given)}: {error}", "expected a file", kind)
        return None
    if not path.is_file():
        section.problem(f"no file {quoted(given)}", f"paths start at {folder.resolve()}", kind)
        return None
    if kind == "function" and not path.is_relative_to(folder.resolve()):
        section.got(given, f"expected a file below {folder.resolve()}", kind)
        return None
    if why := _why_no_phrases(path) if kind == "block_list" else why_of_no_use(path, given, function):
        section.problem(*why, kind)
        return None
    return path


def _why_no_phrases(path: Path) -> tuple[str, str] | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}", "expected a text file"
    except UnicodeDecodeError:
        return f"{path.name} is not UTF-8 text", "save it as UTF-8"
    return None if text.strip() else (f"{path.name} is empty", "expected a word or phrase a line")


def _release(section: Section, given: str, folder: Path, release_folder: ReleaseFolder) -> Path | None:
    """The folder of a release, given by its path from the file's folder or by its name; None after a problem."""
    try:
        path = given_path(given, folder)
        if not given.startswith(REGISTRY) and (path / "release.json").is_file():
            return path
        return release_folder(given.removeprefix(REGISTRY))
    except (ValueError, UsageError) as error:
        section.problem(str(error), "expected a released model or a release folder", "classifier")
        return None


def _thresholds(section: Section, release: Path) -> dict[str, float]:
    """From which probability on each label refuses a text."""
    try:
        card = json.loads((release / "release.json").read_text(encoding="utf-8"))
        task, labels = str(card["task"]), [str(label) for label in card["labels"]]
        is_of_pairs = len(card.get("columns", ())) > 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        section.problem(f"{release / 'release.json'} is damaged: {type(error).__name__}", "copy it again", "classifier")
        return {}
    if task not in ("text-classification", "multi-label-classification"):
        section.problem(f"is a model of {task}", "expected a classifier of texts", "classifier")
        return {}
    if is_of_pairs:
        section.problem("judges pairs of texts", "expected a classifier of single texts", "classifier")
        return {}
    if "labels" not in section and task == "multi-label-classification":
        return dict.fromkeys(labels, HALF)
    if "labels" not in section:
        section.problem("has no labels", f"say which refuse a text, e.g. labels: {{{labels[-1]}: 0.8}}")
        return {}
    wanted = section.section("labels")
    found = {label: _threshold(wanted, label) for label in wanted.names() if label in labels}
    for label in wanted.names():
        wanted.raw(label)
        if label not in labels:
            wanted.problem("the model has no such label", did_you_mean(label, labels), label)
    on = {label: threshold for label, threshold in found.items() if threshold is not None}
    if not on and not wanted.problems:
        section.problem("every label is off", "expected one that is on", "labels")
    return on


def _threshold(wanted: Section, label: str) -> float | None:
    """`on`, a number above 0 and up to 1, or None for `off`."""
    value = wanted.raw(label)
    if value == "off" or value is False:
        return None
    if value == "on" or value is True:
        return HALF
    if isinstance(value, (int, float)) and 0 < value <= 1:
        return float(value)
    wanted.got(value, "expected on, off, or a number above 0 and up to 1", label)
    return None
