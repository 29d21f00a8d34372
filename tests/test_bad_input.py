"""Bad input, as a user types it: one message that names place, finding and remedy; exit code 2; nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import hpo_here as hpo
from tests.conftest import reviews, write_jsonl

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("requests_here")


def hpo_process(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it, with a trial host."""
    command = [sys.executable, "-m", "hpo", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def assert_refused(done: subprocess.CompletedProcess[str], home: Path, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr, done.stderr
    assert not home.exists() or not list(home.iterdir()), list(home.rglob("*"))


def test_every_problem_of_a_file_at_once(write_yaml, home):
    path = write_yaml(
        learning_rte=1,
        search_space={
            "lora_r": {"type": "int", "low": 64, "high": 4},
            "learning_rat": {"type": "float", "low": 1, "high": 2},
        },
        objective={"metric": "perplexity"},
        data={"train": "nowhere.jsonl"},
    )
    assert_refused(
        hpo_process("sweep", str(path), home=home), home,
        "learning_rte: unknown key", "search_space.lora_r.low: low 64 is above high 4", "did you mean 'learning_rate'",
        "text-classification has no metric 'perplexity'", "f1_macro", "no file 'nowhere.jsonl'",
    )  # fmt: skip


EVERY_SECTION = {  # a line of YAML: what is said of it, in order
    "search_strategy: {type: bayes, num_trials: 0, enqueue: [{rank: 8}], warm_start: [a/b]}": [
        "search_strategy.type: got 'bayes'; known: auto, random, grid, informed, tpe, gp, qmc, nsga2",
        "search_strategy.enqueue: point 1: 'rank' is not a dimension; known: ",
        "search_strategy.num_trials: got 0; expected a whole number from 1",
        "search_strategy.warm_start: got ['a/b']; expected names of earlier sweeps",
    ],
    "objective: [{metric: f1_macro}, {metric: second}]": ["objective[1].metric: got 'second'; did you mean 'seconds'?"],
    "constraints: {max_minutes: 1, max_seconds: 0}": [
        "constraints.max_seconds: got 0; expected a number above 0",
        "constraints.max_minutes: unknown key; known: max_seconds, max_trainable_parameters, max_adapter_mb",
    ],
    "pruner: {type: patient, rule: {type: median, min_peers: 0}, metric: loss}": [
        "pruner.metric: got 'loss'; known: f1_macro",
        "pruner.rule.min_peers: got 0; expected a whole number from 1",
    ],
    "budget: {hours: 0, until: 25:00, cost: {max: 3}}": [
        "budget.cost.max: is given without per_hour; expected cost: {per_hour: 2.5, max: 40}",
        "budget.hours: got 0; expected a number above 0",
        "budget.until: got '25:00'; expected a time of day, e.g. \"06:00\"",
    ],
    "finalists: {top: 0, seeds: 1}": [
        "finalists.top: got 0; expected a whole number from 1 to 100",
        "finalists.seeds: got 1; expected a whole number from 2 to 100",
    ],
    "trials: {retries: -1, stall_minute: 3}": [
        "trials.retries: got -1; expected a whole number from 0 to 1000",
        "trials.stall_minute: unknown key; did you mean 'stall_minutes'?",
    ],
    "report_to: [wandb, tensorboard, tensorbord]": [
        "report_to: got 'wandb'; known: mlflow, tensorboard",
        "report_to: got 'tensorbord'; did you mean 'tensorboard'?",
    ],
    "training: {optim: adam, max_epochs: 1, max_steps: 5}": [
        "training.optim: got 'adam'; expected one of adamw_torch, adafactor",
        "training.max_steps: max_epochs and max_steps are given or searched; expected one of them",
    ],
    "search_space:": [],
    "  method: [lora, dora]": [
        "search_space.method: got ['lora', 'dora']; expected a value, or {type: choice, values: [...]}"
    ],
    "  lora_r: {type: int, low: 4, high: 8, when: {optim: []}}": [
        "search_space.lora_r.when.optim: got []; expected the values of optim for which this dimension exists"
    ],
    "  optim: {type: choice, values: [adafactor], when: {lora_r: 5}}": [
        "search_space.lora_r.when: depends on itself; conditions must not go in a circle"  # named where it begins
    ],
    "  max_length: 4": ["search_space.max_length: got 4; expected a whole number at least 8"],
}


@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_every_problem_of_every_section_with_its_line(home, tmp_path, tiny, command):
    path = tmp_path / "sweep.yaml"
    head = ["task: text-classification", f"model: {tiny / 'encoder'}", f"data: {tiny / 'reviews.jsonl'}"]
    path.write_text("\n".join([*head, *EVERY_SECTION, ""]))
    done = hpo(command, str(path), home=home)
    assert_refused(done, home)
    lines = dict(zip(EVERY_SECTION, range(len(head) + 1, 99), strict=False))
    circle = lines["  lora_r: {type: int, low: 4, high: 8, when: {optim: []}}"]
    wanted = [
        f"{path}:{circle if 'circle' in text else number}: {text}"
        for line, number in lines.items()
        for text in EVERY_SECTION[line]
    ]
    told = [line.strip() for line in done.stderr.splitlines()]
    assert told[0] == f"error: {len(wanted)} problems"
    unsaid = [text for text in wanted if not any(line.startswith(text) for line in told)]
    assert not unsaid, done.stderr
    assert len(told) == 1 + len(wanted)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"search_strategy": {"type": "grid"}}, ["needs a finite space; learning_rate has none", "give each a step"]),
        ({"search_strategy": {"warm_start": ["old"]}}, ["search_strategy.warm_start: no other sweep 'old'"]),
        ({"search_strategy": {"warm_start": ["tiny-encoder"]}}, ["no other sweep 'tiny-encoder'"]),
        ({"search_strategy": {"enqueue": [{"learning_rate": 1}]}},
         ["point 1: learning_rate 1.0 lies outside", "a number from 0.001 to 0.03"]),
        ({"search_space": {"method": {"type": "choice", "values": ["lora", "dora"]},
                           "lora_r": {"type": "int", "low": 4, "high": 8, "when": {"method": "rslora"}}}},
         ["search_space.lora_r.when.method: got 'rslora'", "method is one of lora, dora"]),
    ],
    ids=["endless-grid", "warm-start-from-nothing", "warm-start-from-itself", "point-outside", "impossible-when"],
)  # fmt: skip
def test_searches_that_cannot_be(write_yaml, home, changes, words):
    assert_refused(hpo("sweep", str(write_yaml(**changes)), home=home), home, *words)


def test_a_searched_length_the_model_has_no_positions_for(write_yaml, home):
    path = write_yaml(search_space={"max_length": {"type": "choice", "values": [64, 4096]}})
    assert_refused(hpo("sweep", str(path), home=home), home, "max_length: got 4096", "at most 128")


def test_an_edit_that_would_mix_what_does_not_compare(write_yaml, home):
    """Every such change at once, with what was and what is; the study stays as it was."""
    from hpo.config.file import load_config
    from hpo.paths import Home
    from hpo.study.revision import open_revision

    home.mkdir()
    config = load_config(write_yaml(), Home(home))
    open_revision(config, str, Home(home).studies_db)[0].close()
    before = (home / "studies.db").read_bytes()
    edited = write_yaml(
        seed=5,
        objective={"metric": "accuracy"},
        training={"max_examples": 320, "evaluations": 2, "max_length": 32, "learning_rate": 1e-3},
        budget={"hours": 1},
        promote=False,
    )
    done = hpo("sweep", str(edited), home=home)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = [line.strip() for line in done.stderr.splitlines()]
    assert said[0] == "error: 4 problems"
    for line, (key, was, now) in zip(
        sorted(said[1:], key=lambda line: line.split(": ")[1]),
        [
            ("objective", '[{"metric": "f1_macro", "direction": "maximize"}]', '"accuracy"'),
            ("seed", "0", "5"),
            ("training.max_examples", "160", "320"),
            ("training.max_length", "64", "32"),
        ],
        strict=True,
    ):
        place, _, said = line.partition(": ")
        assert place.rpartition(":")[0] == str(edited)
        assert said.startswith(f"{key}: was {was} when sweep 'tiny-encoder' began, now ")
        assert now in line
        assert line.endswith("give the sweep another name")
    assert (home / "studies.db").read_bytes() == before
    assert sorted(p.name for p in home.iterdir()) == ["studies.db"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "lable": "y"}], [":2", "no column 'label'", "text, lable"]),
        ([{"text": f"film {i}", "label": "x"} for i in range(50)], ["all rows have the label 'x'"]),
        ([], ["is empty"]),
        ([{"text": " ", "label": "x"}], [":1", "text is ' '"]),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], ["no rows left"]),
    ],
    ids=["missing-column", "one-class", "empty", "blank-text", "too-few"],
)
def test_data_that_no_trial_can_use(write_yaml, home, tmp_path, rows, words):
    data = write_jsonl(tmp_path / "bad.jsonl", rows)
    path = write_yaml(data={"train": str(data)})
    assert_refused(hpo("sweep", str(path), home=home), home, *words)


def test_a_line_that_does_not_parse_is_named(write_yaml, home, tmp_path):
    data = tmp_path / "bad.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in reviews(30)) + '{"text": "x", \n')
    assert_refused(
        hpo_process("sweep", str(write_yaml(data={"train": str(data)})), home=home), home, f"{data}:31", "is not JSON"
    )


def test_a_model_folder_without_weights(write_yaml, home, tmp_path, tiny):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text((tiny / "encoder/config.json").read_text())
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    assert_refused(
        hpo("sweep", str(write_yaml(model=str(folder))), home=home), home,
        "model", "has no weights but pytorch_model.bin", "pickled weights are never read",
    )  # fmt: skip


def test_a_tokenizer_without_a_chat_template(write_yaml, home, tiny, tmp_path):
    import shutil

    folder = Path(shutil.copytree(tiny / "chat", tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    assert_refused(hpo("sweep", str(write_yaml("chat", model=str(folder))), home=home), home, "has no chat template")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["show", "nothing"], "no sweep 'nothing'"),
        (["predict", "nothing", "x"], "no released model 'nothing'"),
        (["sweep", "nowhere.yaml"], "cannot be read"),
        (["plan", "nowhere.yaml"], "cannot be read"),
        (["stop", "nothing"], "no sweep 'nothing'"),
        (["stop", "../etc"], "'../etc'"),
        (["sweep", "x.yaml", "--jobs", "0"], "--jobs"),
        (["fetch", "all-MiniLM"], "did you mean"),
        (["fetch"], "--list"),
        (["ui"], "run a sweep first"),
        (["show", "../etc"], "'../etc'"),
        (["swep"], "swep"),
    ],
)
def test_commands_that_cannot_be(home, arguments, word):
    assert_refused(hpo(*arguments, home=home), home, word)


def test_a_length_the_model_has_no_positions_for(write_yaml, home):
    path = write_yaml(training={"max_length": 4096})
    assert_refused(hpo("sweep", str(path), home=home), home, "training.max_length: got 4096", "at most 128")


def test_weights_that_cannot_be_loaded(write_yaml, home, tiny, tmp_path):
    """Found when the base model is made resident: still before any study or run exists."""
    import shutil

    folder = Path(shutil.copytree(tiny / "encoder", tmp_path / "model"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    done = hpo_process("sweep", str(write_yaml(model=str(folder))), home=home)
    assert done.returncode == 2, done.stderr
    assert "cannot be loaded" in done.stderr
    assert not (home / "studies.db").exists()
    assert not (home / "mlflow.db").exists()


def test_more_held_out_rows_than_there_are(write_yaml, home, tiny):
    path = write_yaml(data={"train": str(tiny / "reviews.jsonl"), "validation_size": 5000, "test_size": 20})
    assert_refused(hpo("sweep", str(path), home=home), home, "no rows left for train")


def test_a_home_that_cannot_be_written(write_yaml):
    done = hpo("sweep", str(write_yaml()), home=Path("/proc/nowhere"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "/proc/nowhere" in done.stderr
