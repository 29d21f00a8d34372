"""Says which version a name means now, to a server that has no MLflow: `python -m hpo.release.lookup HOME`.

A line of its input is a JSON list of references. Its answer is one line of JSON: for each reference
{"folder", "version"}, or {"problem"} where it means no version. It ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TextIO

from hpo.errors import HpoError
from hpo.paths import Home
from hpo.quoting import clipped
from hpo.release.reference import version_named


def answer(home: Home, reference: str) -> dict[str, str]:
    """What a reference means: the folder of a version and its number, or why it means none."""
    try:
        version = version_named(home, reference)
        return {"folder": str(version.folder()), "version": version.version}
    except HpoError as error:
        return {"problem": str(error)}
    except Exception as error:  # noqa: BLE001  # MLflow and SQLAlchemy raise many kinds, and the next question may go well
        return {"problem": f"the registry cannot be read: {type(error).__name__}: {clipped(str(error))}"}


def main(home: Home) -> None:
    """Answer until the input ends."""
    os.nice(10)  # the server's answers come first
    with _answers() as out:
        for line in sys.stdin:
            print(
                json.dumps({reference: answer(home, reference) for reference in json.loads(line)}), file=out, flush=True
            )


def _answers() -> TextIO:
    """Where answers go: to the output alone, so that what MLflow prints is no answer."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


if __name__ == "__main__":
    try:
        main(Home(Path(sys.argv[1])))
    except BrokenPipeError:  # the server has ended
        sys.exit(0)
