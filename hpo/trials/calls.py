"""Requests while nothing else is under way, and a trainer's findings as an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError, Problem, RequestFailed
from hpo.executors.base import Executor
from trainers.protocol.events import TERMINAL, Event, Failed
from trainers.protocol.requests import Request


def run_alone(executor: Executor, request: Request) -> Event:
    """Run one request while nothing else is under way; returns its terminal event.

    Raises `ConfigError` for problems in data or model, `RequestFailed` for any other failure.
    """
    return run_all(executor, [request], at_once=1)[0]


def run_all(executor: Executor, requests: Sequence[Request], at_once: int) -> list[Event]:
    """Run requests, so many at a time, while nothing else is under way; returns their terminal events in order.

    Raises as `run_alone` does, at the first failure; what else is under way then ends when the executor is closed.
    """
    waiting = list(enumerate(requests))
    under_way: dict[int, int] = {}
    ended: dict[int, Event] = {}
    while len(ended) < len(requests):
        while waiting and len(under_way) < at_once:
            index, request = waiting.pop(0)
            under_way[executor.submit(request)] = index
        message = executor.wait()
        if message is None or message[0] not in under_way:
            continue
        request_id, event = message
        if isinstance(event, Failed):
            if event.cause == "data":
                raise data_error(event)
            raise RequestFailed(f"{event.cause}: {event.message}", event.cause)
        if isinstance(event, TERMINAL):
            ended[under_way.pop(request_id)] = event
    return [ended[index] for index in range(len(requests))]


@contextmanager
def lines_of(config: SweepConfig) -> Iterator[None]:
    """Add the key's line to what a trainer finds wrong with a key of the YAML, in the `ConfigError` that it raises."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([replace(p, where=config.place(p.where)) for p in error.problems]) from error


def data_error(failure: Failed) -> ConfigError:
    """A trainer's findings as the error a person sees."""
    findings = [Problem(f.where, f.found, f.expected) for f in failure.findings]
    return ConfigError(findings or [Problem("data", failure.message)])
