"""`python -m tests.gpu`: what a GPU computes, against a CPU and against others; within eight minutes.

python -m tests.gpu --json FILE            all checks, the rows in a file too
python -m tests.gpu --only losses padding  some of them
python -m tests.gpu --rehearse             all their code on a CPU, with the smallest sizes
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.gpu import machine
from tests.gpu.alone import in_a_process
from tests.gpu.checks import CHECKS, Check
from tests.gpu.place import Place
from tests.gpu.rows import WIDTH, Row, not_run, shown, summary

MINUTES = 8.0
LEAST_S = 15.0
"""No check is begun with less time left."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where a check failed; where there is no GPU, it says why and ends with 0."""
    given = _parser().parse_args(arguments)
    checks = [CHECKS[name] for name in given.only or CHECKS]
    if not given.rehearse and (why := machine.why_no_gpu()):
        print(f"gpu-check is skipped: {why}. All its code on a CPU: python -m tests.gpu --rehearse")
        return 0
    facts = machine.facts()
    _say_where(facts, rehearses=given.rehearse)
    for missing in machine.left_out(checks):
        _say(missing, "  ")
    began, found = time.monotonic(), dict[str, list[Row]]()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        for check in checks:
            left_s = MINUTES * 60 - (time.monotonic() - began)
            print(f"\n{check.name}: {check.about}", flush=True)
            found[check.name] = _rows_of(check, Path(scratch), left_s, rehearses=given.rehearse)
            for row in found[check.name]:
                print(shown(row), flush=True)
    every = [row for rows in found.values() for row in rows]
    seconds = time.monotonic() - began
    print(f"\n{summary(every)}, in {seconds:.0f} s")
    if given.rehearse:
        print("rehearsed on a CPU: the figures say nothing")
    if given.json:
        rows = {name: [asdict(row) for row in rows] for name, rows in found.items()}
        whole = {"machine": facts, "rehearsed": given.rehearse, "seconds": round(seconds, 1), "checks": rows}
        Path(given.json).write_text(json.dumps(whole, indent=1) + "\n")
    return int(any(row.outcome == "failed" for row in every))


def _rows_of(check: Check, scratch: Path, left_s: float, *, rehearses: bool) -> list[Row]:
    if missing := [name for name in check.needs if not machine.is_there(name)]:
        return [not_run(check.name, f"{', '.join(missing)} missing")]
    if left_s < LEAST_S:
        return [not_run(check.name, f"the {MINUTES:.0f} minutes are over")]
    folder = scratch / check.name
    folder.mkdir()
    return in_a_process(check, Place("cpu" if rehearses else "cuda:0", folder), left_s)


def _say_where(facts: dict[str, object], *, rehearses: bool) -> None:
    packages = facts["packages"]
    assert isinstance(packages, dict)
    named = ", ".join(f"{name} {packages[name]}" for name in machine.TRAINING if name in packages)
    gpus = ", ".join(map(str, facts["gpus"])) if isinstance(facts["gpus"], list) else ""
    _say("REHEARSAL on a CPU" if rehearses else f"{gpus}, driver {facts['driver']}, CUDA {facts['cuda_of_torch']}")
    _say(f"Python {facts['python']}, {named}")


def _say(text: str, indent: str = "") -> None:
    print(textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  "))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", metavar="FILE", help="write machine and rows there, too")
    parser.add_argument("--rehearse", action="store_true", help="run all code on a CPU, with the smallest sizes")
    parser.add_argument("--only", nargs="+", choices=tuple(CHECKS), metavar="CHECK", help=", ".join(CHECKS))
    return parser


if __name__ == "__main__":
    sys.exit(main())
