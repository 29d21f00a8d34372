"""Prompts of a model that writes, as tokens; and its answers, as text again."""

from __future__ import annotations

import string
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from tokenizers import Tokenizer

from .card import REWRITING, Card
from .chat_template import ChatTemplate
from .control_tokens import ControlTokens, template_text
from .messages import Chat, Message, Tools, checked, turns_of
from .token_rules import TokenRules


class Prompts:
    """Makes tokens of chats, of filled templates and of plain texts."""

    def __init__(self, card: Card, tokenizer: Tokenizer) -> None:
        self.card = card
        self.tokenizer = tokenizer

    @cached_property
    def untemplated(self) -> Prompts:
        """The same for answers that a template neither begins nor ends."""
        card = replace(self.card, prompt_template=None, after_answer="", is_followed=False)
        return Prompts(card, self.tokenizer)

    def chat_ids(self, chat: Chat, max_new_tokens: int | None = None) -> list[int]:
        """Token ids of a chat, up to where the answer begins, cut so that the answer fits into the context.

        It first drops the oldest turns (never the system message), then the system message if it takes more than half
        of the space, then the beginning of the last user turn. Raises `ValueError` for a chat that is malformed or that
        the template refuses.
        """
        room = self.card.max_length - self.answer_length(max_new_tokens)
        if self.card.chat_template is None:
            if not isinstance(chat, str):
                raise ValueError("this model has no chat template; expected the prompt as one text")
            return self.continued_ids(chat, max_new_tokens)
        messages, tools = checked([{"role": "user", "content": chat}] if isinstance(chat, str) else chat)
        ids = self._rendered(messages, tools)
        return ids if len(ids) <= room else self._without_oldest_turns(messages, tools, room)

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
        room = self.card.max_length - self.answer_length(max_new_tokens) - len(begin)
        return [*begin, *ids[-room:]]

    def filled(self, parts: Mapping[str, str]) -> str:
        """The filled template; control tokens in the columns become text.

        A space at the end is left out: as in training, it is part of the answer.
        """
        if self.card.prompt_template is None:
            return parts[self.card.columns[0]]
        filled = ""
        for literal, name, *_ in string.Formatter().parse(self.card.prompt_template):
            filled += literal + ("" if name is None else self._control_tokens.apart(parts[name]))
        return filled.rstrip(" ")

    def decoded(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
        """The text of an answer, without what the template writes after it."""
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

    def is_over(self, ids: Sequence[int]) -> bool:
        """Whether an answer has reached the template's next column, which is no part of it."""
        after = self.card.after_answer
        if self.card.prompt_template is None or not self.card.is_followed or not after:
            return False
        return after in str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def _rendered(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        apart = self._control_tokens
        text = self._template.render(apart.in_messages(messages), apart.apart(tools), asks=True)
        return apart.encode([text], add_special_tokens=False)[0].ids

    def _without_oldest_turns(self, messages: Sequence[Message], tools: Tools, room: int) -> list[int]:
        """Drop as few of the oldest turns as possible; bisected, since every try renders the rest of the chat."""
        head, begins = turns_of(messages)

        def ids_from(begin: int) -> list[int]:
            return self._rendered([*head, *messages[begin:]], tools)

        fitting = bisect_left(begins, True, lo=1, key=lambda begin: len(ids_from(begin)) <= room)
        if fitting == len(begins):
            return self._cut_last_turn([*head, *messages[begins[-1] :]], tools, room)
        return ids_from(begins[fitting])

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.card.chat_template or "", self.card.template_tokens)

    @cached_property
    def _control_tokens(self) -> ControlTokens:
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

    def answer_length(self, wanted: int | None) -> int:
        """The answer's length in tokens: at most half of the context, so that a prompt always has the other half.

        Where the text is read apart from the answer, it may be as long as a text. Raises `ValueError` below 1.
        """
        wanted = self.card.generation["max_new_tokens"] if wanted is None else wanted
        if wanted < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {wanted}")
        return int(min(wanted, self.card.max_length // (1 if self.card.task == REWRITING else 2)))

    def rules(self, count: int) -> TokenRules:
        """What the tokens of an answer of at most `count` tokens must and must not be."""
        places = {"first": 0, "last": count - 1}
        return TokenRules(
            self.card.start_token_id,
            frozenset(self.card.eos_token_ids),
            {places[name]: token for name, token in self.card.forced_tokens.items()},
            self.card.generation.get("min_length", 0),
            self.card.generation.get("no_repeat_ngram_size", 0),
        )
