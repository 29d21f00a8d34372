"""Commands about nights: when they run, and what happened in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpo.cli.group import FILE, as_json_option, cli, print_json, print_text

cron_option = click.option("--cron", required=True, metavar="FIELDS", help='Five fields of cron, e.g. "0 1 * * *".')
zone_option = click.option("--tz", metavar="ZONE", help="Of these times and of the nights' dates, e.g. Europe/Berlin.")


@cli.command()
@click.argument("name")
@click.argument("date", required=False)
@as_json_option
@click.pass_obj
def nights(home: Any, name: str, date: str | None, as_json: bool) -> None:
    """Show the nights of NAME, or what happened on DATE.

    Each night with its metric, promotion and cost; below them the trend and the ledger.
    """
    from hpo.commands.nights import read_history, show_history, tell_night
    from hpo.terminal import TerminalView

    if date is None:
        history = read_history(home, name)
        if as_json:
            print_json(history.to_json())
        else:
            show_history(TerminalView(), home, history)
        return
    story, text = tell_night(home, name, date)
    if as_json:
        print_json(story.to_json())
    else:
        TerminalView().say(text)


@cli.group()
def schedule() -> None:
    """Run `hpo nightly` at given times: add, list, remove, run.

    By your crontab, by systemd, or in the foreground of a container.
    """


@schedule.command()
@click.argument("file", type=FILE)
@cron_option
@zone_option
@click.pass_obj
def add(home: Any, file: Path, cron: str, tz: str | None) -> None:
    """Run the nights of FILE at these times, by crontab or systemd."""
    from hpo.commands.schedule import add_schedule

    for line in add_schedule(home, file, cron, tz):
        print_text(line)


@schedule.command("list")
@as_json_option
def list_(as_json: bool) -> None:
    """List what is scheduled, and when it is due."""
    from hpo.commands.schedule import list_schedules, show_schedules
    from hpo.terminal import TerminalView

    found = list_schedules()
    if as_json:
        print_json(found)
    else:
        show_schedules(TerminalView(), found)


@schedule.command()
@click.argument("file", type=FILE)
@click.pass_obj
def remove(home: Any, file: Path) -> None:
    """Take FILE off the schedule; other lines of a crontab stay."""
    from hpo.commands.schedule import remove_schedule

    print_text(remove_schedule(home, file))


@schedule.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@cron_option
@zone_option
@click.pass_obj
def run(home: Any, files: tuple[Path, ...], cron: str, tz: str | None) -> None:
    """Run the nights of each FILE at these times, in the foreground.

    For containers. It ends when it is stopped; a night that this cuts short continues with the next start.
    """
    from hpo.commands.schedule import run_schedule

    run_schedule(home, files, cron, tz, print_text)
