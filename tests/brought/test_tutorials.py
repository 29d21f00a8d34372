"""The examples of the two tutorials this project grew from, as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import hpo_here
from tests.conftest import CHAT_TEMPLATE, write_jsonl
from tests.trainers.families import rows

DATA = Path(__file__).parent / "data" / "tutorials"
pytestmark = pytest.mark.usefixtures("requests_here")  # but for the process that sweeps


def hpo(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpo", "--home", str(home), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture
def dialogpt(tmp_path: Path) -> Path:
    """A small GPT-2 as DialoGPT is published: embeddings tied to the head, no filler, a byte-level tokenizer."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    texts = [
        message for file in ("xbox-support.jsonl", "two-questions.json") for message in [(DATA / file).read_text()]
    ]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end, unk_token=end)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<|end|>", end)
    folder = tmp_path / "dialogpt"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def write_sweep(folder: Path, **config: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(config))
    return path


def test_two_rows_are_too_few_and_that_is_said(dialogpt, tmp_path, home):
    shutil.copy(DATA / "two-questions.json", tmp_path / "dataset.json")
    shutil.copy(DATA / "custom-dataset.yaml", tmp_path)
    done = hpo_here("check", tmp_path / "custom-dataset.yaml", home=home)
    assert done.returncode == 2
    problem = "no rows left for validation and test: train has 2 different rows; at least 3: one each to train"
    assert problem in done.stderr
    assert "1 problem\n" in done.stderr


def test_the_chat_lines_are_read_and_shown_as_they_are_learned(dialogpt, tmp_path, home):
    chats = DATA / "xbox-support.jsonl"
    data = {"train": str(chats), "validation_size": 1, "test_size": 1}
    done = hpo_here("check", write_sweep(tmp_path, task="chat", model="./dialogpt", data=data), home=home)
    assert done.returncode == 0, done.stderr
    assert "no problems found" in done.stdout
    answers = [json.loads(line)["messages"][-1]["content"] for line in chats.read_text().splitlines()]
    assert [f"[[{answer}<|endoftext|>]]" in done.stdout for answer in answers].count(True) == 1  # the training row


def test_the_custom_data_set_is_swept(dialogpt, tmp_path, home_with_store):
    """GPT-2's tied head trained in full beside adapters on its transposed layers."""
    made = [{"input": row["input"], "output": row["output"]} for row in rows("instruct", 40)]
    (tmp_path / "dataset.json").write_text(json.dumps(made))
    shutil.copy(DATA / "custom-dataset.yaml", tmp_path)
    checked = hpo_here("check", tmp_path / "custom-dataset.yaml", home=home_with_store)
    assert checked.returncode == 0, checked.stderr
    assert "lm_head shares its weight with transformer.wte" in checked.stdout
    done = hpo("sweep", tmp_path / "custom-dataset.yaml", home=home_with_store)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(hpo_here("show", "custom-dataset", "--json", home=home_with_store).stdout)
    assert [trial["state"] for trial in shown["trials"]] == ["complete"]
    assert shown["release"]["name"] == "custom-dataset"
    untouched = re.search(r"the untouched base model: perplexity ([\d.]+)", done.stdout)
    assert shown["trials"][0]["value"] < float(untouched[1])


def test_rows_of_alpaca_with_an_empty_input_are_kept(dialogpt, tmp_path, home):
    made = [
        {"instruction": f"name film {i}", "input": "" if i % 2 else "a warm one", "output": f"film {i}"}
        for i in range(20)
    ]
    write_jsonl(tmp_path / "alpaca.jsonl", made)
    data = {"train": "alpaca.jsonl", "text_template": "{instruction}\n{input}\n{output}"}
    sweep = write_sweep(tmp_path, task="instruct", model="./dialogpt", data=data)
    done = hpo_here("check", sweep, "--json", home=home)
    assert done.returncode == 0, done.stderr
    assert sum(facts["rows"] for facts in json.loads(done.stdout)["splits"].values()) == 20
