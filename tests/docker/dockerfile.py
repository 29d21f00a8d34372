"""The instructions of `docker/Dockerfile`, by stage, with the values of its arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).parents[2] / "docker" / "Dockerfile"
IGNORE = FILE.with_name("Dockerfile.dockerignore")


@dataclass(frozen=True)
class Instruction:
    """One instruction; `text` is what follows its word, on one line."""

    word: str
    text: str


@dataclass
class Stage:
    """A stage, whose `FROM` has the name of its base."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """The texts of all instructions of one kind."""
        return [instruction.text for instruction in self.instructions if instruction.word == word]


def instructions() -> list[Instruction]:
    """All of them in order; comments are left out, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def arguments() -> dict[str, str]:
    """The build arguments with their defaults."""
    return dict(i.text.split("=", 1) for i in instructions() if i.word == "ARG")


def stages() -> dict[str, Stage]:
    """All stages by name."""
    found: dict[str, Stage] = {}
    for instruction in instructions():
        if instruction.word == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            found[name] = Stage(name, base.replace("${PYTHON_IMAGE}", arguments()["PYTHON_IMAGE"]))
        elif found:
            next(reversed(found.values())).instructions.append(instruction)
    return found


def let_in() -> list[str]:
    """What of the project's folder a build sees."""
    lines = [line for line in IGNORE.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return [line.removeprefix("!") for line in lines if line.startswith("!")]
