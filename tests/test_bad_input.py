"""Bad input, as a user types it: one message that names place, finding and remedy; exit code 2; nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import reviews, write_jsonl

ROOT = Path(__file__).parents[1]


def hpo(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpo", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def refused(done: subprocess.CompletedProcess[str], home: Path, *words: str) -> None:
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
    refused(
        hpo("sweep", str(path), home=home), home,
        "learning_rte: unknown key", "search_space.lora_r.low: low 64 is above high 4", "did you mean 'learning_rate'",
        "text-classification has no metric 'perplexity'", "f1_macro", "no file 'nowhere.jsonl'",
    )  # fmt: skip


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
    refused(hpo("sweep", str(path), home=home), home, *words)


def test_a_line_that_does_not_parse_is_named(write_yaml, home, tmp_path):
    data = tmp_path / "bad.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in reviews(30)) + '{"text": "x", \n')
    refused(hpo("sweep", str(write_yaml(data={"train": str(data)})), home=home), home, f"{data}:31", "is not JSON")


def test_a_model_folder_without_weights(write_yaml, home, tmp_path, tiny):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text((tiny / "encoder/config.json").read_text())
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    refused(
        hpo("sweep", str(write_yaml(model=str(folder))), home=home), home,
        "model", "has no weights but pytorch_model.bin", "pickled weights are never read",
    )  # fmt: skip


def test_a_tokenizer_without_a_chat_template(write_yaml, home, tiny, tmp_path):
    import shutil

    folder = Path(shutil.copytree(tiny / "chat", tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    refused(hpo("sweep", str(write_yaml("chat", model=str(folder))), home=home), home, "has no chat template")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["show", "nothing"], "no sweep 'nothing'"),
        (["predict", "nothing", "x"], "no released model 'nothing'"),
        (["sweep", "nowhere.yaml"], "cannot be read"),
        (["fetch", "all-MiniLM"], "did you mean"),
        (["fetch"], "--list"),
        (["ui"], "run a sweep first"),
        (["show", "../etc"], "'../etc'"),
        (["swep"], "swep"),
    ],
)
def test_commands_that_cannot_be(home, arguments, word):
    refused(hpo(*arguments, home=home), home, word)


def test_a_length_the_model_has_no_positions_for(write_yaml, home):
    path = write_yaml(training={"max_length": 4096})
    refused(hpo("sweep", str(path), home=home), home, "training.max_length: got 4096", "at most 128")


def test_weights_that_cannot_be_loaded(write_yaml, home, tiny, tmp_path):
    """Found when the base model is made resident: still before any study or run exists."""
    import shutil

    folder = Path(shutil.copytree(tiny / "encoder", tmp_path / "model"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    done = hpo("sweep", str(write_yaml(model=str(folder))), home=home)
    assert done.returncode == 2, done.stderr
    assert "cannot be loaded" in done.stderr
    assert not (home / "studies.db").exists()
    assert not (home / "mlflow.db").exists()


def test_more_held_out_rows_than_there_are(write_yaml, home, tiny):
    path = write_yaml(data={"train": str(tiny / "reviews.jsonl"), "validation_size": 5000, "test_size": 20})
    refused(hpo("sweep", str(path), home=home), home, "no rows left for train")


def test_a_home_that_cannot_be_written(write_yaml):
    done = hpo("sweep", str(write_yaml()), home=Path("/proc/nowhere"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "/proc/nowhere" in done.stderr
