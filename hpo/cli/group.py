"""What all commands share: the group that they belong to, how its help lists them, and how results are printed."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.quoting import visible

if TYPE_CHECKING:
    from hpo.progress_view import ProgressView
    from hpo.results.summary import SweepSummary

FILE = click.Path(path_type=Path, dir_okay=False)
PATH = click.Path(path_type=Path)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_TITLES = {"hpo.cli.sweeps": "Sweeps", "hpo.cli.releases": "Released models", "hpo.cli.schedules": "Nights",
           "hpo.cli.care": "The home and its machine"}  # fmt: skip


class CommandsByFile(click.Group):
    """A group whose help has a section for each file of commands, in the order in which they stand there."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for module, title in _TITLES.items():
            found = [c for c in self.commands.values() if getattr(c.callback, "__module__", "") == module]
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(limit)) for command in found])


def print_text(text: str, *, err: bool = False) -> None:
    """Print a text without a view; control characters are shown as escapes."""
    print(visible(text), file=sys.stderr if err else sys.stdout, flush=True)


def json_line(value: Any) -> str:
    """JSON in ASCII without control characters: `json.dumps` escapes all of them except DEL."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def print_json(value: Any) -> None:
    """Print JSON for people to read and programs to parse."""
    from hpo.results.json_text import json_text

    print(json_text(value).replace("\x7f", "\\u007f"), flush=True)  # else without control characters


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's cyclic collector: of a command that reads, prints and ends, it would look at every record again
    and again, which takes as long as the reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def end_sweep(summary: SweepSummary, view: ProgressView, *, as_json: bool) -> None:
    """Show what came out. Raises `GateRefused` where a gate said no."""
    from hpo.commands.show import show_sweep
    from hpo.commands.sweep import raise_refusal

    if as_json:
        print_json(summary.for_json_text())
    else:
        show_sweep(view, summary, hints=True)
    raise_refusal(summary)


@click.group(cls=CommandsByFile, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpo", message="%(version)s")
@click.option("--home", metavar="PATH", help="Data folder. Default: HPO_HOME, or ./mlruns without it.")
@click.pass_context
def cli(context: click.Context, home: str | None) -> None:
    """Find the best LoRA fine-tune inside a budget, and release it as a measured ONNX model.

    To begin: hpo init NAME.yaml, then hpo check, hpo plan and hpo sweep with that file.
    """
    from hpo.paths import Home

    context.obj = Home.locate(home)
