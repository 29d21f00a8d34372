"""Where the studies are: a SQLite file in the home, or a PostgreSQL server that `HPO_STUDIES` names.

    HPO_STUDIES=postgresql://USER:PASSWORD@HOST:PORT/DATABASE      %XX for special characters in the password
    HPO_STUDIES_FILE=/run/secrets/studies                          a file that has this as its content

Without a password the client looks into `PGPASSFILE` (or `~/.pgpass`). No text of this module has a password in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from hpo.errors import HpoError, UsageError
from hpo.remedies import first_line, way_on

VARIABLE, FILE_VARIABLE = "HPO_STUDIES", "HPO_STUDIES_FILE"
_READ_ONLY = "-c default_transaction_read_only=on"
_CHOOSING = ("host", "hostaddr", "port", "options")
"""Options that say which database it is, as `-c search_path` does: part of its address."""
_DOUBLED = ("dbname", "service", "servicefile", "user")
"""Options that would choose another one than the address says."""
MOST_BYTES = 10_000
"""Of the file with the address: a longer one is another file."""
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_DRIVER = "postgresql+psycopg"
_EXPECTED = "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for special characters in the password"


@dataclass(frozen=True)
class StudiesDatabase:
    """A database of studies; `str()` says where it is, without a password."""

    place: str
    """A path, or an address without password, with no options but those that choose a database."""
    url: str = field(repr=False)
    """For SQLAlchemy, with the password."""
    file: Path | None = None
    """None on a server."""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def in_file(cls, file: Path) -> StudiesDatabase:
        """In SQLite; the file need not exist."""
        return cls(str(file), f"sqlite:///{quote(str(file))}", file)  # Optuna would read { as a field of a template

    @classmethod
    def on_server(cls, address: str, where: str = VARIABLE) -> StudiesDatabase:
        """In PostgreSQL. Raises `UsageError`, which names `where` the address was found, for one that is none."""
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise UsageError(f"{where}: is not the address of a database; {_EXPECTED}") from None
        # Without %XX, a / ? or # of the password ends the host: what follows would be shown as a database's name.
        if parts.scheme not in _SCHEMES or parts.fragment or "@" in parts.path or not parts.path.strip("/"):
            raise UsageError(f"{where}: is not the address of a PostgreSQL database; {_EXPECTED}")
        user = quote(unquote(parts.username or ""), safe="")
        password = unquote(parts.password or "")
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        host += f":{port}" if port else ""
        database = quote(unquote(parts.path.strip("/")), safe="")
        options = dict(parse_qsl(parts.query))
        if doubled := [name for name in _DOUBLED if name in options]:
            raise UsageError(f"{where}: has {', '.join(doubled)} after the question mark; {_EXPECTED}")
        choosing = {name: options[name] for name in _CHOOSING if name in options}
        login = user + (f":{quote(password, safe='')}" if password else "")
        server = f"{login}@{host}" if login else host
        url = f"{_DRIVER}://{server}/{database}" + (f"?{urlencode(options)}" if options else "")
        place = f"postgresql://{f'{user}@' if user else ''}{host}/{database}"
        place += f"?{urlencode(choosing)}" if choosing else ""
        hidden = (password, parts.password or "", options.get("password", ""), options.get("sslpassword", ""))
        return cls(place, url, None, tuple(dict.fromkeys(filter(None, hidden))))

    @classmethod
    def chosen(cls, file: Path, environment: Mapping[str, str]) -> StudiesDatabase:
        """The one that the environment names, or else the one in `file`.

        Raises `UsageError` for an address that is none.
        """
        address, secret_file = environment.get(VARIABLE, "").strip(), environment.get(FILE_VARIABLE, "").strip()
        if address and secret_file:
            raise UsageError(f"{VARIABLE} and {FILE_VARIABLE} are both set; set only one of them")
        if secret_file:
            return cls.on_server(_content(Path(secret_file)), f"{FILE_VARIABLE} ({secret_file})")
        return cls.on_server(address) if address else cls.in_file(file)

    @property
    def read_only_url(self) -> str:
        """The same for a program that only looks."""
        if self.file:
            uri = f"file:{quote(str(self.file))}"
            return f"sqlite:///{quote(uri)}?mode=ro&uri=true"
        address, _, query = self.url.partition("?")
        options = dict(parse_qsl(query))
        options["options"] = f"{options.get('options', '')} {_READ_ONLY}".strip()
        return f"{address}?{urlencode(options, quote_via=quote)}"

    @property
    def address(self) -> str:
        """Where it is for everybody, whoever asks: without the user."""
        scheme, _, rest = self.place.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}" if rest else self.place

    def without_secrets(self, text: str) -> str:
        """A text of a library about this database, in which every password is replaced by dots."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "...")
        return text

    def refusal(self, error: Exception) -> HpoError:
        """What a library or the server has against its use, as an error for people."""
        return HpoError(f"{self} cannot be used: {self.without_secrets(first_line(error))}; {way_on(error)}")

    def __str__(self) -> str:
        return self.place


def without_studies(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for processes that run code of a sweep's file: without what opens the database."""
    hidden = (VARIABLE, FILE_VARIABLE, "PGPASSWORD", "PGPASSFILE")
    return {name: value for name, value in environment.items() if name not in hidden}


def _content(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{FILE_VARIABLE}: {file} cannot be read: {error.strerror}") from None
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise UsageError(f"{FILE_VARIABLE}: {file} is not UTF-8 text; {_EXPECTED}") from None
    if not text or len(content) > MOST_BYTES:
        found = "is empty" if not text else f"is larger than {MOST_BYTES:,} bytes"
        raise UsageError(f"{FILE_VARIABLE}: {file} {found}; {_EXPECTED}")
    return text
