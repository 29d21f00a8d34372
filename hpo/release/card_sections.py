"""Sections of a model card: numbers, search, data, use and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from hpo.config.objective import gate_of
from hpo.config.sweep_config import SweepConfig
from hpo.release.manifest import DataFacts, Manifest
from hpo.results.finalists_text import verdicts
from hpo.results.label_shares import label_table
from hpo.results.leaderboard import gain, saved_in_words
from hpo.results.markdown import code, plain, table
from hpo.results.outcome import FinalistsOutcome
from hpo.results.release_text import variants_table
from hpo.results.released import VariantVerdict
from hpo.results.summary import SweepSummary
from trainers.protocol.counted import counted
from trainers.protocol.events import PreparedData
from trainers.protocol.settings import Setting
from trainers.runtime.card import Card

_MOST_ROWS = 50
"""Of labels and of metrics that a table lists."""


def how_good(summary: SweepSummary, manifest: Manifest, chosen: VariantVerdict) -> list[str]:
    """The metrics of the training and of the released variant, with intervals, and on which rows."""
    metric, rows = summary.objective.metric, manifest.data.rows
    lines = ["## How good it is", "", *table(["what", "rows", metric, "95 % interval"], _judged(summary, manifest))]
    is_chosen = summary.champion is not None and summary.champion.number == summary.chosen_trial
    who = "chosen by a person" if is_chosen else "champion"
    lines += [f"- {plain(line, 400)}" for line in (gain(summary, who), *verdicts(summary))]
    if summary.finalists is None:
        lines.append("- It was trained with one seed, and the same rows chose it and judge it: no interval is known.")
    champion, measured = summary.champion, chosen.measurement
    found = champion.metrics if champion else {}
    test = summary.test.champion.metrics if summary.test else {}
    variant = measured.metrics if measured else {}
    names = list(dict.fromkeys([*found, *variant]))
    columns = ["metric", "as trained, validation", f"{chosen.variant}, validation"]
    columns += ["as trained, test"] * bool(test)
    body = [
        [name, _number(found, name), _number(variant, name), *([_number(test, name)] if test else [])]
        for name in names[:_MOST_ROWS]
    ]
    of = f"all {rows.get('validation', 0):,}" if chosen.rows == "all" else chosen.rows
    more = [f"And {len(names) - _MOST_ROWS:,} more metrics in `hpo show --json`.", ""] * (len(names) > _MOST_ROWS)
    measured_on = f"{plain(chosen.variant)} was measured on {of} validation rows."
    return [*lines, "", *table(columns, body), *more, measured_on, ""]


def _judged(summary: SweepSummary, manifest: Manifest) -> list[list[str]]:
    """The objective: as the search saw it, as the finalists confirmed it, and on the sealed test rows."""
    rows, cells = manifest.data.rows, []
    if champion := summary.champion:
        cells.append(["this training", f"validation, {rows.get('validation', 0):,}", f"{champion.value:.4f}", "-"])
        cells += _confirmed(summary.finalists, champion.number)
    if test := summary.test:
        found = test.champion.interval
        interval = f"{found.low:.4f} to {found.high:.4f}"
        cells.append(["sealed test", f"test, {rows.get('test', 0):,}", f"{found.mean:.4f}", interval])
    return cells


def _confirmed(finalists: FinalistsOutcome | None, champion: int) -> list[list[str]]:
    """The champion's mean over seeds, on the rows that certify."""
    found = finalists.of(champion).interval if finalists and finalists.champion == champion else None
    if finalists is None or found is None:
        return []
    rows = f"validation, {finalists.race.certifying:,}" if finalists.race else "validation"
    seeds = len(finalists.of(champion).repeats)
    return [[f"mean of {counted(seeds, 'seed')}", rows, f"{found.mean:.4f}", f"{found.low:.4f} to {found.high:.4f}"]]


def _number(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else "-"


def variants_section(summary: SweepSummary, chosen: VariantVerdict) -> list[str]:
    """Every ONNX variant with its numbers, and why this one was released."""
    lines = ["## ONNX variants", ""]
    if summary.torch:
        metric = gate_of(summary.task, summary.objective).metric
        lines += table(*variants_table(summary.torch, summary.variants, metric))
    lines += [f"- {plain(v.variant)}, {v.word}: {plain(v.why, 400)}" for v in summary.variants]
    return [*lines, "", f"Released: {plain(chosen.variant)}. Times are of the machine that released it.", ""]


def adapters_section(manifest: Manifest, card: Card) -> list[str]:
    """The adapters beside the base, where there are any: trials, their values, and who answers what names none."""
    if not manifest.adapters:
        return []
    metric = manifest.training.metric
    body = [
        [name, str(of["trial"]), _number(of, metric), f"{of['difference']:.1g}", of["sha256"]["adapter"][:12]]
        for name, of in manifest.adapters.items()
    ]
    columns = ["adapter", "trial", f"{metric}, validation", "difference from merged", "SHA-256 begins with"]
    return [
        "## Adapters on one base", "", *table(columns, body),
        f"{plain(card.champion)} answers inputs that name no adapter, and is what was measured above. The others are "
        "called by their names; each was compared with its merged model alone.", "",
    ]  # fmt: skip


def how_searched(config: SweepConfig, summary: SweepSummary) -> list[str]:
    """Space, strategy, trials and budget of the sweep, and what it chose."""
    states = [trial.state for trial in summary.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    strategy = summary.strategy
    by = f" by {plain(strategy.type)} ({plain(strategy.why, 200)})" if strategy else ""
    metric, seed = plain(summary.objective.metric), config.seed
    train_rows = summary.data.rows["train"] if summary.data else 0
    lines = [
        "## How it was searched",
        "",
        f"Sweep `{config.name}`{by}: {counted(len(states), 'trial')} ({counts}), to {config.objective.direction} "
        f"{metric}. A trial has {config.largest_budget_examples(train_rows):,} training examples at most; seed {seed}.",
        "",
    ]
    baseline = summary.baseline.params if summary.baseline else {}
    chosen = summary.champion.params if summary.champion else {}
    space = config.space.resolved()
    if space:
        body = [[name, _range(d), _of(baseline, name), _of(chosen, name)] for name, d in space.items()]
        lines += table(["setting", "searched", "baseline", "chosen"], body)
    bounds = {name: value for name, value in config.resolved()["budget"].items() if value is not None}
    if bounds:
        lines += ["Budget: " + ", ".join(f"{plain(name)} {plain(value)}" for name, value in bounds.items()) + ".", ""]
    said = [*saved_in_words(summary.savings)]
    if summary.search_ended_by:
        said.append(f"the search ended by: {summary.search_ended_by}")
    return [*lines, *(f"- {plain(line, 400)}" for line in said), ""]


def _range(dimension: Mapping[str, Any]) -> str:
    if "values" in dimension:
        return ", ".join(_cell(value) for value in dimension["values"])
    log = ", log" if dimension.get("log") else ""
    return f"{_cell(dimension['low'])} to {_cell(dimension['high'])}{log}"


def _of(params: Mapping[str, Setting], name: str) -> str:
    """A setting of a point; `-` where the point does not have it."""
    return _cell(params[name]) if name in params else "-"


def _cell(value: object) -> str:
    return "null" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def data_section(data: DataFacts, config: SweepConfig, prepared: PreparedData | None) -> list[str]:
    """Sources and sizes of the splits, shares of the labels, and what was noted of the rows."""
    rows = [
        [split, data.sources.get(split, "cut from train"), f"{count:,}", data.sha256.get(split, "")[:12] or "-"]
        for split, count in data.rows.items()
    ]
    lines = ["## Data", "", *table(["split", "source", "rows", "SHA-256 begins with"], rows)]
    lines += _label_shares(data, config.task)
    dropped = f"{counted(data.duplicates, 'duplicate row')} dropped"  # a note says it too, where there are any
    notes = [note for note in (prepared.notes if prepared else []) if note != dropped]
    said = [f"rows were cut with seed {config.data.seed}", dropped, *notes]
    return [*lines, *(f"- {plain(note, 400)}" for note in said), ""]


def _label_shares(data: DataFacts, task: str) -> list[str]:
    """How many rows (for tags: words) have each label, and which share of them."""
    columns, body, count = label_table(task, data.rows, data.labels, _MOST_ROWS)
    more = [f"And {count - _MOST_ROWS:,} more labels.", ""] * (count > _MOST_ROWS)
    return [*table(columns, body), *more] if body else []


def use_section(name: str, card: Card) -> list[str]:
    """Three ways to ask it, each with an example of an input."""
    example = shlex.quote(card.example)
    python = "\n".join([
        "import mlflow",
        'mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")  # of the home that has it',
        f'mlflow.pyfunc.load_model("models:/{name}/VERSION").predict([{card.example!r}])',
    ])  # fmt: skip
    return [
        "## How to use it", "",
        "In this folder, with numpy, tokenizers and onnxruntime (for a chat template jinja2 too):", "",
        *code(f"python -m runtime {example}", "sh"),
        f"From MLflow's registry, with the number of this version (`hpo releases {name}` shows it):", "",
        *code(python, "python"),
        "Over HTTP, with the path of this folder or the registered name, whose champion it serves:", "",
        *code(f"hpo serve {name}", "sh"),
    ]  # fmt: skip


def reproduce_section(manifest: Manifest) -> list[str]:
    """The command that trains it again, and what its numbers depend on."""
    training, environment = manifest.training, manifest.environment()
    facts = {
        "seed": str(training.seed),
        "threads": str(training.threads),
        "devices": ", ".join(training.devices),
        "precision": training.precision,
        "micro-batch halved": str(training.micro_batch_halvings),
        "git commit at the release": training.git_commit or "-",
    }
    if environment:
        gpus = ", ".join(environment.gpus) or "-"
        facts |= {"Python": environment.python, "CPU": environment.cpu or "-", "GPU": gpus, **environment.packages}
    hashes = {f"SHA-256 of {name}": value for name, value in manifest.sha256.items()}
    return [
        "## How to reproduce it", "",
        "In the home that trained it; `manifest.json` has the hash of every file.", "",
        *code(f"hpo reproduce '{manifest.run}'", "sh"),
        *table(["fact", "value"], [[name, value] for name, value in {**facts, **hashes}.items()]),
    ]  # fmt: skip
