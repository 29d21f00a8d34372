"""A PostgreSQL database dumped by its own program, before something changes it that hpo cannot undo."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import URL, make_url

from hpo.databases.studies import StudiesDatabase
from hpo.errors import HpoError, UsageError
from hpo.quoting import clipped

_PROGRAM = "pg_dump"
_SECRETS = ("password", "sslpassword")


def dump_server(database: StudiesDatabase, file: Path) -> None:
    """Write a dump for `pg_restore`. The password goes by the environment, which other users cannot read.

    Raises `UsageError` where `pg_dump` is not installed, `HpoError` where it fails.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise UsageError(f"{_PROGRAM} is not installed, so there would be no copy of {database}; install PostgreSQL's "
                         "client programs, or copy the database yourself and say --without-copy")  # fmt: skip
    url = make_url(database.url)
    query = {name: value for name, value in url.query.items() if name not in _SECRETS}
    address = URL.create("postgresql", url.username, None, url.host, url.port, url.database, query)
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    command = [program, "--format=custom", "--no-password", f"--file={file}", f"--dbname={address.render_as_string()}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        file.unlink(missing_ok=True)
        last = database.without_secrets((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
        raise HpoError(f"{database}: {_PROGRAM} failed: {clipped(last, 300)}")
