"""The model card of a release, `README.md` in its folder: what it is, how good, how it was made, which licences

Its form is the hub's: front matter for programs, then sections for people. Each number is one of `hpo show --json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.config.sweep_config import SweepConfig
from hpo.release.card_sections import (
    adapters_section,
    data_section,
    how_good,
    how_searched,
    reproduce_section,
    use_section,
    variants_section,
)
from hpo.release.licences import UNKNOWN, Licence
from hpo.release.manifest import Manifest, base_name
from hpo.results.markdown import front, paragraphs, plain, table
from hpo.results.released import VariantVerdict
from hpo.results.summary import SweepSummary
from trainers.protocol.catalog import TASKS
from trainers.runtime.card import CLASSIFYING, GENERATIVE, REWRITING, SIMILARITY, Card

CARD_FILE = "README.md"
_PIPELINES: Mapping[str, str] = {
    "text-classification": "text-classification", "multi-label-classification": "text-classification",
    "token-classification": "token-classification", SIMILARITY: "sentence-similarity",
    REWRITING: "text2text-generation",
    **dict.fromkeys(GENERATIVE, "text-generation"),
}  # fmt: skip
"""Task -> the hub's name for what the model is used for, where it has one."""
_MOST_LABELS = 20
"""Named in a sentence."""


@dataclass(frozen=True)
class Licences:
    """What is known of the licences of what the release was made of."""

    base: Licence
    data: Mapping[str, Licence]
    """Split that has a source of its own -> its licence."""


@dataclass(frozen=True)
class CardFacts:
    """What a model card is made of."""

    name: str
    """Of the registered model."""
    config: SweepConfig
    summary: SweepSummary
    manifest: Manifest
    chosen: VariantVerdict
    card: Card
    """The runtime's own, in `release.json`."""
    licences: Licences


def model_card(facts: CardFacts) -> str:
    """The whole card as Markdown."""
    summary, manifest = facts.summary, facts.manifest
    lines = [
        *_front_matter(facts),
        *_what_it_is(facts),
        *_what_it_is_not(facts),
        *how_good(summary, manifest, facts.chosen),
        *variants_section(summary, facts.chosen),
        *adapters_section(manifest, facts.card),
        *how_searched(facts.config, summary),
        *data_section(manifest.data, facts.config, summary.data),
        *use_section(facts.name, facts.card),
        *reproduce_section(manifest),
        *_licences(facts),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _front_matter(facts: CardFacts) -> list[str]:
    config, model = facts.config, facts.config.model
    hub_data = sorted({source.source for source in config.data.sources().values() if source.is_hub})
    values: dict[str, Any] = {"license": _own_licence(config) or UNKNOWN}
    if base_name(model).partition(" @")[0] == model.source:  # a hub id; a folder's name would be taken for one
        values["base_model"] = model.source
    if hub_data:
        values["datasets"] = hub_data
    values["library_name"] = "onnxruntime"
    if pipeline := _PIPELINES.get(config.task):
        values["pipeline_tag"] = pipeline
    values["tags"] = ["hpo", "onnx", config.task, str(facts.manifest.training.method)]
    values["metrics"] = [facts.manifest.measured["metric"]]
    values["model-index"] = [_index(facts)]
    return front(values)


def _index(facts: CardFacts) -> dict[str, Any]:
    """The released variant's metrics, as the hub reads them: on validation, and torch's on the sealed test rows."""
    name = facts.manifest.data.sources.get("train", "")
    splits, rows = {"validation": facts.manifest.measured.get("metrics", {})}, {"validation": facts.chosen.rows}
    if test := facts.summary.test:
        splits["test"], rows["test"] = test.champion.metrics, "all"
    results = [
        {
            "task": {"type": _PIPELINES.get(facts.config.task, facts.config.task)},
            "dataset": {"name": name, "type": name, "split": split, "args": {"rows": rows[split]}},
            "metrics": [{"type": m, "value": value} for m, value in metrics.items() if math.isfinite(value)],
        }
        for split, metrics in splits.items()
    ]
    return {"name": facts.name, "results": results}


def _own_licence(config: SweepConfig) -> str | None:
    return config.promote.card.licence if config.promote else None


def _what_it_is(facts: CardFacts) -> list[str]:
    manifest, config, card = facts.manifest, facts.config, facts.card
    base = plain(manifest.base.source)
    rows, gives = manifest.data.rows.get("train", 0), TASKS[config.task].help
    lines = [
        f"# {plain(facts.name)}",
        "",
        f"{base}, fine-tuned for {config.task} with {plain(manifest.training.method)} on {rows:,} training rows, and "
        f"exported to ONNX ({_form(manifest)}). It gives: {gives[0].lower()}{gives[1:]}",
        "",
        "## Intended use",
        "",
    ]
    said = config.promote.card.intended_use if config.promote else None
    lines += paragraphs(said) if said else ["Its author has not said what it is meant for (`promote.card`).", ""]
    if card.labels:
        names = ", ".join(plain(label) for label in card.labels[:_MOST_LABELS])
        more = f" and {len(card.labels) - _MOST_LABELS:,} more" if len(card.labels) > _MOST_LABELS else ""
        lines += [f"Labels: {names}{more}.", ""]
    return lines


def _form(manifest: Manifest) -> str:
    return plain(manifest.variant) + (", its adapter beside the base" if manifest.adapters else "")


def _what_it_is_not(facts: CardFacts) -> list[str]:
    """Only what follows from what was recorded."""
    card, manifest = facts.card, facts.manifest
    rows, metric = manifest.data.rows, plain(manifest.measured["metric"])
    source = plain(manifest.data.sources.get("train", "its data"))
    known = [
        f"It has learned from {rows.get('train', 0):,} rows of {source}. Their languages, subjects and authors were "
        "not recorded: texts of other kinds were not tried."
    ]
    if card.task == "text-classification":
        known.append("Each text gets one of its labels, also a text that none of them fits.")
    if card.task in (*CLASSIFYING, SIMILARITY, REWRITING):
        known.append(f"Texts are cut at {card.max_length:,} tokens: what comes after is not read.")
    if card.task in (*GENERATIVE, REWRITING):
        known.append(f"It was judged by {metric}. Whether what it writes is true or harmless was not measured.")
    known.append("How it treats different groups of people was not measured.")
    return ["## What it is not for", "", *(f"- {line}" for line in known), ""]


def _licences(facts: CardFacts) -> list[str]:
    licences, manifest = facts.licences, facts.manifest
    rows = [["this release", facts.name, _own_licence(facts.config) or UNKNOWN]]
    rows.append(["base model", manifest.base.source, str(licences.base)])
    if manifest.base.starting_point:
        rows.append(["starting point", manifest.base.starting_point, UNKNOWN])
    rows += [[f"data: {split}", manifest.data.sources[split], str(found)] for split, found in licences.data.items()]
    return ["## Licences", "", *table(["of", "name", "licence"], rows)]
