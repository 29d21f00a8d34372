"""The released model: the same tokens as transformers, the same numbers as torch, nothing else to install."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, processors
from transformers import AutoTokenizer

from tests.trainers.export.conftest import (
    CONTEXT,
    CORPUS,
    LABELS,
    MAX_LENGTH,
    chat_tokenizer,
    release,
    tiny_decoder,
    tiny_encoder,
    wordpiece_tokenizer,
)
from trainers.data.sources import Row
from trainers.runtime import __main__ as command
from trainers.runtime import cache, encoder
from trainers.runtime.card import ReleaseError
from trainers.runtime.load import kind_of
from trainers.runtime.release import Release
from trainers.runtime.tag import Tagger
from trainers.runtime.words import words_of
from trainers.runtime.write import Writer
from trainers.tasks.instruct import Instruct, answer_template

TEXTS = [*CORPUS[:5], "", " ", "Ünïcode 🙂 and\ttabs\n", "[SEP] in the text", " ".join(CORPUS)]
SYSTEM = {"role": "system", "content": "Be brief."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture
def classifier(encoder_release) -> Release:
    return Release.load(encoder_release(), threads=1)


@pytest.fixture
def chat(chat_release) -> Release:
    return Release.load(chat_release(), threads=1)


def with_card(loaded: Release, **changes) -> Release:
    card = dataclasses.replace(loaded.card, **changes)
    return kind_of(card.task)(card, loaded.tokenizer, loaded.session)


# --- tokens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_classifiers_tokens_are_those_of_autotokenizer(side, encoder_release, copy_of, tmp_path):
    tokenizer = wordpiece_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer", truncation_side=side)
    reloaded(TEXTS, padding="max_length", truncation=True, max_length=7)  # leaves its settings in the backend
    folder = release(tiny_encoder("bert"), reloaded, copy_of(encoder_release()))
    ours = [e.ids for e in Release.load(folder, threads=1).tokenizer.encode_batch(TEXTS)]
    assert ours == reloaded(TEXTS, truncation=True, max_length=MAX_LENGTH, split_special_tokens=True).input_ids
    assert max(map(len, ours)) == MAX_LENGTH


def test_a_chats_tokens_are_those_of_apply_chat_template(chat, tmp_path):
    chat_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chats = [
        [user("How are you today?")],
        [SYSTEM, user("Grüße\n"), assistant("Hello <b> & co."), user("")],
        [user("One two"), assistant("Three"), user(" four ")],
    ]
    for messages in chats:
        expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert chat.prompts.chat_ids(messages) == expected
    assert chat.prompts.chat_ids("How are you today?") == chat.prompts.chat_ids(chats[0])


def test_template_names_are_those_of_transformers(chat, tmp_path):
    template = (
        "{{ bos_token }}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
        "{{ m | tojson(indent=1) }}{% endfor %}{{ eos_token ~ strftime_now('%Y') ~ (tools is none) }}"
    )
    tokenizer = chat_tokenizer()
    messages = [SYSTEM, user("<é>")]
    expected = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True)
    assert with_card(chat, chat_template=template).prompts.chat_ids(messages) == expected["input_ids"]


# --- text-classification -------------------------------------------------------------------------------


def test_logits_do_not_depend_on_order_or_neighbours(classifier, monkeypatch):
    alone = np.concatenate([classifier.row_logits([text]) for text in TEXTS])
    assert np.abs(classifier.row_logits(TEXTS) - alone).max() < 1e-5
    monkeypatch.setattr(encoder, "_TOKENS_PER_BATCH", 2 * MAX_LENGTH)
    assert np.abs(classifier.row_logits(TEXTS[::-1]) - alone[::-1]).max() < 1e-5


def test_an_int8_answer_is_the_same_alone_and_in_company(encoder_release):
    quantized = Release.load(encoder_release("bert", "int8"), threads=1)
    alone = np.concatenate([quantized.row_logits([text]) for text in TEXTS])
    np.testing.assert_array_equal(quantized.row_logits(TEXTS), alone)


def test_a_verdict_has_a_label_and_probabilities(classifier):
    asked = [text for text in TEXTS if text.strip()]  # without words there is nothing to judge
    for answer, logits in zip(classifier.predict(asked), classifier.row_logits(asked), strict=True):
        assert answer["label"] == LABELS[logits.argmax()]
        assert list(answer["scores"]) == list(LABELS)
        assert sum(answer["scores"].values()) == pytest.approx(1)
        assert answer["score"] == max(answer["scores"].values())
    assert classifier.predict([]) == []
    assert classifier.row_logits([]).shape == (0, 3)


def test_what_is_no_text_is_refused(classifier):
    with pytest.raises(ValueError, match="got one text"):
        classifier.predict("a text")
    with pytest.raises(ValueError, match="input 1: expected a text, got list"):
        classifier.predict(["a text", [user("a chat")]])


# --- chat ----------------------------------------------------------------------------------------------


def test_an_answer_is_greedy_and_ends_before_an_end_of_text(chat):
    prompt = chat.prompts.chat_ids("How are you?")
    tokens = list(chat.greedy_tokens(prompt, 16))
    endless = with_card(chat, eos_token_ids=())
    assert list(endless.generate(prompt)) == tokens
    ending = with_card(chat, eos_token_ids=(tokens[5], 10**6))
    answer = list(ending.generate(prompt))
    assert answer == tokens[: tokens.index(tokens[5])]
    text = endless.tokenizer.decode(tokens[:3], skip_special_tokens=True)
    assert endless.predict(["How are you?", [user("How are you?")]], max_new_tokens=3) == [{"text": text}] * 2


def test_chunks_change_nothing(chat, monkeypatch):
    ids = chat.prompts.chat_ids(" ".join(CORPUS[:2]))
    whole = chat.token_logits(ids)
    monkeypatch.setattr(cache, "_TOKENS_PER_CHUNK", 7)
    assert whole.shape == (len(ids), len(chat_tokenizer()))
    assert np.abs(chat.token_logits(ids) - whole).max() < 1e-4


def test_nll_is_torchs_cross_entropy_over_the_targets(chat, monkeypatch):
    monkeypatch.setattr(cache, "_TOKENS_PER_CHUNK", 16)
    ids = chat_tokenizer()(" ".join(CORPUS[:2])).input_ids[:50]
    mask = [1, *([0] * 20), *([1] * 15), *([0] * 5), *([1] * 9)]
    with torch.inference_mode():
        logits = tiny_decoder()(torch.tensor([ids])).logits[0, :-1]
    targets = torch.where(torch.tensor(mask[1:]) == 1, torch.tensor(ids[1:]), -100)
    score = chat.sequence_nll(ids, mask)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    assert score.nll == pytest.approx(expected, rel=1e-5)
    assert score.tokens == 24
    assert score.hits == int((logits.argmax(-1) == targets).sum())
    assert chat.sequence_nll(ids[:1], [1]) == (0.0, 0, 0)


def test_a_long_chat_loses_its_oldest_turns_first(chat):
    room = CONTEXT - 16
    turns = [part for i in range(9) for part in (user(f"Question {i}?"), assistant(f"Answer {i}."))]
    text = chat.tokenizer.decode(
        chat.prompts.chat_ids([SYSTEM, *turns, user("The last one?")]), skip_special_tokens=False
    )
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_start|>user\nThe last one?<|im_end|>\n<|im_start|>assistant\n")
    assert "Question 0" not in text
    assert "Question 8" in text
    assert len(chat.prompts.chat_ids([SYSTEM, *turns, user("The last one?")])) <= room


def one_turn_at_a_time(prompts, messages, room):
    """The ids of a chat that loses its oldest turn until it fits; None where its last turn does not."""
    while len(ids := prompts._rendered(messages, None)) > room:
        head = [message for message in messages[:1] if message["role"] == "system"]
        rest = messages[len(head) :]
        later = [i for i, message in enumerate(rest) if message["role"] == "user" and i > 0]
        if not later:
            return None
        messages = [*head, *rest[later[0] :]]
    return ids


@given(
    roles=st.lists(st.sampled_from(["user", "assistant"]), max_size=14), has_system=st.booleans(),
    length=st.integers(1, 30),
)  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_as_few_turns_are_dropped_as_possible(chat, roles, has_system, length):
    said = [{"role": role, "content": f"{i} is " + "x" * (length * (i % 3))} for i, role in enumerate(["user", *roles])]
    messages = [*([SYSTEM] if has_system else []), *said, user("So what?")]
    ids = chat.prompts.chat_ids(messages)
    assert ids == (one_turn_at_a_time(chat.prompts, messages, CONTEXT - 16) or ids)


def test_a_chat_of_many_turns_is_rendered_a_few_times(chat, monkeypatch):
    prompts, rendered = chat.prompts, []
    once = prompts._rendered
    monkeypatch.setattr(prompts, "_rendered", lambda *given: rendered.append(1) or once(*given))
    prompts.chat_ids([user("Question?"), assistant("Answer.")] * 500 + [user("The last one?")])
    assert len(rendered) <= 12


def test_a_long_last_turn_loses_its_beginning(chat):
    room = CONTEXT - 16
    long = " ".join(CORPUS) + " So what?"
    for messages in ([user(long)], [SYSTEM, user("x"), assistant("y"), user(long)]):
        ids = chat.prompts.chat_ids(messages)
        text = chat.tokenizer.decode(ids, skip_special_tokens=False)
        assert room - 8 <= len(ids) <= room
        assert text.endswith("So what?<|im_end|>\n<|im_start|>assistant\n")
        assert text.startswith("<|im_start|>system" if messages[0] is SYSTEM else "<|im_start|>user\n")
    oversized = {"role": "system", "content": long}
    text = chat.tokenizer.decode(chat.prompts.chat_ids([oversized, user("So what?")]), skip_special_tokens=False)
    assert text == "<|im_start|>user\nSo what?<|im_end|>\n<|im_start|>assistant\n"


def test_limits_of_the_context_are_kept(chat):
    small = with_card(chat, max_length=64, generation={"max_new_tokens": 50})
    assert len(small.prompts.chat_ids("word " * 50)) <= 32, "the answer takes at most half"
    assert len(list(small.greedy_tokens(small.prompts.chat_ids("hi"), 2))) == 2
    with pytest.raises(ValueError, match="the chat template alone takes more than the 2 tokens"):
        with_card(chat, max_length=4).prompts.chat_ids("hi")
    with pytest.raises(ValueError, match="do not fit"):
        list(chat.generate(range(CONTEXT)))
    with pytest.raises(ValueError, match="at least 1"):
        chat.prompts.chat_ids("hi", max_new_tokens=0)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "the last message must have the role user"),
        ([user("a"), assistant("b")], "the last message must have the role user"),
        (["a text"], "message 0: expected"),
        ([{"content": "a"}], "message 0: expected"),
        ([user("a"), assistant("b"), {"role": "user"}], "message 2: content must be a text"),
        ([assistant("b"), user("a")], "the chat template refused the messages: begin with a user"),
    ],
)
def test_a_malformed_chat_is_refused_in_words(messages, problem, chat):
    with pytest.raises(ValueError, match=problem):
        chat.predict([messages])


def test_without_a_template_a_text_is_continued(chat):
    plain = with_card(chat, chat_template=None)
    assert plain.prompts.chat_ids("How are") == chat_tokenizer()("How are").input_ids
    assert len(plain.prompts.chat_ids("How are " * 100)) == CONTEXT - 16
    with pytest.raises(ValueError, match="no chat template"):
        plain.prompts.chat_ids([user("a")])


def test_a_word_that_the_tokenizer_leaves_out_has_no_tag(classifier):
    """A zero-width space is a word to training's cutter, and nothing to BERT's normalizer."""
    words = ["A", "\u200b", "naïve", "film"]
    tokens = wordpiece_tokenizer()(words, is_split_into_words=True)
    tagger = with_card(classifier, task="token-classification")
    _, firsts = tagger.word_logits(*words_of(words))
    assert list(firsts) == [0, 2, 3]
    assert firsts == {word: tokens.word_ids().index(word) for word in (0, 2, 3)}


@pytest.mark.parametrize(
    "template", ["Q: {a} {b}\nA: {c}", "{a}{b}\n{c}\n### end", "{b} {{as is}} {a} {c}{b}", "<|im_end|>{a}<|im_end|>{c}"]
)
@pytest.mark.parametrize("answer", ["She said no", "4", "日本"])
def test_a_prompt_is_cut_into_tokens_as_in_training(template, answer, chat):
    """Whether the blank before an answer is part of its first token or one of its own: it is the model's to write."""
    columns = {"text_template": template, "answer": "c"}
    row = {"a": "was it {good}?", "b": "rain", "c": answer}
    example = Instruct().check(Row("x:1", row), columns).example
    ((encoded,),) = Instruct().encode(chat_tokenizer(), [example], [], 100)
    release = as_instruct(chat, columns)
    assert release.prompts.continued_ids(release.prompts.filled(row)) == encoded.ids[: encoded.targets.index(1)]


def as_instruct(release, columns):
    """The same model, as one that answers in a template."""
    template = answer_template(columns)
    return with_card(
        release, task="instruct", chat_template=None, columns=template.columns, prompt_template=template.before,
        after_answer=template.after, is_followed=template.is_followed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("template", "said", "answer"),
    [
        ("{0}: {c}\n### Score: {b}", " She said no\n### Score: 3", "She said no"),
        ("{0}: {c}.", " 3.14 or so.", "3.14 or so"),
        ("{0}: {c} - {b}", " well-known - 3", "well-known"),
        ('{0}: "{c}"', 'he said "no""', 'he said "no"'),
        ("{0}: {c}\n{b}", " well-known\nrain", "well-known"),
        ("{0}: {c}<|endoftext|>{b}", " yes<|endoftext|>rain", "yes"),
        ("{0}: {c}", " yes<|endoftext|>", "yes"),
        ("{0}: {c}", " cut in the mid", "cut in the mid"),
    ],
)
def test_an_answer_ends_where_the_template_goes_on(template, said, answer, chat, monkeypatch):
    release = as_instruct(chat, {"text_template": template, "answer": "c"})
    assert release.card.columns == ("0",)
    assert release.prompts.filled({"0": "rain"}).startswith("rain:")
    ids = release.tokenizer.encode(said).ids
    monkeypatch.setattr(Writer, "generate", lambda *_: iter(ids))
    assert release.predict(["rain"]) == [{"text": answer}]
    with pytest.raises(ValueError, match="input 0: expected a text, got int"):
        release.predict([1])


def test_a_template_without_a_question_is_asked_with_nothing(chat):
    release = as_instruct(chat, {"text_template": "Say: {c}"})
    assert release.predict([release.card.example]) == release.predict([{}])
    with pytest.raises(ValueError, match="at least one token"):
        as_instruct(chat, {"text_template": "{c}"}).predict([{}])


def test_what_a_tokenizer_puts_before_a_text_stays(chat):
    tokenizer = Tokenizer.from_str(chat.tokenizer.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    assert [tokenizer.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>")] == [1, 2]
    release = Writer(dataclasses.replace(chat.card, chat_template=None), tokenizer, chat.session)
    short, cut = (
        release.prompts.continued_ids("rain<|im_end|>"),
        release.prompts.continued_ids("it would rain, " * 100, 8),
    )
    assert (short[0], short[-1]) == (1, 2)  # what the text itself ends with stays too
    assert len(short) == len(chat.tokenizer.encode("rain").ids) + 2
    assert (cut[0], len(cut)) == (1, release.card.max_length - 8)
    assert cut[-1] != 2


def test_a_continuation_shows_whether_a_blank_comes_first(chat, monkeypatch):
    """Decoders of SentencePiece drop the first blank of what they are given."""
    tokenizer = Tokenizer.from_str(chat.tokenizer.to_str())
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    release = Writer(dataclasses.replace(chat.card, task="causal-lm", chat_template=None), tokenizer, chat.session)
    for said in (" sat on", "s sat on"):
        ids = tokenizer.encode(said).ids
        monkeypatch.setattr(Writer, "generate", lambda *_, ids=ids: iter(ids))
        assert release.predict(["The cat"]) == [{"text": said}]


def test_words_may_be_given_as_such(classifier, monkeypatch):
    """As training has them: the text is cut otherwise, at every mark."""
    labels = ("B-ORG", "I-ORG", "O")
    logits = np.array([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]])
    monkeypatch.setattr(Tagger, "word_logits", lambda _, text, places: (logits, {n: n for n in range(len(places))}))
    release = with_card(classifier, task="token-classification", labels=labels)
    words = ["U.N.", "House", "said"]
    ((entity,),) = (answer["entities"] for answer in release.predict([words]))
    assert (entity["label"], entity["text"], entity["start"], entity["end"]) == ("ORG", "U.N. House", 0, 10)
    assert release.predict([json.dumps(words)]) == release.predict([words])
    assert [e["text"] for e in release.predict(["U."])[0]["entities"]] == ["U."]
    with pytest.raises(ValueError, match="expected a text or a list of words, got int"):
        release.predict([1])


def test_an_older_card_is_read(encoder_release, copy_of):
    folder = copy_of(encoder_release())
    card = json.loads((folder / "release.json").read_text())
    for name in ("columns", "prompt_template", "after_answer", "is_followed"):
        del card[name]
    (folder / "release.json").write_text(json.dumps(card))
    assert Release.load(folder).card.columns == ("text",)


def test_a_plain_text_is_continued_from_its_end(chat):
    release = with_card(chat, task="causal-lm", chat_template=None)
    ids = release.prompts.continued_ids("it would rain, " * 100, max_new_tokens=8)
    assert len(ids) == release.card.max_length - 8
    assert release.tokenizer.decode(ids).endswith("it would rain, ")
    with pytest.raises(ValueError, match="at least one token"):
        release.predict([""])


def test_templates_run_in_a_sandbox(chat):
    attack = with_card(chat, chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(ValueError, match="refused"):
        attack.prompts.chat_ids("hi")
    with pytest.raises(ReleaseError, match="the chat template is damaged"):
        with_card(chat, chat_template="{% for %}").prompts.chat_ids("hi")


# --- the folder ----------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def garble(path: Path) -> None:
    path.write_bytes(b"\x00" * path.stat().st_size)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda d: (d / "release.json").unlink(), "is not a release: it has no release.json"),
        (lambda d: truncate(d / "release.json"), "release.json is damaged: JSONDecodeError"),
        (lambda d: (d / "release.json").write_text("[]"), "release.json is damaged: TypeError"),
        (lambda d: (d / "release.json").write_text('{"format_version": 1}'), "release.json is damaged: TypeError"),
        (lambda d: edit(d / "release.json", format_version=2), "format 2; this runtime reads format 1"),
        (lambda d: edit(d / "release.json", task="translation"), "unknown task 'translation'; expected one of"),
        (lambda d: edit(d / "release.json", labels=["a"]), "but there are 1 labels"),
        (lambda d: edit(d / "release.json", task="chat"), "has inputs that this runtime does not know: token_type"),
        (lambda d: (d / "model.onnx").unlink(), "model.onnx is missing: the release is damaged"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda d: truncate(d / "model.onnx.data"), r"model.onnx.data has \d+ bytes instead of \d+"),
        (lambda d: garble(d / "model.onnx"), "cannot be loaded"),
        (lambda d: garble(d / "tokenizer.json"), "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_named_with_what_is_wrong(damage, problem, encoder_release, copy_of):
    folder = copy_of(encoder_release())
    damage(folder)
    with pytest.raises(ReleaseError, match=problem) as caught:
        Release.load(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_is_no_release(tmp_path):
    with pytest.raises(ReleaseError, match="is not a release"):
        Release.load(tmp_path / "nowhere")


def test_the_folder_runs_alone(encoder_release, chat_release):
    """As on a machine with numpy, tokenizers, onnxruntime and jinja2 only."""
    code = (
        "import runpy, sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'transformers', 'mlflow', 'trainers', 'hpo', 'onnx'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, sys.argv[0])\n"
        "try: runpy.run_module('runtime', run_name='__main__', alter_sys=True)\n"
        "finally: print(*sorted({m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))\n"
    )
    for folder, foreign in ((encoder_release(), set()), (chat_release(), {"jinja2", "markupsafe"})):
        command = [sys.executable, "-I", "-c", code, str(folder), "a quiet film", "rain"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder.parent)
        *answers, modules = done.stdout.splitlines()
        loaded = Release.load(folder)
        assert [json.loads(line) for line in answers] == [
            {k: pytest.approx(v, rel=1e-3) if k != "text" and k != "label" else v for k, v in a.items()}
            for a in loaded.predict(["a quiet film", "rain"])
        ]
        names = {name for name in modules.split() if not name.startswith("_")}
        assert {"numpy", "onnxruntime", "tokenizers"} <= names
        assert names - foreign - {"runtime", "numpy", "onnxruntime", "tokenizers"} <= {
            "sitecustomize",
            "coloredlogs",
            "flatbuffers",
        }
        assert done.stderr == ""


def test_two_releases_in_one_process_have_a_runtime_each(encoder_release):
    """As registered models do it: the package is loaded by path, under a name of its own."""
    folder = encoder_release()
    loaded = []
    for name in ("one_runtime", "another_runtime"):
        spec = importlib.util.spec_from_file_location(name, folder / "runtime" / "__init__.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
        loaded.append(importlib.import_module(f"{name}.release").Release)
    assert loaded[0] is not loaded[1]
    assert all(release.load(folder, threads=1).predict(["rain"])[0]["label"] in LABELS for release in loaded)


def test_main_says_what_is_wrong(capsys, monkeypatch, tmp_path):
    assert command.main([]) == 2
    assert "usage: python -m runtime" in capsys.readouterr().err
    monkeypatch.setattr(command, "__file__", str(tmp_path / "runtime" / "__main__.py"))
    assert command.main(["text"]) == 1
    assert "is not a release" in capsys.readouterr().err
