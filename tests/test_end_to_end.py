"""As a user: the command line from YAML to an answer of the released model, on tiny models and on a real one."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import hpo_here
from tests.processes import children_of

ROOT = Path(__file__).parents[1]


def hpo(*arguments: str, home: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "hpo", "--home", str(home), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def shown(name: str, home: Path) -> dict[str, Any]:
    """As `hpo show --json` has it; a process that only reads is no other than this one."""
    result: dict[str, Any] = json.loads(hpo_here("show", name, "--json", home=home).stdout)
    return result


def runs_of(name: str, home: Path) -> tuple[Any, list[Any]]:
    """MLflow's client, and the runs of a sweep."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(name)
    return client, list(client.search_runs([experiment.experiment_id], f"tags.`hpo.sweep` = '{name}'"))


def assert_books_agree(sweep: dict[str, Any], home: Path) -> None:
    """MLflow says what the study says: one parent, one child per trial, all of them over."""
    client, runs = runs_of(sweep["sweep"], home)
    children = {r.data.tags["hpo.trial"]: r for r in runs if "hpo.trial" in r.data.tags}
    assert len(runs) == len(children) + 1 == len(sweep["trials"]) + 1
    assert not [r.info.run_id for r in runs if r.info.status == "RUNNING"]
    metric = sweep["objective"]["metric"]
    for trial in sweep["trials"]:
        run = children[str(trial["number"])]
        assert run.info.run_id == trial["run_id"]
        assert run.data.metrics[f"best/{metric}"] == pytest.approx(trial["value"])
        history = client.get_metric_history(run.info.run_id, f"validation/{metric}")
        assert [m.value for m in history] == pytest.approx([value for _, value in trial["curve"]])
        for name, value in trial["params"].items():
            assert run.data.params[name] == str(value)
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert {"adapter", "spec.json", "result.json", "trial.log"} <= names


@pytest.fixture
def home(home_with_store: Path) -> Path:
    """`classifier` begins without."""
    return home_with_store


@pytest.fixture(scope="module")
def classifier(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A tiny sweep run once: (home, `hpo show --json`, what a person saw)."""
    folder = tmp_path_factory.mktemp("classifier")
    config = {
        "name": "tiny",
        "task": "text-classification",
        "model": str(tiny / "encoder"),
        "data": {"train": str(tiny / "reviews.jsonl"), "validation_size": 40, "test_size": 20},
        "search_strategy": {"num_trials": 3},
        "search_space": {"learning_rate": {"type": "float", "low": 3e-3, "high": 3e-2, "log": True}},
        "training": {"max_examples": 320, "evaluations": 2, "max_length": 32, "learning_rate": 1e-2},
        "report_to": ["tensorboard"],
        # Of 40 rows one is 2.5 %: a tiny model's int8 may well lose one.
        "promote": {"max_drop": 0.1},
    }
    (folder / "tiny.yaml").write_text(json.dumps(config))
    done = hpo("sweep", str(folder / "tiny.yaml"), home=folder / "home")
    assert not done.stderr
    return folder / "home", shown("tiny", folder / "home"), done.stdout


def test_a_sweep_ends_with_champion_variants_and_release(classifier):
    home, sweep, seen = classifier
    assert sweep["state"] == "complete"
    assert [t["number"] for t in sweep["trials"]] == [0, 1, 2]
    assert {t["state"] for t in sweep["trials"]} <= {"complete", "pruned"}
    assert sweep["baseline"]["number"] == 0
    assert sweep["champion"]["value"] >= sweep["baseline"]["value"]
    assert {v["variant"] for v in sweep["variants"]} == {"fp32", "int8", "int8-64", "int8-32", "int4"}
    fp32 = next(v for v in sweep["variants"] if v["variant"] == "fp32")
    assert fp32["measurement"]["max_logit_diff"] < 1e-4
    assert fp32["measurement"]["metrics"]["f1_macro"] == pytest.approx(sweep["torch"]["metrics"]["f1_macro"])
    assert sweep["release"]["uri"] == "models:/tiny@champion"
    assert "champion: trial" in seen
    assert "hpo predict tiny" in seen
    assert "\x1b" not in seen
    assert_books_agree(sweep, home)


def test_what_people_look_at_beside_the_leaderboard(classifier):
    """Worst rows, confusion matrix and TensorBoard's curves agree with the study."""
    home, sweep, _ = classifier
    files = {name: Path(path) for name, path in sweep["champion_files"].items()}
    assert sorted(files) == ["confusion_matrix.json", "confusion_matrix.svg", "worst_examples.jsonl"]
    matrix = json.loads(files["confusion_matrix.json"].read_text())
    assert matrix["labels"] == ["negative", "positive"]
    hits = sum(matrix["counts"][i][i] for i in range(2))
    assert hits / 40 == pytest.approx(sweep["champion"]["metrics"]["accuracy"])
    worst = [json.loads(line) for line in files["worst_examples.jsonl"].read_text().splitlines()]
    assert len(worst) == 20
    assert [row["loss"] for row in worst] == sorted((row["loss"] for row in worst), reverse=True)
    given = {row["text"]: row["label"] for row in map(json.loads, reviews_of(home))}
    assert all(given[row["text"]] == row["true"] for row in worst)
    assert sum(row["true"] != row["predicted"] for row in worst) == min(20, 40 - hits)
    client, runs = runs_of("tiny", home)
    for run in runs:
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert (set(files) <= names) == (run.data.tags.get("hpo.state", "complete") == "complete")
    for trial in sweep["trials"]:
        curves = scalars(home / f"tensorboard/tiny/trial-{trial['number']:04d}")
        assert curves["validation/f1_macro"] == pytest.approx([value for _, value in trial["curve"]])
        assert curves["best/f1_macro"] == pytest.approx([trial["value"]])


def reviews_of(home: Path) -> list[str]:
    return Path(json.loads((home.parent / "tiny.yaml").read_text())["data"]["train"]).read_text().splitlines()


def scalars(folder: Path) -> dict[str, list[float]]:
    """Curve -> values, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_running_it_again_trains_nothing(classifier):
    home, sweep, _ = classifier
    again = hpo("sweep", str(home.parent / "tiny.yaml"), "--json", home=home)
    assert json.loads(again.stdout) == sweep == shown("tiny", home)
    assert_books_agree(sweep, home)


def test_the_released_model_answers(classifier):
    home, _, _ = classifier
    lines = hpo("predict", "tiny", "warm funny lovely film", "dull stale plot", home=home).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["positive", "negative"]
    answer = json.loads(hpo_here("predict", "tiny/1", "warm funny lovely film", "--json", home=home).stdout)
    assert answer["label"] == "positive"
    assert sum(answer["scores"].values()) == pytest.approx(1)


def test_mlflow_loads_it_without_torch_pickle_or_us(classifier, tmp_path):
    """In a fresh process, outside the checkout, with the packages it must not need made unimportable."""
    home, _, _ = classifier
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'peft', 'hpo', 'trainers', 'optuna'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import mlflow, json\n"
        f"mlflow.set_tracking_uri('sqlite:///{home / 'mlflow.db'}')\n"
        "model = mlflow.pyfunc.load_model('models:/tiny@champion')\n"
        "print('ANSWER', json.dumps(model.predict(['warm funny lovely film'])))\n"
    )
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.split("ANSWER")[1])
    assert answer[0]["label"] == "positive"


def test_the_manifest_names_what_the_release_was_made_of(classifier):
    home, sweep, _ = classifier
    (path,) = home.rglob("model-*/**/manifest.json")
    manifest = json.loads(path.read_text())
    assert manifest["trial"] == sweep["champion"]["number"]
    assert all(len(digest) == 64 for digest in manifest["sha256"].values())
    assert manifest["sha256"]["data"] == sweep["data"]["fingerprint"]
    client, runs = runs_of("tiny", home)
    (model,) = client.search_logged_models([runs[0].info.experiment_id])
    assert model.source_run_id == sweep["champion"]["run_id"]
    assert model.artifact_location == client.get_model_version("tiny", sweep["release"]["version"]).source
    champion = next(run for run in runs if run.info.run_id == model.source_run_id)
    assert [output.model_id for output in champion.outputs.model_outputs] == [model.model_id]
    assert champion.data.metrics["system/system_memory_usage_megabytes"] > 10
    assert not [p for p in home.rglob("*") if p.suffix in (".pkl", ".pickle", ".bin", ".pt", ".pth")]


def test_the_model_card_has_the_numbers_of_the_sweep(classifier):
    home, sweep, _ = classifier
    (path,) = home.rglob("model-*/**/release.json")
    card = (path.parent / "README.md").read_text()
    client, runs = runs_of("tiny", home)
    (parent,) = [run for run in runs if run.data.tags["hpo.kind"] == "sweep"]
    logged = client.download_artifacts(parent.info.run_id, "model_card.md", str(home.parent))
    assert Path(logged).read_text() == card
    known = {f"{abs(number):.4f}" for number in numbers_of(sweep)}
    known.add(f"{sweep['champion']['value'] - sweep['baseline']['value']:.4f}")
    shown = re.findall(r"\b[0-9]\.[0-9]{4}\b", card.split("---", 2)[2])
    assert len(shown) > 20
    assert set(shown) <= known
    for judged in sweep["variants"]:
        assert f"| {judged['variant']} | {judged['measurement']['metrics']['f1_macro']:.4f} |" in card
    assert f"hpo reproduce 'tiny#{sweep['champion']['number']}'" in card
    assert str(home.parent) not in card + (path.parent / "manifest.json").read_text()


def numbers_of(value: Any) -> list[float]:
    """Every number in plain values."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers_of(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers_of(item)]
    return [float(value)] if isinstance(value, (int, float)) else []


def test_an_edit_that_makes_results_incomparable_is_refused_with_the_difference(classifier):
    home, sweep, _ = classifier
    config = json.loads((home.parent / "tiny.yaml").read_text())
    config["objective"] = {"metric": "loss"}
    config["training"]["evaluations"] = 3
    (home.parent / "edited.yaml").write_text(json.dumps(config))
    done = hpo("sweep", str(home.parent / "edited.yaml"), home=home, code=2)
    assert "training.evaluations: was 2 when sweep 'tiny' began, now 3" in done.stderr
    assert "objective" in done.stderr
    assert shown("tiny", home) == sweep


def test_an_edited_sweep_goes_on_as_the_next_revision(classifier):
    """More trials and a wider bound: the old trials stay, under their numbers."""
    home, sweep, _ = classifier
    config = json.loads((home.parent / "tiny.yaml").read_text())
    config["search_strategy"]["num_trials"] = 4
    config["search_space"]["learning_rate"]["high"] = 0.05
    (home.parent / "more.yaml").write_text(json.dumps(config))
    done = hpo("sweep", str(home.parent / "more.yaml"), home=home)
    assert "revision 2:" in done.stdout
    assert "search_space.learning_rate.high: 0.03 -> 0.05" in done.stdout
    assert "3 trials kept, 0 left out" in done.stdout
    more = shown("tiny", home)
    assert more["revision"] == 2
    assert more["trials"][:3] == sweep["trials"]
    assert [(t["number"], t["revision"]) for t in more["trials"]] == [(0, 1), (1, 1), (2, 1), (3, 2)]
    assert_books_agree(more, home)


def test_a_gate_that_refuses_every_variant_exits_with_3(write_yaml, home):
    """No variant can be better than torch by more than its own metric: max_drop below what int8 and fp32 reach."""
    path = write_yaml(objective={"metric": "loss"}, promote={"max_drop": 0.0}, search_space={})
    done = subprocess.run(
        [sys.executable, "-c", REFUSING, str(path), str(home)], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/hpo/executors"), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no ONNX variant of trial 0 passed" in done.stderr
    assert "int8 refused: loss +" in done.stdout
    assert "champion: trial 0" in done.stdout
    sweep = shown("tiny-encoder", home)
    assert sweep["release"] is None
    assert sweep["state"] == "complete"
    assert_books_agree(sweep, home)
    assert [v["variant"] for v in sweep["variants"]] == ["fp32", "int8"]
    assert not any(v["passed"] for v in sweep["variants"])


# The real command, with a trainer that damages what it exported, and two variants.
REFUSING = """
import functools, sys
from hpo.commands import sweep
from trainers.protocol.variants import READING
READING["cpu"] = ("fp32", "int8")
sweep.run_sweep = functools.partial(sweep.run_sweep, worker="damaging")
from hpo.cli.main import main
sys.argv = ["hpo", "--home", sys.argv[2], "sweep", sys.argv[1]]
main()
"""


def test_a_chat_sweep_lowers_perplexity_and_its_release_talks(write_yaml, home):
    path = write_yaml("chat", promote={"max_drop": 0.2}, search_space={})
    hpo("sweep", str(path), home=home)
    sweep = shown("tiny-chat", home)
    assert sweep["champion"]["value"] < sweep["baseline"]["base_model"]["perplexity"]
    assert {v["variant"] for v in sweep["variants"]} == {"fp32", "int8", "int4"}
    fp32 = next(v for v in sweep["variants"] if v["variant"] == "fp32")
    assert fp32["passed"]
    assert fp32["measurement"]["max_logit_diff"] < 1e-3
    assert json.loads(hpo_here("predict", "tiny-chat", "what is warm", "--json", home=home).stdout)["text"].strip()


def test_a_model_of_several_columns_is_asked_in_json(write_yaml, tiny, home, tmp_path, monkeypatch):
    """A pair of texts; the hint at the end is a command that runs."""
    rows = [json.loads(line) for line in (tiny / "reviews.jsonl").read_text().splitlines()]
    given = [{"text": f"said {i}", "other": row["text"], "label": row["label"]} for i, row in enumerate(rows)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    data = {"train": str(tmp_path / "pairs.jsonl"), "text_pair": "other", "validation_size": 40}
    path = write_yaml(data=data, search_space={}, promote={"max_drop": 0.1})
    seen = hpo("sweep", str(path), home=home).stdout
    fp32 = next(v for v in shown("tiny-encoder", home)["variants"] if v["variant"] == "fp32")
    assert fp32["measurement"]["max_logit_diff"] < 1e-4
    (hint,) = (line for line in seen.splitlines() if "hpo predict" in line)
    command = shlex.split(hint)
    assert command[:3] == ["hpo", "predict", "tiny-encoder"]
    assert hpo_here(*command[1:], home=home).stdout.split()[0] in ("positive", "negative")
    asked = json.dumps({"text": "said 1", "text_pair": "warm funny lovely film"})
    assert hpo_here("predict", "tiny-encoder", asked, home=home).stdout.split()[0] == "positive"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{asked}\n{asked}\n".encode())))
    answers = hpo_here("predict", "tiny-encoder", "-", home=home).stdout.splitlines()
    assert [line.split()[0] for line in answers] == ["positive"] * 2
    refused = hpo_here("predict", "tiny-encoder", "warm funny lovely film", home=home)
    assert refused.returncode == 2
    assert "text 1: expected texts for text, text_pair, as a mapping or its JSON, got str" in refused.stderr


@pytest.mark.parametrize("victim", ["sweep", "host"])
def test_a_killed_sweep_continues_and_counts_nothing_twice(write_yaml, home, victim):
    path = write_yaml(
        search_strategy={"num_trials": 4}, pruner={"type": "none"}, promote=False,
        training={"max_examples": 1600, "evaluations": 8, "max_length": 32, "learning_rate": 1e-2,
                  "early_stopping": {"patience": 99}},
    )  # fmt: skip
    command = [sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(path), "--jobs", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    results = home / "sweeps/tiny-encoder/trials"
    wait_for(lambda: len(list(results.glob("*/result.json"))) >= 2, process)
    if victim == "sweep":
        process.kill()
        process.communicate(timeout=60)
        wait_for(lambda: shown("tiny-encoder", home)["state"] == "interrupted")  # when its children have ended, too
        hpo("sweep", str(path), home=home)
    else:
        os.kill(host_of(process.pid), signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output  # it starts another one
    sweep = shown("tiny-encoder", home)
    assert [(t["number"], t["state"]) for t in sweep["trials"]] == [(i, "complete") for i in range(4)]
    assert all(len(t["curve"]) == 8 for t in sweep["trials"])
    assert_books_agree(sweep, home)


@pytest.mark.parametrize("how", ["ctrl-c", "the end of its service"])
def test_an_interrupted_sweep_ends_with_130_and_leaves_nothing_running(write_yaml, home, how):
    """Trials write a checkpoint, also where all processes of the sweep are sent SIGTERM."""
    training = {
        "max_examples": 100000, "evaluations": 50, "learning_rate": 1e-3, "max_length": 64,
        "early_stopping": {"patience": 50},
    }  # fmt: skip
    path = write_yaml(training=training, promote=False)
    command = [sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: list(home.glob("sweeps/*/trials/0000/checkpoints/*")), process)
    host = host_of(process.pid)
    if how == "ctrl-c":
        process.send_signal(signal.SIGINT)
    else:
        for pid in (*children_of(host), host, process.pid):
            os.kill(pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command continues" in output
    assert "Traceback" not in output
    assert not Path(f"/proc/{host}").exists()
    sweep = shown("tiny-encoder", home)
    assert sweep["state"] == "interrupted"
    assert sweep["trials"][0]["attempts"][-1]["cause"] == "interrupted"
    assert "checkpoint" in sweep["trials"][0]["attempts"][-1]["message"]
    assert_nothing_runs(home)


def assert_nothing_runs(home: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert not [r.info.run_id for r in runs if r.info.status == "RUNNING"]


def test_finalists_are_repeated_and_the_sealed_test_is_read_once(write_yaml, home, tmp_path):
    """By a metric of the user's, whose intervals come from its value on each row."""
    (tmp_path / "mine.py").write_text(
        "def sureness(rows):\n    return [row['probability'][row['label']] for row in rows]\n"
    )
    path = write_yaml(
        metrics=["mine.py:sureness"], objective={"metric": "sureness", "direction": "maximize"},
        search_strategy={"num_trials": 3}, finalists={"top": 1, "seeds": 2}, promote={"max_drop": 0.2},
        training={"max_examples": 320, "evaluations": 2, "max_length": 32, "learning_rate": 3e-3},
    )  # fmt: skip
    done = hpo("sweep", str(path), home=home)
    assert done.stdout.count("reading the sealed test split") == 1
    sweep = shown("tiny-encoder", home)
    finalists = sweep["finalists"]
    assert len(finalists["contestants"]) == 2
    assert [c["is_baseline"] for c in finalists["contestants"]] == [False, True]
    for contestant in finalists["contestants"]:
        values = [repeat["value"] for repeat in contestant["repeats"]]
        assert contestant["interval"]["mean"] == pytest.approx(sum(values) / len(values))
        assert contestant["interval"]["low"] <= contestant["interval"]["mean"] <= contestant["interval"]["high"]
    assert finalists["race"]["trainings"] == sum(len(c["repeats"]) for c in finalists["contestants"]) <= 4
    assert sweep["champion"]["number"] == finalists["champion"]
    assert 0 < sweep["test"]["champion"]["metrics"]["f1_macro"] <= 1
    sureness = sweep["test"]["champion"]["metrics"]["sureness"]
    assert sweep["test"]["champion"]["interval"]["low"] <= sureness <= sweep["test"]["champion"]["interval"]["high"]
    assert sureness > 0.5
    assert all("f1_macro" in variant["reason"] for variant in sweep["variants"])
    assert sweep["release"]["run_id"] == sweep["champion"]["run_id"]
    again = hpo("sweep", str(path), home=home)
    assert "sealed test split" not in again.stdout
    assert shown("tiny-encoder", home) == sweep
    assert_nothing_runs(home)


def wait_for(condition: Any, process: subprocess.Popen[str] | None = None, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def host_of(pid: int) -> int:
    children = children_of(pid)
    return next(child for child in children if b"trainers.host.host" in Path(f"/proc/{child}/cmdline").read_bytes())


@pytest.mark.timeout(1200)  # fetches and trains for real: a slow machine needs its time
def test_a_real_model_on_real_data(home, tmp_path):
    """MiniLM on movie snippets, two short trials, through to an answer. Needs the network the first time only."""
    from hpo.demo.fetch import fetch

    for name in ("all-MiniLM-L6-v2", "vader-movie"):
        fetch(name, ROOT / "mlruns", say=print)
    (home / "cache").mkdir()
    for name in ("all-MiniLM-L6-v2", "vader-movie"):
        (home / "cache" / name).symlink_to(ROOT / "mlruns/cache" / name)
    text = (ROOT / "search_spaces/movie-sentiment.yaml").read_text()
    text = text.replace("num_trials: 8", "num_trials: 2").replace("max_steps: 200 ", "max_steps: 40 ")
    text = text.replace("validation_size: 500", "validation_size: 100").replace("finalists:", "# finalists:")
    text = text.replace("evaluations: 5", "evaluations: 2").replace("training:", "training:\n  learning_rate: 2e-3")
    (tmp_path / "real.yaml").write_text(text)
    hpo("sweep", str(tmp_path / "real.yaml"), home=home)
    sweep = shown("movie-sentiment", home)
    assert sweep["champion"]["value"] > 0.7
    assert sweep["release"] is not None
    texts = "a dull, lifeless mess", "a joy from start to end"
    answers = hpo_here("predict", "movie-sentiment", *texts, home=home).stdout
    assert [line.split()[0] for line in answers.splitlines()] == ["negative", "positive"]
