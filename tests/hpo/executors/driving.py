"""Requests to send, ways to drive an executor, and a look at its processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers.protocol.catalog import default_settings
from trainers.protocol.events import TERMINAL, Evaluation, PreparedData, Trained, TrialEvent
from trainers.protocol.requests import Score, Train
from trainers.protocol.trial_spec import DataRef, ModelRef, SourceRef, TrialSpec, Workload

HERE = Path(__file__).parent
INSPECTION = PreparedData({"train": 1000}, [], "", "", "1" * 64, "0" * 64, 0, 0, 10000, 0, [])
QUIET_S = 0.15
"""Long enough to see that nothing comes."""


def workload(source: str = "model", train: str = "train.jsonl", cache: Path | str = "cache") -> Workload:
    data = DataRef(SourceRef(train), None, None, {}, validation_size=0.1, test_size=0.1, seed=0)
    return Workload("text-classification", ModelRef(source), data, 64, "fp32", str(cache))


def trial(folder: Path, number: int = 0, source: str = "model", **settings: Any) -> Train:
    folder.mkdir(parents=True, exist_ok=True)
    spec = TrialSpec(
        number, workload(source), "lora", {**default_settings("text-classification", "lora"), **settings}, "f1_macro",
        "maximize", max_examples=100, largest_budget_examples=100, seed=0, inputs_hash="i", threads=1, devices=("cpu",),
        dir=str(folder),
    )  # fmt: skip
    return Train((spec,), INSPECTION)


def pack(folder: Path, *rates: float) -> Train:
    """A request of several trials, in folders named by their numbers."""
    return packed(*(trial(folder / str(n), n, learning_rate=rate) for n, rate in enumerate(rates)))


def packed(*requests: Train) -> Train:
    """One request of the trials of several."""
    return Train(tuple(request.spec for request in requests), INSPECTION)


def score(source: str, folder: Path | str = "cache") -> Score:
    return Score(workload(source, cache=folder), INSPECTION, threads=1, devices=("cpu",))


# --- driving -------------------------------------------------------------------------------------------


def next_event(executor: Any, timeout_s: float = 60.0) -> Any:
    """Waits as the search does: None only means that nothing has come yet."""
    deadline = time.monotonic() + timeout_s
    while (message := executor.wait(timeout_s=0.5)) is None:
        assert time.monotonic() < deadline, "no event came"
    return message


def run_to_end(executor: Any, *requests: Any, verdict: str = "go") -> list[list[Any]]:
    """Events of each request, every evaluation answered with `verdict`."""
    return ends_of(executor, *map(executor.submit, requests), verdict=verdict)


def ends_of(executor: Any, *ids: int, verdict: str | None = "go") -> list[list[Any]]:
    """Events that requests under way still have to tell, by their ids; with verdict None nobody answers."""
    events: dict[int, list[Any]] = {request_id: [] for request_id in ids}
    ended: set[int] = set()
    while len(ended) < len(events):
        request_id, event = next_event(executor)
        assert request_id not in ended, "an event after the terminal one"
        events[request_id].append(event)
        if isinstance(event, TrialEvent) and isinstance(event.report, Evaluation) and verdict:
            executor.reply(request_id, event.trial, verdict)
        if isinstance(event, TERMINAL):
            ended.add(request_id)
    return list(events.values())


def reports_of(events: Any, trial: int = 0) -> list[Any]:
    """What a request's events say of one of its trials."""
    return [event.report for event in events if isinstance(event, TrialEvent) and event.trial == trial]


def last_of(executor: Any, request: Any) -> Any:
    """A request's terminal event; of one that trained a single trial, how that ended."""
    [events] = run_to_end(executor, request)
    return events[-2].report if isinstance(events[-1], Trained) else events[-1]


def until(executor: Any, kind: type) -> Any:
    """The next event, or report of a trial, of a kind, whatever comes before it."""
    while True:
        event = next_event(executor)[1]
        found = event.report if isinstance(event, TrialEvent) else event
        if isinstance(found, kind):
            return found


def wait_for(condition: Callable[[], Any], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def ends_within(seconds: float, call: Callable[[], Any], otherwise: Callable[[], Any]) -> bool:
    """Whether a call returns in time; `otherwise` has to set it free, so that the test ends."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(timeout=seconds)
    in_time = not thread.is_alive()
    if not in_time:
        otherwise()
    thread.join()
    return in_time


# --- processes -----------------------------------------------------------------------------------------


def state_of(pid: int) -> str:
    """As the kernel names it: R, S, T (stopped), Z (ended, not yet collected by its parent); empty when gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_running(pid: int) -> bool:
    return state_of(pid) not in ("", "Z", "X")


def assert_ends(pid: int) -> None:
    wait_for(lambda: not is_running(pid))


def pids_of(folder: Path) -> tuple[int, int]:
    """(child, host) of a trial, once it has written them down."""
    wait_for((folder / "pid").exists)
    child, host = map(int, (folder / "pid").read_text().split())
    return child, host
