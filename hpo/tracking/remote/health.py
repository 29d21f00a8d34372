"""Whether a tracking server answers, takes the login, and has the right time: asked without MLflow, in seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import requests
import urllib3

from hpo.quoting import clipped
from hpo.tracking.remote.server import TrackingServer
from hpo.tracking.remote.trouble import trouble_of

_ASK = "api/2.0/mlflow/experiments/search"
"""The cheapest question that needs a login."""
_RUNS = "see that it runs, and that this machine reaches it"
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
    session.cert = ours.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    session.trust_env = True  # proxies, as MLflow has it
    user, token = ours.get("MLFLOW_TRACKING_USERNAME"), ours.get("MLFLOW_TRACKING_TOKEN")
    if user:
        session.auth = (user, ours.get("MLFLOW_TRACKING_PASSWORD", ""))
    elif token:
        session.headers["Authorization"] = f"Bearer {token}"
    try:
        with session:
            began = time.time()
            # With each request, as MLflow does: a session's own is overruled by REQUESTS_CA_BUNDLE.
            how: dict[str, Any] = {"timeout": limit_s / 2, "verify": _trust(ours)}
            answer = session.get(f"{server.url}/{_ASK}", params={"max_results": 1}, **how)
            skew = _skew(answer, (began + time.time()) / 2)
            if answer.status_code != HTTPStatus.OK:
                return ServerHealth("", skew, *_refusal(answer))
            version = session.get(f"{server.url}/version", **how)
    except requests.RequestException as error:
        trouble = trouble_of(error)
        return ServerHealth("", None, trouble.found, trouble.remedy or _RUNS)
    is_version = version.status_code == HTTPStatus.OK and "json" not in version.headers.get("Content-Type", "")
    return ServerHealth(clipped(version.text.strip(), 30) if is_version else "", skew)


def _trust(environment: Mapping[str, str]) -> bool | str:
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in _YES:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # whoever set the variable knows it
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
