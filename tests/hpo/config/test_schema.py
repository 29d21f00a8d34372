"""The JSON Schema: it takes what the parser takes, refuses unknown keys and impossible values, and knows every key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from hpo.config.file import load_config
from hpo.config.schema import json_schema
from hpo.config.setting_schema import dimension_schema, setting_schema
from hpo.config.yaml_reader import read_yaml
from hpo.config.yaml_source import Section
from hpo.errors import ConfigError
from hpo.paths import Home
from hpo.pruning.table import RULES
from tests.hpo.builders import write_sweep
from trainers.protocol.catalog import METHOD, TASKS
from trainers.protocol.settings import ALIASES, FIELDS

ROOT = Path(__file__).parents[3]
SCHEMA = jsonschema.Draft202012Validator(json_schema())
HEAD = "task: text-classification\nmodel: ./model\ndata: train.jsonl\n"


def problems(values: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in SCHEMA.iter_errors(values)]


@pytest.fixture
def parse(tmp_path):
    """Load a text beside a good `model` folder and `train.jsonl`; problems as text."""

    def parse(text):
        path = write_sweep(tmp_path)
        path.write_text(text)
        try:
            load_config(path, Home(tmp_path / "home"))
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return parse


def test_it_is_a_schema_of_draft_2020_12():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema


YAMLS = {path.name: path.read_text() for path in sorted((ROOT / "search_spaces").glob("*.yaml"))} | {
    f"{page}-{number}": block
    for page in ("README.md", "search_spaces/README.md")
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S))
}


@pytest.mark.parametrize("name", YAMLS)
def test_every_yaml_of_ours_is_valid(name, tmp_path):
    """As this project reads it, and as a reader of YAML 1.1 does, to whom `1e-6` is text."""
    (tmp_path / "a.yaml").write_text(YAMLS[name])
    assert problems(read_yaml(tmp_path / "a.yaml")[0]) == []
    assert problems(yaml.safe_load(YAMLS[name])) == []


# --- what both take ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "training: {num_train_epochs: 2, per_device_train_batch_size: 4, gradient_accumulation_steps: 2, bf16: true}",
        "training: {num_train_epochs: null, bf16: null, max_steps: null}",
        "training: {learning_rate: 1e-6, early_stopping: {patience: 1}, target_modules: [q_proj], lora_alpha: null}",
        "training: {rank_pattern: {q_proj: 16}, modules_to_save: embed_tokens, loss: focal}",
        "training:\nsearch_space:\nbudget:\nfinalists:\nmetrics:\nreport_to:\nobjective:\npruner:",
        "finalists: true\npromote: false",
        "finalists: {top: 1}\npromote: {max_drop: 0, name: mine, replace: true}",
        "objective: [{metric: f1_macro}, {metric: seconds}]\nconstraints: {max_seconds: 1e2, max_adapter_mb: null}",
        "pruner: {percentile: 10, metric: f1_macro}",
        "pruner: {type: patient, patience: 1, rule: {type: patient, rule: {}}}",
        "pruner: {type: threshold, lower: -1, upper: null}",
        "budget: {hours: 1.5, until: 6:30, trials: 1e1, cost: {per_hour: 2, max: 3}, gpu_hours: ~}",
        "search_space: {lora_r: 8, learning_rate: 1e-3, method: {type: choice, values: [lora, dora]}}",
        "search_space: {learning_rate: {type: float, low: 1e-5, high: 1e-2, log: true}}",
        "search_space: {lora_alpha: {type: choice, values: [null, 8]}, lora_r: {type: int, low: 4, high: 8, step: 2}}",
        "search_space: {method: {type: choice, values: [lora, dora]}, lora_r: {type: int, low: 4, high: 8, "
        "when: {method: [lora]}}}",
        "search_space: {rank_pattern: {type: choice, values: [null, {q_proj: 16}]}}",
        "search_strategy: {warm_start: old, enqueue: [{}], num_trials: 1e1}",
        "report_to: [tensorboard, mlflow]\nseed: 3\nname: x-1\nx-mine: {anything: [1]}",
    ],
)
def test_what_the_parser_takes_the_schema_takes(parse, tmp_path, text):
    assert parse(HEAD + text) == []
    assert problems(read_yaml(tmp_path / "sweep.yaml")[0]) == []


def test_long_forms_of_model_and_data(parse, tmp_path):
    text = (
        "task: text-classification\nmodel: {source: ./model, trust_remote_code: false}\n"
        "data: {train: {source: train.jsonl, split: 'train[:9]'}, test: null, validation_size: 40, label: stars,"
        " label_names: [bad, good]}\n"
    )
    assert parse(text) == []
    assert problems(read_yaml(tmp_path / "sweep.yaml")[0]) == []


@pytest.mark.parametrize("task", TASKS)
def test_the_columns_of_every_task(task):
    roles = [*TASKS[task].columns, *TASKS[task].optional_columns]
    assert problems({"task": task, "model": "m", "data": {"train": "x", **dict.fromkeys(roles, "c")}}) == []


@pytest.mark.parametrize(
    "field", [METHOD, *FIELDS.values(), *(a.field for a in ALIASES.values())], ids=lambda f: f.name
)
def test_a_setting_s_default_is_a_value_of_it(field):
    for schema_of in (setting_schema, *([dimension_schema] if field.searchable else [])):
        assert list(jsonschema.Draft202012Validator(schema_of(field)).iter_errors(field.default)) == []


# --- what both refuse ----------------------------------------------------------------------------------

WRONG = [
    "learning_rte: 1",
    "task: text-classificatoin",
    "method: xlora",
    "name: a/b",
    "seed: -1",
    "seed: 1.5",
    "model: 3",
    "data: {validation: train.jsonl}",
    "data: {train: train.jsonl, validation_size: 0}",
    "data: {train: {split: 'train[:9]'}}",
    "training: {lora_r: 0}",
    "training: {learning_rate: fast}",
    "training: {optim: adam}",
    "training: {packing: 1}",
    "training: {early_stopping: {patienc: 1}}",
    "training: {dataloader_num_workers: 4}",
    "training: {rank_pattern: {query: 0}}",
    "search_space: {evaluations: 3}",
    "search_space: {lora_r: [4, 8]}",
    "search_space: {lora_r: {low: 4, high: 8}}",
    "search_space: {lora_r: {type: float, low: 4, high: 8}}",
    "search_space: {lora_r: {type: int, low: 4}}",
    "search_space: {lora_r: {type: int, low: 0, high: 8}}",
    "search_space: {lora_r: {type: choice, values: []}}",
    "search_space: {lora_r: {type: choice, values: [8], low: 4}}",
    "search_space: {lora_r: {type: int, low: 4, high: 8, values: [8]}}",
    "search_space: {lora_r: {type: int, low: 4, high: 8, when: {}}}",
    "search_strategy: {type: bayes}",
    "search_strategy: {num_trials: 0}",
    "objective: []",
    "objective: {metrc: loss}",
    "constraints: {max_minutes: 1}",
    "pruner: {type: median, percentile: 25}",
    "pruner: {type: patient}",
    "pruner: {min_fraction: 1}",
    "budget: {hours: 0}",
    "budget: {until: noon}",
    "budget: {cost: 40}",
    "finalists: 3",
    "finalists: {seeds: 1}",
    "trials: {retries: 1001}",
    "promote: {max_drop: 1}",
    "report_to: tensorboard",
    "report_to: [wandb]",
    "generation: {examples: 0}",
    "metrics: bleurt",
]


@pytest.mark.parametrize("line", WRONG)
def test_what_the_schema_refuses_the_parser_refuses(parse, tmp_path, line):
    key = line.partition(":")[0]
    rest = "".join(f"{known}\n" for known in HEAD.splitlines() if known.partition(":")[0] != key)
    assert len(parse(f"{rest}{line}\n")) == 1
    assert problems(read_yaml(tmp_path / "sweep.yaml")[0])


# --- every key is declared -----------------------------------------------------------------------------


def test_the_parser_asks_for_the_declared_keys_and_no_others(parse, monkeypatch):
    """Of each section, whatever the task: what it asks for before it is finished."""
    asked: dict[tuple[str, ...], set[str]] = {}
    finish = Section.finish

    def record(section):
        asked.setdefault(section._path, set()).update(section._asked)
        finish(section)

    monkeypatch.setattr(Section, "finish", record)
    for task in TASKS:
        for rule in RULES:
            parse(
                f"task: {task}\nmodel: {{source: ./model}}\ndata: {{train: {{source: train.jsonl}}, documents: file}}\n"
                f"objective: {{metric: mine}}\nmetrics: mine.py:mine\nfinalists: {{top: 1}}\npromote: {{name: a}}\n"
                f"pruner: {{type: {rule}}}\nmethod: prompt\nsearch_space: {{max_length: {{type: int}}}}\n"
            )
    del asked["pruner", "rule"]
    methods = {name for name, field in FIELDS.items() if field.methods}
    for path, names in asked.items():
        schema = json_schema()
        for part in path:
            schema = schema["properties"][part]
            schema = schema["anyOf"][1] if "anyOf" in schema and "properties" not in schema else schema
        declared = set(schema["properties"])
        if path == ("training",):
            declared, names = declared - methods, names - methods
        assert names - {"dataloader_num_workers"} == declared - ({"values"} if "low" in declared else set()), path
