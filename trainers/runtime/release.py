"""A loaded release: what all of them have in common.

The package around this file is copied into every release, and is all the code that a release needs. It imports the
standard library, numpy, tokenizers and onnxruntime, and jinja2 when it renders a chat template. A release has

    model.onnx, model.onnx.data   the graph and its weights
    encoder.onnx, ...             text-to-text: the graph that reads the text; model.onnx writes the answer
    tokenizer.json                the tokenizer; for a classifier it truncates texts
    release.json                  everything else (`card.Card`)
    adapters/NAME/                a bundle: an adapter's weights and its own release.json; model.onnx is their base
    runtime/                      this package: `python -m runtime "a text"` prints one line of JSON for each argument

From Python: `from runtime.release import Release`, then `Release.load(".").predict(["a text"])`. Its modules import
each other relatively: two releases in one process have two copies, each under a name of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tokenizers import Tokenizer

from .card import Card
from .inputs import read_input
from .messages import Message

if TYPE_CHECKING:
    import onnxruntime as ort

Input: TypeAlias = str | Sequence[Message] | Mapping[str, Any]


class Release(ABC):
    """A loaded release. Safe to share between threads: nothing in it changes after loading."""

    def __init__(self, card: Card, tokenizer: Tokenizer, session: ort.InferenceSession) -> None:
        self.card = card
        self.tokenizer = tokenizer
        self.session = session

    @staticmethod
    def load(folder: str | Path, threads: int | None = None, *, is_served: bool = False) -> Release:
        """Load a release folder; `threads` is the number of cores to use, by default all that this process may use.

        `is_served` is for a process that does other work meanwhile, as a server reads requests, and that makes as many
        calls at once as `calls_at_once` says.

        Raises `ReleaseError` where the folder is missing, incomplete, damaged or inconsistent.
        """
        from .load import load  # late: the kinds of releases are made of this class

        return load(Path(folder), threads, is_served=is_served)

    def predict(self, inputs: Sequence[Input], max_new_tokens: int | None = None) -> list[dict[str, Any]]:
        """Answer each input, in order.

        An input is a text, or for a card with several `columns` a mapping from column to text. For
        token-classification it may also be a list of words, and for chat a list of {"role", "content"} or
        {"messages": that list, "tools": [...]}. Each of them may be given as JSON text.

        text-classification answers {"label", "score", "scores": {label: probability}}, multi-label-classification
        {"labels", "scores"}, and regression {"value"}. token-classification answers {"entities"} with {"label", "text",
        "start", "end", "score"} for each, where the score is that of its least certain word. With plain tags it answers
        {"tags"} with {"tag", "text", "start", "end", "score"} for each word. text-similarity answers {"embedding"} for
        a text, and {"value"}, the cosine, for a pair. All other tasks answer {"text"}, decoded greedily. Raises
        `ValueError` for an input that the task does not accept, before anything is computed.
        """
        if isinstance(inputs, str):
            raise ValueError("expected a list of inputs, got one text")
        return self._answers(
            [read_input(given, f"input {index}", self.card.task) for index, given in enumerate(inputs)], max_new_tokens
        )

    @abstractmethod
    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None, first: int = 0) -> list[dict[str, Any]]:
        """The answers to inputs that are valid texts; messages count them from `first` on.

        Raises `ValueError` for what the task does not accept.
        """

    @abstractmethod
    def misfit(self) -> str | None:
        """Why this graph cannot serve the card's task; None when it can. It follows the name of the file."""


def unknown_inputs(names: Sequence[str]) -> str | None:
    """A misfit for inputs that no runtime fills; None without any."""
    return f"has inputs that this runtime does not know: {', '.join(names)}" if names else None
