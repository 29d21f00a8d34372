"""Optuna's dashboard on the studies, in a process of its own for `hpo ui --optuna`: `python -m hpo.study.dashboard`.

It shows and changes nothing: a study has one writer, its sweep. The database refuses what would change it, too: see
`StudiesDatabase.read_only_url`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

URL = "_HPO_DASHBOARD_URL"
"""The variable with the database: its address may have a password, which arguments would show to everybody."""
_REFUSED = "hpo shows studies here, and only the sweep of a study changes it"


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing about requests that were answered."""


def only_reading(app: WSGIApplication) -> WSGIApplication:
    """The same pages, without the requests by which a person would change a study."""

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": _REFUSED}).encode()]

    return answer


def serve(host: str, port: int) -> None:
    """Serve until the process ends."""
    from optuna_dashboard import wsgi  # late: it is an optional package

    app = only_reading(wsgi(os.environ.pop(URL)))
    with make_server(host, port, app, handler_class=_Quiet) as server:
        server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
