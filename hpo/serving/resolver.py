"""The process that knows the registry: asked which version a name means now, ended with the server."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hpo.module_command import module_command
from hpo.serving.order import Place

_ANSWERS_WITHIN_S = 60.0
"""It starts in three seconds. A sweep may hold the lock of the database for a moment."""
_LONGEST_ANSWER = 4 << 20
"""Bytes of a line."""


class ResolverGone(Exception):
    """The process ended, or did not answer in time: the next question starts a new one."""


class Resolver:
    """Asks `python -m hpo.release.lookup`, which has MLflow: this process has not."""

    def __init__(self, home: Path, *, stays: bool) -> None:
        """`stays`: whether the process waits for the next question; otherwise each has a process of its own."""
        self._home = home
        self._stays = stays
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def places(self, references: Sequence[str]) -> dict[str, Place | str]:
        """What each reference means now: where a version lies, or why it means none. Raises `ResolverGone`."""
        async with self._turn:
            is_whole = False
            try:
                async with asyncio.timeout(_ANSWERS_WITHIN_S):
                    found = await self._asked(references)
                is_whole = True
            except TimeoutError:
                raise ResolverGone(f"the registry did not answer within {_ANSWERS_WITHIN_S:.0f} seconds") from None
            except (OSError, ValueError) as error:  # no process, or no line of JSON
                raise ResolverGone(f"the registry cannot be asked: {error}") from error
            finally:
                if not (is_whole and self._stays):  # half an answer would be taken for the next one
                    await self.close()
        return {
            reference: Place(Path(answer["folder"]), answer["version"]) if "folder" in answer else answer["problem"]
            for reference, answer in found.items()
        }

    async def close(self) -> None:
        """End the process, where it runs."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            await process.wait()

    async def _asked(self, references: Sequence[str]) -> dict[str, dict[str, str]]:
        if self._process is None:
            # In a session of its own: Ctrl-C is for the server, which first lets running requests end.
            self._process = await asyncio.create_subprocess_exec(
                *module_command("hpo.release.lookup", str(self._home)),
                stdin=PIPE, stdout=PIPE, limit=_LONGEST_ANSWER, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018  # pipes
        with suppress(ConnectionError, RuntimeError):  # it has ended (uvloop: RuntimeError): there is no line to read
            self._process.stdin.write(json.dumps(list(references)).encode() + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise ResolverGone(f"the process that asks the registry ended with exit code {await self._process.wait()}")
        answers: dict[str, dict[str, str]] = json.loads(line)
        return answers
