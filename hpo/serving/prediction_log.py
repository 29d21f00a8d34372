"""Predictions as lines of JSON in rotating files, written by a thread of its own; texts only where they are wanted."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import queue
import random
import re
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpo.config.serve_config import LogSpec
from hpo.errors import UsageError

_WAITING = 4096
"""Rows that wait for the disk; more are dropped, for no request waits for it."""
_WAITING_BYTES = 64 << 20
"""Of those rows together: one may quote a body of 4 MiB."""
_FILE = re.compile(r"predictions-(\d{6,})\.jsonl")
_MB = 1 << 20


class PredictionLog:
    """Takes rows from requests and writes them."""

    def __init__(self, spec: LogSpec) -> None:
        """Raises `UsageError` where its folder cannot be written to."""
        self.written = 0
        self.dropped = 0
        """Rows that found too many others waiting, or that could not be written."""
        self._spec = spec
        self._salt = secrets.token_bytes(32)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._taken = self._gone = 0
        """Bytes that were queued, and that have left the queue; each is changed in one thread alone."""
        self._is_said = False
        self._files = _Files(Path(spec.dir), int(spec.max_mb * _MB), spec.files)
        self._thread = threading.Thread(target=self._work, name="prediction log", daemon=True)
        self._thread.start()

    @property
    def has_texts(self) -> bool:
        """Whether rows may hold texts."""
        return self._spec.texts

    def is_drawn(self) -> bool:
        """Whether the next prediction is one of the share that is written down."""
        return random.random() < self._spec.share  # noqa: S311  # a sample, not a secret

    def add(self, row: Mapping[str, Any], text: str) -> None:
        """Take a row; `text` is what its hash is made of. Never waits."""
        # The salt is forgotten with the process: the hash finds equal texts of one run, and nobody can try texts out.
        hashed = hmac.new(self._salt, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:16]
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **row, "hash": hashed}
        try:
            line = json.dumps(row, default=str).encode() + b"\n"
            if self._taken - self._gone + len(line) > _WAITING_BYTES:
                raise queue.Full
            self._queue.put_nowait(line)
            self._taken += len(line)
        except queue.Full:
            self.dropped += 1
        except (TypeError, ValueError, RecursionError) as error:  # a tool's arguments with too many levels, say
            self._fail(error)

    def lines(self) -> Iterator[str]:
        """The counts as lines of Prometheus's text."""
        for name, count, text in [
            ("hpo:predictions_logged_total", self.written, "Predictions written to the log."),
            ("hpo:predictions_dropped_total", self.dropped, "Predictions that the log had no time or room for."),
        ]:
            yield from (f"# HELP {name} {text}", f"# TYPE {name} counter", f"{name} {count}")

    def close(self) -> None:
        """Write what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._files.write(line)
                self.written += 1
            except OSError as error:
                self._fail(error)
            self._gone += len(line)
        self._files.close()

    def _fail(self, error: Exception) -> None:
        """Count a row that is lost; the first one is said."""
        self.dropped += 1
        if not self._is_said:
            self._is_said = True
            reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            print(f"prediction log: {self._spec.dir}: {reason}", file=sys.stderr, flush=True)


class _Files:
    """Files with rising numbers; a full one is followed by the next, and the oldest ones are deleted."""

    def __init__(self, folder: Path, most_bytes: int, most_files: int) -> None:
        """Goes on in the newest file. Raises `UsageError` where the folder cannot be written to."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_files = most_files
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._number = max(self._numbers(), default=1)
            self._file = self._opened(self._number)
        except OSError as error:
            raise UsageError(f"{folder}: predictions cannot be written there: {error.strerror}") from error

    def write(self, line: bytes) -> None:
        """Append a line, which then is in the file whatever happens to this process. Raises `OSError`."""
        size = os.fstat(self._file).st_size
        if size and size + len(line) > self._most_bytes:
            self._turn()
            size = 0
        if os.write(self._file, line) < len(line):  # the disk is full
            os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        os.close(self._file)

    def _turn(self) -> None:
        """Go on in the next file. Where that fails, the present one stays open: its descriptor must stay its own."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may have moved it away
        number = max([self._number, *self._numbers()]) + 1
        file = self._opened(number)
        os.close(self._file)
        self._number, self._file = number, file
        for old in sorted(self._numbers())[: -self._most_files]:
            self._path(old).unlink(missing_ok=True)

    def _opened(self, number: int) -> int:
        """The file of a number, which only its owner can read. Raises `OSError`."""
        file = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.fchmod(file, 0o600)
        return file

    def _numbers(self) -> list[int]:
        return [int(found[1]) for path in self._folder.iterdir() if (found := _FILE.fullmatch(path.name))]

    def _path(self, number: int) -> Path:
        return self._folder / f"predictions-{number:06}.jsonl"
