"""The tracking server that a team shares, as MLflow's own variables name it; its address is kept without a password."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hpo.errors import UsageError
from hpo.quoting import quoted

VARIABLE = "MLFLOW_TRACKING_URI"
_TIMEOUT_S = "60"
_EXPECTED = "expected http://HOST:PORT or https://HOST"
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105  # the name of the variable
_CERTIFICATE = "MLFLOW_TRACKING_SERVER_CERT_PATH"
_CLIENT_CERTIFICATE = "MLFLOW_TRACKING_CLIENT_CERT_PATH"
_INSECURE = "MLFLOW_TRACKING_INSECURE_TLS"
_BUNDLE = "REQUESTS_CA_BUNDLE"


@dataclass(frozen=True)
class TrackingServer:
    """A server, and the user and password that its address had."""

    url: str
    """Without user and password: this is shown and stored."""
    _login: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def named(cls, environment: Mapping[str, str]) -> TrackingServer | None:
        """The server of `MLFLOW_TRACKING_URI`; None where that is not set, or names a store that is not a server.

        Raises `UsageError` for what cannot be an address, a token or a certificate. The message does not repeat the
        first two: an address may have a password.
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
        _check_variables(environment, is_tls=parts.scheme == "https")
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
            _TIMEOUT: environment.get(_TIMEOUT) or _TIMEOUT_S,
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


def _check_variables(environment: Mapping[str, str], *, is_tls: bool) -> None:
    """Raises `UsageError` for values on which MLflow's client would fail at each request, and blame the server."""
    timeout, token = environment.get(_TIMEOUT), environment.get(_TOKEN, "")
    if timeout and not (timeout.isdecimal() and int(timeout) > 0):
        raise UsageError(f"{_TIMEOUT}: {quoted(timeout)}; expected whole seconds, e.g. {_TIMEOUT_S}")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(f"{_TOKEN}: has a space, a line break or another character that no token has")
    if not is_tls:
        return
    if environment.get(_CERTIFICATE) and environment.get(_INSECURE, "").lower() in ("true", "1"):
        raise UsageError(f"{_CERTIFICATE} and {_INSECURE} exclude each other; unset one of them")
    trusted = _CERTIFICATE if environment.get(_CERTIFICATE) else _BUNDLE  # the first one hides the other
    if path := environment.get(trusted):
        _check_certificates(trusted, Path(path))
    if (path := environment.get(_CLIENT_CERTIFICATE)) and not Path(path).is_file():
        raise UsageError(f"{_CLIENT_CERTIFICATE}: {path} is not a file; expected a PEM file with certificate and key")


def _check_certificates(variable: str, path: Path) -> None:
    """Raises `UsageError` where a file, or a folder of them, is none that certificates to trust can be read from."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(*((None, str(path)) if path.is_dir() else (str(path),)))
    except OSError as error:  # ssl.SSLError is one
        found = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read ({error.strerror})"
        raise UsageError(f"{variable}: {path} {found}; expected a PEM file of certificates to trust") from error
