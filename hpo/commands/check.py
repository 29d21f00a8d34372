"""`hpo check`: the config, the data and the model, looked at without training anything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.commands.preflight import WORKER, at_its_clock, data_problems, edit_problems, explained_by_log
from hpo.config.file import load_config
from hpo.config.intent import intent_of
from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError, Problem, UsageError
from hpo.executors.local import LocalExecutor
from hpo.given_path import given_path
from hpo.paths import Home
from hpo.progress_view import ProgressView
from hpo.quoting import clipped
from hpo.trials.calls import lines_of, run_alone
from trainers.protocol.codec import to_json
from trainers.protocol.counted import counted
from trainers.protocol.events import Checked, Finding
from trainers.protocol.requests import Check
from trainers.protocol.trial_spec import DataRef

SHOWN = 20
"""Dropped rows in text; JSON has all of them."""
LABELS_SHOWN = 50
"""Likewise."""


def check_sweep(
    file: Path, home: Home, worker: str = WORKER, clean_dir: Path | None = None, served: Sequence[Path] = ()
) -> dict[str, Any]:
    """What `hpo check --json` gives; a clean copy of the rows goes to the new folder `clean_dir`.

    The findings are all for which `hpo sweep` is refused before it trains; what the sweep did before counts too.
    `served` are prediction logs, or folders of them, to compare with the training rows. Raises `ConfigError` for a
    config, sources or logs that cannot be read at all, and `UsageError` where `clean_dir` is there already or would
    be among the data, and where a log is not there.
    """
    out = None if clean_dir is None else str(_new_folder(clean_dir))
    logs = _logs(served)
    config = at_its_clock(load_config(file, home), home)
    workload = config.workload(home)
    if out is not None:
        _refuse_inside(out, workload.data)
    problems = edit_problems(config, home)
    request = Check(workload, None if problems else out, intent_of(config), logs)
    try:
        checked = _answer(request, config, worker)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if checked.prepared is not None and out is None:
        problems += data_problems(config, home, checked.prepared)
    findings = [Finding(problem.where, problem.found, problem.expected) for problem in problems]
    findings += [replace(finding, where=config.place(finding.where)) for finding in checked.findings]
    found = to_json(replace(checked, findings=findings, prepared=None))
    del found["prepared"]
    return {"sweep": config.name, "task": config.task, **found}


def _answer(request: Check, config: SweepConfig, worker: str) -> Checked:
    """What a trial host finds."""
    with tempfile.TemporaryDirectory() as scratch:
        executor = LocalExecutor(Path(scratch, "host.log"), worker)
        try:
            with lines_of(config), explained_by_log("looking at data and model", Path(scratch, "host.log")):
                checked = run_alone(executor, request)
        finally:
            executor.close()
    assert isinstance(checked, Checked)  # noqa: S101  # the protocol's answer to Check
    return checked


def _new_folder(given: Path) -> Path:
    """Where a clean copy goes. Raises `UsageError` where something is, or where no folder can be."""
    try:
        path = given_path(given, Path())
    except ValueError as error:
        raise UsageError(f"--fix {clipped(str(given))}: {error}; name a new folder") from error
    if os.path.lexists(given) or path.exists():  # the first finds a link that leads nowhere, too
        raise UsageError(f"--fix {given}: already exists; choose a new folder")
    there = next(place for place in path.parents if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written to" if there.is_dir() else "is a file"
        raise UsageError(f"--fix {given}: {there} {why}; name a new folder elsewhere")
    return path


def _refuse_inside(folder: str, data: DataRef) -> None:
    """Raise `UsageError` where a clean copy would be read with the data that it is a copy of."""
    for split, source in data.sources().items():
        if not source.is_hub and Path(source.source).is_dir() and Path(folder).is_relative_to(source.source):
            raise UsageError(f"--fix {folder}: is inside data.{split}, {source.source}; choose a folder elsewhere")


def _logs(given: Sequence[Path]) -> list[str]:
    """The files of prediction logs; of a folder those that a server wrote. Raises `UsageError` where there are none."""
    files: list[str] = []
    for path in given:
        found = sorted(path.glob("predictions-*.jsonl")) if path.is_dir() else [path] if path.is_file() else []
        if not found:
            raise UsageError(f"--served {clipped(str(path))}: no prediction log is there; name its file or folder")
        files += [str(one.resolve()) for one in found]
    return files


def show_check(view: ProgressView, checked: Mapping[str, Any]) -> None:
    """Rows, lengths and labels of each split, notes, and a few rows as the model sees them."""
    rows = [
        [
            name, f"{facts['rows']:,}", f"{facts['duplicates']:,}",
            *(f"{facts['token_percentiles'][p]:,}" for p in ("p50", "p90", "p99", "max")), f"{facts['too_long']:,}",
        ]
        for name, facts in checked["splits"].items()
    ]  # fmt: skip
    columns = ["split", "rows", "duplicates", "tokens p50", "p90", "p99", "max", f"over {checked['max_length']}"]
    view.table(f"{checked['sweep']}: the data of {checked['task']}", columns, rows)
    if any(facts["labels"] for facts in checked["splits"].values()):
        names = list(checked["splits"]["train"]["labels"])
        shown = names[:LABELS_SHOWN]
        counts = [[n, *(f"{s['labels'].get(n, 0):,}" for s in checked["splits"].values())] for n in shown]
        view.table("labels", ["label", *checked["splits"]], counts)
        if more := len(names) - len(shown):
            view.say(f"and {counted(more, 'more label')}: --json has all of them")
    for number, example in enumerate(checked["examples"], 1):
        view.say(f"\ntraining row {number}, what is learned in [[brackets]]:")
        view.say("".join(f"[[{p['text']}]]" if p["is_learned"] else p["text"] for p in example["pieces"]))
        if example["target"]:
            view.say(f"-> [[{example['target']}]]")
    if checked["notes"]:
        view.say("")
    for note in checked["notes"]:
        view.say(f"note: {note}")
    for note in (checked["served"] or {}).get("notes", []):
        view.say(f"served: {note}")
    if checked["copy"]:
        _show_copy(view, checked["copy"])
    else:
        view.say("" if checked["findings"] else "\nno problems found")


def _show_copy(view: ProgressView, copy: Mapping[str, Any]) -> None:
    """What was written, each row that was left out, and how to use the copy."""
    dropped = copy["dropped"]
    view.say("")
    for split, count in copy["rows"].items():
        view.say(f"wrote {Path(copy['dir'], split)}.jsonl: {counted(count, 'row')}")
    view.say(f"left out {counted(len(dropped), 'row')}:" if dropped else "left out no row")
    for row in dropped[:SHOWN]:
        view.say(f"  {row['split']}: {row['where']}: {row['why']}")
    if len(dropped) > SHOWN:
        view.say(f"  and {len(dropped) - SHOWN:,} more: --json has all of them")
    for file in copy["marked_files"]:
        view.say(f"left out the byte order mark of {file}")
    keys = ", ".join(f"data.{split}" for split in copy["rows"])
    view.say(f"to train on the copy, write its files in the YAML: {keys}")


def raise_findings(checked: dict[str, Any]) -> None:
    """Raises `ConfigError` with every finding, if there is one."""
    if checked["findings"]:
        raise ConfigError([Problem(f["where"], f["found"], f["expected"]) for f in checked["findings"]])
