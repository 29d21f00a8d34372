"""onnxruntime's session options: the defaults that were measured to be safe, and a release's own where they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .card import GENERATIVE, REWRITING, Card
from .cores import usable_cores
from .overflow import products_overflow

if TYPE_CHECKING:
    import onnxruntime as ort

SLOWER_FUSIONS = ("SkipLayerNormFusion",)
"""Passes of onnxruntime's that join operators into one that takes longer than they do."""
MOST_CALLS = 4
"""At once, of one graph: each needs memory for its activations."""


def calls_at_once(card: Card) -> int:
    """How many calls of the graph a server makes at once, where texts of several requests wait.

    Two calls of one thread each answer more texts than one call of two threads, which wait for each other after every
    operator (MiniLM int8, 2 cores: 1.2 to 1.9 times as many). Models that write answer all requests in one call.
    """
    one = card.task in (*GENERATIVE, REWRITING) or card.target == "cuda"
    return 1 if one else min(usable_cores(), MOST_CALLS)


def session_options(threads: int | None, tuned: Mapping[str, Any], calls: int | None = None) -> ort.SessionOptions:
    """Options for `threads` cores, by default all that this process may use.

    `tuned` are a card's; they are used only where the cores are as many as when they were measured. They were measured
    alone: where a server makes so many `calls` at once, threads that wait for others sleep, whatever was faster then,
    and a call has one thread where there is a call for each core.
    """
    import onnxruntime as ort

    cores = threads or usable_cores()
    chosen = tuned if tuned.get("cores") == cores else {}
    options = ort.SessionOptions()
    # Always a number: by default onnxruntime counts the machine's cores, not the container's.
    options.intra_op_num_threads = 1 if 1 < cores == calls else int(chosen.get("threads", cores))
    options.graph_optimization_level = {
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[chosen.get("level", "all")]
    options.enable_cpu_mem_arena = bool(chosen.get("arena", True))
    # With threads that wait in a busy loop, answers took twice as long when another process used the cores.
    spins = bool(chosen.get("spinning", False)) and calls is None
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    # Where products of uint8 and int8 overflow, the same int8 release gave different answers on different machines:
    # this selects kernels that do not. Elsewhere they give the same numbers, but take up to ten times as long.
    options.add_session_config_entry("session.x64quantprecision", str(int(products_overflow())))
    options.log_severity_level = 4  # errors are raised as exceptions: do not print them too
    return options


def providers(target: str) -> list[str]:
    """The execution providers of onnxruntime for a card's target; without a GPU, those of the CPU."""
    import onnxruntime as ort

    wanted = ["CUDAExecutionProvider"] if target == "cuda" else []
    return [*(name for name in wanted if name in ort.get_available_providers()), "CPUExecutionProvider"]
