"""Answers from a released model. Loads no torch and no MLflow model wrapper: the release's own runtime."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hpo.errors import HpoError, UsageError
from hpo.paths import Home
from hpo.release.reference import version_named
from trainers.runtime.card import ReleaseError
from trainers.runtime.release import Release


def with_standard_input(texts: Sequence[str], lines: Iterable[str]) -> list[str]:
    """The texts as a person gives them, with the lines of the standard input in place of "-".

    An empty line is a text too, so that there is an answer for each line. Raises `UsageError` where there is no text.
    """
    given: list[str] = []
    for text in texts:
        given += [line.rstrip("\n") for line in lines] if text == "-" else [text]
    if not given:
        raise UsageError("the standard input is empty; expected one text a line")
    return given


def predict(home: Home, reference: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """One answer per text: labels and scores, a value, a vector, or generated text.

    Raises `UsageError` where no release has that name, or for a text that the model cannot take, and `HpoError` for a
    damaged release.
    """
    folder = version_named(home, reference).folder()
    try:
        return Release.load(folder).predict(list(texts))
    except ReleaseError as error:
        raise HpoError(f"{error}; run the sweep again to release it again") from error
    except ValueError as error:
        raise UsageError(_counted_from_1(str(error))) from error


def _counted_from_1(message: str) -> str:
    """A message of the runtime, which counts inputs from 0, with the number that a line has in an editor."""
    return re.sub(r"^input (\d+):", lambda found: f"text {int(found[1]) + 1}:", message)


def answer_line(answer: dict[str, Any]) -> str:
    """An answer on one line, for people."""
    if "label" in answer:
        return f"{answer['label']}  {answer['score']:.3f}"
    if "labels" in answer:
        return ", ".join(f"{label} {answer['scores'][label]:.3f}" for label in answer["labels"]) or "no label"
    if "entities" in answer:
        return ", ".join(f"{e['text']} {e['label']} {e['score']:.3f}" for e in answer["entities"]) or "no entity"
    if "tags" in answer:
        return " ".join(f"{word['text']}/{word['tag']}" for word in answer["tags"]) or "no word"
    if "embedding" in answer:
        first = " ".join(f"{number:.3f}" for number in answer["embedding"][:4])
        return f"{first} ... ({len(answer['embedding'])} numbers)"
    return f"{answer['value']:.4g}" if "value" in answer else str(answer["text"])
