"""MLflow's web application as `hpo ui` serves it: without MLflow's assistant.

The assistant runs commands on this machine for whoever reaches its port, without a login. On loopback that is every
user of the machine. MLflow finds this application by its name, an entry point in pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

NAME = "hpo"
"""Of the application, for `mlflow server --app-name`."""
ASSISTANT = "/mlflow/assistant"
"""In every path that the assistant answers."""
Message = MutableMapping[str, Any]


class WithoutAssistant:
    """An ASGI application that says 404 in the assistant's place, and is MLflow's own in all others."""

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Answer a request, or follow the server's start and end."""
        if ASSISTANT in scope.get("path", ""):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"hpo ui serves MLflow without its assistant"})
            return
        # Late: the program that starts the server looks at this file too, and needs none of MLflow's application.
        from mlflow.server.fastapi_app import app as of_mlflow

        await of_mlflow(scope, receive, send)


app = WithoutAssistant()
