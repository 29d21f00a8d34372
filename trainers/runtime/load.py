"""Loads the folder of a release: the kind of its model, and onnxruntime's session with options that were measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .bundle import Bundle
from .card import CLASSIFYING, CUTTING, REWRITING, SIMILARITY, Card, ReleaseError
from .classify import Classifier
from .embed import Embedder
from .options import SLOWER_FUSIONS, calls_at_once, providers, session_options
from .release import Release
from .rewrite import Rewriter
from .tag import Tagger
from .write import Writer


def kind_of(task: str) -> type[Release]:
    """The kind of release that answers for a task."""
    special: dict[str, type[Release]] = {"token-classification": Tagger, SIMILARITY: Embedder, REWRITING: Rewriter}
    return special.get(task, Classifier if task in CLASSIFYING else Writer)


def load(
    folder: Path, threads: int | None = None, tuned: Mapping[str, Any] | None = None, *, is_served: bool = False
) -> Release:
    """See `Release.load`; `tuned` are session options in place of the card's."""
    import onnxruntime as ort

    card = Card.read(folder)
    calls = calls_at_once(card) if is_served else None
    options = session_options(threads, card.session if tuned is None else tuned, calls)
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        names = ("model.onnx", "encoder.onnx")[: 2 if card.task == REWRITING else 1]
        sessions = [
            ort.InferenceSession(
                folder / name, options, providers=providers(card.target), disabled_optimizers=SLOWER_FUSIONS
            )
            for name in names
        ]
    except Exception as error:  # both libraries raise direct subclasses of Exception
        raise ReleaseError(f"{folder} cannot be loaded: {error}") from error
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = card.task in CUTTING  # "[SEP]" in a user's text is text
    release = (Bundle if card.adapters else kind_of(card.task))(card, tokenizer, *sessions)
    if problem := release.misfit():
        raise ReleaseError(f"{folder / 'model.onnx'} {problem}")
    if isinstance(release, Bundle):
        release.read(folder)
    return release
