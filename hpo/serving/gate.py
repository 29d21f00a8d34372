"""The one way through all filters: a prompt before anything is computed, an answer before anything leaves."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hpo.serving.filters import DECISIONS, Decision, Exchange, Filter, Verdict, as_json
from hpo.serving.function_filter import place_of
from hpo.serving.refusal import Refusal
from trainers.runtime.control_tokens import BREAK

_AZURES_CODE = "ResponsibleAIPolicyViolation"
"""What clients that know Azure's content filter look for."""


class Gate:
    """The filters of a server, in their order. Without any it lets everything pass."""

    def __init__(self, filters: Sequence[Filter] = ()) -> None:
        self._filters = tuple(filters)
        self.counts: Counter[tuple[str, str]] = Counter()
        """Texts by filter and decision; `failed` where a filter gave none."""

    def __bool__(self) -> bool:
        return bool(self._filters)

    def __iter__(self) -> Iterator[Filter]:
        return iter(self._filters)

    def passage(self, model: str, what: str = "the prompt") -> Passage:
        """The way of a prompt, or of `what` a message calls it, to a model, and of its answers back."""
        return Passage(self, model, what)

    async def decide(self, one: Filter, exchange: Exchange) -> Verdict:
        """What a filter decides. Raises `Refusal`, 500 where the filter fails."""
        try:
            verdict = await one.judge(exchange)
        except Refusal:
            self.counts[one.name, "failed"] += 1
            raise
        except Exception as error:  # an operator's function may raise anything
            self.counts[one.name, "failed"] += 1
            # Without its message, which may quote the text.
            print(f"filter {one.name} failed: {place_of(error)}: {type(error).__name__}", file=sys.stderr, flush=True)
            raise Refusal(500, f"the filter {one.name} failed", code="filter_failed") from error
        return verdict

    def lines(self) -> Iterator[str]:
        """The counts as lines of Prometheus's text."""
        name = "hpo:filter_decisions_total"
        yield f"# HELP {name} Texts that a filter judged, by what it decided."
        yield f"# TYPE {name} counter"
        for one in self:
            for decision in (*DECISIONS, "failed"):
                yield f'{name}{{filter="{one.name}",decision="{decision}"}} {self.counts[one.name, decision]}'

    def close(self) -> None:
        """End what works for the filters."""
        for one in self:
            one.close()


class RefusedText(NamedTuple):
    """A text of a prompt that did not pass."""

    filter: str
    """The name of the filter that refused it."""
    categories: tuple[str, ...]
    """What it was refused for."""
    text: str
    """As the filter saw it: what filters before it had redacted is redacted."""


class Passage:
    """A prompt on its way through the filters."""

    def __init__(self, gate: Gate, model: str, what: str) -> None:
        self.decisions: dict[str, Decision] = {}
        """Of the prompt, by category."""
        self.prompt = ""
        """What filters see of the prompt when they judge an answer to it."""
        self.refused: RefusedText | None = None
        """What ended its way."""
        self._gate = gate
        self._model = model
        self._what = what

    async def admit(self, text: str, param: str) -> str:
        """What may pass of a text of the prompt; `param` is its key of the body. Raises `Refusal`."""
        if self._gate:
            text = text.replace(BREAK, "")  # the model does not see it: filters shall read what the model reads
        for one in self._gate:
            if not text.strip():
                break
            verdict = await self._gate.decide(one, Exchange(self._model, text, None, one.name))
            self._gate.counts[one.name, verdict.hardest] += 1
            _keep_hardest(self.decisions, verdict.decisions)
            if verdict.hardest == "refused":
                categories = tuple(name for name, decision in verdict.decisions.items() if decision == "refused")
                self.refused = RefusedText(one.name, categories, text)
                raise self._refusal(categories, param)
            text = verdict.text
        return text

    def _refusal(self, categories: Sequence[str], param: str) -> Refusal:
        inner = {"code": _AZURES_CODE, "content_filter_result": as_json(self.decisions)}
        found = f"a filter refused {self._what}: {', '.join(categories)}"
        return Refusal(400, found, param, "content_filter", inner)

    def screen(self) -> Screen:
        """The filters for one answer to the prompt."""
        return Screen(self._gate, self._model, self.prompt)


class Screen:
    """An answer on its way through the filters while it is written: what a filter cannot judge yet is held back."""

    def __init__(self, gate: Gate, model: str, prompt: str) -> None:
        self.decisions: dict[str, Decision] = {}
        """Of the answer so far, by category."""
        self.is_refused = False
        """After that nothing of the answer passes."""
        self._gate = gate
        self._model = model
        self._prompt = prompt
        self._held = dict.fromkeys(gate, "")
        self._hardest: dict[str, Decision] = {}
        """Of the answer so far, by filter: it counts once, in however many parts it was judged."""

    @property
    def has_filters(self) -> bool:
        """Whether anything is judged at all."""
        return bool(self._held)

    async def passed(self, text: str, is_end: bool) -> str:
        """What may leave now that the answer goes on with `text`; at its end, the rest. Raises `Refusal`."""
        for one, before in self._held.items():
            so_far = before + text
            cut = len(so_far) if is_end else one.certain(so_far)
            text, self._held[one] = so_far[:cut], so_far[cut:]
            if not text.strip():
                continue
            verdict = await self._gate.decide(one, Exchange(self._model, self._prompt, text, one.name))
            _keep_hardest(self.decisions, verdict.decisions)
            _keep_hardest(self._hardest, {one.name: verdict.hardest})
            if verdict.hardest == "refused":
                self.is_refused, text = True, ""
                break
            text = verdict.text
        if is_end or self.is_refused:
            self._gate.counts.update(self._hardest.items())
        return text


def _keep_hardest(kept: dict[str, Decision], more: Mapping[str, Decision]) -> None:
    for category, decision in more.items():
        kept[category] = max(kept.get(category, "allowed"), decision, key=DECISIONS.index)
