"""What trials need of memory, as its model says it, and the peak of real ones: in forked children, as in a sweep."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hpo.trials.fitting import Fitting, kind_of
from tests.bench.steps import CASES, MINILM, real_spec
from tests.bench.tables import Row
from trainers.memory import forget_peak, peak_rss_mb, rss_mb, unshared_mb
from trainers.model.base import Base
from trainers.model.load import load_base
from trainers.protocol.catalog import canonical_settings, default_settings
from trainers.protocol.events import Evaluation
from trainers.protocol.memory_model import MemoryModel
from trainers.protocol.settings import Setting
from trainers.protocol.trial_spec import TrialSpec
from trainers.training.loop import train
from trainers.training.memory_probe import measure_memory
from trainers.training.ranks import ALONE, Ranks, join
from trainers.training.trainer import Trainer

Settings = Mapping[str, Setting]
COMPARED: Mapping[str, tuple[Any, str, int, Settings, tuple[Settings, ...]]] = {
    "MiniLM, lora": (
        replace(MINILM, max_length=128), "lora", 5, {"lora_r": 64, "batch_size": 32, "micro_batch_size": 16},
        (
            {}, {"lora_r": 4}, {"micro_batch_size": 2}, {"gradient_checkpointing": True},
            {"lora_r": 16, "batch_size": 8, "max_length": 32}, {"devices": 2}, {"devices": 2, "batch_size": 8},
        ),
    ),
    "MiniLM, full": (
        replace(MINILM, max_length=128), "full", 5, {"batch_size": 16, "micro_batch_size": 16},
        ({}, {"micro_batch_size": 2}, {"devices": 2}),
    ),
    "SmolLM2, lora": (
        replace(CASES["SmolLM2-8"], max_length=192, validation_rows=8), "lora", 2,
        {"lora_r": 32, "batch_size": 4, "micro_batch_size": 4},
        ({}, {"gradient_checkpointing": True}, {"lora_r": 4, "micro_batch_size": 1, "max_length": 64}),
    ),
}  # fmt: skip
"""Name -> case, method, steps of each trial, what was measured, and in what the trials differ from it."""


def rows() -> list[Row]:
    """Each trial: what was said, what it was, and the error in per cent (above 0: it needed less)."""
    torch.set_num_threads(1)
    told = []
    for name, (case, method, steps, largest, points) in COMPARED.items():
        with tempfile.TemporaryDirectory() as scratch:
            plain, found = real_spec(case, Path(scratch))
            base = load_base(plain.workload, found.labels)
            base.refused_shortcuts = {}  # as where the host has tried them all

            def spec(changes: Settings, plain: TrialSpec = plain, method: str = method, steps: int = steps,
                     largest: Settings = largest) -> TrialSpec:  # fmt: skip
                return _spec(plain, method, steps, {**largest, **changes})

            tokens = Path(found.tokens_dir)
            model: MemoryModel = _in_a_child(lambda: measure_memory(base, spec({}), tokens, 1 << 20))  # noqa: B023
            for point in points:
                way = next(Fitting({kind_of(spec(point)): model}).ways(spec(point), frozenset()))
                peak = _peak_mb(base, spec(point), tokens)
                what = ", ".join(f"{key} {value}" for key, value in point.items()) or "as measured"
                numbers = f"{way.needs_mb:.0f} and {peak:.0f} MB: {way.needs_mb / peak - 1:+.0%}"
                told.append(Row(f"{name}, {what}: said and needed", numbers))
    return told


def _spec(plain: TrialSpec, method: str, steps: int, changes: Settings) -> TrialSpec:
    settings = {**default_settings(plain.workload.task, method), "evaluations": 2, "lora_dropout": 0.0, **changes}
    examples = steps * int(settings["batch_size"] or 1)
    return replace(
        plain, method=method, settings=canonical_settings(method, settings), max_examples=examples,
        largest_budget_examples=examples, devices=("cpu",) * int(settings["devices"] or 1),
    )  # fmt: skip


def _peak_mb(base: Base, spec: TrialSpec, tokens_dir: Path) -> float:
    """Of all processes of a whole trial, beside what they share with their host."""
    count = len(spec.devices)
    with tempfile.TemporaryDirectory() as folder:
        spec, meeting = replace(spec, dir=folder), Path(folder, "meeting")

        def as_rank(number: int) -> float:
            return _peak_of_rank(base, spec, tokens_dir, join(number, count, meeting, "cpu") if count > 1 else ALONE)

        pipes = [_begun(partial(as_rank, number)) for number in range(count)]
        return float(sum(pipe.recv() for pipe in pipes))


def _peak_of_rank(base: Base, spec: TrialSpec, tokens_dir: Path, ranks: Ranks) -> float:
    forget_peak()
    if ranks.number == 0:
        trial = train(base, spec, tokens_dir, ranks)
        report = next(trial, None)
        while report is not None:
            try:
                report = trial.send("go" if isinstance(report, Evaluation) else None)
            except StopIteration:
                report = None
        ranks.order("end")
    else:
        trainer = Trainer(base, spec, tokens_dir, ranks)
        trainer.synchronize()
        while (order := ranks.next_order())[0] != "end":
            trainer.obey(*order)
    return peak_rss_mb() - (rss_mb() - unshared_mb())


def _in_a_child(work: Callable[[], Any]) -> Any:
    return _begun(work).recv()


def _begun(work: Callable[[], Any]) -> Connection:
    """The pipe through which a forked child answers, and then ends."""
    ours, theirs = get_context("fork").Pipe()
    get_context("fork").Process(target=_answer, args=(theirs, work)).start()
    theirs.close()
    return ours


def _answer(pipe: Connection, work: Callable[[], Any]) -> None:
    torch.set_num_threads(1)
    pipe.send(work())
