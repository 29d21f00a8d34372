"""The language of the house: every public definition says what it is, and no message uses words that slow a reader."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.maps import MAP, ROOT

BAD_WORDS = (
    (r"\btold\b", "say who reports what, or name the thing that is recorded"),
    (r"\b(is|are) to be (had|found|read|done|made)\b", "is available, must be ..."),
    (r"\bwhom\b", "which trial, which person"),
    (r"\bwhose\b[^.;:]*\bare (others|it)\b", "split the sentence"),
    (r"\b(the same )?as (is|are) (what|that|those|the one)\b", "split the sentence: so are ..."),
    (r"\b(go|goes|going|gone) on (from|with)\b", "continue, resume, use as a starting point"),
    (r"\bof the user'?s\b|\bof (one'?s|ours) own\b", "the user's own ..., your own ..."),
    (r"\b(are|is) it[.,;)]", "name what it is"),
    (r"\bsays? otherwise\b", "conflict: both set ..."),
    (r"\bis (there|here) already\b", "already exists"),
    (r"\bone of every so many\b", "every N steps"),
    (r"\bwith fewer nothing is\b", "nothing is ... while fewer than"),
    (r"\b(is|are) others\b", "differ, are different"),
    (r"\b(that|what) (is|are) none\b", "that is not a ..."),
    (r"\b(made|drawn|released|written) anew\b", "again"),
    (r"\b(that|what|which|it) is no (?!longer|better|more|less|worse)", "that is not a ..."),
    (r"\bmend\b", "fix, repair"),
    (r"\bmay not be (read|written|used)\b", "cannot be ..."),
)
"""(what is refused, what helps instead); read with one space between words, in any case of letters."""


class Definition(NamedTuple):
    """A public class, function, method or property."""

    where: str
    docstring: str | None


@cache
def _modules() -> dict[Path, ast.Module]:
    files = [path for room in ("hpo", "trainers") for path in sorted((ROOT / room).rglob("*.py"))]
    return {path: ast.parse(path.read_text()) for path in files}


def _wing(path: Path) -> str:
    """`hpo/config`, or `hpo` for a file beside the wings."""
    return "/".join(path.relative_to(ROOT).parts[:2] if len(path.relative_to(ROOT).parts) > 2 else path.parts[-2:-1])


def _wings() -> list[str]:
    return sorted({_wing(path) for path in _modules()})


def _files(wing: str) -> dict[Path, ast.Module]:
    return {path: module for path, module in _modules().items() if _wing(path) == wing}


@cache
def _classes() -> dict[str, list[ast.ClassDef]]:
    found: dict[str, list[ast.ClassDef]] = {}
    for module in _modules().values():
        for node in module.body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def _bases(node: ast.ClassDef) -> Iterator[ast.ClassDef]:
    for base in node.bases:
        name = ast.unparse(base).split("[")[0].split(".")[-1]
        for found in _classes().get(name, []):
            yield found
            yield from _bases(found)


def _implements_a_documented_method(owner: ast.ClassDef, name: str) -> bool:
    members = (member for base in _bases(owner) for member in base.body)
    return any(isinstance(m, ast.FunctionDef) and m.name == name and ast.get_docstring(m) for m in members)


def _definitions(wing: str) -> Iterator[Definition]:
    for path, module in _files(wing).items():
        for node in module.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
            yield Definition(where, ast.get_docstring(node))
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if (
                    isinstance(member, ast.FunctionDef)
                    and not member.name.startswith("_")
                    and not _implements_a_documented_method(node, member.name)
                ):
                    where = f"{path.relative_to(ROOT)}:{member.lineno} {node.name}.{member.name}"
                    yield Definition(where, ast.get_docstring(member))


def _first_sentence(docstring: str) -> str:
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[\w)`\"'\]])[.:](?= |$)", paragraph)[0]


def _is_a_sentence(docstring: str) -> bool:
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    first = _first_sentence(docstring)
    ends = first != paragraph or paragraph.endswith(("?", "`"))
    return ends and not first[0].islower() and 2 <= len(first.split()) <= 45


@pytest.mark.parametrize("wing", _wings())
def test_every_public_definition_says_what_it_is(wing):
    definitions = list(_definitions(wing))
    assert not [d.where for d in definitions if not d.docstring], "no docstring"
    assert not [f"{d.where}: {d.docstring}" for d in definitions if d.docstring and not _is_a_sentence(d.docstring)]


def _docstrings(module: ast.Module) -> set[int]:
    """Ids of the string nodes that stand alone as statements: docstrings of modules, definitions and fields."""
    return {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}


def _commands(module: ast.Module) -> Iterator[tuple[int, str]]:
    """The docstrings that click shows as help."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(d) for d in node.decorator_list):
            yield node.lineno, ast.get_docstring(node) or ""


def _texts(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of all that a person may see: literals, whole f-strings with `{}` for a value, help of commands."""
    silent, inner = _docstrings(module), set()
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            text = "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
            yield node.lineno, text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent | inner:
            yield node.lineno, node.value
    yield from _commands(module)


def _refused(text: str) -> list[str]:
    flat = " ".join(text.split())
    return [
        f"{flat[max(0, found.start() - 40) : found.end() + 40]!r} ({instead})"
        for pattern, instead in BAD_WORDS
        for found in re.finditer(pattern, flat, re.IGNORECASE)
    ]


@pytest.mark.parametrize("wing", _wings())
def test_what_a_person_reads_is_plain(wing):
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path, module in _files(wing).items()
        for line, text in _texts(module)
        for what in _refused(text)
    ]
    assert not found, "\n".join(found)


PAGES = sorted(
    str(page.relative_to(ROOT))
    for places in ("*.md", "hpo/**/*.md", "trainers/*.md", "search_spaces/*.md", "docker/*.md", "tests/**/*.md")
    for page in ROOT.glob(places)
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_plain(page):
    """Without its map of files, which docstrings make."""
    assert not _refused(MAP.sub("", (ROOT / page).read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "told nothing for 30 minutes",
        "an int8 model is to be had",
        "as is what GPT-2 judges",
        "cannot be gone on from",
        "OUT is there already",
        "metrics of the user's",
        "the folders and files are it.",
        "bf16 says otherwise of fp16",
    ],
)
def test_the_worst_sentences_of_old_are_refused(text):
    assert _refused(text)
