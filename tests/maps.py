"""The maps in `hpo/README.md` and `trainers/README.md`: each wing and file, with the first sentence of its docstring.

python -m tests.maps      write both maps again
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAP = re.compile(r"(?<=## The files\n\n).*?(?=\n## |\Z)", re.S)


def first_sentence(file: Path) -> str:
    """What a file says of itself, on one line and without its period."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)`\"])\.(?: (?=[A-Z`])|$)", text)[0]


def file_map(room: str) -> str:
    """A table for each wing of a room, headed by what the wing says of itself; files beside the wings come first."""
    files = sorted(p.relative_to(ROOT / room) for p in (ROOT / room).rglob("*.py") if p.name != "__init__.py")
    wings: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: (len(file.parts) > 1, file)):
        wings.setdefault(file.parts[0] if len(file.parts) > 1 else "", []).append(file)
    tables = []
    for wing, members in wings.items():
        rows = [f"| `{file}` | {first_sentence(ROOT / room / file)} |" for file in members]
        about = first_sentence(ROOT / room / wing / "__init__.py")
        head = f"| `{room}/{wing}{'/' * bool(wing)}` | {about} |"
        tables.append("\n".join([head, "|---|---|", *rows]) + "\n")
    return "\n".join(tables)


def main() -> None:
    for room in ("hpo", "trainers"):
        page = ROOT / room / "README.md"
        page.write_text(MAP.sub(lambda _, room=room: file_map(room), page.read_text()))


if __name__ == "__main__":
    main()
