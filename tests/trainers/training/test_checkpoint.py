"""A trial that goes on from a checkpoint ends with the same numbers as one that was never disturbed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import load_file

from trainers.model.load import load_base
from trainers.protocol.events import Evaluation, Failed, Resumed, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.training import loop
from trainers.training.loop import train
from trainers.training.trainer import Trainer


@pytest.fixture
def drive(inspection, monkeypatch):
    """Train with every step told, until `stop_at(event, count)` says to walk away or gives a verdict."""
    monkeypatch.setattr(loop, "STEP_EVENT_EVERY_S", -1.0)

    def go(spec, verdict_at=lambda event, count: "go"):
        found = inspection("chat" if spec.workload.task == "chat" else "encoder")
        work = train(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir))
        events = [next(work)]
        while (verdict := verdict_at(events[-1], len(events))) != "die":
            try:
                events.append(work.send(verdict if isinstance(events[-1], (Step, Evaluation)) else None))
            except StopIteration:
                break
        work.close()
        return events

    return go


def adapter_of(spec):
    return load_file(TrialPaths(Path(spec.dir)).adapter / "adapter_model.safetensors")


def assert_same_end(spec, events, undisturbed_spec, undisturbed):
    (got, want) = (events[-1], undisturbed[-1])
    assert isinstance(got, TrialResult)
    assert [e.metrics for e in got.evaluations] == [e.metrics for e in want.evaluations]
    assert [(e.step, e.examples, e.tokens, e.fraction) for e in got.evaluations] == [
        (e.step, e.examples, e.tokens, e.fraction) for e in want.evaluations
    ]
    assert (got.state, got.value, got.best_index, got.stopped_by) == (
        want.state, want.value, want.best_index, want.stopped_by,
    )  # fmt: skip
    ours, theirs = adapter_of(spec), adapter_of(undisturbed_spec)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)


SETTINGS = {"evaluations": 4, "max_examples": 160, "batch_size": 8, "lora_dropout": 0.2, "warmup_ratio": 0.2}


@pytest.mark.parametrize("kind", ["encoder", "chat"])
@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "adamw_bnb_8bit", "lion_32bit"])
def test_resumed_equals_undisturbed_to_the_bit_however_often_it_was_disturbed(make_spec, drive, tmp_path, kind, optim):
    whole = dataclasses.replace(make_spec(kind, optim=optim, **SETTINGS), dir=str(tmp_path / "whole"))
    undisturbed = drive(whole)
    spec = dataclasses.replace(whole, dir=str(tmp_path / "disturbed"))
    # Paused after a step between evaluations, killed before a verdict, killed after one, paused at an evaluation.
    assert drive(spec, lambda e, n: "pause" if isinstance(e, Step) and e.step == 3 else "go")[-1] == loop.PAUSED
    drive(spec, lambda e, n: "die" if isinstance(e, Evaluation) and e.index == 0 else "go")
    drive(spec, lambda e, n: "die" if isinstance(e, Step) and e.step == 8 else "go")
    paused = drive(spec, lambda e, n: "pause" if isinstance(e, Evaluation) and e.index == 2 else "go")
    assert paused[-1] == loop.PAUSED
    last = drive(spec)
    assert isinstance(last[0], Resumed)
    assert last[0].step == 15
    assert [e.index for e in last[0].evaluations] == [0, 1]
    assert isinstance(last[1], Evaluation)
    assert last[1].index == 2
    assert_same_end(spec, last, whole, undisturbed)


@pytest.mark.parametrize("settings", [{}, {"evaluation_rows": 8}])
def test_a_trial_that_was_stopped_and_goes_on_ends_as_if_it_had_not_been_stopped(make_spec, drive, tmp_path, settings):
    whole = dataclasses.replace(make_spec("encoder", **SETTINGS, **settings), dir=str(tmp_path / "whole"))
    undisturbed = drive(whole)
    spec = dataclasses.replace(whole, dir=str(tmp_path / "stopped"))
    stopped = drive(spec, lambda e, n: "stop" if isinstance(e, Evaluation) and e.index == 1 else "go")
    assert stopped[-1].state == "pruned"
    assert adapter_of(spec)
    assert_same_end(spec, drive(spec), whole, undisturbed)


def test_a_pause_just_before_an_evaluation_does_not_lose_it(make_spec, drive, tmp_path):
    whole = dataclasses.replace(make_spec("encoder", **SETTINGS), dir=str(tmp_path / "whole"))
    undisturbed = drive(whole)
    spec = dataclasses.replace(whole, dir=str(tmp_path / "paused"))
    for step in (5, 20):  # the steps after which an evaluation falls, the last one too
        drive(spec, lambda e, n, step=step: "pause" if isinstance(e, Step) and e.step == step else "go")
    assert_same_end(spec, drive(spec), whole, undisturbed)


def test_early_stopping_counts_across_a_kill(make_spec, drive, tmp_path):
    settings = {**SETTINGS, "learning_rate": 1e-12, "evaluations": 8, "early_stopping.patience": 3}
    whole = dataclasses.replace(make_spec("encoder", **settings), dir=str(tmp_path / "whole"))
    undisturbed = drive(whole)
    assert undisturbed[-1].stopped_by == "early_stopping"
    spec = dataclasses.replace(whole, dir=str(tmp_path / "killed"))
    drive(spec, lambda e, n: "die" if isinstance(e, Evaluation) and e.index == 2 else "go")
    assert_same_end(spec, drive(spec), whole, undisturbed)


def test_the_best_adapter_outlives_a_kill_that_came_after_it(make_spec, drive, tmp_path):
    settings = {**SETTINGS, "learning_rate": 0.1, "evaluations": 6, "max_examples": 320}
    whole = dataclasses.replace(make_spec("encoder", **settings), dir=str(tmp_path / "whole"))
    undisturbed = drive(whole)
    assert undisturbed[-1].best_index < len(undisturbed[-1].evaluations) - 1  # else this tests nothing
    spec = dataclasses.replace(whole, dir=str(tmp_path / "killed"))
    last = len(undisturbed[-1].evaluations) - 1
    drive(spec, lambda e, n: "die" if isinstance(e, Evaluation) and e.index == last else "go")
    assert_same_end(spec, drive(spec), whole, undisturbed)


def test_checkpoints_between_evaluations_change_nothing_and_a_killed_trial_goes_on_from_them(
    make_spec, drive, tmp_path
):
    whole = dataclasses.replace(make_spec("encoder", **SETTINGS), dir=str(tmp_path / "whole"))
    undisturbed = drive(whole)
    spec = dataclasses.replace(make_spec("encoder", save_steps=3, **SETTINGS), dir=str(tmp_path / "saved"))
    assert spec.fingerprint() == whole.fingerprint()
    assert_same_end(spec, drive(spec), whole, undisturbed)
    killed = dataclasses.replace(spec, dir=str(tmp_path / "killed"))
    drive(killed, lambda e, n: "die" if isinstance(e, Step) and e.step == 4 else "go")  # no evaluation before step 5
    again = drive(killed)
    assert (type(again[0]), again[0].step) == (Resumed, 3)
    assert_same_end(killed, again, whole, undisturbed)


@pytest.mark.parametrize("every_s", [-1.0, 1e9], ids=["eager", "patient"])
def test_a_curve_told_by_steps_has_the_mean_of_each_and_signs_of_life_between(make_spec, drive, monkeypatch, every_s):
    losses = [0.5 + 0.01 * n for n in range(20)]
    left = iter(losses)
    monkeypatch.setattr(Trainer, "step", lambda self, rows: (next(left), 1))
    monkeypatch.setattr(loop, "STEP_EVENT_EVERY_S", every_s)
    spec = make_spec("encoder", logging_steps=6, **SETTINGS)
    steps = [event for event in drive(spec) if isinstance(event, Step)]
    told = {event.step: event.loss for event in steps if event.loss is not None}
    assert told == {n: pytest.approx(sum(losses[n - 6 : n]) / 6) for n in (6, 12, 18)}
    alive = range(1, 21) if every_s < 0 else (1, 5, 6, 10, 12, 15, 18, 20)  # the first, and those before evaluations
    assert [event.step for event in steps] == list(alive)
    assert spec.fingerprint() == make_spec("encoder", **SETTINGS).fingerprint()


@pytest.mark.parametrize("name", ["00000010", ".00000010.old"])  # killed in the middle of replacing it
def test_a_half_written_checkpoint_is_not_read_and_the_whole_one_before_it_is(make_spec, drive, name):
    spec = make_spec("encoder", **SETTINGS)
    drive(spec, lambda e, n: "die" if isinstance(e, Evaluation) and e.index == 1 else "go")
    folder = TrialPaths(Path(spec.dir)).checkpoints
    (folder / "00000010").rename(folder / name)
    torn = folder / ".00000011.new"
    torn.mkdir()
    (torn / "state.json").write_text("{")
    assert drive(spec)[0].step == 10
    assert {left.name for left in folder.iterdir()} == {"00000020", torn.name}


def test_a_trial_that_is_stopped_before_its_first_evaluation_has_no_result(make_spec, drive):
    events = drive(make_spec("encoder", **SETTINGS), lambda e, n: "stop" if isinstance(e, Step) else "go")
    assert events[-1] == Failed("timeout", "stopped before its first evaluation")


def test_a_smaller_budget_is_evaluated_at_the_shares_of_the_full_one_and_at_its_end(make_spec, drive):
    spec = make_spec("encoder", max_examples=100, largest_budget_examples=160, evaluations=4, batch_size=8)
    evaluations = drive(spec)[-1].evaluations
    assert [e.fraction for e in evaluations] == [0.25, 0.5, 100 / 160]
    assert [e.examples for e in evaluations] == [40, 80, 100]


def test_a_loss_that_explodes_ends_the_trial_as_diverged(make_spec, drive, monkeypatch):
    losses = iter([0.7, 0.6, *[0.7 * 2**n for n in range(20)]])
    monkeypatch.setattr(Trainer, "step", lambda self, rows: (next(losses), 1))
    last = drive(make_spec("encoder", batch_size=8, evaluations=1))[-1]
    assert isinstance(last, Failed)
    assert last.cause == "diverged"
    assert last.message.startswith("loss rose from 0.7 to ")


def test_one_bad_step_is_no_divergence(make_spec, drive, monkeypatch):
    losses = iter([0.7, 9.0, *[0.5] * 50])
    monkeypatch.setattr(Trainer, "step", lambda self, rows: (next(losses), 1))
    assert isinstance(drive(make_spec("encoder", batch_size=8, evaluations=1))[-1], TrialResult)


def test_halving_the_micro_batch_does_not_change_what_is_learned(make_spec, drive, tmp_path):
    spec = make_spec("encoder", lora_dropout=0.0, micro_batch_size=8, batch_size=8)
    halved = dataclasses.replace(spec, dir=str(tmp_path / "halved"), micro_batch_halvings=3)
    whole, parts = drive(spec)[-1], drive(halved)[-1]
    assert spec.fingerprint() == halved.fingerprint()
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], abs=0.02)
