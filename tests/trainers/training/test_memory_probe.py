"""The memory probe: what it makes of passes, and a real one of the tiny encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainers.memory import unshared_mb
from trainers.model.load import load_base
from trainers.protocol.memory_model import Activations, Rows
from trainers.tasks.text_classification import TextClassification
from trainers.training import memory_probe
from trainers.training.batches import evaluation_tokens
from trainers.training.checkpoint import Checkpoints
from trainers.training.memory_probe import Pass, fit_passes, measure_memory
from trainers.training.trainer import Trainer

CPU = torch.device("cpu")


def passes(needed, *lengths):
    return [Pass(len(some), 0, rows := Rows.of(some, "padded"), needed(rows)) for some in lengths]


def test_coefficients_come_back():
    found = passes(lambda rows: 300 + 0.5 * rows.tokens + 0.001 * rows.squares, [20], [80], [80] * 16, [20] * 64)
    fixed, activations = fit_passes(found, 100.0)
    assert (fixed, activations.mb_per_token, activations.mb_per_square) == pytest.approx((200, 0.5, 0.001))


def test_rows_of_one_length_do_not_tell_squares_from_tokens():
    fixed, activations = fit_passes(passes(lambda rows: 10 + rows.tokens, [64], [64] * 8), 0.0)
    assert (fixed, activations) == (pytest.approx(10), Activations(pytest.approx(1), 0.0))


def test_no_pass_needed_more_than_the_fit_says_and_no_coefficient_is_negative():
    noisy = passes(lambda rows: 100 - 0.01 * rows.squares + rows.tokens, [20], [80], [80] * 4, [20] * 16)
    fixed, activations = fit_passes(noisy, 0.0)
    assert activations.mb_per_token >= 0
    assert activations.mb_per_square >= 0
    assert all(fixed + activations.needed_mb(p.rows) >= p.peak_mb - 1e-6 for p in noisy)
    assert fit_passes(noisy[:1], 0.0) == (pytest.approx(noisy[0].peak_mb), Activations(0.0, 0.0))


def test_a_real_probe_knows_parameters_and_state(make_spec, inspection):
    """AdamW keeps two numbers for each that is learned, beside itself and its gradient: 16 bytes in float32."""
    spec, found = make_spec("encoder", lora_r=4, micro_batch_size=8, batch_size=8), inspection("encoder")
    before_mb = unshared_mb()  # of the tests that ran in this process: a trial has a process of its own
    model = measure_memory(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir), 4096.0)
    assert model.bytes_per_parameter == pytest.approx(16, rel=0.01)
    assert 0 < model.parameters - 4 * model.parameters_per_size < model.parameters  # the head is not low-rank
    assert model.size == 4
    assert model.lengths == sorted(model.lengths)
    assert model.recomputed is not None
    assert 0 < model.needed_mb(spec.settings, Rows.of(model.lengths[-8:], model.layout)) < before_mb + 1024


class Full(RuntimeError):
    def __init__(self):
        super().__init__("CUDA out of memory")


def test_what_runs_out_of_memory_after_the_first_pass_is_left_out(make_spec, inspection, monkeypatch):
    """Room for a row at a time, and for evaluations that were halved three times; a checkpoint finds none."""
    spec, found = make_spec("encoder", lora_r=4, micro_batch_size=8, batch_size=8), inspection("encoder")
    step, score, seen = Trainer.step, TextClassification.score, []

    def narrow_step(trainer, rows):
        if min(len(rows), trainer.micro_batch_size) > 1:
            raise Full
        return step(trainer, rows)

    def narrow_score(task, model, batch):
        seen.append(batch.tokens)
        if batch.tokens > evaluation_tokens(CPU, 3):
            raise Full
        return score(task, model, batch)

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Trainer, "step", narrow_step)
    monkeypatch.setattr(TextClassification, "score", narrow_score)
    monkeypatch.setattr(Checkpoints, "save", full)
    model = measure_memory(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir), 4096.0)
    assert max(seen) > evaluation_tokens(CPU, 3) >= seen[-1]
    assert model.kept.mb_per_token >= 0
    assert model.recomputed is not None
    monkeypatch.setattr(Trainer, "step", full)
    with pytest.raises(MemoryError):
        measure_memory(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir), 4096.0)


@pytest.mark.parametrize(("fits_at", "found_at"), [(0, 0), (2, 2), (9, 3)])
def test_evaluations_are_halved_as_often_as_those_of_trials(monkeypatch, fits_at, found_at):
    asked = []

    def evaluate(trainer, halvings):
        asked.append(halvings)
        if halvings < fits_at:
            raise Full

    class Meter:
        begin = staticmethod(lambda: None)
        peak_mb = staticmethod(lambda: 70.0)

    monkeypatch.setattr(memory_probe, "_evaluate", evaluate)
    assert memory_probe._evaluation_mb(None, Meter) == (70.0, found_at)
    assert asked == list(range(found_at + 1))


def test_on_a_gpu_a_pass_needs_what_the_allocator_holds_without_what_earlier_ones_left(monkeypatch):
    """Against a stand-in for CUDA's allocator: 100 MB are in use, and it keeps what passes have needed."""
    held, peak = 900 << 20, 0

    def empty_cache():
        nonlocal held
        held = 100 << 20

    def reset_peak_memory_stats(device):
        nonlocal peak
        peak = held

    for fake in (empty_cache, reset_peak_memory_stats):
        monkeypatch.setattr(torch.cuda, fake.__name__, fake)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peak)
    meter = memory_probe._Meter(torch.device("cuda:0"))
    held = peak = 300 << 20  # a pass
    assert meter.peak_mb() == 300 + memory_probe.CUDA_CONTEXT_MB
    meter.begin()
    assert meter.peak_mb() == 100 + memory_probe.CUDA_CONTEXT_MB
