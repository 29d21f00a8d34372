"""Messages survive the pipe, and a fingerprint says what decides a trial's numbers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from trainers.protocol.codec import from_json, to_json
from trainers.protocol.events import (
    Evaluation,
    Failed,
    Finding,
    PreparedData,
    Resumed,
    Trained,
    TrialEvent,
    TrialResult,
)
from trainers.protocol.files import write_atomically
from trainers.protocol.messages import decode, encode
from trainers.protocol.requests import Score, Train
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload

DATA = DataRef(SourceRef("t"), None, None, {"messages": "messages"}, 0.1, 5.0, 0)
WORKLOAD = Workload("chat", ModelRef("m"), DATA, 64, "auto", "cache")
SPEC = TrialSpec(
    3, WORKLOAD, "lora", {"lora_r": 8, "lora_alpha": None, "learning_rate": 1e-3, "target_modules": "all-linear"},
    "perplexity", "minimize", 100, 100, 0, "inputs", 1, ("cpu",), "dir",
)  # fmt: skip
INSPECTION = PreparedData({"train": 1}, ["a"], "tokens", "folder", "f", "m", 0, 0, 10, 0, ["note"])
EVALUATION = Evaluation(0, 0.5, 3, 50, 900, {"perplexity": 12.5}, 1.5)


@pytest.mark.parametrize(
    "message",
    [
        Train((SPEC, dataclasses.replace(SPEC, number=4)), INSPECTION),
        TrialEvent(3, EVALUATION),
        TrialEvent(3, Failed("oom", "too big")),
        Trained(),
        INSPECTION,
        EVALUATION,
        Resumed(3, 50, [EVALUATION]),
        Score(WORKLOAD, INSPECTION, 1, ("cpu",), "test", SPEC, "rows.npy"),
        Failed("data", "bad", [Finding("f:3", "is empty", "text")]),
        TrialResult("pruned", 12.5, {"perplexity": 12.5}, 0, [EVALUATION], "pruner", 2.0),
    ],
)
def test_a_message_survives_json(message):
    assert decode(json.loads(json.dumps(encode(message)))) == message
    assert to_json(message) == dataclasses.asdict(message)


@pytest.mark.parametrize(
    "data",
    [{"type": "Nonsense"}, {"type": "Loaded", "parameters": "many", "seconds": 1.0}, {"type": "Scored", "extra": 1}],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(ValueError):
        decode(data)


def test_the_fingerprint_leaves_out_what_does_not_decide_the_result():
    same = dataclasses.replace(
        SPEC, number=9, threads=2, devices=("cuda:0", "cuda:1"), dir="elsewhere", micro_batch_halvings=2
    )
    moved = dataclasses.replace(
        SPEC,
        workload=dataclasses.replace(WORKLOAD, model=ModelRef("elsewhere", adapter="there"), cache_dir="elsewhere"),
    )
    assert moved.fingerprint() == SPEC.fingerprint() != dataclasses.replace(SPEC, inputs_hash="others").fingerprint()
    elsewhere = dataclasses.replace(DATA, train=SourceRef("org/t", "en", "v2", "train[:9]"), test=SourceRef("s"))
    moved = dataclasses.replace(SPEC, workload=dataclasses.replace(WORKLOAD, data=elsewhere))
    assert moved.fingerprint() == SPEC.fingerprint()
    other = dataclasses.replace(SPEC, settings={**SPEC.settings, "lora_r": 16})
    assert same.fingerprint() == SPEC.fingerprint() != other.fingerprint()


def test_what_came_later_leaves_the_fingerprints_of_before():
    """A sweep that was begun before `data.documents` and the unset `max_length` goes on with its trials."""
    assert SPEC.fingerprint() == "8e4245ca1a30ca030c9ba476e337fb3292f6a224a603809886b6ad15fb64aec2"
    unset = dataclasses.replace(SPEC, workload=dataclasses.replace(WORKLOAD, max_length_is_given=False))
    assert unset.fingerprint() == SPEC.fingerprint()
    lines = dataclasses.replace(WORKLOAD, data=dataclasses.replace(DATA, documents="line"))
    assert dataclasses.replace(SPEC, workload=lines).fingerprint() != SPEC.fingerprint()


def test_a_spec_read_back_from_disk_is_the_same_trial():
    for source in (None, SourceRef("org/t", "en", "v2", "train[:9]")):
        data = dataclasses.replace(DATA, validation=source)
        spec = dataclasses.replace(SPEC, workload=dataclasses.replace(WORKLOAD, data=data))
        assert from_json(TrialSpec, json.loads(json.dumps(to_json(spec)))) == spec
    assert from_json(TrialSpec, json.loads(json.dumps(to_json(SPEC)))).fingerprint() == SPEC.fingerprint()


OLD_SPEC = """{"number": 0, "workload": {"task": "text-classification", "model": {"source": "/m", "revision": null,
"trust_remote_code": false, "adapter": null}, "data": {"train": {"source": "/t.jsonl", "config": null, "revision":
null, "split": null, "files": []}, "validation": null, "test": null, "columns": {"text": "text", "label": "label"},
"validation_size": 500.0, "test_size": 500.0, "seed": 0, "documents": "file", "label_names": []}, "max_length": 64,
"precision": "auto", "cache_dir": "/c", "code_dir": "/f", "metrics": [], "generation": null, "max_length_is_given":
true, "clock": "2026-11-28T23:45:29"}, "method": "lora", "settings": {"learning_rate": 0.0005, "batch_size": 16,
"micro_batch_size": 16, "evaluations": 5, "early_stopping.patience": 3, "early_stopping.min_delta": 0.0,
"warmup_ratio": 0.06, "lr_scheduler_type": "linear", "warmup_steps": null, "optim": "adamw_torch", "weight_decay":
0.01, "max_grad_norm": 1.0, "loss": "default", "focal_gamma": 2.0, "contrastive_margin": 0.5,
"label_smoothing_factor": 0.0, "neftune_noise_alpha": null, "gradient_checkpointing": false, "packing": false,
"logging_steps": null, "save_steps": null, "max_length": 64, "precision": "auto", "lora_r": 8, "lora_alpha": 16.0,
"lora_dropout": 0.0, "target_modules": "all-linear", "rank_pattern": null, "init_lora_weights": "default",
"modules_to_save": null}, "metric": "f1_macro", "direction": "maximize", "max_examples": 3200, "full_examples":
3200, "seed": 0, "inputs": "ccc18ee39a34a6fa614856b3de0cc057aa0ff27721827e830374128b9f68ba5f", "threads": 1,
"device": "cpu", "dir": "/d", "halvings": 2}"""
"""A spec.json of before a trial had several devices, its places shortened; its study calls it by the hash below."""


def test_a_spec_of_before_is_read_and_is_the_same_trial():
    spec = from_json(TrialSpec, json.loads(OLD_SPEC))
    assert (spec.devices, spec.micro_batch_halvings, spec.largest_budget_examples) == (("cpu",), 2, 3200)
    assert spec.fingerprint() == "6ebc65c164cb95df2ae92e5f93452ba2e9a926096d0a57fad8ff05ea38e2ea55"
    assert from_json(TrialSpec, json.loads(json.dumps(to_json(spec)))) == spec


def test_each_process_of_a_trial_sees_its_own_device_first():
    spec = dataclasses.replace(SPEC, devices=("cuda:2", "cuda:3", "cuda:4"))
    assert [spec.from_rank(rank).device for rank in range(3)] == list(spec.devices)
    assert spec.from_rank(1).devices == ("cuda:3", "cuda:4", "cuda:2")
    assert spec.from_rank(1).fingerprint() == spec.fingerprint()


def test_a_trainer_of_one_trial_a_request_refuses_others_in_words():
    assert Train((SPEC,), INSPECTION).spec == SPEC
    with pytest.raises(ValueError, match=r"^2 trials in one request; .* exactly one \(an error in hpo, not in your"):
        _ = Train((SPEC, SPEC), INSPECTION).spec


def test_an_atomic_write_leaves_one_whole_file(tmp_path):
    write_atomically(tmp_path / "a.json", "old")
    write_atomically(tmp_path / "a.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"
