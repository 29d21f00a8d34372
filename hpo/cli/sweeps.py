"""Commands about sweeps: from a first YAML to a report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hpo.cli.group import FILE, PATH, as_json_option, cli, end_sweep, json_line, print_json, print_text, uncollected


def _ask(what: str, default: str | None, choices: Sequence[str]) -> str:
    """What a person at the terminal answers."""
    return str(click.prompt(what, default=default, type=click.Choice(choices) if choices else None))


@cli.command()
@click.argument("file", type=FILE)
@click.option("--task", help="What the model learns to do, e.g. text-classification.")
@click.option("--model", help="Hub id, folder or fetch:NAME.")
@click.option("--data", help="Training rows: a file, folder, pattern, hub id or fetch:NAME.")
@click.option("--column", "columns", metavar="KEY=NAME", multiple=True, help="A column's name, e.g. label=stars.")
def init(file: Path, task: str | None, model: str | None, data: str | None, columns: tuple[str, ...]) -> None:
    """Write a commented YAML to start from.

    On a terminal it asks for what is not given.
    """
    from hpo.commands.init import init_sweep

    is_asked = sys.stdin.isatty() and sys.stdout.isatty()
    print_text(init_sweep(file, task, model, data, columns, _ask if is_asked else None))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a sweep's YAML.

    Editors and other programs check a file with it.
    """
    from hpo.commands.schema import schema_text

    print_text(schema_text())


@cli.command()
@click.argument("file", type=FILE)
@click.option("--jobs", type=click.IntRange(1), help="Trials at once, with Ray on each node. Default: as many as fit.")
@click.option("--threads", type=click.IntRange(1), help="Threads per trial, on all nodes. Default: cores / jobs.")
@click.option("--executor", type=click.Choice(["local", "ray"]), help="Where trials train. Default: run.executor.")
@click.option("--address", metavar="HOST:PORT", help="Train on this Ray cluster. Default: run.address.")
@as_json_option
@click.pass_obj
def sweep(
    home: Any, file: Path, jobs: int | None, threads: int | None, executor: Any, address: str | None, as_json: bool
) -> None:
    """Run or continue the sweep that FILE describes."""
    from hpo.commands.sweep import run_sweep
    from hpo.progress_view import Silent
    from hpo.terminal import TerminalView

    view = Silent() if as_json else TerminalView()
    summary = run_sweep(file, home, jobs=jobs, threads=threads, view=view, executor=executor, address=address)
    end_sweep(summary, view, as_json=as_json)


@cli.command()
@click.argument("files", metavar="FILE...", type=FILE, nargs=-1, required=True)
@click.option("--tz", metavar="ZONE", help="Time zone of the nights, e.g. Europe/Berlin. Default: nightly.tz.")
@click.option("--always", is_flag=True, help="Run the sweep even if nothing has changed.")
@as_json_option
@click.pass_obj
def nightly(home: Any, files: tuple[Path, ...], tz: str | None, always: bool, as_json: bool) -> None:
    """Run tonight's sweep of each FILE, once.

    A scheduler may call it as often as it likes: what is done is not done again, what was cut short continues.
    """
    from hpo.commands.nightly import exit_code_of, run_nightly
    from hpo.progress_view import Silent
    from hpo.terminal import TerminalView

    found = run_nightly(files, home, tz=tz, always=always, view=Silent() if as_json else TerminalView())
    if as_json:
        print_json([nights.to_json() for nights in found])
    sys.exit(exit_code_of(found))


@cli.command()
@click.argument("file", type=FILE)
@click.option(
    "--fix", metavar="OUT", type=PATH, help="Copy the data without invalid and duplicate rows to the new folder OUT.",
)  # fmt: skip
@click.option("--served", metavar="LOG", type=PATH, multiple=True, help="Compare prediction logs with the data.")
@as_json_option
@click.pass_obj
def check(home: Any, file: Path, fix: Path | None, served: tuple[Path, ...], as_json: bool) -> None:
    """Check the config, data and model of FILE without training.

    Lists every problem at once, and shows what a trial will see. It never changes the data itself.
    """
    from hpo.commands.check import check_sweep, raise_findings, show_check
    from hpo.errors import ConfigError
    from hpo.terminal import TerminalView

    try:
        checked = check_sweep(file, home, clean_dir=fix, served=served)
        if as_json:
            print_json(checked)
        else:
            show_check(TerminalView(), checked)
        raise_findings(checked)
    except ConfigError:
        if fix is not None:
            print_text(f"--fix {fix}: wrote nothing, because these problems are not of single rows", err=True)
        raise


@cli.command()
@click.argument("file", type=FILE)
@click.option("--jobs", type=click.IntRange(1), help="Trials to run in parallel, as for sweep.")
@as_json_option
@click.pass_obj
def plan(home: Any, file: Path, jobs: int | None, as_json: bool) -> None:
    """Estimate the trials, time, memory and cost of FILE.

    Measures a few training steps; takes about a minute.
    """
    from hpo.commands.plan import make_plan, show_plan
    from hpo.progress_view import Silent
    from hpo.terminal import TerminalView

    planned = make_plan(file, home, jobs, Silent() if as_json else TerminalView())
    if as_json:
        print_json(planned)
    else:
        show_plan(TerminalView(), planned)


@cli.command()
@click.argument("name", metavar="SWEEP")
@click.option("--now", is_flag=True, help="Stop without new checkpoints. Work since the last ones is lost.")
@click.pass_obj
def stop(home: Any, name: str, now: bool) -> None:
    """Stop the running SWEEP and keep its checkpoints.

    `hpo sweep` resumes its trials.
    """
    from hpo.commands.stop import stop_sweep

    print_text(stop_sweep(home, name, now=now))


@cli.command()
@click.argument("name", metavar="SWEEP")
@as_json_option
@click.pass_obj
@uncollected()
def show(home: Any, name: str, as_json: bool) -> None:
    """Show the leaderboard, champion and release of SWEEP."""
    from hpo.commands.show import read_sweep, show_sweep
    from hpo.commands.ui_link import comparison_link
    from hpo.terminal import TerminalView

    summary = read_sweep(home, name)
    if as_json:
        print_json(summary.for_json_text())
    else:
        show_sweep(TerminalView(), summary, hints=False, link=comparison_link(home, name))


@cli.command()
@click.argument("names", metavar="SWEEP...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["html", "md", "json", "csv"]), default="html", show_default=True)
@click.option("--output", type=FILE, help="File to write; - prints it. Default: report.html in the sweep's folder.")
@click.pass_obj
@uncollected()
def report(home: Any, names: tuple[str, ...], form: Any, output: Path | None) -> None:
    """Write SWEEP as one page, or compare several.

    The page says what won, how sure that is, what it cost and what to try next. Several sweeps are compared with the
    first one, in comparison.html of the home: what each found and what changed between them.
    """
    from hpo.commands.report import report as text_of
    from hpo.commands.report import write_report

    is_printed = str(output) == "-"
    print_text(text_of(home, names, form).rstrip("\n") if is_printed else str(write_report(home, names, form, output)))


@cli.command()
@click.argument("sql", metavar="[SQL]", required=False)
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "md"]), default="table", show_default=True)
@as_json_option
@click.pass_obj
@uncollected()
def query(home: Any, sql: str | None, form: Any, as_json: bool) -> None:
    """Ask all sweeps, trials and evaluations in SQL.

    SQL is one SELECT over the tables sweeps, trials and evaluations; without it, their columns are listed. Nothing can
    be written.
    """
    from hpo.commands.query import answer_text, ask, show_answer, tables
    from hpo.terminal import TerminalView

    def note(text: str) -> None:
        print_text(text, err=True)  # what is printed besides may be read by a program

    answer = tables(home, note) if sql is None else ask(home, sql, note)
    if form == "table" and not as_json:
        show_answer(TerminalView(), answer)
    else:
        print_text(answer_text(answer, "json" if as_json else form))


@cli.command()
@click.argument("names", metavar="[SWEEP]...", nargs=-1)
@as_json_option
@click.pass_obj
def sync(home: Any, names: tuple[str, ...], as_json: bool) -> None:
    """Copy runs to the tracking server of MLFLOW_TRACKING_URI.

    Without SWEEP: those of all sweeps. Only what the server lacks is sent.
    """
    from hpo.commands.sync import raise_waiting, said, sync_sweeps

    synced = sync_sweeps(home, names, lambda sweep: None if as_json else print_text(said(sweep)))
    if as_json:
        print_json([sweep.to_json() for sweep in synced])
    raise_waiting(synced)


@cli.command("list")
@as_json_option
@click.pass_obj
@uncollected()
def list_(home: Any, as_json: bool) -> None:
    """List all sweeps."""
    from hpo.commands.show import UnreadableSweep, list_lines, list_sweeps, show_list
    from hpo.terminal import TerminalView

    if as_json:
        print_json([sweep.to_json() for sweep in list_sweeps(home)])
    else:
        found = list_lines(home)
        problems = [sweep.problem for sweep in found if isinstance(sweep, UnreadableSweep)]
        show_list(TerminalView(), [s for s in found if not isinstance(s, UnreadableSweep)], problems)


@cli.command()
@click.argument("name", required=False)
@click.option("--list", "list_assets", is_flag=True, help="List all of them, with size and licence.")
@as_json_option
@click.pass_obj
def fetch(home: Any, name: str | None, list_assets: bool, as_json: bool) -> None:
    """Download a demo model or data set into the cache, once."""
    from hpo.demo.assets import asset_row
    from hpo.demo.fetch import ASSETS, fetched_path
    from hpo.demo.fetch import fetch as bring

    if name and not list_assets:
        path = bring(name, home.dir, say=lambda text: print_text(text, err=True))
        print_text(json_line({"name": name, "path": str(path)}) if as_json else str(path))
        return
    if not list_assets:
        raise click.UsageError("give the name of a demo model or data set; --list shows all of them")
    here = {asset: fetched_path(asset, home.dir) for asset in ASSETS}
    if as_json:
        print_json([asset_row(a, here[a.name]) for a in ASSETS.values()])
    else:
        from hpo.commands.fetch import show_assets
        from hpo.terminal import TerminalView

        show_assets(TerminalView(), ASSETS, {name: path is not None for name, path in here.items()})


@cli.command()
@click.argument("name", metavar="[SWEEP]", required=False)
@click.option("--port", type=click.IntRange(1, 65534), default=5000, show_default=True, help="Port on 127.0.0.1.")
@click.option("--optuna", is_flag=True, help="Serve Optuna's dashboard too, on the next port.")
@click.option("--no-browser", is_flag=True, help="Only print the links, open no browser.")
@click.pass_obj
def ui(home: Any, name: str | None, port: int, optuna: bool, no_browser: bool) -> None:
    """Serve MLflow's UI on this machine, at SWEEP's comparison.

    Without SWEEP it opens on the one that ran last.
    """
    from hpo.commands.ui import has_browser, serve_ui

    serve_ui(home, port, name, optuna=optuna, browser=has_browser() and not no_browser)
