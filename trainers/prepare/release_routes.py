"""Which champions can be released, by task, architecture and method, and by which routes. No heavy imports.

The exporters use this table, and so do the checks before the first trial. It was measured on small random models of
every family (`tests/trainers/families.py`): each was exported, run by onnxruntime and compared with torch's logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainers.protocol import variants
from trainers.protocol.catalog import METHODS
from trainers.runtime.card import CLASSIFYING, GENERATIVE, REWRITING, SIMILARITY


def _causal(*families: str) -> frozenset[str]:
    return frozenset(f"{family}ForCausalLM" for family in families)


_BUILT = _causal("Gemma", "Gemma2", "Granite", "Llama", "Mistral", "Phi", "Phi3", "Qwen2", "Qwen3", "SmolLM3")
"""The builder's own list is longer, but for some its graph is wrong (OLMo) or cannot be built here (Gemma 3)."""
_TRACED = _causal("Gemma2", "GPTNeoX", "Llama", "Mistral", "OPT", "Phi3", "Qwen3", "SmolLM3") | {"GPT2LMHeadModel"}
_REWRITING = frozenset({"BartForConditionalGeneration", "T5ForConditionalGeneration"})


@dataclass(frozen=True)
class Route:
    """A way from a trained model to a graph."""

    name: str
    tasks: tuple[str, ...]
    made: variants.Variants
    """The variants that it makes."""
    architectures: frozenset[str] | None = None
    """Classes of models, as `config.json` names them; None for any that the task can train."""
    unmerged: tuple[str, ...] = ()
    """Methods that do not merge, but whose parts can stay beside the weights in this graph."""
    appends_cache: bool = False
    """Whether its graph gives back a longer cache, instead of writing into the one that it is given."""
    takes_adapters: bool = False
    """Whether its graph can have the weights of adapters as inputs."""

    def takes(self, task: str, architecture: str) -> bool:
        """Whether it is for models of this task and class."""
        return task in self.tasks and (self.architectures is None or architecture in self.architectures)

    def takes_method(self, method: str) -> bool:
        """Whether it is for what this method trains."""
        return METHODS[method].merges or method in self.unmerged


ROUTES = (
    Route("builder", GENERATIVE, variants.WRITING, _BUILT),
    Route("traced decoder", GENERATIVE, variants.WRITING, _TRACED, ("adapter", "prompt", "prefix"), True, True),
    Route("traced encoder", CLASSIFYING, variants.READING, None, ("adapter",), takes_adapters=True),
    Route("traced embedding", (SIMILARITY,), variants.READING, None, ("adapter",), takes_adapters=True),
    Route("traced encoder-decoder", (REWRITING,), variants.REWRITING, _REWRITING, ("adapter",), True),
)
"""All routes, in the order in which they are tried: the first whose graph has torch's numbers is used."""


def routes(task: str, architecture: str, method: str) -> list[Route]:
    """The routes to try for a champion, in order; empty where none can release it."""
    return [route for route in ROUTES if route.takes(task, architecture) and route.takes_method(method)]


def why_unreleasable(task: str, architecture: str, method: str) -> str | None:
    """Why a champion can never be released, or None. `architecture` is the model's class, as `config.json` names it."""
    if routes(task, architecture, method):
        return None
    if any(route.takes(task, architecture) for route in ROUTES):
        return f"no route to ONNX keeps what method {method} trains beside the weights of {architecture}"
    known = sorted({name for route in ROUTES if task in route.tasks for name in route.architectures or ()})
    return f"{architecture} has no ONNX export with a KV cache; these have one: {', '.join(known)}"


def adapter_route(task: str, architecture: str, method: str) -> Route | None:
    """The route whose graph takes what the method trains as an adapter beside the base; None where there is none."""
    fitting = [route for route in routes(task, architecture, method) if route.takes_adapters]
    return fitting[0] if fitting and METHODS[method].is_beside else None


def why_no_adapter(task: str, architecture: str, method: str) -> str | None:
    """Why a champion can never be released as an adapter beside its base, or None."""
    if adapter_route(task, architecture, method):
        return None
    if not METHODS[method].is_beside:
        able = ", ".join(name for name, known in METHODS.items() if known.is_beside)
        return f"method {method} is not expressed as thin matrices beside the base; these are: {able}"
    return why_unreleasable(task, architecture, method) or f"no graph of {architecture} takes adapters for {task}"
