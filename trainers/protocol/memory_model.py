"""What a trial needs of memory, as a function of its rank, the rows of a forward pass and their lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trainers.protocol.settings import Setting

SIZES = ("lora_r", "adapter_size", "num_virtual_tokens")
"""Settings that a method's number of parameters grows with; a method reads one of them at most."""
MOST_WHOLE = 0.6
"""Share of a GPU's memory that weights may take before `shard: auto` spreads them over a trial's GPUs: activations,
gradients and the optimizer need room, too. A rule of thumb, not measured."""


Layout = Literal["padded", "apart", "packed"]
"""How rows stand in a forward pass: padded to the longest one, each with its own tokens alone, or as one sequence."""


@dataclass(frozen=True)
class Rows:
    """What decides how much one forward pass keeps."""

    tokens: int
    """With the padding that is computed."""
    squares: int
    """Pairs of tokens whose attention may be kept."""

    @classmethod
    def of(cls, lengths: Sequence[int], layout: Layout) -> Rows:
        """Of rows with these lengths."""
        if layout == "padded":
            longest = max(lengths)
            return cls(len(lengths) * longest, len(lengths) * longest**2)
        tokens = sum(lengths)
        return cls(tokens, tokens**2 if layout == "packed" else sum(length**2 for length in lengths))


@dataclass(frozen=True)
class Activations:
    """What a forward and a backward pass need beside the state of a trial, in MiB."""

    mb_per_token: float
    mb_per_square: float

    def needed_mb(self, rows: Rows) -> float:
        """Of one pass over these rows."""
        return self.mb_per_token * rows.tokens + self.mb_per_square * rows.squares


@dataclass(frozen=True)
class MemoryModel:
    """Coefficients that a few steps of one trial gave; in MiB. On a CPU without the base model that all trials share.

    It holds for trials that differ in size, rows and lengths alone, and rather too much for sizes below its own: what
    activations have of the size is not taken apart.
    """

    fixed_mb: float
    """What does not depend on any of them: on a GPU the frozen base model, and the process there."""
    build_mb: float
    """At most while the model is made trainable; then this is free again."""
    parameters: int
    """Trained, at `size`."""
    parameters_per_size: float
    size: int
    """What `size_of` gives for the settings that were measured; 0 for a method without such a setting."""
    bytes_per_parameter: float
    """Weight, gradient and optimizer state."""
    saving_bytes_per_parameter: float
    """While a checkpoint is written, beside those."""
    evaluation_mb: float
    """Of the largest evaluation batch."""
    kept: Activations
    recomputed: Activations | None
    """The same with `gradient_checkpointing`; None for a model that cannot."""
    layout: Layout
    lengths: list[int] = field(default_factory=list)
    """Tokens of training rows, from the shortest to the longest; of many rows, evenly spread ones."""
    summing_mb: float = 0.0
    """While gradients are added up over several devices, beside those."""

    def needed_mb(self, settings: Mapping[str, Setting], rows: Rows, devices: int = 1) -> float | None:
        """Of each device of a trial with these settings whose largest forward pass has these rows; None where it is not
        known. Every device has all that is trained, its gradients and its optimizer; none is sharded."""
        activations = self.recomputed if settings["gradient_checkpointing"] else self.kept
        if activations is None:
            return None
        trained = self.parameters - (self.size - size_of(settings)) * self.parameters_per_size
        saving = trained * self.saving_bytes_per_parameter / (1 << 20)
        state = trained * self.bytes_per_parameter / (1 << 20)
        passing = max(activations.needed_mb(rows), self.evaluation_mb, saving)
        if devices > 1:
            passing = max(passing, self.summing_mb)
        return max(self.build_mb, self.fixed_mb + state + passing)


def size_of(settings: Mapping[str, Setting]) -> int:
    """The rank, or what a method has in place of one; 0 where it has none."""
    return max((int(settings[name] or 0) for name in SIZES if name in settings), default=0)
