"""Answers `Export`, `MeasureAll` and `Measure`: writes a trained model as ONNX variants and measures them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers.data.sources import DataProblem
from trainers.data.tokens import Tokens
from trainers.export.bundle import export_bundle
from trainers.export.in_turns import Torch, judge_in_turns
from trainers.export.measure import LATENCY_CALLS, measure
from trainers.export.release import ExportError
from trainers.export.variants import write_variants
from trainers.model.base import Base
from trainers.model.load import load_adapter, merge
from trainers.protocol.catalog import METHODS
from trainers.protocol.exported import BundledAdapter, Exported
from trainers.protocol.files import TrialPaths
from trainers.protocol.measured import Agreement, AllJudged, Measurement
from trainers.protocol.requests import BundledTrial, Export, ExportBundle, Measure, MeasureAll
from trainers.protocol.trial_spec import TrialSpec
from trainers.runtime.card import GENERATIVE
from trainers.tasks.table import TASKS
from trainers.training.batches import collate

REFERENCE = "torch_logits.npy"
REFERENCE_RESULTS = "torch_rows.npy"
REFERENCE_ROWS = 64
REFERENCE_TOKENS = 512


def export(base: Base, request: Export) -> Exported:
    """Put the adapter on in float32, write every variant that can be exported, and compute torch's metrics.

    Where the request names adapters, there is one variant: the base with them beside it. A variant that cannot be
    exported is in `failures` of the answer, with the reason, and an adapter besides the first one in `left_out`.
    """
    from trainers.model.source import load_tokenizer
    from trainers.training.evaluation import score_model

    began = time.monotonic()
    out_dir = Path(request.dir)
    out_dir.mkdir(parents=True)
    workload = request.spec.workload
    tokens_dir = Path(request.inspection.tokens_dir)
    base.model = _trained(base, request.spec)
    tokenizer = load_tokenizer(Path(request.inspection.model_dir), workload.model.trust_remote_code)
    if request.adapters:
        adapters, wrong = write_adapters(request.adapters, out_dir / "fp32")
        done, failures, left_out = (["fp32"], {}, wrong) if adapters else ([], {"fp32": _in_words(wrong)}, {})
    else:
        adapters, left_out, (done, failures) = [], {}, write_variants(base, tokenizer, request, out_dir)
    targets = TASKS[workload.task].targets
    validation = Tokens(tokens_dir, "validation", targets)
    reference = _reference_rows if targets == "row" else _reference_tokens
    np.save(out_dir / REFERENCE, reference(base, validation), allow_pickle=False)
    timed_rows = 1 if workload.task in GENERATIVE else len(validation)
    latency_p50_ms = _latency_p50_ms(base, validation, timed_rows)
    metrics, results = score_model(base, tokens_dir, "cpu", precision="fp32")
    np.save(out_dir / REFERENCE_RESULTS, results, allow_pickle=False)
    return Exported(metrics, done, failures, time.monotonic() - began, latency_p50_ms, adapters, left_out)


def write_adapters(trials: Sequence[BundledTrial], folder: Path) -> tuple[list[BundledAdapter], dict[str, str]]:
    """Write the base with these adapters beside it: those that it has, and of others why they are left out.

    The first one is the champion's. Without it there are none, and the reasons say why; under "" is what concerns all.
    """
    left_out: dict[str, str] = {}
    while True:
        adapters, wrong = _written([trial for trial in trials if trial.name not in left_out], folder)
        if not wrong:
            return adapters, left_out
        if not wrong.keys() <= {trial.name for trial in trials[1:]}:
            return [], wrong
        left_out |= wrong
        shutil.rmtree(folder)  # the graph has inputs for what they trained in full, and labels for the widest


def _written(trials: Sequence[BundledTrial], folder: Path) -> tuple[list[BundledAdapter], dict[str, str]]:
    """One try: the adapters, and why some of them may not be released."""
    try:
        made = export_bundle(ExportBundle(tuple(trials), str(folder), champion=trials[0].name))
    except DataProblem as problem:
        wrong: dict[str, str] = {}
        for finding in problem.findings:
            concerned = [trial.name for trial in trials if finding.where.startswith(f"{trial.name}: ")]
            name, found = "".join(concerned), f"{finding.where}: {finding.found}"
            wrong[name] = f"{wrong[name]}; {found}" if name in wrong else found
        return [], wrong
    except ExportError as error:
        return [], {"": str(error)}
    return made.adapters, {name: f"{name} {why}" for name, why in made.failures.items()}


def _in_words(wrong: Mapping[str, str]) -> str:
    return "; ".join(dict.fromkeys(wrong.values()))


def _trained(base: Base, spec: TrialSpec) -> Any:
    """The model in float32 as a graph is made of it: merged where the method merges, else with its parts beside the
    weights, and with values in the data's unit."""
    adapter = TrialPaths(Path(spec.dir)).adapter
    if METHODS[spec.method].merges:
        return merge(base, spec, adapter)
    model = load_adapter(base, spec, adapter).float()
    TASKS[spec.workload.task].fold_scale(model)
    return model


def _reference_rows(base: Base, rows: Tokens) -> npt.NDArray[np.float32]:
    """Torch's logits of the first rows, float32 [rows, labels], computed one row at a time."""
    return np.concatenate([_logits(base, rows, row) for row in range(min(REFERENCE_ROWS, len(rows)))])


def _reference_tokens(base: Base, rows: Tokens) -> npt.NDArray[np.float32]:
    """Torch's logits of the first rows' tokens, float32 [tokens, vocabulary or tags], computed one row at a time."""
    parts: list[npt.NDArray[np.float32]] = []
    for row in range(len(rows)):
        parts.append(_logits(base, rows, row)[0])
        if sum(len(part) for part in parts) >= REFERENCE_TOKENS:
            break
    return np.concatenate(parts)[:REFERENCE_TOKENS]


def _logits(base: Base, rows: Tokens, row: int) -> npt.NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        batch = collate(rows, [row], base.pad_id, torch.device("cpu"))
        logits: npt.NDArray[np.float32] = TASKS[base.workload.task].compared(base.model, batch).numpy()
    return logits


def _latency_p50_ms(base: Base, rows: Tokens, count: int) -> float:
    """Median time for one row, over the first `count` rows in turn; the variants are timed in the same way."""
    milliseconds = []
    for call in range(LATENCY_CALLS):
        began = time.perf_counter()
        _logits(base, rows, call % count)
        milliseconds.append((time.perf_counter() - began) * 1e3)
    return float(np.median(milliseconds))


def measure_all(request: MeasureAll) -> AllJudged:
    """Run the variants in onnxruntime in turns, each on as many validation rows as its verdict needs."""
    parent = Path(request.dir)
    folders = {variant: parent / variant for variant in request.variants}
    torch = Torch(parent / REFERENCE_RESULTS, parent / REFERENCE)
    return judge_in_turns(folders, Path(request.rows), torch, request.gate, request.threads)


def measure_variant(request: Measure) -> Measurement:
    """Run one variant in onnxruntime over the validation rows, and return its metrics, size and latency.

    Raises `ReleaseError` for a folder that cannot be loaded, and `ValueError` for a release that cannot answer.
    """
    folder = Path(request.dir, request.variant)
    reference = Path(request.dir, REFERENCE) if request.labels is None else None
    rows_file = None if request.rows_file is None else Path(request.rows_file)
    numbers = measure(
        folder, Path(request.rows), reference, threads=request.threads, labels=request.labels, rows_file=rows_file
    )
    own = ("size_mb", "load_seconds", "latency_p50_ms", "latency_p95_ms", "max_logit_diff", "tokens_per_second",
           "equal_answers", "compared_answers")  # fmt: skip
    compared = int(numbers.get("compared_answers", 0))
    return Measurement(
        variant=request.variant,
        metrics={name: value for name, value in numbers.items() if name not in own},
        max_logit_diff=numbers.get("max_logit_diff", float("nan")),
        size_mb=numbers["size_mb"],
        latency_p50_ms=numbers["latency_p50_ms"],
        latency_p95_ms=numbers["latency_p95_ms"],
        tokens_per_second=numbers.get("tokens_per_second"),
        agreement=Agreement(int(numbers["equal_answers"]), compared) if compared else None,
    )
