"""A sweep's summary as tables and sentences: leaderboard, finalists, verdicts, variants. Pure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import chain

from hpo.config.objective import Objective
from hpo.quoting import listed
from hpo.results.aligned import aligned
from hpo.results.champion import why_none
from hpo.results.diagnosis import collected
from hpo.results.outcome import Against, Dropped, FinalistsOutcome, RaceReport, SealedTest
from hpo.results.progress_text import setting_of, setting_text
from hpo.results.released import ListedVersion, Release, TorchNumbers, VariantVerdict
from hpo.results.savings import Savings
from hpo.results.summary import SweepSummary, TrialSummary
from trainers.protocol.catalog import METRICS

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


def saved_in_words(savings: Savings) -> list[str]:
    """What pruning and evaluations have saved, a line each; what the race has saved is in its own line."""
    lines = []
    if pruning := savings.pruning:
        share = "" if pruning.examples is None else f"; saved {pruning.examples:.0%} of the planned training examples"
        lines.append(f"pruning: stopped {pruning.stopped} of {pruning.trials} trials{share}")
    if evaluation := savings.evaluation:
        lines.append(
            f"evaluations: used {evaluation.used:,} of {evaluation.of:,} rows inside trials; "
            f"saved {evaluation.rows:.0%} of evaluated rows"
        )
    return lines


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
    lines.append(f"spent: {used.trials} trials trained{more}, {used.hours:.2f} hours{gpu}{cost}")
    return lines


def variants_table(
    torch: TorchNumbers, variants: Sequence[VariantVerdict], metric: str
) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: torch first, then every ONNX variant with its verdict. `metric` is the gate's."""
    columns = ["variant", metric, "change", "diff", "MB", "ms", "tokens/s", "rows", "verdict"]
    reference = torch.metrics[metric]
    rows = [["torch", f"{reference:.4f}", "", "", "", f"{torch.latency_p50_ms:.1f}", "", "", "reference"]]
    for judged in variants:
        m = judged.measurement
        if m is None:
            rows.append([judged.variant, *[""] * 7, "failed"])
            continue
        change = _change(judged, metric, reference)
        speed = "" if m.tokens_per_second is None else f"{m.tokens_per_second:.0f}"
        rows.append([
            judged.variant, f"{m.metrics[metric]:.4f}", f"{round(change, 4) + 0.0:+.2%}", f"{m.max_logit_diff:.0e}",
            f"{m.size_mb:.0f}", f"{m.latency_p50_ms:.1f}", speed, judged.rows.replace(" of ", "/"), judged.word,
        ])  # fmt: skip
    if not any(row[6] for row in rows):
        columns, rows = columns[:6] + columns[7:], [row[:6] + row[7:] for row in rows]
    return columns, rows


def variants_name(summary: SweepSummary) -> str:
    """What the variants are called: with the trial that they are of, where that is not the champion."""
    trial, champion = summary.variants_trial, summary.champion
    is_other = trial is not None and (champion is None or champion.number != trial)
    return f"ONNX variants of trial {trial}" if is_other else "ONNX variants"


def variants_title(summary: SweepSummary) -> str:
    """What their table is called, with what its columns hold."""
    return f"{variants_name(summary)}: largest diff of logits, median ms of one answer"


def variant_lines(summary: SweepSummary) -> list[str]:
    """Of every variant that did not pass, or that the rows do not tell apart from the gate: why, and which gate."""
    return [f"{v.variant} {v.word}: {v.why}" for v in summary.variants if not v.passed or v.is_close]


def variants_text(torch: TorchNumbers, summary: SweepSummary, metric: str) -> str:
    """The table as aligned plain text with the reason of every verdict, for a file."""
    variants = summary.variants
    reasons = [f"{judged.variant} {judged.word}: {judged.why}{_details(judged)}" for judged in variants]
    columns, rows = variants_table(torch, variants, metric)
    return "\n".join([variants_title(summary), "", *aligned([columns, *rows]), "", *reasons, ""])


def _details(judged: VariantVerdict) -> str:
    """What the table leaves out."""
    m = judged.measurement
    if m is None:
        return ""
    same = m.agreement
    agrees = f"; {same.equal} of {same.count} answers are torch's" if same else ""
    return f"{agrees}; p95 {m.latency_p95_ms:.1f} ms"


def _change(judged: VariantVerdict, metric: str, reference: float) -> float:
    """The metric's change against torch, as a share; on some rows only it is the estimate of the one on all."""
    if judged.count is not None and judged.drop is not None and math.isfinite(judged.drop):
        return judged.drop if METRICS[metric].direction == "minimize" else -judged.drop
    found = judged.measurement.metrics[metric] if judged.measurement else math.nan
    return (found - reference) / abs(reference) if reference and math.isfinite(found) else 0.0


def release_line(summary: SweepSummary, release: Release) -> str:
    """The version that the sweep released, and whether a person chose its trial."""
    chosen = f", trial {release.trial} as you chose" if release.trial == summary.chosen_trial else ""
    return f"released: {release.uri} version {release.version} ({release.variant}{chosen})"


def challenger_line(release: Release, refusal: str | None = None) -> str:
    """What became of a version that is not champion, as the sweep ended; the reason only where `refusal` lacks it."""
    states = {"waits": "waits for your approval", "night": "is judged by its night (hpo nights)"}
    state = states.get(release.decision, "did not become the champion")
    line = f"challenger: {release.uri} version {release.version} ({release.variant}) {state}"
    return f"{line}; champion: {release.why}" if release.why and release.why not in (refusal or "") else line


def releases_table(versions: Sequence[ListedVersion]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows, as given; older versions did not record all of it.

    Versions are called as commands take them. With a name of 15 characters it fits into 80 columns: where a version
    comes from is in `release_in_words`.
    """
    columns = ["version", "alias", "variant", "metric", "MB", "p50 ms", "served by"]
    rows = []
    for v in versions:
        value = v.metrics.get(v.metric or "")
        rows.append([
            f"{v.name}/{v.version}", _seat(v), v.variant or "-",
            "-" if value is None else f"{v.metric} {value:.4f}",
            "gone" if v.size_mb is None else f"{v.size_mb:.1f}",
            "-" if v.latency_p50_ms is None else f"{v.latency_p50_ms:.1f}", _servers(v),
        ])  # fmt: skip
    return columns, rows


def release_in_words(version: ListedVersion) -> list[str]:
    """Where a version comes from and what was decided about it, in lines of about 80 characters."""
    origin = version.run or version.sweep or "no sweep"
    about = [textwrap.wrap(line, 78, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
             for line in version.about.splitlines()]  # fmt: skip
    return [f"{version.name}/{version.version}: from {origin}, {version.created[:16].replace('T', ' ')} UTC",
            *(part for parts in about for part in parts)]  # fmt: skip


def _seat(version: ListedVersion) -> str:
    """The aliases of a version, and whether it waits for a person."""
    waits = " (waits)" * (version.waits and version.alias == "challenger")
    return ", ".join([*([f"{version.alias}{waits}"] if version.alias else []), *version.other_aliases]) or "-"


def _servers(version: ListedVersion) -> str:
    """The processes that have it loaded."""
    if not version.is_served:
        return "-"
    return f"pid {', '.join(map(str, version.served_by))}" if version.served_by else "a server"


def leaderboard_text(summary: SweepSummary) -> str:
    """The leaderboard as aligned plain text, for a file."""
    sentences = [gain(summary), *saved_in_words(summary.savings), *verdicts(summary), *notes(summary)]
    columns, rows = leaderboard(summary, None, MOST_LEFT_OUT)
    return "\n".join([*sentences, "", *aligned([columns, *rows]), ""])
