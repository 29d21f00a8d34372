"""Answers `Export`, `MeasureAll` and `Measure`: writes a merged model as ONNX variants and measures them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainers.data.tokens import Tokens
from trainers.export.in_turns import Torch, judge_in_turns
from trainers.export.measure import LATENCY_CALLS, measure
from trainers.export.release import ExportError, ModelInterface, ModelParts, write_release
from trainers.model.base import Base
from trainers.model.load import load_adapter, merge
from trainers.protocol.catalog import METHODS
from trainers.protocol.events import AllJudged, Exported, Measurement
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Export, Measure, MeasureAll
from trainers.protocol.trial_spec import Workload
from trainers.runtime.card import CLASSIFYING, GENERATIVE
from trainers.tasks.instruct import answer_template
from trainers.tasks.table import TASKS
from trainers.training.batches import collate

REFERENCE = "torch_logits.npy"
REFERENCE_RESULTS = "torch_rows.npy"
REFERENCE_ROWS = 64
REFERENCE_TOKENS = 512


def export(base: Base, request: Export) -> Exported:
    """Merge the adapter in float32, write every variant that can be exported, and compute torch's metrics.

    A variant that cannot be exported is in `failures` of the answer, with the reason.
    """
    from trainers.model.source import load_tokenizer
    from trainers.training.evaluation import score_model

    began = time.monotonic()
    out_dir = Path(request.dir)
    out_dir.mkdir(parents=True)
    workload = request.spec.workload
    tokens_dir = Path(request.inspection.tokens_dir)
    adapter = TrialPaths(Path(request.spec.dir)).adapter
    merges = METHODS[request.spec.method].merges
    base.model = (merge if merges else load_adapter)(base, request.spec, adapter)
    tokenizer = load_tokenizer(Path(request.inspection.model_dir), workload.model.trust_remote_code)
    done, failures = [], {}
    for variant in request.variants:
        try:
            if not merges:
                raise ExportError(f"an adapter of method {request.spec.method} cannot be merged into the base model")
            _write_variant(base, tokenizer, request, out_dir, variant)
            done.append(variant)
        except ExportError as error:
            failures[variant] = str(error)
    targets = TASKS[workload.task].targets
    validation = Tokens(tokens_dir, "validation", targets)
    reference = _reference_rows if targets == "row" else _reference_tokens
    np.save(out_dir / REFERENCE, reference(base, validation), allow_pickle=False)
    timed_rows = 1 if workload.task in GENERATIVE else len(validation)
    latency_p50_ms = _latency_p50_ms(base, validation, timed_rows)
    metrics, results = score_model(base, tokens_dir, "cpu", precision="fp32")
    np.save(out_dir / REFERENCE_RESULTS, results, allow_pickle=False)
    return Exported(metrics, done, failures, time.monotonic() - began, latency_p50_ms)


def _write_variant(base: Base, tokenizer: object, request: Export, out_dir: Path, variant: str) -> None:
    """Write one self-contained release folder. Raises `ExportError`."""
    workload = request.spec.workload
    from trainers.export.decoder import export_decoder
    from trainers.export.encoder import export_encoder

    folder = out_dir / variant
    if workload.task in GENERATIVE:
        fp32_dir = out_dir / "fp32"
        export_decoder(base.model, tokenizer, folder, variant, fp32_dir if fp32_dir.exists() else None)  # type: ignore[arg-type]  # checked by it
    else:
        export_encoder(base.model, tokenizer, folder, variant)  # type: ignore[arg-type]  # checked by it
    parts = ModelParts(tokenizer, base.model.config, getattr(base.model, "generation_config", None))
    write_release(folder, variant, _interface(base, workload, request.inspection.max_length), parts)


def _interface(base: Base, workload: Workload, cut_at: int | None) -> ModelInterface:
    """The inputs and answers of a release; `cut_at` is where prepared texts were cut, in tokens."""
    if workload.task in CLASSIFYING:
        columns = [role for role in ("text", "text_pair") if role in workload.data.columns]
        return ModelInterface(workload.task, base.labels, cut_at or workload.max_length, columns)
    context = int(base.model.config.max_position_embeddings)
    if workload.task != "instruct":
        return ModelInterface(workload.task, base.labels, context)
    template = answer_template(workload.data.columns)
    return ModelInterface(
        workload.task, base.labels, context, template.columns, template.before, template.after, template.is_followed
    )


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
        inputs = collate(rows, [row], base.pad_id, torch.device("cpu")).inputs
        logits: npt.NDArray[np.float32] = base.model(**inputs).logits.numpy()
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
    own = ("size_mb", "load_seconds", "latency_p50_ms", "latency_p95_ms", "max_logit_diff", "tokens_per_second")
    return Measurement(
        variant=request.variant,
        metrics={name: value for name, value in numbers.items() if name not in own},
        max_logit_diff=numbers.get("max_logit_diff", float("nan")),
        size_mb=numbers["size_mb"],
        latency_p50_ms=numbers["latency_p50_ms"],
        latency_p95_ms=numbers["latency_p95_ms"],
        tokens_per_second=numbers.get("tokens_per_second"),
    )
