"""What an examination found: a line each, in groups, as lines of text for people."""

from __future__ import annotations

import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hpo.quoting import clipped
from hpo.remedies import first_line

Mark = Literal["ok", "note", "problem"]
_WIDTH_OF_MARK = len("problem") + 2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    mark: Mark
    """`note`: it works, and a person should know of it. `problem`: something does not work."""
    what: str
    found: str
    remedy: str = ""
    """What to do about it."""

    @property
    def text(self) -> str:
        """On one line."""
        return f"{self.what}: {self.found}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Check:
    """Something to look at, and for how long at most."""

    group: str
    look: Callable[[], Iterable[Finding]]
    limit_s: float = 5.0


@dataclass
class Group:
    """What was found about one subject."""

    title: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def worst(self) -> Mark:
        """The gravest mark in it."""
        marks = {finding.mark for finding in self.findings}
        return "problem" if "problem" in marks else "note" if "note" in marks else "ok"


def examine(checks: Sequence[Check]) -> list[Group]:
    """Make all checks side by side; one that takes longer than its limit is a problem, and nobody waits for it."""
    found: list[list[Finding] | None] = [None] * len(checks)

    def work(index: int) -> None:
        found[index] = _looked(checks[index])

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(checks))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    groups: dict[str, Group] = {}
    for index, (check, thread) in enumerate(zip(checks, threads, strict=True)):
        thread.join(max(0.0, check.limit_s - (time.monotonic() - began)))
        late = Finding("problem", check.group, f"no answer within {check.limit_s:g} s", "see whether it hangs")
        findings = found[index]
        groups.setdefault(check.group, Group(check.group)).findings += [late] if findings is None else findings
    return [group for group in groups.values() if group.findings]


def _looked(check: Check) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(check.look())
    except Exception as error:  # noqa: BLE001  # what goes wrong with one check must not hide the others
        why = clipped(first_line(error), 300)
        findings.append(Finding("problem", check.group, f"cannot be examined: {why}"))
    return findings


def lines_of(groups: Sequence[Group], width: int | None) -> Iterator[str]:
    """All findings as text; `width` wraps the lines of a terminal, and None leaves them whole for other programs."""
    for group in groups:
        yield group.title
        for finding in group.findings:
            mark, text = f"  {finding.mark:<{_WIDTH_OF_MARK}}", finding.text
            if width is None:
                yield mark + text
            else:
                yield from textwrap.wrap(
                    text, max(40, width - 1), initial_indent=mark, subsequent_indent=" " * len(mark),
                    break_on_hyphens=False,
                )  # fmt: skip
        yield ""
    yield _sum_of([finding.mark for group in groups for finding in group.findings])


def _sum_of(marks: Sequence[Mark]) -> str:
    problems, notes = marks.count("problem"), marks.count("note")
    if not problems:
        return f"no problems; {notes} note{'s' * (notes != 1)}" if notes else "no problems"
    return f"{problems} problem{'s' * (problems != 1)}, {notes} note{'s' * (notes != 1)}"
