"""Which champions can be released, by task, architecture and method: one table, for the exporters and for the look
before the first trial. No heavy imports.

Measured on small random models of every family (`tests/trainers/families.py`): exported, run by onnxruntime, compared
with torch's logits.
"""

from __future__ import annotations

from trainers.protocol.catalog import METHODS, TASKS
from trainers.runtime import GENERATIVE

WRITING = frozenset(
    f"{family}ForCausalLM"
    for family in (
        "Gemma", "Gemma2", "Granite", "Llama", "Mistral", "Phi", "Phi3", "Qwen2", "Qwen3", "SmolLM3"
    )
)  # fmt: skip
"""Architectures that write, whose graphs gave torch's logits and greedy tokens on small random models. The builder's
list is longer, but it does not raise where it is wrong (OLMo), or writes what does not build here (Gemma 3)."""


def why_unreleasable(task: str, architecture: str, method: str) -> str | None:
    """Why a champion can never be released, or None. `architecture` is the model's class, as `config.json` names it.

    What judges is released from every family that was measured, so that an unknown one is tried.
    """
    if not TASKS[task].variants:
        return f"models of {task} are not released yet"
    if not METHODS[method].merges:
        return f"what method {method} learns cannot be folded into the model's weights"
    if task in GENERATIVE and architecture not in WRITING:
        return f"{architecture} has no ONNX export with a KV cache; these have one: {', '.join(sorted(WRITING))}"
    return None
