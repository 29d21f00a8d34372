"""Token classification: a tag for every word, for entities (IOB2) or plain (parts of speech).

Rows have words and their tags, or a text and its entities as spans of characters. A word's first token carries its tag;
its other tokens are ignored in training and evaluation, as in Devlin et al. (2019), section 5.3.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainers.data.formats.base import cut, names, names_of
from trainers.data.sources import Row
from trainers.data.splits import Keyed
from trainers.data.tokens import Encoded, TargetKind, Tokens
from trainers.metrics.entities import entity_counts, has_entities
from trainers.metrics.table import Rows
from trainers.protocol.counted import counted
from trainers.protocol.events import Finding
from trainers.protocol.trial_spec import DataRef
from trainers.runtime.words import first_tokens
from trainers.tasks import columns as read
from trainers.tasks.base import Batch, Settled, Sums, Task
from trainers.tasks.class_names import ClassNames, is_number
from trainers.tasks.label_names import in_order
from trainers.tasks.losses import Loss, cross_entropy
from trainers.tasks.output_layer import head_notes, head_parameters, load_with_head
from trainers.tasks.spans import SPANS, annotated, are_spans, places_and_tags
from trainers.tasks.tag_schemes import OUTSIDE, Scheme, scheme_of
from trainers.tasks.words import Place, joined

_KIND = "ForTokenClassification"


@dataclass(frozen=True)
class Sentence:
    """A row's text with the places and tags of its words."""

    text: str
    places: tuple[Place, ...]
    """The places of its words in the text."""
    tags: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The words, in order."""
        return tuple(self.text[start:end] for start, end in self.places)


class TokenClassification(Task):
    """One tag for each word of a row."""

    name = "token-classification"
    targets: TargetKind = "token"
    loss: Loss = staticmethod(cross_entropy)

    def check(self, row: Row, columns: Mapping[str, str]) -> Keyed[Sentence] | Finding:
        found = _spans(row, columns) if columns["words"] not in row.values else _tagged_words(row, columns)
        return found if isinstance(found, Finding) else _keyed(found)

    def settle(self, train: Sequence[Keyed[Sentence]], data: DataRef) -> Settled:
        """Replace tags by their names, and convert the scheme that all training rows have together."""
        classes = ClassNames(tuple(data.label_names))
        given = {tag for row in train for tag in row.example.tags}
        every = {name for tag in given if (name := classes.name(tag)) is not None}
        scheme = scheme_of(every)
        are_numbers = bool(every) and not classes.names and all(map(is_number, every))

        def settled(row: Keyed[Sentence], where: str) -> Keyed[Sentence] | Finding:
            tags: list[str] = []
            if are_numbers:
                expected = "names of tags: list them in the order of their numbers under data.label_names"
                return Finding(where, "has numbers for tags", expected)
            for tag in row.example.tags:
                name = classes.name(tag)
                if name is None:
                    return Finding(where, f"has the tag {cut(tag)!r}", classes.expected)
                if (known := scheme.read(name)) is None:
                    return Finding(where, f"has the tag {cut(name)!r}", "expected O, B-NAME or I-NAME")
                tags.append(known)
            return _keyed(replace(row.example, tags=tuple(tags)))

        return Settled(settled, _notes_on(scheme, in_order(every)))

    def check_all(self, train: Sequence[Keyed[Sentence]], where: str) -> list[Finding]:
        tags = {tag for row in train for tag in row.example.tags}
        if tags == {OUTSIDE}:
            return [Finding(where, "no word is part of an entity", "expected tags besides O")]
        return [Finding(where, f"all words have the tag {cut(tags.pop())!r}", "other tags")] if len(tags) == 1 else []

    def answer(self, example: Sentence) -> Hashable:
        return example.tags

    def labels(self, examples: Sequence[Sentence]) -> list[str]:
        return in_order(tag for example in examples for tag in example.tags)

    def encode(
        self, tokenizer: Any, examples: Sequence[Sentence], labels: Sequence[str], max_length: int
    ) -> list[list[Encoded]]:
        index = {tag: i for i, tag in enumerate(labels)}
        batch = tokenizer(
            [e.text for e in examples], truncation=True, max_length=max_length, return_offsets_mapping=True,
            split_special_tokens=True,
        )  # fmt: skip
        encoded = []
        for ids, tokens, example in zip(batch["input_ids"], batch["offset_mapping"], examples, strict=True):
            targets = [0] * len(ids)
            for word, token in first_tokens(example.places, tokens).items():
                targets[token] = index[example.tags[word]] + 1  # 0 is a token without a tag
            encoded.append([Encoded(ids, targets)] if any(targets) else [])
        return encoded

    def measure_row(self, example: Sentence, encoded: Encoded, labels: Sequence[str]) -> dict[str, Any]:
        places = [list(place) for place in example.places]
        return {"text": example.text, "words": list(example.words), "places": places, "tags": list(example.tags)}

    def load_model(self, source: str, labels: Sequence[str], **options: Any) -> tuple[torch.nn.Module, list[str]]:
        from transformers import AutoModelForTokenClassification

        return load_with_head(AutoModelForTokenClassification, source, labels, _KIND, **options)

    def head_notes(self, config: Any, labels: Sequence[str]) -> list[str]:
        return head_notes(config, labels, _KIND)

    def head_parameters(self, model: torch.nn.Module) -> list[str]:
        return head_parameters(model)

    def sums(self, model: torch.nn.Module, batch: Batch, loss: Loss) -> Sums:
        logits, targets, _ = _tag_logits(model, batch)
        return Sums(loss(logits, targets).sum(), len(targets))

    def score(self, model: torch.nn.Module, batch: Batch) -> Rows:
        logits, targets, rows = _tag_logits(model, batch)
        losses = cross_entropy(logits, targets)
        labels = [model.config.id2label[i] for i in range(logits.shape[-1])]
        return entity_counts(
            rows.cpu().numpy(), targets.cpu().numpy(), logits.argmax(dim=-1).cpu().numpy(),
            losses.double().cpu().numpy(), labels, len(batch.input_ids),
        )  # fmt: skip

    def unit_count(self, tokens: Tokens, row: int) -> int:
        return int((tokens.targets(row) > 0).sum())


def _tag_logits(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, float32 [words, tags], of the tokens that carry a tag, their tags [words], and their rows [words]."""
    is_asked = batch.targets > 0
    logits = model(**batch.inputs).logits[is_asked].float()
    return logits, batch.targets[is_asked].long() - 1, is_asked.nonzero(as_tuple=True)[0]


def _keyed(sentence: Sentence) -> Keyed[Sentence]:
    """The row with its first kind of entity as stratum: combinations would be too many strata."""
    kinds = {tag[2:] for tag in sentence.tags if tag != OUTSIDE} if has_entities(sentence.tags) else set()
    return Keyed(sentence, key=sentence.words, stratum=min(kinds, default=""))


def _notes_on(scheme: Scheme, tags: Sequence[str]) -> list[str]:
    if scheme.is_converted:
        return [f"tags are {scheme.name}: they are learned, measured and released as B- and I- (IOB2)"]
    if scheme.name or not tags:
        return []
    plain = f"tags are plain ({names(tags)}): each word counts by itself"
    return [f"{plain}, so entity_f1 is the share of words with the right tag; f1_macro is the mean over tags"]


def _tagged_words(row: Row, columns: Mapping[str, str]) -> Sentence | Finding:
    words, tags = _texts(row, columns, "words"), _texts(row, columns, "tags")
    if isinstance(words, Finding):
        return words
    if isinstance(tags, Finding):
        return tags
    if len(words) != len(tags):
        found = f"has {counted(len(words), 'word')} and {counted(len(tags), 'tag')}"
        return Finding(row.where, found, "one tag for each word")
    return Sentence(*joined(words), tags)


def _texts(row: Row, columns: Mapping[str, str], role: str) -> tuple[str, ...] | Finding:
    """A list of texts, or of numbers for tags; in a table's cell written as a list or separated by spaces."""
    value = read.column(row, columns, role)
    if isinstance(value, Finding):
        return value
    given = read.listed(value)
    given = given.split() if isinstance(given, str) else given
    found = [str(part) if role == "tags" and type(part) is int else part for part in given or ()]
    if not isinstance(given, list) or not given or not all(isinstance(part, str) and part.strip() for part in found):
        expected = "expected a list of texts, one for each word"
        return Finding(row.where, f"{columns[role]} is {read.shown(value)}", expected)
    return tuple(found)


def _spans(row: Row, columns: Mapping[str, str]) -> Sentence | Finding:
    """A text with spans of characters, from `entities` or from the column where a known tool stores them."""
    inner = row.values.get("data")
    texts = row if not isinstance(inner, dict) or columns["text"] in row.values else replace(row, values=inner)
    text = read.text(texts, columns)
    if isinstance(text, Finding):
        expected = f"words and tags, or a text with its entities; the row has: {names_of(row)}"
        return Finding(row.where, f"has no column {columns['words']!r} for data.words", expected)
    own = columns["entities"]
    values = {name: annotated(read.listed(row.values[name])) for name in (own, *SPANS) if name in row.values}
    found = [name for name, value in values.items() if name == own or value is None or are_spans(value)]
    if not found:
        return Finding(row.where, f"has no column {own!r} for data.entities", f"the row has: {names_of(row)}")
    tagged = places_and_tags(text, values[found[0]])
    if isinstance(tagged, str):
        return Finding(row.where, tagged, 'expected [{"start": 0, "end": 5, "label": "NAME"}, ...]')
    return Sentence(text, *tagged)
