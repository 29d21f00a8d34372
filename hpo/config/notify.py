"""The section `notify` of a nightly sweep: who hears of a night, when, and how; secrets are named, never written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hpo.config.keys import Described, Group, Key, Number, OneOf, Text, Value, Whole, read_all
from hpo.config.yaml_source import Section
from hpo.errors import did_you_mean
from hpo.given_path import given_path

Event = Literal["end", "failure", "promotion", "regression"]
"""What a night may be reported for. `end`: every night, also one that had nothing to do."""
Security = Literal["starttls", "tls", "none"]
PORTS: Mapping[Security, int] = {"starttls": 587, "tls": 465, "none": 25}
MOST_CHANNELS = 20
"""Webhooks and addresses of one file."""
_SECRET = re.compile(r"(file|env):(.+)", re.S)
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ADDRESS = re.compile(r"[^\s@<>,]+@[^\s@<>,]+")


@dataclass(frozen=True)
class Secret:
    """Where a secret stands; what it is, only the moment that needs it reads."""

    source: Literal["file", "env"]
    name: str
    """The absolute path of the file, or the name of the environment variable."""

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"


@dataclass(frozen=True)
class Webhook:
    """An address that takes JSON by POST."""

    address: Secret
    signing_key: Secret | None = None


@dataclass(frozen=True)
class Smtp:
    """A mail server, and who gets mail through it."""

    host: str
    port: int
    security: Security
    user: str | None
    password: Secret | None
    sender: str
    to: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A program that reads the night from its standard input."""

    argv: tuple[str, ...]
    folder: str
    """Where it runs: the folder of the YAML."""
    seconds: float
    """Then it is ended."""


@dataclass(frozen=True)
class Notify:
    """Who hears of a night, and when."""

    on: tuple[Event, ...] = get_args(Event)
    webhooks: tuple[Webhook, ...] = ()
    smtp: Smtp | None = None
    command: Command | None = None
    heartbeat: Secret | None = None
    give_up_days: float = 3.0
    """For so long a signal that could not be delivered is tried again."""

    @property
    def secrets(self) -> list[Secret]:
        """The places of all secrets that it needs."""
        found = [secret for webhook in self.webhooks for secret in (webhook.address, webhook.signing_key)]
        found += [self.smtp.password if self.smtp else None, self.heartbeat]
        return [secret for secret in found if secret is not None]


@dataclass(frozen=True)
class SecretKey(Value):
    """A key that names a secret: `file:PATH` or `env:NAME`. A secret that stands there itself is refused, unquoted."""

    def read(self, section: Section) -> Secret | None:
        """The place of the secret."""
        if self.is_required and self.name in section:
            return secret_at(section.raw(self.name), section, self.name)
        value = section.optional(self.name, self.words())
        return None if value is None else secret_at(value, section, self.name)

    def words(self) -> str:
        """What would be right."""
        return "file:PATH or env:NAME, the place of the secret"

    def shape(self) -> dict[str, Any]:
        """A text with the prefix."""
        return {"type": self._types("string"), "pattern": "^(file|env):."}


SIGNING_KEY = SecretKey(
    "signing_key", None,
    "signs each delivery: the header `webhook-signature` is an HMAC-SHA256 over id, time and body, as "
    "standardwebhooks.com defines it",
)  # fmt: skip
WEBHOOK = Group(
    "webhook", None,
    "the address of a webhook as `file:PATH` or `env:NAME`, a mapping of the two keys below, or a list of them; it "
    "takes JSON whose `text` Slack, Mattermost and others show",
    short=("string", "array"),
    keys=(SecretKey("address", None, "where it is: an http or https address", is_required=True), SIGNING_KEY),
)  # fmt: skip
SMTP = Group(
    "smtp", None, "mail",
    keys=(
        Text("host", None, "the mail server", is_required=True),
        Whole("port", None, "587, 465 or 25, as `security` says", low=1, high=65535),
        OneOf("security", "starttls", "how the connection is encrypted", choices=get_args(Security)),
        Text("user", None, "who signs in"),
        SecretKey("password", None, "of that user"),
        Text("from", None, "the sender's address", is_required=True),
        Described("to", None, "an address, or a list of them", is_required=True,
                  described={"type": ["string", "array"], "items": {"type": "string"}, "minItems": 1}),
    ),
)  # fmt: skip
COMMAND = Described(
    "command", None,
    "a program and its arguments, as a list; it runs in the folder of this file, without a shell, and reads the night "
    "as JSON from its standard input",
    described={"type": ["array", "null"], "items": {"type": "string"}, "minItems": 1},
)  # fmt: skip
COMMAND_SECONDS = Number("command_seconds", 30, "then the command is ended", above=0, most=60)
ON = Described(
    "on", None,
    "when: at the `end` of every night, and after a `failure`, a `promotion` or a `regression` beyond noise",
    shown="all four", described={"type": ["array", "null"], "items": {"enum": list(get_args(Event))}},
)  # fmt: skip
HEARTBEAT = SecretKey(
    "heartbeat", None,
    "the address of a check at healthchecks.io, or of a service that works like it: `/start` and `/fail` are appended",
)  # fmt: skip
GIVE_UP_DAYS = Number(
    "give_up_days", 3, "for so many days a delivery that failed is tried again, by each call that follows", above=0,
    most=365,
)  # fmt: skip
NOTIFY_KEYS: tuple[Key, ...] = (ON, WEBHOOK, SMTP, COMMAND, COMMAND_SECONDS, HEARTBEAT, GIVE_UP_DAYS)
NOTIFY = Group("notify", None, "who hears of a night", keys=NOTIFY_KEYS)


def parse_notify(section: Section, folder: Path) -> Notify | None:
    """Read `notify:` of a section; None where it is left out. `folder` is that of the file: paths start there."""
    given = section.section("notify")
    if "notify" not in section:
        return None
    values = read_all(given, (COMMAND_SECONDS, HEARTBEAT, GIVE_UP_DAYS))
    notify = Notify(
        _events(given),
        _webhooks(given, folder),
        _smtp(given, folder),
        _command(given, folder, values["command_seconds"]),
        _absolute(given, values["heartbeat"], folder, "heartbeat"),
        float(values["give_up_days"]),
    )
    named = [(str(webhook.address), "webhook") for webhook in notify.webhooks]
    named += [(to, "smtp") for to in (notify.smtp.to if notify.smtp else ())]
    for receiver, key in dict.fromkeys(one for one in named if named.count(one) > 1):
        given.problem(f"has {receiver} twice", "expected each receiver once", key)
    given.finish()
    return notify


def secret_at(value: object, section: Section, *keys: str) -> Secret | None:
    """The place that a text names. Where it names none, that is a problem, and the text is not shown: it may be the
    secret."""
    found = _SECRET.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        section.problem("is not the place of a secret", "write the secret to a file or into the environment, and here "
                        "file:PATH or env:NAME", *keys)  # fmt: skip
        return None
    source, name = found.groups()
    if source == "env" and not _ENVIRONMENT_NAME.fullmatch(name):
        section.problem("is not the name of an environment variable", "expected env: and letters, digits and _", *keys)
        return None
    return Secret("file" if source == "file" else "env", name)


def _absolute(section: Section, secret: Secret | None, folder: Path, *keys: str) -> Secret | None:
    """With the absolute path of its file."""
    if secret is None or secret.source == "env":
        return secret
    try:
        return Secret("file", str(given_path(secret.name, folder)))
    except ValueError as error:
        section.problem(f"names a file that cannot be: {error}", "expected file:PATH", *keys)
        return None


def _events(section: Section) -> tuple[Event, ...]:
    given, known = section.raw("on"), get_args(Event)
    if given is None:
        return known
    if not isinstance(given, list) or not given:
        section.got(given, "expected a list, e.g. [failure, promotion]", "on")
        return known
    for name in given:
        if name not in known:
            section.got(name, did_you_mean(str(name), known), "on")
    return tuple(event for event in known if event in given)


def _webhooks(section: Section, folder: Path) -> tuple[Webhook, ...]:
    """One, or a list of them; each an address or a mapping."""
    given = section.raw("webhook")
    if given is None:
        return ()
    every = given if isinstance(given, list) else [given]
    if len(every) > MOST_CHANNELS:
        section.problem(f"has {len(every):,} webhooks", f"expected at most {MOST_CHANNELS}", "webhook")
    found = [
        _webhook(section, f"webhook[{index}]" if isinstance(given, list) else "webhook", one, folder)
        for index, one in enumerate(every[:MOST_CHANNELS])
    ]
    return tuple(webhook for webhook in found if webhook is not None)


def _webhook(section: Section, key: str, given: object, folder: Path) -> Webhook | None:
    if isinstance(given, dict):
        mapping = section.child(key, given)
        values = read_all(mapping, WEBHOOK.keys)
        mapping.finish()
        if "address" not in given:
            mapping.problem("is missing", "expected file:PATH or env:NAME", "address")
    else:
        values = {"address": secret_at(given, section, key), "signing_key": None}
    address = _absolute(section, values["address"], folder, key)
    signing_key = _absolute(section, values["signing_key"], folder, key, "signing_key")
    return None if address is None else Webhook(address, signing_key)


def _smtp(section: Section, folder: Path) -> Smtp | None:
    if section.raw("smtp") is None:
        return None
    mail = section.section("smtp")
    values = read_all(mail, SMTP.keys)
    to = _addresses(mail)
    mail.finish()
    for name in ("host", "from", "to"):
        if name not in mail:
            mail.problem("is missing", "expected " + ("the name of a server" if name == "host" else "an address"), name)
    if values["from"] is not None and not _ADDRESS.fullmatch(values["from"]):
        mail.got(values["from"], "expected an address: name@example.org", "from")
    given = [name for name in ("user", "password") if mail.raw(name) is not None]
    if len(given) == 1:
        other = "user" if given == ["password"] else "password"
        mail.problem(f"is given without {other}", "give both, or neither", *given)
    if values["password"] and values["security"] == "none":
        mail.problem("is none, but there is a password", "expected starttls or tls", "security")
    return Smtp(
        values["host"] or "", values["port"] or PORTS[values["security"]], values["security"], values["user"],
        _absolute(mail, values["password"], folder, "password"), values["from"] or "", to,
    )  # fmt: skip


def _addresses(section: Section) -> tuple[str, ...]:
    given = section.raw("to")
    every = [given] if isinstance(given, str) else given
    if "to" not in section:
        return ()
    if not isinstance(every, list) or not 0 < len(every) <= MOST_CHANNELS:
        section.got(given, f"expected an address, or a list of at most {MOST_CHANNELS}", "to")
        return ()
    for address in every:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            section.got(address, "expected an address: name@example.org", "to")
    return tuple(str(address) for address in every)


def _command(section: Section, folder: Path, seconds: float) -> Command | None:
    given = section.raw("command")
    if given is None:
        return None
    is_list = isinstance(given, list) and bool(given)
    if not is_list or not all(isinstance(word, str) and word and "\0" not in word for word in given):
        section.got(given, "expected a list: the program, then its arguments", "command")
        return None
    return Command(tuple(given), str(folder.resolve()), float(seconds))
