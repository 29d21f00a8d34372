"""The tracking server that a team shares, as MLflow's own variables name it; its address is kept without a password."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from hpo.errors import UsageError

VARIABLE = "MLFLOW_TRACKING_URI"
_TIMEOUT_S = "60"
_EXPECTED = "expected http://HOST:PORT or https://HOST"


@dataclass(frozen=True)
class TrackingServer:
    """A server, and the user and password that its address had."""

    url: str
    """Without user and password: this is shown and stored."""
    _login: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def named(cls, environment: Mapping[str, str]) -> TrackingServer | None:
        """The server of `MLFLOW_TRACKING_URI`; None where that is not set, or names a store that is not a server.

        Raises `UsageError` for what cannot be an address; the message does not repeat it: it may have a password.
        """
        given = environment.get(VARIABLE, "").strip()
        if not given.lower().startswith(("http:", "https:")):
            return None
        try:
            parts = urlsplit(given)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise UsageError(f"{VARIABLE}: is not an address; {_EXPECTED}") from None
        if not host or parts.query or parts.fragment:
            raise UsageError(f"{VARIABLE}: {'has no host' if not host else 'has ? or #'}; {_EXPECTED}")
        if "@" in parts.path:
            raise UsageError(f"{VARIABLE}: has an @ after its host; write / in a password as %2F")
        place = f"[{host}]" if ":" in host else host
        url = f"{parts.scheme}://{place}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
        login = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        return cls(url, login)

    def for_mlflow(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Variables for a process whose MLflow talks to this server, besides the given ones.

        MLflow itself tries nothing twice: it would repeat requests of which nobody knows whether they were carried out.
        """
        login = {} if self._login is None else {
            "MLFLOW_TRACKING_USERNAME": self._login[0], "MLFLOW_TRACKING_PASSWORD": self._login[1],
        }  # fmt: skip
        return {
            "MLFLOW_HTTP_REQUEST_TIMEOUT": environment.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or _TIMEOUT_S,
            VARIABLE: self.url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **login,
        }  # fmt: skip

    @contextmanager
    def for_this_process(self) -> Iterator[None]:
        """While inside, this process has the variables of `for_mlflow`, which MLflow reads at each request."""
        ours = self.for_mlflow(os.environ)
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
