"""One request while nothing else is under way, and a trainer's findings as an error."""

from __future__ import annotations

from hpo.errors import ConfigError, Problem, RequestFailed
from hpo.executors.base import Executor
from trainers.spec import TERMINAL, Event, Failed, Request


def run_alone(executor: Executor, request: Request) -> Event:
    """Run one request while nothing else is under way; returns its terminal event.

    Raises `ConfigError` for problems in data or model, `RequestFailed` for any other failure.
    """
    request_id = executor.submit(request)
    while True:
        message = executor.wait()
        if message is None or message[0] != request_id:
            continue
        event = message[1]
        if isinstance(event, Failed):
            raise data_error(event) if event.cause == "data" else RequestFailed(f"{event.cause}: {event.message}")
        if isinstance(event, TERMINAL):
            return event


def data_error(failure: Failed) -> ConfigError:
    """A trainer's findings as the error a person sees."""
    findings = [Problem(f.where, f.found, f.expected) for f in failure.findings]
    return ConfigError(findings or [Problem("data", failure.message)])
