"""`hpo init` and `hpo schema`: the file that is written loads for every task, and nothing is ever overwritten."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from hpo.commands.init import init_sweep
from hpo.config.file import load_config
from hpo.config.schema import json_schema
from hpo.config.starter import SCHEMA_FILE
from hpo.config.yaml_reader import read_yaml
from hpo.errors import UsageError
from hpo.paths import Home
from tests.hpo.builders import write_sweep
from trainers.protocol.catalog import TASKS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a good `model` and `train.jsonl`."""
    write_sweep(tmp_path).unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(file="a.yaml", task="text-classification", model="./model", data="train.jsonl", columns=()):
    return init_sweep(Path(file), task, model, data, columns)


def hpo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpo", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("task", TASKS)
def test_the_file_loads_and_is_valid_for_every_task(folder, task):
    init(task=task)
    config = load_config(Path("a.yaml"), Home(folder / "home"))
    assert (config.name, config.task, config.data.columns) == ("a", task, TASKS[task].columns)
    schema = json.loads(Path(SCHEMA_FILE).read_text())
    assert schema == json_schema()
    jsonschema.validate(read_yaml(Path("a.yaml"))[0], schema)
    lines = Path("a.yaml").read_text().splitlines()
    assert lines[:2] == [f"# yaml-language-server: $schema={SCHEMA_FILE}", "# hpo sweep a.yaml"]
    assert max(map(len, lines)) <= 120
    assert sorted(p.name for p in folder.iterdir()) == ["a.yaml", SCHEMA_FILE, "model", "train.jsonl"]


@pytest.mark.parametrize("task", TASKS)
def test_the_longest_row_is_left_to_the_model(folder, task):
    """A number that stands in the file is refused for a model with fewer positions."""
    init(task=task)
    config = load_config(Path("a.yaml"), Home(folder / "home"))
    assert not config.max_length_is_given
    assert f"  # max_length: {config.settings['max_length']}" in Path("a.yaml").read_text().splitlines()


@pytest.mark.parametrize("task", TASKS)
def test_what_is_commented_out_is_valid_too(folder, task):
    init(task=task)
    lines = Path("a.yaml").read_text().splitlines()
    keys = ("budget", "finalists", "promote", " max_length", *(f" {role}" for role in TASKS[task].columns))
    on = [line.replace("# ", "", 1) if line.replace("# ", "", 1).startswith(_starts(keys)) else line for line in lines]
    assert on != lines
    Path("a.yaml").write_text("\n".join(on))
    config = load_config(Path("a.yaml"), Home(folder / "home"))
    assert (config.finalists is not None, config.budget.hours) == (True, 8)


def _starts(keys):
    return tuple(f"{' ' * key.startswith(' ')}{key}:" for key in keys)


def test_columns_and_paths_are_those_that_were_typed(folder):
    (folder / "sweeps").mkdir()
    init("sweeps/a.yaml", model="model", columns=["label=stars of 5", "text_pair=title"])
    config = load_config(Path("sweeps/a.yaml"), Home(folder / "home"))
    assert config.data.columns == {"text": "text", "label": "stars of 5", "text_pair": "title"}
    assert (config.model.source, config.data.train.source) == (str(folder / "model"), str(folder / "train.jsonl"))


@pytest.mark.parametrize("name", ["2026", "1e3", "null", "true", "a.b-c"])
def test_the_name_of_the_file_stays_that_text(folder, name):
    init(f"{name}.yaml")
    assert load_config(Path(f"{name}.yaml"), Home(folder / "home")).name == name


@pytest.mark.parametrize(
    "data", ["null", "1e3", "a: b", "#x", "true", "0o17", "[x]", "*x", "é", "a'b\"c", "x:", "- x", "a #b", "~", "/x y"]
)
def test_a_text_stays_that_text_in_yaml(folder, data):
    init(data=data)
    assert read_yaml(Path("a.yaml"))[0]["data"]["train"] == data


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": "chatt"}, "no task 'chatt'; did you mean 'chat'?"),
        ({"task": None}, "--task missing"),
        ({"model": None, "data": ""}, "--model and --data missing"),
        ({"model": "fetch:all-MiniLM-L6"}, "no demo model 'all-MiniLM-L6'; did you mean 'all-MiniLM-L6-v2'?"),
        ({"data": "fetch:all-MiniLM-L6-v2"}, "no demo data 'all-MiniLM-L6-v2'"),
        ({"columns": ["lable=stars"]}, "--column 'lable=stars': text-classification has no 'lable'; did you mean"),
        ({"columns": ["label"]}, "--column 'label': expected label=NAME"),
        ({"file": "my sweep.yaml"}, "expected NAME.yaml"),
        ({"file": "a.txt"}, "expected NAME.yaml"),
        ({"file": "nowhere/a.yaml"}, "no folder nowhere; make it first"),
    ],
)
def test_what_cannot_be_writes_nothing(folder, changes, why):
    with pytest.raises(UsageError) as refused:
        init(**changes)
    assert why in str(refused.value)
    assert sorted(p.name for p in folder.iterdir()) == ["model", "train.jsonl"]


def test_a_file_that_exists_is_never_overwritten(folder):
    Path("a.yaml").write_text("mine")
    Path("link.yaml").symlink_to("nowhere")
    for name in ("a.yaml", "link.yaml"):
        with pytest.raises(UsageError, match=rf"{name} already exists; choose another name"):
            init(name)
    assert Path("a.yaml").read_text() == "mine"
    assert not Path(SCHEMA_FILE).exists()


@pytest.mark.parametrize("text", ["{}", "mine", "[1]", '{"title": "Something else"}'])
def test_nor_is_a_schema_of_somebody_else(folder, text):
    Path(SCHEMA_FILE).write_text(text)
    with pytest.raises(UsageError, match="already exists and is not a schema of hpo"):
        init()
    assert Path(SCHEMA_FILE).read_text() == text
    assert not Path("a.yaml").exists()


def test_an_earlier_schema_of_ours_is_brought_up_to_date(folder):
    Path(SCHEMA_FILE).write_text(json.dumps({"title": json_schema()["title"]}))
    init()
    init("b.yaml")
    assert json.loads(Path(SCHEMA_FILE).read_text()) == json_schema()


# --- the commands --------------------------------------------------------------------------------------


def test_without_a_terminal_options_say_everything(tmp_path):
    done = hpo("init", "a.yaml", "--task", "chat", "--model", "fetch:SmolLM2-135M-Instruct", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: --data missing; only a terminal is asked for what is not given\n",
    )
    done = hpo("init", "a.yaml", "--task", "chat", "--model", "fetch:SmolLM2-135M-Instruct", "--data", "fetch:chitchat",
               cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "wrote a.yaml, and hpo.schema.json beside it for editors; "
        "next: hpo fetch SmolLM2-135M-Instruct && hpo fetch chitchat && hpo check a.yaml\n"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml", SCHEMA_FILE]


def test_a_terminal_is_asked_for_task_model_and_data(tmp_path):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "hpo", "init", "a.yaml"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment
    ) as process:
        os.close(theirs)
        os.write(ours, b"regression\n\nreviews.csv\n")
        assert process.wait(timeout=60) == 0
    asked = os.read(ours, 10_000).decode()
    os.close(ours)
    assert all(word in asked for word in ("task", "model", "data", "[train.jsonl]"))
    values = read_yaml(tmp_path / "a.yaml")[0]
    assert (values["task"], values["model"], values["data"]["train"]) == (
        "regression", "fetch:all-MiniLM-L6-v2", "reviews.csv",
    )  # fmt: skip


def test_the_schema_is_printed_as_json(tmp_path):
    done = hpo("schema", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json_schema()
    assert not list(tmp_path.iterdir())
