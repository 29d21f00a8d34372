"""The `openai` package as a client, unchanged: answers, streams, embeddings, models, its exceptions and its retries."""

from __future__ import annotations

import asyncio
import json
import math

import openai
import pytest

from hpo.serving.order import Order
from tests.hpo.serving.running import soon, started
from tests.trainers.conftest import family_workload
from tests.trainers.export.conftest import CORPUS, promoted
from trainers.runtime.release import Release

__all__ = ["family_workload", "promoted"]

KEY = "a-key-of-20-letters-"
HI = [{"role": "user", "content": "Hi"}]
DRAWN = {"temperature": 1.5, "seed": 3, "max_tokens": 16}


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none needed", max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture
def plain(chat_release, copy_of):
    """The folder of a release that continues texts."""
    folder = copy_of(chat_release())
    card = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps({**card, "task": "causal-lm", "chat_template": None}))
    return folder


def content(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_chat(client, chat_release):
    answer = client.chat.completions.create(model="writer", messages=HI)
    (wanted,) = Release.load(chat_release()).predict(["Hi"])
    assert answer.choices[0].message.content == wanted["text"]
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "writer"


def test_a_stream_with_usage(client):
    whole = client.chat.completions.create(model="writer", messages=HI, **DRAWN)
    options = {"include_usage": True}
    *chunks, last = client.chat.completions.create(
        model="writer", messages=HI, **DRAWN, stream=True, stream_options=options
    )
    assert content(chunks) == whole.choices[0].message.content
    assert (last.choices, last.usage) == ([], whole.usage)
    assert not any(chunk.usage for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_several_choices_stops_and_log_probabilities(client):
    asked = {"model": "writer", "messages": HI, **DRAWN}
    several = client.chat.completions.create(**asked, n=3, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    for choice in several.choices:
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in choice.logprobs.content)
    text = several.choices[0].message.content
    stopped = client.chat.completions.create(**asked, stop=[text[3:6]])
    assert stopped.choices[0].message.content == text[: text.index(text[3:6])]
    assert stopped.choices[0].finish_reason == "stop"
    chunks = list(client.chat.completions.create(**asked, stop=text[3:6], stream=True, logprobs=True))
    assert content(chunks) == stopped.choices[0].message.content
    assert any(chunk.choices[0].logprobs.content for chunk in chunks if chunk.choices[0].logprobs)


def test_the_helper_that_gathers_a_stream(client):
    asked = {"model": "writer", "messages": HI, **DRAWN}
    text = client.chat.completions.create(**asked).choices[0].message.content
    with client.chat.completions.stream(**asked, stop=text[3:6]) as stream:  # it takes no answer that was cut
        said = [event.delta for event in stream if event.type == "content.delta"]
        whole = stream.get_final_completion()
    assert "".join(said) == whole.choices[0].message.content == text[: text.index(text[3:6])]


def test_completions(plain):
    with started(Order({"plain": plain}, "127.0.0.1", 0)) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none needed", max_retries=0)
        asked = {"model": "plain", "prompt": ["The film was", "How are"], "max_tokens": 8}
        whole = client.completions.create(**asked, logprobs=2)
        assert [choice.text for choice in whole.choices] == [
            answer["text"] for answer in Release.load(plain).predict(asked["prompt"], 8)
        ]
        assert len(whole.choices[0].logprobs.tokens) == 8
        assert all(math.isfinite(logprob) for logprob in whole.choices[0].logprobs.token_logprobs)
        texts = ["", ""]
        for chunk in client.completions.create(**asked, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == [choice.text for choice in whole.choices]


def test_embeddings(promoted, tmp_path):
    """The client asks for base64 unless it is told otherwise, and decodes it."""
    _, _, release, _, _ = promoted("bert", "text-similarity")
    (folder,) = [card.parent for card in tmp_path.rglob("fp32/release.json")]
    with started(Order({"vectors": folder}, "127.0.0.1", 0)) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none needed", max_retries=0)
        found = client.embeddings.create(model="vectors", input=CORPUS[:3])
        plain = client.embeddings.create(model="vectors", input=CORPUS[:3], encoding_format="float")
    for packed, numbers, wanted in zip(found.data, plain.data, release.predict(CORPUS[:3]), strict=True):
        assert packed.embedding == pytest.approx(wanted["embedding"], abs=1e-5)
        assert numbers.embedding == pytest.approx(wanted["embedding"], abs=1e-5)
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0


def test_models(client):
    assert [model.id for model in client.models.list()] == ["judge", "writer"]
    assert client.models.retrieve("judge").owned_by == "hpo"


def test_its_exceptions(client):
    """One for each kind of refusal, with our message, param and code."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=HI)
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
    with pytest.raises(openai.BadRequestError, match="temperature") as wrong:
        client.chat.completions.create(model="writer", messages=HI, temperature=-1)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="has no vectors"):
        client.embeddings.create(model="judge", input="a")
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(model="writer", messages=[{"role": "user", "content": "a " * (3 << 20)}])
    assert (large.value.status_code, large.value.code) == (413, "body_too_large")


def test_a_wrong_key(encoder_release, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    with started(Order({"judge": encoder_release()}, "127.0.0.1", 0, keys)) as running:
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            openai.OpenAI(base_url=f"{running.url}/v1", api_key="another", max_retries=0).models.list()
        assert openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY).models.list().data[0].id == "judge"


def test_a_timeout_frees_the_row(running, client):
    hurried = client.with_options(timeout=0.02)
    for _ in range(3):
        with pytest.raises(openai.APITimeoutError):
            hurried.chat.completions.create(model="writer", messages=HI, max_tokens=64, n=8, temperature=2.0)
    assert soon(lambda: running.is_idle("writer"))


def test_a_stream_that_is_closed_frees_its_row(running, client):
    before = running.gauge("vllm:generation_tokens_total", "writer")
    for _ in range(4):
        stream = client.chat.completions.create(
            model="writer", messages=HI, max_tokens=64, n=8, temperature=2.0, stream=True
        )
        next(iter(stream))
        stream.close()
    assert soon(lambda: running.is_idle("writer"))
    assert running.gauge("vllm:generation_tokens_total", "writer") - before < 4 * 8 * 64
    assert client.chat.completions.create(model="writer", messages=HI, max_tokens=2).usage.completion_tokens <= 2


def test_a_full_queue_is_its_internal_server_error_and_its_retries_get_through(running):
    """72 answers are written or wait at most; the client comes again after the time that `Retry-After` names."""

    async def ask(retries):
        async with openai.AsyncOpenAI(
            base_url=f"{running.url}/v1", api_key="none needed", max_retries=retries, timeout=120
        ) as client:
            calls = [
                client.chat.completions.create(model="writer", messages=HI, max_tokens=32, n=8, temperature=2.0)
                for _ in range(24)
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

    refused = [found for found in asyncio.run(ask(0)) if isinstance(found, Exception)]
    assert refused
    for error in refused:
        assert isinstance(error, openai.InternalServerError)
        assert (error.status_code, error.code, error.response.headers["retry-after"]) == (503, "queue_full", "1")
    assert not [found for found in asyncio.run(ask(10)) if isinstance(found, Exception)]


def test_20_streams_at_once_get_their_own_answers(running, chat_release):
    texts = [" ".join(CORPUS[i % 5].split()[: 1 + i % 7]) for i in range(20)]

    async def gathered(client, text):
        stream = await client.chat.completions.create(
            model="writer", messages=[{"role": "user", "content": text}], max_tokens=12, stream=True
        )
        return content([chunk async for chunk in stream])

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none needed", max_retries=0) as client:
            return await asyncio.gather(*(gathered(client, text) for text in texts))

    assert asyncio.run(ask()) == [answer["text"] for answer in Release.load(chat_release()).predict(texts, 12)]
