"""What happened to the models of a server while it answered: swaps, failures, versions that could not be loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hpo.serving.metrics import label_value
from hpo.serving.served import Served


@dataclass
class Changes:
    """Counts by the names of models."""

    swaps: Counter[str] = field(default_factory=Counter)
    """Versions that took the place of another one."""
    failures: Counter[str] = field(default_factory=Counter)
    """Loads that failed."""
    cut_off: Counter[str] = field(default_factory=Counter)
    """Requests that were ended because they took too long after their version was replaced."""
    behind: set[str] = field(default_factory=set)
    """Followed models whose new version could not be loaded: the one before still answers."""

    def exposition(self, models: Iterable[Served]) -> str:
        """Lines of Prometheus's text."""
        return "".join(f"{line}\n" for line in self._lines(tuple(models)))

    def _lines(self, models: tuple[Served, ...]) -> Iterator[str]:
        yield "# HELP hpo:model_info The version and the hash of each model."
        yield "# TYPE hpo:model_info gauge"
        for served in models:
            version, content = served.version or "", served.hashes.get("release", "")
            labels = f'model_name="{label_value(served.name)}",version="{version}",hash="{content}"'
            yield f"hpo:model_info{{{labels}}} 1"
        behind = {served.name: int(served.name in self.behind) for served in models}
        for name, kind, text, values in (
            ("hpo:model_swaps_total", "counter", "Versions that took the place of another one.", self.swaps),
            ("hpo:model_load_failures_total", "counter", "Loads of a model that failed.", self.failures),
            ("hpo:requests_cut_off_total", "counter", "Requests that outlasted their version.", self.cut_off),
            ("hpo:model_behind", "gauge", "1 where the new version cannot be loaded and the old one answers.", behind),
        ):
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} {kind}"
            for model, value in values.items():
                yield f'{name}{{model_name="{label_value(model)}"}} {value}'
