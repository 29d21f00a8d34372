"""JSON that an answer must be: schemas compiled by llguidance, and the tokens that they allow next."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
from tokenizers import Tokenizer

from hpo.quoting import clipped, visible
from hpo.serving.refusal import Refusal, bad_request
from hpo.serving.schema_places import blamed
from trainers.runtime.scores import Floats

_PLACE = "response_format.json_schema.schema"
# Compiling takes the square of a schema's size: half a second for 32,000 characters, ten for 128,000.
_MOST_CHARACTERS = 32_000
_SECONDS = 10.0
"""How long a schema may wait for others and be compiled."""
_WRITTEN: Any = {"whitespace_pattern": r" |\n[ \t]{0,20}", "lenient": False}
"""Between two parts a space, or a line end and an indentation: with any whitespace, some models write nothing else."""
# llguidance bounds what one token may take, to some 50 ms; and the memory of an answer, here to 50 MB.
_LIMITS = llguidance.LLParserLimits(max_lexer_states=25_000, max_grammar_size=100_000, verbose_errors=False)


class Form:
    """A compiled schema, and how much of it an answer has filled."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int) -> None:
        """`vocabulary` is how many tokens the tokenizer has."""
        self._matcher = matcher
        self.vocabulary = vocabulary
        self._bits = llguidance.numpy.allocate_token_bitmask(1, vocabulary)

    def begun(self) -> Form:
        """The same for one answer."""
        return Form(self._matcher.deep_copy(), self.vocabulary)

    @property
    def is_whole(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())

    def choose(self, logits: Floats, choose: Callable[[Floats], int]) -> int:
        """The next token: what `choose` takes of the logits, float32 [vocabulary], of the tokens that are allowed.

        Raises `Refusal` where the schema cannot be followed any further.
        """
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")
        # A graph may have fewer tokens than the tokenizer, or more: its vocabulary is padded.
        allowed = np.flatnonzero(bits[: min(self.vocabulary, len(logits))])
        if not len(allowed) or self._matcher.is_error():
            raise self._refusal()
        token = int(allowed[choose(logits[allowed])])
        if not self._matcher.consume_token(token):
            raise self._refusal()
        return token

    def _refusal(self) -> Refusal:
        found = (
            f"{_PLACE}: the answer cannot go on ({self._matcher.stop_reason()}): the schema takes too much computing, "
            "or asks for characters that no token of this model has"
        )
        return bad_request(found, "response_format", "schema_failed")


class Schemas:
    """Compiles schemas for the vocabulary of one model, one at a time, in a thread beside everybody's answers."""

    def __init__(self, tokenizer: Tokenizer, ends: Sequence[int]) -> None:
        """`ends` are the tokens that end an answer."""
        self._tokenizer = tokenizer
        self._ends = list(ends)
        self._compiler = ThreadPoolExecutor(1, "schemas")

    async def form(self, schema: Mapping[str, Any]) -> Form:
        """A schema compiled. Raises `Refusal` for one that is wrong or too large, or when others take too long."""
        _check_size(schema)
        compiling = asyncio.get_running_loop().run_in_executor(self._compiler, self._compiled, schema)
        try:
            return await asyncio.wait_for(compiling, _SECONDS)
        except TimeoutError:
            raise Refusal(503, "the server is busy with other schemas; try again later", "response_format") from None

    def _compiled(self, schema: Mapping[str, Any]) -> Form:
        matcher, problem = self._matched(schema)
        if matcher is None:
            place = blamed(schema, problem, lambda part: self._matched(part)[1])
            found = visible(f"{clipped('.'.join([_PLACE, *place]), 150)}: {clipped(' '.join(problem.split()), 150)}")
            raise bad_request(found, "response_format", "invalid_schema")
        form = Form(matcher, self._tokenizer.get_vocab_size())
        # The first mask takes the longest, and a vocabulary without brackets fails here.
        form.begun().choose(np.zeros(form.vocabulary, dtype=np.float32), lambda logits: int(logits.argmax()))
        return form

    def _matched(self, schema: Mapping[str, Any]) -> tuple[llguidance.LLMatcher | None, str]:
        """What follows answers through a schema; or None, and what llguidance says against it."""
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_WRITTEN)
        except ValueError as error:  # it has too many levels
            return None, str(error)
        matcher = llguidance.LLMatcher(self._vocabulary, grammar, log_level=0, limits=_LIMITS)
        return (None, matcher.get_error()) if matcher.is_error() else (matcher, "")

    @cached_property
    def _vocabulary(self) -> llguidance.LLTokenizer:
        """The tokens as llguidance knows them: half a second of work, for which only those wait who ask for JSON."""
        slices = llguidance.LLTokenizer.json_slices()
        try:
            return llguidance.LLTokenizer(
                _with_known_decoder(self._tokenizer), eos_token=self._ends or None, slices=slices
            )
        except ValueError as error:
            found = f"response_format: this model's tokenizer cannot be guided: {clipped(str(error))}"
            raise bad_request(found, "response_format", "unsupported_parameter") from None


def _with_known_decoder(tokenizer: Tokenizer) -> str:
    """A tokenizer as JSON. llguidance does not know T5's way to spell a space, but Llama's, which writes the same."""
    spelled = json.loads(tokenizer.to_str())
    decoder = spelled["decoder"] or {}
    if decoder.get("type") == "Metaspace":
        bar = {"type": "Replace", "pattern": {"String": decoder["replacement"]}, "content": " "}
        spelled["decoder"] = {"type": "Sequence", "decoders": [bar, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return json.dumps(spelled)


def _check_size(schema: Mapping[str, Any]) -> None:
    """Raise `Refusal` for a schema that would take too long, or that has too many levels."""
    try:
        size = len(json.dumps(schema))
    except RecursionError:
        raise bad_request(f"{_PLACE}: has too many levels", "response_format", "invalid_schema") from None
    if size > _MOST_CHARACTERS:
        found = f"{_PLACE}: expected at most {_MOST_CHARACTERS:,} characters, got {size:,}"
        raise bad_request(found, "response_format", "invalid_schema")
