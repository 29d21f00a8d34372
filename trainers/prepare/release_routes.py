"""Which champions can be released, by task, architecture and method. No heavy imports.

The exporters use this table, and so do the checks before the first trial. It was measured on small random models of
every family (`tests/trainers/families.py`): each was exported, run by onnxruntime and compared with torch's logits.
"""

from __future__ import annotations

from trainers.protocol.catalog import METHODS, TASKS
from trainers.runtime.card import GENERATIVE

WRITING = frozenset(
    f"{family}ForCausalLM"
    for family in (
        "Gemma", "Gemma2", "Granite", "Llama", "Mistral", "Phi", "Phi3", "Qwen2", "Qwen3", "SmolLM3"
    )
)  # fmt: skip
"""Architectures of generative models whose graphs gave torch's logits and greedy tokens on small random models. The
builder's own list is longer, but for some of them its graph is wrong (OLMo) or cannot be built here (Gemma 3)."""


def why_unreleasable(task: str, architecture: str, method: str) -> str | None:
    """Why a champion can never be released, or None. `architecture` is the model's class, as `config.json` names it.

    Classifiers of every measured family could be released, so an unknown family is tried too.
    """
    if not TASKS[task].variants:
        return f"models of {task} cannot be released yet"
    if not METHODS[method].merges:
        return f"an adapter of method {method} cannot be merged into the model's weights"
    if task in GENERATIVE and architecture not in WRITING:
        return f"{architecture} has no ONNX export with a KV cache; these have one: {', '.join(sorted(WRITING))}"
    return None
