"""A serve configuration: filters and log as they are written, and every problem at once with its line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hpo import serving
from hpo.config.serve_config import FilterSpec, LogSpec, ServeConfig
from hpo.config.serve_file import LOG, load_serve_config
from hpo.config.serve_filters import FILTER
from hpo.errors import ConfigError, UsageError
from hpo.serving.filters import Exchange
from hpo.serving.function_filter import load_function


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "words.txt").write_text("bad\n")
    (tmp_path / "rules.py").write_text("def check(exchange):\n    return exchange.allow()\n")
    for name, task, labels, *columns in [
        ("one", "text-classification", ["fine", "toxic"]),
        ("many", "multi-label-classification", ["toxic", "insult"]),
        ("writer", "chat", []),
        ("pairs", "text-classification", ["fine", "toxic"], "text", "text_pair"),
    ]:
        (tmp_path / name).mkdir()
        card = {"task": task, "labels": labels, "columns": columns or ["text"]}
        (tmp_path / name / "release.json").write_text(json.dumps(card))
    return tmp_path


@pytest.fixture
def read(folder):
    def find(name):
        if name in ("toxicity@champion", "toxicity/3"):
            return folder / "many"
        raise UsageError(f"no released model {name!r}; there are: toxicity")

    def read(text):
        (folder / "serve.yaml").write_text(text)
        return load_serve_config(folder / "serve.yaml", find)

    return read


def test_every_kind_of_filter(read, folder):
    found = read(
        "serve:\n"
        "  filter:\n"
        "    - {block_list: words.txt, action: redact}\n"
        "    - {classifier: 'models:/toxicity@champion', labels: {toxic: 0.8, insult: off}, hold: sentence}\n"
        "    - {classifier: one, name: tone, labels: {toxic: on}}\n"
        "    - rules.py:check\n"
        "    - {classifier: 'toxicity@champion', name: again}\n"
        "  log_predictions: {dir: served, share: 0.1, texts: true, max_mb: 0.5, files: 3}\n"
    )
    assert found == ServeConfig(
        (
            FilterSpec("block_list", "words", str(folder / "words.txt"), "redact"),
            FilterSpec(
                "classifier", "toxicity-champion", str(folder / "many"), hold="sentence", thresholds={"toxic": 0.8}
            ),
            FilterSpec("classifier", "tone", str(folder / "one"), thresholds={"toxic": 0.5}),
            FilterSpec("function", "check", str(folder / "rules.py"), function="check"),
            FilterSpec("classifier", "again", str(folder / "many"), thresholds={"toxic": 0.5, "insult": 0.5}),
        ),
        LogSpec(str(folder / "served"), 0.1, True, 0.5, 3),
    )


@pytest.mark.parametrize("filter_", ["rules.py:check", "models:/toxicity@champion", "words.txt"])
def test_a_filter_may_be_one_text(read, filter_):
    kinds = {"rules.py:check": "function", "words.txt": "block_list"}
    (found,) = read(f"serve:\n  filter: {filter_}\n").filters
    assert found.kind == kinds.get(filter_, "classifier")


def test_a_filter_is_called_after_what_it_is(read):
    found = read("serve: {filter: [rules.py:check, 'models:/toxicity/3', words.txt, {classifier: ./many}]}\n").filters
    assert [one.name for one in found] == ["check", "toxicity-3", "words", "many"]


def test_a_log_may_be_just_its_folder(read, folder):
    assert read("serve: {log_predictions: served}\n").log == LogSpec(str(folder / "served"))


PROBLEMS = [
    ("filter: none.txt", "serve.yaml:2: serve.filter.block_list: no file 'none.txt'"),
    ("filter: rules.py:chek", "did you mean 'check'?"),
    ("filter: models:/none", "no released model 'none'; there are: toxicity"),
    ("filter: 7", "serve.filter: got 7; expected FILE.py:NAME"),
    ("filter:", "serve.filter: is empty; expected a filter or a list of filters"),
    ("filter: [{block_list: words.txt, classifier: many}]", "has 2 of block_list, classifier, function"),
    ("filter: [{name: a}]", "serve.filter[0]: has 0 of"),
    ("filter: [{block_list: words.txt, hold: answer}]", "a block_list has no hold: remove it"),
    ("filter: [{block_list: words.txt, actoin: redact}]", "did you mean 'action'?"),
    ("filter: [{classifier: one}]", "has no labels; say which refuse a text, e.g. labels: {toxic: 0.8}"),
    ("filter: [{classifier: one, labels: {toxik: on}}]", "the model has no such label; did you mean 'toxic'?"),
    ("filter: [{classifier: one, labels: {toxic: 1.5}}]", "labels.toxic: got 1.5; expected on, off, or a number"),
    ("filter: [{classifier: one, labels: {toxic: off}}]", "every label is off"),
    ("filter: [{classifier: writer}]", "is a model of chat; expected a classifier of texts"),
    ("filter: [{classifier: pairs, labels: {toxic: on}}]", "judges pairs of texts; expected a classifier of single"),
    ("filter: [words.txt, {block_list: words.txt}]", "several filters are called 'words'"),
    ("filter: [{block_list: words.txt, name: 'a b'}]", "got 'a b'; expected letters"),
    ("filter: ../rules.py:check", "no file"),
    ("filter: {block_list: null}", "serve.filter.block_list: got null; expected text"),
    ("filter: [words.txt, {classifier: }]", "serve.filter[1].classifier: is empty; expected text"),
    ("log_predictions: {dir: null}", "serve.log_predictions.dir: got null; expected text"),
    ("log_predictions: {share: 0.5}", "serve.log_predictions.dir: is missing"),
    ("log_predictions: {dir: a, share: 2}", "got 2; expected at most 1"),
    ("log_predictions: {dir: a, shar: 1}", "did you mean 'share'?"),
    ("filtre: words.txt", "serve.filtre: unknown key; did you mean 'filter'?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), PROBLEMS)
def test_what_is_wrong_is_said_with_its_place(read, line, said):
    with pytest.raises(ConfigError) as refused:
        read(f"serve:\n  {line}\n")
    assert said in str(refused.value)
    assert "serve.yaml:" in str(refused.value)
    assert len(refused.value.problems) == 1


def test_all_problems_come_at_once(read, folder):
    (folder / "empty.txt").write_text(" \n")
    with pytest.raises(ConfigError) as refused:
        read("serve:\n  filter:\n    - empty.txt\n    - {classifier: one}\n  log_predictions: {}\nport: 1\n")
    assert [problem.where.rpartition("serve.yaml:")[2] for problem in refused.value.problems] == [
        "2: serve.filter[0].block_list", "2: serve.filter[1]", "5: serve.log_predictions.dir", "6: port",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="serve: is missing"):
        read("filter: words.txt\n")


def test_the_page_has_every_key_as_it_is_declared():
    page = Path(serving.__file__).with_name("README.md").read_text()
    for key in (*FILTER, *LOG.keys):
        assert f"| `{key.name}` | {key.default_in_words()} | {key.help} |\n" in page


def test_the_example_of_the_page_is_a_valid_configuration(read, folder):
    page = Path(serving.__file__).with_name("README.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    card = {"task": "multi-label-classification", "labels": ["toxic", "insult", "obscene"]}
    (folder / "many" / "release.json").write_text(json.dumps(card))
    assert [one.kind for one in read(example).filters] == ["block_list", "classifier", "function"]
    (code,) = re.findall(r"```python\n(import re\n.*?)```", page, re.S)
    (folder / "mail.py").write_text(code)
    check = load_function(folder / "mail.py", "check")
    for text, left in [("hello", "hello"), ("to a.b@c.de", "to [mail]"), ("the launch code", "")]:
        assert check(Exchange("m", text)).text == left
