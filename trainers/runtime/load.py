"""Loads the folder of a release: the kind of its model, and onnxruntime's session with options that were measured."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from .bundle import Bundle
from .card import CLASSIFYING, CUTTING, REWRITING, SIMILARITY, Card, ReleaseError
from .classify import Classifier
from .cores import usable_cores
from .embed import Embedder
from .release import Release
from .rewrite import Rewriter
from .tag import Tagger
from .write import Writer


def kind_of(task: str) -> type[Release]:
    """The kind of release that answers for a task."""
    special: dict[str, type[Release]] = {"token-classification": Tagger, SIMILARITY: Embedder, REWRITING: Rewriter}
    return special.get(task, Classifier if task in CLASSIFYING else Writer)


def load(folder: Path, threads: int | None = None) -> Release:
    """See `Release.load`."""
    import onnxruntime as ort

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
        names = ("model.onnx", "encoder.onnx")[: 2 if card.task == REWRITING else 1]
        sessions = [ort.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"]) for name in names]
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
