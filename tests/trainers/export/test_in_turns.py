"""Variants in turns: the verdicts of all rows, from fewer of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainers.export.conftest import CORPUS, chat_tokenizer, tiny_decoder
from trainers.export import candidate, in_turns
from trainers.export.in_turns import Torch, judge_in_turns
from trainers.export.measure import TURNS, Variant, measure
from trainers.export.promotion import REFERENCE, REFERENCE_RESULTS, measure_all
from trainers.metrics.enough_rows import FIRST_LOOK
from trainers.protocol.measured import Agreement
from trainers.protocol.requests import Gate, MeasureAll

ROWS = 160
GATE = Gate("perplexity", "minimize", 0.02)


@pytest.fixture(scope="session")
def torch_numbers(tmp_path_factory) -> Path:
    """A folder with validation rows, and torch's results and logits of them."""
    folder = tmp_path_factory.mktemp("numbers")
    words = " ".join(CORPUS).split()
    rng, model, rows, results = np.random.default_rng(0), tiny_decoder(), [], []
    for _ in range(ROWS):
        ids = chat_tokenizer()(" ".join(rng.permutation(words)[:8])).input_ids
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").item()
        hits = int((logits[:-1].argmax(-1) == torch.tensor(ids[1:])).sum())
        results.append([nll, len(ids) - 1, hits, 40])
        if not rows:
            np.save(folder / REFERENCE, logits.numpy())
        rows.append({"input_ids": ids, "loss_mask": [1] * len(ids), "target_bytes": 40})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(folder / REFERENCE_RESULTS, np.array(results))
    return folder


@pytest.fixture
def judge(torch_numbers):
    def judge(folders, gate=GATE):
        torchs = Torch(torch_numbers / REFERENCE_RESULTS, torch_numbers / REFERENCE)
        return judge_in_turns(folders, torch_numbers / "rows.jsonl", torchs, gate, threads=1)

    return judge


def test_an_equal_variant_passes_on_a_part_of_the_rows(judge, chat_release, torch_numbers):
    found = judge({"fp32": chat_release()})
    [fp32] = found.judged
    measured = fp32.measurement
    assert fp32.passed
    assert found.count == ROWS
    assert measured.rows is not None
    assert measured.rows < ROWS
    assert fp32.low <= fp32.drop <= fp32.high <= GATE.max_drop
    assert measured.max_logit_diff < 1e-4
    assert measured.tokens_per_second > 0
    everything = measure(chat_release(), torch_numbers / "rows.jsonl", threads=1, latency_calls=1)
    assert measured.metrics["perplexity"] == pytest.approx(everything["perplexity"], rel=0.2)


def test_what_rows_cannot_tell_is_measured_on_all_of_them(judge, chat_release, torch_numbers):
    everything = measure(chat_release("int8"), torch_numbers / "rows.jsonl", threads=1, latency_calls=1)["perplexity"]
    torchs = np.load(torch_numbers / REFERENCE_RESULTS)
    drop = everything / np.exp(torchs[:, 0].sum() / torchs[:, 1].sum()) - 1
    for margin in (-1e-6, 1e-6):
        [int8] = judge({"int8": chat_release("int8")}, Gate("perplexity", "minimize", drop + margin)).judged
        assert int8.passed is (margin > 0)
        assert int8.measurement.rows is None
        assert int8.measurement.metrics["perplexity"] == pytest.approx(everything)
        assert int8.drop == pytest.approx(drop)


def test_a_bad_variant_and_a_broken_one_stop_no_other(judge, chat_release, copy_of, tmp_path):
    broken = copy_of(chat_release())
    (broken / "release.json").unlink()
    bad = tmp_path / "bad"
    shutil.copytree(chat_release("int8"), bad)
    card = json.loads((bad / "release.json").read_text())
    (bad / "release.json").write_text(json.dumps({**card, "variant": "bad"}))
    found = judge({"fp32": chat_release(), "broken": broken, "bad": bad}, Gate("perplexity", "minimize", 1e-5))
    assert set(found.failures) == {"broken"}
    assert "is not a release" in found.failures["broken"]
    assert {judged.measurement.variant for judged in found.judged} == {"fp32", "bad"}


def test_a_slower_one_is_left_once_a_faster_one_has_passed(judge, chat_release, monkeypatch):
    monkeypatch.setattr(in_turns, "measure_speed", as_if_slow("int8"))
    gate = Gate("perplexity", "minimize", 1e-4)  # so little that int8's verdict takes all rows, alone
    assert judge({"int8": chat_release("int8")}, gate).judged[0].measurement.rows is None
    fp32, int8 = judge({"fp32": chat_release(), "int8": chat_release("int8")}, gate).judged
    assert fp32.passed
    assert int8.slower_than == "fp32"
    assert not int8.passed
    assert int8.measurement.rows == fp32.measurement.rows


def test_where_size_counts_a_slower_one_is_measured_to_its_end(judge, chat_release, monkeypatch):
    monkeypatch.setattr(in_turns, "measure_speed", as_if_slow("int8"))
    gate = Gate("perplexity", "minimize", 1e-4, prefer="size")
    _, int8 = judge({"fp32": chat_release(), "int8": chat_release("int8")}, gate).judged
    assert int8.slower_than is None
    assert int8.measurement.rows is None


def test_one_that_costs_too_much_is_looked_at_once(judge, chat_release):
    [fp32] = judge({"fp32": chat_release()}, Gate("perplexity", "minimize", 0.02, max_size_mb=1e-3)).judged
    assert fp32.measurement.rows == FIRST_LOOK


def test_answers_that_differ_let_no_other_one_wait(judge, chat_release, monkeypatch):
    """What fails `min_agreement` cannot be released, so a slower one is still measured."""
    monkeypatch.setattr(in_turns, "measure_speed", as_if_slow("int8"))
    monkeypatch.setattr(candidate, "agreement_of_logits", lambda *_: Agreement(1, 2))
    gate = Gate("perplexity", "minimize", 1e-4, min_agreement=0.9)
    fp32, int8 = judge({"fp32": chat_release(), "int8": chat_release("int8")}, gate).judged
    assert fp32.measurement.agreement == Agreement(1, 2)
    assert int8.slower_than is None


@pytest.mark.parametrize(("least", "takes_all"), [(0.9, True), (0.5, False), (0.999, False)])
def test_agreement_that_few_rows_do_not_tell_is_counted_on_more(judge, chat_release, monkeypatch, least, takes_all):
    """15 of 16 answers are torch's: on 32 rows that is 80 % to 98 %."""
    monkeypatch.setattr(candidate, "agreement_of_rows", lambda ours, *_: Agreement(len(ours) * 15 // 16, len(ours)))
    [fp32] = judge({"fp32": chat_release()}, Gate("perplexity", "minimize", 0.5, min_agreement=least)).judged
    assert fp32.passed
    assert (fp32.measurement.rows is None) is takes_all
    assert fp32.measurement.agreement.share == 15 / 16


def as_if_slow(name):
    def measure_speed(variants):
        for variant in variants:
            variant.milliseconds = [[2.0 if variant.card.variant == name else 1.0]] * TURNS

    return measure_speed


def test_slower_in_some_turns_is_not_surely_slower(chat_release, torch_numbers):
    one, other = (Variant.load(chat_release(), torch_numbers / "rows.jsonl", 1) for _ in range(2))
    one.milliseconds, other.milliseconds = [[2.0]] * TURNS, [[1.0]] * TURNS
    assert one.surely_slower_than(other)
    assert not other.surely_slower_than(one)
    one.milliseconds = [*one.milliseconds[1:], [0.5]]
    assert not one.surely_slower_than(other)


def test_the_request_is_answered_from_the_folder_of_the_export(chat_release, torch_numbers, tmp_path):
    for name in (REFERENCE, REFERENCE_RESULTS, "rows.jsonl"):
        shutil.copy(torch_numbers / name, tmp_path / name)
    shutil.copytree(chat_release(), tmp_path / "fp32")
    found = measure_all(MeasureAll(["fp32"], str(tmp_path), str(tmp_path / "rows.jsonl"), 1, GATE))
    assert [judged.passed for judged in found.judged] == [True]
