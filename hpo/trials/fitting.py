"""What fits into memory: a trial's micro-batch, whether it computes activations twice, and what cannot fit. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hpo.config.sweep_config import SweepConfig
from hpo.results.left_out import NotTried
from hpo.trials.slots import MARGIN, sharing_a_memory
from trainers.protocol.memory_model import Layout, MemoryModel, Rows
from trainers.protocol.settings import ALIASES, Setting
from trainers.protocol.trial_spec import MOST_HALVINGS, TrialSpec, rows_at_once

FEW = 4
"""Rows at a time: fewer cost a CPU more than computing activations twice (`tests/bench/training.md`)."""
MOST_DRAWN = 1 << 14
"""Rows drawn to find the largest pass of a trial."""
FREE = ("micro_batch_size", "gradient_checkpointing")
"""What is chosen for memory, where the file says nothing."""
KIND = (
    "target_modules", "rank_pattern", "modules_to_save", "init_lora_weights", "quantization", "optim", "packing",
    "gradient_checkpointing",
)  # fmt: skip
"""Settings that a trial shares with the one that its model was measured on."""
Kind = tuple[Setting, ...]


def free_settings(config: SweepConfig) -> frozenset[str]:
    """Which settings of memory the file leaves open, by whatever name."""
    names = {a.name: a.canonical for a in ALIASES.values()} | {name: name for name in FREE}
    written = {names.get(key[-1]) for key in config.written.lines if key[:1] == ("training",)}
    return frozenset(name for name in FREE if name not in written)


def kind_of(spec: TrialSpec) -> Kind:
    """What decides which trials have one model of memory."""
    settings = spec.settings
    drops = float(settings.get("lora_dropout") or 0) > 0  # its inputs are kept twice then
    return (spec.method, drops, *(settings.get(name) for name in KIND))


@dataclass(frozen=True)
class Way:
    """One way to train a trial, and what it needs."""

    micro_batch_size: int
    recomputes: bool
    """Whether activations are computed twice instead of kept."""
    needs_mb: float
    """Of all its processes together; on GPUs of one, for each of them has its own."""


@dataclass(frozen=True)
class Fitting:
    """How trials fit into memory; without models, they run as the file says."""

    models: Mapping[Kind, MemoryModel] = field(default_factory=dict)
    limit_mb: float = 0.0
    """Of all trials that run at a time; on GPUs of those on one."""
    at_a_time: int = 1
    impossible: frozenset[Kind] = frozenset()
    """Kinds of which the smallest trial ran out of memory alone, before it had taken a single short row."""
    free: frozenset[str] = frozenset(FREE)
    """Those settings of `FREE` that the file leaves open."""

    def fitted(self, spec: TrialSpec) -> TrialSpec:
        """The same trial in the cheapest way that fits: its numbers and its fingerprint stay."""
        way = self.way(spec)
        if way is None:
            return spec
        chosen: dict[str, Setting] = {"gradient_checkpointing": way.recomputes}
        if way.micro_batch_size < _rows_at_a_time(spec):
            chosen["micro_batch_size"] = way.micro_batch_size
        return replace(spec, settings={**spec.settings, **chosen})

    def way(self, spec: TrialSpec) -> Way | None:
        """The cheapest that fits beside the others; where none does, what needs least. None where nothing is known."""
        ways = list(self.ways(spec, self.free))
        fitting = (way for way in ways if self.is_sure(way, self.limit_mb / self.at_a_time))
        return next(fitting, min(ways, key=lambda way: way.needs_mb, default=None))

    def is_sure(self, way: Way, room_mb: float) -> bool:
        """Whether a trial fits even if it needs more than its model says."""
        return way.needs_mb * MARGIN <= room_mb

    def refuse(self, spec: TrialSpec) -> NotTried | None:
        """What a trial needs that cannot fit: not alone, not one row at a time, not with less than its model says."""
        if kind_of(spec) in self.impossible:
            return NotTried({}, None, self.limit_mb)
        model = self.models.get(kind_of(spec))
        if model is None:
            return None
        # Where memory runs out, any micro-batch is halved, and what an evaluation takes at a time too.
        free, halved = self.free | {"micro_batch_size"}, model.evaluation_mb / (1 << MOST_HALVINGS)
        least = min((way.needs_mb for way in _ways(replace(model, evaluation_mb=halved), spec, free)), default=0.0)
        return NotTried({}, least, self.limit_mb) if least / MARGIN > self.limit_mb else None

    def ways(self, spec: TrialSpec, free: frozenset[str]) -> Iterator[Way]:
        """From the cheapest to what needs least: smaller passes, then activations twice, then both with few rows."""
        model = self.models.get(kind_of(spec))
        return iter(()) if model is None else _ways(model, spec, free)


def _ways(model: MemoryModel, spec: TrialSpec, free: frozenset[str]) -> Iterator[Way]:
    usual, recomputes = _rows_at_a_time(spec), bool(spec.settings["gradient_checkpointing"])
    sizes = [usual]
    while sizes[-1] > 1 and "micro_batch_size" in free:
        sizes.append(sizes[-1] // 2)
    both = [False, True] if "gradient_checkpointing" in free and not recomputes else [recomputes]
    for few in (False, True):
        for twice in both:
            for size in sizes:
                if (size < min(FEW, usual)) is few:
                    needs = _needs_mb(model, spec, size, recomputes=twice)
                    if needs is not None:
                        yield Way(size, twice, needs)


def _rows_at_a_time(spec: TrialSpec) -> int:
    batch = int(spec.settings["batch_size"] or 1)
    return rows_at_once(batch, min(int(spec.settings["micro_batch_size"] or 1), batch), len(spec.devices))


def _needs_mb(model: MemoryModel, spec: TrialSpec, micro_batch_size: int, *, recomputes: bool) -> float | None:
    longest = int(spec.settings["max_length"] or 1)
    lengths = tuple(min(length, longest) for length in model.lengths)
    batch = int(spec.settings["batch_size"] or 1)
    rows = largest_pass(lengths, model.layout, batch, micro_batch_size, spec.max_examples)
    settings: dict[str, Setting] = {**spec.settings, "gradient_checkpointing": recomputes}
    of_each = model.needed_mb(settings, rows, len(spec.devices))
    return None if of_each is None else of_each * sharing_a_memory(spec.devices)


@lru_cache(maxsize=4096)
def largest_pass(lengths: tuple[int, ...], layout: Layout, batch: int, micro: int, examples: int) -> Rows:
    """The largest forward pass of a trial, as far as chance has it: the longest rows of a batch go together."""
    chance, tokens, squares = random.Random(0), 0, 0  # noqa: S311  # a repeatable draw, not a secret
    for _ in range(max(1, min(examples, MOST_DRAWN) // batch)):
        drawn = chance.sample(lengths, batch) if batch <= len(lengths) else chance.choices(lengths, k=batch)
        rows = Rows.of(sorted(drawn)[-micro:], layout)
        tokens, squares = max(tokens, rows.tokens), max(squares, rows.squares)
    return Rows(tokens, squares)
