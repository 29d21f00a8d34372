"""A serve configuration, a YAML file with the section `serve`, to a `ServeConfig`: every problem reported at once."""

from __future__ import annotations

from pathlib import Path

from hpo.config.keys import Flag, Group, Number, Text, Whole, read_all
from hpo.config.serve_config import LogSpec, ServeConfig
from hpo.config.serve_filters import ReleaseFolder, parse_filters
from hpo.config.yaml_source import Section, load
from hpo.errors import ConfigError
from hpo.given_path import given_path
from hpo.quoting import quoted

LOG = Group(
    "log_predictions", None, "a folder for predictions as JSON Lines, or a mapping", short=("string",),
    keys=(
        Text("dir", None, "the folder", is_required=True),
        Number("share", 1.0, "of the predictions and of the refused prompts, drawn at random", above=0, most=1),
        Flag("texts", False, "whether the texts are written down, too; without, their lengths and a salted hash are"),
        Number("max_mb", 64.0, "of one file; then comes the next", above=0),
        Whole("files", 10, "most files; the oldest is deleted", low=1),
    ),
)  # fmt: skip


def load_serve_config(file: Path, release_folder: ReleaseFolder) -> ServeConfig:
    """Read and check a serve configuration. Raises `ConfigError` with every problem of the file."""
    root = load(file)
    section = root.section("serve")
    if "serve" not in root:
        root.problem("is missing", "expected serve: with filter: or log_predictions:", "serve")
    config = ServeConfig(parse_filters(section, file.parent, release_folder), _log(section, file.parent))
    section.finish()
    root.finish()
    if root.problems:
        raise ConfigError(root.problems)
    return config


def _log(section: Section, folder: Path) -> LogSpec | None:
    """`log_predictions:`, a folder or a mapping."""
    given = section.raw("log_predictions")
    if "log_predictions" not in section:
        return None
    is_short = isinstance(given, str)
    log = section.child("log_predictions", {"dir": given}) if is_short else section.section("log_predictions")
    values = read_all(log, LOG.keys)
    log.finish()
    if "dir" not in log:
        log.problem("is missing", "expected a folder", "dir")
    if not values["dir"]:
        return None
    try:
        return LogSpec(**{**values, "dir": str(given_path(values["dir"], folder))})
    except ValueError as error:
        log.problem(f"got {quoted(values['dir'])}: {error}", "expected a folder", "dir")
        return None
