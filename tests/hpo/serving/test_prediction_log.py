"""The prediction log: what is in it and what is not, its files, and its rows as data of a training."""

from __future__ import annotations

import dataclasses
import json
import signal
import stat
import threading
from pathlib import Path

import httpx2
import pytest

from hpo.config.serve_config import FilterSpec, LogSpec, ServeConfig
from hpo.errors import UsageError
from hpo.serving.block_list import BlockList, Phrases
from hpo.serving.function_filter import FunctionFilter
from hpo.serving.gate import Gate
from hpo.serving.limits import Limits
from hpo.serving.order import Order
from hpo.serving.prediction_log import PredictionLog
from hpo.serving.prediction_rows import ANSWER_KEYS
from hpo.serving.served import Served, Shelf, engine_for
from hpo.serving.watch import Watch
from tests.hpo.serving.conftest import Server, Tags, Vectors, events, started
from trainers.data.formats.base import Row
from trainers.protocol.catalog import TASKS as CATALOG
from trainers.protocol.events import Finding
from trainers.runtime.release import Release
from trainers.runtime.write import Writer
from trainers.tasks.table import TASKS

CHAT = "/v1/chat/completions"


def user(text):
    return [{"role": "user", "content": text}]


def rows_in(folder):
    files = sorted(Path(folder).glob("predictions-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def shelf(encoder_release, chat_release):
    judge, chat = Release.load(encoder_release()), Release.load(chat_release())

    def of(release, task, **changes):
        return dataclasses.replace(release.card, task=task, **changes)

    models = {
        "judge": judge, "chat": chat,
        "many": type(judge)(of(judge, "multi-label-classification"), judge.tokenizer, judge.session),
        "pairs": type(judge)(
            of(judge, "text-classification", columns=("text", "text_pair")), judge.tokenizer, judge.session
        ),
        "vectors": Vectors(of(judge, "text-similarity"), judge.tokenizer, judge.session),
        "plain": Writer(of(chat, "causal-lm", chat_template=None), chat.tokenizer, chat.session),
        "asked": Writer(
            of(chat, "instruct", chat_template=None, columns=("question",), prompt_template="Q: {question}\nA:"),
            chat.tokenizer, chat.session,
        ),
    }  # fmt: skip
    served = [Served(n, one, engine_for(n, one, Limits()), {"release": f"sha-{n}"}) for n, one in models.items()]
    shelf = Shelf(served)
    yield shelf
    shelf.close()


BODIES = {
    "judge": ("/v1/classify", {"input": ["a fine film", "rain"]}),
    "many": ("/v1/classify", {"input": "a fine film"}),
    "pairs": ("/v1/classify", {"input": {"text": "a fine film", "text_pair": "rain"}}),
    "vectors": ("/v1/embeddings", {"input": "a fine film"}),
    "chat": (CHAT, {"messages": user("a fine film"), "max_tokens": 6, "n": 2}),
    "plain": ("/v1/completions", {"prompt": "a fine film", "max_tokens": 6}),
    "asked": ("/v1/completions", {"prompt": {"question": "a fine film"}, "max_tokens": 6}),
}


@pytest.fixture
def logged(shelf, tmp_path):
    """Sends requests to a server that logs, and returns the rows."""

    def send(names=tuple(BODIES), **spec):
        log = PredictionLog(LogSpec(str(tmp_path / "log"), **spec))
        server = Server(shelf, watch=Watch(log=log))
        for name in names:
            path, body = BODIES[name]
            assert server.post(path, model=name, **body).status_code == 200
        lines = list(log.lines())
        log.close()
        return rows_in(tmp_path / "log"), lines

    return send


def test_no_text_is_written_unless_it_is_wanted(logged, tmp_path):
    rows, _ = logged()
    assert [row["model"] for row in rows] == [
        "judge",
        "judge",
        "many",
        "pairs",
        "vectors",
        "chat",
        "chat",
        "plain",
        "asked",
    ]
    (file,) = (tmp_path / "log").iterdir()
    assert "fine" not in file.read_text()
    assert "rain" not in file.read_text()
    first = rows[0]
    assert first["predicted"].keys() == {"label", "score", "scores"}
    assert (first["characters"], first["release"], first["task"]) == (11, "sha-judge", "text-classification")
    assert first["ms"] > 0
    assert first["time"].endswith("+00:00")
    assert len(first["hash"]) == 16
    assert first["hash"] == rows[2]["hash"] != rows[1]["hash"]
    assert rows[4]["predicted"] == {"size": 3}
    assert rows[5]["predicted"].keys() == {"characters", "tokens", "finish_reason"}
    assert rows[5]["predicted"]["tokens"] == 6
    assert rows[5]["tokens"] > 5


def test_a_hash_says_nothing_to_who_has_the_log(logged):
    """Its salt ends with the server: equal texts of two servers have different hashes."""
    (first, _), _ = logged(["judge"])
    rows, _ = logged(["judge"])
    assert len(rows) == 4
    assert rows[0]["hash"] == first["hash"] != rows[2]["hash"]


def test_streams_and_parts_are_logged_once(shelf, tmp_path):
    log = PredictionLog(LogSpec(str(tmp_path), texts=True))
    server = Server(shelf, watch=Watch(log=log))
    body = {"model": "chat", "messages": user("Hi"), "max_tokens": 8, "stream": True}
    chunks = events(server.post(CHAT, **body).text)
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    log.close()
    (row,) = rows_in(tmp_path)
    assert row["predicted"]["text"] == said
    assert row["messages"] == user("Hi")


def test_an_input_is_read_once(shelf, logged, monkeypatch):
    judge = shelf.find("judge").release
    read, calls = judge.read, []
    monkeypatch.setattr(judge, "read", lambda inputs: calls.append(inputs) or read(inputs))
    logged(["judge"])
    assert len(calls) == 1


@pytest.mark.parametrize("name", BODIES)
def test_a_row_trains_nothing_before_somebody_has_corrected_it(logged, name):
    """With texts a row has the keys of its task's data; what is right is missing until a person writes it."""
    rows, _ = logged([name], texts=True)
    task = rows[0]["task"]
    columns = dict(CATALOG[task].columns)
    if task == "instruct":
        columns |= {"text_template": "Q: {question}\nA: {answer}"}
    if name in ("pairs", "vectors"):
        columns |= {"text_pair": "text_pair"}
    row = rows[0]
    checked = TASKS[task].check(Row("log:1", row), columns)
    assert isinstance(checked, Finding), name
    right = {
        "chat": {"messages": [*row.get("messages", []), {"role": "assistant", "content": "fine"}]},
        "instruct": {"answer": "fine"}, "multi-label-classification": {"labels": ["good"]},
        "text-similarity": {"value": 0.5, "text_pair": "another"},
    }  # fmt: skip
    corrected = {**row, **right.get(task, {ANSWER_KEYS.get(task): "good"})}
    assert not isinstance(TASKS[task].check(Row("log:1", corrected), columns), Finding)


@pytest.mark.parametrize(
    ("labels", "columns"), [(("B-A", "I-A", "O"), {"text", "entities"}), (("NOUN", "VERB", "O"), {"words", "tags"})]
)
@pytest.mark.parametrize("texts", [True, False])
def test_words_wait_for_their_tags(encoder_release, tmp_path, labels, columns, texts):
    judge = Release.load(encoder_release())
    card = dataclasses.replace(judge.card, task="token-classification", labels=labels)
    tagger = Tags(card, judge.tokenizer, judge.session)
    served = Served("tags", tagger, engine_for("tags", tagger, Limits()), {})
    log = PredictionLog(LogSpec(str(tmp_path), texts=texts))
    server = Server(Shelf([served]), watch=Watch(log=log))
    assert server.post("/v1/classify", input=[["a", "fine", "film"]]).status_code == 200
    log.close()
    served.engine.close()
    (row,) = rows_in(tmp_path)
    assert ("fine" in json.dumps(row)) == texts
    assert row["predicted"]
    if texts:
        assert columns <= set(row)
        found = TASKS["token-classification"].check(Row("log:1", row), CATALOG["token-classification"].columns)
        assert isinstance(found, Finding)


def test_a_column_called_messages_makes_no_chat(chat_release, tmp_path):
    chat = Release.load(chat_release())
    card = dataclasses.replace(
        chat.card, task="instruct", chat_template=None, columns=("messages",), prompt_template="Q: {messages}\nA:"
    )
    writer = Writer(card, chat.tokenizer, chat.session)
    served = Served("asked", writer, engine_for("asked", writer, Limits()), {})
    log = PredictionLog(LogSpec(str(tmp_path), texts=True))
    server = Server(Shelf([served]), watch=Watch(log=log))
    body = {"prompt": {"messages": "a fine film"}, "max_tokens": 2}
    assert server.post("/v1/completions", **body).status_code == 200
    log.close()
    served.close()
    (row,) = rows_in(tmp_path)
    assert (row["messages"], row["characters"]) == ("a fine film", 11)


def check(exchange):
    """A filter function that refuses what speaks of rain."""
    return exchange.refuse("weather") if "rain" in exchange.text else exchange.allow()


REFUSED = {
    "judge": ("/v1/classify", {"input": ["a fine film", "bad rain"]}, ["bad rain"]),
    "vectors": ("/v1/embeddings", {"input": "rain"}, ["rain"]),
    "chat": (CHAT, {"messages": [*user("fine"), *user("bad rain")]}, ["bad rain"]),
    "plain": ("/v1/completions", {"prompt": ["fine", "bad rain"]}, ["bad rain"]),
}


@pytest.mark.parametrize("texts", [False, True])
def test_a_refused_prompt_is_logged_with_its_filter_and_category(shelf, tmp_path, texts):
    log = PredictionLog(LogSpec(str(tmp_path), texts=texts))
    gate = Gate([BlockList("words", Phrases(["bad"]), "redact"), FunctionFilter("own", check, "answer")])
    server = Server(shelf, watch=Watch(gate, log))
    for name, (path, body, _) in REFUSED.items():
        assert server.post(path, model=name, **body).status_code == 400
    log.close()
    rows = rows_in(tmp_path)
    assert [row["model"] for row in rows] == list(REFUSED)
    for row, (name, (_, _, (text,))) in zip(rows, REFUSED.items(), strict=True):
        seen = text.replace("bad", "***")  # as the filter before had redacted it
        shown = {"text": seen} if texts else {}
        assert row["refused"] == {"filter": "own", "categories": ["weather"], **shown}
        assert row.keys() == {"time", "model", "release", "task", "ms", "characters", "refused", "hash"}
        assert (row["characters"], row["release"]) == (len(text), f"sha-{name}")
    assert rows[0]["hash"] == rows[2]["hash"] != rows[1]["hash"]
    assert "bad" not in "".join(file.read_text() for file in tmp_path.iterdir())


def test_a_share_of_refused_prompts_is_drawn(shelf, tmp_path):
    log = PredictionLog(LogSpec(str(tmp_path), share=1e-9))
    server = Server(shelf, watch=Watch(Gate([FunctionFilter("own", check, "answer")]), log))
    assert server.post("/v1/classify", model="judge", input="rain").status_code == 400
    log.close()
    assert rows_in(tmp_path) == []


def test_a_share_is_drawn(logged):
    rows, lines = logged(["judge"] * 60, share=0.25)
    assert 5 < len(rows) < 60  # 30 expected of 120, 5 standard deviations are 24
    assert "hpo:predictions_dropped_total 0" in lines


def test_files_are_private_rotate_and_stay_few(tmp_path):
    folder = tmp_path / "deep" / "log"
    log = PredictionLog(LogSpec(str(folder), max_mb=0.001, files=3))
    for number in range(200):
        log.add({"number": number}, "text")
    log.close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.iterdir())
    assert len(files) == 3
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_size <= 1048 for file in files)
    numbers = [row["number"] for row in rows_in(folder)]
    assert numbers == list(range(numbers[0], 200))
    again = PredictionLog(LogSpec(str(folder), max_mb=0.001, files=3))
    again.add({"number": 200}, "text")
    again.close()
    assert rows_in(folder)[-1]["number"] == 200


def test_what_the_disk_cannot_take_in_time_is_dropped_and_counted(tmp_path, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr("hpo.serving.prediction_log._WAITING", 5)
    log = PredictionLog(LogSpec(str(tmp_path)))
    write = log._files.write
    monkeypatch.setattr(log._files, "write", lambda line: free.wait(30) and write(line))
    for number in range(20):
        log.add({"number": number}, "text")
    free.set()
    log.close()
    assert (log.written + log.dropped, log.dropped >= 14) == (20, True)
    assert f"hpo:predictions_dropped_total {log.dropped}" in list(log.lines())


def test_a_disk_that_is_full_stops_no_request(tmp_path, monkeypatch, capfd):
    log = PredictionLog(LogSpec(str(tmp_path)))

    def full(line):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log._files, "write", full)
        log.add({}, "text")
        log.add({}, "text")
        while log.dropped < 2:
            pass
    log.add({}, "text")
    log.close()
    assert (log.written, log.dropped) == (1, 2)
    assert capfd.readouterr().err.count("No space left on device") == 1


def test_a_log_that_cannot_turn_to_its_next_file_writes_nowhere_else(tmp_path, capfd):
    """A descriptor that it had closed could be a client's connection by now."""
    folder = tmp_path / "log"
    log = PredictionLog(LogSpec(str(folder), max_mb=0.0001))
    log.add({"number": 0}, "text")
    while not log.written:
        pass
    folder.rename(tmp_path / "moved")
    folder.touch()
    log.add({"number": 1}, "text")
    while not log.dropped:
        pass
    others = [(tmp_path / f"other {i}").open("wb") for i in range(9)]  # they take the numbers that are free
    log.add({"number": 2}, "text")
    while log.dropped < 2:
        pass
    assert [(tmp_path / f"other {i}").stat().st_size for i in range(9)] == [0] * 9
    folder.unlink()
    log.add({"number": 3}, "text")
    log.close()
    for other in others:
        other.close()
    assert [row["number"] for row in rows_in(folder)] == [3]
    assert (log.written, log.dropped) == (2, 2)
    assert capfd.readouterr().err.count("prediction log:") == 1


def test_rows_that_wait_are_few_bytes(tmp_path, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr("hpo.serving.prediction_log._WAITING_BYTES", 10_000)
    log = PredictionLog(LogSpec(str(tmp_path), texts=True))
    write = log._files.write
    monkeypatch.setattr(log._files, "write", lambda line: free.wait(30) and write(line))
    for _ in range(9):
        log.add({"text": "a" * 3000}, "text")
    assert log.dropped == 6
    free.set()
    while log._gone < log._taken:
        pass
    log.add({"text": "a" * 3000}, "text")
    log.close()
    assert (log.written, log.dropped) == (4, 6)


def test_a_row_that_is_no_json_stops_nothing(tmp_path, capfd):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    log = PredictionLog(LogSpec(str(tmp_path), texts=True))
    log.add({"tools": deep}, "text")
    log.add({}, "text")
    log.close()
    assert (log.written, log.dropped) == (1, 1)
    assert "RecursionError" in capfd.readouterr().err


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="predictions cannot be written there"):
        PredictionLog(LogSpec(str(tmp_path / "file")))
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "predictions-000001.jsonl").symlink_to(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be written"):
        PredictionLog(LogSpec(str(tmp_path / "link")))


def test_a_server_filters_and_has_written_all_when_it_ends(encoder_release, tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("bad\n")
    (tmp_path / "rules.py").write_text("def check(exchange):\n    return exchange.allow()\n")
    monkeypatch.setenv("HPO_API_KEY", "a-key-of-20-letters-")
    config = ServeConfig(
        (
            FilterSpec("block_list", "words", str(tmp_path / "words.txt"), "redact"),
            FilterSpec("classifier", "tone", str(encoder_release()), thresholds={"good": 1.0}),
            FilterSpec("function", "rules", str(tmp_path / "rules.py"), function="check"),
        ),
        LogSpec(str(tmp_path / "log"), texts=True),
    )
    with started(Order({"judge": encoder_release()}, "127.0.0.1", 0, config=config)) as running:
        headers = {"authorization": "Bearer a-key-of-20-letters-", "x-forwarded-for": "203.0.113.9"}
        for _ in range(5):
            answer = httpx2.post(f"{running.url}/v1/classify", json={"input": "a bad film"}, headers=headers)
            assert answer.json()["data"][0]["content_filter_results"]["words"] == {"filtered": False, "redacted": True}
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    rows = rows_in(tmp_path / "log")
    assert [row["text"] for row in rows] == ["a *** film"] * 5
    written = "".join(file.read_text() for file in (tmp_path / "log").iterdir())
    assert not any(secret in written for secret in ("a-key-of", "203.0.113.9", "127.0.0.1"))
