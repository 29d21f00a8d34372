"""What a server accepts: bounds of a request, of a queue and of time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. Beyond those of a request it answers 4xx, beyond those of a queue 503."""

    head_bytes: int = 64 << 10
    head_seconds: float = 30
    """How long a client may take to send a request's first line and headers."""
    body_bytes: int = 4 << 20
    body_seconds: float = 30
    """How long a client may take to send a body."""
    read_seconds: float = 60
    """How long a client may read nothing of an answer that is being sent."""
    idle_seconds: int = 75
    """How long a connection is kept for another request: longer than proxies keep theirs, which is a minute."""
    inputs: int = 512
    """Inputs in one request."""
    waiting_inputs: int = 2048
    """Inputs that wait for a judging model, or are with it."""
    waiting_answers: int = 64
    """Answers of a writing model that wait for a row of its cache."""
    choices: int = 8
    """Answers to one prompt (`n`)."""
    rows: int = 8
    """Answers that are written at once."""
    cache_bytes: int = 4 << 30
    """The most memory for the cache of a writing model; what is not used is not taken."""
    replaced_seconds: float = 300
    """How long running requests may take after their model was replaced or unloaded; then its memory is freed."""
    drain_seconds: int = 30
    """How long running requests may take after SIGTERM."""
    close_seconds: int = 10
    """How long the log and the models may take after them; then the process ends, whatever hangs."""
