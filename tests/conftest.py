"""Tiny random models and data that every test can afford."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.tiny import BAD, CHAT_TEMPLATE, FILLER, GOOD, chats, decoder, encoder, reviews, word_tokenizer, write_jsonl

__all__ = ["BAD", "CHAT_TEMPLATE", "FILLER", "GOOD", "chats", "reviews", "word_tokenizer", "write_jsonl"]

# Before any library of the kind is imported: no test may reach a hub, none may start threads that others would wait
# for (two jobs of two threads on two cores are ten times slower), and no progress bar may hide a failure.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)

for variable in ("MLFLOW_TRACKING_URI", "HPO_STUDIES", "HPO_STUDIES_FILE"):  # nor may one write to a team's server
    os.environ.pop(variable, None)

gc.disable()  # until all tests are collected: imports and tests are millions of objects, and all of them stay

# Tests start a thousand processes: without compiled files each would compile all our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


IN_MEMORY = "/dev/shm"  # noqa: S108  # pytest makes a folder of its own there
LEAST_FREE_BYTES = 4 << 30


def _keep_files_in_memory() -> None:
    """Where there is room for all: on a disk, half the time of a test that writes to SQLite is waiting."""
    if os.access(IN_MEMORY, os.W_OK):
        found = os.statvfs(IN_MEMORY)
        if found.f_bavail * found.f_frsize >= LEAST_FREE_BYTES and not found.f_flag & os.ST_NOEXEC:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", IN_MEMORY)


_keep_files_in_memory()

# A busy machine is slow for a moment: no property fails for that.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.register_profile("long", deadline=None)
hypothesis.settings.load_profile("patient")


class ByFileWithFixtures(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types for us
    """Gives a process all tests of an `xdist_group` or of a file whose fixtures are made once for it; others singly.

    Else each of the two processes makes such a fixture, and a server or a release takes seconds.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if test.rfind("@") > test.rfind("]"):  # --dist=loadgroup appends the group; a parameter may have an @ too
            return test.rpartition("@")[2]
        return file if _has_fixtures_of_its_own(file) else nodeid


_OF_A_MODULE = re.compile(r'^@pytest\.fixture\(scope="module"', re.MULTILINE)


@functools.cache
def _has_fixtures_of_its_own(file: str) -> bool:
    path = Path(__file__).parents[1] / file
    beside = path.with_name("conftest.py")
    return any(_OF_A_MODULE.search(place.read_text()) for place in (path, beside) if place.exists())


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFileWithFixtures:
    """In place of the one that `--dist` names."""
    return ByFileWithFixtures(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test of thirty kills first, then tests that stay together, then the others; `addopts` keeps this order.

    What takes minutes and begins last keeps one core waiting for the other.
    """

    def is_alone(item: pytest.Item) -> bool:
        return not (item.get_closest_marker("xdist_group") or _has_fixtures_of_its_own(item.nodeid.partition("::")[0]))

    items.sort(key=lambda item: (item.path.name != "test_chaos.py", is_alone(item)))


def pytest_collection_finish() -> None:
    """From here on garbage is collected, and what was made so far is not looked at again and again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _node_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What this machine keeps as a node of clusters is no test's."""
    os.environ["HPO_NODE_HOME"] = str(tmp_path_factory.mktemp("node"))


@pytest.fixture(autouse=True)
def _no_open_databases() -> Iterator[None]:
    """MLflow keeps the files of each store open that it has seen: in time more of them than select() takes."""
    yield
    for room in ("tracking", "model_registry"):
        if module := sys.modules.get(f"mlflow.store.{room}.sqlalchemy_store"):
            for engine in module.SqlAlchemyStore._engine_map.values():
                if engine.pool.checkedin():  # in time most are of earlier tests
                    engine.dispose()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` (BERT) and `chat` (Llama) model folders and `reviews.jsonl`, `chats.jsonl`."""
    folder = tmp_path_factory.mktemp("tiny")
    encoder(folder / "encoder")
    decoder(folder / "chat")
    write_jsonl(folder / "reviews.jsonl", reviews(240))
    write_jsonl(folder / "chats.jsonl", chats(80))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny model of a family, of two layers where a test names no other number."""
    from tests.trainers.families import build

    folder, built = tmp_path_factory.mktemp("families"), {}

    def get(family: str, layers: int = 2) -> Path:
        if (family, layers) not in built:
            built[family, layers] = build(family, folder / str(layers) / family, layers)
        return built[family, layers]

    return get


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Where `tests.quick_releases` keeps the graphs of this run: one folder for all processes of xdist."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "graphs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty store: MLflow takes seconds to make one.

    What this process makes from now on is a copy of it. MLflow also reads its 68 migration scripts whenever a store is
    opened: from now on once.
    """
    from mlflow.store.db import utils

    from hpo.paths import Home
    from hpo.tracking import mlflow_store

    home = Home(tmp_path_factory.mktemp("store"))

    def copied(folder: Path) -> Path:
        folder.mkdir()
        return Path(shutil.copy(home.mlflow_db, folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_get_latest_schema_revision", functools.cache(utils._get_latest_schema_revision))
        mlflow_store.client(home)
        patch.setattr(mlflow_store, "create_database", copied)
        yield home.mlflow_db


@pytest.fixture
def home_with_store(home: Path, mlflow_database: Path) -> Path:
    """A home that has been used before."""
    home.mkdir()
    shutil.copy(mlflow_database, home)
    return home


def copied_home(made: Path, folder: Path) -> Path:
    """A copy of a home that was made once for several tests; each may change its own."""
    if module := sys.modules.get("mlflow.tracking._tracking_service.utils"):
        module._artifact_repos_cache.clear()  # in it MLflow remembers, for good, where the files of a run's id lie
    return Path(shutil.copytree(made, folder / "home"))


@contextmanager
def answered_here() -> Iterator[None]:
    """Commands in this process answer the requests of their sweep in it too, one at a time.

    A trial host imports torch for seconds. Where a test asks what a sweep says or keeps, it can do without one.
    """
    from hpo.executors.inline import InlineExecutor
    from trainers.host import dispatch, resident

    def inline(log: Path, worker: str, keep_fds: object = ()) -> InlineExecutor:
        return InlineExecutor(importlib.import_module(worker).work)

    with pytest.MonkeyPatch.context() as patch:
        for command in ("check", "plan", "preflight", "reproduce"):
            patch.setattr(f"hpo.commands.{command}.LocalExecutor", inline)
        patch.setattr(resident, "leave_out", lambda: None)  # later tests may need bitsandbytes
        for module in (dispatch, resident):
            patch.setattr(module, "set_threads", lambda count: None)  # it has one, as every test has
        patch.setattr(resident, "_resident", {})
        yield


@pytest.fixture
def requests_here(mlflow_database: Path) -> Iterator[None]:
    """No trial host: see `answered_here`."""
    with answered_here():
        yield


@pytest.fixture
def write_yaml(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a small real sweep on the tiny encoder (or `kind="chat"`), with keys replaced by keyword."""

    def write(kind: str = "encoder", file: str = "sweep.yaml", **changes: Any) -> Path:
        data = {"encoder": tiny / "reviews.jsonl", "chat": tiny / "chats.jsonl"}[kind]
        config: dict[str, Any] = {
            "name": f"tiny-{kind}",
            "task": {"encoder": "text-classification", "chat": "chat"}[kind],
            "model": str(tiny / kind),
            "data": {"train": str(data), "validation_size": 40, "test_size": 20},
            "search_strategy": {"num_trials": 2},
            "search_space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True}},
            "training": {"max_examples": 160, "evaluations": 2, "max_length": 64, "learning_rate": 1e-2},
        }
        config.update(changes)
        path = tmp_path / file
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))  # JSON is YAML
        return path

    return write
