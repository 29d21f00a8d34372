"""Answers to texts on the command line, as JSON: `python -m runtime "a text"` in the folder of a release."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .card import ReleaseError
from .release import Release


def main(texts: Sequence[str]) -> int:
    """Print the answer to each text, from the release around this folder; return the exit code."""
    if not texts:
        print('usage: python -m runtime "a text" ...', file=sys.stderr)
        return 2
    try:
        answers = Release.load(Path(__file__).parent.parent).predict(list(texts))
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
