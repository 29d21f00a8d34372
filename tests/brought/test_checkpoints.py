"""Checkpoints of every family as `save_pretrained` and the hub's usual repositories have them: looked at, trained for
two steps, and exported where they can be released; or refused before the first trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.brought.looking import TASK_OF, edit, findings, look, plan, spec_of, workload_of
from tests.conftest import write_jsonl
from tests.trainers.families import CONFIGS, SPECIAL, trained
from trainers.export.promotion import export, measure_variant
from trainers.model.load import load_adapter, load_base
from trainers.model.source import pad_token_of
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Export, Measure
from trainers.runtime.release import Release
from trainers.training.evaluation import score_model

AUTO = {
    "encoder": transformers.AutoModel, "decoder": transformers.AutoModelForCausalLM,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
}  # fmt: skip


def kind_of(family: str) -> str:
    return CONFIGS[family][0]


def saved_again(family: str, folder: Path, change: Callable[[Any], Any], **options: Any) -> None:
    """The model loaded, changed and saved anew, as a person does it."""
    model = AUTO[kind_of(family)].from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    (change(model) or model).save_pretrained(folder, **options)


def tied(family: str, folder: Path) -> None:
    edit(folder / "config.json", tie_word_embeddings=True)
    saved_again(family, folder, lambda model: model.tie_weights())


def untied(family: str, folder: Path) -> None:
    edit(folder / "config.json", tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    embeddings = next(
        w for name, w in weights.items() if name.endswith(("embed_tokens.weight", "shared.weight", "wte.weight"))
    )
    head = "lm_head.weight"
    save_file({**weights, head: weights.get(head, embeddings.clone())}, folder / "model.safetensors", {"format": "pt"})


def without_a_head(family: str, folder: Path) -> None:
    """As AutoModel saves it."""
    edit(folder / "config.json", tie_word_embeddings=False)
    saved_again(family, folder, lambda model: model.base_model)


def with_a_head(family: str, folder: Path) -> None:
    """A classifier of two labels, as somebody has fine-tuned it."""
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=2)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def without_padding(family: str, folder: Path) -> None:
    edit(folder / "config.json", pad_token_id=None)
    edit(folder / "tokenizer_config.json", pad_token=None)


def padding_of_minus_one(family: str, folder: Path) -> None:
    edit(folder / "config.json", pad_token_id=-1)


def padding_is_the_end(family: str, folder: Path) -> None:
    edit(folder / "config.json", pad_token_id=2)
    edit(folder / "tokenizer_config.json", pad_token=SPECIAL[2])


def several_ends(family: str, folder: Path) -> None:
    edit(folder / "config.json", eos_token_id=[2, 3], pad_token_id=None)


def added_tokens(family: str, folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>", "</tool>"])
    tokenizer.save_pretrained(folder)
    saved_again(family, folder, lambda model: model.resize_token_embeddings(len(tokenizer)) and None)


def added_tokens_that_no_row_uses(family: str, folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>", "</tool>"])
    tokenizer.save_pretrained(folder)


def more_embeddings_than_tokens(family: str, folder: Path) -> None:
    """Qwen rounds its embeddings up."""
    saved_again(family, folder, lambda model: model.resize_token_embeddings(64) and None)


def in_shards(family: str, folder: Path) -> None:
    saved_again(family, folder, lambda model: None, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()


def in_bf16(family: str, folder: Path) -> None:
    saved_again(family, folder, lambda model: model.to(torch.bfloat16))
    edit(folder / "config.json", dtype="bfloat16")


DECODERS = [family for family in CONFIGS if kind_of(family) == "decoder"]
ENCODERS = [family for family in CONFIGS if kind_of(family) == "encoder"]
OTHERS = [family for family in CONFIGS if kind_of(family) == "encoder-decoder"]
EVERYBODY = (in_shards, added_tokens, added_tokens_that_no_row_uses, more_embeddings_than_tokens)
SOUND = [
    *[(family, EVERYBODY[(number + n) % 4]) for number, family in enumerate(CONFIGS) for n in (0, 1)],
    *[(family, change) for family in DECODERS for change in (untied, padding_is_the_end)],
    *[(family, change) for family in ("llama", "gpt2", "gemma") for change in (tied, without_padding, several_ends)],
    *[(family, padding_of_minus_one) for family in ("phi", "qwen", "gpt2", "bert")],
    *[(family, with_a_head) for family in (*ENCODERS, "bart")],
    *[(family, in_bf16) for family in ("mistral", "roberta", "t5")],
]  # fmt: skip


@pytest.mark.parametrize(("family", "change"), SOUND, ids=[f"{family}-{change.__name__}" for family, change in SOUND])
def test_a_checkpoint_trains_and_comes_back(copy_of, tmp_path, family, change):
    folder = copy_of(family)
    change(family, folder)
    task = "text-classification" if change is with_a_head else TASK_OF[kind_of(family)]
    work = workload_of(folder, task, tmp_path)
    found = look(work, plan(task), release="if possible")
    spec = spec_of(work, tmp_path / "trial", lora_dropout=0.0)
    result = trained(spec, found)
    base = load_base(work, found.labels)
    base.model = load_adapter(base, spec, TrialPaths(tmp_path / "trial").adapter)
    loss = score_model(base, Path(found.tokens_dir), "cpu")[0]["loss"]
    assert loss == pytest.approx(result.metrics["loss"], abs=1e-5)
    assert found.unreleasable == {}


@pytest.mark.parametrize("family", DECODERS)
def test_a_language_model_without_its_head_is_refused(copy_of, tmp_path, family):
    """Its output layer would be drawn at random, which no number of a sweep would show."""
    folder = copy_of(family)
    without_a_head(family, folder)
    (line,) = findings(workload_of(folder, "causal-lm", tmp_path))
    assert line == (
        f"model: {folder} lacks weights that its config.json describes: lm_head; "
        "a complete model: these would be random"
    )
    work = workload_of(folder, "text-classification", tmp_path)  # which needs no such layer
    assert look(work, plan("text-classification")).rows["train"]


def test_a_pooler_that_nobody_asks_may_be_missing(copy_of, tmp_path):
    """Models of masked words are saved without one."""
    folder = copy_of("bert")
    saved_again("bert", folder, lambda model: transformers.BertModel(model.config, add_pooling_layer=False))
    assert look(workload_of(folder, "text-similarity", tmp_path)).rows["train"]
    assert look(workload_of(folder, "text-classification", tmp_path)).rows["train"]


# --- tokens that the model has no embedding for -----------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_a_token_without_an_embedding_is_named_with_its_rows(copy_of, tmp_path, family):
    folder = copy_of(family)
    added_tokens_that_no_row_uses(family, folder)
    task = "text-to-text" if family == "t5" else "text-classification"
    count = len(transformers.AutoTokenizer.from_pretrained(folder)) - 2
    work = workload_of(folder, task, tmp_path)
    source = Path(work.data.train.source)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    column = "input" if task == "text-to-text" else "text"
    for number in (3, 10, 11, 40):
        rows[number][column] += " <tool>"
    write_jsonl(source, rows)
    (line,) = findings(work)
    assert f"the tokenizer makes '<tool>' token {count} (4 rows: {source}:" in line
    remedy = "the tokenizer that the model was trained with, or embeddings resized for this one"
    assert line.endswith(f"but the model has {count} embeddings; {remedy}")
    assert {f"{source}:{number + 1}" for number in (3, 10, 11, 40)} >= set(
        line.split("rows: ")[1].split(" and")[0].split(", ")
    )


def test_an_answer_of_its_own_is_looked_at_too(copy_of, tmp_path):
    folder = copy_of("t5")
    added_tokens_that_no_row_uses("t5", folder)
    work = workload_of(folder, "text-to-text", tmp_path)
    source = Path(work.data.train.source)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows[5]["output"] += " </tool>"
    write_jsonl(source, rows)
    (line,) = findings(work)
    assert line.startswith(f"{source}:6: the tokenizer makes '</tool>' token")


# --- padding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pad", "eos", "filler"),
    [
        (0, 2, 0),
        (None, 2, 2),
        (None, [3, 2], 3),
        (None, [], 0),
        (None, None, 0),
        (-1, 2, 2),
        (50, 2, 2),
        (-1, [50, 3], 3),
    ],
)
def test_the_filler_is_a_token_that_the_model_has(pad, eos, filler):
    config = transformers.LlamaConfig(vocab_size=50)
    config.pad_token_id, config.eos_token_id = pad, eos
    assert pad_token_of(config) == filler


@pytest.mark.parametrize(
    ("family", "change"),
    [("llama", without_padding), ("llama", padding_of_minus_one), ("gpt2", padding_is_the_end), ("gpt2", several_ends)],
)
def test_a_decoder_that_judges_finds_the_end_of_a_row_in_its_release_too(copy_of, tmp_path, family, change):
    """It looks for the last token that is no filler: trainer, graph and runtime must fill up with the same one."""
    folder = copy_of(family)
    change(family, folder)
    work = workload_of(folder, "text-classification", tmp_path)
    found = look(work)
    spec = spec_of(work, tmp_path / "trial")
    trained(spec, found)
    exported = export(load_base(work, found.labels), Export(spec, found, ["fp32"], str(tmp_path / "release")))
    assert not exported.failures
    measured = measure_variant(
        Measure("fp32", str(tmp_path / "release"), str(Path(found.tokens_dir) / "validation.jsonl"), 1)
    )
    assert measured.max_logit_diff < 1e-4
    assert measured.metrics["loss"] == pytest.approx(exported.metrics["loss"], rel=1e-3)
    release = Release.load(tmp_path / "release" / "fp32", 1)
    texts = ["warm funny film", "dull and boring story with a stale plot"]
    together, alone = release.predict(texts), [release.predict([text])[0] for text in texts]
    for a, b in zip(together, alone, strict=True):
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-4)
