"""Why a request to a tracking server failed, in plain words, and whether a later attempt may succeed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests
from mlflow.exceptions import MlflowException, RestException

from hpo.quoting import clipped
from hpo.tracking.remote.trouble import trouble_of

_MAY_PASS_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_LOGIN = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


class RemoteProblem(Exception):
    """A request that failed; its text says why, as the end of a sentence that begins with the server."""


class Unavailable(RemoteProblem):
    """The server does nothing now: a later attempt may succeed."""


class Silent(Unavailable):
    """The server does not answer: each further attempt would take as long again."""


class NotAllowed(Unavailable):
    """The server does not accept the login: no attempt of this process will succeed."""


class OwnStore(NotAllowed):
    """The server has the very store that is to be copied: each copy would be one more run to copy."""


class Forbidden(NotAllowed):
    """The server does not let this login write there; elsewhere it may."""


class Refused(RemoteProblem):
    """The server refuses this one request; others may succeed."""


class Missing(Refused):
    """The server does not have what the request is about."""


@contextmanager
def plain_problems() -> Iterator[None]:
    """What MLflow's client raises, as a `RemoteProblem`."""
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        raise problem_of(error) from error


def problem_of(error: MlflowException | requests.RequestException) -> RemoteProblem:
    """The problem behind an error of MLflow's client, which wraps those of `requests`."""
    cause = error if isinstance(error, requests.RequestException) else error.__cause__ or error.__context__
    if isinstance(cause, requests.RequestException):
        answer = cause.response
        return _of_connection(cause) if answer is None else _of_status(answer.status_code, _first_line(answer.text))
    if isinstance(error, RestException) or error.get_http_status_code() != HTTPStatus.INTERNAL_SERVER_ERROR:
        return _of_status(error.get_http_status_code(), _first_line(error.message))
    return Unavailable(f"gave an answer that MLflow's client cannot read: {_first_line(error.message)}")


def _of_status(status: int, message: str) -> RemoteProblem:
    words = f"answered {status} ({_phrase(status)})"
    if status == HTTPStatus.UNAUTHORIZED:
        return NotAllowed(f"{words}: {_LOGIN}")
    if status == HTTPStatus.FORBIDDEN:
        return Forbidden(f"{words}: this login may not write there")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _MAY_PASS_LATER:
        return Unavailable(words)
    kind = Missing if status == HTTPStatus.NOT_FOUND else Refused
    return kind(f"{words}: {message}" if message else words)


def _of_connection(cause: requests.RequestException) -> RemoteProblem:
    if isinstance(cause, requests.exceptions.RetryError):  # the only one that MLflow's client raises for a status
        found = next((status for status in HTTPStatus if f"too many {status} error responses" in str(cause)), None)
        return Unavailable("answered with an error" if found is None else f"answered {found} ({_phrase(found)})")
    trouble = trouble_of(cause)
    words = f"{trouble.found}: {trouble.remedy}" if trouble.remedy else trouble.found
    return Silent(words) if trouble.is_silent else Unavailable(words)


def _first_line(text: str) -> str:
    return clipped(next(iter(text.strip().splitlines()), ""))


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "an unknown status"
