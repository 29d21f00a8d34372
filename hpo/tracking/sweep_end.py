"""What the run of a sweep says at its end: the champion's numbers and settings, and a page in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.report.facts import ReportFacts
from hpo.results.finalists_text import verdicts
from hpo.results.leaderboard import gain, leaderboard, notes, saved_in_words
from hpo.results.markdown import plain, table
from hpo.results.release_text import challenger_line, release_line
from hpo.results.released import Release
from hpo.results.summary import SweepSummary
from hpo.tracking.comparison import link, run_link
from trainers.protocol.settings import Setting

_ROWS = 10
"""Of the leaderboard: `report.html` has all."""
_LONGEST_LINE = 600
_LONGEST = 7500
"""Of the page, in characters: a tag of MLflow takes 8,000."""
OF_THE_END = ("champion/", "importance/", "gain", "cost")
"""How the names of those numbers begin that an end may lack: an edit can take finalists, dimensions or prices away."""


def end_numbers(facts: ReportFacts) -> dict[str, float]:
    """Trials, hours and cost, every metric of the champion, its gain over the baseline, and what matters how much."""
    summary, spent = facts.summary, facts.summary.spent
    numbers = {"trials": float(len(summary.trials)), "hours": spent.hours, "gpu_hours": spent.gpu_hours}
    if spent.cost is not None:
        numbers["cost"] = spent.cost
    if champion := summary.champion:
        numbers |= {f"champion/{name}": value for name, value in champion.metrics.items()}
        numbers[f"champion/{summary.objective.metric}"] = champion.value
    if summary.finalists and (against := summary.finalists.against_baseline):
        numbers |= {"gain": against.difference, "gain_low": against.low, "gain_high": against.high}
    return numbers | {f"importance/{found.dimension}": found.share for found in facts.importances}


def end_tags(facts: ReportFacts, experiment_id: str, run_id: str) -> dict[str, str]:
    """The champion and its run, and the page that MLflow shows as the run's description."""
    champion = facts.summary.champion
    return {
        "mlflow.note.content": end_page(facts, experiment_id, run_id),
        "hpo.champion": str(champion.number) if champion else "",  # an edit may have left the sweep without one
        "hpo.champion_run": champion.run_id if champion else "",
    }


def end_params(facts: ReportFacts) -> dict[str, Setting]:
    """The settings of the champion that were searched."""
    return dict(facts.summary.champion.params) if facts.summary.champion else {}


def end_page(facts: ReportFacts, experiment_id: str, run_id: str) -> str:
    """The answer, how sure it is, what it cost, where to look further, and the best trials."""
    summary = facts.summary
    sure = [*verdicts(summary), *([f"not released: {summary.refusal}"] if summary.refusal else [])]
    parts = [
        f"**{plain(gain(summary), _LONGEST_LINE)}**",
        _list(sure),
        " · ".join(_links(summary, experiment_id, run_id)),
        _list([*saved_in_words(summary.savings), *notes(summary)]),
        "\n".join(table(*leaderboard(summary, _ROWS))).strip(),
    ]
    if facts.importances:
        rows = [[i.dimension, f"{i.share:.2f}", f"{i.low:.2f} to {i.high:.2f}"] for i in facts.importances]
        parts.append("\n".join(table(["setting", "how much it matters", "90 %"], rows)).strip())
    return _fitting([part for part in parts if part])


def _links(summary: SweepSummary, experiment_id: str, run_id: str) -> list[str]:
    report = run_link("", experiment_id, run_id, "artifacts/report.html")
    links = [f"[comparison]({link('', experiment_id, summary.sweep)})", f"[report]({report})"]
    if champion := summary.champion:
        links.append(f"[champion: trial {champion.number}]({run_link('', experiment_id, champion.run_id)})")
    if release := summary.release:
        links.append(f"[{plain(release_line(summary, release))}]({_version_link(release)})")
    if challenger := summary.challenger:
        links.append(f"[{plain(challenger_line(challenger), 60)}]({_version_link(challenger)})")
    return links


def _version_link(release: Release) -> str:
    return f"#/models/{release.name}/versions/{release.version}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {plain(line, _LONGEST_LINE)}" for line in lines)


def _fitting(parts: Sequence[str]) -> str:
    """As many of the parts, the first ones, as a tag takes: the report has all of them."""
    page = ""
    for part in parts:
        if len(page) + len(part) + 2 > _LONGEST:
            break
        page += f"{part}\n\n"
    return page.strip()
