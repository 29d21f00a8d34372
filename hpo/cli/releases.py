"""Commands about released models: made, asked, served, changed, deleted."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click

from hpo.cli.group import FILE, PATH, as_json_option, cli, end_sweep, json_line, print_json, print_text


@cli.command()
@click.argument("file", type=FILE)
@click.option("--trial", type=click.IntRange(0), help="Release this complete trial instead of the champion.")
@as_json_option
@click.pass_obj
def promote(home: Any, file: Path, trial: int | None, as_json: bool) -> None:
    """Release the champion of FILE, without training.

    Its sweep must have ended. It is exported and measured again, with the promote: settings of FILE.
    """
    from hpo.commands.promote import run_promotion
    from hpo.progress_view import Silent
    from hpo.terminal import TerminalView

    view = Silent() if as_json else TerminalView()
    summary = run_promotion(file, home, trial=trial, view=view)
    end_sweep(summary, view, as_json=as_json)


@cli.command()
@click.argument("name", metavar="NAME[@ALIAS|/VERSION]")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@as_json_option
@click.pass_obj
def predict(home: Any, name: str, texts: tuple[str, ...], as_json: bool) -> None:
    """Ask the released model NAME about each TEXT.

    A TEXT of - stands for the standard input, which has one text a line. Where an input has several columns, write it
    as JSON: {"text": ..., "text_pair": ...}.
    """
    from hpo.commands.predict import answer_line, with_standard_input
    from hpo.commands.predict import predict as ask

    lines = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig", "surrogateescape") if "-" in texts else ()
    for answer in ask(home, name, with_standard_input(texts, lines)):
        print_text(json_line(answer) if as_json else answer_line(answer))


@cli.command()
@click.argument("name")
@click.argument("sweeps", metavar="SWEEP[#TRIAL]...", nargs=-1, required=True)
@as_json_option
@click.pass_obj
def bundle(home: Any, name: str, sweeps: tuple[str, ...], as_json: bool) -> None:
    """Release champions of sweeps as adapters on one base.

    The sweeps have ended, and share the base model and the task. Nothing is released unless each adapter answers as its
    merged model.
    """
    from hpo.commands.bundle import make_bundle, show_bundle
    from hpo.progress_view import Silent
    from hpo.terminal import TerminalView

    view = Silent() if as_json else TerminalView()
    made = make_bundle(home, name, sweeps, view)
    if as_json:
        print_json(made)
    else:
        show_bundle(view, made)


@cli.command()
@click.argument("names", metavar="NAME[@ALIAS|/VERSION]...", nargs=-1, required=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Any other than this machine's own needs a key.")
@click.option("--key-file", type=FILE, help="API keys, one a line: KEY, infer:KEY or admin:KEY. Default: HPO_API_KEY.")
@click.option("--follow", is_flag=True, help="Serve a new champion, or a moved alias, as soon as there is one.")
@click.option("--config", type=FILE, help="YAML with the filters and the prediction log.")
@click.option(
    "--log-predictions", metavar="DIR", type=PATH,
    help="Write predictions to DIR, without their texts unless --config wants them.",
)  # fmt: skip
@click.pass_obj
def serve(
    home: Any, names: tuple[str, ...], port: int, host: str, key_file: Path | None, follow: bool, config: Path | None,
    log_predictions: Path | None,
) -> None:  # fmt: skip
    """Serve released models over HTTP with OpenAI's API.

    A key of role infer asks the models. A key without a role also reads /metrics. A key of role admin also loads and
    unloads models.
    """
    from hpo.commands.serve import serve as run_server

    run_server(home, names, host, port, key_file, follow=follow, config=config, log_dir=log_predictions)


@cli.command()
@click.argument("name", required=False)
@as_json_option
@click.pass_obj
def releases(home: Any, name: str | None, as_json: bool) -> None:
    """List released versions, their aliases and numbers."""
    from dataclasses import asdict

    from hpo.commands.releases import show_releases
    from hpo.release.listing import list_releases
    from hpo.terminal import TerminalView

    found = list_releases(home, name)
    if as_json:
        print_json([asdict(version) for version in found])
    else:
        show_releases(TerminalView(), found, with_origins=name is not None)


@cli.command()
@click.argument("name", metavar="NAME[/VERSION]")
@click.pass_obj
def approve(home: Any, name: str) -> None:
    """Make the challenger of NAME, or VERSION, its champion."""
    from hpo.commands.aliases import approve_challenger

    print_text(approve_challenger(home, name))


@cli.command()
@click.argument("name")
@click.pass_obj
def rollback(home: Any, name: str) -> None:
    """Make the previous champion of NAME its champion again."""
    from hpo.commands.aliases import roll_back_champion

    print_text(roll_back_champion(home, name))


@cli.command()
@click.argument("name", metavar="[NAME[/VERSION]]", required=False)
@click.option("--sweep", metavar="SWEEP", help="Delete a sweep: its study, runs, files and releases.")
@click.option("--force", is_flag=True, help="Delete it even if it is champion, previous, served, or needed elsewhere.")
@click.pass_obj
def delete(home: Any, name: str | None, sweep: str | None, force: bool) -> None:
    """Delete released versions of NAME, or a sweep, from disk."""
    if (name is None) == (sweep is None):
        raise click.UsageError("give the name of a released model, or --sweep SWEEP")
    from hpo.commands.delete import delete_release, delete_whole_sweep

    print_text(
        delete_whole_sweep(home, str(sweep), force=force) if name is None else delete_release(home, name, force=force)
    )


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@click.option("--releases", is_flag=True, help="Also delete released versions without an alias.")
@as_json_option
@click.pass_obj
def gc(home: Any, dry_run: bool, releases: bool, as_json: bool) -> None:
    """Free disk space that no sweep and no release needs."""
    from dataclasses import asdict

    from hpo.commands.gc import collect_garbage, show_freed
    from hpo.terminal import TerminalView

    freed = collect_garbage(home, dry_run=dry_run, releases=releases)
    if as_json:
        print_json([asdict(kind) for kind in freed])
    else:
        show_freed(TerminalView(), freed, dry_run=dry_run)


@cli.command()
@click.argument("run", metavar="RUN")
@click.option("--threads", type=click.IntRange(1), help="Threads to train with. Default: as many as the run had.")
@as_json_option
@click.pass_obj
def reproduce(home: Any, run: str, threads: int | None, as_json: bool) -> None:
    """Train RUN again and compare it with its record.

    RUN is SWEEP (its champion), SWEEP#TRIAL, SWEEP#TRIAL.REPEAT, or a release: NAME/VERSION, NAME@ALIAS.
    """
    from hpo.commands.reproduce import raise_difference, show_reproduction
    from hpo.commands.reproduce import reproduce as train_again
    from hpo.progress_view import Silent
    from hpo.terminal import TerminalView

    view = Silent() if as_json else TerminalView()
    found = train_again(home, run, threads, view)
    if as_json:
        print_json(found.to_json())
    else:
        show_reproduction(view, found)
    raise_difference(found)
