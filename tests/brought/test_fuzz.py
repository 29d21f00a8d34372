"""Broken and odd input of every kind is read, or refused by name; nothing runs, hangs or is left behind.

The suite tries the same few hundred each time; `pytest tests/brought/test_fuzz.py --hypothesis-profile=long` tries new
ones, a hundred times as many.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.config.file import load_config
from hpo.errors import UsageError
from hpo.paths import Home
from trainers.data.sources import DataProblem
from trainers.prepare.check import check
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import TASKS
from trainers.protocol.requests import Check, Inspect
from trainers.protocol.settings import FIELDS
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, Workload

IS_LONG = settings.get_current_profile_name() == "long"


def tried(examples: int) -> settings:
    """So many inputs, the same in each run of the suite."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
    if IS_LONG:
        return settings(max_examples=100 * examples, deadline=None, suppress_health_check=quiet)
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=quiet
    )  # fmt: skip


MOST_CHARACTERS = 20_000
"""Of a whole message: a screen or two."""

# --- YAML ----------------------------------------------------------------------------------------------

ODD_TEXTS = [
    "", " ", "~", "null", "on", "yes", "1:30", "020", "0x1F", "1e308", "nan", ".inf", "a" * 300, "../..", "~nobody/x",
    "a**b", "\x00", "\x1b[31m", "\ud83d", "é", "fetch:", "fetch:nothing", "org/name", "x.jsonl", ".", "/", "*.csv",
    "loss.py:f", "{{ 7 * 7 }}", "!!python/object/apply:os.system [id]", "%s", "\u2028", "C#", "null,null",
]  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from([1 << 40, 10**30, -1, 0]),
    st.sampled_from([0.0, 0.1, 1e-6, 5e-324, 1e308, float("inf"), float("nan"), -0.5]), st.sampled_from(ODD_TEXTS),
    st.text(max_size=8),
)  # fmt: skip
KEYS = [
    "name", "task", "model", "data", "train", "validation", "test", "text", "label", "source", "split", "config",
    "revision", "adapter", "trust_remote_code", "documents", "method", "search_strategy", "type", "num_trials",
    "enqueue", "warm_start", "search_space", "training", "objective", "metric", "direction", "metrics", "generation",
    "constraints", "pruner", "budget", "hours", "until", "trials", "cost", "finalists", "top", "seeds", "promote",
    "max_drop", "seed", "report_to", "low", "high", "log", "step", "values", "when", "x-note", "<<", *FIELDS,
]  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=8,
)  # fmt: skip
SOUND: dict[str, Any] = {
    "task": "text-classification", "model": "./model", "data": {"train": "train.jsonl"},
    "search_space": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
                     "lora_r": {"type": "int", "low": 4, "high": 8}},
    "training": {"max_epochs": 1}, "search_strategy": {"type": "tpe", "num_trials": 4},
    "budget": {"hours": 1}, "finalists": {"top": 2, "seeds": 2}, "promote": {"max_drop": 0.1},
}  # fmt: skip


@st.composite
def sweeps(draw: st.DrawFn) -> str:
    """The text of a sweep's YAML: a sound one with one to three places made odd, or spoilt as a text."""
    tree = json.loads(json.dumps(SOUND))
    for _ in range(draw(st.integers(1, 3))):
        at = tree
        while True:
            key = draw(st.sampled_from([*at, *KEYS]))
            below = at.get(key)
            if isinstance(below, dict) and draw(st.booleans()):
                at = below
                continue
            at[key] = draw(trees)
            break
    text = yaml.safe_dump(tree, allow_unicode=draw(st.booleans()))
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + draw(st.sampled_from([":", "\t", "&a ", "*a", "- ", "'", "{", "]", "!!int ", "%"]))
            + text[place:]
        )
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "train.jsonl").touch()
    return tmp_path


@tried(250)
@given(text=sweeps())
def test_any_yaml_is_a_config_or_a_list_of_problems(folder, text):
    file = folder / "sweep.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    before = sorted(folder.rglob("*"))
    message = refusal_of(file)
    assert message is None or (str(file) in message and len(message) < MOST_CHARACTERS)
    assert sorted(folder.rglob("*")) == before


def refusal_of(file: Path) -> str | None:
    """Why a YAML is no config, or None. Any other error than a refusal ends the test."""
    try:
        load_config(file, Home(file.parent / "home"))
    except UsageError as error:
        return str(error)
    return None


@tried(60)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_yaml_or_a_problem(folder, content):
    file = folder / "sweep.yaml"
    file.write_bytes(content)
    assert refusal_of(file)


# --- data ----------------------------------------------------------------------------------------------

words = st.sampled_from([
    "a warm film", "dull", "<|end|>", "[SEP]", "", "  ", "\n\n", '"', "a\tb", "é\u2028", "\ud83d", "x" * 3000, "0",
    "1.5", "true", "null", "[0, 1]", "['a', 'b']", '[{"role": "user", "content": "a"}]', "B-X", "I-X", "O",
    "\x1b[2J", "\x00",
])  # fmt: skip
numbers = st.one_of(st.booleans(), st.integers(-2, 3), st.floats(allow_nan=True, width=32))
cells = st.one_of(words, st.none(), numbers, st.text(max_size=5))
PARTS = ["role", "content", "weight", "start", "end", "label", "from", "value", "tool_calls", "type", "text"]
values = st.recursive(
    cells,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(PARTS), inner, max_size=4)
    ),
    max_leaves=6,
)  # fmt: skip
turns = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", ""]),
        "content": st.one_of(words, values),
    },
    optional={"weight": st.sampled_from([0, 1, None, 2]), "tool_calls": values},
)  # fmt: skip
GOOD_ROWS: dict[str, dict[str, Any]] = {
    "text-classification": {"text": "a warm film", "label": "x"},
    "multi-label-classification": {"text": "a warm film", "labels": ["x", "y"]},
    "regression": {"text": "a warm film", "value": 1.5},
    "text-similarity": {"text": "a warm film", "text_pair": "a film", "value": 0.5},
    "token-classification": {"words": ["a", "film"], "tags": ["O", "B-X"]},
    "causal-lm": {"text": "a warm film"},
    "instruct": {"input": "what is it", "output": "a film"},
    "chat": {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": "film"}]},
}


@st.composite
def rows_of(draw: st.DrawFn, task: str) -> list[dict[str, Any]]:
    """A few sound rows that differ, among odd ones."""
    sound = GOOD_ROWS[task]
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 12))):
        row = json.loads(json.dumps(sound))
        key = draw(st.sampled_from(sorted(row)))
        if draw(st.integers(0, 2)) == 0:
            odd = st.lists(turns, max_size=4) if key == "messages" else values
            row[key] = draw(odd)
            if draw(st.integers(0, 5)) == 0:
                del row[key]
        elif isinstance(row.get("text"), str):
            row["text"] += f" {number}"
        if "label" in row and number % 2 and row["label"] == "x":
            row["label"] = "y"
        rows.append(row)
    return rows


def written(rows: list[dict[str, Any]], suffix: str) -> bytes:
    if suffix == ".jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == ".json":
        return json.dumps(rows).encode()
    out = io.StringIO()
    names = sorted({name for row in rows for name in row})
    table = csv.DictWriter(out, names, delimiter="\t" if suffix == ".tsv" else ",")
    table.writeheader()
    table.writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def assert_refused_or_read_alike(workload: Workload) -> None:
    """What `hpo check` finds no fault with can be swept, and what it finds stops a sweep: with words in bounds."""
    try:
        found = check(Check(workload)).findings
    except DataProblem as problem:
        found = problem.findings
        assert found
    for finding in found:
        assert finding.where
        assert 0 < len(finding.found) + len(finding.expected) < 2000
    assert sum(len(f.found) + len(f.expected) for f in found) < MOST_CHARACTERS
    if found:
        with pytest.raises(DataProblem):
            inspect(Inspect(workload))
    else:
        rows = inspect(Inspect(workload)).rows
        assert min(rows.values()) > 0


@pytest.fixture
def workload_of(tiny: Path, tmp_path: Path) -> Any:
    def make(task: str, file: Path) -> Workload:
        model = "encoder" if "encoder" in TASKS[task].families else "chat"
        columns = dict(TASKS[task].columns)
        if task == "instruct":
            columns["text_template"] = "{input} is {output}"
        data = DataRef(SourceRef(str(file)), None, None, columns, 0.3, 0.3, 0)
        return Workload(task, ModelRef(str(tiny / model)), data, 32, "fp32", str(tmp_path / "cache"))

    return make


@pytest.mark.parametrize("task", GOOD_ROWS)
@tried(12)
@given(data=st.data())
def test_any_rows_are_read_or_refused_with_their_place(workload_of, tmp_path, task, data):
    suffix = data.draw(st.sampled_from([".jsonl", ".jsonl", ".json", ".csv", ".tsv"]))
    file = tmp_path / f"rows{suffix}"
    file.write_bytes(written(data.draw(rows_of(task)), suffix))
    assert_refused_or_read_alike(workload_of(task, file))


BYTES = st.one_of(
    st.binary(max_size=80),
    st.text(alphabet='ab,;"\t\n\r{}[]:0#-_\x00é', max_size=80).map(lambda text: text.encode()),
)  # fmt: skip


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".conll"])
@tried(25)
@given(content=BYTES)
def test_any_bytes_are_data_or_a_problem(workload_of, tmp_path, suffix, content):
    task = {".conll": "token-classification", ".txt": "causal-lm"}.get(suffix, "text-classification")
    file = tmp_path / f"any{suffix}"
    file.write_bytes(content)
    assert_refused_or_read_alike(workload_of(task, file))
