"""Commands about a home and its machine: examined, copied, restored, brought up to date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hpo.cli.group import PATH, as_json_option, cli, print_json, print_text


@cli.command()
@click.option("--address", metavar="HOST:PORT", help="Examine the nodes of this Ray cluster too; auto finds one.")
@as_json_option
@click.pass_obj
def doctor(home: Any, address: str | None, as_json: bool) -> None:
    """Examine this machine, the home and its servers.

    Says of each thing what was found, and what to do where it is wrong. The exit code is 1 where there is a problem.
    """
    from hpo.commands.doctor import examine_all, exit_code_of, groups_json, show_groups

    groups = examine_all(home, address)
    if as_json:
        print_json(groups_json(groups))
    else:
        print_text(show_groups(groups))
    sys.exit(exit_code_of(groups))


@cli.command()
@click.argument("folder", type=PATH)
@click.option("--since", metavar="BACKUP", type=PATH, help="An earlier backup: link what has not changed since.")
@as_json_option
@click.pass_obj
def backup(home: Any, folder: Path, since: Path | None, as_json: bool) -> None:
    """Copy the home into the new FOLDER, also while sweeps run.

    FOLDER has studies, MLflow's store and all files but the cache, with the hash of each.
    """
    from hpo.commands.backup import back_up, backup_line, manifest_json

    manifest = back_up(home, folder, since)
    if as_json:
        print_json(manifest_json(manifest))
    else:
        print_text(backup_line(folder, manifest))


@cli.command()
@click.argument("backup", metavar="BACKUP", type=PATH)
@click.option("--home", "new", metavar="PATH", help="The home to make. Default: HPO_HOME, or ./mlruns.")
@as_json_option
@click.pass_obj
def restore(home: Any, backup: Path, new: str | None, as_json: bool) -> None:
    """Make a home of BACKUP, after checking all of it.

    The home must be empty, or have nothing but a cache.
    """
    from hpo.commands.backup import restore as make_home
    from hpo.commands.backup import restored_json, restored_lines
    from hpo.paths import Home

    restored = make_home(home if new is None else Home.locate(new), backup)
    if as_json:
        print_json(restored_json(restored))
    else:
        print_text("\n".join(restored_lines(restored)))


@cli.command()
@click.option("--check", is_flag=True, help="Only say what would be done.")
@click.option("--without-copy", is_flag=True, help="Make no dump of a PostgreSQL database before.")
@as_json_option
@click.pass_obj
def upgrade(home: Any, check: bool, without_copy: bool, as_json: bool) -> None:
    """Bring the home's databases to the installed versions.

    Nothing of the home may run meanwhile. A copy of each database stays. Of a PostgreSQL
    database it is a dump, which --without-copy leaves out.
    """
    from dataclasses import asdict

    from hpo.commands.upgrade import upgrade as bring_up_to_date
    from hpo.commands.upgrade import upgrade_lines

    schemas, done = bring_up_to_date(home, check=check, with_copy=not without_copy)
    if as_json:
        print_json({"databases": [*map(asdict, schemas)], "upgraded": [*map(asdict, done)]})
    else:
        print_text("\n".join(upgrade_lines(schemas, done)))
