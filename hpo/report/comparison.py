"""Several sweeps beside each other: what each answered, what changed between them, whether a lead is real. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.report.facts import ReportFacts
from hpo.results.changes import Varied, varied
from hpo.results.outcome import Interval
from hpo.results.released import Rivalry


@dataclass(frozen=True)
class Lead:
    """The champion of a sweep against that of the first one, on the same validation rows."""

    sweep: str
    first: str
    found: Rivalry


@dataclass(frozen=True)
class Comparison:
    """Sweeps in the order in which a person named them: the first is what the others are compared with."""

    sweeps: Sequence[ReportFacts]
    leads: Sequence[Lead]
    """Of those whose champion answered the same rows as the first one's, and whose rows are kept."""

    @property
    def names(self) -> list[str]:
        """Of the sweeps."""
        return [facts.summary.sweep for facts in self.sweeps]

    @property
    def metrics(self) -> list[str]:
        """What the sweeps are about; one where all have the same objective."""
        return list(dict.fromkeys(facts.summary.objective.metric for facts in self.sweeps))

    @property
    def changes(self) -> list[Varied]:
        """Keys of the files in which sweeps differ; then data, base model and environment, where they are not equal."""
        return [*varied([facts.config for facts in self.sweeps]), *self._beside_the_files()]

    def _beside_the_files(self) -> list[Varied]:
        names = dict.fromkeys(n for facts in self.sweeps if facts.origin for n in facts.origin.facts)
        found = [
            self._varied("rows as cut and tokenized", lambda f: f.summary.data and f.summary.data.fingerprint[:12]),
            self._varied("files of the base model", lambda f: f.summary.data and f.summary.data.model_fingerprint[:12]),
            *(Varied(name, [f.origin.facts.get(name) if f.origin else None for f in self.sweeps]) for name in names),
        ]
        return [one for one in found if any(value != one.values[0] for value in one.values)]

    def _varied(self, what: str, value_of: Callable[[ReportFacts], Any]) -> Varied:
        return Varied(what, [value_of(facts) for facts in self.sweeps])

    @property
    def cautions(self) -> list[str]:
        """Why values may not say which sweep is better."""
        found = []
        if len(self.metrics) > 1:
            found.append(
                f"the sweeps have different objectives ({', '.join(self.metrics)}): their values do not compare"
            )
        data = [facts.summary.data for facts in self.sweeps]
        if len({d.split_hashes.get("validation", d.fingerprint) for d in data if d}) > 1 and not self._all_lead():
            found.append("the sweeps have different validation rows, or cut and tokenized them otherwise: a difference "
                         "may come from the rows")  # fmt: skip
        under_way = [f.summary.sweep for f in self.sweeps if f.summary.state != "complete"]
        if under_way:
            found.append(f"not at their end: {', '.join(under_way)}")
        return found

    def _all_lead(self) -> bool:
        """Whether all champions answered the same rows."""
        return len(self.leads) == len(self.sweeps) - 1

    def to_json(self) -> dict[str, Any]:
        """For `json_text`, as `hpo report A B --format json` prints it."""
        return {
            "sweeps": [facts.to_json() for facts in self.sweeps],
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "leads": [dataclasses.asdict(lead) for lead in self.leads],
            "cautions": self.cautions,
        }


def confirmed(facts: ReportFacts) -> Interval | None:
    """The champion's mean over seeds with its interval; None without finalists."""
    finalists = facts.summary.finalists
    if finalists is None or finalists.champion is None:
        return None
    return finalists.of(finalists.champion).interval
