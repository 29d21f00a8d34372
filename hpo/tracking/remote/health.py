"""Whether a tracking server answers, takes the login, and has the right time: asked without MLflow, in seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import requests

from hpo.quoting import clipped
from hpo.tracking.remote.server import TrackingServer

_ASK = "api/2.0/mlflow/experiments/search"
"""The cheapest question that needs a login."""
_YES = ("true", "1")


@dataclass(frozen=True)
class ServerHealth:
    """What a server answered."""

    version: str = ""
    """Of its MLflow; empty where it does not say."""
    skew_s: float | None = None
    """Seconds by which its clock is ahead of this machine's; whole seconds are all it says. None where it says none."""
    problem: str = ""
    """Why it cannot be used."""
    remedy: str = ""


def ask_server(server: TrackingServer, environment: Mapping[str, str], limit_s: float) -> ServerHealth:
    """Ask a server two questions, each for at most half of the limit; never raises for what the server does."""
    session = requests.Session()
    ours = {**environment, **server.for_mlflow(environment)}
    session.verify = _trust(ours)
    session.trust_env = True  # proxies, as MLflow has it
    user, token = ours.get("MLFLOW_TRACKING_USERNAME"), ours.get("MLFLOW_TRACKING_TOKEN")
    if user:
        session.auth = (user, ours.get("MLFLOW_TRACKING_PASSWORD", ""))
    elif token:
        session.headers["Authorization"] = f"Bearer {token}"
    try:
        with session:
            began = time.time()
            answer = session.get(f"{server.url}/{_ASK}", params={"max_results": 1}, timeout=limit_s / 2)
            skew = _skew(answer, (began + time.time()) / 2)
            if answer.status_code != HTTPStatus.OK:
                return ServerHealth("", skew, *_refusal(answer))
            version = session.get(f"{server.url}/version", timeout=limit_s / 2)
    except requests.RequestException as error:
        return ServerHealth(problem=_trouble(error), remedy="see that it runs, and that this machine reaches it")
    is_version = version.status_code == HTTPStatus.OK and "json" not in version.headers.get("Content-Type", "")
    return ServerHealth(clipped(version.text.strip(), 30) if is_version else "", skew)


def _trust(environment: Mapping[str, str]) -> bool | str:
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in _YES:
        return False
    return environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _skew(answer: requests.Response, at: float) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5 - at
    except (KeyError, ValueError):
        return None


def _refusal(answer: requests.Response) -> tuple[str, str]:
    status = answer.status_code
    known = f" ({HTTPStatus(status).phrase})" if status in set(HTTPStatus) else ""
    if status == HTTPStatus.UNAUTHORIZED:
        return (f"does not accept the login: answered {status}{known}",
                "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN")  # fmt: skip
    if status == HTTPStatus.FORBIDDEN:
        return f"does not let this login read: answered {status}{known}", "ask its administrator for permission"
    if status == HTTPStatus.NOT_FOUND:
        return f"is not MLflow's server: answered {status}{known}", "check the path in MLFLOW_TRACKING_URI"
    return f"answered {status}{known}", "see its log"


def _trouble(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "has no certificate that this machine trusts (MLFLOW_TRACKING_SERVER_CERT_PATH names one to trust)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "cannot be reached through the proxy of http_proxy"
    if isinstance(error, requests.Timeout):
        return "does not answer"
    return "cannot be reached"
