"""`hpo doctor`: what a person needs to know before they trust a machine, or ask others for help."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hpo.care import cluster, gpus
from hpo.care.cluster import look_at_cluster
from hpo.care.disks import look_at_disks
from hpo.care.finding import Check, Finding, Group, examine, lines_of
from hpo.care.gpus import look_at_gpus
from hpo.care.home_health import look_at_home
from hpo.care.machine import look_at_machine, look_at_variables
from hpo.care.packages import look_at_packages
from hpo.care.servers import look_at_studies_server, look_at_tracking_server
from hpo.errors import UsageError
from hpo.paths import Home
from trainers.protocol.codec import to_json

MACHINE, HOME = "This machine", "Home"
_DISK_LIMIT_S, _HOME_LIMIT_S = 10.0, 30.0
"""Of checks that may read much; a server has 5 seconds."""
WIDEST = 100
"""Longer lines are hard to read, however wide the terminal is."""


def examine_all(home: Home, address: str | None = None, environment: Mapping[str, str] = os.environ) -> list[Group]:
    """Everything, side by side: a server that is dead costs no more than its limit. `address` is that of a cluster."""
    try:
        studies, wrong = home.studies_db, None
    except UsageError as error:
        studies, wrong = None, Finding("problem", "address", str(error))
    checks = [
        Check(MACHINE, look_at_machine),
        Check(MACHINE, look_at_packages),
        Check(MACHINE, look_at_gpus, gpus.LIMIT_S),
        Check(MACHINE, partial(look_at_variables, environment)),
        Check(HOME, partial(look_at_disks, home, has_studies=bool(studies and studies.file)), _DISK_LIMIT_S),
        Check(HOME, partial(look_at_home, home, studies), _HOME_LIMIT_S),
        Check("Tracking server", partial(look_at_tracking_server, environment)),
        Check("Server of the studies", lambda: [wrong] if wrong else look_at_studies_server(studies)),
    ]
    if address is not None:
        checks.append(Check("Ray cluster", partial(look_at_cluster, address), cluster.LIMIT_S))
    return examine(checks)


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
