"""The servers that a home works with: whether they answer, take the login, and agree on the time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version

from hpo.care.finding import Finding
from hpo.databases.migrations import optuna_migrations
from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, UsageError
from hpo.study.server_health import ask_studies_server
from hpo.tracking.remote.health import ask_server
from hpo.tracking.remote.server import TrackingServer

LIMIT_S = 4.0
"""For all questions to one server."""
SKEW_NOTED_S, SKEW_BAD_S = 2.0, 60.0
"""Leases and signed requests go wrong with clocks that differ by a minute or more."""


def look_at_tracking_server(environment: Mapping[str, str]) -> Iterator[Finding]:
    """The server of `MLFLOW_TRACKING_URI`; nothing where it names none."""
    try:
        server = TrackingServer.named(environment)
    except UsageError as error:
        yield Finding("problem", "address", str(error))
        return
    if server is None:
        return
    health = ask_server(server, environment, LIMIT_S)
    if health.problem:
        yield Finding("problem", server.url, health.problem, health.remedy)
    else:
        ours = version("mlflow")
        found = "answers, and takes the login" + (f"; MLflow {health.version}" if health.version else "")
        if health.version and health.version.split(".")[0] != ours.split(".")[0]:
            yield Finding(
                "note", server.url, f"{found}, and {ours} here", "use one major version of MLflow in both places"
            )
        else:
            yield Finding("ok", server.url, found)
    if health.skew_s is not None:
        yield clock_finding(health.skew_s, "the server")


def look_at_studies_server(studies: StudiesDatabase | None) -> Iterator[Finding]:
    """The server of `HPO_STUDIES`; nothing where the studies are in a file."""
    if studies is None or studies.file is not None:
        return
    health = ask_studies_server(studies, int(LIMIT_S))
    if health.problem:
        yield Finding("problem", str(studies), health.problem, "see that it runs, and that this machine reaches it")
        return
    yield Finding("ok", str(studies), f"answers; PostgreSQL {health.version}")
    yield clock_finding(health.skew_s, "the server")
    yield _schema_finding(studies, health.revision)
    for name, holder in sorted(health.holders.items()):
        yield Finding("ok", "lease", f"{name}: {holder}")


def _schema_finding(studies: StudiesDatabase, revision: str) -> Finding:
    if not revision:
        return Finding("ok", "schema", "no tables yet; the first sweep makes them")
    try:
        optuna_migrations().check(str(studies), revision)
    except HpoError as error:
        return Finding("problem", "schema", str(error))
    return Finding("ok", "schema", f"{revision} of optuna")


def clock_finding(skew_s: float, machine: str) -> Finding:
    """About a clock that is so many seconds ahead of this machine's."""
    direction = "ahead of" if skew_s > 0 else "behind"
    found = f"{machine} is {abs(skew_s):,.0f} s {direction} this machine"
    if abs(skew_s) < SKEW_NOTED_S:
        return Finding("ok", "clock", f"{machine} and this machine agree")
    way = "set both clocks by NTP"
    return Finding("problem" if abs(skew_s) >= SKEW_BAD_S else "note", "clock", found, way)
