"""What pruning saves and costs: 24 MiniLM points with and without it, and the two chosen points over three seeds."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.makespan import ROOT, prepared_home, show, sweep, timed
from tests.bench.tables import Row
from tests.bench.turns import in_turns

SEEDS = 3
EVALUATIONS = 10
COUNT = 24


def rows(examples: int) -> list[Row]:
    """`examples` per trial."""
    points = spread(COUNT)
    pruners: dict[str, dict[str, Any]] = {
        "without": {"type": "none"}, "with": {"type": "percentile", "percentile": 10, "min_fraction": 0.1},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ended = in_turns({name: command(folder, name, points, examples, p) for name, p in pruners.items()}, ROOT)
        shown = {name: show(folder / name, "makespan") for name in pruners}
        repeats = {"without": repeat(folder, "without", shown["without"], examples)}
        is_same = shown["with"]["champion"]["params"] == shown["without"]["champion"]["params"]
        repeats["with"] = repeats["without"] if is_same else repeat(folder, "with", shown["with"], examples)
    stopped = sum(trial["state"] == "pruned" for trial in shown["with"]["trials"])
    return [
        Row("24 points without pruning", f"{ended['without'].seconds:.0f} s"),
        Row(f"24 points, the best 10 % kept ({stopped} pruned)", f"{ended['with'].seconds:.0f} s"),
        Row("with against without", f"{ended['with'].seconds / ended['without'].seconds:.2f}", "0.35"),
        Row("chosen without: mean macro-F1 of 3 seeds", f"{repeats['without']:.4f}"),
        Row("chosen with: mean macro-F1 of 3 seeds", f"{repeats['with']:.4f}"),
        Row("lost by pruning", f"{repeats['without'] - repeats['with']:+.4f}", "0.01"),
    ]


def spread(count: int) -> list[dict[str, Any]]:
    """Evenly spread points, as the strategy `qmc` gives them."""
    from hpo.config.dimensions import Choice, Float, Int
    from hpo.config.space import SearchSpace
    from hpo.config.strategy import spread_point

    space = SearchSpace(
        {"learning_rate": Float(1e-5, 1e-2, True), "lora_r": Int(4, 64, True), "batch_size": Choice((8, 16, 32))}
    )
    return [spread_point(space, index, 0) for index in range(count)]


def command(folder: Path, name: str, points: list[dict[str, Any]], examples: int, pruner: dict[str, Any]) -> list[str]:
    home = prepared_home(folder / name)
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(sweep(points, examples, EVALUATIONS, pruner=pruner)))
    return [sys.executable, "-m", "hpo", "--home", str(home), "sweep", str(file)]


def repeat(folder: Path, name: str, shown: dict[str, Any], examples: int) -> float:
    """Mean macro-F1 of the champion's point with fresh seeds."""
    values: list[float] = []
    for seed in range(1, SEEDS + 1):
        config = sweep([shown["champion"]["params"]], examples, EVALUATIONS, seed=seed)
        config |= {"name": f"repeat-{seed}", "search_space": {}, "search_strategy": {}}
        file = folder / f"{name}-{seed}.yaml"
        file.write_text(json.dumps(config))
        timed([sys.executable, "-m", "hpo", "--home", str(folder / name), "sweep", str(file)])
        values.append(show(folder / name, f"repeat-{seed}")["champion"]["value"])
    return sum(values) / len(values)
