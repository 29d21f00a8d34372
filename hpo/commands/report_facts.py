"""What a report shows, read from studies and folders: a sweep, or several beside each other."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from hpo.commands.show import read_study
from hpo.errors import HpoError
from hpo.paths import Home
from hpo.report.comparison import Comparison, Lead
from hpo.report.facts import Origin, ReportFacts, facts_of
from hpo.results.champion import Champion, run_name
from hpo.results.records import StudySnapshot
from hpo.results.released import Rivalry
from hpo.results.rivals import rivalry
from hpo.results.row_findings import JudgedRows, row_findings
from hpo.results.summary import SweepSummary
from hpo.trials.environment import read_environment
from hpo.trials.judged_rows import judged_rows, training_paths
from hpo.trials.trial_files import read_spec
from trainers.metrics.table import Rows, row_results


def gather(home: Home, name: str) -> ReportFacts:
    """Everything that a report shows.

    Raises `UsageError` for a name that is no sweep, `HpoError` for damaged records.
    """
    study, summary = read_study(home, name)
    return facts_from(home, study, summary)


def facts_from(home: Home, study: StudySnapshot, summary: SweepSummary) -> ReportFacts:
    """The same of a sweep that is read already. Rows are looked at once it has ended: they are its champion's."""
    return _facts(home, study, *_judged(home, study, summary))


def compare(home: Home, names: Sequence[str]) -> Comparison:
    """Several sweeps, and their champions against the first one's where both answered the same rows."""
    studies, summaries = zip(*(read_study(home, name) for name in names), strict=True)
    judged = [_judged(home, study, summary) for study, summary in zip(studies, summaries, strict=True)]
    facts = [_facts(home, study, *found) for study, found in zip(studies, judged, strict=True)]
    leads = []
    for place in range(1, len(names)):
        found = _rivalry(studies[0], judged[0][1], studies[place], judged[place][1])
        if found is not None:
            leads.append(Lead(names[place], names[0], found))
    return Comparison(facts, leads)


def _judged(home: Home, study: StudySnapshot, summary: SweepSummary) -> tuple[SweepSummary, JudgedRows | None]:
    """The champion's rows; none where they cannot be read, and the summary says so."""
    if summary.champion is None or summary.state != "complete":
        return summary, None
    try:
        return summary, judged_rows(home, study, summary.champion)
    except HpoError as error:
        return dataclasses.replace(summary, unread=[*summary.unread, f"no findings of rows: {error}"]), None


def _facts(home: Home, study: StudySnapshot, summary: SweepSummary, judged: JudgedRows | None) -> ReportFacts:
    as_of = time.strftime("%Y-%m-%d %H:%M") if summary.state == "running" else None
    origin = None
    try:
        origin = _origin(home, study, summary.champion) if summary.champion else None
    except HpoError as error:
        summary = dataclasses.replace(summary, unread=[*summary.unread, f"not shown how to train it again: {error}"])
    return facts_of(study, summary, row_findings(judged) if judged else None, origin, as_of)


def _rivalry(
    first: StudySnapshot, of_first: JudgedRows | None, other: StudySnapshot, of_other: JudgedRows | None
) -> Rivalry | None:
    """None where the two have not the same objective on the same rows."""
    if of_first is None or of_other is None or first.objective != other.objective:
        return None
    is_same = of_first.task == of_other.task and of_first.labels == of_other.labels
    if not is_same or of_first.inputs != of_other.inputs or len(of_first.champion) != len(of_other.champion):
        return None

    def metric_of(study: StudySnapshot, rows: Rows) -> float:
        metrics = row_results(of_first.task, study.config.get("metrics", [])).metrics(rows, of_first.labels)
        return metrics[study.objective.metric]

    return rivalry(of_first.champion, lambda rows: metric_of(first, rows),
                   of_other.champion, lambda rows: metric_of(other, rows), first.objective)  # fmt: skip


def _origin(home: Home, study: StudySnapshot, champion: Champion) -> Origin:
    """What trains the champion again; its environment is in the folder of the training, until that is freed.

    Raises `HpoError` where a file there cannot be read.
    """
    run = run_name(study.name, champion.number, champion.repeat)
    paths = training_paths(home, study, champion.number, champion.repeat)
    environment = read_environment(paths)
    if environment is None or not paths.spec.exists():
        return Origin(run)
    spec = read_spec(paths)
    facts = {
        "seed": str(spec.seed), "threads": str(spec.threads), "devices": ", ".join(spec.devices),
        "micro-batch halved": str(spec.micro_batch_halvings), "Python": environment.python,
        "CPU": environment.cpu or "-", "GPU": ", ".join(environment.gpus) or "-", **environment.packages,
    }  # fmt: skip
    return Origin(run, facts)
