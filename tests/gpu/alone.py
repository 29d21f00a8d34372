"""Runs each check in a process of its own: its crash or hang is a row, and no other check's end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.gpu.checks import CHECKS, Check
from tests.gpu.place import Place
from tests.gpu.rows import Row, from_line, line
from trainers.lazy_bitsandbytes import leave_out

ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
_LAST_LINES = 3


def in_a_process(check: Check, place: Place, within_s: float) -> list[Row]:
    """The rows of a check, and one more where its process did not end well."""
    rows, log = place.folder / "rows.jsonl", place.folder / "log.txt"
    every = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1")
    visible = every if check.name == "ranks" else every.split(",")[0]  # the Trainer would take all that it sees
    command = [sys.executable, "-m", "tests.gpu.alone", check.name, place.device, str(place.folder / "files")]
    began = time.monotonic()
    with log.open("wb") as output, rows.open("wb") as told:
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=told, stderr=output, start_new_session=True,
            env={**os.environ, **_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": visible},
        )  # fmt: skip
        try:
            code = child.wait(min(within_s, check.limit_s))
            ended = None if code == 0 else _in_words(code)
        except subprocess.TimeoutExpired:
            ended = f"was killed after {time.monotonic() - began:.0f} s, its limit"
        finally:
            _end(child)
    found = [from_line(text) for text in rows.read_text().splitlines() if text.endswith("}")]
    if ended is not None:
        said = " / ".join(log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:])
        found.append(Row(f"the process of {check.name}", "failed", f"{ended}: {said[-400:]}"))
    return found


def _in_words(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """The child, and what it has left behind in its session."""
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _begin_with(device: str) -> None:
    """Start CUDA: counting memory needs it, and bitsandbytes asks for the current device."""
    import torch

    torch.cuda.init()
    torch.cuda.set_device(device)


def main() -> None:
    """The child: rows go out on standard output as they are found, and all that libraries print to standard error."""
    leave_out()  # what PEFT does with it at its import is not for checks that do not need it
    name, device, folder = sys.argv[1:]
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    place = Place(device, Path(folder))
    place.folder.mkdir(parents=True)
    code = 0
    try:
        if not place.rehearses:
            _begin_with(device)
        for row in CHECKS[name].load()(place):
            print(line(row), file=told, flush=True)
    except Exception:  # noqa: BLE001  # whatever it is, it is this check's result
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # a thread that a library left behind holds nothing up


if __name__ == "__main__":
    main()
