"""Our steps against those of transformers' Trainer: the same adapter, rows and precision, step by step in one process.

The Trainer drives; after each of its steps we take ours on the same rows. So both see the machine alike, and their
losses can be compared: once as both are by default, for the time, and once with the base's dropout off in both, for its
draws differ. All else is the Trainer's default too.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    TrainerCallback,
    TrainingArguments,
)
from transformers import Trainer as TheirTrainer

from tests.bench.tables import Row
from trainers.data.tokens import Tokens
from trainers.memory import peak_rss_mb
from trainers.model.load import load_base, put_adapter_on
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import TASKS, canonical_settings, default_settings
from trainers.protocol.events import PreparedData
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload
from trainers.tasks.table import TASKS as TASK_TYPES
from trainers.training.batches import effective_batches
from trainers.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
WARM_UP = 3
"""Steps that are not timed."""


@dataclass(frozen=True)
class Compared:
    """Losses of every step, median seconds of those after the warm-up, and of one evaluation of the validation rows."""

    our_losses: list[float]
    their_losses: list[float]
    our_step_s: float
    their_step_s: float
    our_evaluation_s: float
    their_evaluation_s: float
    floor_s: float
    """Of a step: the frozen layers' matrix products alone, forward and backward, without padding."""

    @property
    def largest_difference(self) -> float:
        return max(abs(a - b) for a, b in zip(self.our_losses, self.their_losses, strict=True))


def compare(
    spec: TrialSpec, found: PreparedData, steps: int, folder: Path, *, timed: bool = True, dropout: bool = False
) -> Compared:
    """`steps` optimizer steps of both, from equal adapters."""
    ours = _our_trainer(spec, found, dropout=dropout)
    watch = _Alternate(ours)
    theirs = _their_trainer(spec, found, steps, folder, [watch], dropout=dropout)
    theirs.train()
    losses = [entry["loss"] for entry in theirs.state.log_history if "loss" in entry]
    evaluations = _evaluations(ours, theirs) if timed else (0.0, 0.0)
    return Compared(
        watch.losses, losses, statistics.median(watch.ours_s[WARM_UP:]), statistics.median(watch.theirs_s[WARM_UP:]),
        *evaluations, _floor_s(ours) if timed else 0.0,
    )  # fmt: skip


def peak_mb(tool: str, spec: TrialSpec, found: PreparedData, steps: int, folder: Path) -> float:
    """Largest resident memory of this process after `steps` steps and an evaluation of ours, or of theirs."""
    if tool == "ours":
        ours = _our_trainer(spec, found, dropout=True)
        for rows, _ in zip(ours.batches, range(steps), strict=False):
            ours.step(rows)
        ours.evaluate()
    else:
        theirs = _their_trainer(spec, found, steps, folder, [], dropout=True)
        theirs.train()
        theirs.evaluate()
    return peak_rss_mb()


def _our_trainer(spec: TrialSpec, found: PreparedData, *, dropout: bool) -> Trainer:
    ours = Trainer(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir))
    if not dropout:
        drop_nothing(ours.model)
    return ours


def drop_nothing(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


class _Alternate(TrainerCallback):
    """Takes our step after each of theirs, and times both."""

    def __init__(self, ours: Trainer) -> None:
        self.losses: list[float] = []
        self.ours_s: list[float] = []
        self.theirs_s: list[float] = []
        self._ours = ours
        self._batches = iter(ours.batches)
        self._since = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        began = time.perf_counter()
        self.theirs_s.append(began - self._since)
        loss, _tokens = self._ours.step(next(self._batches))
        self.losses.append(loss)
        self._since = time.perf_counter()
        self.ours_s.append(self._since - began)


class _InOrder(TheirTrainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


def _their_trainer(
    spec: TrialSpec, found: PreparedData, steps: int, folder: Path, callbacks: list[TrainerCallback], *, dropout: bool
) -> TheirTrainer:
    model = put_adapter_on(load_base(spec.workload, found.labels), spec)
    if not dropout:
        drop_nothing(model)
    kind = TASK_TYPES[spec.workload.task].targets
    train, validation = (Tokens(Path(found.tokens_dir), split, kind) for split in ("train", "validation"))
    batch_size = int(spec.settings["batch_size"] or 1)
    batches = effective_batches(len(train), batch_size, spec.max_examples, spec.seed)
    collator = DataCollatorForSeq2Seq if kind == "token" else DataCollatorWithPadding
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=batch_size,
        learning_rate=float(spec.settings["learning_rate"] or 0), weight_decay=0.0, lr_scheduler_type="constant",
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    return _InOrder(
        model, arguments, collator(AutoTokenizer.from_pretrained(spec.workload.model.source)),
        [_row(train, row) for rows, _ in zip(batches, range(steps), strict=False) for row in rows],
        [_row(validation, row) for row in range(len(validation))], callbacks=callbacks,
    )  # fmt: skip


def _row(tokens: Any, row: int) -> dict[str, Any]:
    """As transformers wants it: one label, or -100 where nothing is to be predicted."""
    ids, targets = tokens.ids(row).tolist(), tokens.targets(row).tolist()
    given = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    if tokens.kind == "row":
        return {**given, "labels": targets[0]}
    return {**given, "labels": [i if is_target else -100 for i, is_target in zip(ids, targets, strict=True)]}


def _evaluations(ours: Trainer, theirs: TheirTrainer) -> tuple[float, float]:
    began = time.perf_counter()
    ours.evaluate()
    between = time.perf_counter()
    theirs.evaluate()
    return between - began, time.perf_counter() - between


def _floor_s(ours: Trainer) -> float:
    layers = [m.weight for m in ours.model.modules() if isinstance(m, torch.nn.Linear) and not m.weight.requires_grad]
    spec = ours.spec
    batch_size = int(spec.settings["batch_size"] or 1)
    rows = next(effective_batches(len(ours.train_tokens), batch_size, spec.max_examples, spec.seed))
    tokens = int(ours.train_tokens.lengths[rows].sum())
    output = ours.model.get_base_model().get_output_embeddings() if ours.train_tokens.kind == "token" else None
    asked = sum(ours.task.unit_count(ours.train_tokens, row) for row in rows)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        for weight in layers:
            wide = asked if output is not None and weight is output.weight else tokens
            hidden = torch.ones(wide, weight.shape[1])
            out = hidden @ weight.detach().T
            out @ weight.detach()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


# --- on the two real models ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is trained on what."""

    task: str
    model: str
    data: str
    max_length: int
    """Of the data's rows few are longer; of the chat's, half."""
    batch_size: int
    """The Trainer's default is 8."""
    validation_rows: int
    has_dropout: bool
    """Whether the base drops anything; where it does, losses are compared in a run without."""


MINILM = Case("text-classification", "all-MiniLM-L6-v2", "vader-movie/vader-movie.jsonl", 128, 8, 500, True)
CASES = {
    "MiniLM-8": MINILM,
    "MiniLM-16": replace(MINILM, batch_size=16),
    "SmolLM2-8": Case("chat", "SmolLM2-135M-Instruct", "chitchat/chitchat.jsonl", 512, 8, 48, False),
}
"""By model and batch size."""


def rows(steps: int) -> list[Row]:
    """Each case and each measurement in a process of its own, one after the other."""
    told = []
    for name, case in CASES.items():
        timed = _measured(name, "timed", steps)
        compared = Compared(**timed["compared"])
        same_draws = Compared(**_measured(name, "equal", 20)["compared"]) if case.has_dropout else compared
        peaks = [_measured(name, tool, 4)["peak_mb"] for tool in ("ours", "theirs")]
        epoch_s = [
            timed["steps_per_epoch"] * step + evaluation
            for step, evaluation in (
                (compared.our_step_s, compared.our_evaluation_s), (compared.their_step_s, compared.their_evaluation_s),
            )
        ]  # fmt: skip
        told += [
            Row(f"{name}: a step, ours and the Trainer's", f"{compared.our_step_s:.3f} {compared.their_step_s:.3f} s"),
            Row(f"{name}: a step, against the Trainer's", f"{compared.our_step_s / compared.their_step_s:.2f}"),
            Row(f"{name}: an evaluation", f"{compared.our_evaluation_s / compared.their_evaluation_s:.2f}"),
            Row(f"{name}: an epoch with one evaluation", f"{epoch_s[0] / epoch_s[1]:.2f}", "0.60"),
            Row(f"{name}: a step, against its frozen matrix products", f"{compared.our_step_s / compared.floor_s:.2f}"),
            Row(f"{name}: largest difference of losses", f"{same_draws.largest_difference:.1e}", "1e-3"),
            Row(f"{name}: peak memory, ours and the Trainer's", f"{peaks[0]:.0f} {peaks[1]:.0f} MB"),
            Row(f"{name}: peak memory, against the Trainer's", f"{peaks[0] / peaks[1]:.2f}", "1"),
        ]
    return told


def _measured(name: str, what: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.steps", name, what, str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def real_spec(case: Case, folder: Path) -> tuple[TrialSpec, PreparedData]:
    cache = ROOT / "mlruns/cache"
    source, columns = SourceRef(str(cache / case.data)), dict(TASKS[case.task].columns)
    ref = DataRef(source, None, None, columns, case.validation_rows, 48, 0)
    model = ModelRef(str(cache / case.model))
    workload = Workload(case.task, model, ref, case.max_length, "fp32", str(folder / "cache"))
    found = inspect(Inspect(workload))
    return plain_spec(workload, folder, batch_size=case.batch_size, max_length=case.max_length), found


def plain_spec(workload: Workload, folder: Path, **settings: Any) -> TrialSpec:
    """What the Trainer does by default: AdamW without decay at a constant rate, clipping at 1."""
    chosen = {
        **default_settings(workload.task, "lora"), "lora_dropout": 0.0, "weight_decay": 0.0, "warmup_ratio": 0.0,
        "lr_scheduler_type": "constant", **settings,
    }  # fmt: skip
    return TrialSpec(
        0, workload, "lora", canonical_settings("lora", chosen), "loss", "minimize", 1 << 20, 1 << 20, 0, "", 1,
        ("cpu",), str(folder / "trial"),
    )  # fmt: skip


def main() -> None:
    name, what, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        spec, found = real_spec(CASES[name], folder)
        if what in ("ours", "theirs"):
            print(json.dumps({"peak_mb": peak_mb(what, spec, found, steps, folder)}))
            return
        compared = compare(spec, found, steps, folder, timed=what == "timed", dropout=what == "timed")
    per_epoch = found.rows["train"] / int(spec.settings["batch_size"] or 1)
    print(json.dumps({"compared": asdict(compared), "steps_per_epoch": per_epoch}))


if __name__ == "__main__":
    main()
