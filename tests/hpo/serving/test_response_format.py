"""`response_format`: whatever a model would like to write, its answer is JSON that fits the schema."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal
from hpo.serving.sampling import Sampler, Sampling
from hpo.serving.schemas import Schemas
from hpo.serving.served import Served, Shelf
from hpo.serving.step_loop import StepLoop
from tests.hpo.serving.conftest import Server, events
from trainers.runtime.release import Release
from trainers.runtime.write import Writer

CHAT = "/v1/chat/completions"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def asked(schema, **body):
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    return {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 60, "response_format": form, **body}


LEAVES = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "string", "pattern": "^[A-Z]{2}[0-9]?$"}]),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 4)),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-99, 99),
        st.integers(0, 99),
    ),
    st.builds(
        lambda some: {"enum": some},
        st.lists(st.sampled_from(["x", "yes no", "\n", 1, None, True, "Ä"]), min_size=1, unique_by=repr),
    ),
)


def objects(properties):
    names = sorted(properties)
    return {"type": "object", "properties": properties, "required": names[:2], "additionalProperties": False}


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda item, most: {"type": "array", "items": item, "maxItems": most}, inner, st.integers(0, 2)),
        st.builds(objects, st.dictionaries(st.sampled_from(["a", "b c", "ü", '"']), inner, max_size=3)),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 9), is_greedy=st.booleans())
def test_every_answer_that_ends_fits_its_schema(server, schema, seed, is_greedy):
    drawn = {} if is_greedy else {"temperature": 1.5, "seed": seed, "n": 2}
    response = server.post(CHAT, model="writer", **asked(schema, **drawn))
    assert response.status_code == 200, response.text
    for choice in response.json()["choices"]:
        if choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), schema)


def test_an_answer_ends_where_its_json_does(server):
    body = asked(PERSON, temperature=1.2, seed=3, n=4)
    choices = server.post(CHAT, model="writer", **body).json()["choices"]
    assert {choice["finish_reason"] for choice in choices} == {"stop"}
    people = [json.loads(choice["message"]["content"]) for choice in choices]
    for person in people:
        jsonschema.validate(person, PERSON)
    assert len({json.dumps(person) for person in people}) > 1
    streamed = ["", "", "", ""]
    for chunk in events(server.post(CHAT, model="writer", **body, stream=True).text):
        (choice,) = chunk["choices"]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == [choice["message"]["content"] for choice in choices]


def test_json_that_max_tokens_cuts_says_so(server):
    (choice,) = server.post(CHAT, model="writer", **asked(PERSON, max_tokens=4)).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith("{")


def test_any_object_and_any_text(server):
    body = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    json_object = server.post(CHAT, **body, response_format={"type": "json_object"}).json()
    assert json_object["choices"][0]["message"]["content"].startswith("{")
    plain = [
        server.post(CHAT, **body, **form).json()["choices"] for form in ({}, {"response_format": {"type": "text"}})
    ]
    assert plain[0] == plain[1]


def test_a_stop_string_ends_json_too(server):
    schema = {"type": "object", "properties": {"a": {"const": "one two"}}, "required": ["a"]}
    (choice,) = server.post(CHAT, model="writer", **asked(schema, stop="two")).json()["choices"]
    assert choice["message"]["content"].endswith('"one ')
    assert choice["finish_reason"] == "stop"


def test_log_probabilities_are_of_the_model_alone(server):
    body = asked({"const": "abc"}, logprobs=True, top_logprobs=1)
    (choice,) = server.post(CHAT, model="writer", **body).json()["choices"]
    assert choice["message"]["content"] == '"abc"'
    scores = choice["logprobs"]["content"]
    assert any(score["logprob"] < score["top_logprobs"][0]["logprob"] for score in scores)


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({"type": "xml"}, "response_format.type: expected text, json_object or json_schema, got 'xml'"),
        ({"type": "json_schema"}, "response_format.json_schema.schema is missing"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema is missing"),
        ({}, "response_format: Field required"),
        ("json", "response_format: "),
    ],
)
def test_a_format_that_is_wrong_is_refused(server, form, found):
    body = {"model": "writer", "messages": [{"role": "user", "content": "a"}], "response_format": form}
    error = server.post(CHAT, **body).json()["error"]
    assert (error["param"], error["type"]) == ("response_format", "invalid_request_error")
    assert error["message"].startswith(found)


@pytest.mark.parametrize(
    ("schema", "place", "found"),
    [
        ({"type": "strin"}, "", "Invalid type: strin"),
        ({"properties": {"a": {"items": {"not": {}}}}}, ".properties.a.items", 'Unimplemented keys: ["not"]'),
        ({"anyOf": [{"type": "null"}, {"format": "wibble", "type": "string"}]}, ".anyOf.1", "Unknown format: wibble"),
        ({"$defs": {"a": {"uniqueItems": True}}, "$ref": "#/$defs/a"}, ".$defs.a", "Unimplemented keys"),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}}, ".properties.a", "Pointer '/$defs/x' does not exist"),
        ({"properties": {"\x00": {"type": "b"}}}, ".properties.\\x00: Invalid type: b", ""),
        ({"type": "string", "pattern": "(" * 3000 + ")" * 3000}, "", "regex parse error"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "", "Unsatisfiable schema"),
        ({"$ref": "#"}, "", "the answer cannot go on"),
        ({"enum": ["x" * 33_000]}, "", "expected at most 32,000 characters, got 33,01"),
    ],
)
def test_a_schema_that_is_wrong_is_refused_with_the_place(server, schema, place, found):
    response = server.post(CHAT, model="writer", **asked(schema))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "response_format")
    assert error["message"].startswith(f"response_format.json_schema.schema{place}")
    assert found in error["message"]
    assert len(error["message"]) < 500


def test_levels_without_end_are_refused(server):
    schema: dict[str, object] = {}
    for _ in range(300):
        schema = {"items": schema}
    response = server.post(CHAT, model="writer", **asked(schema))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_schema")


def test_a_schema_that_takes_long_holds_up_nobody(server, monkeypatch):
    """It is compiled in a thread of its own; other answers come meanwhile, and other schemas do not wait for ever."""
    began, free, matched = threading.Event(), threading.Event(), Schemas._matched

    def slowly(self, schema):
        began.set()
        return free.wait(60) and matched(self, schema)

    async def flow():
        async with server.client() as client:

            async def status(body):
                return (await client.post(CHAT, json={"model": "writer", **body, "max_tokens": 2})).status_code

            slow = asyncio.create_task(status(asked(PERSON)))
            while not began.is_set():
                await asyncio.sleep(0.01)
            assert await status({**asked({}), "response_format": None}) == 200
            monkeypatch.setattr("hpo.serving.schemas._SECONDS", 0.05)
            assert await status(asked(PERSON)) == 503
            assert not slow.done()
            free.set()
            assert await slow == 200

    monkeypatch.setattr(Schemas, "_matched", slowly)
    monkeypatch.setattr("hpo.serving.schemas._SECONDS", 60)
    asyncio.run(flow())


def test_what_llguidance_s_limits_do_not_allow_is_refused(server):
    wide = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(900)}}
    error = server.post(CHAT, model="writer", **asked(wide)).json()["error"]
    assert (error["param"], error["code"]) == ("response_format", "schema_failed")


def test_a_pattern_that_takes_too_long_ends_its_own_answer(server):
    """What llguidance may spend on one token is bounded, whatever the pattern."""
    schema = {"type": "string", "pattern": r".*a.{2000}b.*c.{2000}"}
    began = time.monotonic()
    response = server.post(CHAT, model="writer", **asked(schema, temperature=2, seed=1))
    assert response.status_code in (200, 400)
    assert time.monotonic() - began < 30
    assert server.post(CHAT, model="writer", **asked(PERSON)).status_code == 200


def test_an_instruction_s_json_may_hold_what_begins_the_next_column(chat_release):
    release = Release.load(chat_release())
    card = dataclasses.replace(
        release.card, task="instruct", chat_template=None, columns=("ask",), prompt_template="Q: {ask}\nA:",
        after_answer="a", is_followed=True,
    )  # fmt: skip
    writer = Writer(card, release.tokenizer, release.session)
    shelf = Shelf([Served("it", writer, StepLoop(writer, Limits()), {})])
    body = asked({"const": " banana "})
    del body["messages"]
    (choice,) = Server(shelf).post("/v1/completions", prompt="fruit", **body).json()["choices"]
    shelf.close()
    assert json.loads(choice["text"]) == " banana "


def byte_fallback() -> Tokenizer:
    """As Llama's: pieces with spaces as bars, and bytes for what has none."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *'▁{}[]":,abc0123456789truefalsn']
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))  # noqa: S106
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@pytest.mark.parametrize("more", [-20, 0, 40])
def test_vocabularies_with_bytes_and_graphs_with_fewer_or_more_tokens(more):
    """A graph's vocabulary may be padded: what the tokenizer does not know is never chosen."""
    tokenizer = byte_fallback()
    form = asyncio.run(
        Schemas(tokenizer, [2]).form({"type": "string", "minLength": 3, "maxLength": 3, "pattern": "^ü"})
    )
    random = np.random.default_rng(0)
    for number in range(5):
        answer, ids = form.begun(), []
        sampler = Sampler(Sampling(1.0, 1.0, number), 0)
        while not answer.is_whole:
            logits = random.normal(size=tokenizer.get_vocab_size() + more).astype(np.float32)
            logits[tokenizer.get_vocab_size() :] = 99
            ids.append(answer.choose(logits, sampler.choose))
        said = json.loads(tokenizer.decode(ids))
        assert (said[0], len(said)) == ("ü", 3)


def test_a_vocabulary_without_brackets_is_refused_at_once():
    """As T5's, which has no braces."""
    vocabulary = {piece: number for number, piece in enumerate(["</s>", "▁", "a", "b"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.Metaspace()
    with pytest.raises(Refusal, match="no token of this model has"):
        asyncio.run(Schemas(tokenizer, [0]).form({"type": "object"}))
