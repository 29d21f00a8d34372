"""Filters: nothing that one refuses or redacts reaches a model or a client, whole or streamed, on any route."""

from __future__ import annotations

import asyncio
import dataclasses
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpo.config.serve_config import FilterSpec, ServeConfig
from hpo.errors import HpoError, UsageError
from hpo.serving.admission import admit_chat, chat_of
from hpo.serving.block_list import BlockList, Phrases, read_phrases
from hpo.serving.classifier_filter import ClassifierFilter
from hpo.serving.filters import Exchange, Filter
from hpo.serving.folded import folded
from hpo.serving.function_filter import FunctionFilter, load_function
from hpo.serving.gate import Gate
from hpo.serving.limits import Limits
from hpo.serving.refusal import Refusal
from hpo.serving.served import Served, Shelf, engine_for
from hpo.serving.step_loop import StepLoop
from hpo.serving.watch import Watch, make_watch
from tests.hpo.serving.conftest import Server, Tags, Vectors, events
from tests.trainers.export.conftest import CORPUS
from trainers.runtime.release import Release
from trainers.runtime.write import Writer

CHAT = "/v1/chat/completions"
PHRASES = Phrases(["bad", "very bad word", "Straße", "c++", "脏话"])


def user(text):
    return [{"role": "user", "content": text}]


def refuse(*phrases):
    return Gate([BlockList("words", Phrases(phrases), "refuse")])


def redact(*phrases):
    return Gate([BlockList("words", Phrases(phrases), "redact")])


def function(judge, hold="answer"):
    return Gate([FunctionFilter("own", judge, hold)])


def watched(server, gate):
    return Server(server.shelf, watch=Watch(gate))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a BAD day", "a *** day"),
        ("badly, unbad", None),
        ("\uff42\uff41\uff44!", "***!"),
        ("b\u200ba\u00add", "*****"),
        ("b\x00ad", "****"),
        ("b\ufdd0ad", "****"),
        ("a very  Bad\nword.", "a ****  ***\n****."),
        ("very bad", "very ***"),
        ("STRASSE and stra\u00dfe", "******* and ******"),
        ("I like C++.", "I like ***."),
        ("说脏话吗", "说**吗"),
        ("bad\u0301 looks like it", "**** looks like it"),
        ("b\u0338a\u0338d\u0338", "******"),
        ("", None),
    ],
)
def test_a_phrase_is_found_however_it_is_written(text, masked):
    assert PHRASES.masked(text) == masked


def test_a_composed_word_and_its_parts_are_one():
    phrases = Phrases(["café"])
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        written = unicodedata.normalize(form, "Café")
        assert phrases.masked(written) == "*" * len(written)
    hangul = Phrases(["각"])
    assert hangul.masked(unicodedata.normalize("NFD", "각")) == "***"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_a_folded_text_knows_its_places(text):
    equal = folded(text)
    assert len(equal.text) == len(equal.starts) == len(equal.ends)
    assert all(0 <= start < end <= len(text) for start, end in zip(equal.starts, equal.ends, strict=True))
    assert list(equal.starts) == sorted(equal.starts)


def test_folding_many_marks_takes_no_time():
    assert folded("a" + "\u0301\u0327" * 200_000).text.startswith("\u00e1")


PARTS = [
    "bad", "very ", "b", "ad", " word", "Bad", " ", "\u0301", "\uff42", "x", ". ", "c+", "+", "脏", "话", "\u200b",
    "\u2100", "\u093c",
]  # fmt: skip
PIECES = st.lists(st.sampled_from(PARTS), max_size=14)


def streamed(gate, pieces):
    """What leaves of an answer that comes in pieces, and its screen."""

    async def run():
        screen = gate.passage("m").screen()
        left = [await screen.passed(piece, is_end=False) for piece in pieces]
        return [*left, await screen.passed("", is_end=True)], screen

    return asyncio.run(run())


@given(PIECES)
def test_a_stream_leaves_as_the_whole_would(pieces):
    text = "".join(pieces)
    whole, _ = streamed(redact("bad", "very bad word", "c++", "脏话"), [text])
    left, screen = streamed(redact("bad", "very bad word", "c++", "脏话"), pieces)
    assert "".join(left) == "".join(whole)
    assert not screen.is_refused
    refused, screen = streamed(refuse("bad", "very bad word"), pieces)
    is_there = Phrases(["bad", "very bad word"]).masked(text) is not None
    assert screen.is_refused == is_there
    assert Phrases(["bad", "very bad word"]).masked("".join(refused)) is None


def test_only_what_may_become_a_phrase_is_held_back():
    left, _ = streamed(refuse("very bad word"), ["one ", "two ", "very ", "bad ", "day ", "end"])
    assert left == ["", "one ", "two ", "", "very bad ", "day ", "end"]


def test_sentences_or_the_whole_answer_are_judged_at_once():
    seen = []

    def judge(exchange):
        seen.append(exchange.completion)
        return exchange.redact(exchange.text.upper())

    pieces = ["One. T", "wo! ", "Three"]
    left, screen = streamed(function(judge, "sentence"), pieces)
    assert "".join(left) == "ONE. TWO! THREE"
    assert seen == ["One.", " Two!", " Three"]
    assert screen.decisions == {"own": "redacted"}
    seen.clear()
    assert streamed(function(judge), pieces)[0] == ["", "", "", "ONE. TWO! THREE"]
    assert seen == ["One. Two! Three"]


def test_filters_follow_each_other_and_the_first_refusal_ends_it():
    seen = []

    def judge(exchange):
        seen.append(exchange.text)
        return exchange.refuse("violence") if "knife" in exchange.text else exchange.allow()

    gate = Gate([*redact("bad"), *function(judge)])
    assert streamed(gate, ["a bad ", "day"])[0][-1] == "a *** day"
    left, screen = streamed(gate, ["a bad ", "knife"])
    assert ("".join(left), screen.is_refused) == ("", True)
    assert screen.decisions == {"words": "redacted", "violence": "refused"}
    assert seen == ["a *** day", "a *** knife"]
    assert gate.counts == {("words", "redacted"): 2, ("own", "allowed"): 1, ("own", "refused"): 1}


BODIES = {
    "/v1/classify": {"model": "judge", "input": ["rain", "a \uff22ad film"]},
    "/v1/embeddings": {"model": "vectors", "input": ["rain", "a bad film"]},
    CHAT: {"model": "writer", "messages": user("a bad day")},
    "/v1/completions": {"model": "plain", "prompt": "a bad day"},
}
"""A request to each route that answers, with `bad` in it."""


@pytest.fixture(scope="module")
def all_kinds(encoder_release, chat_release):
    """Serves a model for each route."""
    judge, chat = Release.load(encoder_release()), Release.load(chat_release())
    card = dataclasses.replace(chat.card, task="causal-lm", chat_template=None)
    models = {
        "judge": judge, "writer": chat, "plain": Writer(card, chat.tokenizer, chat.session),
        "vectors": Vectors(dataclasses.replace(judge.card, task="text-similarity"), judge.tokenizer, judge.session),
    }  # fmt: skip
    shelf = Shelf([Served(name, one, engine_for(name, one, Limits()), {}) for name, one in models.items()])
    yield Server(shelf)
    shelf.close()


def test_every_route_that_answers_goes_through_the_gate(all_kinds):
    """A route that is new fails here until it has a body above, and passes only where a filter refuses that body."""
    schema = all_kinds.call("GET", "/openapi.json").json()
    routes = {path for path, methods in schema["paths"].items() if "post" in methods and path.startswith("/v1/")}
    assert routes == set(BODIES)
    for path, body in BODIES.items():
        assert all_kinds.post(path, **body).status_code == 200
        gate = refuse("bad")
        response = watched(all_kinds, gate).post(path, **body)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "content_filter"), path
        assert error["innererror"] == {
            "code": "ResponsibleAIPolicyViolation", "content_filter_result": {"words": {"filtered": True}},
        }  # fmt: skip
        assert gate.counts["words", "refused"] == 1


def test_a_filter_that_fails_lets_nothing_pass(all_kinds, capfd):
    for broken in (lambda exchange: 1 / 0, lambda exchange: None, lambda exchange: True):
        for path, body in BODIES.items():
            gate = function(broken)
            response = watched(all_kinds, gate).post(path, **body)
            assert (response.status_code, response.json()["error"]["code"]) == (500, "filter_failed")
            assert gate.counts["own", "failed"] > 0
    said = capfd.readouterr().err
    assert "ZeroDivisionError" in said
    assert "bad" not in said


def test_an_answer_that_a_filter_fails_on_does_not_leave(all_kinds):
    def judge(exchange):
        return exchange.allow() if exchange.completion is None else 1 / 0

    server = watched(all_kinds, function(judge))
    assert server.post(CHAT, **BODIES[CHAT]).status_code == 500
    *chunks, last = events(server.post(CHAT, **BODIES[CHAT], stream=True).text)
    assert last["error"]["code"] == "filter_failed"
    assert not any(chunk["choices"][0]["delta"].get("content") for chunk in chunks)


def test_a_model_reads_what_was_redacted(all_kinds):
    """Its answers to `a *** film` and to `a bad film` are the same, also of pairs, words and columns."""
    server = watched(all_kinds, redact("bad"))
    for path, key in [("/v1/classify", "input"), ("/v1/embeddings", "input"), ("/v1/completions", "prompt")]:
        body = {**BODIES[path], key: "a bad film", "seed": 1}
        plain = all_kinds.post(path, **{**body, key: "a *** film"}).json()
        found = server.post(path, **body).json()
        entries = found.get("data") or found["choices"]
        results = entries[0].pop("content_filter_results")
        assert entries == (plain.get("data") or plain["choices"])
        assert "words" in results or path == "/v1/completions"


def test_words_stay_in_their_places(encoder_release):
    judge = Release.load(encoder_release())
    card = dataclasses.replace(judge.card, task="token-classification", labels=("NOUN", "VERB", "O"))
    tagger = Tags(card, judge.tokenizer, judge.session)
    served = Served("tags", tagger, engine_for("tags", tagger, Limits()), {})
    server = Server(Shelf([served]), watch=Watch(redact("very bad")))
    for words in (["a", "very", "bad", "day"], "a very bad day", '["a", "very", "bad", "day"]'):
        (answer,) = server.post("/v1/classify", input=[words]).json()["data"]
        tags = [(tag["text"], tag["start"]) for tag in answer["tags"]]
        if isinstance(words, list) or words.startswith("["):
            assert tags == [("a", 0), ("****", 2), ("***", 7), ("day", 11)]
        assert "very" not in str(tags)
    hidden = server.post("/v1/classify", input=[["a", "b\ufdd0ad"]])
    assert (hidden.status_code, "U+FDD0" in hidden.text) == (400, True)
    shorter = function(lambda exchange: exchange.redact("shorter"))
    refused = Server(Shelf([served]), watch=Watch(shorter)).post("/v1/classify", input=[["a", "day"]])
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "filter_failed")
    served.engine.close()


def test_decisions_are_said_by_category(all_kinds):
    server = watched(all_kinds, redact("bad"))
    (entry, _) = server.post("/v1/classify", model="judge", input=["a bad film", "rain"]).json()["data"]
    assert entry["content_filter_results"] == {"words": {"filtered": False, "redacted": True}}
    whole = server.post(CHAT, model="writer", messages=user("a bad day"), max_tokens=8).json()
    assert whole["prompt_filter_results"] == [
        {"prompt_index": 0, "content_filter_results": {"words": {"filtered": False, "redacted": True}}}
    ]
    assert "content_filter_results" in whole["choices"][0]
    assert "content_filter_results" not in all_kinds.post(CHAT, model="writer", messages=user("hi")).text


@pytest.mark.parametrize("levels", [150, 300, 480, 700, 900, 100_000])
def test_json_of_many_levels_is_no_error_of_the_server(all_kinds, levels):
    deep = '{"a": ' * levels + "1" + "}" * levels
    bodies = {
        "/v1/classify": f'{{"model": "judge", "input": [{deep}]}}',
        "/v1/completions": f'{{"model": "plain", "prompt": {deep}}}',
        CHAT: '{"model": "writer", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}], '
        f'"tools": [{{"name": "b", "parameters": {deep}}}]}}',
    }
    for server in (all_kinds, watched(all_kinds, refuse("bad"))):
        for path, body in bodies.items():
            response = server.call("POST", path, content=body, headers={"content-type": "application/json"})
            assert response.status_code in (200, 400), (path, response.text)
    if levels == 900:
        assert "too many levels" in response.text


def test_an_answer_ends_where_a_filter_refuses_it(all_kinds):
    body = {"model": "writer", "messages": user(CORPUS[0]), "max_tokens": 30, "n": 2}
    texts = [c["message"]["content"] for c in all_kinds.post(CHAT, **body).json()["choices"]]
    assert len(texts[0]) > 10

    def judge(exchange):
        return exchange.allow() if exchange.completion is None else exchange.refuse("secrets")

    server = watched(all_kinds, function(judge))
    for choice in server.post(CHAT, **body).json()["choices"]:
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", "content_filter")
        assert choice["content_filter_results"] == {"secrets": {"filtered": True}}
    chunks = events(server.post(CHAT, **body, stream=True).text)
    ends = [c["choices"][0] for c in chunks if c["choices"][0]["finish_reason"]]
    assert [end["finish_reason"] for end in ends] == ["content_filter"] * 2
    assert not any(c["choices"][0]["delta"].get("content") for c in chunks)


def test_a_refused_answer_frees_its_row(chat_release):
    release = Release.load(chat_release())
    loop = StepLoop(release, Limits())

    def judge(exchange):
        return exchange.allow() if exchange.completion is None else exchange.refuse("x")

    gate = Gate([FunctionFilter("own", judge, "sentence"), *redact("never")])
    server = Server(Shelf([Served("writer", release, loop, {})]), watch=Watch(gate))
    for _ in range(12):  # more than there are rows
        assert server.post(CHAT, messages=user(CORPUS[0]), max_tokens=30).status_code == 200
    assert server.post(CHAT, messages=user("Hi"), max_tokens=2).status_code == 200
    loop.close()


def test_log_probabilities_would_show_what_is_held_back(all_kinds):
    refused = watched(all_kinds, refuse("bad")).post(CHAT, model="writer", messages=user("hi"), logprobs=True)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprobs")


def test_everything_that_a_template_prints_of_a_chat_is_judged():
    call = {"function": {"name": "look", "arguments": '{"q": "b\\u0061d"}'}}
    tool = {"type": "function", "function": {"name": "look", "parameters": {"properties": {"bad": {}}}}}
    chats = [
        {"messages": [{"role": "system", "content": "bad"}, *user("a")]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "ad"}]}]},
        {"messages": [*user("a"), {"role": "assistant", "content": None, "tool_calls": [call]}, *user("a")]},
        {"messages": [*user("a"), {"role": "assistant", "content": "a", "reasoning_content": "bad"}, *user("a")]},
        {"messages": [{"role": "user", "content": "a", "name": "bad"}]},
        {"messages": user("a"), "tools": [tool]},
    ]
    for chat in chats:
        with pytest.raises(Refusal, match="a filter refused the prompt: words"):
            asyncio.run(admit_chat(refuse("bad").passage("m"), chat_of(chat)))
    passed = asyncio.run(admit_chat(refuse("user", "content", "role").passage("m"), chat_of(chats[0])))
    assert passed == chat_of(chats[0])


def test_numbers_in_a_chat_are_judged():
    """A template prints them; redacted, they are texts."""
    number = {"function": {"name": "call", "arguments": {"phone": 5550199, "price": 2.5, "is_new": True}}}
    tool = {"name": "call", "parameters": {"properties": {"phone": {"enum": [5550199, 7]}}}}
    chat = chat_of(
        {"messages": [*user("a"), {"role": "assistant", "tool_calls": [number]}, *user("b")], "tools": [tool]}
    )
    with pytest.raises(Refusal):
        asyncio.run(admit_chat(refuse("5550199").passage("m"), chat))
    passed = asyncio.run(admit_chat(redact("5550199").passage("m"), chat))
    (call,) = passed["messages"][1]["tool_calls"]
    assert call["function"]["arguments"] == {
        "phone": "*******",
        "price": 2.5,
        "is_new": True,
    }
    assert passed["tools"][0]["parameters"]["properties"]["phone"]["enum"] == ["*******", 7]
    assert asyncio.run(admit_chat(refuse("6").passage("m"), chat)) == chat


def test_the_character_that_the_runtime_leaves_out_hides_nothing(all_kinds):
    seen = []

    def judge(exchange):
        seen.append(exchange.text)
        return exchange.refuse("x") if "bad" in exchange.text else exchange.allow()

    server = watched(all_kinds, function(judge))
    for path, key, hidden in [
        (CHAT, "messages", user("b\ufdd0ad")),
        ("/v1/completions", "prompt", "b\ufdd0ad"),
        ("/v1/classify", "input", "b\ufdd0ad"),
    ]:
        response = server.post(path, **{**BODIES[path], key: hidden})
        assert response.json()["error"]["code"] == "content_filter", path
    assert seen == ["bad"] * 3


def test_a_classifier_refuses_what_its_label_is_likely_of(encoder_release, all_kinds):
    release = Release.load(encoder_release())
    texts = [*CORPUS[:5], "rain"]
    scores = [answer["scores"]["bad"] for answer in release.predict(texts)]
    middle = sorted(scores)[len(scores) // 2]
    one = ClassifierFilter("tone", release, {"bad": middle, "good": 1.0}, "answer")

    async def decisions():
        return [(await one.judge(Exchange("m", text, None, "tone"))).decisions["bad"] for text in texts]

    assert asyncio.run(decisions()) == ["refused" if score >= middle else "allowed" for score in scores]
    text = texts[max(range(len(texts)), key=lambda i: scores[i])]
    response = watched(all_kinds, Gate([one])).post("/v1/classify", model="judge", input=text)
    assert response.json()["error"]["innererror"]["content_filter_result"] == {
        "bad": {"filtered": True}, "good": {"filtered": False},
    }  # fmt: skip
    one.close()


def test_a_classifier_reads_all_of_a_long_text(encoder_release):
    """Its model reads 24 tokens: what comes after them is judged too."""
    one = ClassifierFilter("tone", Release.load(encoder_release()), {"bad": 0.9}, "answer")
    text = " ".join(CORPUS)
    parts = one._parts(text)
    assert len(parts) > 5
    assert text.startswith(parts[0])
    assert text.endswith(parts[-1])
    covered = 0
    for part in parts:
        start = text.index(part, max(0, covered - len(part)))
        assert start <= covered
        covered = start + len(part)
    assert one._parts("   ") == []
    one.close()


def test_a_classifier_is_loaded_as_a_served_model_is(encoder_release, copy_of, monkeypatch):
    """Its judge makes a call for each core: with a thread each, as they would wait for each other with more."""
    monkeypatch.setattr("trainers.runtime.options.usable_cores", lambda: 2)
    spec = FilterSpec("classifier", "tone", str(copy_of(encoder_release())), thresholds={"bad": 0.9})
    watch = make_watch(ServeConfig((spec,)))
    (one,) = watch.gate
    assert len(one._judge._threads) == 2
    assert one._judge._release.session.get_session_options().intra_op_num_threads == 1
    watch.close()
    monkeypatch.setattr("trainers.runtime.classify.Classifier.predict", lambda *_: 1 / 0)
    with pytest.raises(HpoError, match=r"tone: .* cannot answer its own example: ZeroDivisionError"):
        make_watch(ServeConfig((spec,)))


def test_a_classifier_judges_as_many_long_texts_as_a_request_may_have(encoder_release, all_kinds):
    """Their parts are more than its queue holds."""
    one = ClassifierFilter("tone", Release.load(encoder_release()), {"good": 1.0}, "answer")
    texts = [" ".join(CORPUS)] * 512
    assert len(one._parts(texts[0])) * len(texts) > Limits().waiting_inputs
    response = watched(all_kinds, Gate([one])).post("/v1/classify", model="judge", input=texts)
    assert (response.status_code, len(response.json()["data"])) == (200, 512)
    one.close()


class Slow(Filter):
    """Refuses what begins with `bad` at once, and thinks without end about everything else."""

    def __init__(self):
        super().__init__("slow")
        self.thinking = 0

    def certain(self, text):
        return len(text)

    async def judge(self, exchange):
        if exchange.text.startswith("bad"):
            await asyncio.sleep(0.05)
            return exchange.refuse("bad")
        self.thinking += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.thinking -= 1


def test_with_the_first_refusal_nothing_more_is_judged(all_kinds):
    slow = Slow()

    async def flow():
        async with watched(all_kinds, Gate([slow])).client() as client:
            body = {"model": "judge", "input": ["a", "bad", "b", "bad too"]}
            response = await client.post("/v1/classify", json=body)
            return response, slow.thinking

    response, thinking = asyncio.run(flow())
    assert (response.json()["error"]["code"], thinking) == ("content_filter", 0)


@pytest.mark.parametrize(
    ("path", "body", "limits"),
    [
        ("/v1/classify", {"input": ["a", "b"]}, {"waiting_inputs": 5}),
        (CHAT, {"messages": user("a"), "n": 2}, {"waiting_answers": 5}),
        ("/v1/completions", {"prompt": ["a"], "n": 2}, {"waiting_answers": 5}),
    ],
)
def test_what_is_with_the_filters_has_its_place_in_the_queue(encoder_release, chat_release, path, body, limits):
    release = Release.load(encoder_release() if path == "/v1/classify" else chat_release())
    if path == "/v1/completions":
        card = dataclasses.replace(release.card, task="causal-lm", chat_template=None)
        release = Writer(card, release.tokenizer, release.session)
    bad = {key: value if key == "n" else user("bad") if key == "messages" else "bad" for key, value in body.items()}
    served, slow = Served("it", release, engine_for("it", release, Limits(**limits)), {}), Slow()

    async def flow():
        async with Server(Shelf([served]), limits=Limits(**limits), watch=Watch(Gate([slow]))).client() as client:
            judged = [asyncio.create_task(client.post(path, json=body)) for _ in range(2)]
            while slow.thinking < (4 if path == "/v1/classify" else 2):
                await asyncio.sleep(0.01)
            refused = await client.post(path, json=body)
            for task in judged:
                task.cancel()
            await asyncio.gather(*judged, return_exceptions=True)
            return refused, await client.post(path, json=bad)

    refused, judged = asyncio.run(flow())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    assert judged.json()["error"]["code"] == "content_filter"
    served.close()


def test_more_prompts_than_the_queue_holds_are_never_answered_later(all_kinds):
    response = all_kinds.post("/v1/completions", model="plain", prompt=["a"] * 33, n=2)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")
    assert "expected 1 to 64 answers, got 33 prompts with n: 2" in response.text


def test_a_function_comes_from_a_file(tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("def check(exchange):\n    return exchange.refuse('x')\nother = 1\n")
    assert load_function(file, "check")(Exchange("m", "p")).decisions == {"x": "refused"}
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Rule:\n"
        "    category: str\n\ndef check(exchange):\n    return exchange.refuse(Rule('x').category)\nother = 1\n"
    )
    first, second = load_function(file, "check"), load_function(file, "check")
    assert first(Exchange("m", "p")).decisions == {"x": "refused"}
    assert first.__module__ != second.__module__
    for name in ("other", "none"):
        with pytest.raises(UsageError, match=f"has no function '{name}'"):
            load_function(file, name)
    file.write_text("import re\nraise RuntimeError('no')\n")
    with pytest.raises(UsageError, match=r"rules\.py:2: RuntimeError: no"):
        load_function(file, "check")


def test_a_function_says_what_it_decides():
    exchange = Exchange("m", "a prompt", None, "own")
    assert exchange.redact("other").text == "other"
    for wrong in (lambda: exchange.redact(None), lambda: exchange.refuse(""), lambda: exchange.refuse(None)):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(dataclasses.FrozenInstanceError):
        exchange.prompt = "changed"


def test_decisions_are_counted_for_prometheus(all_kinds):
    server = watched(all_kinds, refuse("bad"))
    assert server.post("/v1/classify", model="judge", input="bad").status_code == 400
    lines = list(server.watch.lines())
    assert 'hpo:filter_decisions_total{filter="words",decision="refused"} 1' in lines
    assert lines[2] in server.call("GET", "/metrics").text


def test_a_block_list_is_a_file_of_phrases(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffbad\n\n  very bad word \r\n", encoding="utf-8")
    assert read_phrases(tmp_path / "words.txt") == ["bad", "very bad word"]


@given(st.text(alphabet=st.sampled_from("aé\u0301\u1100\u1161\u11a8 각\uff76\uff9e漢\u200bB\n"), max_size=30))
@example("a\uff9e\u0301")
def test_folding_by_pieces_is_folding_the_whole(text):
    """But for marks that make no letter and what shows nothing."""
    seen = text.replace("\u200b", "")
    whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())
    assert folded(text).text == "".join(c for c in whole if unicodedata.combining(c) < 200)
