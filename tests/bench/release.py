"""Released variants against torch, in turns in one process: MiniLM's latencies and F1, SmolLM2's tokens a second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from tests.bench.promotion import Promotable, promotable
from tests.bench.tables import Row
from trainers.export.measure import measure
from trainers.export.promotion import _trained
from trainers.model.load import load_base
from trainers.runtime.release import Release

THREADS = 2
TURNS = 9
EXAMPLES = {"movie-sentiment": 1600, "smollm2-chat": 64}
"""Of the training: a classifier that has learned its task, and a writer with an adapter that is not nothing."""
SHAPES = {(1, 32): 0.25, (8, 64): 0.45, (32, 128): 0.60}
"""Texts and tokens of each -> the largest share of torch's time."""
LEAST_POINTS = "-1"
PERPLEXITY_RATIO, LEAST_SPEED = 1.02, 4.0
TOKENS = 48

Timed = Mapping[str, Callable[[], object]]


def rows() -> list[Row]:
    torch.set_num_threads(THREADS)
    found = []
    for name, of in (("movie-sentiment", _reading), ("smollm2-chat", _writing)):
        with tempfile.TemporaryDirectory() as folder, promotable(name, Path(folder), EXAMPLES[name]) as given:
            found += of(given)
    return found


def _reading(given: Promotable) -> list[Row]:
    model, releases = _model(given), _releases(given)
    lines = []
    for (texts, tokens), bound in SHAPES.items():
        ids = np.random.default_rng(0).integers(1000, 20_000, (texts, tokens))
        took = _in_turns({
            "torch": _torch_call(model, ids),
            **{variant: _session_call(release, ids) for variant, release in releases.items()},
        })  # fmt: skip
        lines += [_ratio_row(f"MiniLM {texts}x{tokens}, {v}: p50 of torch's", took, v, bound) for v in releases]
    torchs = given.exported.metrics["f1_macro"]
    for variant, metrics in _metrics(given).items():
        points = 100 * (metrics["f1_macro"] - torchs)
        lines.append(Row(f"MiniLM, {variant}: points of F1 over torch's {torchs:.4f}", f"{points:+.2f}", LEAST_POINTS))
    return lines


def _writing(given: Promotable) -> list[Row]:
    model, releases = _model(given), _releases(given)
    prompt = list(range(1000, 1100))
    took = _in_turns({
        "torch": lambda: _generate(model, prompt),
        **{variant: _decoder_call(release, prompt) for variant, release in releases.items()},
    })  # fmt: skip
    perplexity = {variant: metrics["perplexity"] for variant, metrics in _metrics(given).items()}
    torchs = given.exported.metrics["perplexity"]
    lines = []
    for variant in releases:
        faster = float(np.median([a / b for a, b in zip(took["torch"], took[variant], strict=True)]))
        ratio = perplexity[variant] / torchs
        lines.append(Row(f"SmolLM2, {variant}: tokens a second, times torch's; perplexity ratio",
                         f"{faster:.1f}; {ratio:.3f}", f"at least {LEAST_SPEED:g}; {PERPLEXITY_RATIO}"))  # fmt: skip
    return lines


def _ratio_row(what: str, took: Mapping[str, list[float]], variant: str, bound: float) -> Row:
    ratio = float(np.median([a / b for a, b in zip(took[variant], took["torch"], strict=True)]))
    return Row(what, f"{ratio:.2f} ({np.median(took[variant]) * 1e3:.1f} ms)", f"{bound:.2f}")


def _in_turns(calls: Timed) -> dict[str, list[float]]:
    """Seconds of a call, median within each turn; the first turn warms up."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(TURNS + 1):
        for name, call in calls.items():
            call()
            times: list[float] = []
            began = time.perf_counter()
            while not times or (len(times) < 20 and time.perf_counter() - began < 0.3):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            if turn:
                took[name].append(float(np.median(times)))
    return took


def _model(given: Promotable) -> torch.nn.Module:
    base = load_base(given.spec.workload, given.data.labels, scale=given.data.scale)
    return _trained(base, given.spec).eval()


def _releases(given: Promotable) -> dict[str, Release]:
    return {variant: Release.load(given.out / variant, THREADS) for variant in given.exported.variants}


def _metrics(given: Promotable) -> dict[str, dict[str, float]]:
    return {
        variant: measure(given.out / variant, given.validation, threads=THREADS, latency_calls=1)
        for variant in given.exported.variants
    }


def _torch_call(model: torch.nn.Module, ids: np.ndarray) -> Callable[[], object]:
    given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.int64)}

    def call() -> object:
        with torch.inference_mode():
            return model(**given).logits

    return call


def _session_call(release: Release, ids: np.ndarray) -> Callable[[], object]:
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feed = {value.name: known[value.name] for value in release.session.get_inputs()}
    return lambda: release.session.run(["logits"], feed)


def _decoder_call(release: Release, prompt: list[int]) -> Callable[[], object]:
    return lambda: list(release.greedy_tokens(prompt, TOKENS))  # type: ignore[attr-defined]  # a `Writer`


def _generate(model: torch.nn.Module, prompt: list[int]) -> object:
    ids = torch.tensor([prompt])
    lengths = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    return model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **lengths)
