"""A bundle: one base model, and many adapters on it, which answer the rows of one batch together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tokenizers import Tokenizer

from .adapters import AdaptedSession, Adapter, AdapterGraph
from .card import Card, ReleaseError
from .encoder import Encoder, Reading
from .inputs import from_json, parsed_json, read_input
from .release import Input, Release

if TYPE_CHECKING:
    import onnxruntime as ort

ADAPTERS = "adapters"
"""The folder of a bundle with its adapters."""


class Bundle(Release):
    """A base model with adapters, each of which is a release like any other by its name."""

    def __init__(self, card: Card, tokenizer: Tokenizer, session: ort.InferenceSession) -> None:
        super().__init__(card, tokenizer, session)
        self._graph = AdapterGraph(session)
        self._releases: Mapping[str, Release] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._releases)

    def __getitem__(self, name: str) -> Release:
        """The release that one adapter makes of the base. Raises `ValueError` for one that is not loaded."""
        releases = self.releases()
        if name not in releases:
            raise ValueError(f"unknown adapter {name[:100]!r}; expected one of {', '.join(list(releases)[:10])}")
        return releases[name]

    @property
    def champion(self) -> Release | None:
        """What answers inputs that name no adapter; None where each must name one, and while it is not loaded."""
        return self._releases.get(self.card.champion)

    def releases(self) -> Mapping[str, Release]:
        """What the adapters that are loaded now make of the base; adapters that come and go leave it unchanged."""
        return self._releases

    def read(self, folder: Path) -> None:
        """Load the adapters that the card names from a bundle's folder. Raises `ReleaseError`."""
        for name in self.card.adapters:
            self.add(name, folder / ADAPTERS / name)

    def add(self, name: str, folder: Path) -> Release:
        """Load an adapter, without loading the base again; one of that name is replaced.

        Requests to the one before end with it. Raises `ReleaseError` for an adapter that is damaged or of another base.
        """
        release = self.made(folder)
        self.put(name, release)
        return release

    def made(self, folder: Path) -> Release:
        """The release that an adapter makes of the base, before it has a name. Raises `ReleaseError`, as `add`."""
        from .load import kind_of  # late: it loads bundles too

        adapter = Adapter.read(folder)
        if adapter.card.task != self.card.task:
            raise ReleaseError(f"{folder} is an adapter for {adapter.card.task}; this base does {self.card.task}")
        try:
            adapted = self._graph.add(adapter)
        except ReleaseError as error:
            raise ReleaseError(f"{folder}: {error}") from None
        session = cast("ort.InferenceSession", adapted)
        return kind_of(adapter.card.task)(adapter.card, self._tokenizer_of(adapter.card), session)

    def put(self, name: str, release: Release) -> None:
        """Let what `made` gave answer to a name from now on, at once in place of the one before."""
        before = self._releases.get(name)
        self._releases = {**self._releases, name: release}
        if before is not None:
            self._graph.remove(_adapted(before))

    def remove(self, name: str) -> None:
        """Forget an adapter; what has begun with it ends with it. Raises `ValueError` for one that is not loaded."""
        adapted = _adapted(self[name])
        self._releases = {other: release for other, release in self._releases.items() if other != name}
        self._graph.remove(adapted)

    @property
    def tokens_per_batch(self) -> int:
        """As of any of its adapters, where they judge texts."""
        release = next(iter(self._releases.values()), None)
        return release.tokens_per_batch if isinstance(release, Encoder) else 0

    def answered(self, batch: Sequence[tuple[Encoder, Reading]]) -> list[dict[str, Any]]:
        """The answers to inputs that releases of this bundle have read, in one call of the graph."""
        first = batch[0][0]
        rows = [(release, encoding) for release, reading in batch for encoding in reading.encodings]
        feed = first.padded([encoding for _, encoding in rows])
        (outputs,) = self._graph.run(feed, [_adapted(release) for release, _ in rows], [first.output])
        # Where others have more labels, what is beyond an adapter's own is padding.
        found = (output[..., : release.width] for (release, _), output in zip(rows, outputs, strict=True))
        return [release.answer(reading, [next(found) for _ in reading.encodings]) for release, reading in batch]

    def _answers(self, inputs: Sequence[Any], max_new_tokens: int | None, first: int = 0) -> list[dict[str, Any]]:
        asked = [self._asked(given, f"input {index}") for index, given in enumerate(inputs, first)]
        answers: list[dict[str, Any]] = []
        for release, together in groupby(asked, key=itemgetter(0)):  # one call for those of one adapter in a row
            answers += release._answers([given for _, given in together], max_new_tokens, first + len(answers))
        return answers

    def predict(self, inputs: Sequence[Input], max_new_tokens: int | None = None) -> list[dict[str, Any]]:
        """Answer each input, in order: a mapping of `adapter` (its name) and `input`, or that as JSON text.

        What `input` is, and the answer, are those of the adapter (see `Release.predict`). Where the bundle has a
        champion, any other input is for that one, also a text that only looks so and names no adapter. Raises
        `ValueError` for an adapter that is not loaded, and for an input that it does not accept.
        """
        if isinstance(inputs, str):
            raise ValueError("expected a list of inputs, got one text")
        return self._answers(inputs, max_new_tokens)

    def _asked(self, given: object, where: str) -> tuple[Release, Input]:
        """The release that an input is for, and what it is asked."""
        champion = self.champion
        read = self._named(given) if isinstance(given, str) and champion is not None else from_json(given)
        if isinstance(read, Mapping) and set(read) == {"adapter", "input"} and isinstance(read["adapter"], str):
            release, given = self[read["adapter"]], read["input"]
        elif champion is not None:
            release = champion
        else:
            names = ", ".join(list(self)[:10])
            raise ValueError(f"{where}: expected a mapping of adapter (one of {names}) and input")
        return release, read_input(given, where, release.card.task)

    def _named(self, text: str) -> object:
        """What a text that anybody may have written is as JSON where it names an adapter; else None.

        MLflow's interface and command lines have texts alone to name an adapter with.
        """
        try:
            read = parsed_json(text)
        except ValueError:  # JSON of characters that no text may have; as they stand here they are escaped
            return None
        is_named = isinstance(read, Mapping) and any(read.get("adapter") == name for name in self)
        return read if is_named else None

    def _tokenizer_of(self, card: Card) -> Tokenizer:
        """The base's tokenizer, cut where this adapter was trained to read."""
        cut = self.tokenizer.truncation
        if cut is None or cut["max_length"] == card.max_length:
            return self.tokenizer
        own = Tokenizer.from_str(self.tokenizer.to_str())
        own.enable_truncation(card.max_length, strategy=cut["strategy"], direction=cut["direction"])
        own.encode_special_tokens = self.tokenizer.encode_special_tokens
        return own

    def misfit(self) -> str | None:
        return None if self.card.adapters else "is a base for adapters, but its card names none"


def _adapted(release: Release) -> AdaptedSession:
    return cast("AdaptedSession", release.session)
