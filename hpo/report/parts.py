"""The report's tables and lines, the same in every format that shows text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.config.objective import gate_of
from hpo.quoting import listed
from hpo.report.facts import ReportFacts
from hpo.results.finalists_text import finalists_table, finalists_title
from hpo.results.label_shares import label_table
from hpo.results.leaderboard import leaderboard
from hpo.results.progress_text import setting_of
from hpo.results.release_text import challenger_line, release_line, variants_name, variants_table
from hpo.results.row_findings import RowFindings
from hpo.results.summary import SweepSummary
from hpo.results.timeline import idle_share, phases, workers
from trainers.protocol.counted import counted

MOST_ROWS = 500
"""Of the leaderboard, best first: further down nobody reads rows."""


@dataclass(frozen=True)
class Table:
    """Columns and rows as the terminal shows them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def released_lines(summary: SweepSummary) -> list[str]:
    """What became of the champion."""
    lines = []
    if release := summary.release:
        lines.append(release_line(summary, release))
    if summary.challenger:
        lines.append(challenger_line(summary.challenger, summary.refusal))
    if summary.refusal:
        lines.append(f"not released: {summary.refusal}")
    return lines


def leaderboard_part(summary: SweepSummary, limit: int) -> Table:
    """The best trials."""
    columns, rows = leaderboard(summary, limit)
    more = len(summary.trials) - len(rows)
    return Table(f"best {len(rows):,} of {len(summary.trials):,} trials" if more else "all trials", columns, rows)


def not_tried_part(summary: SweepSummary) -> Table | None:
    """Points that no trial is made of, those that need least memory first; of a space that cannot be listed two. None
    where there are none."""
    left_out = summary.left_out
    if (line := left_out.line()) is None:
        return None
    points = left_out.listed(MOST_ROWS) or left_out.points
    names = list(dict.fromkeys(name for point in points for name in point.params))
    which = "" if len(points) == len(left_out.points) else f"; the {len(points)} that need least"
    rows = [[*(setting_of(point.params, name) for name in names), point.why()] for point in points]
    return Table(f"{line}{which if left_out.is_counted else '; for example'}", [*names, "why"], rows)


def importances_part(facts: ReportFacts) -> Table | None:
    """None where there are too few trials to tell."""
    if not facts.importances:
        return None
    rows = [[i.dimension, f"{i.share:.2f}", f"{i.low:.2f} to {i.high:.2f}"] for i in facts.importances]
    return Table("Which settings matter", ["setting", "share", "90 %"], rows)


def importances_line(facts: ReportFacts) -> str | None:
    """The settings that have no share, because they exist in some of the complete trials only; None without them."""
    complete = [trial.params for trial in facts.summary.trials if trial.state == "complete"]
    some = [name for name in facts.space.dimensions if 0 < sum(name in params for params in complete) < len(complete)]
    if not some or not facts.importances:
        return None
    return f"not compared, because only some of the trials have it: {listed(some)}"


def finalists_part(summary: SweepSummary) -> Table | None:
    """None in a sweep without them."""
    if summary.finalists is None:
        return None
    return Table(finalists_title(summary.finalists), *finalists_table(summary.finalists, summary.objective))


def variants_part(summary: SweepSummary) -> Table | None:
    """None where nothing was exported."""
    if summary.torch is None or not summary.variants:
        return None
    metric = gate_of(summary.task, summary.objective).metric
    return Table(variants_name(summary), *variants_table(summary.torch, summary.variants, metric))


def workers_part(summary: SweepSummary) -> Table | None:
    """How long each worker trained and waited; None where that was not recorded."""
    if not summary.timeline:
        return None
    rows = [[str(w.slot), f"{w.attempts:,}", _duration(w.trained), _duration(w.waited), _share(w.waited, w.trained)]
            for w in workers(summary.timeline)]  # fmt: skip
    return Table("Workers", ["worker", "attempts", "trained", "waited", "idle"], rows)


def workers_line(summary: SweepSummary) -> str | None:
    """How much of the workers' time nothing was trained in; None where that was not recorded."""
    idle = idle_share(summary.timeline)
    if idle is None:
        return None
    every = phases(summary.timeline)
    most, whole = max(phase.workers for phase in every), sum(phase.ended - phase.began for phase in every)
    return f"{counted(most, 'worker')} over {_duration(whole)} of search and finalists: idle {idle:.0%} of that"


def _share(part: float, rest: float) -> str:
    return f"{part / (part + rest):.0%}" if part + rest > 0 else "-"


def _duration(seconds: float) -> str:
    """As people say it: `48 s`, `3.2 min`, `1.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# --- rows ----------------------------------------------------------------------------------------------


def slices_part(rows: RowFindings) -> Table:
    """The champion on parts of the rows, beside the baseline."""
    compared = any(s.baseline is not None for s in rows.slices)
    columns = ["rows where", "rows", "champion", *(["baseline", "difference"] if compared else [])]
    cells = []
    for s in rows.slices:
        where = {"label": "true label", "length": "length", "word": "word"}[s.kind]
        beside = [] if not compared or s.baseline is None else [f"{s.baseline:.3f}", f"{s.champion - s.baseline:+.3f}"]
        cells.append([f"{where}: {s.name}", f"{s.rows:,}", f"{s.champion:.3f}", *beside])
    return Table(f"{rows.measure} on parts of the {rows.rows:,} validation rows", columns, cells)


def rows_lines(rows: RowFindings) -> list[str]:
    """What was looked at, and on how many rows champion and baseline differ."""
    lines = []
    if rows.better is not None and rows.worse is not None:
        verb = "has right" if rows.measure != "loss" else "has a lower loss on"
        alone = f"the champion alone {verb} {rows.better:,} of {rows.rows:,} rows"
        lines.append(f"{alone}, the baseline alone {rows.worse:,}")
    if rows.total > rows.rows:
        lines.append(f"the first {rows.rows:,} of {rows.total:,} validation rows were looked at")
    if rows.words_looked_at:
        shown = sum(s.kind == "word" for s in rows.slices)
        none = "" if shown else "; none marks rows that are wrong more often than chance explains"
        lines.append(f"{rows.words_looked_at:,} words were looked at{none}")
    return lines


# --- data and origin -----------------------------------------------------------------------------------


def data_part(facts: ReportFacts) -> Table | None:
    """The splits; None before the data was looked at."""
    data = facts.summary.data
    if data is None:
        return None
    rows = [
        [split, _source(facts, split), f"{count:,}", data.split_hashes.get(split, "")[:12] or "-"]
        for split, count in data.rows.items()
    ]
    return Table("Data", ["split", "source", "rows", "SHA-256 begins with"], rows)


def labels_part(facts: ReportFacts, limit: int = 50) -> Table | None:
    """How many rows (for tags: words) have each label, and which share of them; None without labels."""
    data = facts.summary.data
    if data is None:
        return None
    columns, rows, count = label_table(facts.summary.task, data.rows, data.label_counts, limit)
    more = f", the first {limit} of {count:,}" if count > limit else ""
    return Table(f"Labels{more}", columns, rows) if rows else None


def data_lines(facts: ReportFacts) -> list[str]:
    """What to know of the data, each once."""
    data = facts.summary.data
    if data is None:
        return []
    most = f"; at most {data.max_length} a row" if data.max_length else ""
    lines = [f"{data.train_tokens:,} training tokens{most}"]
    seed = facts.config.get("data", {}).get("split_seed")
    lines += [] if seed is None else [f"rows were cut with seed {seed}"]
    dropped = f"{counted(data.duplicates, 'duplicate row')} dropped"  # a note says it too, where there are any
    return [*lines, *data.notes] if dropped in data.notes else [*lines, dropped, *data.notes]


def _source(facts: ReportFacts, split: str) -> str:
    """A file by its name alone: where a person keeps files concerns nobody else."""
    given = facts.config.get("data", {}).get(split)
    if not given:
        return "cut from train"
    source = str(given["source"])
    parts = [source.rpartition("/")[2] if source.startswith("/") else source, given.get("config"), given.get("split")]
    return " ".join(str(part) for part in parts if part)


def origin_part(facts: ReportFacts) -> Table | None:
    """What the champion's numbers depend on; None where it was not recorded."""
    if facts.origin is None or not facts.origin.facts:
        return None
    return Table("Environment", ["fact", "value"], [[name, value] for name, value in facts.origin.facts.items()])


def reproducing_line(facts: ReportFacts) -> str | None:
    """The command that trains the champion again."""
    return None if facts.origin is None else f"hpo reproduce '{facts.origin.run}'"
