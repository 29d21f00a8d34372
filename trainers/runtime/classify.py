"""Labels or numbers for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from .encoder import Encoder, Reading, batches
from .inputs import parts_of
from .scores import Floats, log_softmax, sigmoid

Text: TypeAlias = str | tuple[str, str]
"""An input of a classifier: a text, or a pair of texts."""


class Classifier(Encoder):
    """A model of text-classification, multi-label-classification or regression."""

    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None, first: int = 0) -> list[dict[str, Any]]:
        return [self._verdict(row) for row in self.row_logits(self._texts(inputs, first))]

    def _readings(self, inputs: Sequence[Any]) -> list[Reading]:
        texts = self._texts(inputs)
        encodings = self.tokenizer.encode_batch(texts)
        return [Reading(text, [encoding]) for text, encoding in zip(texts, encodings, strict=True)]

    def answer(self, reading: Reading, outputs: Sequence[Floats]) -> dict[str, Any]:
        return self._verdict(outputs[0])

    def row_logits(self, texts: Sequence[Text]) -> Floats:
        """Logits of texts, float32 [texts, labels] ([texts, 1] without labels), in the order given.

        Texts of similar length share a batch, see `tokens_per_batch`.
        """
        encodings = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids))
        logits = np.zeros((len(encodings), max(1, len(self.card.labels))), dtype=np.float32)
        for batch in batches(order, lambda i: len(encodings[i].ids), self.tokens_per_batch):
            logits[batch] = self.output_of([encodings[i] for i in batch])
        return logits

    def _texts(self, inputs: Sequence[Any], first: int = 0) -> list[Text]:
        return [_text(parts_of(given, f"input {index}", self.card)) for index, given in enumerate(inputs, first)]

    def _verdict(self, logits: Floats) -> dict[str, Any]:
        labels = self.card.labels
        if self.card.task == "regression":
            return {"value": float(logits[0])}
        if self.card.task == "multi-label-classification":
            scores = dict(zip(labels, sigmoid(logits).tolist(), strict=True))
            return {"labels": [label for label, score in scores.items() if score > 0.5], "scores": scores}
        probabilities = np.exp(log_softmax(logits))
        best = int(probabilities.argmax())
        scores = dict(zip(labels, probabilities.tolist(), strict=True))
        return {"label": labels[best], "score": scores[labels[best]], "scores": scores}


def _text(parts: Mapping[str, str]) -> Text:
    first, *second = parts.values()
    return (first, second[0]) if second else first
