"""A first YAML for a task: what has to be given, a small space, and the keys most often changed, each with its help."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpo.config.budget import BUDGET
from hpo.config.keys import Key
from hpo.config.model_and_data import DATA
from hpo.config.small_sections import FINALISTS, PROMOTE
from hpo.config.strategy import STRATEGY
from hpo.demo.assets import ASSETS
from trainers.protocol.catalog import METHOD, METRICS, TASKS, Task, default_settings
from trainers.protocol.settings import FIELDS

SCHEMA_FILE = "hpo.schema.json"
"""Stands beside the YAML: an editor finds it there without a network, in a copy or a clone of the folder too, and
wherever the home is."""
_PLAIN = re.compile(r"(\.{0,2}/|[^\W\d_])[\w./:-]*(?<!:)")
_NOT_TEXT = ("true", "false", "null")


@dataclass(frozen=True)
class Starter:
    """What a first YAML is about."""

    task: str
    model: str
    data: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Key of `data:` -> name of the column, where it is not the default."""

    def fetches(self) -> list[str]:
        """Commands that bring the demo model and data that it names."""
        names = [value.removeprefix("fetch:") for value in (self.model, self.data) if value.startswith("fetch:")]
        return [f"hpo fetch {name}" for name in names]


def default_model(task: Task) -> str | None:
    """The demo model that can learn a task, `fetch:NAME`; None where there is none."""
    name = {"encoder": "all-MiniLM-L6-v2", "decoder": "SmolLM2-135M-Instruct"}.get(task.families[0])
    return f"fetch:{ASSETS[name].name}" if name else None


def starter_yaml(starter: Starter, file: Path, command: str) -> str:
    """The text of `file`; `command` is what runs it."""
    task = TASKS[starter.task]
    before = [f"# Before the first time: {' && '.join(starter.fetches())}"] if starter.fetches() else []
    lines = [
        f"# yaml-language-server: $schema={SCHEMA_FILE}",
        f"# {command}",
        "#",
        f"# {task.help}",
        *before,
        "# What is commented out stands at its default, or is off. `hpo schema` knows every key.",
        f"name: {_scalar(file.stem)}",
        f"task: {task.name}",
        f"model: {_scalar(starter.model)}",
        *_data(starter, task),
        *_help(METHOD.help),
        "method: lora",
        "search_strategy:",
        *_help(_key(STRATEGY, "num_trials").help, 2),
        "  num_trials: 20",
        *_space_and_training(task),
        *_help(f"or {', '.join(task.metrics[1:])}"),
        f"objective: {{metric: {task.metrics[0]}}}   # {METRICS[task.metrics[0]].help}",
        *_ending(),
    ]
    return "\n".join(lines) + "\n"


def _data(starter: Starter, task: Task) -> list[str]:
    """`data:`; columns that are not given stand there as comments, by their default names."""
    given = {**starter.columns}
    lines = ["data:", *_help(_key(DATA.keys, "train").help, 2), f"  train: {_scalar(starter.data)}"]
    lines += ["  # names of columns in your data:"]
    for role, default in task.columns.items():
        lines.append(f"  {role}: {_scalar(given.pop(role))}" if role in given else f"  # {role}: {_scalar(default)}")
    lines += [f"  {role}: {_scalar(name)}" for role, name in given.items()]
    size = _key(DATA.keys, "validation_size")
    return [*lines, *_help(size.help, 2), f"  validation_size: {size.default}", f"  test_size: {size.default}"]


def _space_and_training(task: Task) -> list[str]:
    settings = default_settings(task.name, "lora")
    rate, batch = float(settings["learning_rate"] or 0), int(settings["batch_size"] or 0)
    return [
        "search_space:",
        *_help(FIELDS["learning_rate"].help, 2),
        # Where LoRA lives: below, a trial hardly learns, above, it collapses (tests/bench/search.md).
        f"  learning_rate: {{type: float, low: {rate / 5:.0e}, high: {rate * 4:.0e}, log: true}}".replace("e-0", "e-"),
        *_help(FIELDS["lora_r"].help, 2),
        "  lora_r: {type: int, low: 4, high: 64, log: true}",
        *_help(FIELDS["batch_size"].help, 2),
        f"  batch_size: {{type: choice, values: [{batch // 2}, {batch}, {batch * 2}]}}",
        "training:",
        *_help(FIELDS["max_epochs"].help, 2),
        f"  max_epochs: {settings['max_epochs']:g}",
        *_help(FIELDS["max_length"].help, 2),
        f"  # max_length: {settings['max_length']}",
        *_help(FIELDS["early_stopping.patience"].help, 2),
        f"  early_stopping: {{patience: {settings['early_stopping.patience']}}}",
    ]


def _ending() -> list[str]:
    top, seeds = (_key(FINALISTS.keys, name).default for name in ("top", "seeds"))
    drop = _key(PROMOTE.keys, "max_drop")
    return [
        *_help(_key(BUDGET, "hours").help),
        "# budget: {hours: 8}",
        *_help("was it luck? the best trials and the baseline again, with fresh seeds"),
        f"# finalists: {{top: {top}, seeds: {seeds}}}",
        *_help(drop.help),
        f"# promote: {{max_drop: {drop.default}}}",
    ]


def _key(keys: Iterable[Key], name: str) -> Key:
    return next(key for key in keys if key.name == name)


def _help(text: str, indent: int = 0) -> list[str]:
    """A comment on what follows, without Markdown."""
    start = " " * indent + "# "
    return textwrap.wrap(text.replace("`", ""), 100, initial_indent=start, subsequent_indent=start)


def _scalar(text: str) -> str:
    """A text as YAML: plain where nothing else can be meant, else as JSON writes it, which is YAML too."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT
    return text if is_plain else json.dumps(text)
