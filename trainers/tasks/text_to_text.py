"""Text to text (summaries, translations, rewriting) with an encoder-decoder."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded, TargetKind, Tokens
from trainers.protocol.events import Finding
from trainers.tasks import columns as read
from trainers.tasks.base import Batch
from trainers.tasks.next_token import NextToken, Targets


@dataclass(frozen=True)
class Pair:
    """A row's input and output text."""

    input: str
    output: str


class TextToText(NextToken):
    """Output texts for input texts, from an encoder-decoder."""

    name = "text-to-text"
    targets: TargetKind = "sequence"

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Pair] | Finding:
        given, wanted = read.text(row, columns, "input"), read.text(row, columns, "output")
        if isinstance(given, Finding):
            return given
        if isinstance(wanted, Finding):
            return wanted
        return Keyed(Pair(given, wanted), key=(given.strip(), wanted.strip()), stratum=None)

    def input_of(self, row: Keyed[Pair]) -> Hashable:
        return row.example.input.strip()

    def check_all(self, train: Sequence[Keyed[Pair]], where: str) -> list[Finding]:
        return []

    def encode(
        self, tokenizer: Any, examples: Sequence[Pair], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        """Tokens of inputs and outputs; control tokens in a text, such as "</s>", are text."""
        how = {"truncation": True, "max_length": max_length, "split_special_tokens": True}
        inputs = tokenizer([e.input for e in examples], **how)["input_ids"]
        outputs = tokenizer(text_target=[e.output for e in examples], **how)
        encoded = []
        for ids, target_ids in zip(inputs, outputs["input_ids"], strict=True):
            text = tokenizer.decode(target_ids, skip_special_tokens=True)
            # Plus one: 0 is padding.
            encoded.append([Encoded(ids, [t + 1 for t in target_ids], target_bytes=len(text.encode()))])
        return encoded

    def lengths(self, one: Encoded, max_length: int) -> list[tuple[int, int]]:
        return [(len(one.ids), max_length), (len(one.targets), max_length)]

    def measure_row(self, example: Pair, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        return {"input": example.input, "output": example.output}

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModelForSeq2SeqLM

        model, info = AutoModelForSeq2SeqLM.from_pretrained(source, output_loading_info=True, **options)
        return model, sorted(info["missing_keys"])

    def logits(self, model: Any, batch: Batch, at_once: int) -> Iterator[Targets]:
        is_target = batch.targets > 0
        ids = batch.targets.long() - 1
        labels = torch.where(is_target, ids, -100)
        decoder_ids = model.prepare_decoder_input_ids_from_labels(labels=labels)
        logits = model(**batch.inputs, decoder_input_ids=decoder_ids).logits
        asked = logits[is_target], ids[is_target], is_target.nonzero(as_tuple=True)[0]
        return zip(*(part.split(at_once) for part in asked), strict=True)

    def compared(self, model: Any, batch: Batch) -> torch.Tensor:
        (everything,) = self.logits(model, batch, max(1, batch.targets.numel()))
        return everything[0][None]

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return len(tokens.targets(row))
