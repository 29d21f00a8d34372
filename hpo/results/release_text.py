"""What promotion measured and released, as tables and in sentences: variants, versions, challengers. Pure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from hpo.results.aligned import aligned
from hpo.results.released import ListedVersion, Release, TorchNumbers, VariantVerdict
from hpo.results.summary import SweepSummary
from trainers.protocol.catalog import METRICS


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
