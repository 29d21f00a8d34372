"""Messages survive the pipe, and a fingerprint says what decides a trial's numbers."""

from __future__ import annotations

import dataclasses
import json

import pytest

from trainers.protocol.codec import from_json, to_json
from trainers.protocol.files import write_atomically
from trainers.protocol.messages import (
    DataRef,
    Evaluation,
    Failed,
    Finding,
    ModelRef,
    PreparedData,
    Resumed,
    Score,
    SourceRef,
    Train,
    TrialResult,
    TrialSpec,
    Workload,
    decode,
    encode,
)

DATA = DataRef(SourceRef("t"), None, None, {"messages": "messages"}, 0.1, 5.0, 0)
WORKLOAD = Workload("chat", ModelRef("m"), DATA, 64, "auto", "cache")
SPEC = TrialSpec(
    3, WORKLOAD, "lora", {"lora_r": 8, "lora_alpha": None, "learning_rate": 1e-3, "target_modules": "all-linear"},
    "perplexity", "minimize", 100, 100, 0, "inputs", 1, "cpu", "dir",
)  # fmt: skip
INSPECTION = PreparedData({"train": 1}, ["a"], "tokens", "folder", "f", "m", 0, 0, 10, 0, ["note"])
EVALUATION = Evaluation(0, 0.5, 3, 50, 900, {"perplexity": 12.5}, 1.5)


@pytest.mark.parametrize(
    "message",
    [
        Train(SPEC, INSPECTION),
        INSPECTION,
        EVALUATION,
        Resumed(3, 50, [EVALUATION]),
        Score(WORKLOAD, INSPECTION, 1, "cpu", "test", SPEC, "rows.npy"),
        Failed("data", "bad", [Finding("f:3", "is empty", "text")]),
        TrialResult("pruned", 12.5, {"perplexity": 12.5}, 0, [EVALUATION], "pruner", 2.0),
    ],
)
def test_a_message_survives_json(message):
    assert decode(json.loads(json.dumps(encode(message)))) == message


@pytest.mark.parametrize(
    "data",
    [{"type": "Nonsense"}, {"type": "Loaded", "parameters": "many", "seconds": 1.0}, {"type": "Scored", "extra": 1}],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(ValueError):
        decode(data)


def test_the_fingerprint_leaves_out_what_does_not_decide_the_result():
    same = dataclasses.replace(SPEC, number=9, threads=2, device="cuda:0", dir="elsewhere", micro_batch_halvings=2)
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


def test_an_atomic_write_leaves_one_whole_file(tmp_path):
    write_atomically(tmp_path / "a.json", "old")
    write_atomically(tmp_path / "a.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"
