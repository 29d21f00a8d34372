"""A released model: texts in; labels, scores or answers out.

This file is copied into every release folder and is all the code a release needs: it imports the standard
library, numpy, tokenizers and onnxruntime, and jinja2 when a chat template is rendered. The folder holds

    model.onnx, model.onnx.data   the graph and its weights
    tokenizer.json                the tokenizer; where texts are judged truncation is set in it
    release.json                  everything else (`Card`)
    runtime.py                    this file: `python runtime.py "a text"` prints one line of JSON per argument
"""

# No `from __future__ import annotations`: dataclasses then look their module up in sys.modules, where it is not when
# a release's runtime.py is loaded by path.

import contextlib
import itertools
import json
import math
import os
import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, pre_tokenizers

if TYPE_CHECKING:
    import onnxruntime as ort  # elsewhere late: it starts a thread, and training borrows from this file without it

FORMAT_VERSION = 1
CLASSIFYING = ("text-classification", "multi-label-classification", "regression", "token-classification")
"""Tasks whose models say something about a text, or about two."""
GENERATIVE = ("chat", "instruct", "causal-lm")
"""Tasks whose models write."""

Floats: TypeAlias = npt.NDArray[np.float32]
Message: TypeAlias = Mapping[str, Any]
Chat: TypeAlias = str | Sequence[Message] | Mapping[str, Any]
"""A user's text, messages, or both messages and tools: {"messages": [...], "tools": [...]}."""
Input: TypeAlias = str | Sequence[Message] | Mapping[str, Any]
Tools: TypeAlias = Sequence[Mapping[str, Any]] | None
Text: TypeAlias = str | tuple[str, str]
"""What is judged: a text, or a pair."""
Place: TypeAlias = tuple[int, int]
"""Where a word or a token begins and ends in its text, in characters."""

# Padding of a batch is wasted work, and activations that leave the cache cost more than batching gains: beyond
# this many tokens a batch was slower per text than one text at a time (MiniLM, 2 cores).
_TOKENS_PER_BATCH = 512
# The logits of a chunk are the largest array of a chat model: 256 x 49,152 float32 are 50 MB.
_TOKENS_PER_CHUNK = 256

# Inputs a graph may ask for; those of one that judges, with the attribute of an encoding that fills them.
_JUDGING_INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
_DECODER_INPUTS = ("input_ids", "attention_mask", "position_ids")
# As training cuts a text with spans into words.
_WORD = re.compile(r"\w+|[^\w\s]")
_PAST, _PRESENT = "past_key_values.", "present."


class ReleaseError(Exception):
    """The folder holds no release that this runtime can serve. The message names the folder and what is wrong;
    what helps is to promote the model again."""


class SequenceScore(NamedTuple):
    """What a language model makes of one sequence, over its target tokens."""

    nll: float
    """Sum of the negative log-likelihoods, in nats."""
    tokens: int
    hits: int
    """Target tokens that were the model's first choice."""


@dataclass(frozen=True)
class Card:
    """`release.json`: what the runtime has to know beside the graph and the tokenizer."""

    task: str
    variant: str
    labels: tuple[str, ...]
    """In the order of the logits; empty where there are none."""
    max_length: int
    """Tokens: where a text is cut, or the context window of a model that writes, prompt and answer together."""
    pad_token_id: int
    eos_token_ids: tuple[int, ...] = ()
    chat_template: str | None = None
    template_tokens: Mapping[str, Any] = field(default_factory=dict)
    """Special tokens by name (`bos_token`, `eos_token`, ...), as the chat template reads them."""
    generation: Mapping[str, Any] = field(default_factory=lambda: {"strategy": "greedy", "max_new_tokens": 64})
    columns: tuple[str, ...] = ("text",)
    """The parts of an input, where there are several: a pair's, or those that the prompt is made of."""
    prompt_template: str | None = None
    """The text before an answer, with columns in braces."""
    after_answer: str = ""
    """What the template has after an answer, up to the next column; none of it is the answer."""
    is_followed: bool = False
    """Whether there is a next column."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Size in bytes of every other file, to notice a copy that was cut short."""
    format_version: int = FORMAT_VERSION

    @property
    def example(self) -> str:
        """An input that the model takes, as text."""
        return "some text" if len(self.columns) <= 1 else json.dumps(dict.fromkeys(self.columns, "some text"))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises `ReleaseError` where `release.json` is missing, no JSON, of another format, or a file is cut."""
        path = folder / "release.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format_version"] != FORMAT_VERSION:
                raise ReleaseError(
                    f"{path}: format {data['format_version']}, this runtime reads format {FORMAT_VERSION}"
                )
            values = {f.name: data[f.name] for f in fields(cls) if f.name in data}  # older cards have fewer
            values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            card = cls(**values)
        except FileNotFoundError:
            raise ReleaseError(f"{folder} is not a release: it has no release.json") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        if card.task not in (known := (*CLASSIFYING, *GENERATIVE)):
            raise ReleaseError(f"{path}: task {card.task!r}, expected one of {', '.join(known)}")
        for name, size in card.files.items():
            found = (folder / name).stat().st_size if (folder / name).is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes instead of {size}"
                raise ReleaseError(f"{folder / name} {state}: the release is damaged")
        return card


class Release:
    """A loaded release. Safe to share between threads: nothing in it changes after loading."""

    def __init__(self, card: Card, tokenizer: Tokenizer, session: "ort.InferenceSession") -> None:
        self.card = card
        self.tokenizer = tokenizer
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]

    @classmethod
    def load(cls, folder: str | Path, threads: int | None = None) -> Self:
        """Load a release folder; `threads` is the number of cores to compute on, all of ours by default.

        Raises `ReleaseError` where the folder is missing, incomplete, damaged or inconsistent.
        """
        import onnxruntime as ort

        folder = Path(folder)
        card = Card.read(folder)
        options = ort.SessionOptions()
        # A number is always given: left to itself onnxruntime counts the machine's cores, not the container's.
        options.intra_op_num_threads = threads or len(_usable_cores())
        # Threads that wait in a busy loop answered twice as slowly as soon as another process wanted the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # An x86 CPU without VNNI adds the products of uint8 and int8 in 16 bits, where they overflow: the same int8
        # release then answered differently on another machine. This takes kernels that do not, on such CPUs only.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 4  # errors come as exceptions, there is no need to print them as well
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        except Exception as error:  # both libraries raise direct children of Exception
            raise ReleaseError(f"{folder} cannot be loaded: {error}") from error
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = card.task in CLASSIFYING  # what is judged is text, "[SEP]" in it too
        problem = _misfit(card, session)
        if problem:
            raise ReleaseError(f"{folder / 'model.onnx'} {problem}")
        return cls(card, tokenizer, session)

    def predict(self, inputs: Sequence[Input], max_new_tokens: int | None = None) -> list[dict[str, Any]]:
        """Answer each input, in order. An input is a text, or for a card with several `columns` a mapping of them to
        texts; for token-classification also a list of words; for chat also a list of {"role", "content"}, or
        {"messages": that list, "tools": [...]}. All of them may be given as JSON.

        text-classification gives {"label", "score", "scores": {label: probability}}, multi-label-classification
        {"labels", "scores"}, regression {"value"}, token-classification {"entities"}, each {"label", "text", "start",
        "end", "score"} (its least sure word's), or with plain tags {"tags"}, each word's {"tag", "text", "start",
        "end", "score"}; all others {"text"}, decoded greedily.
        Raises `ValueError` for an input the task does not take, before anything is computed.
        """
        if isinstance(inputs, str):
            raise ValueError("predict takes a list of inputs, got one text")
        inputs = [_read(given, f"input {index}", self.card.task) for index, given in enumerate(inputs)]
        if self.card.task == "token-classification":
            return [self._tagged(*words) for words in [_words(given) for given in inputs]]
        if self.card.task == "chat":
            prompts = [self.prompt_ids(chat, max_new_tokens) for chat in inputs]
        else:
            parts = [self._parts(given, f"input {index}") for index, given in enumerate(inputs)]
            if self.card.task in CLASSIFYING:
                return [self._verdict(row) for row in self.row_logits([_text(given) for given in parts])]
            prompts = [self.continued_ids(self._prompt(given), max_new_tokens) for given in parts]
        return [{"text": self._decoded(ids, list(self.generate(ids, max_new_tokens)))} for ids in prompts]

    def _parts(self, given: object, where: str) -> dict[str, str]:
        """An input's text for each of the card's columns."""
        columns = self.card.columns
        if isinstance(given, str):
            if len(columns) <= 1:
                return dict.fromkeys(columns, given)
            given = _parsed(given)
        wanted = "a text" if len(columns) <= 1 else f"texts for {', '.join(columns)}, as a mapping or its JSON"
        if not isinstance(given, Mapping):
            raise ValueError(f"{where}: expected {wanted}, got {type(given).__name__}")
        fills_template = self.card.prompt_template is not None
        read: dict[str, Any] = {name: given.get(name) for name in columns}
        read = {name: as_text(value) for name, value in read.items()} if fills_template else read
        texts = {name: value for name, value in read.items() if isinstance(value, str)}
        if wrong := [name for name in columns if name not in texts]:
            raise ValueError(f"{where}: expected {wanted}; {', '.join(wrong)} is no text")
        if fills_template and columns and not any(text.strip() for text in texts.values()):
            raise ValueError(f"{where}: expected {wanted}; nothing is in {' or '.join(columns)}")
        return texts

    # --- judging: a verdict on a text ------------------------------------------------------------------

    def row_logits(self, texts: Sequence[Text]) -> Floats:
        """Logits, shape [texts, labels] (one column without labels), in the order given; computed in batches of
        similar length.

        A dynamically quantized graph scales activations over the whole batch, so a text would be judged by its
        neighbours too: there each text is a batch of its own.
        """
        limit = 0 if self.card.variant == "int8" else _TOKENS_PER_BATCH
        encodings = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids))
        logits = np.zeros((len(encodings), max(1, len(self.card.labels))), dtype=np.float32)
        for batch in _batches(order, lambda i: len(encodings[i].ids), limit):
            logits[batch] = self._session.run(["logits"], self._padded([encodings[i] for i in batch]))[0]
        return logits

    def _padded(self, encodings: Sequence[Any]) -> dict[str, npt.NDArray[np.int64]]:
        """The inputs the graph asks for, each of shape [texts, longest]."""
        width = max(1, *(len(encoding.ids) for encoding in encodings))
        feed = {}
        for name in self._inputs:
            padding = self.card.pad_token_id if name == "input_ids" else 0
            feed[name] = np.full((len(encodings), width), padding, dtype=np.int64)
            for row, encoding in zip(feed[name], encodings, strict=True):
                values = getattr(encoding, _JUDGING_INPUTS[name])
                row[: len(values)] = values
        return feed

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

    def word_logits(self, text: str, places: Sequence[Place]) -> tuple[Floats, dict[int, int]]:
        """Logits of every token of a text, shape [tokens, tags], and by a word's number the token that carries its tag.

        `places` are the words, in order. Words beyond `max_length`, of characters that the tokenizer leaves out, or
        that share their only token with the word before, have no token.
        """
        encoding = self.tokenizer.encode(text)
        logits: Floats = self._session.run(["logits"], self._padded([encoding]))[0][0]
        return logits, first_tokens(places, encoding.offsets)

    def _tagged(self, text: str, places: Sequence[Place]) -> dict[str, Any]:
        """The entities of a text, or of plain tags each word's."""
        labels = self.card.labels
        words: list[dict[str, Any]] = []
        if places:
            logits, firsts = self.word_logits(text, places)
            probabilities = np.exp(log_softmax(logits))
            for number, token in firsts.items():
                (start, end), row = places[number], probabilities[token]
                tag, score = labels[int(row.argmax())], float(row.max())
                words.append({"tag": tag, "text": text[start:end], "start": start, "end": end, "score": score})
        is_plain = any(label != "O" and label[:2] not in ("B-", "I-") for label in labels)
        return {"tags": words} if is_plain else {"entities": _entities(text, words)}

    # --- writing: chats, answers to a prompt, continuations --------------------------------------------

    def prompt_ids(self, chat: Chat, max_new_tokens: int | None = None) -> list[int]:
        """Token ids of a chat, up to where the answer begins, cut so that the answer still fits.

        What is cut, in this order: the oldest turns (never the system message), then the system message if it
        takes more than half of the room, then the beginning of the last user turn.
        Raises `ValueError` for a chat that is malformed or that the template refuses.
        """
        room = self.card.max_length - self._max_new_tokens(max_new_tokens)
        if self.card.chat_template is None:
            if not isinstance(chat, str):
                raise ValueError("this model has no chat template: give the prompt as one text")
            return self.continued_ids(chat, max_new_tokens)
        messages, tools = _checked([{"role": "user", "content": chat}] if isinstance(chat, str) else chat)
        while len(ids := self._rendered(messages, tools)) > room:
            shorter = _without_oldest_turn(messages)
            if shorter is None:
                return self._cut_last_turn(messages, tools, room)
            messages = shorter
        return ids

    def continued_ids(self, prompt: str, max_new_tokens: int | None = None) -> list[int]:
        """Token ids of a text to go on from: its end, as far as an answer leaves room for it.

        What the tokenizer puts before a text stays, what it puts after one does not; plain text is trained without
        either. Raises `ValueError` for a text without tokens.
        """
        (encoding,) = self._control_tokens.encode([prompt], add_special_tokens=self.card.task != "causal-lm")
        own = [index for index, is_added in enumerate(encoding.is_added) if not is_added]
        begin = encoding.ids[: own[0]] if own else encoding.ids[:1]
        if not own and (not begin or begin[0] in self.card.eos_token_ids):
            raise ValueError("a text to go on from has at least one token, got none")
        ids = encoding.ids[own[0] : own[-1] + 1] if own else []
        room = self.card.max_length - self._max_new_tokens(max_new_tokens) - len(begin)
        return [*begin, *ids[-room:]]

    def _prompt(self, parts: Mapping[str, str]) -> str:
        """The last blank of a prompt belongs to the answer, as training has it; control tokens are the template's."""
        if self.card.prompt_template is None:
            return parts[self.card.columns[0]]
        filled = ""
        for literal, name, *_ in string.Formatter().parse(self.card.prompt_template):
            filled += literal + ("" if name is None else self._control_tokens.apart(parts[name]))
        return filled.rstrip(" ")

    def generate(self, prompt_ids: Sequence[int], max_new_tokens: int | None = None) -> Iterator[int]:
        """The answer's token ids, greedily, one by one as they are found; ends before an end-of-text token."""
        for token in self.greedy_tokens(prompt_ids, self._max_new_tokens(max_new_tokens)):
            if token in self.card.eos_token_ids:
                return
            yield token

    def greedy_tokens(self, prompt_ids: Sequence[int], count: int) -> Iterator[int]:
        """The `count` most likely next tokens, each given those before it, end-of-text tokens like any other.

        Raises `ValueError` where they do not fit behind the prompt; `prompt_ids()` always leaves the room.
        """
        if not 0 < len(prompt_ids) <= self.card.max_length - count:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens and an answer of {count} do not fit into the model's "
                f"{self.card.max_length}"
            )
        cache = _Cache(self._session, len(prompt_ids) + count)
        chunk = list(prompt_ids)
        for _ in range(count):
            token = -1
            for logits in cache.feed(chunk):
                token = int(logits[-1].argmax())
            yield token
            chunk = [token]

    def token_logits(self, input_ids: Sequence[int]) -> Floats:
        """Logits of one sequence, shape [tokens, vocabulary]: row i predicts token i + 1."""
        return np.concatenate(list(_Cache(self._session, len(input_ids)).feed(input_ids)))

    def sequence_nll(self, input_ids: Sequence[int], loss_mask: Sequence[int]) -> SequenceScore:
        """Score one sequence where `loss_mask` is 1: token i is a target when `loss_mask[i]` is 1, and is
        predicted from the tokens before it (so the first token never counts)."""
        nll, hits, start = 0.0, 0, 0
        targets = np.asarray(input_ids[1:], dtype=np.int64)
        wanted = np.asarray(loss_mask[1:], dtype=bool)
        for logits in _Cache(self._session, len(input_ids)).feed(input_ids):
            rows = np.flatnonzero(wanted[start : start + len(logits)])
            ids = targets[start + rows]
            nll -= float(log_softmax(logits[rows])[np.arange(len(rows)), ids].sum())
            hits += int((logits[rows].argmax(axis=-1) == ids).sum())
            start += len(logits)
        return SequenceScore(nll, int(wanted.sum()), hits)

    def _max_new_tokens(self, wanted: int | None) -> int:
        """At most half of the context, so that a prompt always has the other half."""
        wanted = self.card.generation["max_new_tokens"] if wanted is None else wanted
        if wanted < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {wanted}")
        return int(min(wanted, self.card.max_length // 2))

    def _decoded(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
        if self.card.task == "causal-lm":  # whether a blank comes first shows behind the prompt only
            before = self.tokenizer.decode(list(prompt_ids), skip_special_tokens=True)
            return str(self.tokenizer.decode([*prompt_ids, *ids], skip_special_tokens=True))[len(before) :]
        if self.card.prompt_template is None:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=False))
        after = self.card.after_answer
        if self.card.is_followed:
            text = text.partition(after)[0] if after else text
        else:
            text = text.rstrip().removesuffix(after.rstrip())
        for token in self.tokenizer.get_added_tokens_decoder().values():
            text = text.replace(token.content, "") if token.special else text
        return text.strip()

    def _rendered(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        apart = self._control_tokens
        text = self._template.render(apart.in_messages(messages), apart.apart(tools), asks=True)
        return apart.encode([text], add_special_tokens=False)[0].ids

    @cached_property
    def _template(self) -> "ChatTemplate":
        return ChatTemplate(self.card.chat_template or "", self.card.template_tokens)

    @cached_property
    def _control_tokens(self) -> "ControlTokens":
        return ControlTokens(self.tokenizer, self.card.chat_template or template_text(self.card.prompt_template or ""))

    def _cut_last_turn(self, messages: list[Message], tools: Tools, room: int) -> list[int]:
        """The last user turn without its beginning: the end of a question says more than its start."""
        *before, last = messages
        if before and len(self._rendered([*before, {**last, "content": ""}], tools)) > room // 2:
            before = []
        text = last["content"]
        while len(ids := self._rendered([*before, {**last, "content": text}], tools)) > room:
            offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
            excess = len(ids) - room
            if excess >= len(offsets):
                raise ValueError(f"the chat template alone does not fit into {room} tokens")
            text = text[max(1, offsets[excess][0]) :]
        return ids


class _Cache:
    """Keys and values of one sequence. Past and present are bound to the same buffers, sized for the whole
    sequence: the attention operator then writes in place, where a growing cache is copied for every token."""

    def __init__(self, session: "ort.InferenceSession", capacity: int) -> None:
        import onnxruntime as ort

        self._session = session
        self._length = 0
        self._binding = session.io_binding()
        self._wants = {value.name for value in session.get_inputs()}
        self._binding.bind_output("logits", "cpu")  # bound first: `get_outputs` keeps this order
        for value in session.get_inputs():
            if value.name.startswith(_PAST):
                shape = (1, value.shape[1], capacity, value.shape[3])
                buffer = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32))
                self._binding.bind_ortvalue_input(value.name, buffer)
                self._binding.bind_ortvalue_output(value.name.replace(_PAST, _PRESENT), buffer)

    def feed(self, ids: Sequence[int]) -> Iterator[Floats]:
        """Append tokens; yields their logits in chunks, each of shape [tokens, vocabulary]."""
        for start in range(0, len(ids), _TOKENS_PER_CHUNK):
            chunk = np.asarray([ids[start : start + _TOKENS_PER_CHUNK]], dtype=np.int64)
            length = self._length + chunk.shape[1]
            feed = {
                "input_ids": chunk,
                "attention_mask": np.ones((1, length), dtype=np.int64),
                "position_ids": np.arange(self._length, length, dtype=np.int64)[None],
            }
            for name in feed.keys() & self._wants:
                self._binding.bind_cpu_input(name, feed[name])
            self._binding.bind_output("logits", "cpu")
            self._session.run_with_iobinding(self._binding)
            self._length = length
            yield self._binding.get_outputs()[0].numpy()[0]


def _misfit(card: Card, session: "ort.InferenceSession") -> str | None:
    """Why this graph cannot serve the card's task, in words that follow the file's name; None when it can."""
    outputs = {value.name: value.shape for value in session.get_outputs()}
    if "logits" not in outputs:
        return f"has no output 'logits', only {', '.join(outputs)}"
    if card.task in CLASSIFYING:
        strangers = [value.name for value in session.get_inputs() if value.name not in _JUDGING_INPUTS]
        if outputs["logits"][-1] != max(1, len(card.labels)):
            return f"gives logits of shape {outputs['logits']}, but there are {len(card.labels)} labels"
    else:
        past = [value for value in session.get_inputs() if value.name.startswith(_PAST)]
        known = [value.name for value in past if value.type == "tensor(float)" and isinstance(value.shape[3], int)]
        strangers = [v.name for v in session.get_inputs() if v.name not in (*known, *_DECODER_INPUTS)]
    return f"asks for inputs this runtime does not know: {', '.join(strangers)}" if strangers else None


def _usable_cores() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _batches(order: Sequence[int], length: Callable[[int], int], limit: int) -> Iterator[list[int]]:
    """Cut `order` (ascending lengths) into batches of at most `limit` padded tokens, or of one text."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * length(index) > limit:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Without overflow, in float64."""
    result: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return result


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Over the last axis, in float64: sums over large vocabularies lose digits in float32."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _text(parts: Mapping[str, str]) -> Text:
    first, *second = parts.values()
    return (first, second[0]) if second else first


def _words(given: object) -> tuple[str, list[Place]]:
    """A text and where its words are: those given, or as training cuts a text with spans."""
    parsed = _parsed(given) if isinstance(given, str) and given.startswith("[") else given
    if isinstance(parsed, Sequence) and not isinstance(parsed, str) and all(isinstance(word, str) for word in parsed):
        ends = list(itertools.accumulate(len(word) + 1 for word in parsed))
        return " ".join(parsed), [(end - 1 - len(word), end - 1) for word, end in zip(parsed, ends, strict=True)]
    if not isinstance(given, str):
        raise ValueError(f"expected a text or a list of words, got {type(given).__name__}")
    return given, [word.span() for word in _WORD.finditer(given)]


def first_tokens(places: Sequence[Place], tokens: Sequence[Place]) -> dict[int, int]:
    """By a word's number the first token that overlaps it and carries no word before it; training does it with this.

    Words that were cut off, or that share their only token with the word before, have none.
    """
    firsts: dict[int, int] = {}
    token = 0
    for word, (start, end) in enumerate(places):
        while token < len(tokens) and (tokens[token][1] <= start or tokens[token][0] == tokens[token][1]):
            token += 1
        if token < len(tokens) and tokens[token][0] < end:
            firsts[word] = token
            token += 1
    return firsts


def _entities(text: str, words: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs of tags, as conlleval reads them: an I- that goes on from nothing begins an entity too."""
    found: list[dict[str, Any]] = []
    before = "O"
    for word in words:
        tag, start, end, score = word["tag"], word["start"], word["end"], word["score"]
        if tag[:2] == "I-" and before[2:] == tag[2:]:
            entity = found[-1]
            entity |= {"text": text[entity["start"] : end], "end": end, "score": min(score, entity["score"])}
        elif tag != "O":
            found.append({"label": tag[2:], "text": text[start:end], "start": start, "end": end, "score": score})
        before = tag
    return found


def _read(given: Any, where: str, task: str) -> Any:
    """An input as it is taken: where a chat is given as the JSON of its messages, those.

    Raises `ValueError` for an empty text, and for one that is none (see `_refuse_no_text`).
    """
    if isinstance(given, str):
        if not given.strip() and task != "token-classification":  # where there is no word there is no entity
            raise ValueError(f"{where}: is empty; expected a text of at least one token")
        if task == "chat" and given.lstrip().startswith(("[{", "{")):
            parsed = _parsed(given)
            is_chat = isinstance(parsed, list) or (isinstance(parsed, Mapping) and "messages" in parsed)
            given = parsed if is_chat else given
    _refuse_no_text(given, where)
    return given


def _refuse_no_text(given: object, where: str) -> None:
    """Raises `ValueError` for half characters, which is also what bytes that are not UTF-8 become, and for NUL."""
    if isinstance(given, str):
        wrong = next((i for i, letter in enumerate(given) if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
        if wrong is not None:
            what = "NUL" if given[wrong] == "\0" else "half a character, or a byte that is not UTF-8"
            raise ValueError(f"{where}: character {wrong + 1} is {what}; expected text in UTF-8")
    elif isinstance(given, Mapping):
        for value in given.values():
            _refuse_no_text(value, where)
    elif isinstance(given, Sequence) and not isinstance(given, bytes):
        for value in given:
            _refuse_no_text(value, where)


def _parsed(text: str) -> object:
    """What a text says in JSON, or the text. Raises `ValueError` where that is no text."""
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    _refuse_no_text(parsed, "JSON")
    return parsed


def as_text(value: object) -> str | None:
    """A value of a template's column as the text that stands for it: nothing for null, numbers and booleans as in
    JSON. None for what is no text."""
    if value is None or isinstance(value, str):
        return value or ""
    is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return json.dumps(value) if is_number else None


# --- chats ---------------------------------------------------------------------------------------------

ROLES = ("system", "user", "assistant", "developer", "tool")
_SHAREGPT = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "observation": "tool",
}  # fmt: skip
"""Roles by the names that ShareGPT and its kin have for them."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
_READ = ("content", "name", "tool_calls", "tool_call_id", *_REASONING)
"""What templates read of a message, besides its role."""


def as_message(given: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates read it: without what is None, which they would print as text, its content's parts as one
    text. ShareGPT's `from` and `value` are `role` and `content`.

    Raises `ValueError` with what is wrong, in words that follow the message's place.
    """
    message = without_none(given)
    if "role" not in message and "from" in message:
        message = {"role": message["from"], "content": message.get("value")}
    role = message.get("role")
    role = _SHAREGPT.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise ValueError(f"has the role {_short(role)}, none of {', '.join(ROLES)}")
    if "function_call" in message:
        raise ValueError("has function_call, which templates do not read: write tool_calls")
    kept = {"role": role, "content": None, **{key: message[key] for key in _READ if key in message}}
    kept = {key: value for key, value in kept.items() if key not in _REASONING or isinstance(value, str)}
    if "tool_calls" in kept:
        kept["tool_calls"] = _calls(kept["tool_calls"])
        if not kept["tool_calls"]:
            del kept["tool_calls"]
    if isinstance(kept["content"], list):
        kept["content"] = "".join(_part(part) for part in kept["content"])
    if kept["content"] is None and "tool_calls" in kept:
        kept["content"] = ""
    reasoning = next((kept[key] for key in _REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def as_tools(given: object) -> list[dict[str, Any]] | None:
    """Tools as templates read them, from a list or its JSON; None for none. Raises `ValueError`."""
    tools = from_json(given)
    if tools is None or tools in ("", []):
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) and name_of(tool) for tool in tools):
        raise ValueError(f"expected a list of tools, each with a name, got {_short(given)}")
    return [without_none(tool) for tool in tools]


def name_of(tool: Mapping[str, Any]) -> str | None:
    """The name of a tool, or of the tool that is called: `{"function": {"name": ...}}` or `{"name": ...}`."""
    owner = tool.get("function", tool)
    name = owner.get("name") if isinstance(owner, Mapping) else None
    return name if isinstance(name, str) else None


def without_none(value: Any) -> Any:
    """Without the keys whose value is None: Parquet has them for every key that another row has."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, (list, tuple)) else value


def _calls(given: object) -> list[dict[str, Any]]:
    calls = from_json(given)
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) and name_of(call) for call in calls):
        raise ValueError(f"has tool_calls {_short(given)}, expected a list of calls, each with a function's name")
    return [dict(call) for call in calls]


def _part(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise ValueError(f"has a content part of type {_short(kind)}: only text parts are read")


def from_json(value: object) -> object:
    """What a text says in JSON; anything else, and text that is no JSON, as it stands."""
    return _parsed(value) if isinstance(value, str) else value


def _short(value: object) -> str:
    return f"{value!r:.100}"


def _checked(chat: object) -> tuple[list[Message], Tools]:
    """The messages and the tools of a chat."""
    tools = None
    if isinstance(chat, Mapping):
        tools, chat = as_tools(chat.get("tools")), chat.get("messages")
    if isinstance(chat, str) or not isinstance(chat, Sequence):
        raise ValueError(f"expected a text or a list of messages, got {_short(chat)}")
    messages: list[Message] = []
    for index, message in enumerate(chat):
        if not isinstance(message, Mapping) or not isinstance(message.get("role", message.get("from")), str):
            raise ValueError(f'message {index}: expected {{"role": ..., "content": ...}}, got {_short(message)}')
        try:
            messages.append(as_message(message))
        except ValueError as error:
            raise ValueError(f"message {index} {error}") from None
        if not isinstance(messages[-1]["content"], str):
            raise ValueError(f"message {index}: content must be a text, got {_short(message.get('content'))}")
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        raise ValueError("the last message must be the user's, or a tool's")
    return messages, tools


def _without_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """Drop the oldest user message and all that answered it; None when only the last turn is left."""
    head = [message for message in messages[:1] if message["role"] in ("system", "developer")]
    turns = messages[len(head) :]
    later = [i for i, message in enumerate(turns) if message["role"] == "user" and i > 0]
    return [*head, *turns[later[0] :]] if later else None


# --- control tokens ------------------------------------------------------------------------------------

BREAK = "\ufdd0"
"""Stands inside the text of a control token that people wrote, so that no tokenizer finds the token there. Unicode
keeps this character for a program's own use; where people write it all the same, it is left out."""


class Spelled(NamedTuple):
    """A text in tokens."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """In characters of the text with its breaks."""
    is_added: list[int]
    """1 for what the tokenizer puts around a text."""


class ControlTokens:
    """The tokens that steer a model, such as `<|im_end|>`: they are the template's to write and nobody else's.

    They are a tokenizer's special tokens, and those of its other added tokens that the template writes itself
    (`<think>`, `<tool_call>`). The latter stay tokens in what the model says, for it writes them too.
    """

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        """`tokenizer` neither cuts nor pads."""
        self._tokenizer = tokenizer
        # A token of one character is a character like any other, and blanks stand in every template.
        added = [t for t in tokenizer.get_added_tokens_decoder().values() if len(t.content.strip()) > 1]
        self._special = _beginnings(t.content for t in added if t.special)
        self._all = _beginnings(t.content for t in added if t.special or t.content in template)

    def apart(self, written: Any, *, is_said: bool = False) -> Any:
        """What people wrote, or what the model says, as it may stand in a template: a text, or lists and mappings of
        texts, with a `BREAK` in each control token."""
        if isinstance(written, str):
            pattern = self._special if is_said else self._all
            return pattern.sub(rf"\1{BREAK}", written.replace(BREAK, ""))
        if isinstance(written, Mapping):
            return {
                # Templates look plain names up.
                key if key.isidentifier() else self.apart(key, is_said=is_said): self.apart(item, is_said=is_said)
                for key, item in written.items()
            }
        if isinstance(written, (list, tuple)):
            return [self.apart(item, is_said=is_said) for item in written]
        return written

    def in_messages(self, messages: Sequence[Message]) -> list[Message]:
        """`apart` for all that messages hold but their roles."""
        return [
            {**self.apart(message, is_said=message["role"] == "assistant"), "role": message["role"]}
            for message in messages
        ]

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Spelled]:
        """Texts in tokens, breaks taken out: a text without any has the tokens that it always had."""
        tokenizer = self._with_cuts if any(BREAK in text for text in texts) else self._tokenizer
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return [Spelled(e.ids, e.offsets, e.special_tokens_mask) for e in encodings]

    @cached_property
    def _with_cuts(self) -> Tokenizer:
        """A tokenizer that cuts words at a `BREAK` and leaves it out, after all else that cuts them."""
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        before = tokenizer.pre_tokenizer
        # Byte-level tokenizers write characters of their own for its bytes; some put a blank before a text.
        pieces = [] if before is None else [piece for piece, _ in before.pre_tokenize_str(f"a{BREAK}")]
        spelled = "".join(pieces).rpartition("a")[2] or BREAK
        cut = pre_tokenizers.Split(spelled, "removed")
        tokenizer.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])
        return tokenizer


def _beginnings(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds the first character of each of `tokens` in a text, those that lie within each other too."""
    spelled = sorted({re.escape(token) for token in tokens}, key=len, reverse=True)
    return re.compile(rf"(?=(?:{'|'.join(spelled)}))(.)", re.DOTALL) if spelled else re.compile("(?!)()")


def template_text(template: str) -> str:
    """What a template of columns in braces writes itself."""
    return "\0".join(literal for literal, *_ in string.Formatter().parse(template))


# --- chat templates ------------------------------------------------------------------------------------

_MOST_STEPS = 10_000_000
"""Of all loops of one rendering together."""
_MOST_CHARACTERS = 1 << 26
"""Of one rendering."""


class ChatTemplate:
    """A chat template. It comes with a model from anywhere, so it runs in a sandbox and within bounds: at most
    `_MOST_STEPS` steps of loops, and `_MOST_CHARACTERS` of text.

    The environment is the one that transformers renders templates in: same options, same names, same
    `{% generation %}` tag. Raises `ReleaseError` for a template that does not parse.
    """

    def __init__(self, source: str, tokens: Mapping[str, Any], clock: str = "") -> None:
        """`tokens` are special tokens by name; `clock` is what `strftime_now` reads, as local ISO time: now without."""
        import jinja2
        import jinja2.nodes

        self._tokens = tokens
        environment = _environment(clock)
        try:
            parsed = environment.parse(source)
            for loop in parsed.find_all(jinja2.nodes.For):
                loop.iter = jinja2.nodes.Filter(loop.iter, "_counted", [], [], None, None)
            for joined in parsed.find_all(jinja2.nodes.Concat):
                joined.nodes[0] = jinja2.nodes.Filter(joined.nodes[0], "_bounded", [], [], None, None)
            self._compiled = environment.from_string(parsed)
        except Exception as error:  # what Jinja makes of it may not compile either
            raise ReleaseError(f"the chat template is damaged: {error}") from error

    def render(self, messages: Sequence[Message], tools: Tools = None, *, asks: bool) -> str:
        """The text of a conversation; with `asks` up to where an answer begins.

        The arguments of tool calls are given as objects, which most templates write as JSON, and as JSON texts where
        a template takes no objects. Raises `ValueError` with the template's own words where it takes neither.
        """
        try:
            return self._tried(_with_arguments(messages, _as_object), tools, asks)
        except ValueError:
            if any("tool_calls" in message for message in messages):
                with contextlib.suppress(ValueError):  # then the first refusal says more
                    return self._tried(_with_arguments(messages, _as_json), tools, asks)
            raise

    def _tried(self, messages: Sequence[Message], tools: Tools, asks: bool) -> str:
        try:
            return self._rendered(messages, tools, asks)
        except Exception as error:  # a template of strangers can fail in any way
            words = " ".join(str(error).replace(BREAK, "").split()) or type(error).__name__
            raise ValueError(f"the chat template refused the messages: {words:.200}") from error

    def _rendered(self, messages: Sequence[Message], tools: Tools, asks: bool) -> str:
        pieces, length = [], 0
        for piece in self._compiled.generate(
            **self._tokens, messages=messages, tools=tools, documents=None, add_generation_prompt=asks, _steps=_Steps()
        ):
            pieces.append(piece)
            length += len(piece)
            if length > _MOST_CHARACTERS:
                raise ValueError(f"it writes more than {_MOST_CHARACTERS:,} characters")
        return "".join(pieces)


def _bounded(value: Any) -> Any:
    """A value that a template made, unless it is too large to go on with."""
    size = value.bit_length() if isinstance(value, int) else len(value) if hasattr(value, "__len__") else 0
    if size > (4096 if isinstance(value, int) else _MOST_CHARACTERS):
        raise ValueError("it makes a value that is too large")
    return value


class _Steps:
    """Counts what the loops of one rendering do."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        if self._count > _MOST_STEPS:
            raise ValueError(f"its loops take more than {_MOST_STEPS:,} steps")


def _sandbox() -> Any:
    """Jinja's sandbox, in which a sum, a product and a power are bounded too."""
    import jinja2.sandbox

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["+", "*", "**"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [len(side) if hasattr(side, "__len__") else side for side in (left, right)]
            repeats = operator == "*" and [left, right] != sizes
            # What these make has to be known before it is made.
            if (repeats and math.prod(sizes) > _MOST_CHARACTERS) or (operator == "**" and max(map(abs, sizes)) > 64):
                raise ValueError("it makes a value that is too large")
            return _bounded(super().call_binop(context, operator, left, right))

    return Sandbox


def _environment(clock: str) -> Any:
    import datetime

    import jinja2
    import jinja2.ext

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja2's protocol

        def parse(self, parser: Any) -> Any:
            next(parser.stream)  # this tag marks the assistant's words; here it only encloses them
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        return text.replace(f"\\u{ord(BREAK):x}", BREAK)

    def now(form: str) -> str:
        return (datetime.datetime.fromisoformat(clock) if clock else datetime.datetime.now()).strftime(form)

    @jinja2.pass_context
    def counted(context: Any, items: Any) -> Iterator[Any]:
        step = context["_steps"]
        for item in items:
            step()
            yield item

    environment = _sandbox()(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters |= {"tojson": to_json, "_counted": counted, "_bounded": _bounded}
    environment.globals |= {"raise_exception": refuse, "strftime_now": now}
    del environment.globals["lipsum"]
    return environment


def _with_arguments(messages: Sequence[Message], convert: Callable[[object], object]) -> list[Message]:
    """Messages with the arguments of their tool calls converted."""

    def converted(call: Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(call.get("function"), Mapping):
            return {**call, "function": converted(call["function"])}
        return {**call, "arguments": convert(call["arguments"])} if "arguments" in call else call

    return [
        {**m, "tool_calls": [converted(call) for call in m["tool_calls"]]} if "tool_calls" in m else m for m in messages
    ]


def _as_object(arguments: object) -> object:
    parsed = from_json(arguments)
    return parsed if isinstance(parsed, Mapping) else arguments


def _as_json(arguments: object) -> object:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def main(texts: Sequence[str]) -> int:
    """Answer each argument with the release this file lies in; returns the exit code."""
    if not texts:
        print(f'usage: python {Path(sys.argv[0]).name} "a text" ...', file=sys.stderr)
        return 2
    try:
        answers = Release.load(Path(__file__).parent).predict(list(texts))
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
