"""The command line: click signatures only. What a command does is imported when it runs, so that help is instant.

This is why it is long: it holds every command, and nothing else.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpo.errors import HpoError
from hpo.quoting import visible


def _print(text: str, *, err: bool = False) -> None:
    """Print a text without a view; control characters are shown as escapes."""
    print(visible(text), file=sys.stderr if err else sys.stdout, flush=True)


def _json_line(value: Any, indent: int | None = None) -> str:
    """JSON in ASCII without control characters: `json.dumps` escapes all of them except DEL."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def _print_json(value: Any) -> None:
    _print(_json_line(value, indent=2))


def _ask(what: str, default: str | None, choices: Sequence[str]) -> str:
    """What a person at the terminal answers."""
    return str(click.prompt(what, default=default, type=click.Choice(choices) if choices else None))


_FILE = click.Path(path_type=Path, dir_okay=False)
_PATH = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpo", message="%(version)s")
@click.option("--home", metavar="PATH", help="Data folder. Default: HPO_HOME, or ./mlruns without it.")
@click.pass_context
def cli(context: click.Context, home: str | None) -> None:
    """Find the best LoRA fine-tune inside a budget, and release it as a measured ONNX model."""
    from hpo.paths import Home

    context.obj = Home.locate(home)


@cli.command()
@click.argument("file", type=_FILE)
@click.option("--task", help="What the model learns to do, e.g. text-classification.")
@click.option("--model", help="Hub id, folder or fetch:NAME.")
@click.option("--data", help="Training rows: a file, folder, pattern, hub id or fetch:NAME.")
@click.option("--column", "columns", metavar="KEY=NAME", multiple=True, help="A column's name, e.g. label=stars.")
def init(file: Path, task: str | None, model: str | None, data: str | None, columns: tuple[str, ...]) -> None:
    """Write a commented YAML to start from. A terminal is asked for what is not given."""
    from hpo.commands.init import init_sweep

    is_asked = sys.stdin.isatty() and sys.stdout.isatty()
    _print(init_sweep(file, task, model, data, columns, _ask if is_asked else None))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a sweep's YAML, for editors and other programs."""
    from hpo.commands.schema import schema_text

    _print(schema_text())


@cli.command()
@click.argument("file", type=_FILE)
@click.option("--jobs", type=click.IntRange(1), help="Trials to run in parallel. Default: as many as fit.")
@click.option("--threads", type=click.IntRange(1), help="Threads per trial. Default: cores divided by jobs.")
@_json
@click.pass_obj
def sweep(home: Any, file: Path, jobs: int | None, threads: int | None, as_json: bool) -> None:
    """Run or continue the sweep that FILE describes."""
    from hpo.commands.show import show_sweep
    from hpo.commands.sweep import raise_refusal, run_sweep
    from hpo.terminal import Silent, TerminalView

    view = Silent() if as_json else TerminalView()
    summary = run_sweep(file, home, jobs=jobs, threads=threads, view=view)
    if as_json:
        _print_json(summary.to_json())
    else:
        show_sweep(view, summary, hints=True)
    raise_refusal(summary)


@cli.command()
@click.argument("file", type=_FILE)
@click.option("--trial", type=click.IntRange(0), help="Release this complete trial instead of the champion.")
@_json
@click.pass_obj
def promote(home: Any, file: Path, trial: int | None, as_json: bool) -> None:
    """Release the champion of FILE's sweep, which has ended, without training.

    Exports and measures it again with the promote: settings of FILE.
    """
    from hpo.commands.promote import run_promotion
    from hpo.commands.show import show_sweep
    from hpo.commands.sweep import raise_refusal
    from hpo.terminal import Silent, TerminalView

    view = Silent() if as_json else TerminalView()
    summary = run_promotion(file, home, trial=trial, view=view)
    if as_json:
        _print_json(summary.to_json())
    else:
        show_sweep(view, summary, hints=True)
    raise_refusal(summary)


@cli.command()
@click.argument("file", type=_FILE)
@click.option("--fix", metavar="OUT", type=_PATH, help="Write a clean copy of the data to OUT.")
@click.option("--served", metavar="LOG", type=_PATH, multiple=True, help="Compare prediction logs with the data.")
@_json
@click.pass_obj
def check(home: Any, file: Path, fix: Path | None, served: tuple[Path, ...], as_json: bool) -> None:
    """Check the config, data and model of FILE without training.

    Lists every problem at once, and shows what a trial will see.
    """
    from hpo.commands.check import check_sweep, raise_findings, show_check
    from hpo.terminal import TerminalView

    checked = check_sweep(file, home, clean_dir=fix, served=served)
    if as_json:
        _print_json(checked)
    else:
        show_check(TerminalView(), checked)
    raise_findings(checked)


@cli.command()
@click.argument("file", type=_FILE)
@click.option("--jobs", type=click.IntRange(1), help="Trials to run in parallel, as for sweep.")
@_json
@click.pass_obj
def plan(home: Any, file: Path, jobs: int | None, as_json: bool) -> None:
    """Estimate the trials, time, memory and cost of the sweep of FILE.

    Measures a few training steps; takes about a minute.
    """
    from hpo.commands.plan import make_plan
    from hpo.terminal import Silent, TerminalView, show_plan

    planned = make_plan(file, home, jobs, Silent() if as_json else TerminalView())
    if as_json:
        _print_json(planned)
    else:
        show_plan(TerminalView(), planned)


@cli.command()
@click.argument("name", metavar="SWEEP")
@click.option("--now", is_flag=True, help="Stop without new checkpoints. Work since the last ones is lost.")
@click.pass_obj
def stop(home: Any, name: str, now: bool) -> None:
    """Stop the running SWEEP; its trials write checkpoints, and `hpo sweep` resumes them."""
    from hpo.commands.stop import stop_sweep

    _print(stop_sweep(home, name, now=now))


@cli.command()
@click.argument("name", metavar="SWEEP")
@_json
@click.pass_obj
def show(home: Any, name: str, as_json: bool) -> None:
    """Show the leaderboard, champion and release of SWEEP."""
    from hpo.commands.show import read_sweep, show_sweep
    from hpo.terminal import TerminalView

    summary = read_sweep(home, name)
    if as_json:
        _print_json(summary.to_json())
    else:
        show_sweep(TerminalView(), summary, hints=False)


@cli.command()
@click.argument("name", metavar="SWEEP")
@click.option("--format", "form", type=click.Choice(["html", "md", "json", "csv"]), default="html", show_default=True)
@click.option("--output", type=_FILE, help="File to write; - prints it. Default: report.html in the sweep's folder.")
@click.pass_obj
def report(home: Any, name: str, form: Any, output: Path | None) -> None:
    """Write SWEEP as one page: what won, how sure that is, what it cost, what to try next."""
    from hpo.commands.report import report as text_of
    from hpo.commands.report import write_report

    is_printed = str(output) == "-"
    _print(text_of(home, name, form).rstrip("\n") if is_printed else str(write_report(home, name, form, output)))


@cli.command("list")
@_json
@click.pass_obj
def list_(home: Any, as_json: bool) -> None:
    """List all sweeps."""
    from hpo.commands.show import UnreadableSweep, list_sweeps, show_list
    from hpo.terminal import TerminalView

    found = list_sweeps(home)
    if as_json:
        _print_json([sweep.to_json() for sweep in found])
    else:
        problems = [sweep.problem for sweep in found if isinstance(sweep, UnreadableSweep)]
        show_list(TerminalView(), [s for s in found if not isinstance(s, UnreadableSweep)], problems)


@cli.command()
@click.argument("name", required=False)
@click.option("--list", "list_assets", is_flag=True, help="List all of them, with size and licence.")
@_json
@click.pass_obj
def fetch(home: Any, name: str | None, list_assets: bool, as_json: bool) -> None:
    """Download a demo model or data set into the cache, once."""
    from hpo.demo.assets import asset_row
    from hpo.demo.fetch import ASSETS, fetched_path
    from hpo.demo.fetch import fetch as bring

    if name and not list_assets:
        path = bring(name, home.dir, say=lambda text: _print(text, err=True))
        _print(_json_line({"name": name, "path": str(path)}) if as_json else str(path))
        return
    if not list_assets:
        raise click.UsageError("give the name of a demo model or data set; --list shows all of them")
    here = {asset: fetched_path(asset, home.dir) for asset in ASSETS}
    if as_json:
        _print_json([asset_row(a, here[a.name]) for a in ASSETS.values()])
    else:
        from hpo.terminal import TerminalView, show_assets

        show_assets(TerminalView(), ASSETS, {name: path is not None for name, path in here.items()})


@cli.command()
@click.argument("name")
@click.argument("texts", nargs=-1, required=True)
@_json
@click.pass_obj
def predict(home: Any, name: str, texts: tuple[str, ...], as_json: bool) -> None:
    """Ask the released model NAME for an answer to each of TEXTS.

    Where an input has several columns, write it as JSON: {"text": ..., "text_pair": ...}.
    """
    from hpo.commands.predict import answer_line
    from hpo.commands.predict import predict as ask

    for answer in ask(home, name, list(texts)):
        _print(_json_line(answer) if as_json else answer_line(answer))


@cli.command()
@click.argument("name")
@click.argument("sweeps", metavar="SWEEP[#TRIAL]...", nargs=-1, required=True)
@_json
@click.pass_obj
def bundle(home: Any, name: str, sweeps: tuple[str, ...], as_json: bool) -> None:
    """Release the champions of finished sweeps as adapters on one base model, under NAME.

    They must share the base model and the task. Nothing is released unless each adapter answers as its merged model.
    """
    from hpo.commands.bundle import make_bundle, show_bundle
    from hpo.terminal import Silent, TerminalView

    view = Silent() if as_json else TerminalView()
    made = make_bundle(home, name, sweeps, view)
    if as_json:
        _print_json(made)
    else:
        show_bundle(view, made)


@cli.command()
@click.argument("names", metavar="NAME[@ALIAS|/VERSION]...", nargs=-1, required=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Any other than this machine's own needs a key.")
@click.option("--key-file", type=_FILE, help="API keys, one a line: KEY, infer:KEY or admin:KEY. Default: HPO_API_KEY.")
@click.option("--follow", is_flag=True, help="Serve a new champion, or a moved alias, as soon as there is one.")
@click.option("--config", type=_FILE, help="YAML with the filters and the prediction log.")
@click.option("--log-predictions", metavar="DIR", type=_PATH, help="Write predictions to DIR, without their texts.")
@click.pass_obj
def serve(
    home: Any, names: tuple[str, ...], port: int, host: str, key_file: Path | None, follow: bool, config: Path | None,
    log_predictions: Path | None,
) -> None:  # fmt: skip
    """Serve released models, or release folders, over HTTP with OpenAI's API.

    A key of role infer asks the models. A key without a role also reads /metrics. A key of role admin also loads and
    unloads models.
    """
    from hpo.commands.serve import serve as run_server

    run_server(home, names, host, port, key_file, follow=follow, config=config, log_dir=log_predictions)


@cli.command()
@click.argument("name", required=False)
@_json
@click.pass_obj
def releases(home: Any, name: str | None, as_json: bool) -> None:
    """List the released versions of all models, or of NAME, with their aliases and numbers."""
    from dataclasses import asdict

    from hpo.commands.releases import show_releases
    from hpo.release.listing import list_releases
    from hpo.terminal import TerminalView

    found = list_releases(home, name)
    if as_json:
        _print_json([asdict(version) for version in found])
    else:
        show_releases(TerminalView(), found, with_origins=name is not None)


@cli.command()
@click.argument("name", metavar="NAME[/VERSION]")
@click.pass_obj
def approve(home: Any, name: str) -> None:
    """Make the challenger of NAME, or VERSION, its champion."""
    from hpo.commands.aliases import approve_challenger

    _print(approve_challenger(home, name))


@cli.command()
@click.argument("name")
@click.pass_obj
def rollback(home: Any, name: str) -> None:
    """Make the previous champion of NAME its champion again."""
    from hpo.commands.aliases import roll_back_champion

    _print(roll_back_champion(home, name))


@cli.command()
@click.argument("name", metavar="[NAME[/VERSION]]", required=False)
@click.option("--sweep", metavar="SWEEP", help="Delete a sweep: its study, runs, files and releases.")
@click.option("--force", is_flag=True, help="Delete also what is champion, previous champion or needed by others.")
@click.pass_obj
def delete(home: Any, name: str | None, sweep: str | None, force: bool) -> None:
    """Delete released versions of NAME, or a sweep, from disk."""
    if (name is None) == (sweep is None):
        raise click.UsageError("give the name of a released model, or --sweep SWEEP")
    from hpo.commands.delete import delete_release, delete_whole_sweep

    _print(delete_whole_sweep(home, sweep, force=force) if sweep else delete_release(home, str(name), force=force))


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@click.option("--releases", is_flag=True, help="Also delete released versions without an alias.")
@_json
@click.pass_obj
def gc(home: Any, dry_run: bool, releases: bool, as_json: bool) -> None:
    """Free disk space that no sweep and no release needs."""
    from dataclasses import asdict

    from hpo.commands.gc import collect_garbage, show_freed
    from hpo.terminal import TerminalView

    freed = collect_garbage(home, dry_run=dry_run, releases=releases)
    if as_json:
        _print_json([asdict(kind) for kind in freed])
    else:
        show_freed(TerminalView(), freed, dry_run=dry_run)


@cli.command()
@click.argument("run", metavar="RUN")
@click.option("--threads", type=click.IntRange(1), help="Threads to train with. Default: as many as the run had.")
@_json
@click.pass_obj
def reproduce(home: Any, run: str, threads: int | None, as_json: bool) -> None:
    """Train RUN again and compare: equal bits, within bounds, or what differs.

    RUN is SWEEP (its champion), SWEEP#TRIAL, SWEEP#TRIAL.REPEAT, or a release: NAME/VERSION, NAME@ALIAS.
    """
    from hpo.commands.reproduce import raise_difference, show_reproduction
    from hpo.commands.reproduce import reproduce as train_again
    from hpo.terminal import Silent, TerminalView

    view = Silent() if as_json else TerminalView()
    found = train_again(home, run, threads, view)
    if as_json:
        _print_json(found.to_json())
    else:
        show_reproduction(view, found)
    raise_difference(found)


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
@click.pass_obj
def ui(home: Any, port: int) -> None:
    """Serve MLflow's UI for this home, on this machine only."""
    from hpo.commands.ui import serve_ui

    serve_ui(home, port)


def main() -> None:
    """Run the command line; every expected error becomes one message and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a pipe may be ASCII: escape what it cannot encode
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        message = io.StringIO()  # it may quote control characters that were typed
        error.show(message)
        _print(message.getvalue().rstrip(), err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _print("interrupted", err=True)
        sys.exit(130)
    except HpoError as error:
        _print(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output (`head`, say) has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:  # a full disk, a folder without write permission
        _print(f"error: {error}", err=True)
        sys.exit(1)
