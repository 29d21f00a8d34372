"""A sweep's leaderboard, and what is said of it in sentences. Pure."""

from __future__ import annotations

from itertools import chain

from hpo.quoting import listed
from hpo.results.aligned import aligned
from hpo.results.champion import why_none
from hpo.results.diagnosis import collected
from hpo.results.finalists_text import verdicts
from hpo.results.progress_text import setting_of, setting_text
from hpo.results.savings import Savings
from hpo.results.summary import SweepSummary, TrialSummary
from trainers.protocol.counted import counted

BEFORE_SETTINGS = 4
"""Columns of a leaderboard: trial, metric, state and seconds; the settings come after them."""
MOST_LEFT_OUT = 10
"""Points that were not tried, in a table."""


def leaderboard(
    summary: SweepSummary, limit: int | None = None, left_out: int = 0
) -> tuple[list[str], list[list[str]]]:  # fmt: skip
    """Column names and rows, best first, of a sweep; after them so many of the points that were not tried.

    A complete trial that exceeds a constraint comes after all that may be champion.
    """
    not_tried = summary.left_out.listed(left_out)
    points = [*(trial.params for trial in summary.trials), *(point.params for point in not_tried)]
    names = list(dict.fromkeys(chain.from_iterable(points)))
    objective = summary.objective
    order = {"complete": 0, "pruned": 1, "running": 2, "interrupted": 2, "failed": 3}
    by_value = objective.sort_keys(0 if t.value is None else t.value for t in summary.trials)
    places = [(order[t.state], bool(t.exceeds), key, t.number) for t, key in zip(summary.trials, by_value, strict=True)]
    trials = [summary.trials[i] for i in sorted(range(len(places)), key=places.__getitem__)[:limit]]
    rows = [
        [
            f"{t.number}{' (baseline)' if t.is_baseline else ''}",
            "-" if t.value is None else f"{t.value:.4f}",
            _state(t),
            "-" if t.seconds is None else f"{t.seconds:.0f}",
            *(setting_of(t.params, name) for name in names),
        ]
        for t in trials
    ]
    rows += [
        ["-", "-", f"not tried: {point.why()}", "-", *(setting_of(point.params, name) for name in names)]
        for point in not_tried
    ]
    return ["trial", objective.metric, "state", "seconds", *names], rows


def _state(trial: TrialSummary) -> str:
    state = f"{trial.state}: {trial.cause}" if trial.cause else trial.state
    state = f"as {trial.reused_from}" if trial.reused_from else state
    return f"{state}, over {', '.join(trial.exceeds)}" if trial.exceeds else state


def gain(summary: SweepSummary, who: str = "champion") -> str:
    """One sentence: the champion against the baseline, and against the untouched base model where it has the metric.

    `who` is what the sentence calls the champion.
    """
    champion, baseline = summary.champion, summary.baseline
    metric = summary.objective.metric
    if champion is None:
        return why_none((trial.state for trial in summary.trials), summary.finalists)
    is_baseline = baseline is not None and champion.number == baseline.number
    lost = summary.lost_baseline
    text = f"{who}: trial {champion.number}, {metric} {champion.value:.4f}"
    if champion.repeat is not None:
        text += f" (repeat {champion.repeat})"
    elif baseline and baseline.value is not None and not is_baseline and lost is None:
        text += f" ({champion.value - baseline.value:+.4f} against the baseline's {baseline.value:.4f})"
    if is_baseline:
        only = len(summary.trials) == 1
        text += " (the default configuration)" if only else " (the baseline itself: the search found nothing better)"
    if lost is not None:
        text += f"; not compared with the baseline: {lost}"
    if baseline and baseline.base_model:
        text += f"; the untouched base model: {baseline.base_model[metric]:.4f}"
    return text


def saved_in_words(savings: Savings) -> list[str]:
    """What pruning and evaluations have saved, a line each; what the race has saved is in its own line."""
    lines = []
    if pruning := savings.pruning:
        share = "" if pruning.examples is None else f"; saved {pruning.examples:.0%} of the planned training examples"
        lines.append(f"pruning: stopped {pruning.stopped} of {counted(pruning.trials, 'trial')}{share}")
    if evaluation := savings.evaluation:
        lines.append(
            f"evaluations: used {evaluation.used:,} of {evaluation.of:,} rows inside trials; "
            f"saved {evaluation.rows:.0%} of evaluated rows"
        )
    return lines


def notes(summary: SweepSummary) -> list[str]:
    """What a person should know before believing the table."""
    lines = [
        f"{e.dimension} {setting_text(e.value)} lies at the edge of the space: try {e.bound}: {e.further:.12g}"
        for e in summary.edges
    ]
    if summary.champion and not summary.finalists and len(summary.trials) > 1 and summary.state == "complete":
        lines.append("the champion rests on one seed; finalists: {top: 3, seeds: 3} would tell it from luck")
    lines += collected((trial.number, trial.advice) for trial in summary.trials)
    if summary.pareto_front:
        lines.append(f"Pareto front: trial{'s' * (len(summary.pareto_front) > 1)} {listed(summary.pareto_front)}")
    lines += filter(None, [summary.interrupted_line(), summary.left_out.line()])
    lines += summary.unread
    used = summary.spent
    cost = f", cost {used.cost:.2f}" if used.cost is not None else ""
    gpu = f", {used.gpu_hours:.2f} GPU hours" if used.gpu_hours else ""
    before = sum(revision.left_out for revision in summary.revisions)  # their time was spent too
    more = f" (and {before} that edits of the file left out)" if before else ""
    lines.append(f"spent: {counted(used.trials, 'trial')} trained{more}, {used.hours:.2f} hours{gpu}{cost}")
    return lines


def leaderboard_text(summary: SweepSummary) -> str:
    """The leaderboard as aligned plain text, for a file."""
    sentences = [gain(summary), *saved_in_words(summary.savings), *verdicts(summary), *notes(summary)]
    columns, rows = leaderboard(summary, None, MOST_LEFT_OUT)
    return "\n".join([*sentences, "", *aligned([columns, *rows]), ""])
