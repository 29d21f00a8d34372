"""`hpo plan`: what a sweep would run, take and cost, from a few measured steps; writes no study and no run."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hpo.commands.memory import UNMEASURED, MemoryPlan, may_be_sharded, most_mb, plan_memory
from hpo.commands.preflight import WORKER, at_its_clock, check_edit, explained_by_log, prepared_data, warm_up
from hpo.config.budget import Meter, Spent
from hpo.config.file import load_config
from hpo.config.space import Point
from hpo.config.strategy import ResolvedStrategy, choose_strategy
from hpo.config.sweep_config import SweepConfig, corner
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.base import Executor
from hpo.executors.free_memory import available_memory_mb
from hpo.executors.local import LocalExecutor
from hpo.paths import Home
from hpo.progress_view import ProgressView
from hpo.results.left_out import gigabytes
from hpo.results.progress_text import duration, evaluations_line, setting_of
from hpo.results.records import StudySnapshot, void_trials
from hpo.results.row_parts import what_rows_show
from hpo.search.contest import finals_planned
from hpo.study.store import newest_study_name, view_study
from hpo.trials.calls import run_all
from hpo.trials.slots import Slots, choose_slots, cores, first_devices, probes_at_once
from trainers.protocol.codec import to_json
from trainers.protocol.events import PreparedData, Probed
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import Probe

LAST_MOMENT_S = 253_370_764_800
"""The year 9999, in seconds since the epoch: what libraries take for a date."""


def make_plan(file: Path, home: Home, jobs: int | None, view: ProgressView, worker: str = WORKER) -> dict[str, Any]:
    """The plan as `hpo plan --json` gives it. Raises what `run_sweep` raises before it writes anything."""
    config = at_its_clock(load_config(file, home), home)
    check_edit(config, home)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as in_use:
        executor = LocalExecutor(Path(scratch, "host.log"), worker)
        try:
            view.say(f"{config.name}: reading data and model, then training a few steps")
            with explained_by_log("reading data and model", Path(scratch, "host.log")):
                prepared = in_use.enter_context(prepared_data(executor, config, home))
                specs = warm_up(executor, TrialSpecs(config, home, prepared))
            with explained_by_log(_probing(specs), Path(scratch, "host.log")):
                memory = plan_memory(executor, specs, jobs, view.say)
                probes = probe(executor, specs, Path(scratch), memory)
        finally:
            executor.close()
    return estimate(specs, probes, jobs, memory)


def _probing(specs: TrialSpecs) -> str:
    """What is done to measure trials, for whoever reads that it failed."""
    alone = " on one device, which holds the whole base model then,"
    return f"training a few steps{alone if may_be_sharded(specs) else ''}"


def corners(config: SweepConfig) -> dict[str, Point]:
    """The baseline, and the points that take least and most; equal ones once."""
    named = {"baseline": config.baseline(), "smallest": corner(config, "low"), "largest": corner(config, "high")}
    different: dict[str, Point] = {}
    for name, point in named.items():
        if point not in different.values():
            different[name] = point
    return different


def probe(
    executor: Executor, specs: TrialSpecs, scratch: Path, memory: MemoryPlan
) -> dict[str, tuple[Point, Probed]]:  # fmt: skip
    """Every corner that may fit into memory measured, with one thread and one corner on each core, as trials run."""
    devices, fitting = first_devices(specs.prepared, specs.config.devices_per_trial()), memory.fitting
    made = {
        name: (point, specs.spec(0, point, TrialPaths(scratch / name), devices=devices))
        for name, point in corners(specs.config).items()
    }
    points = {n: point for n, (point, spec) in made.items() if n == "baseline" or fitting.refuse(spec) is None}
    requests = [Probe(fitting.fitted(made[name][1]), specs.prepared) for name in points]
    probed = run_all(executor, requests, probes_at_once(specs.prepared))
    measured = [p for p in probed if isinstance(p, Probed)]  # the protocol's answer to Probe
    return {name: (point, p) for (name, point), p in zip(points.items(), measured, strict=True)}


def estimate(
    specs: TrialSpecs, probes: dict[str, tuple[Point, Probed]], jobs: int | None, memory: MemoryPlan = UNMEASURED
) -> dict[str, Any]:  # fmt: skip
    """Trials, memory, time and cost. A pruned search takes less than this time."""
    config, inspection = specs.config, specs.prepared
    largest = max((probed for _, probed in probes.values()), key=lambda probed: probed.memory_mb)
    planned = memory.left_out.planned(config.most_trials(), config.space.most_points())
    slots = choose_slots(
        inspection, planned, memory.jobs_of(jobs, planned), None, lambda: largest, config.devices_per_trial(),
        most_mb(config),
    )  # fmt: skip
    seconds = {name: trial_seconds(config, inspection, point, probed) for name, (point, probed) in probes.items()}
    begun = _begun(config, specs.home)
    left = max(0, planned - (_trained(begun, specs.fingerprint(config.baseline())) if begun else 0))
    finals = finals_planned(config)
    rounds = math.ceil(left / slots.jobs) + finals.rounds(slots.jobs)
    spent = begun.state.spent if begun else Spent()
    total_s, ends_by = _within_budget(config, spent, rounds * _seconds_of_a_trial(config, seconds.values()), slots)
    strategy, cost = _strategy(config, begun), config.budget.cost_per_hour
    return {
        "sweep": config.name,
        "strategy": {"type": strategy.type, "why": strategy.why},
        "trials": planned,
        "trials_left": left,
        "repeats": finals.trainings,
        "points": None if math.isinf(most := config.space.most_points()) else int(most),
        "rows": inspection.rows,
        "examples_per_trial": config.largest_budget_examples(inspection.rows["train"]),
        "evaluations": config.evaluations(inspection.rows["train"]),
        "evaluation_rows": config.evaluation_rows(inspection) or inspection.rows["validation"],
        "jobs": slots.jobs,
        "threads": slots.threads,
        "gpus": inspection.gpus,
        "cores": cores(),
        "available_memory_mb": available_memory_mb(),
        "probes": [_shown(specs, name, *probes[name], seconds[name]) for name in probes],
        "seconds": total_s,
        "ends_by": ends_by,
        "ends_at": _moment(time.time() + total_s),
        "cost": None if cost is None else total_s / 3600 * cost,
        "not_tried": to_json(memory.left_out),
        "notes": [
            *_where(config),
            *(memory.lines or ample_lines(probes, config.devices_per_trial())),
            *inspection.notes,
            *what_rows_show(config, inspection.rows["validation"]),
        ],
    }


def _where(config: SweepConfig) -> list[str]:
    """That the sweep itself would run elsewhere."""
    is_here = config.run.executor == "local"
    return [] if is_here else ["run.executor: ray: measured and planned for this machine, not for the cluster's nodes"]


def ample_lines(probes: Mapping[str, tuple[Point, Probed]], devices: int = 1) -> list[str]:
    """What corners needed, where nothing had to be chosen for memory."""
    each = f", on each of {devices} devices" if devices > 1 else ""
    (baseline, *_), largest = [p.memory_mb for _, p in probes.values()], max(p.memory_mb for _, p in probes.values())
    return [f"memory: the baseline needs about {gigabytes(baseline)}, the largest point {gigabytes(largest)}{each}: "
            "as the file says"]  # fmt: skip


def _strategy(config: SweepConfig, begun: StudySnapshot | None) -> ResolvedStrategy:
    """The search strategy; a sweep that has begun keeps its own."""
    goes_by = begun.state.strategy if begun else None
    return choose_strategy(config.strategy, config.space, len(config.objectives), config.budget.trials, goes_by)


def _shown(specs: TrialSpecs, name: str, point: Point, probed: Probed, seconds: float) -> dict[str, Any]:
    """One corner as `hpo plan --json` prints it; its trial takes so many `seconds`, those of evaluations among them."""
    devices = _setting(specs.config, point, "devices")
    per_step = probed.seconds_per_example * _setting(specs.config, point, "batch_size") / devices
    evaluation_s = evaluation_seconds(specs.config, specs.prepared, probed) / devices
    return {
        "point": name, "params": point, **to_json(probed), "trial_seconds": seconds, "seconds_per_step": per_step,
        "evaluation_share": evaluation_s / seconds,
    }  # fmt: skip


def trial_seconds(config: SweepConfig, inspection: PreparedData, point: Point, probed: Probed) -> float:
    """A whole trial that nobody stops; at best so many times as fast as it has devices."""
    examples = config.examples_per_trial(inspection.rows["train"], point)
    one_device = examples * probed.seconds_per_example + evaluation_seconds(config, inspection, probed)
    return one_device / _setting(config, point, "devices")


def evaluation_seconds(config: SweepConfig, inspection: PreparedData, probed: Probed) -> float:
    """All evaluations of a trial, with the one on all rows where the others use some."""
    return config.evaluations(inspection.rows["train"]) * probed.seconds_per_evaluation + probed.seconds_on_all_rows


def _moment(epoch_s: float) -> str:
    """Date and time of day, as far as there are any."""
    if epoch_s > LAST_MOMENT_S:
        return "after the year 9999"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch_s))


def _setting(config: SweepConfig, point: Point, name: str) -> int:
    return int({**config.settings, **point}[name] or 1)


def _begun(config: SweepConfig, home: Home) -> StudySnapshot | None:
    """What the sweep has done already."""
    known = newest_study_name(home.studies_db, config.name)
    return None if known is None else view_study(home.studies_db, config.name)


def _trained(begun: StudySnapshot, baseline: str) -> int:
    void = void_trials(begun.records, baseline, begun.state.void)
    return sum(r.is_over and not r.reused_from and r.number not in void for r in begun.records)


def _seconds_of_a_trial(config: SweepConfig, corners: Iterable[float]) -> float:
    """What a trial takes on the mean, as far as `budget.trial_minutes` lets it.

    Points in between cost something in between; more threads per trial than the probe had make it no slower.
    """
    most = math.inf if config.budget.trial_minutes is None else config.budget.trial_minutes * 60
    return statistics.fmean(min(seconds, most) for seconds in corners)


def _within_budget(config: SweepConfig, spent: Spent, seconds: float, slots: Slots) -> tuple[float, str]:
    """The expected wall time, and what ends the sweep: its trials, or a bound of what is left of the budget."""
    bounds = [(seconds, "all trials done")]
    if left := Meter(config.budget, spent, time.time).seconds_left():
        bounds.append(left)
    if slots.gpus and (gpu_hours := config.budget.gpu_hours) is not None:
        at_a_time = slots.jobs * slots.devices_per_trial
        bounds.append(((gpu_hours * 3600 - spent.all_gpu_seconds) / at_a_time, f"gpu_hours: {gpu_hours:g}"))
    least, ends_by = min(bounds, key=lambda bound: bound[0])
    return max(0.0, least), ends_by


def show_plan(view: ProgressView, plan: Mapping[str, Any]) -> None:
    """Show what a sweep would run, what the corners of its space need, and when it would end.

    `plan` is what `hpo plan --json` prints.
    """
    view.say(f"{plan['trials']} trials ({plan['trials_left']} to go), {plan['repeats']} repeats of finalists; "
             f"{plan['examples_per_trial']:,} examples per trial")  # fmt: skip
    view.say(f"search strategy: {plan['strategy']['type']} ({plan['strategy']['why']})")
    where = f"{plan['gpus']} GPUs" if plan["gpus"] else f"{plan['cores']} cores"
    view.say(
        f"{plan['jobs']} at a time on {where}, {plan['threads']} thread{'s' * (plan['threads'] != 1)} each; "
        f"{plan['available_memory_mb'] / 1024:.1f} GB of memory free"
    )
    names = list(dict.fromkeys(name for probe in plan["probes"] for name in probe["params"]))
    view.say(evaluations_line(plan["evaluations"], plan["evaluation_rows"], plan["rows"]["validation"]))
    columns = ["point", "trainable", "memory", "adapter", "s/step", "evaluation", "trial", "evaluating", *names]
    rows = [
        [
            p["point"], f"{p['trainable_parameters']:,}", f"{p['memory_mb']:.0f} MB", f"{p['adapter_mb']:.1f} MB",
            f"{p['seconds_per_step']:.2f}", f"{p['seconds_per_evaluation']:.1f} s",
            duration(p["trial_seconds"]), f"{p['evaluation_share']:.0%}",
            *(setting_of(p["params"], name) for name in names),
        ]
        for p in plan["probes"]
    ]  # fmt: skip
    view.table("corners of the space, measured on a few steps", columns, rows)
    for note in plan["notes"]:
        view.say(f"note: {note}")
    cost = "" if plan["cost"] is None else f", cost {plan['cost']:.2f}"
    view.say(f"\nabout {duration(plan['seconds'])} without pruning, until {plan['ends_at']} ({plan['ends_by']}){cost}")
