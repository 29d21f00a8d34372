"""Tags for the words of a text, and the entities that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .encoder import Encoder, Reading
from .scores import Floats, log_softmax
from .words import Place, entities, first_tokens, words_of


class Tagger(Encoder):
    """A model of token-classification."""

    @property
    def tokens_per_batch(self) -> int:
        return 0

    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None, first: int = 0) -> list[dict[str, Any]]:
        return [self._answered_alone(*words_of(given)) for given in inputs]

    def _readings(self, inputs: Sequence[Any]) -> list[Reading]:
        words = [words_of(given) for given in inputs]
        return [Reading(given, [self.tokenizer.encode(given[0])]) for given in words]

    def answered(self, batch: Sequence[Reading]) -> list[dict[str, Any]]:
        return [self._answered_alone(*reading.given) for reading in batch]

    def _answered_alone(self, text: str, places: Sequence[Place]) -> dict[str, Any]:
        """A text without words is not for the model: it may have no tokens either."""
        logits, firsts = self.word_logits(text, places) if places else (np.zeros((0, 0), dtype=np.float32), {})
        return self._tagged(text, places, logits, firsts)

    def answer(self, reading: Reading, outputs: Sequence[Floats]) -> dict[str, Any]:
        text, places = reading.given
        return self._tagged(text, places, outputs[0], first_tokens(places, reading.encodings[0].offsets))

    def word_logits(self, text: str, places: Sequence[Place]) -> tuple[Floats, dict[int, int]]:
        """Logits of every token, float32 [tokens, tags], and a mapping from a word's index to the token with its tag.

        `places` are the words, in order. A word has no token where it lies beyond `max_length`, the tokenizer leaves
        out its characters, or it shares its only token with the word before.
        """
        encoding = self.tokenizer.encode(text)
        return self.output_of([encoding])[0], first_tokens(places, encoding.offsets)

    def _tagged(
        self, text: str, places: Sequence[Place], logits: Floats, firsts: Mapping[int, int]
    ) -> dict[str, Any]:  # fmt: skip
        """The entities of a text, or the tag of each word where tags are plain; see `word_logits`."""
        labels = self.card.labels
        words: list[dict[str, Any]] = []
        for number, token in firsts.items():
            (start, end), row = places[number], np.exp(log_softmax(logits[token]))
            tag, score = labels[int(row.argmax())], float(row.max())
            words.append({"tag": tag, "text": text[start:end], "start": start, "end": end, "score": score})
        is_plain = any(label != "O" and label[:2] not in ("B-", "I-") for label in labels)
        return {"tags": words} if is_plain else {"entities": entities(text, words)}
