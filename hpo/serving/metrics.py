"""Counts and times of the models, as text for Prometheus; the names are vLLM's where it has one."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """How many seconds something took."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Count one time."""
        with self._lock:
            self._counts[bisect.bisect_left(_SECONDS, seconds)] += 1
            self._sum += seconds

    def lines(self, name: str, model: str) -> Iterator[str]:
        """Lines of Prometheus's text."""
        with self._lock:
            counts, total = list(itertools.accumulate(self._counts)), self._sum
        for bound, count in zip([*map(str, _SECONDS), "+Inf"], counts, strict=True):
            yield f'{name}_bucket{{model_name="{model}",le="{bound}"}} {count}'
        yield f'{name}_sum{{model_name="{model}"}} {total:.6f}'
        yield f'{name}_count{{model_name="{model}"}} {counts[-1]}'


@dataclass
class Meter:
    """What one model has done. Each counter has one writer at a time: a thread of the worker, or the event loop."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    batches: int = 0
    prefix_tokens: int = 0
    """Tokens of prompts that were in the cache already."""
    running: int = 0
    """Inputs or answers that are being computed."""
    waiting: int = 0
    """Answers that wait for a row."""
    held: int = 0
    """Inputs that have a place in the queue of a model that judges; those that are being computed have one too."""
    refused: int = 0
    """Requests that found the queue full."""
    finished: dict[str, int] = field(default_factory=dict)
    """Answers by the reason for their end."""
    first_token: Histogram = field(default_factory=Histogram)
    between_tokens: Histogram = field(default_factory=Histogram)
    whole: Histogram = field(default_factory=Histogram)

    @property
    def queued(self) -> int:
        """Inputs or answers that wait."""
        return self.waiting + max(0, self.held - self.running)

    def finish(self, reason: str, seconds: float) -> None:
        """Count an answer."""
        self.finished[reason] = self.finished.get(reason, 0) + 1
        self.whole.add(seconds)


_PLAIN = {
    "prompt_tokens": ("counter", "vllm:prompt_tokens_total", "Tokens of inputs."),
    "generation_tokens": ("counter", "vllm:generation_tokens_total", "Tokens written."),
    "prefix_tokens": ("counter", "vllm:prefix_cache_hits_total", "Tokens of prompts found in the cache."),
    "running": ("gauge", "vllm:num_requests_running", "Inputs or answers that are being computed."),
    "queued": ("gauge", "vllm:num_requests_waiting", "Inputs or answers that wait."),
    "batches": ("counter", "hpo:batches_total", "Calls of the graph."),
    "refused": ("counter", "hpo:requests_refused_total", "Requests that found the queue full."),
}
_TIMES = {
    "first_token": ("vllm:time_to_first_token_seconds", "From a request to its first token."),
    "between_tokens": ("vllm:inter_token_latency_seconds", "Between two tokens of an answer."),
    "whole": ("vllm:e2e_request_latency_seconds", "From a request to the end of its answer."),
}


def label_value(text: str) -> str:
    """A text as the value of a label."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def exposition(meters: Mapping[str, Meter]) -> str:
    """The text that Prometheus reads; `meters` by model."""
    quoted = {label_value(name): meter for name, meter in meters.items()}
    lines = []
    for attribute, (kind, name, text) in _PLAIN.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f'{name}{{model_name="{model}"}} {getattr(meter, attribute)}' for model, meter in quoted.items()]
    name = "vllm:request_success_total"
    lines += [f"# HELP {name} Answers by the reason for their end.", f"# TYPE {name} counter"]
    for model, meter in quoted.items():
        for reason, count in sorted(meter.finished.copy().items()):
            lines.append(f'{name}{{model_name="{model}",finished_reason="{reason}"}} {count}')
    for attribute, (name, text) in _TIMES.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        for model, meter in quoted.items():
            lines += getattr(meter, attribute).lines(name, model)
    return "\n".join(lines) + "\n"
