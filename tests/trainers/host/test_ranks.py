"""A trial on several devices: the numbers of one, checkpoints that go on with any number, and one end for all."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from hpo.executors.local import LocalExecutor
from tests.hpo.executors.driving import assert_ends, next_event, run_to_end, until
from trainers.host import ranks
from trainers.host.ranks import run_ranks
from trainers.model.load import load_base
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import canonical_settings, default_settings
from trainers.protocol.events import PAUSED, Failed, PreparedData, Resumed, Step, TrialResult
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Inspect, Load, Score, Train
from trainers.protocol.trial_spec import Generation, TrialSpec, Workload
from trainers.training.ranks import Ranks, is_of_a_lost_rank
from trainers.training.shard import _layers
from trainers.training.trainer import Trainer

SETTINGS: dict[str, Any] = {
    "max_examples": 40, "batch_size": 12, "micro_batch_size": 4, "evaluations": 2, "logging_steps": 1,
    "lora_dropout": 0.2, "neftune_noise_alpha": 5.0,
}  # fmt: skip
QUIET: dict[str, Any] = {**SETTINGS, "lora_dropout": 0.0, "neftune_noise_alpha": None}


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(tmp_path_factory.mktemp("host") / "host.log")
    try:
        yield executor
    finally:
        executor.close()


@pytest.fixture(scope="module")
def hold(executor: LocalExecutor) -> Callable[[str, Workload, PreparedData], None]:
    """Have the host hold a base model, by a name."""
    held: list[str] = []

    def load(name: str, workload: Workload, found: PreparedData) -> None:
        if held != [name]:
            executor.submit(Load(workload, found))
            next_event(executor, timeout_s=120)  # the first one imports all that trials need
            held[:] = [name]

    return load


@pytest.fixture
def train(
    executor: LocalExecutor, hold: Any, workload: Any, inspection: Any, tmp_path: Path
) -> Callable[..., list[Any]]:
    """What is reported of a trial on so many CPUs, in the folder of that name."""

    def go(spec: TrialSpec, devices: int, folder: str = "", verdict: str = "go") -> list[Any]:
        kind = "chat" if spec.workload.task == "chat" else "encoder"
        hold(kind, workload(kind), inspection(kind))
        spec = dataclasses.replace(spec, devices=("cpu",) * devices, dir=str(tmp_path / (folder or str(devices))))
        [events] = run_to_end(executor, Train((spec,), inspection(kind)), verdict=verdict)
        return [getattr(event, "report", event) for event in events]

    return go


def losses(told: list[Any]) -> list[float]:
    return [report.loss for report in told if isinstance(report, Step)]


def assert_same_end(told: list[Any], other: list[Any], folders: tuple[Path, Path]) -> None:
    """Results and what was learned, but for rounding."""
    (one, two) = (next(report for report in each if isinstance(report, TrialResult)) for each in (told, other))
    assert [(e.step, e.examples, e.tokens) for e in one.evaluations] == [
        (e.step, e.examples, e.tokens) for e in two.evaluations
    ]
    assert two.metrics == pytest.approx(one.metrics, rel=1e-5)
    ours, theirs = (load_file(TrialPaths(folder).adapter / "adapter_model.safetensors") for folder in folders)
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    rows = [np.load(TrialPaths(folder).rows(one.best_index)) for folder in folders]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "method", "settings"),
    [
        ("encoder", "lora", SETTINGS),
        ("encoder", "lora", {**QUIET, "micro_batch_size": 16}),
        ("encoder", "qlora", {**SETTINGS, "optim": "adamw_bnb_8bit"}),
        ("chat", "lora", {**SETTINGS, "micro_batch_size": 2, "gradient_checkpointing": True}),
        ("chat", "lora", {**QUIET, "packing": True}),
    ],
    ids=["dropout and noise", "rows dealt to the devices", "bitsandbytes", "unequal lengths", "packed rows"],
)
def test_two_devices_give_the_losses_of_one(train, make_spec, tmp_path, kind, method, settings):
    spec = make_spec(kind, method, **settings)
    one, two = train(spec, 1), train(spec, 2)
    assert len(losses(one)) == 4
    assert losses(two) == pytest.approx(losses(one), rel=1e-6)
    assert_same_end(one, two, (tmp_path / "1", tmp_path / "2"))
    assert [path.name for path in (tmp_path / "2").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 3)])
def test_a_checkpoint_goes_on_with_any_number_of_devices(train, make_spec, tmp_path, first, then):
    spec = make_spec("encoder", **SETTINGS)
    whole = train(spec, 1)
    assert train(spec, first, "moved", verdict="pause")[-2] == PAUSED
    rest = train(spec, then, "moved")
    assert isinstance(rest[0], Resumed)
    assert losses(rest) == pytest.approx(losses(whole)[rest[0].step :], rel=1e-6)
    assert_same_end(whole, rest, (tmp_path / "1", tmp_path / "moved"))


def test_all_devices_have_the_best_parameters_where_the_last_evaluation_is_on_all_rows(train, make_spec, tmp_path):
    spec = make_spec("encoder", evaluation_rows=8, learning_rate=0.3, **QUIET)
    one, two = train(spec, 1), train(spec, 2)
    assert_same_end(one, two, (tmp_path / "1", tmp_path / "2"))
    rows = [np.load(TrialPaths(tmp_path / folder).all_rows) for folder in ("1", "2")]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4, atol=1e-5)


def test_generated_answers_and_own_metrics_are_those_of_one_device(hold, executor, family_workload, tmp_path):
    """Batches are small after so many halvings, so there are several to divide."""
    (tmp_path / "mine.py").write_text("def length(rows): return [len(row.get('generated', '')) for row in rows]")
    metrics, generation = ["rouge_l", "mine.py:length"], Generation(12, 6)
    workload = family_workload("llama", "instruct", code_dir=str(tmp_path), metrics=metrics, generation=generation)
    found = inspect(Inspect(workload))
    hold("instruct", workload, found)
    chosen = canonical_settings("lora", {**default_settings("instruct", "lora"), **QUIET, "evaluations": 1})
    ends = []
    for count in (1, 2):
        spec = TrialSpec(
            0, workload, "lora", chosen, "loss", "minimize", 24, 24, 0, "i", 1, ("cpu",) * count,
            str(tmp_path / str(count)), micro_batch_halvings=3,
        )  # fmt: skip
        [events] = run_to_end(executor, Train((spec,), found))
        ends.append(next(e.report for e in events if isinstance(getattr(e, "report", None), TrialResult)))
    assert ends[0].metrics["length"] > 0
    assert ends[1].metrics == pytest.approx(ends[0].metrics, rel=1e-5)


@pytest.mark.parametrize(("kind", "micro_batch_size"), [("encoder", 16), ("chat", 4)])
def test_sharded_layers_give_the_same_losses_and_the_same_files(
    executor, train, make_spec, workload, inspection, tmp_path, kind, micro_batch_size
):
    """Three micro-batches on two devices, so one of them keeps the other company; or rows that are dealt."""
    spec = make_spec(kind, **{**QUIET, "micro_batch_size": micro_batch_size, "evaluation_rows": 8})
    one = train(spec, 1)
    sharded = dataclasses.replace(spec, settings={**spec.settings, "shard": "full"})
    two = train(sharded, 2)
    assert "frozen layers are spread over 2 devices" in TrialPaths(tmp_path / "2").log.read_text()
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert_same_end(one, two, (tmp_path / "1", tmp_path / "2"))
    found, scores = inspection(kind), []
    for folder, devices in (("1", ("cpu",)), ("2", ("cpu", "cpu"))):
        kept = dataclasses.replace(sharded, dir=str(tmp_path / folder))
        [[scored]] = run_to_end(executor, Score(workload(kind), found, 1, devices, "test", kept))
        scores.append(scored.metrics)
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)


HELD = """
import gc, json
from pathlib import Path
import torch
import torch.distributed as dist
from trainers.training.optimizer import optimizer_state
from trainers.training.trainer import Trainer
summed, all_reduce = [0], dist.all_reduce
def watched(values, *rest, **named):
    if values.dtype == torch.float32:
        summed.append(values.nbytes)
    return all_reduce(values, *rest, **named)
dist.all_reduce = watched
def size(tensors):
    return sum((t.to_local() if hasattr(t, "to_local") else t).nbytes for t in tensors)
def loss(logits, targets):
    [trainer] = [found for found in gc.get_objects() if type(found) is Trainer]
    learned = size(trainer.parameters)
    held = {
        "trained": trainer.trainable_parameters,
        "state": 2 * learned + size(optimizer_state(trainer.optimizer)[0].values()),
        "frozen": size(p for p in trainer.model.parameters() if not p.requires_grad),
        "summed": max(summed),
    }
    Path(f"FOLDER/{dist.get_rank()}.json").write_text(json.dumps(held))
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
"""


def test_every_device_holds_all_that_is_trained_and_of_sharded_layers_its_share(train, make_spec, inspection, tmp_path):
    """What the model of memory goes by: AdamW's 16 bytes for each number that is learned, on every device, and once its
    gradient to add it up. Frozen layers are whole on each, or half on each of two."""

    def held(shard):
        (tmp_path / shard).mkdir()
        (tmp_path / shard / "mine.py").write_text(HELD.replace("FOLDER", str(tmp_path / shard)))
        spec = make_spec("encoder", loss="mine.py:loss", **QUIET)
        workload = dataclasses.replace(spec.workload, code_dir=str(tmp_path / shard))
        spec = dataclasses.replace(spec, workload=workload, settings={**spec.settings, "shard": shard})
        train(spec, 2, f"trial {shard}")
        return [json.loads((tmp_path / shard / f"{rank}.json").read_text()) for rank in (0, 1)]

    whole, shared = held("off"), held("full")
    for found in (*whole, *shared):
        assert found["state"] == pytest.approx(16 * found["trained"], rel=0.01)
        assert found["summed"] == 4 * found["trained"]
    base = load_base(make_spec("encoder").workload, inspection("encoder").labels).model
    layers = sum(p.nbytes for layer in _layers(base) for p in layer.parameters())
    assert [found["frozen"] for found in whole] == [whole[0]["frozen"]] * 2
    assert sum(found["frozen"] for found in shared) == 2 * whole[0]["frozen"] - layers
    assert max(found["frozen"] for found in shared) < whole[0]["frozen"] - 0.45 * layers


LOSS = """
import os, signal, torch
import torch.distributed as dist
steps = 0
def loss(logits, targets):
    global steps
    steps += 1
    if steps == 1:
        with open(f"FOLDER/{dist.get_rank()}", "w") as file:
            file.write(str(os.getpid()))
    if dist.get_rank() == RANK and steps == 3:
        END
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
"""


def with_own_loss(make_spec: Callable[..., TrialSpec], folder: Path, rank: int, end: str) -> TrialSpec:
    """A trial whose ranks write down their pids, and one of which does `end` in its third forward pass."""
    (folder / "mine.py").write_text(LOSS.replace("FOLDER", str(folder)).replace("RANK", str(rank)).replace("END", end))
    spec = make_spec("encoder", loss="mine.py:loss", **SETTINGS)
    return dataclasses.replace(spec, workload=dataclasses.replace(spec.workload, code_dir=str(folder)))


@pytest.mark.parametrize(
    ("rank", "end", "failed"),
    [
        (1, "os.kill(os.getpid(), signal.SIGKILL)", Failed("crash", "the trial's process was killed by SIGKILL")),
        (0, "os.kill(os.getpid(), signal.SIGKILL)", Failed("crash", "the trial's process was killed by SIGKILL")),
        (1, "raise MemoryError('no room')", Failed("oom", "MemoryError: no room")),
        (0, "raise ValueError('a bad loss')", Failed("crash", "OwnCodeError: mine.py:12: ValueError: a bad loss")),
    ],
)
def test_a_device_that_fails_ends_the_trial_with_its_cause(train, make_spec, tmp_path, rank, end, failed):
    spec = with_own_loss(make_spec, tmp_path, rank, end)
    began = time.monotonic()
    last = train(spec, 3)[-1]
    assert time.monotonic() - began < 20
    assert last == dataclasses.replace(failed, message=f"device {rank + 1} of 3: {failed.message}")
    for number in range(3):
        assert_ends(int((tmp_path / str(number)).read_text()))


def test_a_trial_that_is_killed_leaves_no_process(executor, train, make_spec, inspection, tmp_path):
    spec = with_own_loss(make_spec, tmp_path, 1, "import time; time.sleep(60)")
    train(make_spec("encoder", max_examples=8, evaluations=1), 1, "warm")
    spec = dataclasses.replace(spec, devices=("cpu", "cpu"), dir=str(tmp_path / "killed"))
    request_id = executor.submit(Train((spec,), inspection("encoder")))
    until(executor, Step)
    executor.kill(request_id)
    assert until(executor, Failed).cause == "crash"
    for number in range(2):
        assert_ends(int((tmp_path / str(number)).read_text()))


def test_a_verdict_after_a_step_is_taken_by_all_devices(executor, train, make_spec, inspection, tmp_path):
    spec = make_spec("encoder", **{**SETTINGS, "max_examples": 4000})
    train(dataclasses.replace(spec, max_examples=12, largest_budget_examples=12), 2, "warm")
    spec = dataclasses.replace(spec, devices=("cpu", "cpu"), dir=str(tmp_path / "stopped"))
    request_id = executor.submit(Train((spec,), inspection("encoder")))
    until(executor, Step)
    executor.reply(request_id, 0, "pause")
    assert until(executor, Failed) == PAUSED
    assert any(TrialPaths(tmp_path / "stopped").checkpoints.iterdir())


class WithoutRows(Ranks):
    """The second of two ranks: the leader has the only row."""

    def gather(self, value: list[Any]) -> list[list[Any]]:
        return [value, value]

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    def total(self, number: float) -> float:
        return number


def test_a_device_without_a_row_in_its_first_step_has_a_loss_scale_too(make_spec, inspection):
    spec, found = make_spec("encoder", **{**QUIET, "batch_size": 1}), inspection("encoder")
    workload = dataclasses.replace(spec.workload, precision="fp16")
    spec = dataclasses.replace(spec, workload=workload, devices=("cpu", "cpu"))
    trainer = Trainer(load_base(workload, found.labels), spec, Path(found.tokens_dir), WithoutRows(1, 2))
    assert trainer.step(next(trainer.batches))[0] == 0


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (dist.DistBackendError("NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'"), False),
        (RuntimeError("a bad loss"), False),
    ],
)
def test_a_device_whose_memory_runs_out_has_lost_no_other_one(error, is_lost):
    assert is_of_a_lost_rank(error) is is_lost


def test_a_process_with_threads_forks_no_ranks(monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda path: ["1", "2"])
    with pytest.raises(RuntimeError, match=r"has threads and cannot fork safely \(2 threads\)"):
        next(run_ranks(2, lambda number: iter(()), lambda error: False))


def waits(number):
    """A rank whose leader says something, and then neither ends by itself."""
    if number == 0:
        yield Step(1, 1, 0.5, 1e-3, 0.0)
    time.sleep(60)


def test_a_device_that_the_kernel_kills_while_a_verdict_is_awaited_ran_out_of_memory(monkeypatch):
    """The ranks fork a process of one thread, which this one is not."""
    kills = 0
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    monkeypatch.setattr(ranks, "oom_kills", lambda: kills)
    forked: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forked.append(pid := fork()) or pid)
    driven = run_ranks(2, waits, lambda error: False)
    next(driven)
    kills = 1
    os.kill(forked[1], signal.SIGKILL)
    with pytest.raises(StopIteration) as end:
        driven.send("go")
    assert end.value.value.cause == "oom"


def test_a_device_that_cannot_even_say_how_it_ended_leaves_a_traceback(monkeypatch, capfd):
    def unable(pid):
        raise OSError("no such prctl")

    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    monkeypatch.setattr(ranks, "die_only_with", unable)
    with pytest.raises(StopIteration) as end:
        next(run_ranks(1, waits, lambda error: False))
    assert end.value.value == Failed("crash", "device 1 of 1: the trial's process ended with exit code 1")
    assert "OSError: no such prctl" in capfd.readouterr().err


@pytest.mark.parametrize(("halvings", "rows"), [(0, 8), (1, 4), (3, 1)])
def test_the_first_halving_takes_from_what_a_device_has_at_a_time(make_spec, inspection, halvings, rows):
    spec, found = make_spec("encoder", batch_size=16, micro_batch_size=16), inspection("encoder")
    spec = dataclasses.replace(spec, devices=("cpu", "cpu"), micro_batch_halvings=halvings)
    assert Trainer(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir)).rows_at_once == rows
