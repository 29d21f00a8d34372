"""`hpo doctor`: what a person needs to know before they trust a machine, or ask others for help."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hpo.care.finding import Check, Finding, Group, examine, lines_of
from hpo.care.machine import look_at_machine, look_at_variables
from hpo.errors import UsageError
from hpo.paths import Home
from hpo.remedies import packages_again
from trainers.protocol.codec import to_json

MACHINE, HOME, STUDIES = "This machine", "Home", "Server of the studies"
_DISK_LIMIT_S, _HOME_LIMIT_S = 10.0, 30.0
"""Of checks that may read much; a server has 5 seconds."""
WIDEST = 100
"""Longer lines are hard to read, however wide the terminal is."""


def examine_all(home: Home, address: str | None = None, environment: Mapping[str, str] = os.environ) -> list[Group]:
    """Everything, side by side: a server that is dead costs no more than its limit. `address` is that of a cluster."""
    checks = [Check(MACHINE, look_at_machine), Check(MACHINE, partial(look_at_variables, environment))]
    try:
        checks += [*_of_machine(), *_of_home(home, environment), *([] if address is None else _of_cluster(address))]
    except ImportError as error:  # a package is missing or broken: that is what the doctor is asked for
        broken = Finding("problem", "packages", f"{error}; the rest cannot be examined", packages_again())
        checks.append(Check(MACHINE, lambda: [broken]))
    return examine(checks)


def _of_machine() -> Iterator[Check]:
    from hpo.care import gpus
    from hpo.care.packages import look_at_packages

    yield Check(MACHINE, look_at_packages)
    yield Check(MACHINE, gpus.look_at_gpus, gpus.LIMIT_S)


def _of_home(home: Home, environment: Mapping[str, str]) -> Iterator[Check]:
    from hpo.care.disks import look_at_disks
    from hpo.care.home_health import look_at_home
    from hpo.care.servers import look_at_studies_server, look_at_tracking_server

    studies, wrong = None, []
    try:
        studies = home.studies_db
    except UsageError as error:
        wrong = [Finding("problem", "address", str(error))]
    is_here = studies is not None and studies.file is not None
    yield Check(HOME, partial(look_at_disks, home, has_studies=is_here), _DISK_LIMIT_S)
    yield Check(HOME, partial(look_at_home, home, studies), _HOME_LIMIT_S)
    yield Check(STUDIES, lambda: wrong or look_at_studies_server(studies))
    yield Check("Tracking server", partial(look_at_tracking_server, environment))


def _of_cluster(address: str) -> Iterator[Check]:
    from hpo.care import cluster

    yield Check("Ray cluster", partial(cluster.look_at_cluster, address), cluster.LIMIT_S)


def show_groups(groups: Sequence[Group]) -> str:
    """The text for a person: wrapped on a terminal, a line each in a pipe."""
    width = min(WIDEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
    return "\n".join(lines_of(groups, width))


def groups_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """As `hpo doctor --json` prints them."""
    return [to_json(group) for group in groups]


def exit_code_of(groups: Sequence[Group]) -> int:
    """1 where something is wrong."""
    return int(any(group.worst == "problem" for group in groups))
