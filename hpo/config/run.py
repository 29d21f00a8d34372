"""The section `run`: where trials train. It decides no number, so it may change between two sessions of a sweep."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from hpo.config.keys import Flag, Group, OneOf, Text, read_all
from hpo.config.yaml_source import Section
from hpo.errors import UsageError
from hpo.quoting import clipped

ExecutorName = Literal["local", "ray"]
EXECUTORS = get_args(ExecutorName)
AUTO = "auto"
ADDRESS = re.compile(r"[^\s:/]+:[0-9]{1,5}")

RUN = Group(
    "run", None, "where trials train; it may change from one session of a sweep to the next",
    keys=(
        OneOf("executor", "local", "this machine (`local`), or the nodes of a Ray cluster (`ray`)", choices=EXECUTORS),
        Text("address", AUTO,
             "of the Ray cluster, HOST:PORT; `auto` is the cluster that this machine is part of, or a Ray of the "
             "sweep's own on this machine"),
        Flag("shared_home", False,
             "whether all nodes see home, model and data under the same paths: then nothing is copied"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Where trials train."""

    executor: ExecutorName = "local"
    address: str = AUTO
    """HOST:PORT of a Ray cluster, or `auto`."""
    shared_home: bool = False

    def instead(self, executor: ExecutorName | None, address: str | None) -> Run:
        """With what a command line says in its place: an address means Ray. Raises `UsageError`."""
        if executor == "local" and address is not None:
            raise UsageError(f"--address {clipped(address)} is for --executor ray")
        if address is not None and not is_address(address):
            raise UsageError(f"--address {clipped(address)}: expected HOST:PORT, as 10.0.0.1:6379, or {AUTO}")
        if executor == "local":
            return Run()
        chosen: ExecutorName = "ray" if address is not None else executor or self.executor
        return replace(self, executor=chosen, address=address or self.address)


def is_address(text: str) -> bool:
    """Whether a text is `auto`, or HOST:PORT."""
    return text == AUTO or ADDRESS.fullmatch(text) is not None


def parse_run(root: Section) -> Run:
    """Read `run:`."""
    section = root.section("run")
    run = Run(**read_all(section, RUN.keys))
    if not is_address(run.address):
        section.got(run.address, f"expected HOST:PORT, as 10.0.0.1:6379, or {AUTO}", "address")
    for name in ("address", "shared_home"):
        if run.executor == "local" and name in section:
            section.problem("is for run.executor: ray", "write executor: ray, or leave it out", name)
    section.finish()
    return run
