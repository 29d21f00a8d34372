"""A sweep's file: what is complete, what is refused, and what follows from it."""

import dataclasses
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.config.budget import Budget
from hpo.config.dimensions import Choice
from hpo.config.file import load_config
from hpo.config.finalists import Finalists
from hpo.config.intent import intent_of
from hpo.config.objective import Objective
from hpo.config.space import from_resolved
from hpo.config.strategy import STRATEGIES, SearchStrategy
from hpo.config.sweep_config import RetryPolicy, corner, largest_point
from hpo.config.trial_specs import TrialSpecs
from hpo.demo.assets import ASSETS
from hpo.errors import ConfigError
from hpo.paths import Home
from hpo.pruning.patient import Patient
from hpo.pruning.percentile import Median, Percentile
from hpo.pruning.table import RULES
from hpo.results.changes import differences
from hpo.tracking.trial_settings import set_by_file
from tests.hpo.builders import INSPECTION, make_config, write_sweep
from trainers.protocol.catalog import METHOD, METHODS, RESOURCES, TASKS, canonical_settings, default_settings
from trainers.protocol.codec import from_json, to_json
from trainers.protocol.files import TrialPaths
from trainers.protocol.settings import BUDGETS, FIELDS, LORA_METHODS, MOST, OPTIMIZERS
from trainers.protocol.trial_spec import SourceRef, TrialSpec

SMALLEST = "task: text-classification\nmodel: ./model\ndata: train.jsonl\n"


@pytest.fixture
def read(tmp_path):
    """The config of a text, beside a good `model` folder and `train.jsonl`."""

    def read(text):
        path = write_sweep(tmp_path)
        path.write_text(text)
        return load_config(path, Home(tmp_path / "home"))

    return read


@pytest.fixture
def refused(read, tmp_path):
    """The problems of a text, one line each, without the folder."""

    def refused(text):
        with pytest.raises(ConfigError) as caught:
            read(text)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return refused


# --- what is complete ----------------------------------------------------------------------------------


def test_task_model_and_data_are_a_whole_sweep(read, tmp_path):
    config = read(SMALLEST)
    assert config.name == "sweep"
    assert config.model.source == str(tmp_path / "model")
    assert config.data.train.source == str(tmp_path / "train.jsonl")
    assert (config.data.validation, config.data.test, config.data.seed) == (None, None, 0)
    assert config.data.columns == {"text": "text", "label": "label"}
    assert (config.method, config.strategy) == ("lora", SearchStrategy("auto", 20, (), ()))
    assert config.objectives == (Objective("f1_macro", "maximize"),) == (config.objective,)
    assert (config.pruner.type, config.pruner.rule) == ("percentile", Percentile(25.0, 0.2, 3, 0.02))
    assert (config.constraints, config.budget, config.finalists) == ({}, Budget(), None)
    assert config.retry_policy == RetryPolicy(retries=2, stall_minutes=30.0)
    assert config.promote is not None
    assert (config.promote.name, config.promote.max_drop) == ("sweep", 0.01)
    assert config.settings == default_settings("text-classification", "lora")
    assert config.report_to == ()
    assert config.planned_trials() == 1


def test_a_task_brings_its_own_defaults(tmp_path):
    config = make_config(tmp_path, task="chat")
    assert config.settings["batch_size"] == 8
    assert config.data.columns == {"messages": "messages"}
    assert (config.objective.metric, config.objective.direction) == ("perplexity", "minimize")


def test_what_the_file_gives_wins(tmp_path):
    config = make_config(
        tmp_path,
        name="mine",
        method="dora",
        training={"lora_r": 4, "early_stopping": {"patience": 7}},
        objective={"metric": "loss"},
        promote=False,
        seed=3,
        data={"train": "train.jsonl", "text": "review", "validation_size": 40, "split_seed": 5},
        search_strategy={"type": "gp", "num_trials": 9, "enqueue": [{"lora_r": 4}], "warm_start": ["old"]},
        search_space={"lora_r": 4},
        constraints={"max_seconds": 60},
        pruner={"type": "patient", "rule": {"type": "median"}},
        budget={"trials": 7, "until": "06:00"},
        finalists={"top": 2, "seeds": 5},
        trials={"retries": 0, "stall_minutes": 1.5},
    )
    assert (config.name, config.method, config.promote, config.seed) == ("mine", "dora", None, 3)
    assert (config.settings["lora_r"], config.settings["early_stopping.patience"]) == (4, 7)
    assert config.objective.direction == "minimize"
    assert config.data.columns == {"text": "review", "label": "label"}
    assert (config.data.validation_size, config.data.seed) == (40, 5)
    assert config.strategy == SearchStrategy("gp", 9, ({"lora_r": 4},), ("old",))
    assert config.space.dimensions == {"lora_r": Choice((4,))}
    assert config.constraints == {"seconds": 60}
    assert config.pruner.rule == Patient(Median())
    assert config.budget == Budget(trials=7, until="06:00")
    assert (config.finalists, config.retry_policy) == (Finalists(2, 5), RetryPolicy(0, 1.5))


@pytest.mark.parametrize("value", [None, "file", "paragraph", "line", "\n***\n", "<|endoftext|>"])
def test_a_text_file_is_cut_as_the_file_says(tmp_path, value):
    data = {"train": "train.jsonl"} if value is None else {"train": "train.jsonl", "documents": value}
    config = make_config(tmp_path, task="causal-lm", data=data)
    assert config.data.documents == (value or "file")
    assert config.resolved()["data"].get("documents", "file") == (value or "file")


@pytest.mark.parametrize(
    ("task", "value", "problem"),
    [
        ("chat", "line", "data.documents: is given; only causal-lm reads documents, not chat: remove it"),
        ("causal-lm", "lines", "data.documents: got 'lines'; did you mean 'line'?"),
        ("causal-lm", "", "data.documents: got ''; expected text"),
        ("causal-lm", 3, "data.documents: got 3; expected text"),
    ],
)
def test_documents_that_cannot_be(tmp_path, task, value, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        make_config(tmp_path, task=task, data={"train": "train.jsonl", "documents": value})


def test_what_a_release_may_replace_is_said_by_the_file(tmp_path):
    default, asked = (make_config(tmp_path, promote=p).promote for p in ({}, {"replace": True, "allow_useless": True}))
    assert default is not None
    assert asked is not None
    assert (default.replace, default.allow_useless) == (False, False)
    assert (asked.replace, asked.allow_useless) == (True, True)


@pytest.mark.parametrize(
    ("changes", "is_given"),
    [
        ({}, False),
        ({"training": {"max_length": 256}}, True),
        ({"search_space": {"max_length": {"type": "choice", "values": [64, 128]}}}, True),
        ({"search_space": {"max_length": 64}}, True),
    ],
)
def test_an_unset_max_length_is_what_the_model_allows(tmp_path, changes, is_given):
    config, home = make_config(tmp_path, **changes), Home(tmp_path)
    assert config.workload(home).max_length_is_given is is_given
    point, paths = config.baseline(), TrialPaths(tmp_path)
    as_inspected = TrialSpecs(config, home, INSPECTION).spec(0, point, paths)
    shorter = TrialSpecs(config, home, dataclasses.replace(INSPECTION, max_length=32)).spec(0, point, paths)
    assert int(as_inspected.settings["max_length"]) >= 64
    assert shorter.settings["max_length"] == 32


@pytest.mark.parametrize("value", [[], ["mlflow"], ["tensorboard"], ["tensorboard", "mlflow"], None])
def test_views_are_those_that_are_asked_for(tmp_path, value):
    config = make_config(tmp_path, report_to=value)
    assert sorted(config.report_to) == sorted(value or [])
    assert config.resolved()["report_to"] == list(config.report_to)


@pytest.mark.parametrize(
    ("value", "finalists"),
    [(None, None), (False, None), (True, Finalists(3, 3)), ({}, Finalists(3, 3)), ({"top": 1}, Finalists(1, 3))],
)
def test_finalists_are_off_until_asked_for(tmp_path, value, finalists):
    assert make_config(tmp_path, finalists=value).finalists == finalists


def test_a_whole_number_where_any_is_meant_is_the_same_setting(tmp_path):
    """Else `max_grad_norm: 1` would be another trial than the default, 1.0."""
    given_ = make_config(tmp_path, training={"max_grad_norm": 1, "max_epochs": 3, "alpha_ratio": 2}).settings
    assert repr(given_) == repr(make_config(tmp_path).settings)


def test_a_whole_number_may_have_an_exponent(tmp_path):
    config = make_config(tmp_path, training={"max_examples": 1e5, "per_device_train_batch_size": 8.0})
    assert repr((config.settings["max_examples"], config.settings["micro_batch_size"])) == "(100000, 8)"
    both = {"gradient_accumulation_steps": 2.0, "per_device_train_batch_size": 8.0}
    assert repr(make_config(tmp_path, training=both).settings["batch_size"]) == "16"


def test_a_hub_id_is_left_as_it_is(tmp_path):
    config = make_config(tmp_path, model={"source": "org/model", "revision": "abc"}, data="org/data")
    assert (config.model.source, config.model.revision) == ("org/model", "abc")
    assert config.data.train.source == "org/data"


def test_a_split_may_say_which_rows_of_its_source(tmp_path):
    part = {"source": "train.jsonl", "split": "train[80%:]"}
    hub = {"source": "org/data", "config": "en", "revision": "v2", "split": "train[:10%] + test"}
    data = make_config(tmp_path, data={"train": hub, "validation": part, "test": {"source": "org/data"}}).data
    assert data.train == SourceRef("org/data", "en", "v2", "train[:10%] + test")
    assert data.validation == SourceRef(str(tmp_path / "train.jsonl"), split="train[80%:]")
    assert data.test == SourceRef("org/data")
    text, mapping = make_config(tmp_path), make_config(tmp_path, data={"train": {"source": "train.jsonl"}})
    assert text.resolved() == mapping.resolved()
    assert mapping.resolved()["data"]["train"]["source"] == str(tmp_path / "train.jsonl")


def test_paths_start_at_the_file_not_at_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert make_config(tmp_path / "sweeps").data.train.source == str(tmp_path / "sweeps" / "train.jsonl")


# --- what is refused -----------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once(refused):
    problems = refused(
        "task: text-classificatoin\n"
        "model: ./nowhere\n"
        "data: {train: gone.jsonl, validation_size: -1}\n"
        "search_strategy: {type: tp, num_trials: 0}\n"
        "search_space:\n"
        "  learnin_rate: {type: float, low: 1, high: 2}\n"
        "training: {lora_r: big}\n"
        "objectiv: {metric: loss}\n"
        "seed: -1\n"
        "budget: {hours: 0, cost: {max: 4}}\n"
        "finalists: {top: 0, seeds: 1}\n"
        "trials: {retries: -1, stall_minutes: 0}\n"
        "constraints: {max_second: 4}\n"
        "pruner: {type: threshold, lower: 2, upper: 1}\n"
        "promote: {max_drop: 2}\n"
    )
    assert sorted((problem.split(";")[0] for problem in problems), key=lambda p: (int(p.split(":")[1]), p)) == [
        "sweep.yaml:1: task: got 'text-classificatoin'",
        "sweep.yaml:2: model: no folder './nowhere'",
        "sweep.yaml:3: data.train: no file 'gone.jsonl'",
        "sweep.yaml:3: data.validation_size: got -1",
        "sweep.yaml:4: search_strategy.num_trials: got 0",
        "sweep.yaml:4: search_strategy.type: got 'tp'",
        "sweep.yaml:6: search_space.learnin_rate: unknown parameter",
        "sweep.yaml:7: training.lora_r: got 'big'",
        "sweep.yaml:8: objectiv: unknown key",
        "sweep.yaml:9: seed: got -1",
        "sweep.yaml:10: budget.cost.max: is given without per_hour",
        "sweep.yaml:10: budget.hours: got 0",
        "sweep.yaml:11: finalists.seeds: got 1",
        "sweep.yaml:11: finalists.top: got 0",
        "sweep.yaml:12: trials.retries: got -1",
        "sweep.yaml:12: trials.stall_minutes: got 0",
        "sweep.yaml:13: constraints.max_second: unknown key",
        "sweep.yaml:14: pruner.lower: lower 2 is above upper 1",
        "sweep.yaml:15: promote.max_drop: got 2",
    ]


def test_the_message_counts_and_lists_the_problems(read):
    with pytest.raises(ConfigError) as caught:
        read(SMALLEST + "seed: x\nnmae: y\n")
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 problems"
    assert len(lines) == 3
    assert caught.value.exit_code == 2


def test_an_empty_mapping_misses_its_three_keys(refused):
    problems = refused("{}")
    assert [problem.split(";")[0] for problem in problems] == [
        "sweep.yaml:1: task: is missing", "sweep.yaml:1: model: is missing", "sweep.yaml:1: data: is missing",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("serach_space: {}", "serach_space: unknown key; did you mean 'search_space'?"),
        ("training: {lorar: 8}", "training.lorar: unknown key; did you mean 'lora_r'?"),
        (
            "training: {early_stopping: {patienc: 1}}",
            "training.early_stopping.patienc: unknown key; did you mean 'patience'?",
        ),
        (
            "objective: {metric: perplexity}",
            "objective.metric: text-classification has no metric 'perplexity'; "
            f"expected one of {', '.join(TASKS['text-classification'].metrics)}",
        ),
        ("training: {packing: true}", "training.packing: rows of text-classification are not packed; "
                                      "remove it; it goes with causal-lm, instruct, chat"),
        ("objective: {metric: f1macro}", "objective.metric: got 'f1macro'; did you mean 'f1_macro'?"),
        ("method: [lora]", "method: got ['lora']; did you mean 'lora'?"),
        ("objective: {metric: [loss]}", "objective.metric: got ['loss']; did you mean 'loss'?"),
        (
            "training: {max_steps: 10, max_epochs: 2}",
            "training.max_steps: max_epochs and max_steps are given or searched; expected one of them",
        ),
        ("training: {lora_r: 0}", "training.lora_r: got 0; expected a whole number at least 1 and at most 1024"),
        (
            "training: {learning_rate: fast}",
            "training.learning_rate: got 'fast'; expected a number above 0 and at most 1",
        ),
        ("training: {optim: adam}", f"training.optim: got 'adam'; expected one of {', '.join(OPTIMIZERS)}"),
        ("training: {max_grad_norm: true}", "training.max_grad_norm: got True; expected a number above 0"),
        ("training: {early_stopping: 3}", "training.early_stopping: got 3; expected a mapping"),
        ("training: fast", "training: got 'fast'; expected a mapping"),
        ("method: xlora", "method: got 'xlora'; did you mean 'lora'?"),
        ("budget: 2", "budget: got 2; expected a mapping"),
        ("budget: {minutes: 2}", "budget.minutes: unknown key; did you mean 'trial_minutes'?"),
        ("finalists: 3", "finalists: got 3; expected a mapping"),
        ("finalists: 0", "finalists: got 0; expected a mapping"),
        ("finalists: on", "finalists: got 'on'; write true"),
        ("finalists: Off", "finalists: got 'Off'; write false"),
        ("finalists: {top: 0}", "finalists.top: got 0; expected a whole number from 1 to 100"),
        ("finalists: {top: 101}", "finalists.top: got 101; expected a whole number from 1 to 100"),
        ("finalists: {seeds: 1}", "finalists.seeds: got 1; expected a whole number from 2 to 100"),
        ("finalists: {seeds: 2.5}", "finalists.seeds: got 2.5; expected a whole number from 2 to 100"),
        ("finalists: {seed: 3}", "finalists.seed: unknown key; did you mean 'seeds'?"),
        ("trials: 5", "trials: got 5; expected a mapping"),
        ("trials: {retries: -1}", "trials.retries: got -1; expected a whole number from 0 to 1000"),
        ("trials: {retries: 1001}", "trials.retries: got 1001; expected a whole number from 0 to 1000"),
        ("trials: {stall_minutes: 0}", "trials.stall_minutes: got 0; expected a number above 0"),
        ("trials: {stall_minutes: never}", "trials.stall_minutes: got 'never'; expected a number above 0"),
        ("trials: {stal_minutes: 1}", "trials.stal_minutes: unknown key; did you mean 'stall_minutes'?"),
        ("constraints: {max_minutes: 1}",
         "constraints.max_minutes: unknown key; known: max_seconds, max_trainable_parameters, max_adapter_mb"),
        ("objective: [{metric: f1_macro}, {metric: f1_macro}]", "objective: names a metric twice; expected each once"),
        ("objective: {metric: seconds}",
         "objective.metric: got 'seconds'; what a trial costs comes second; "
         f"first one of {', '.join(TASKS['text-classification'].metrics)}"),
        ("pruner: {metric: loss}", "pruner.metric: got 'loss'; known: f1_macro"),
        ("pruner: {type: patient}", "pruner.type: has no rule; expected e.g. rule: {type: median}"),
        ("search_space: {method: [lora, dora]}",
         "search_space.method: got ['lora', 'dora']; expected a value, or {type: choice, values: [...]}"),
        ("search_space: {method: {type: choice, values: [[lora]]}}",
         f"search_space.method.values: got ['lora']; expected one of {', '.join(METHODS)}"),
        ("search_space: {method: {type: choice, values: {lora: 1}}}",
         "search_space.method.values: got {'lora': 1}; expected a list of values, e.g. [8, 16, 32]"),
        ("search_space: {lora_r: {type: int, low: 4, high: 8, when: {method: lora}}}",
         "search_space.lora_r.when.method: is not a dimension; known: lora_r"),
        ("search_strategy: {enqueue: [{lora_r: 8}]}",
         "search_strategy.enqueue: point 1: 'lora_r' is not a dimension; search_space has none"),
        ("search_strategy: {warm_start: [../old]}",
         "search_strategy.warm_start: got ['../old']; expected names of earlier sweeps"),
        ("report_to: tensorboard", "report_to: got 'tensorboard'; expected a list, e.g. [tensorboard]"),
        ("report_to: true", "report_to: got True; expected a list, e.g. [tensorboard]"),
        ("report_to: [tensorbord]", "report_to: got 'tensorbord'; did you mean 'tensorboard'?"),
        ("report_to: [mlflow, wandb]", "report_to: got 'wandb'; known: mlflow, tensorboard"),
        ("report_to: [[tensorboard]]", "report_to: got ['tensorboard']; did you mean 'tensorboard'?"),
        ("promote: on", "promote: got 'on'; write true"),
        ("promote: no", "promote: got 'no'; write false"),
        ("seed: 1:0:0", "seed: got '1:0:0'; expected a whole number from 0"),
        ("seed: 1_000", "seed: got '1_000'; expected a whole number from 0: write 1000"),
        ('seed: "5"', "seed: got '5'; expected a whole number from 0: write 5"),
        ('seed: "1,000"', "seed: got '1,000'; expected a whole number from 0: write 1000"),
        ('seed: "1,5"', "seed: got '1,5'; expected a whole number from 0"),
        ('budget: {hours: "1,5"}', "budget.hours: got '1,5'; expected a number above 0: write 1.5"),
        ('training: {learning_rate: "0,001"}',
         "training.learning_rate: got '0,001'; expected a number above 0 and at most 1: write 0.001"),
        ("training: {max_steps: 1.5e0}", "training.max_steps: got 1.5; expected a whole number at least 1"),
        ("seed:", "seed: is empty; expected a whole number from 0"),
        ("seed: null", "seed: got null; expected a whole number from 0"),
        ("budget: {hours: 1:30}", "budget.hours: got '1:30'; expected a number above 0, e.g. 1.5"),
        ("search_strategy: {type: }", "search_strategy.type: is empty; known: " + ", ".join(STRATEGIES)),
        ('training: {target_modules: ""}', "training.target_modules: got ''; expected text, or a list of texts"),
        ("training: {target_modules: [1]}", "training.target_modules: got [1]; expected text, or a list of texts"),
        ("search_strategy: {num_trials: 1e308}", "search_strategy.num_trials: got 1e+308; expected at most 1,000,000"),
        ("training: {max_steps: 4000000000000}", f"training.max_steps: got 4000000000000; expected at most {MOST:,}"),
        pytest.param("name: ../x", "name: got '../x'; expected letters, digits, '.', '_' and '-'"),
        pytest.param("name: a/b", "name: got 'a/b'; expected letters, digits, '.', '_' and '-'"),
        pytest.param("name: ..", "name: got '..'; expected letters, digits, '.', '_' and '-'"),
        ('name: ""', "name: got ''; expected text"),
        ("promote: {name: ../x}", "promote.name: got '../x'; expected letters, digits, '.', '_' and '-'"),
        ("promote: {max_drop: 1}", "promote.max_drop: got 1; expected a share from 0, below 1"),
        ("promote: {min_agreement: 1.5}", "promote.min_agreement: got 1.5; expected a number between 0 and 1"),
        ("promote: {max_size_mb: 0}", "promote.max_size_mb: got 0; expected a number above 0"),
        ("promote: {prefer: speed}", "promote.prefer: got 'speed'; known: latency, size, quality"),
        ("pruner: {min_peers: 0}", "pruner.min_peers: got 0; expected a whole number from 1"),
        ("pruner: {min_fraction: 1}", "pruner.min_fraction: got 1; expected a number between 0 and 1"),
        ("search_strategy: {num_trials: 2.5}", "search_strategy.num_trials: got 2.5; expected a whole number from 1"),
        pytest.param(
            "search_strategy: {num_trials: .inf}", "search_strategy.num_trials: got inf; expected a whole number from 1"
        ),
        pytest.param("seed: .inf", "seed: got inf; expected a whole number from 0"),
        pytest.param("search_space: 5", "search_space: got 5; expected a mapping"),
        ("search_space: [lora_r]", "search_space: got ['lora_r']; expected a mapping"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_problem(refused, line, problem):
    assert refused(SMALLEST + line + "\n") == [f"sweep.yaml:4: {problem}"]


def test_all_three_budgets_are_one_problem(refused):
    [problem] = refused(SMALLEST + "training: {max_steps: 10, max_epochs: 2, max_examples: 5}\n")
    assert "max_epochs and max_examples and max_steps are given" in problem


@pytest.mark.parametrize(
    "text",
    [
        SMALLEST.replace("text-classification", ""),
        SMALLEST.replace("./model", ""),
        SMALLEST.replace("train.jsonl", ""),
        pytest.param(SMALLEST.replace("train.jsonl", "{train: }")),
        SMALLEST.replace("train.jsonl", "{validation: train.jsonl}"),
        SMALLEST.replace("./model", "{revision: abc}"),
    ],
)
def test_a_required_key_without_a_value_is_missing(refused, text):
    [problem] = refused(text)
    assert "is missing" in problem


def test_names_of_labels_that_differ_in_blanks_alone_are_one_name(tmp_path):
    data = {"train": "train.jsonl", "label_names": ["good", "bad "]}
    assert make_config(tmp_path, data=data).data.label_names == ["good", "bad"]
    with pytest.raises(ConfigError, match="at least two names, each of them once"):
        make_config(tmp_path, data={**data, "label_names": ["good", "bad", " bad"]})


def test_a_folder_has_no_revision(refused):
    problem = "sweep.yaml:2: model.revision: got 'v1'; a folder has no revision: only a hub id has; remove it"
    assert refused(SMALLEST.replace("./model", "{source: ./model, revision: v1}")) == [problem]


def test_a_task_that_is_a_list_is_refused(refused):
    assert refused(SMALLEST.replace("text-classification", "[chat]"))[0].startswith("sweep.yaml:1: task: got ['chat']")


def test_a_missing_data_file_is_named_with_its_line_and_where_paths_start(refused, tmp_path):
    [problem] = refused(SMALLEST.replace("train.jsonl", "{train: gone.jsonl}"))
    assert problem == f"sweep.yaml:3: data.train: no file 'gone.jsonl'; paths start at {tmp_path}"


def test_data_in_short_form_has_its_own_line(refused):
    [problem] = refused(SMALLEST.replace("train.jsonl", "gone.jsonl"))
    assert problem.startswith("sweep.yaml:3: data")


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        ("{}", [".source: is missing; expected a file, a hub id or fetch:NAME"]),
        ("{source: 5}", [".source: got 5; expected text"]),
        ("{source: gone.jsonl, split: 'train['}",
         [".source: no file 'gone.jsonl'; paths start at ", ".split: got 'train['; expected e.g. train, train[:4096]"]),
        ("{source: train.jsonl, config: en, revision: v2}",
         [".config: got 'en'; files have no config: only a hub id has; remove it",
          ".revision: got 'v2'; files have no revision: only a hub id has; remove it"]),
        ("{source: '*.jsonl', config: en}", [".config: got 'en'; files have no config"]),
        ("{source: model, revision: v2}", [".revision: got 'v2'; files have no revision"]),
        ("{source: 'fetch:vader-movie', config: en}",
         [".source: fetch:vader-movie is not there yet", ".config: got 'en'; files have no config"]),
        ("{source: train.jsonl, split: 'train[10%:20]'}",
         [".split: got 'train[10%:20]'; expected both ends in percent, or both in rows"]),
        ("{source: train.jsonl, split: 'train[:5]+train[9:]'}", [".split: got 'train[:5]+train[9:]'; expected e.g."]),
        ("{source: train.jsonl, split: 'test[:5]'}",
         [".split: got 'test[:5]'; local files have no named splits: write train[:4096], or validation[:4096]"]),
        ("{source: org/data, split: 'train[:200%]'}",
         [".split: got 'train[:200%]'; expected percents from -100% to 100%"]),
        ("{source: org/data, split: 5, confg: en}",
         [".split: got 5; expected text", ".confg: unknown key; did you mean 'config'?"]),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_is_told_by_its_key(refused, source, problems):
    told = refused(SMALLEST.replace("train.jsonl", f"\n  train: train.jsonl\n  validation: {source}"))
    assert len(told) == len(problems)
    for one, problem in zip(told, problems, strict=True):
        assert one.startswith(f"sweep.yaml:5: data.validation{problem}")


def test_data_of_an_unknown_format_is_refused(refused, tmp_path):
    (tmp_path / "train.xlsx").touch()
    [problem] = refused(SMALLEST.replace("train.jsonl", "train.xlsx"))
    assert "train.xlsx has an unknown format; expected .jsonl, .json, .csv, .tsv, .parquet" in problem


def test_a_column_of_another_task_is_unknown(refused):
    [problem] = refused(SMALLEST.replace("train.jsonl", "{train: train.jsonl, messages: m}"))
    assert problem.startswith("sweep.yaml:3: data.messages: unknown key")


ALPHAS = "lora_alpha: {type: float, low: 1, high: 9}, alpha_ratio: {type: float, low: 1, high: 9}"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            f"search_space: {{{ALPHAS}}}",
            "4: search_space.alpha_ratio: lora_alpha and alpha_ratio are both searched; expected one of them",
        ),
        (
            "training: {lora_alpha: 16}\nsearch_space:\n  alpha_ratio: {type: choice, values: [1, 2]}",
            "6: search_space.alpha_ratio: is searched, but training.lora_alpha decides; remove one of the two",
        ),
        (
            "training:\n  max_steps: 100\nsearch_space:\n  max_epochs: {type: choice, values: [1, 2]}",
            "5: training.max_steps: max_epochs and max_steps are given or searched; expected one of them",
        ),
        (
            "training:\n  max_epochs: 3\nsearch_space:\n  max_examples: {type: choice, values: [100, 200]}",
            "7: search_space.max_examples: max_epochs and max_examples are given or searched; expected one of them",
        ),
        (
            "search_space:\n  max_examples: {type: choice, values: [9]}\n  max_epochs: {type: choice, values: [1, 2]}",
            "5: search_space.max_examples: max_epochs and max_examples are given or searched; expected one of them",
        ),
        (
            "search_strategy:\n  type: grid\nsearch_space:\n  learning_rate: {type: float, low: 1e-5, high: 1e-2}\n"
            "  lora_r: {type: int, low: 1, high: 2}\n  weight_decay: {type: float, low: 0, high: 1}",
            "5: search_strategy.type: grid needs a finite space; learning_rate, weight_decay has none; "
            "give each a step, or type: choice",
        ),
        (
            "search_strategy: {type: grid}\nsearch_space: {max_examples: {type: int, low: 1, high: 1000000000000}}",
            "4: search_strategy.type: a grid of 1,000,000,000,000 points; "
            "expected at most 20,000: give larger steps, or choose another type",
        ),
        (
            "training: {warmup_steps: 20}\nsearch_space:\n  warmup_ratio: {type: float, low: 0, high: 0.2}",
            "6: search_space.warmup_ratio: is searched, but training.warmup_steps decides; remove one of the two",
        ),
        (
            "search_space:\n  focal_gamma: {type: float, low: 0, high: 5}",
            "5: search_space.focal_gamma: changes nothing: no trial has loss: focal; remove it",
        ),
        (
            "training: {loss: focal}\nsearch_space:\n  label_smoothing_factor: {type: choice, values: [0, 0.1]}",
            "6: search_space.label_smoothing_factor: changes nothing: no trial has loss: default; remove it",
        ),
        (
            "search_space:\n  method: {type: choice, values: [lora, adapter]}\n"
            "  adapter_size: {type: int, low: 8, high: 64, when: {method: lora}}",
            "6: search_space.adapter_size.when.method: lora never reads adapter_size; expected one of adapter",
        ),
        (
            "search_strategy: {enqueue: [{}, {method: dora, lora_r: 8}]}\nsearch_space:\n"
            "  method: {type: choice, values: [lora, dora]}\n"
            "  lora_r: {type: int, low: 4, high: 8, when: {method: lora}}",
            "4: search_strategy.enqueue: point 2: lora_r does not exist there; "
            "see its when; the point is {'method': 'dora'}",
        ),
    ],
)
def test_what_does_not_go_together_is_one_problem(refused, lines, problem):
    assert refused(f"{SMALLEST}{lines}\n") == [f"sweep.yaml:{problem}"]


def test_what_goes_together_is_let_be(read):
    epochs = "training: {max_epochs: 2, max_steps: null}\nsearch_space: {max_epochs: {type: choice, values: [1, 2]}}"
    assert read(SMALLEST + epochs).baseline() == {"max_epochs": 2}
    alpha = "training: {alpha_ratio: 4}\nsearch_space: {lora_alpha: {type: choice, values: [8, 16]}}"
    assert list(read(SMALLEST + alpha).space.dimensions) == ["lora_alpha"]
    grid = "search_strategy: {type: grid}\nsearch_space: {lora_r: {type: int, low: 1, high: 1024}}"
    assert read(SMALLEST + grid).planned_trials() == 1024
    assert read(SMALLEST + "search_strategy: {type: grid}\n").planned_trials() == 1


@pytest.mark.parametrize(
    "lines",
    [
        "training: {loss: focal}\nsearch_space: {focal_gamma: {type: float, low: 0, high: 5}}",
        "search_space:\n  loss: {type: choice, values: [default, focal]}\n"
        "  focal_gamma: {type: float, low: 0, high: 5, when: {loss: focal}}\n"
        "  label_smoothing_factor: {type: float, low: 0, high: 0.2}",
        "training: {loss: focal}\nsearch_space: {loss: {type: choice, values: [class-weighted], when: {lora_r: 8}}, "
        "lora_r: {type: int, low: 4, high: 8}, focal_gamma: {type: float, low: 0, high: 5}}",
        "search_space: {focal_gamma: 2}",
        "training: {warmup_steps: 20, warmup_ratio: 0.1, lora_alpha: 8, alpha_ratio: 2}",
    ],
)
def test_a_dimension_that_some_trial_reads_is_let_be(read, lines):
    assert read(SMALLEST + lines).settings


def test_labels_are_smoothed_in_a_cross_entropy_alone(tmp_path):
    data = {"train": "train.jsonl"}
    for task, section in (("regression", "training"), ("multi-label-classification", "search_space")):
        with pytest.raises(ConfigError, match=f"{section}.label_smoothing_factor: the loss of {task} is no cross-"):
            make_config(tmp_path, task=task, data=data, **{section: {"label_smoothing_factor": 0.1}})
    assert make_config(tmp_path, task="regression", data=data, training={"label_smoothing_factor": 0}).settings
    assert make_config(tmp_path, task="text-to-text", data=data, training={"label_smoothing_factor": 0.1}).settings


def test_a_wrong_task_or_method_is_no_second_problem_elsewhere(refused):
    chat = SMALLEST.replace("text-classification", "chatt") + "metrics: [rouge_l]\npruner: {metric: perplexity}\n"
    assert [problem.partition(";")[0] for problem in refused(chat)] == ["sweep.yaml:1: task: got 'chatt'"]
    size = "training: {adapter_size: 8}\nsearch_space: {num_virtual_tokens: 8}\n"
    methods = ("method: adaptr\n", "search_space: {method: {type: choice, values: [lora, adaptr]}}\n")
    assert [p.partition(";")[0] for p in refused(SMALLEST + size + methods[0])] == [
        "sweep.yaml:6: method: got 'adaptr'"
    ]
    both = methods[1] + "training: {adapter_size: 8}\n"
    assert [p.partition(";")[0] for p in refused(SMALLEST + both)] == [
        "sweep.yaml:4: search_space.method.values: got 'adaptr'"
    ]


def test_an_endless_list_of_points_is_never_made(read):
    """A list of all values would need more memory than there is."""
    config = read(SMALLEST + "search_space: {max_examples: {type: int, low: 1, high: 1000000000000}}\n")
    assert config.planned_trials() == 20


# --- models --------------------------------------------------------------------------------------------


def test_a_folder_without_weights_is_refused(refused, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    [problem] = refused(SMALLEST.replace("./model", "./bare"))
    assert problem == "sweep.yaml:2: model: bare has no weights; expected *.safetensors; pickled weights are never read"


def test_pickled_weights_are_named_and_refused(refused, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    (tmp_path / "old" / "pytorch_model.bin").touch()
    [problem] = refused(SMALLEST.replace("./model", "./old"))
    assert "old has no weights but pytorch_model.bin; expected *.safetensors" in problem


def test_a_folder_without_config_is_refused(refused, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model.safetensors").touch()
    [problem] = refused(SMALLEST.replace("./model", "./half"))
    assert "half has no config.json" in problem


def test_a_gguf_file_names_the_command_that_converts_it(refused, tmp_path):
    (tmp_path / "m.gguf").touch()
    [problem] = refused(SMALLEST.replace("./model", "./m.gguf"))
    assert problem == (
        "sweep.yaml:2: model: m.gguf is a GGUF file; convert it once: python -m trainers.convert_gguf m.gguf FOLDER"
    )


@pytest.mark.parametrize("name", ["./gone", "gone.gguf", "/no/such/folder"])
def test_a_model_path_that_is_not_there_is_refused(refused, name):
    [problem] = refused(SMALLEST.replace("./model", name))
    assert problem.startswith(f"sweep.yaml:2: model: no folder {name!r}")


def test_a_file_as_model_is_refused(refused):
    [problem] = refused(SMALLEST.replace("./model", "./train.jsonl"))
    assert "train.jsonl is not a folder" in problem


@pytest.mark.parametrize("asset", ASSETS.values(), ids=lambda asset: asset.name)
def test_an_asset_that_is_not_fetched_says_which_command_brings_it(refused, asset):
    old = {"model": "./model", "data": "train.jsonl"}[asset.kind]
    [problem] = refused(SMALLEST.replace(old, f"fetch:{asset.name}"))
    assert problem.endswith(f"fetch:{asset.name} is not there yet; run: hpo fetch {asset.name}")


@pytest.mark.parametrize("old", ["./model", "train.jsonl"])
def test_an_asset_that_does_not_exist_is_one_problem(refused, old):
    [problem] = refused(SMALLEST.replace(old, "fetch:nope"))
    assert "no demo model or data set is called 'nope'" in problem


# --- what follows from a config ------------------------------------------------------------------------


def test_max_examples_is_the_budget_itself(tmp_path):
    assert make_config(tmp_path, training={"max_examples": 77}).examples_per_trial(1000) == 77


def test_max_epochs_counts_passes_over_the_rows(tmp_path):
    assert make_config(tmp_path, training={"max_epochs": 1.5}).examples_per_trial(1000) == 1500
    assert make_config(tmp_path, training={"max_epochs": 0.0001}).examples_per_trial(10) == 1


def test_three_epochs_are_the_default(tmp_path):
    assert make_config(tmp_path).examples_per_trial(1000) == 3000


def test_max_steps_counts_steps_of_the_baseline_s_batch_size(tmp_path):
    assert make_config(tmp_path, training={"max_steps": 10, "batch_size": 4}).examples_per_trial(1000) == 40


def test_max_steps_follows_the_baseline_into_the_space(tmp_path):
    config = make_config(
        tmp_path,
        training={"max_steps": 10, "batch_size": 4},
        search_space={"batch_size": {"type": "choice", "values": [32, 64]}},
    )
    assert config.baseline() == {"batch_size": 32}
    assert config.examples_per_trial(1000) == 320


def test_every_trial_has_the_same_budget_whatever_its_batch_size(tmp_path):
    config = make_config(
        tmp_path, training={"max_steps": 10}, search_space={"batch_size": {"type": "choice", "values": [8, 16]}}
    )
    specs = [
        TrialSpecs(config, Home(tmp_path), INSPECTION).spec(1, {"batch_size": size}, TrialPaths(tmp_path))
        for size in (8, 16)
    ]
    assert [spec.max_examples for spec in specs] == [160, 160]
    assert [spec.settings["batch_size"] for spec in specs] == [8, 16]


def test_the_baseline_s_alpha_is_its_ratio_times_its_rank(tmp_path):
    config = make_config(
        tmp_path,
        training={"alpha_ratio": 3.0, "lora_r": 4},
        search_space={"lora_alpha": {"type": "float", "low": 1, "high": 64}},
    )
    assert config.baseline() == {"lora_alpha": 12.0}


def test_the_baseline_s_alpha_follows_its_rank_into_the_space(tmp_path):
    space = {"lora_alpha": {"type": "float", "low": 1, "high": 512}, "lora_r": {"type": "int", "low": 32, "high": 64}}
    assert make_config(tmp_path, search_space=space).baseline() == {"lora_alpha": 64.0, "lora_r": 32}


@pytest.mark.parametrize(
    ("method", "values", "rate"),
    [
        ("lora", ["ia3", "full"], 5e-3),
        ("lora", ["full", "ia3"], 5e-5),
        ("lora", ["full", "lora"], 5e-4),
        ("full", ["ia3", "full"], 5e-5),
    ],
)
def test_defaults_are_those_of_the_baseline_s_method(tmp_path, method, values, rate):
    """Where the file's method is not one of the space, the baseline has the first that is."""
    config = make_config(tmp_path, method=method, search_space={"method": {"type": "choice", "values": values}})
    assert (
        config.settings["learning_rate"]
        == default_settings(config.task, str(config.baseline()["method"]))["learning_rate"]
    )
    assert config.settings["learning_rate"] == rate
    assert config.methods()[0] == config.baseline()["method"]
    assert "learning_rate" not in set_by_file(config)


def test_where_the_method_is_searched_at_some_points_only_others_have_that_of_the_file(tmp_path):
    methods = {"type": "choice", "values": ["lora", "dora"], "when": {"batch_size": 8}}
    sizes = {"type": "choice", "values": [8, 16]}
    config = make_config(tmp_path, method="qlora", search_space={"method": methods, "batch_size": sizes})
    plans = {plan.method: plan.settings.get("quantization") for plan in intent_of(config).plans}
    assert plans == {"lora": None, "dora": None, "qlora": "nf4"}
    assert trial(config, tmp_path, {"batch_size": 16}).method == "qlora"
    assert set(config.methods()) == {"lora", "dora", "qlora"}


def test_a_setting_that_is_searched_too_says_where_the_baseline_starts(tmp_path):
    space = {"lora_r": {"type": "int", "low": 4, "high": 64}, "method": {"type": "choice", "values": ["lora", "dora"]}}
    config = make_config(tmp_path, training={"lora_r": 16}, method="dora", search_space=space)
    assert config.baseline() == {"lora_r": 16, "method": "dora"}
    assert make_config(tmp_path, method="rslora", search_space=space).baseline()["method"] == "lora"


@pytest.mark.parametrize(
    ("strategy", "values", "budget", "planned"),
    [
        ({"type": "grid"}, [8, 16, 32], {}, 3),
        ({"type": "grid", "num_trials": 2}, [8, 16, 32], {}, 3),
        ({"type": "grid"}, [16, 32], {}, 2),  # the baseline is one of them
        ({"type": "grid"}, [8, 16, 32], {"trials": 2}, 2),
        ({"type": "random", "num_trials": 7}, [8, 16, 32], {}, 7),
        ({"type": "random", "num_trials": 7}, [8, 16, 32], {"trials": 9}, 7),
        ({"type": "random", "num_trials": 7}, [8, 16, 32], {"trials": 5}, 5),
        ({}, [8, 16, 32], {"hours": 1}, 20),
    ],
)
def test_planned_trials(tmp_path, strategy, values, budget, planned):
    space = {"lora_r": {"type": "choice", "values": values}}
    config = make_config(tmp_path, search_strategy=strategy, search_space=space, budget=budget)
    assert config.planned_trials() == planned


@pytest.mark.parametrize(
    ("ranks", "budget", "most"),
    [
        ({"type": "choice", "values": [4, 8, 16]}, {}, 3),
        ({"type": "choice", "values": [4, 8, 16]}, {"trials": 2}, 2),
        ({"type": "int", "low": 1, "high": 100}, {}, 20),
        (8, {}, 1),
    ],
)
def test_there_are_no_more_trials_than_points(tmp_path, ranks, budget, most):
    assert make_config(tmp_path, search_space={"lora_r": ranks}, budget=budget).most_trials() == most


@pytest.mark.parametrize("kind", STRATEGIES)
def test_without_a_space_there_is_one_trial_whatever_was_asked_for(tmp_path, kind):
    assert make_config(tmp_path, search_strategy={"type": kind, "num_trials": 9}).planned_trials() == 1


GRIDS = [
    {"weight_decay": {"type": "float", "low": 0.1, "high": 0.3, "step": 0.1}},
    {"weight_decay": {"type": "float", "low": 0.02, "high": 0.9, "step": 0.07}, "lora_r": 3},
    {"lora_r": {"type": "int", "low": 5, "high": 60, "step": 7}, "lora_alpha": {"type": "choice", "values": [None, 3]}},
    {
        "method": {"type": "choice", "values": ["dora", "lora"]},
        "lora_r": {"type": "choice", "values": [2, 32], "when": {"method": "lora"}},
        "max_examples": {"type": "choice", "values": [10, 20], "when": {"lora_r": 32}},
    },
]


@pytest.mark.parametrize("space", GRIDS)
@pytest.mark.parametrize("decay", [0.0, 0.2, 0.3, 1.0])
def test_the_baseline_is_a_point_of_the_grid(tmp_path, space, decay):
    config = make_config(tmp_path, training={"weight_decay": decay}, search_space=space)
    assert config.baseline() in config.space.grid()


# --- budgets and lengths as dimensions -----------------------------------------------------------------


def test_a_searched_number_of_passes_is_each_trial_s_own(tmp_path):
    config = make_config(tmp_path, search_space={"max_epochs": {"type": "float", "low": 0.5, "high": 4}})
    assert config.baseline() == {"max_epochs": 3.0}
    assert config.examples_per_trial(1000) == 3000
    assert config.examples_per_trial(1000, {"max_epochs": 0.5}) == 500
    assert config.largest_budget_examples(1000) == 4000


def test_a_searched_number_of_examples_starts_from_the_largest(tmp_path):
    """No default says how many examples a trial should see: it is given in passes."""
    config = make_config(tmp_path, search_space={"max_examples": {"type": "choice", "values": [100, 400, 200]}})
    assert config.baseline() == {"max_examples": 400}
    assert [config.examples_per_trial(1000, {"max_examples": n}) for n in (100, 400)] == [100, 400]
    assert config.largest_budget_examples(1000) == 400
    chosen = make_config(
        tmp_path,
        training={"max_examples": 150},
        search_space={"max_examples": {"type": "int", "low": 100, "high": 400}},
    )
    assert chosen.baseline() == {"max_examples": 150}


@pytest.mark.parametrize(
    ("search_space", "training", "full"),
    [
        ({}, {}, 3000),
        ({}, {"max_examples": 70}, 70),
        ({}, {"max_steps": 10, "batch_size": 4}, 40),
        ({"max_epochs": {"type": "choice", "values": [1, 2]}}, {}, 2000),
        ({"max_epochs": 1.5}, {"max_epochs": 9}, 1500),
        ({"max_examples": {"type": "int", "low": 10, "high": 65, "step": 20}}, {}, 50),
        ({"max_examples": {"type": "choice", "values": [None, 70]}}, {}, 3000),
        # with a condition, the fixed value counts where it does not hold
        ({"method": {"type": "choice", "values": ["lora", "dora"]},
          "max_epochs": {"type": "choice", "values": [1, 2], "when": {"method": "dora"}}}, {}, 3000),
        ({"method": {"type": "choice", "values": ["lora", "dora"]},
          "max_epochs": {"type": "choice", "values": [1, 2], "when": {"method": "lora"}}}, {"max_epochs": 5}, 5000),
        ({"method": {"type": "choice", "values": ["lora", "dora"]},
          "max_examples": {"type": "choice", "values": [10, 20], "when": {"method": "lora"}}}, {}, 3000),
    ],
)  # fmt: skip
def test_the_full_budget_is_the_largest_of_any_trial(tmp_path, search_space, training, full):
    config = make_config(tmp_path, search_space=search_space, training=training)
    assert config.largest_budget_examples(1000) == full
    grid = config.space.grid()
    assert max(config.examples_per_trial(1000, point) for point in grid) == full
    specs = [trial(config, tmp_path, point) for point in grid]
    assert [(s.largest_budget_examples, s.max_examples) for s in specs] == [
        (full, config.examples_per_trial(1000, point)) for point in grid
    ]


@pytest.mark.parametrize(
    ("search_space", "training", "longest"),
    [
        ({}, {}, 256),
        ({}, {"max_length": 64}, 64),
        ({"max_length": {"type": "choice", "values": [32, 128, 64]}}, {}, 128),
        ({"max_length": {"type": "int", "low": 32, "high": 150, "step": 32}}, {"max_length": 512}, 128),
        ({"max_length": 96}, {}, 96),
        ({"method": {"type": "choice", "values": ["lora", "dora"]},
          "max_length": {"type": "choice", "values": [32, 64], "when": {"method": "dora"}}}, {}, 256),
        ({"method": {"type": "choice", "values": ["lora", "dora"]},
          "max_length": {"type": "choice", "values": [32, 64], "when": {"method": "lora"}}}, {"max_length": 48}, 64),
    ],
)  # fmt: skip
def test_data_is_tokenized_at_the_longest_of_any_trial(tmp_path, search_space, training, longest):
    config = make_config(tmp_path, search_space=search_space, training=training)
    assert config.workload(Home(tmp_path)).max_length == longest
    lengths = [trial(config, tmp_path, point).settings["max_length"] for point in config.space.grid()]
    assert max(lengths) == longest


def test_the_corners_of_a_space(tmp_path):
    space = {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "lora_r": {"type": "int", "low": 4, "high": 65, "step": 4},
        "batch_size": {"type": "choice", "values": [16, 8, 32]},
        "optim": {"type": "choice", "values": ["adafactor", "adamw_torch"]},
        "method": {"type": "choice", "values": ["dora", "lora"]},
        "lora_dropout": {"type": "float", "low": 0, "high": 0.5, "when": {"lora_r": 4}},
    }
    config = make_config(tmp_path, search_space=space)
    assert corner(config, "low") == {
        "learning_rate": 1e-5, "lora_r": 4, "batch_size": 8, "optim": "adamw_torch", "method": "lora",
        "lora_dropout": 0.0,
    }  # fmt: skip
    assert largest_point(config) == corner(config, "high") == {
        "learning_rate": 1e-2, "lora_r": 64, "batch_size": 32, "optim": "adamw_torch", "method": "lora",
    }  # fmt: skip
    assert config.space.contains(corner(config, "low"))
    assert config.space.contains(corner(config, "high"))


# --- which trials are the same -------------------------------------------------------------------------


def trial(config, folder, point, number=1, **changes):
    return TrialSpecs(config, Home(folder), INSPECTION).spec(number, point, TrialPaths(folder), **changes)


EVERY_DIMENSION = {
    "method": {"type": "choice", "values": ["lora", "rslora", "dora"]},
    "learning_rate": {"type": "choice", "values": [1e-4, 5e-4]},
    "batch_size": {"type": "choice", "values": [8, 16]},
    "max_epochs": {"type": "choice", "values": [1, 2]},
    "lora_r": {"type": "choice", "values": [4, 8]},
    "alpha_ratio": {"type": "choice", "values": [1, 2, 4]},
    "max_length": {"type": "choice", "values": [64, 128]},
    "optim": {"type": "choice", "values": ["adamw_torch", "adafactor"]},
    "target_modules": {"type": "choice", "values": ["all-linear", "attention"]},
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    return make_config(folder, search_space=EVERY_DIMENSION), folder


SHARES = st.fixed_dictionaries({name: st.floats(0, 1) for name in EVERY_DIMENSION})


@settings(deadline=None)
@given(SHARES, st.dictionaries(st.sampled_from(sorted(EVERY_DIMENSION)), st.floats(0, 1), max_size=2))
def test_two_points_are_the_same_trial_iff_every_setting_that_counts_is_equal(everything, shares, changes):
    config, folder = everything
    a = config.space.point(lambda name, d: d.at(shares[name]))
    b = config.space.point(lambda name, d: d.at({**shares, **changes}[name]))

    def told(point):
        """The ratio of alpha to the rank only counts as alpha; alpha only with the rank."""
        return {**point, "alpha_ratio": point["alpha_ratio"] * point["lora_r"]}

    first, second = trial(config, folder, a), trial(config, folder, b, number=2)
    assert (first.fingerprint() == second.fingerprint()) == (told(a) == told(b)) == (a == b)


def test_alpha_as_a_ratio_and_as_itself_are_the_same_trial(tmp_path):
    by_ratio = make_config(tmp_path, search_space={"alpha_ratio": {"type": "choice", "values": [1, 2, 4]}, "lora_r": 8})
    by_alpha = make_config(tmp_path, search_space={"lora_alpha": {"type": "choice", "values": [None, 8, 16, 32]}})
    fixed = make_config(tmp_path, training={"lora_alpha": 32})
    first = [trial(by_ratio, tmp_path, {"alpha_ratio": r, "lora_r": 8}).fingerprint() for r in (1.0, 2.0, 4.0)]
    assert first == [trial(by_alpha, tmp_path, {"lora_alpha": a}).fingerprint() for a in (8.0, 16.0, 32.0)]
    assert len(set(first)) == 3
    assert trial(by_alpha, tmp_path, {"lora_alpha": None}).fingerprint() == first[1]
    assert trial(fixed, tmp_path, {}).fingerprint() == first[2]
    assert trial(fixed, tmp_path, {}).settings["lora_alpha"] == 32.0
    assert "alpha_ratio" not in trial(fixed, tmp_path, {}).settings


def test_a_trial_takes_as_many_devices_of_its_place_as_it_asks_for(tmp_path):
    config = make_config(tmp_path, search_space={"devices": {"type": "choice", "values": [1, 2]}})
    assert config.devices_per_trial() == 2
    one, two = ({"devices": count} for count in (1, 2))
    assert trial(config, tmp_path, one, devices=("cuda:2", "cuda:3")).devices == ("cuda:2",)
    assert trial(config, tmp_path, two, devices=("cuda:2", "cuda:3")).devices == ("cuda:2", "cuda:3")
    assert trial(config, tmp_path, two).devices == ("cpu", "cpu")
    # The same numbers, so checkpoints fit; but what is searched is what the second device saves.
    assert trial(config, tmp_path, one).fingerprint() == trial(config, tmp_path, two).fingerprint()
    specs = TrialSpecs(config, Home(tmp_path), INSPECTION)
    assert specs.fingerprint(one) != specs.fingerprint(two)


def test_searched_or_fixed_an_equal_setting_is_the_same_trial(tmp_path):
    searched = {"method": ("lora", "dora"), "max_grad_norm": (1, 2), "weight_decay": (0, 0.1), "max_epochs": (1, 3)}
    point = {"method": "dora", "max_grad_norm": 2.0, "weight_decay": 0.0, "max_epochs": 1.0}
    space = {name: {"type": "choice", "values": list(values)} for name, values in searched.items()}
    training = {"max_grad_norm": 2, "weight_decay": 0, "max_epochs": 3}
    full = make_config(tmp_path, search_space=space)
    fixed = make_config(tmp_path, method="dora", training=training, search_space={"max_epochs": space["max_epochs"]})
    single = make_config(tmp_path, search_space={**{n: v for n, v in point.items() if n != "max_epochs"},
                                                 "max_epochs": space["max_epochs"]})  # fmt: skip
    specs = [
        trial(full, tmp_path, point), trial(fixed, tmp_path, {"max_epochs": 1.0}), trial(single, tmp_path, point),
    ]  # fmt: skip
    assert len({spec.fingerprint() for spec in specs}) == 1


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"name": "other"}, True),
        ({"training": {"micro_batch_size": 2}}, True),
        ({"training": {"logging_steps": 2, "save_steps": 3}}, True),
        ({"training": {"devices": 2, "shard": "full"}}, True),
        ({"training": {"eval_steps": 38}}, True),  # five of 3000 examples, as by default
        ({"training": {"modules_to_save": ["pooler"]}}, False),
        ({"training": {"rank_pattern": {"query": 4}}}, False),
        ({"training": {"init_lora_weights": "gaussian"}}, False),
        ({"search_strategy": {"type": "random", "num_trials": 3}}, True),
        ({"pruner": {"type": "none"}}, True),
        ({"budget": {"hours": 1}}, True),
        ({"finalists": {}}, True),
        ({"trials": {"retries": 0}}, True),
        ({"constraints": {"max_seconds": 1}}, True),
        ({"promote": False}, True),
        ({"training": {"max_epochs": 3}}, True),
        ({"training": {"max_examples": 3000}}, True),  # the same in other words
        ({"training": {"lora_alpha": 16}}, True),
        ({"training": {"alpha_ratio": 1, "lora_r": 16}}, False),
        ({"training": {"optim": "adafactor"}}, False),
        ({"training": {"early_stopping": {"patience": 4}}}, False),
        ({"training": {"evaluations": 4}}, False),
        ({"training": {"max_length": 255}}, False),
        ({"training": {"precision": "fp32"}}, False),
        ({"method": "dora"}, False),
        ({"seed": 1}, False),
        ({"objective": {"metric": "accuracy"}}, False),
        ({"data": {"train": "train.jsonl", "split_seed": 1}}, False),
    ],
)
def test_what_decides_a_result_decides_the_identity(tmp_path, changes, is_same):
    before = trial(make_config(tmp_path), tmp_path, {})
    after = trial(make_config(tmp_path, **changes), tmp_path, {})
    assert (before.fingerprint() == after.fingerprint()) == is_same


def test_a_fresh_seed_is_another_trial_elsewhere_is_not(everything):
    config, folder = everything
    point = config.baseline()
    mine = trial(config, folder, point)
    assert trial(config, folder, point, seed=7).fingerprint() != mine.fingerprint()
    assert trial(config, folder, point, seed=config.seed).fingerprint() == mine.fingerprint()
    elsewhere = dataclasses.replace(mine, number=9, threads=4, devices=("cuda:1",), dir="/x", micro_batch_halvings=2)
    assert elsewhere.fingerprint() == mine.fingerprint()
    other_inputs = dataclasses.replace(INSPECTION, fingerprint="2" * 64)
    spec = TrialSpecs(config, Home(folder), other_inputs).spec(1, point, TrialPaths(folder))
    assert spec.fingerprint() != mine.fingerprint()


@pytest.mark.parametrize("method", LORA_METHODS)
def test_the_one_true_form_of_settings(method):
    settings = {name: field.default for name, field in FIELDS.items()}
    canonical = canonical_settings(method, settings)
    read = {name for name, field in FIELDS.items() if not field.methods or method in field.methods}
    assert set(canonical) == read - {*BUDGETS, "eval_steps", "evaluation_share", "alpha_ratio"}
    assert canonical["lora_alpha"] == 16.0
    assert canonical_settings(method, {**settings, "lora_alpha": 5}) == {**canonical, "lora_alpha": 5.0}
    assert canonical_settings(method, {**settings, "lora_r": 4, "alpha_ratio": 4.0}) == {**canonical, "lora_r": 4}
    for budget in BUDGETS:
        assert canonical_settings(method, {**settings, budget: 1}) == canonical


def test_what_a_method_does_not_read_does_not_matter():
    settings = {name: field.default for name, field in FIELDS.items()}
    other = {**settings, "lora_r": 64, "lora_alpha": 3.0, "lora_dropout": 0.5, "target_modules": "mlp"}
    assert canonical_settings("full", settings) == canonical_settings("full", other)
    assert not {
        name for name in canonical_settings("full", settings) if "full" not in (FIELDS[name].methods or ("full",))
    }
    assert canonical_settings("full", {**settings, "optim": "adafactor"}) != canonical_settings("full", settings)


@pytest.mark.parametrize("validation_size", [0.25, 40, 40.0])
def test_a_spec_that_went_through_json_keeps_its_fingerprint(tmp_path, validation_size):
    config = make_config(tmp_path, data={"train": "train.jsonl", "validation_size": validation_size, "test_size": 20})
    spec = TrialSpecs(config, Home(tmp_path), INSPECTION).spec(0, {}, TrialPaths(tmp_path))
    again = from_json(TrialSpec, json.loads(json.dumps(to_json(spec))))
    assert again.fingerprint() == spec.fingerprint()


EVERYTHING = {
    "search_strategy": {"type": "tpe", "enqueue": [{"lora_r": 4}], "warm_start": ["old"]},
    "objective": [{"metric": "loss"}, {"metric": "seconds"}],
    "constraints": {"max_adapter_mb": 3},
    "pruner": {"type": "patient", "rule": {"type": "percentile", "percentile": 70}},
    "budget": {"hours": 2, "until": "06:00", "cost": {"per_hour": 1, "max": 9}},
    "finalists": {"top": 2},
    "trials": {"retries": 1},
    "search_space": {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "lora_r": {"type": "int", "low": 4, "high": 8},
        "lr_scheduler_type": {"type": "choice", "values": ["linear", "cosine"]},
        "warmup_ratio": {"type": "float", "low": 0, "high": 0.2, "when": {"lr_scheduler_type": "cosine"}},
        "optim": "adafactor",
    },
    "training": {"max_steps": 10},
    "data": {"train": "train.jsonl", "validation_size": 40},
}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"task": "chat", "promote": False}])
def test_resolved_goes_through_json_unchanged(tmp_path, changes):
    resolved = make_config(tmp_path, **changes).resolved()
    stored = json.loads(json.dumps(resolved))
    assert differences(stored, json.loads(json.dumps(resolved))) == []
    assert from_resolved(stored["search_space"]) == make_config(tmp_path, **changes).space
    assert from_json(Budget, stored["budget"]) == make_config(tmp_path, **changes).budget


def test_what_a_task_s_answers_or_releases_cannot_be_is_refused(refused):
    given = SMALLEST.replace("text-classification", "regression") + "promote: {min_agreement: 0.9}\n"
    assert refused(given) == [
        "sweep.yaml:4: promote.min_agreement: is given, but regression answers with numbers; leave it out; max_drop "
        "limits the metric"
    ]
    [problem] = refused(SMALLEST.replace("text-classification", "chat") + "promote: {target: cuda}\n")
    assert problem == "sweep.yaml:4: promote.target: is cuda, but releases of chat are made for cpu alone; write cpu"
    assert refused(SMALLEST + "promote: {top: 2}\n") == [
        "sweep.yaml:4: promote.top: is 2, but a merged release holds one trial; write as: adapters too"
    ]
    assert refused(SMALLEST + "promote: {as: adapters, target: cuda}\n") == [
        "sweep.yaml:4: promote.target: is cuda, but as: adapters is made for cpu alone; write cpu"
    ]


def test_resolved_has_every_default_filled_in(tmp_path):
    resolved = make_config(tmp_path).resolved()
    assert resolved["search_strategy"] == {"type": "auto", "num_trials": 20, "enqueue": [], "warm_start": []}
    assert resolved["objective"] == [{"metric": "f1_macro", "direction": "maximize"}]
    assert resolved["pruner"] == {
        "type": "percentile", "metric": "f1_macro", "percentile": 25.0, "min_fraction": 0.2, "min_peers": 3,
        "tolerance": 0.02, "standard_errors": 2.0,
    }  # fmt: skip
    assert set(resolved["budget"].values()) == {None}
    assert (resolved["constraints"], resolved["finalists"]) == ({}, None)
    assert resolved["trials"] == {"retries": 2, "stall_minutes": 30.0}
    promote = {"name": "sweep", "max_drop": 0.01, "replace": False, "allow_useless": False, "require": "better",
               "approve": "auto", "card": {"intended_use": None, "licence": None}, "min_agreement": None,
               "max_latency_ms": None, "max_size_mb": None,
               "prefer": "latency", "target": "cpu", "as": "merged", "top": 0}  # fmt: skip
    assert resolved["promote"] == promote


EDITS = {
    "training.max_steps": {"training": {"max_steps": 11}},
    "seed": {"seed": 1},
    "data.validation_size": {"data": {"train": "train.jsonl", "validation_size": 41}},
    "search_space.lora_r.high": {
        "search_space": {**EVERYTHING["search_space"], "lora_r": {"type": "int", "low": 4, "high": 9}}
    },
    "search_space.warmup_ratio.when.lr_scheduler_type": {
        "search_space": {
            **EVERYTHING["search_space"],
            "warmup_ratio": {"type": "float", "low": 0, "high": 0.2, "when": {"lr_scheduler_type": "linear"}},
        }
    },
    "search_strategy.enqueue": {"search_strategy": {**EVERYTHING["search_strategy"], "enqueue": [{"lora_r": 5}]}},
    "pruner.rule.percentile": {"pruner": {"type": "patient", "rule": {"type": "percentile"}}},
    "budget.cost_max": {"budget": {"hours": 2, "until": "06:00", "cost": {"per_hour": 1}}},
    "finalists.seeds": {"finalists": {"top": 2, "seeds": 4}},
    "trials.stall_minutes": {"trials": {"retries": 1, "stall_minutes": 5}},
    "constraints.adapter_mb": {"constraints": {}},
    "objective": {"objective": {"metric": "loss"}},
}


@pytest.mark.parametrize("path", EDITS)
def test_an_edited_file_differs_where_it_was_edited(tmp_path, path):
    before = json.loads(json.dumps(make_config(tmp_path, **EVERYTHING).resolved()))
    after = json.loads(json.dumps(make_config(tmp_path, **{**EVERYTHING, **EDITS[path]}).resolved()))
    assert [difference.key for difference in differences(before, after)] == [path]


def test_resolved_holds_every_setting_of_the_catalog(tmp_path):
    searched = {"method": {"type": "choice", "values": list(METHODS)}}
    assert set(make_config(tmp_path, search_space=searched).resolved()["training"]) == set(FIELDS)


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_of_a_task_can_be_its_objective(tmp_path, task):
    for metric in TASKS[task].metrics:
        assert make_config(tmp_path, task=task, objective={"metric": metric}).objective.metric == metric


def test_the_shipped_files_only_lack_what_can_be_fetched(tmp_path, pytestconfig):
    files = sorted((pytestconfig.rootpath / "search_spaces").glob("*.yaml"))
    assert files
    for file in files:
        with pytest.raises(ConfigError) as caught:
            load_config(file, Home(tmp_path))
        assert all(re.search(r"run: hpo fetch \S+$", str(problem)) for problem in caught.value.problems)


# --- the grammar page ----------------------------------------------------------------------------------


@pytest.fixture
def page(pytestconfig):
    return (pytestconfig.rootpath / "search_spaces/README.md").read_text()


def rows_of(page):
    """Table rows by their first cell's key: (default, meaning)."""
    return {key: rest for key, *rest in re.findall(r"^\| `([a-z_.]+)` \| ([^|]*?) \|(?: ([^|]*?) \|)?$", page, re.M)}


def test_the_page_marks_just_what_can_be_searched(page):
    rows = rows_of(page)
    marked = {name for name in FIELDS if rows[name][1].startswith("*")}
    assert marked == {name for name, field in FIELDS.items() if field.searchable}
    assert METHOD.searchable
    assert "and so can `method`" in page


def test_the_page_has_the_defaults_of_each_task(page):
    rows = rows_of(page)
    for task in TASKS.values():
        for name, value in task.defaults.items():
            own = re.search(rf"`{task.name}`[^;)]*: {value:g}[;)]", rows[name][1])
            assert bool(own) == (value != FIELDS[name].default), name


DEFAULTS_OFF = "-"


def test_the_page_has_every_key_with_its_default(page, tmp_path):
    """Against the resolved smallest sweep; `-` and `off` stand for none."""
    resolved = make_config(tmp_path).resolved()
    rows = rows_of(page)
    words = {None: DEFAULTS_OFF, "f1_macro": "the task's first"}
    wanted = {f"search_strategy.{k}": v if v != [] else None for k, v in resolved["search_strategy"].items()}
    wanted |= {f"budget.{k}".replace("cost_", "cost."): v for k, v in resolved["budget"].items()}
    wanted |= {f"trials.{k}": v for k, v in resolved["trials"].items()}
    wanted |= {f"constraints.max_{k}": None for k in RESOURCES}
    wanted |= {"objective.metric": resolved["objective"][0]["metric"], "pruner.type": resolved["pruner"]["type"]}
    finalists = make_config(tmp_path, finalists={}).resolved()["finalists"]
    wanted |= {f"finalists.{k}": v for k, v in finalists.items()}
    wanted |= {"seed": resolved["seed"], "promote.max_drop": resolved["promote"]["max_drop"]}
    for key, value in wanted.items():
        default = words[value] if value in words and not isinstance(value, (int, float)) else value
        assert rows[key][0] == (f"{default:g}" if isinstance(default, (int, float)) else default), key
    assert (rows["finalists"][0], rows["promote"][0], rows["promote.name"][0]) == ("false", "true", "the sweep's")


def test_the_page_has_every_strategy_and_the_bounds_of_auto(page):
    table = page.partition("| type | points |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z0-9]+)`", table, re.M)) == set(STRATEGIES) - {"auto"}
    order = re.findall(r"^\| `([a-z0-9]+)`", table, re.M)
    assert order == ["grid", "nsga2", "informed", "tpe", "gp", "qmc", "random"]
    assert all(bound in table for bound in ("20,000", "200 trials or more", "at most 200", "at most 8 dimensions"))


def test_the_page_has_every_pruning_rule_with_every_number(page):
    table = page.partition("| rule | keys and defaults |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]*?) ?\|", table, re.M))
    assert set(rows) == set(RULES)
    for name, cls in RULES.items():
        keys = dict(re.findall(r"`([a-z_]+)(?:: ([0-9.]+))?`", rows[name]))
        defaults = {f.name: "" if f.default is None or f.name == "rule" else f"{f.default:g}"
                    for f in dataclasses.fields(cls)}  # fmt: skip
        assert keys == defaults, name


def test_the_page_says_what_an_edit_may_not_touch(page):
    """`hpo/study/revision.py` refuses these."""
    refused = page.partition("**Refused**, because")[2].partition("\n\n")[0]
    for name in ("task", "objective", "seed", "max_length", "max_epochs", "max_examples"):
        assert f"`{name}`" in refused


# --- functions of the user's -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (
            "fokal",
            "training.loss: got 'fokal'; expected default, focal, class-weighted, contrastive or FILE.py:FUNCTION",
        ),
        ("gone.py:f", "training.loss: no file 'gone.py'; paths start at "),
        ("../out.py:f", "training.loss: got '../out.py:f'; expected a file below "),
        ("/etc/out.py:f", "training.loss: got '/etc/out.py:f'; expected a file below "),
    ],
)
def test_a_loss_comes_from_below_the_file_s_folder(tmp_path, loss, found):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "out.py").touch()
    with pytest.raises(ConfigError) as caught:
        make_config(folder, training={"loss": loss})
    assert found in str(caught.value)


def test_a_task_without_classes_has_its_own_loss_only(tmp_path):
    data = {"train": str(tmp_path / "rows.jsonl")}
    with pytest.raises(ConfigError, match="regression has default, or one of yours"):
        make_config(tmp_path, task="regression", training={"loss": "focal"}, promote=None, data=data)


def test_what_a_loss_of_one_s_own_says_is_part_of_a_trial(tmp_path):
    identities = []
    for content in ("f = 1", "f = 2", "f = 1"):
        (tmp_path / "mine.py").write_text(content)
        identities.append(trial(make_config(tmp_path, training={"loss": "mine.py:f"}), tmp_path, {}).fingerprint())
    assert identities[0] == identities[2] != identities[1]


def test_a_method_brings_its_own_defaults_and_the_baseline_s_decides(tmp_path):
    searched = {"method": {"type": "choice", "values": ["full", "lora", "ia3"]}}
    assert make_config(tmp_path, method="full").settings["learning_rate"] == 5e-5
    assert make_config(tmp_path, method="full", training={"learning_rate": 1e-3}).settings["learning_rate"] == 1e-3
    assert make_config(tmp_path, search_space=searched).settings["learning_rate"] == 5e-4
    assert make_config(tmp_path, search_space=searched, method="ia3").settings["learning_rate"] == 5e-3


def test_noise_that_depends_on_the_length_of_a_row_is_not_packed(tmp_path):
    with pytest.raises(ConfigError, match="neftune_noise_alpha depends on the length of a row; remove one of the two"):
        make_config(tmp_path, task="chat", training={"packing": True, "neftune_noise_alpha": 5})
    assert make_config(tmp_path, task="chat", training={"packing": True}).settings["packing"] is True


@pytest.mark.parametrize("task", ["text-classification", "regression", "text-similarity"])
def test_the_length_of_pairs_of_texts_is_not_searched(tmp_path, task):
    """Rows are cut at the end, where the second text is."""
    space = {"max_length": {"type": "int", "low": 16, "high": 64}}
    data = {"train": "d.jsonl", "text_pair": "other"}
    with pytest.raises(ConfigError, match=r"search_space\.max_length: is not searched with pairs of texts"):
        make_config(tmp_path, task=task, data=data, search_space=space)
