"""A delivery to a program of yours: the night as JSON on its standard input, within a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO

from hpo.config.notify import Command
from hpo.notices.delivery import Delivery, Undelivered
from hpo.notices.webhook import payload
from hpo.quoting import clipped, visible

ID_VARIABLE = "HPO_DELIVERY_ID"


@dataclass(frozen=True)
class CommandChannel:
    """Starts one program for each delivery."""

    command: Command

    @property
    def name(self) -> str:
        """There is one of each file, whatever it runs."""
        return "command"

    def send(self, delivery: Delivery, left_s: float) -> None:
        """Run the program to its end. Raises `Undelivered` where it cannot be started, exits with another code than 0,
        or runs longer than its limit; then it is ended with all that it started."""
        night = json.dumps({**payload(delivery), "text": delivery.message.text}).encode() + b"\n"
        try:
            with tempfile.TemporaryFile() as said:
                self._run(delivery.id, night, said, min(self.command.seconds, left_s))
        except OSError as error:  # no such program, or a full disk
            raise Undelivered(f"it cannot be started: {error.strerror}", may_pass=False) from None

    def _run(self, identity: str, night: bytes, said: IO[bytes], seconds: float) -> None:
        """Raises `Undelivered` as `send` does, and `OSError` where the program cannot be started."""
        process = subprocess.Popen(
            self.command.argv, cwd=self.command.folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=said, start_new_session=True, env={**os.environ, ID_VARIABLE: identity},
        )  # fmt: skip
        try:
            process.communicate(night, timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Undelivered(f"it took longer than {seconds:g} s and was ended", may_pass=True) from None
        if process.returncode:
            said.seek(-min(said.seek(0, os.SEEK_END), 2000), os.SEEK_END)
            last = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            why = f"it ended with {process.returncode}" + "".join(f": {clipped(visible(line))}" for line in last)
            raise Undelivered(why, may_pass=True)
