"""`precision: auto`: the fastest of those whose losses agree, measured once and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainers.host import precision as host
from trainers.model import load
from trainers.model.load import load_base
from trainers.protocol.events import Decision
from trainers.protocol.trial_spec import with_precision
from trainers.training import precision as measuring
from trainers.training.precision import Measured, circumstances, decide
from trainers.training.trainer import Trainer


def rounds(bf16_s, bf16_losses=(1.0, 0.9), fp32_s=1.0):
    plain = Measured([1.0, 0.9], [fp32_s, fp32_s])
    return [{"fp32": plain, "bf16": Measured(list(bf16_losses), [bf16_s] * 2)}]


@pytest.mark.parametrize(
    ("measured", "decision"),
    [
        (rounds(0.5), Decision("bf16", "fp32 2.0x slower here")),
        (rounds(1.4), Decision("fp32", "bf16 1.4x slower here")),
        (rounds(0.99), Decision("fp32", "bf16 no faster here")),
        (rounds(0.5, (1.02, 0.91)), Decision("bf16", "fp32 2.0x slower here")),
        (rounds(0.5, (1.0, 0.95)), Decision("fp32", "bf16 gives other losses: 0.95 instead of 0.9")),
        (rounds(0.5, (float("nan"), 0.9)), Decision("fp32", "bf16 gives other losses: nan instead of 1")),
        (rounds(0.5) + rounds(0.5, (2.0, 0.9)), Decision("fp32", "bf16 gives other losses: 2 instead of 1")),
    ],
)
def test_the_fastest_whose_losses_agree_is_chosen(measured, decision):
    assert decide(measured) == decision


@pytest.fixture
def asked(make_spec, inspection, tmp_path, monkeypatch):
    """A base, a trial and its data, with a cache of their own, on a CPU that computes bf16; children run here."""
    monkeypatch.setattr(load, "_computes_bf16", lambda device: True)
    monkeypatch.setattr(host, "done_aside", lambda work: work())
    spec = make_spec("encoder", lora_dropout=0.0)
    spec = replace(spec, workload=replace(spec.workload, precision="auto", cache_dir=str(tmp_path / "cache")))
    found = inspection("encoder")

    def decided():
        return host.decided(load_base(spec.workload, found.labels), spec, found)

    return decided, spec, found


def kept(spec):
    return list(Path(spec.workload.cache_dir, host.FOLDER).iterdir())


def faster_in(name, monkeypatch):
    real = measuring.measure_steps

    def measure(base, spec, tokens_dir, precision):
        measured = real(load_base(spec.workload, base.labels), spec, tokens_dir, precision)
        return replace(measured, seconds=[0.5 if precision == name else 1.0] * len(measured.seconds))

    monkeypatch.setattr(measuring, "measure_steps", measure)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_real_steps_decide_and_the_decision_is_kept(name, asked, monkeypatch):
    decided, spec, _ = asked
    faster_in(name, monkeypatch)
    other = {"fp32": "bf16", "bf16": "fp32"}[name]
    assert decided() == Decision(name, f"{other} 2.0x slower here")
    monkeypatch.setattr(host, "done_aside", lambda work: pytest.fail("measured again"))
    assert decided() == Decision(name, f"{other} 2.0x slower here")
    (file,) = kept(spec)
    assert json.loads(file.read_text())["decision"] == {"precision": name, "why": f"{other} 2.0x slower here"}


def test_a_broken_bf16_is_never_chosen_however_fast(asked, monkeypatch):
    decided, _, _ = asked
    faster_in("bf16", monkeypatch)
    real = Trainer.step

    def step(trainer, rows):
        loss, tokens = real(trainer, rows)
        return (1.5 * loss if trainer.spec.workload.arithmetic == "bf16" else loss), tokens

    monkeypatch.setattr(Trainer, "step", step)
    decision = decided()
    assert decision.precision == "fp32"
    assert decision.why.startswith("bf16 gives other losses: ")


def test_a_file_that_cannot_be_read_is_measured_again(asked, monkeypatch, capsys):
    decided, spec, _ = asked
    faster_in("bf16", monkeypatch)
    decided()
    (file,) = kept(spec)
    for text in ("", "[]", '{"decision": {"precision": "fp8", "why": ""}}'):
        file.write_text(text)
        assert decided().precision == "bf16"
    assert "measured again" in capsys.readouterr().err
    assert json.loads(file.read_text())["decision"]["precision"] == "bf16"


def test_where_memory_runs_out_nothing_is_decided_and_a_crash_leaves_fp32(asked, monkeypatch):
    decided, spec, _ = asked
    monkeypatch.setattr(host, "done_aside", lambda work: None)
    assert decided() is None

    def crashes(work):
        raise host.AsideFailed("the process that tried it ended with code -6")

    monkeypatch.setattr(host, "done_aside", crashes)
    assert decided() == Decision("fp32", "fp32 cannot be measured: the process that tried it ended with code -6")
    assert not Path(spec.workload.cache_dir).exists()


def test_a_cpu_without_bf16_measures_nothing(asked, monkeypatch):
    decided, _, _ = asked
    monkeypatch.setattr(load, "_computes_bf16", lambda device: False)
    monkeypatch.setattr(host, "done_aside", lambda work: pytest.fail("measured"))
    assert decided() == Decision("fp32", "")


def test_the_key_is_machine_model_task_method_and_a_coarse_mix_of_lengths(asked, monkeypatch):
    _, spec, found = asked
    tokens_dir = Path(found.tokens_dir)
    key = circumstances(spec, "m", tokens_dir)
    assert key["torch"] == torch.__version__
    assert all(length & (length - 1) == 0 for length in key["lengths"])
    same = replace(spec, seed=7, dir="elsewhere", max_examples=5)
    assert circumstances(with_precision(same, "bf16"), "m", tokens_dir) == key
    shorter = replace(spec, settings={**spec.settings, "max_length": 4})
    smaller = replace(spec, settings={**spec.settings, "batch_size": 1})
    others = [
        circumstances(spec, "n", tokens_dir), circumstances(replace(spec, threads=2), "m", tokens_dir),
        circumstances(replace(spec, method="dora"), "m", tokens_dir), circumstances(shorter, "m", tokens_dir),
        circumstances(smaller, "m", tokens_dir),
    ]  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True, "cpu_name": "another"})
    others.append(circumstances(spec, "m", tokens_dir))
    assert all(other != key for other in others)
    assert others[-1]["flags"] == ["amx_bf16"]


def test_a_decision_is_no_part_of_a_fingerprint_and_counts_only_for_auto(make_spec):
    spec = make_spec("encoder")
    auto = replace(spec, workload=replace(spec.workload, precision="auto"))
    assert with_precision(auto, "bf16").fingerprint() == auto.fingerprint() != spec.fingerprint()
    assert with_precision(auto, "bf16").workload.arithmetic == "bf16"
    assert auto.workload.arithmetic == "auto"
    assert with_precision(spec, "bf16").workload.arithmetic == "fp32"
