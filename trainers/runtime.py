"""A released model: texts in; labels, scores or answers out.

This file is copied into every release folder and is all the code that a release needs, which is why it is long. It
imports the standard library, numpy, tokenizers and onnxruntime, and jinja2 when it renders a chat template. The folder
contains

    model.onnx, model.onnx.data   the graph and its weights
    tokenizer.json                the tokenizer; for a classifier it truncates texts
    release.json                  everything else (`Card`)
    runtime.py                    this file: `python runtime.py "a text"` prints one line of JSON per argument
"""

# No `from __future__ import annotations`: dataclasses would then look their module up in sys.modules, and a release's
# runtime.py that is loaded by path is not there.

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
    import onnxruntime as ort  # elsewhere late: it starts a thread, and training uses this file without it

FORMAT_VERSION = 1
CLASSIFYING = ("text-classification", "multi-label-classification", "regression", "token-classification")
"""Tasks whose models classify a text, a pair of texts or words, or give a number for it."""
GENERATIVE = ("chat", "instruct", "causal-lm")
"""Tasks whose models generate text."""

Floats: TypeAlias = npt.NDArray[np.float32]
Message: TypeAlias = Mapping[str, Any]
Chat: TypeAlias = str | Sequence[Message] | Mapping[str, Any]
"""A user's text, messages, or both messages and tools: {"messages": [...], "tools": [...]}."""
Input: TypeAlias = str | Sequence[Message] | Mapping[str, Any]
Tools: TypeAlias = Sequence[Mapping[str, Any]] | None
Text: TypeAlias = str | tuple[str, str]
"""An input of a classifier: a text, or a pair of texts."""
Place: TypeAlias = tuple[int, int]
"""The start and end of a word or a token in its text, in characters."""

# Padding is wasted work, and activations that do not fit the cache cost more than batching gains: with more tokens
# than this a batch was slower per text than one text at a time (MiniLM, 2 cores).
_TOKENS_PER_BATCH = 512
# The logits of a chunk are the largest array of a chat model: 256 x 49,152 float32 are 50 MB.
_TOKENS_PER_CHUNK = 256

# Inputs that a graph may have; a classifier's with the attribute of an encoding that fills them.
_CLASSIFIER_INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
_DECODER_INPUTS = ("input_ids", "attention_mask", "position_ids")
# Training splits a text with spans into words in the same way.
_WORD = re.compile(r"\w+|[^\w\s]")
_PAST, _PRESENT = "past_key_values.", "present."


class ReleaseError(Exception):
    """This runtime cannot serve the folder; the message names the folder and what is wrong with it.

    Promote the model again to repair it.
    """


class SequenceScore(NamedTuple):
    """A language model's score of one sequence, summed over its target tokens."""

    nll: float
    """Sum of the negative log-likelihoods, in nats."""
    tokens: int
    hits: int
    """Target tokens that the model ranks first."""


@dataclass(frozen=True)
class Card:
    """The content of `release.json`: what the runtime needs besides the graph and the tokenizer."""

    task: str
    variant: str
    labels: tuple[str, ...]
    """Labels in the order of the logits; empty for a task without labels."""
    max_length: int
    """In tokens: where a classifier cuts a text, or a generative model's context window for prompt and answer."""
    pad_token_id: int
    eos_token_ids: tuple[int, ...] = ()
    chat_template: str | None = None
    template_tokens: Mapping[str, Any] = field(default_factory=dict)
    """Special tokens by name (`bos_token`, `eos_token`, ...), as the chat template reads them."""
    generation: Mapping[str, Any] = field(default_factory=lambda: {"strategy": "greedy", "max_new_tokens": 64})
    columns: tuple[str, ...] = ("text",)
    """The parts of an input: the texts of a pair, or the columns of the prompt."""
    prompt_template: str | None = None
    """The text before an answer, with columns in braces."""
    after_answer: str = ""
    """The template's text after an answer, up to the next column; it is not part of the answer."""
    is_followed: bool = False
    """Whether there is a next column."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Size in bytes of every other file, to notice an incomplete copy."""
    format_version: int = FORMAT_VERSION

    @property
    def example(self) -> str:
        """An example of an input, as text."""
        return "some text" if len(self.columns) <= 1 else json.dumps(dict.fromkeys(self.columns, "some text"))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the card of a release folder.

        Raises `ReleaseError` where `release.json` is missing, damaged or of another format, or a file is incomplete.
        """
        path = folder / "release.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format_version"] != FORMAT_VERSION:
                raise ReleaseError(
                    f"{path}: has format {data['format_version']}; this runtime reads format {FORMAT_VERSION}"
                )
            values = {f.name: data[f.name] for f in fields(cls) if f.name in data}  # older cards have fewer
            values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            card = cls(**values)
        except FileNotFoundError:
            raise ReleaseError(f"{folder} is not a release: it has no release.json") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        if card.task not in (known := (*CLASSIFYING, *GENERATIVE)):
            raise ReleaseError(f"{path}: unknown task {card.task!r}; expected one of {', '.join(known)}")
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
        """Load a release folder; `threads` is the number of cores to use, by default all that this process may use.

        Raises `ReleaseError` where the folder is missing, incomplete, damaged or inconsistent.
        """
        import onnxruntime as ort

        folder = Path(folder)
        card = Card.read(folder)
        options = ort.SessionOptions()
        # Always a number: by default onnxruntime counts the machine's cores, not the container's.
        options.intra_op_num_threads = threads or usable_cores()
        # With threads that wait in a busy loop, answers took twice as long when another process used the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # An x86 CPU without VNNI adds the products of uint8 and int8 in 16 bits, where they overflow: the same int8
        # release then gave different answers on different machines. On such CPUs this selects kernels that do not.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 4  # errors are raised as exceptions: do not print them too
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        except Exception as error:  # both libraries raise direct subclasses of Exception
            raise ReleaseError(f"{folder} cannot be loaded: {error}") from error
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = card.task in CLASSIFYING  # "[SEP]" in a user's text is text
        problem = _misfit(card, session)
        if problem:
            raise ReleaseError(f"{folder / 'model.onnx'} {problem}")
        return cls(card, tokenizer, session)

    def predict(self, inputs: Sequence[Input], max_new_tokens: int | None = None) -> list[dict[str, Any]]:
        """Answer each input, in order.

        An input is a text, or for a card with several `columns` a mapping from column to text. For
        token-classification it may also be a list of words, and for chat a list of {"role", "content"} or
        {"messages": that list, "tools": [...]}. Each of them may be given as JSON text.

        text-classification answers {"label", "score", "scores": {label: probability}}, multi-label-classification
        {"labels", "scores"}, and regression {"value"}. token-classification answers {"entities"} with {"label", "text",
        "start", "end", "score"} for each, where the score is that of its least certain word. With plain tags it answers
        {"tags"} with {"tag", "text", "start", "end", "score"} for each word. All other tasks answer {"text"}, decoded
        greedily. Raises `ValueError` for an input that the task does not accept, before anything is computed.
        """
        if isinstance(inputs, str):
            raise ValueError("expected a list of inputs, got one text")
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
            raise ValueError(f"{where}: expected {wanted}; not a text: {', '.join(wrong)}")
        if fills_template and columns and not any(text.strip() for text in texts.values()):
            raise ValueError(f"{where}: expected {wanted}; got empty {' and '.join(columns)}")
        return texts

    # --- classifying: labels or numbers for a text or its words ------------------------------------------

    def row_logits(self, texts: Sequence[Text]) -> Floats:
        """Logits of texts, float32 [texts, labels] ([texts, 1] without labels), in the order given.

        Texts of similar length share a batch. A dynamically quantized graph scales activations over the whole batch, so
        that a text's neighbours would change its logits: there each text is a batch by itself.
        """
        limit = 0 if self.card.variant == "int8" else _TOKENS_PER_BATCH
        encodings = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids))
        logits = np.zeros((len(encodings), max(1, len(self.card.labels))), dtype=np.float32)
        for batch in _batches(order, lambda i: len(encodings[i].ids), limit):
            logits[batch] = self._session.run(["logits"], self._padded([encodings[i] for i in batch]))[0]
        return logits

    def _padded(self, encodings: Sequence[Any]) -> dict[str, npt.NDArray[np.int64]]:
        """The graph's inputs, each int64 [texts, longest]."""
        width = max(1, *(len(encoding.ids) for encoding in encodings))
        feed = {}
        for name in self._inputs:
            padding = self.card.pad_token_id if name == "input_ids" else 0
            feed[name] = np.full((len(encodings), width), padding, dtype=np.int64)
            for row, encoding in zip(feed[name], encodings, strict=True):
                values = getattr(encoding, _CLASSIFIER_INPUTS[name])
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
        """Logits of every token, float32 [tokens, tags], and a mapping from a word's index to the token with its tag.

        `places` are the words, in order. A word has no token where it lies beyond `max_length`, the tokenizer leaves
        out its characters, or it shares its only token with the word before.
        """
        encoding = self.tokenizer.encode(text)
        logits: Floats = self._session.run(["logits"], self._padded([encoding]))[0][0]
        return logits, first_tokens(places, encoding.offsets)

    def _tagged(self, text: str, places: Sequence[Place]) -> dict[str, Any]:
        """The entities of a text, or the tag of each word where tags are plain."""
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

    # --- generating: chats, answers to a prompt, continuations -------------------------------------------

    def prompt_ids(self, chat: Chat, max_new_tokens: int | None = None) -> list[int]:
        """Token ids of a chat, up to where the answer begins, cut so that the answer fits into the context.

        It first drops the oldest turns (never the system message), then the system message if it takes more than half
        of the space, then the beginning of the last user turn. Raises `ValueError` for a chat that is malformed or that
        the template refuses.
        """
        room = self.card.max_length - self._max_new_tokens(max_new_tokens)
        if self.card.chat_template is None:
            if not isinstance(chat, str):
                raise ValueError("this model has no chat template; expected the prompt as one text")
            return self.continued_ids(chat, max_new_tokens)
        messages, tools = _checked([{"role": "user", "content": chat}] if isinstance(chat, str) else chat)
        while len(ids := self._rendered(messages, tools)) > room:
            shorter = _without_oldest_turn(messages)
            if shorter is None:
                return self._cut_last_turn(messages, tools, room)
            messages = shorter
        return ids

    def continued_ids(self, prompt: str, max_new_tokens: int | None = None) -> list[int]:
        """Token ids of a prompt that the model continues, cut at its beginning so that an answer fits.

        Tokens that the tokenizer adds before a text are kept, those that it adds after one are not; `causal-lm` is
        trained without both. Raises `ValueError` for a prompt without tokens.
        """
        (encoding,) = self._control_tokens.encode([prompt], add_special_tokens=self.card.task != "causal-lm")
        own = [index for index, is_added in enumerate(encoding.is_added) if not is_added]
        begin = encoding.ids[: own[0]] if own else encoding.ids[:1]
        if not own and (not begin or begin[0] in self.card.eos_token_ids):
            raise ValueError("expected a prompt of at least one token, got none")
        ids = encoding.ids[own[0] : own[-1] + 1] if own else []
        room = self.card.max_length - self._max_new_tokens(max_new_tokens) - len(begin)
        return [*begin, *ids[-room:]]

    def _prompt(self, parts: Mapping[str, str]) -> str:
        """The filled template; control tokens in the columns become text.

        A space at the end is left out: as in training, it is part of the answer.
        """
        if self.card.prompt_template is None:
            return parts[self.card.columns[0]]
        filled = ""
        for literal, name, *_ in string.Formatter().parse(self.card.prompt_template):
            filled += literal + ("" if name is None else self._control_tokens.apart(parts[name]))
        return filled.rstrip(" ")

    def generate(self, prompt_ids: Sequence[int], max_new_tokens: int | None = None) -> Iterator[int]:
        """Yield the answer's token ids one by one, decoded greedily, up to but without an end-of-text token."""
        for token in self.greedy_tokens(prompt_ids, self._max_new_tokens(max_new_tokens)):
            if token in self.card.eos_token_ids:
                return
            yield token

    def greedy_tokens(self, prompt_ids: Sequence[int], count: int) -> Iterator[int]:
        """Yield `count` tokens, each the most likely one after those before it; an end-of-text token ends nothing.

        Raises `ValueError` where prompt and answer exceed the context; `prompt_ids()` always leaves enough space.
        """
        if not 0 < len(prompt_ids) <= self.card.max_length - count:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens and an answer of {count} do not fit into the model's context of "
                f"{self.card.max_length} tokens"
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
        """Logits of one sequence, float32 [tokens, vocabulary]; row i predicts token i + 1."""
        return np.concatenate(list(_Cache(self._session, len(input_ids)).feed(input_ids)))

    def sequence_nll(self, input_ids: Sequence[int], loss_mask: Sequence[int]) -> SequenceScore:
        """Score the tokens i of one sequence with `loss_mask[i]` = 1, each predicted from the tokens before it.

        So the first token never counts.
        """
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
        """The answer's length in tokens: at most half of the context, so that a prompt always has the other half."""
        wanted = self.card.generation["max_new_tokens"] if wanted is None else wanted
        if wanted < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {wanted}")
        return int(min(wanted, self.card.max_length // 2))

    def _decoded(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
        if self.card.task == "causal-lm":  # only decoding with the prompt shows whether a space comes first
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
        """Cut the beginning of the last user turn: the end of a question says more than its beginning."""
        *before, last = messages
        if before and len(self._rendered([*before, {**last, "content": ""}], tools)) > room // 2:
            before = []
        text = last["content"]
        while len(ids := self._rendered([*before, {**last, "content": text}], tools)) > room:
            offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
            excess = len(ids) - room
            if excess >= len(offsets):
                raise ValueError(f"the chat template alone takes more than the {room} tokens that a prompt may have")
            text = text[max(1, offsets[excess][0]) :]
        return ids


class _Cache:
    """Keys and values of one sequence. Past and present are bound to the same buffers, sized for the whole sequence, so
    that the attention operator writes in place; a growing cache would be copied for every token."""

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
        """Append tokens and yield their logits in chunks, each float32 [tokens, vocabulary]."""
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
    """Why this graph cannot serve the card's task; None when it can. It follows the name of the file."""
    outputs = {value.name: value.shape for value in session.get_outputs()}
    if "logits" not in outputs:
        return f"has no output 'logits', only {', '.join(outputs)}"
    if card.task in CLASSIFYING:
        unknown = [value.name for value in session.get_inputs() if value.name not in _CLASSIFIER_INPUTS]
        if outputs["logits"][-1] != max(1, len(card.labels)):
            return f"gives logits of shape {outputs['logits']}, but there are {len(card.labels)} labels"
    else:
        past = [value for value in session.get_inputs() if value.name.startswith(_PAST)]
        known = [value.name for value in past if value.type == "tensor(float)" and isinstance(value.shape[3], int)]
        unknown = [v.name for v in session.get_inputs() if v.name not in (*known, *_DECODER_INPUTS)]
    return f"has inputs that this runtime does not know: {', '.join(unknown)}" if unknown else None


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use now: those of its affinity, or fewer where a control group's quota of CPU
    time is smaller (rounded, at least 1). `root` is where /proc and /sys are.
    """
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([known, *(int(quota + 0.5) for quota in _cpu_quotas(root))]))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """The quotas of this process's control group and of all groups around it, in cores (Linux, versions 2 and 1)."""
    for line in (_content(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            for group in _groups(root / "sys/fs/cgroup", path):
                quota, _, period = (_content(group / "cpu.max") or "max").partition(" ")
                if quota != "max":
                    yield int(quota) / int(period)
        elif "cpu" in controllers.split(","):
            for group in _groups(root / "sys/fs/cgroup/cpu", path):  # also a link to cpu,cpuacct
                given, per = _content(group / "cpu.cfs_quota_us"), _content(group / "cpu.cfs_period_us")
                if given and per and int(given) > 0:  # -1: without a limit
                    yield int(given) / int(per)


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """A control group's folder and those around it. In a container `path` may be the host's: then only `mount` is
    there, which is the container's own group."""
    group = mount / path.lstrip("/")
    yield group
    while group != mount:
        group = group.parent
        yield group


def _content(file: Path) -> str | None:
    """The content of a kernel's file without the line's end; None where there is none to read."""
    try:
        return file.read_text().strip()
    except OSError:
        return None


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
    """The logistic function in float64, without overflow."""
    result: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
    return result


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The log-softmax over the last axis, in float64: sums over large vocabularies lose digits in float32."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _text(parts: Mapping[str, str]) -> Text:
    first, *second = parts.values()
    return (first, second[0]) if second else first


def _words(given: object) -> tuple[str, list[Place]]:
    """A text and the places of its words: the words given, or those that training would split the text into."""
    parsed = _parsed(given) if isinstance(given, str) and given.startswith("[") else given
    if isinstance(parsed, Sequence) and not isinstance(parsed, str) and all(isinstance(word, str) for word in parsed):
        ends = list(itertools.accumulate(len(word) + 1 for word in parsed))
        return " ".join(parsed), [(end - 1 - len(word), end - 1) for word, end in zip(parsed, ends, strict=True)]
    if not isinstance(given, str):
        raise ValueError(f"expected a text or a list of words, got {type(given).__name__}")
    return given, [word.span() for word in _WORD.finditer(given)]


def first_tokens(places: Sequence[Place], tokens: Sequence[Place]) -> dict[int, int]:
    """A mapping from a word's index to the first token that overlaps the word and belongs to no word before it.

    Words that were cut off, or share their only token with the word before, are left out. Training uses it too.
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
    """Entities from tags, read as conlleval does: an I- tag without an entity before it starts one."""
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
    """An input with a chat's JSON parsed.

    Raises `ValueError` for an empty text, and for one that is not valid (see `_refuse_invalid_text`).
    """
    if isinstance(given, str):
        if not given.strip() and task != "token-classification":  # a text without words has no entities
            raise ValueError(f"{where}: is empty; expected a text of at least one token")
        if task == "chat" and given.lstrip().startswith(("[{", "{")):
            parsed = _parsed(given)
            is_chat = isinstance(parsed, list) or (isinstance(parsed, Mapping) and "messages" in parsed)
            given = parsed if is_chat else given
    _refuse_invalid_text(given, where)
    return given


def _refuse_invalid_text(given: object, where: str) -> None:
    """Raise `ValueError` for NUL and for lone surrogates, which bytes that are not UTF-8 become too."""
    if isinstance(given, str):
        wrong = next((i for i, letter in enumerate(given) if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
        if wrong is not None:
            what = "NUL" if given[wrong] == "\0" else "half a character (a lone surrogate, or a byte that is not UTF-8)"
            raise ValueError(f"{where}: character {wrong + 1} is {what}; expected text in UTF-8")
    elif isinstance(given, Mapping):
        for value in given.values():
            _refuse_invalid_text(value, where)
    elif isinstance(given, Sequence) and not isinstance(given, bytes):
        for value in given:
            _refuse_invalid_text(value, where)


def _parsed(text: str) -> object:
    """The value of a JSON text, or the text itself where it is not JSON. Raises `ValueError` for invalid characters."""
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    _refuse_invalid_text(parsed, "JSON")
    return parsed


def as_text(value: object) -> str | None:
    """The text for a value of a template's column: empty for null, numbers and booleans as in JSON.

    None for a value that has no text, such as a list or NaN.
    """
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
"""Roles by their names in ShareGPT and similar formats."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
_READ = ("content", "name", "tool_calls", "tool_call_id", *_REASONING)
"""Keys of a message that templates read, besides its role."""


def as_message(given: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates read it: without None, which they would print, and with its content's parts joined.

    ShareGPT's `from` and `value` become `role` and `content`. Raises `ValueError`; its message is the end of a sentence
    that begins with the message's place.
    """
    message = without_none(given)
    if "role" not in message and "from" in message:
        message = {"role": message["from"], "content": message.get("value")}
    role = message.get("role")
    role = _SHAREGPT.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise ValueError(f"has the role {_short(role)}, expected one of {', '.join(ROLES)}")
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
    """Tools as templates read them, from a list or its JSON; None without tools. Raises `ValueError`."""
    tools = from_json(given)
    if tools is None or tools in ("", []):
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) and name_of(tool) for tool in tools):
        raise ValueError(f"expected a list of tools, each with a name, got {_short(given)}")
    return [without_none(tool) for tool in tools]


def name_of(tool: Mapping[str, Any]) -> str | None:
    """The name of a tool or of a tool call, from `{"function": {"name": ...}}` or `{"name": ...}`; None without one."""
    owner = tool.get("function", tool)
    name = owner.get("name") if isinstance(owner, Mapping) else None
    return name if isinstance(name, str) else None


def without_none(value: Any) -> Any:
    """A value without keys whose value is None, at any depth: Parquet adds them for every key of another row."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, (list, tuple)) else value


def _calls(given: object) -> list[dict[str, Any]]:
    calls = from_json(given)
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) and name_of(call) for call in calls):
        raise ValueError(f"has tool_calls {_short(given)}, expected a list of calls, each with the name of a function")
    return [dict(call) for call in calls]


def _part(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise ValueError(f"has a content part of type {_short(kind)}: only text parts are supported")


def from_json(value: object) -> object:
    """The value of a JSON text; any other value, and text that is not JSON, unchanged."""
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
        raise ValueError("the last message must have the role user or tool")
    return messages, tools


def _without_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """Drop the oldest user message and the answers to it; None when only the last turn is left."""
    head = [message for message in messages[:1] if message["role"] in ("system", "developer")]
    turns = messages[len(head) :]
    later = [i for i, message in enumerate(turns) if message["role"] == "user" and i > 0]
    return [*head, *turns[later[0] :]] if later else None


# --- control tokens ------------------------------------------------------------------------------------

BREAK = "\ufdd0"
"""Splits a control token that people wrote in a text, so that no tokenizer finds the token there. Unicode reserves this
character for a program's internal use; in people's text it is left out."""


class Spelled(NamedTuple):
    """The tokens of a text."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """In characters of the text with its breaks."""
    is_added: list[int]
    """1 for tokens that the tokenizer adds around a text."""


class ControlTokens:
    """The tokens that control a model, such as `<|im_end|>`; only the template may write them.

    They are the tokenizer's special tokens, and those of its other added tokens that the template writes itself
    (`<think>`, `<tool_call>`). In the assistant's messages the latter stay tokens, because the model writes them too.
    """

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        """`tokenizer` must neither truncate nor pad."""
        self._tokenizer = tokenizer
        # A token of one character is ordinary text, and whitespace is in every template.
        added = [t for t in tokenizer.get_added_tokens_decoder().values() if len(t.content.strip()) > 1]
        self._special = _beginnings(t.content for t in added if t.special)
        self._all = _beginnings(t.content for t in added if t.special or t.content in template)

    def apart(self, written: Any, *, is_said: bool = False) -> Any:
        """A text, or lists and mappings of texts, with a `BREAK` in each control token, safe to fill into a template.

        `is_said` marks text of the assistant.
        """
        if isinstance(written, str):
            pattern = self._special if is_said else self._all
            return pattern.sub(rf"\1{BREAK}", written.replace(BREAK, ""))
        if isinstance(written, Mapping):
            return {
                # Templates look up keys that are identifiers.
                key if key.isidentifier() else self.apart(key, is_said=is_said): self.apart(item, is_said=is_said)
                for key, item in written.items()
            }
        if isinstance(written, (list, tuple)):
            return [self.apart(item, is_said=is_said) for item in written]
        return written

    def in_messages(self, messages: Sequence[Message]) -> list[Message]:
        """Messages with `apart` applied to everything except their roles."""
        return [
            {**self.apart(message, is_said=message["role"] == "assistant"), "role": message["role"]}
            for message in messages
        ]

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Spelled]:
        """Tokenize texts and leave breaks out; a text without breaks gets its usual tokens."""
        tokenizer = self._with_cuts if any(BREAK in text for text in texts) else self._tokenizer
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return [Spelled(e.ids, e.offsets, e.special_tokens_mask) for e in encodings]

    @cached_property
    def _with_cuts(self) -> Tokenizer:
        """A tokenizer that, as its last pre-tokenization step, splits words at a `BREAK` and leaves it out."""
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        before = tokenizer.pre_tokenizer
        # Byte-level tokenizers replace its bytes with other characters; some put a space before a text.
        pieces = [] if before is None else [piece for piece, _ in before.pre_tokenize_str(f"a{BREAK}")]
        spelled = "".join(pieces).rpartition("a")[2] or BREAK
        cut = pre_tokenizers.Split(spelled, "removed")
        tokenizer.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])
        return tokenizer


def _beginnings(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds the first character of each of `tokens` in a text, also of overlapping ones."""
    spelled = sorted({re.escape(token) for token in tokens}, key=len, reverse=True)
    return re.compile(rf"(?=(?:{'|'.join(spelled)}))(.)", re.DOTALL) if spelled else re.compile("(?!)()")


def template_text(template: str) -> str:
    """The literal text of a template with columns in braces, its parts joined by NUL."""
    return "\0".join(literal for literal, *_ in string.Formatter().parse(template))


# --- chat templates ------------------------------------------------------------------------------------

_MOST_STEPS = 10_000_000
"""Steps of all loops in one rendering together."""
_MOST_CHARACTERS = 1 << 26
"""Characters of one rendering."""


class ChatTemplate:
    """A chat template, which runs in a sandbox because its source is not trusted.

    A rendering has at most `_MOST_STEPS` steps of loops and `_MOST_CHARACTERS` characters. The environment has the same
    options, names and `{% generation %}` tag as transformers'. Raises `ReleaseError` for a template that does not
    parse.
    """

    def __init__(self, source: str, tokens: Mapping[str, Any], clock: str = "") -> None:
        """`tokens` are special tokens by name; `clock` is the local ISO time for `strftime_now`, empty for now."""
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
        except Exception as error:  # the Python code that Jinja generates may not compile
            raise ReleaseError(f"the chat template is damaged: {error}") from error

    def render(self, messages: Sequence[Message], tools: Tools = None, *, asks: bool) -> str:
        """The text of a conversation; with `asks` it ends where the assistant's answer begins.

        Templates get the arguments of tool calls as objects, which most of them write as JSON. A template that refuses
        objects gets them as JSON texts. Raises `ValueError` with the template's own message where it refuses both.
        """
        try:
            return self._tried(_with_arguments(messages, _as_object), tools, asks)
        except ValueError:
            if any("tool_calls" in message for message in messages):
                with contextlib.suppress(ValueError):  # the first refusal says more
                    return self._tried(_with_arguments(messages, _as_json), tools, asks)
            raise

    def _tried(self, messages: Sequence[Message], tools: Tools, asks: bool) -> str:
        try:
            return self._rendered(messages, tools, asks)
        except Exception as error:  # an untrusted template can fail in any way
            reason = " ".join(str(error).replace(BREAK, "").split()) or type(error).__name__
            raise ValueError(f"the chat template refused the messages: {reason:.200}") from error

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
    """A value that a template made. Raises `ValueError` where it is too large."""
    size = value.bit_length() if isinstance(value, int) else len(value) if hasattr(value, "__len__") else 0
    if size > (4096 if isinstance(value, int) else _MOST_CHARACTERS):
        raise ValueError("it makes a value that is too large")
    return value


class _Steps:
    """Counts the steps of all loops in one rendering."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        if self._count > _MOST_STEPS:
            raise ValueError(f"its loops take more than {_MOST_STEPS:,} steps")


def _sandbox() -> Any:
    """Jinja's sandbox, with bounds for sums, products and powers too."""
    import jinja2.sandbox

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["+", "*", "**"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [len(side) if hasattr(side, "__len__") else side for side in (left, right)]
            repeats = operator == "*" and [left, right] != sizes
            # Check these before they are computed.
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
            next(parser.stream)  # the tag marks the assistant's text for training; here it has no effect
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
    """Messages with the arguments of their tool calls converted by `convert`."""

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
    """Print the answer to each text, from the release in this file's folder; return the exit code."""
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
