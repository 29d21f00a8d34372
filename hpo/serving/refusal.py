"""What is wrong with a request, in the shape of OpenAI's errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

END_OF_EVENTS = b"data: [DONE]\n\n"
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 503: "overloaded_error"}


@dataclass
class Refusal(Exception):
    """A request that is not answered: the status is 4xx for what its sender can change, 503 for later, 500 for ours."""

    status: int
    message: str
    param: str | None = None
    """The key of the body that is wrong."""
    code: str | None = None
    """A short name for programs."""
    inner: Mapping[str, Any] | None = None
    """What filters decided, as Azure says it."""

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, Any]:
        """The answer's body."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        inner = {} if self.inner is None else {"innererror": dict(self.inner)}
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code, **inner}}

    @property
    def last_events(self) -> bytes:
        """The last events of a stream that it ends."""
        return event(self.body) + END_OF_EVENTS

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers, besides those of every JSON."""
        if self.status == 503:
            return {"retry-after": "1"}
        # A browser asks for a password, and takes the key as one.
        return {"www-authenticate": 'Basic realm="hpo", charset="UTF-8"'} if self.status == 401 else {}


def event(content: Mapping[str, Any]) -> bytes:
    """A server-sent event. Its JSON is ASCII: what is quoted of a request may have no UTF-8."""
    return f"data: {json.dumps(content)}\n\n".encode()


def overloaded(waiting: int) -> Refusal:
    """The queue is full."""
    return Refusal(503, f"{waiting} inputs are waiting already; try again later", code="queue_full")


def bad_request(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """The body is wrong."""
    return Refusal(400, message, param, code)


@contextmanager
def refusing(param: str) -> Iterator[None]:
    """Make a `Refusal` of what is wrong with a key of the body, also of JSON with too many levels for Python."""
    try:
        yield
    except RecursionError as error:
        raise bad_request(
            f"{param}: has too many levels; expected fewer lists and mappings in each other", param
        ) from error
    except ValueError as error:
        raise bad_request(str(error), param) from error
