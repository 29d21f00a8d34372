"""Text classification: one label for a text, by a new head on an encoder or decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from trainers.metrics.table import Rows
from trainers.sources import Row
from trainers.spec import Finding
from trainers.splits import Keyed
from trainers.tasks.base import Batch, Sums
from trainers.tokens import Encoded, Tokens


@dataclass(frozen=True)
class Example:
    text: str
    label: str


class TextClassification:
    name = "text-classification"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Example] | Finding:
        text, label = row.values.get(columns["text"]), row.values.get(columns["label"])
        for role in ("text", "label"):
            if columns[role] not in row.values:
                has = ", ".join(row.values) or "nothing"
                return Finding(row.where, f"has no column {columns[role]!r} for data.{role}", f"the row has: {has}")
        if not isinstance(text, str) or not text.strip():
            return Finding(row.where, f"{columns['text']} is {text!r}", "expected text")
        if isinstance(label, bool) or not isinstance(label, (str, int)) or not str(label).strip():
            return Finding(row.where, f"{columns['label']} is {label!r}", "expected a label: text or a whole number")
        label = str(label).strip()
        return Keyed(Example(text, label), key=text.strip(), stratum=label)

    def check_all(self, train: Sequence[Keyed[Example]], where: str) -> list[Finding]:
        found = sorted({row.example.label for row in train})
        if len(found) < 2:
            return [Finding(where, f"all rows have the label {found[0]!r}", "expected at least two labels")]
        return []

    def labels(self, examples: Sequence[Example]) -> list[str]:
        return sorted({example.label for example in examples})

    def encode(
        self, tokenizer: Any, examples: Sequence[Example], labels: Sequence[str], max_length: int
    ) -> list[Encoded | None]:
        index = {label: i for i, label in enumerate(labels)}
        ids = tokenizer([e.text for e in examples], truncation=True, max_length=max_length)["input_ids"]
        return [Encoded(row, [index[e.label]]) for row, e in zip(ids, examples, strict=True)]

    def measure_row(self, example: Example, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {"text": example.text, "label": encoded.targets[0]}

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModelForSequenceClassification

        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
            output_loading_info=True,
            **options,
        )
        return model, sorted(info["missing_keys"])

    def sums(self, model: torch.nn.Module, batch: Batch) -> Sums:
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return Sums(F.cross_entropy(logits.float(), batch.targets, reduction="sum"), len(batch.targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        columns = torch.stack([batch.targets.double(), logits.argmax(dim=-1).double(), losses.double()], dim=1)
        rows: Rows = columns.cpu().numpy()
        return rows

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return 1
