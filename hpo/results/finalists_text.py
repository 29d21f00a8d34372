"""What the finalists' repeats and the sealed test showed, as a table and in sentences. Pure."""

from __future__ import annotations

import math

from hpo.config.objective import Objective
from hpo.results.outcome import Against, Dropped, FinalistsOutcome, RaceReport, SealedTest
from hpo.results.summary import SweepSummary


def finalists_title(outcome: FinalistsOutcome) -> str:
    """What the table of finalists is called."""
    is_adapter = outcome.race is not None and outcome.race.claim == "adapter"
    return "finalists, as the search trained them" if is_adapter else "finalists, trained again with fresh seeds"


def finalists_table(outcome: FinalistsOutcome, objective: Objective) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: the champion, then the best mean first, which may be of fewer seeds."""
    means = {c.trial: objective.sort_key(c.interval.mean) if c.interval else math.inf for c in outcome.contestants}
    entries = sorted(outcome.contestants, key=lambda c: (c.trial != outcome.champion, means[c.trial]))
    rows = []
    for entry in entries:
        name = f"{entry.trial}{' (baseline)' if entry.is_baseline else ''}"
        each = " ".join("failed" if r.value is None else f"{r.value:.4f}" for r in entry.repeats)
        if (found := entry.interval) is None:
            rows.append([name, "-", "out: a repeat failed", each])
        else:
            rows.append([name, f"{found.mean:.4f}", f"{found.low:.4f} to {found.high:.4f}", each])
    return ["trial", f"mean {objective.metric}", "95 % interval", "per seed"], rows


def verdicts(summary: SweepSummary) -> list[str]:
    """What the repeats and the sealed test say, in sentences."""
    finalists, metric = summary.finalists, summary.objective.metric
    if finalists is None or finalists.champion is None:
        return []
    lines = race_in_words(finalists.race) if finalists.race else []
    if against := finalists.against_baseline:
        lines.append(_verdict("over the baseline, on validation", against, metric))
        if finalists.race:
            lines.append(_claim(finalists.race, against, metric, summary.objective))
    elif finalists.of(finalists.champion).is_baseline:
        lines.append("no finalist is better than the baseline: the default configuration stays")
    elif finalists.has_lost_baseline:
        lines.append("not compared with the baseline: a training of it failed")
    if against := finalists.against_runner_up:
        lines.append(_verdict(f"over the runner-up (trial {against.trial})", against, metric))
    if test := summary.test:
        lines += _test_verdicts(test, metric)
    return lines


def race_in_words(race: RaceReport) -> list[str]:
    """What the finalists took, and which rows did what."""
    if race.claim == "adapter":
        lines = [f"adapters were compared, not recipes: {race.trainings} repeats were needed"]
    else:
        drops = "; ".join(drop_in_words(dropped) for dropped in race.dropped)
        lines = [f"race: {race.trainings} of {race.cap} trainings{'; ' if drops else ''}{drops}"]
    if race.is_split:
        lines.append(f"{race.choosing:,} validation rows chose the champion; means, intervals and differences are of "
                     f"the other {race.certifying:,}")  # fmt: skip
    else:
        lines.append(f"the same {race.certifying:,} validation rows chose the champion and certify its lead, so a part "
                     "of it may be luck")  # fmt: skip
    return lines


def drop_in_words(dropped: Dropped) -> str:
    """Who was dropped when, and why."""
    after = f"after {dropped.seeds} seed{'s' * (dropped.seeds != 1)}"
    why = {
        "behind": f"trial {dropped.trial} was dropped {after} (it could not win any more)",
        "alike": f"trial {dropped.trial} was dropped {after} (more seeds would not tell it from the best)",
        "beaten": f"trial {dropped.trial}, the baseline, was beaten {after}",
    }  # fmt: skip
    return why[dropped.why]


def _claim(race: RaceReport, against: Against, metric: str, objective: Objective) -> str:
    """One sentence that may be quoted: what is better than what."""
    what = "this recipe, whatever its seed," if race.claim == "recipe" else "this adapter, as it was trained,"
    is_shown = against.is_beyond_noise and objective.better(against.difference, 0.0)
    return f"claim: {what} is {'better than the baseline' if is_shown else 'NOT shown to be better'} in {metric}"


def _test_verdicts(test: SealedTest, metric: str) -> list[str]:
    found = test.champion.interval
    lines = [f"sealed test: {metric} {found.mean:.4f} ({found.low:.4f} to {found.high:.4f})"]
    if test.baseline and test.against_baseline:
        lines[0] += f", baseline {test.baseline.interval.mean:.4f}"
        lines.append(_verdict("over the baseline, on the test rows", test.against_baseline, metric))
    return lines


def _verdict(over: str, against: Against, metric: str) -> str:
    numbers = f"{metric} {against.difference:+.4f} ({against.low:+.4f} to {against.high:+.4f}, p {against.p_value:.2g})"
    word = "beyond noise" if against.is_beyond_noise else "within noise: NOT shown to be different"
    return f"{over}: {numbers}, {word}"
