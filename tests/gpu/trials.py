"""Trials for the checks: tiny models with real data, larger ones with rows of chosen lengths, and their steps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import tiny
from trainers.data.tokens import Encoded, write_tokens
from trainers.model.load import load_base
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import METRICS, TASKS, canonical_settings, default_settings
from trainers.protocol.events import PreparedData
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload
from trainers.training.trainer import Trainer

VOCABULARY = 512
"""Of random rows: a small output embedding leaves time and memory to the layers."""
RATE = 2e-3


@dataclass(frozen=True)
class Prepared:
    """A workload with its data, ready for trials."""

    workload: Workload
    found: PreparedData

    def spec(self, folder: Path, device: str, *, method: str = "lora", precision: str = "fp32", examples: int = 1 << 16,
             **settings: Any) -> TrialSpec:  # fmt: skip
        """A trial in `folder`, at a constant rate and without dropout unless `settings` say otherwise."""
        task = self.workload.task
        chosen = {
            **default_settings(task, method), "learning_rate": RATE, "lr_scheduler_type": "constant",
            "warmup_ratio": 0.0, "max_length": self.workload.max_length, **settings,
        }  # fmt: skip
        metric = TASKS[task].metrics[0]
        return TrialSpec(
            0, replace(self.workload, precision=precision), method, canonical_settings(method, chosen), metric,
            METRICS[metric].direction, examples, examples, 0, "", 1, (device,), str(folder),
        )  # fmt: skip

    def trainer(self, spec: TrialSpec, refused: dict[str, str] | None = None) -> Trainer:
        """The trainer of a trial, on a base of its own; `refused`: shortcuts that it is not to use."""
        base = load_base(spec.workload, self.found.labels, scale=self.found.scale)
        base.refused_shortcuts = refused
        return Trainer(base, spec, Path(self.found.tokens_dir))


def tiny_encoder(folder: Path) -> Prepared:
    """A tiny BERT that learns to tell reviews apart."""
    tiny.encoder(folder / "encoder")
    rows = tiny.write_jsonl(folder / "reviews.jsonl", tiny.reviews(160))
    return prepared("text-classification", folder / "encoder", rows, folder)


def tiny_decoder(folder: Path) -> Prepared:
    """A tiny Llama that learns a chat."""
    tiny.decoder(folder / "decoder")
    rows = tiny.write_jsonl(folder / "chats.jsonl", tiny.chats(80))
    return prepared("chat", folder / "decoder", rows, folder)


def prepared(task: str, model: Path, rows: Path, folder: Path, columns: dict[str, str] | None = None) -> Prepared:
    """A workload on files, inspected."""
    data = DataRef(SourceRef(str(rows)), None, None, columns or dict(TASKS[task].columns), 16, 8, 0)
    workload = Workload(task, ModelRef(str(model)), data, 64, "fp32", str(folder / "cache"))
    return Prepared(workload, inspect(Inspect(workload)))


def llama_config(hidden: int, layers: int, heads: int, **changes: Any) -> Any:
    """The config of a Llama with random weights; 64 numbers a head where it has them."""
    from transformers import LlamaConfig

    given = {
        "vocab_size": VOCABULARY, "hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 4), "max_position_embeddings": 2048,
        "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **changes,
    }  # fmt: skip
    return LlamaConfig(**given)


def random_llama(
    folder: Path, hidden: int, layers: int, heads: int, lengths: Sequence[int], **changes: Any
) -> Prepared:
    """A Llama with random weights in a folder, and random rows of these lengths, of which everything is learned."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(llama_config(hidden, layers, heads, **changes)).save_pretrained(folder / "model")
    return random_rows(folder, lengths, str(folder / "model"), int(changes.get("vocab_size", VOCABULARY)))


def random_rows(folder: Path, lengths: Sequence[int], model: str, vocabulary: int = VOCABULARY) -> Prepared:
    """A workload of random rows of these lengths, as if they had been tokenized; the last 16 of them validate."""
    generator = np.random.default_rng(0)
    rows = [Encoded(generator.integers(3, vocabulary, n).tolist(), [1] * n, None, 4 * n) for n in lengths]
    splits = {"train": rows[:-16], "validation": rows[-16:], "test": rows[-16:]}
    write_tokens(folder / "tokens", splits, {name: [{} for _ in kept] for name, kept in splits.items()})
    data = DataRef(SourceRef(str(folder)), None, None, dict(TASKS["causal-lm"].columns), 16, 16, 0)
    workload = Workload("causal-lm", ModelRef(model), data, max(lengths), "fp32", str(folder / "cache"))
    found = PreparedData(
        {name: len(kept) for name, kept in splits.items()}, [], str(folder / "tokens"), model, "", "", 0, 0,
        sum(lengths), 1, [], family="decoder",
    )  # fmt: skip
    return Prepared(workload, found)


def why_no_checkpointing() -> str | None:
    """Why activations cannot be computed twice; None where they can."""
    import transformers

    if hasattr(transformers.PreTrainedModel, "activation_checkpointing_enable"):
        return None
    return f"transformers {transformers.__version__} has no activation_checkpointing_enable"


def losses(trainer: Trainer, steps: int) -> list[float]:
    """Of so many steps."""
    return [trainer.step(rows)[0] for rows in itertools.islice(trainer.batches, steps)]


def furthest(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Largest difference of two lists, as a share of the second one."""
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(ours, theirs, strict=True))


def finished(device: str) -> None:
    """Wait until all that was asked of a device is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_mb(device: str) -> float:
    """Most memory that tensors of this process have taken since the last `reset_peak`, in MB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device != "cpu" else 0.0


def reset_peak(device: str) -> None:
    """Give back what is not used, and count from here."""
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def usage_of(spec: TrialSpec) -> list[dict[str, Any]]:
    """The samples that a trial has left of what it used."""
    from trainers.protocol.files import TrialPaths

    file = TrialPaths(Path(spec.dir)).usage
    return [json.loads(text) for text in file.read_text().splitlines() if text] if file.exists() else []
