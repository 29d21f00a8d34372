"""`hpo ui`: MLflow's own UI on the home's store, opened on the comparison of a sweep; Optuna's dashboard beside it."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hpo.commands.ui_link import HOST
from hpo.config.space import from_resolved
from hpo.databases.sqlite import usable
from hpo.errors import HpoError, UsageError
from hpo.module_command import module_command
from hpo.paths import Home
from hpo.quoting import listed
from hpo.signals import terminate_as_interrupt
from hpo.study.store import study_names, view_study
from hpo.tracking.comparison import link, saved_view, view_tag
from hpo.tracking.mlflow_places import (
    SweepExperiment,
    experiment_tag,
    experiments_of_sweeps,
    follow_move,
    set_experiment_tag,
)
from hpo.tracking.mlflow_schema import check_store
from hpo.tracking.ui_app import NAME
from trainers.protocol.counted import counted

_MOST_LINKS = 10
_ENDS_WITHIN_S = 5.0
_LOOKS_EVERY_S = 0.2


def serve_ui(home: Home, port: int, sweep: str | None, *, optuna: bool, browser: bool) -> None:
    """Serve until Ctrl-C; with `browser` the comparison is opened, with `optuna` its dashboard is on the next port.

    Raises `UsageError` where there is no store yet, no such sweep or no free port, `HpoError` where a server ends by
    itself.
    """
    if not usable(home.mlflow_db):
        raise UsageError(f"nothing to show yet: there is no store at {home.mlflow_db}; run a sweep first")
    check_store(home.mlflow_db)
    follow_move(home)
    shown = _chosen(home, sweep)
    programs = [_mlflow(home, port), *([_dashboard(home, port + 1)] if optuna else [])]
    _refuse_taken(programs)
    for experiment in shown:
        _arrange(home, experiment)
    print("MLflow's UI starts, which takes some seconds", flush=True)
    with _running(programs) as servers:
        if all(map(_answers, programs, servers)):
            print("\n".join(_lines(port, shown, optuna=optuna)), flush=True)
            if browser and shown:
                webbrowser.open(link(f"http://{HOST}:{port}/", shown[0].id, shown[0].sweep))
        _wait(programs, servers)


def _chosen(home: Home, sweep: str | None) -> list[SweepExperiment]:
    """The sweeps to link to, the one that ran last first; deleted experiments come back when their sweeps go on."""
    found = [experiment for experiment in experiments_of_sweeps(home) if experiment.is_active]
    if sweep is None:
        return found
    chosen = [experiment for experiment in found if experiment.sweep == sweep]
    if not chosen:
        known = f"there are: {listed([experiment.sweep for experiment in found])}" if found else "there are none yet"
        raise UsageError(f"no sweep {sweep!r} in MLflow; {known}")
    return chosen


def _arrange(home: Home, experiment: SweepExperiment) -> None:
    """Make the view of a sweep again where it lacks one: an earlier hpo made none, or a person deleted it."""
    tag = view_tag(experiment.sweep)
    if experiment_tag(home, experiment, tag) is not None:
        return
    try:
        study = view_study(home.studies_db, experiment.sweep)
    except HpoError as problem:
        print(f"the comparison of {experiment.sweep} is not arranged: {problem}", file=sys.stderr, flush=True)
        return
    space = from_resolved(study.config["search_space"])
    made_ms = int(time.time() * 1000)
    set_experiment_tag(home, experiment, tag, saved_view(experiment.sweep, space, study.objectives, made_ms))


def _lines(port: int, shown: Sequence[SweepExperiment], *, optuna: bool) -> Iterator[str]:
    address = f"http://{HOST}:{port}/"
    yield f"MLflow UI on {address.rstrip('/')} (Ctrl-C ends it)"
    if optuna:
        yield f"Optuna's dashboard on http://{HOST}:{port + 1}"
    for experiment in shown[:_MOST_LINKS]:
        yield f"{experiment.sweep}: {link(address, experiment.id, experiment.sweep)}"
    if shown:
        yield f"charts of {shown[0].sweep}: {link(address, shown[0].id, shown[0].sweep, charts=True)}"
    if len(shown) > _MOST_LINKS:
        yield f"and {counted(len(shown) - _MOST_LINKS, 'more sweep')}: hpo ui SWEEP links to one"


@dataclass(frozen=True)
class _Program:
    """A server to start, which answers at `path` when it is ready; `secrets` are variables for it alone."""

    name: str
    port: int
    path: str
    command: list[str]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    """Where it runs: it may start a process that imports from there."""


def _mlflow(home: Home, port: int) -> _Program:
    from importlib.metadata import entry_points  # late, as it is slow

    if not entry_points(group="mlflow.app", name=NAME):
        raise HpoError("hpo's files are newer than its installation: install it again (make install)")
    command = module_command(
        "mlflow", "server", "--app-name", NAME, "--backend-store-uri", f"sqlite:///{home.mlflow_db}",
        "--artifacts-destination", home.artifacts.as_uri(), "--host", HOST, "--port", str(port), "--workers", "1",
        "--uvicorn-opts", "--log-level warning",
    )  # fmt: skip
    return _Program("MLflow's server", port, "/health", command, folder=home.dir)


def _dashboard(home: Home, port: int) -> _Program:
    """Optuna's dashboard on the studies, which it cannot write: the sweep's own process alone does."""
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise UsageError("--optuna: optuna-dashboard is not installed; pip install optuna-dashboard")
    studies = home.studies_db
    if not study_names(studies):
        raise UsageError(f"--optuna: there are no studies at {studies}; run a sweep first")
    from hpo.study.dashboard import URL  # late: `hpo show` takes only a link from here

    command = module_command("hpo.study.dashboard", HOST, str(port))
    return _Program("Optuna's dashboard", port, "/dashboard", command, {URL: studies.read_only_url})


def _refuse_taken(programs: Sequence[_Program]) -> None:
    """Raises `UsageError` where another program has the port of one: it would only be found out when both start."""
    for program in programs:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, program.port)) == 0:
                raise UsageError(
                    f"port {program.port}, for {program.name}: another program has it; --port N chooses other ones"
                )


@contextmanager
def _running(programs: Sequence[_Program]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Servers that end with this process: at Ctrl-C, at SIGTERM, and when one of them ends."""
    # MLflow's job execution is for judging prompts: eight processes of 1.9 GB together.
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore",
             "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # fmt: skip
    servers: list[subprocess.Popen[bytes]] = []
    with terminate_as_interrupt():
        try:
            # What they say goes to stderr: on stdout are the links.
            for program in programs:
                environment = {**os.environ, **quiet, **program.secrets}
                servers.append(
                    subprocess.Popen(program.command, env=environment, stdout=2, process_group=0, cwd=program.folder)
                )
            yield servers
        except KeyboardInterrupt:
            return
        finally:
            for server in servers:
                _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server with its children: MLflow's own one is a child, which may still be starting."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(_ENDS_WITHIN_S)


def _answers(program: _Program, server: subprocess.Popen[bytes]) -> bool:
    """Whether a server answers, once it does; False where it has ended. On a busy machine that takes minutes."""
    from http.client import HTTPConnection, HTTPException  # late, too

    while server.poll() is None:
        with closing(HTTPConnection(HOST, program.port, timeout=5)) as connection, suppress(OSError, HTTPException):
            connection.request("GET", program.path)
            if connection.getresponse().status == 200:
                return True
        time.sleep(_LOOKS_EVERY_S)
    return False


def _wait(programs: Sequence[_Program], servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until one of the servers ends. Raises `HpoError` where it was not asked to."""
    while all(server.poll() is None for server in servers):
        time.sleep(_LOOKS_EVERY_S)
    for program, server in zip(programs, servers, strict=True):
        if server.returncode:
            raise HpoError(f"{program.name} has ended with exit code {server.returncode}; what it said is above")


def has_browser() -> bool:
    """Whether this machine has a screen to open a page on: a browser of the terminal would take the terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
