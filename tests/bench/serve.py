"""`hpo serve` under load: judging beside raw onnxruntime, and writing beside llama.cpp's server, in turns.

Both machines of a pair get the same texts. A ratio is that of two turns next to each other, and what is shown is the
median. CPU seconds are those of the server's process and of raw onnxruntime's: clients, and other work on the machine,
count for nothing there. Each row is printed when it is there.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from subprocess import PIPE
from typing import IO

from hpo.paths import Home
from hpo.serving.order import Order
from tests.bench.clients import Answers, ask, request_of
from tests.bench.released import ROOT, release_of
from tests.bench.tables import Row
from trainers.runtime.cores import usable_cores

CLIENTS = 32
TURNS = 7
TEXTS = 400
"""In a turn of the server."""
RAW_TEXTS = 100
"""In a turn of raw onnxruntime."""
SHORT_TEXTS = (2000, 8000)
"""Requests of a few words each, after which the memory is looked at: errors and leaks need many, and no long texts."""
WAITS = 1000
"""Texts whose waits are measured, of one client alone and of all at a part of their load: with 200, one crowd among
their arrivals decided the p99."""
LOADS = (0.3, 0.5, 0.7)
"""Shares of the most texts a second, at which the waits are measured."""
WRITING_TURNS = 7
AT_ONCE = 4
TOKENS = 24
_WISH = "Write a long story about {} in {} chapters, and describe every one of its days."
_VOCABULARY = """the film was a quiet wonder and nobody left before its end though some said that two hours of noise
with not one idea would be dull while others found it moving funny slow bright or too long for what happens"""


@dataclass(frozen=True)
class Place:
    """A server's process, and where it listens."""

    pid: int
    host: str
    port: int

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def rows(judge: Path | None, writer: Path | None, llama: Sequence[str] | None) -> Iterator[Row]:
    """`judge` and `writer` are release folders, made here where none is given.

    `llama` is llama.cpp's server and its model; None leaves it out.
    """
    home = Home(ROOT / "mlruns")
    with tempfile.TemporaryDirectory() as made:
        yield from _judging_rows(judge or release_of("movie-sentiment", "fp32", Path(made), home))
        yield from _writing_rows(writer or release_of("smollm2-chat", "int8", Path(made), home), llama)


def _judging_rows(release: Path) -> list[Row]:
    """Throughput, waits, errors and memory of a classifier with 32 clients."""
    short = request_of("/v1/classify", {"input": "not one dull moment here"})
    texts = _texts(random.Random(0), TURNS * TEXTS)
    requests = [request_of("/v1/classify", {"input": text}) for text in texts]
    served, raw, used, raw_used, failed, resident = [], [], [], [], 0, []
    with _served(release) as place, _raw(release) as beside:
        failed += ask(place.address, requests[:100], CLIENTS).failed
        _turn_of_raw(beside, texts[:100])
        lone = ask(place.address, requests[:WAITS], 1)
        for turn in range(TURNS):
            part = slice(turn * TEXTS, (turn + 1) * TEXTS)
            before = place.cpu_seconds
            answers = ask(place.address, requests[part], CLIENTS)
            used.append(place.cpu_seconds - before)
            served.append(answers.seconds)
            failed += answers.failed
            seconds, cpu = _turn_of_raw(beside, texts[part][:RAW_TEXTS])
            raw.append(seconds * TEXTS / RAW_TEXTS)
            raw_used.append(cpu * TEXTS / RAW_TEXTS)
        most = TEXTS / median(served)
        due = {load: _arrivals(load * most) for load in LOADS}
        waits = {load: ask(place.address, requests[:WAITS], CLIENTS, due[load]).waits for load in LOADS}
        for count in SHORT_TEXTS:
            failed += ask(place.address, [short] * count, CLIENTS).failed
            resident.append(place.resident_mb)
        alone = {load: _in_order(due[load], lone.waits) for load in LOADS}
    name = f"MiniLM, {json.loads((release / 'release.json').read_text())['variant']}"
    throughput = [theirs / ours for ours, theirs in zip(served, raw, strict=True)]
    effort = [theirs / ours for ours, theirs in zip(used, raw_used, strict=True)]
    return [
        Row(f"{name}, {CLIENTS} clients: texts a second, of raw's", _spread(throughput), "0.90"),
        Row("the same, a CPU second", _spread(effort), "0.90"),
        Row("texts a second: hpo serve, raw", f"{most:.0f}, {TEXTS / median(raw):.0f}"),
        Row("wait of one client alone: p50, p99, ms", _milliseconds(lone)),
        *(
            Row(f"p99 of {CLIENTS} clients at {load:.0%} of that load, against alone; of a server that takes for each "
                "text what it took alone, one after the other",
                f"{_p99(waits[load]) / _p99(lone.waits):.1f}; {_p99(alone[load]) / _p99(lone.waits):.1f}",
                "3" if load == 0.5 else "")
            for load in LOADS
        ),
        Row(f"errors in {TURNS * TEXTS + sum(SHORT_TEXTS):,} requests", str(failed), "0"),
        Row(f"resident memory after {SHORT_TEXTS[0]:,} and {sum(SHORT_TEXTS):,} short requests, MB",
            f"{resident[0]:.0f}, {resident[1]:.0f}", "flat"),
    ]  # fmt: skip


def _arrivals(rate: float) -> list[float]:
    """Random times of requests in seconds, so many a second in the mean."""
    chance = random.Random(1)
    return list(itertools.accumulate(chance.expovariate(rate) for _ in range(WAITS)))


def _in_order(due: Sequence[float], takes: Sequence[float]) -> list[float]:
    """Waits for a server that answers requests one after the other: what the arrivals alone cost, in seconds."""
    waits, free = [], 0.0
    for time_due, seconds in zip(due, takes, strict=True):
        free = max(time_due, free) + seconds
        waits.append(free - time_due)
    return waits


def _writing_rows(release: Path, llama: Sequence[str] | None) -> list[Row]:
    """The time of four answers at once over that of one, ours and llama.cpp's."""
    with ExitStack() as stack:
        places = {"hpo serve": stack.enter_context(_served(release))}
        if llama:
            places["llama.cpp"] = stack.enter_context(_llama(llama))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in places}
        for turn in range(-1, WRITING_TURNS):
            for name, place in places.items():
                one = _write(place, [_WISH.format("a river", turn + 2)])
                subjects = ("a fox", "the sea", "an old train", "two cooks")
                four = _write(place, [_WISH.format(it, turn + 2) for it in subjects[:AT_ONCE]])
                if turn >= 0:  # the first one warms up
                    times[name].append((one, four))
    name = f"SmolLM2, {json.loads((release / 'release.json').read_text())['variant']}"
    found = []
    for server, pairs in times.items():
        found += [
            Row(f"{name}, {server}: {AT_ONCE} answers, of the time of one", _spread([f / o for o, f in pairs])),
            Row(f"{server}: tokens a second, one answer and {AT_ONCE}",
                f"{TOKENS / median(o for o, _ in pairs):.0f}, {AT_ONCE * TOKENS / median(f for _, f in pairs):.0f}"),
        ]  # fmt: skip
    return found if llama else [*found, Row("llama.cpp's server", "left out: give --llama-server and --gguf")]


def _write(place: Place, asked: Sequence[str]) -> float:
    """The seconds that answers asked for at once take, as if each had all its tokens.

    Some end before. Raises `RuntimeError` where they have less than half of them.
    """
    bodies = [
        {"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, "temperature": 0} for text in asked
    ]
    answers = ask(place.address, [request_of("/v1/chat/completions", body) for body in bodies], len(asked))
    written = [json.loads(body)["usage"]["completion_tokens"] for body in answers.bodies]
    if answers.failed or 2 * sum(written) < TOKENS * len(asked):
        raise RuntimeError(f"expected {TOKENS} tokens in each answer, got {written}")
    return float(answers.seconds * TOKENS * len(asked) / sum(written))


@contextmanager
def _served(release: Path) -> Iterator[Place]:
    """`hpo serve` of one release on a free port."""
    order = Order({"it": release}, "127.0.0.1", 0)
    command = [sys.executable, "-m", "hpo.serving", order.to_json()]
    with _process(command) as process:
        line = next(line for line in process.stdout or () if line.startswith("on http"))
        yield Place(process.pid, "127.0.0.1", int(line.split()[1].rpartition(":")[2]))


@contextmanager
def _llama(command: Sequence[str]) -> Iterator[Place]:
    """llama.cpp's server with as many threads and rows."""
    server, model = command
    port, slots = 18080, str(AT_ONCE)
    options = ["-t", str(usable_cores()), "-np", slots, "-c", "4096", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log, _process([server, "-m", model, *options], log) as process:
        _until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield Place(process.pid, "127.0.0.1", port)


def _until_healthy(url: str, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310  # our own URL
            return
        time.sleep(0.2)
    raise RuntimeError("llama.cpp's server did not start")


@contextmanager
def _raw(release: Path) -> Iterator[subprocess.Popen[str]]:
    with _process([sys.executable, "-m", "tests.bench.raw_onnx", str(release)]) as process:
        yield process


def _turn_of_raw(process: subprocess.Popen[str], texts: Sequence[str]) -> tuple[float, float]:
    """Seconds and CPU seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(texts) + "\n")
    process.stdin.flush()
    seconds, cpu = json.loads(process.stdout.readline())
    return seconds, cpu


@contextmanager
def _process(command: Sequence[str], log: IO[bytes] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block; its output is read line by line, or goes to `log`."""
    with subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=log or PIPE, stderr=log, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _texts(chance: random.Random, count: int) -> list[str]:
    """Texts of log-normal length around 20 words."""
    lengths = [max(1, round(chance.lognormvariate(3.0, 0.6))) for _ in range(count)]
    return [" ".join(chance.choices(_VOCABULARY.split(), k=length)) for length in lengths]


def _spread(ratios: Sequence[float]) -> str:
    low, middle, high = quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _milliseconds(answers: Answers) -> str:
    cuts = quantiles(answers.waits, n=100)
    return f"{1000 * cuts[49]:.1f}, {1000 * cuts[98]:.1f}"


def _p99(waits: Sequence[float]) -> float:
    return quantiles(waits, n=100)[98]
