"""Answers to texts on the command line, as JSON: `python -m runtime "a text"` in the folder of a release.

In the folder of a bundle `python -m runtime --adapter NAME "a text"`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .bundle import Bundle
from .card import ReleaseError
from .release import Release


def main(texts: Sequence[str]) -> int:
    """Print the answer to each text, from the release around this folder; return the exit code."""
    adapter, texts = (texts[1], texts[2:]) if texts[:1] == ["--adapter"] and len(texts) > 1 else (None, texts)
    if not texts:
        print('usage: python -m runtime [--adapter NAME] "a text" ...', file=sys.stderr)
        return 2
    try:
        release = Release.load(Path(__file__).parent.parent)
        answers = (release if adapter is None else _adapted(release, adapter)).predict(list(texts))
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=False))
    return 0


def _adapted(release: Release, adapter: str) -> Release:
    """What one adapter of a bundle answers. Raises `ValueError` for one that there is not."""
    if not isinstance(release, Bundle):
        raise ValueError("this release is not a bundle; leave out --adapter")
    return release[adapter]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
