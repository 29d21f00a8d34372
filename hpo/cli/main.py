"""The program `hpo`: its commands, and what becomes of their errors."""

from __future__ import annotations

import io
import os
import sys

import click

from hpo.cli import care, releases, schedules, sweeps
from hpo.cli.group import cli, print_text
from hpo.errors import HpoError

__all__ = ["care", "cli", "main", "releases", "schedules", "sweeps"]


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
        print_text(message.getvalue().rstrip(), err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print_text("interrupted", err=True)
        sys.exit(130)
    except HpoError as error:
        print_text(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output (`head`, say) has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:  # a full disk, a folder without write permission
        print_text(f"error: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        from hpo.commands.session import in_words, store_errors  # late: it takes the libraries of the stores

        if not isinstance(error, store_errors()):
            raise
        print_text(f"error: {in_words(error)}", err=True)
        sys.exit(1)
