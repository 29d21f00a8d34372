"""The installed packages against what hpo needs: lower bounds, extras, and the lock of a source checkout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from hpo.care.finding import Finding
from hpo.quoting import listed
from hpo.remedies import LOCK

_FOR_USERS = ("cluster",)
"""Extras that give a user something; others are for developers."""


def look_at_packages(lock: Path | None = None) -> Iterator[Finding]:
    """What hpo needs and does not find, and what differs from the lock, which is that of the source by default."""
    needed: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {name: [] for name in _FOR_USERS}
    for line in metadata.requires("hpo") or []:
        requirement = Requirement(line)
        for extra, its in extras.items():
            if not _is_for("", requirement) and _is_for(extra, requirement):
                its.append(requirement)
        if _is_for("", requirement):
            needed.append(requirement)
    wrong = [requirement for requirement in needed if _problem(requirement)]
    for requirement in wrong:
        yield Finding("problem", "packages", _problem(requirement), _command([requirement]))
    if not wrong:
        yield Finding("ok", "packages", f"hpo {metadata.version('hpo')} and the {len(needed)} packages that it needs")
    for extra, its in extras.items():
        if its:
            yield _extra(extra, its)
    lock = LOCK if lock is None else lock
    if lock.is_file():
        yield from _against(lock)


def _is_for(extra: str, requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _problem(requirement: Requirement) -> str:
    """What is wrong with an installed package; empty where nothing is."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed; needed is {requirement.name}{requirement.specifier}"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} is {version}; needed is {requirement.name}{requirement.specifier}"


def _extra(name: str, its: list[Requirement]) -> Finding:
    wrong = [*filter(_problem, its)]
    names = listed(requirement.name for requirement in its)
    if not wrong:
        return Finding("ok", "extra", f"hpo[{name}]: {names}")
    problems = [*map(_problem, wrong)]
    if all("not installed" in problem for problem in problems) and len(wrong) == len(its):
        return Finding("ok", "extra", f"hpo[{name}] is not installed ({names})", f"{_command(its)} if you need it")
    return Finding("note", "extra", f"hpo[{name}]: {'; '.join(problems)}", _command(wrong))


def _command(requirements: Iterable[Requirement]) -> str:
    """What installs them. Never by the name of hpo itself: no package index has this project."""
    return "pip install " + " ".join(f"'{str(r).partition(';')[0].strip()}'" for r in requirements)


def _against(lock: Path) -> Iterator[Finding]:
    """Differences change no rights or wrongs, but numbers: two machines of one sweep should not differ."""
    others = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        try:
            pinned = Requirement(line)
        except InvalidRequirement:
            continue  # a comment or an option of pip
        try:
            version = metadata.version(pinned.name)
        except metadata.PackageNotFoundError:
            continue  # of an extra; what hpo needs is looked at before
        if not pinned.specifier.contains(version, prereleases=True):
            others.append(f"{pinned.name} {version} ({str(pinned.specifier).lstrip('=')})")
    if others:
        yield Finding("note", "lock", f"other versions than {lock.name} has: {listed(others)}",
                      f"pip install -r {lock} for exactly those that the tests run with")  # fmt: skip
    else:
        yield Finding("ok", "lock", f"every installed package has the version of {lock.name}")
