"""Performs the steps of the image in a clean folder, where no container engine runs.

    python -m tests.docker.rehearse [--folder DIR] [--build-arg NAME=VALUE]

The commands are those of `docker/Dockerfile`, read out of it: `/opt/hpo`, `/src` and the home are folders below DIR.
Left out is what needs another root: Debian's packages, the user, and the base image, for which this Python stands.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docker.dockerfile import FILE, Stage, arguments, stages

ROOT = FILE.parents[1]
_NAME = re.compile(r"\$\{?(\w+)\}?")


@dataclass
class Rehearsal:
    """A folder in which stages are performed."""

    folder: Path
    arguments: Mapping[str, str]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.folder), **pip}

    def here(self, text: str) -> str:
        """A text of the file with the places of this machine."""
        for place in ("/opt/hpo", "/src", "/var/lib/hpo"):
            text = re.sub(rf"(?<![\w/]){place}(?![\w-])", f"{self.folder}{place}", text)
        return text

    def perform(self, stage: Stage) -> None:
        """Its `ENV`, `COPY` and `RUN`. Raises `CalledProcessError` where a command fails."""
        known = dict(self.arguments)
        for instruction in stage.instructions:
            text = self.here(instruction.text)
            if instruction.word == "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", text):
                    self.environment[name] = _NAME.sub(lambda found: self.environment[found[1]], value)
            elif instruction.word == "COPY" and "--from" not in text:
                self._copy(text.split()[:-1])
            elif instruction.word == "RUN" and "apt-get" not in text:
                self._run(text, known)

    def _copy(self, words: list[str]) -> None:
        for name in (word for word in words if not word.startswith("--")):
            place = self.folder / "src" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, place)
            else:
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))

    def _run(self, command: str, known: Mapping[str, str]) -> None:
        began = time.monotonic()
        work = self.folder / "src"
        work.mkdir(exist_ok=True)
        shell = ["/bin/bash", "-euo", "pipefail", "-c", command]
        subprocess.run(shell, check=True, cwd=work, env={**known, **self.environment})
        print(f"{time.monotonic() - began:6.1f} s  {command[:100]}", flush=True)

    def start(self, words: list[str]) -> None:
        """A command of the image, through its entry point."""
        command = [str(ROOT / "docker" / "entrypoint.sh"), *words]
        subprocess.run(command, check=True, cwd=self.folder, env=self.environment)


def main() -> None:
    """Perform both stages, then the image's health check and its default command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--build-arg", action="append", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = (given.folder or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rehearsal = Rehearsal(folder, arguments() | dict(arg.split("=", 1) for arg in given.build_arg))
        rehearsal.perform(stages()["build"])
        runtime = stages()["runtime"]
        rehearsal.perform(runtime)
        (check,) = runtime.all("HEALTHCHECK")
        rehearsal.start(json.loads(check.partition("CMD ")[2])[1:])
        (command,) = runtime.all("CMD")
        rehearsal.start(json.loads(command))


if __name__ == "__main__":
    main()
