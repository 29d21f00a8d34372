"""Databases of earlier and later versions: refused with the way on, and upgraded while nothing runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from alembic import command
from mlflow.store.db.utils import _get_alembic_config

from hpo.care.backup import make_backup
from hpo.care.restore import restore_backup
from hpo.care.tree_copy import copy_database
from hpo.care.upgrade import KEPT, schemas_of, upgrade_home
from hpo.commands.backup import restored_lines
from hpo.databases.migrations import mlflow_migrations, optuna_migrations, revision_of
from hpo.databases.sqlite import opened
from hpo.errors import HpoError, UsageError
from hpo.lock import sweep_lock
from hpo.paths import Home
from hpo.study.store import study_names
from hpo.tracking.mlflow_schema import check_store
from hpo.tracking.mlflow_store import client

OLDER = "v3.0.0.c"


def downgrade_studies(file: Path) -> None:
    """To an Optuna of 2022; its last migration's own way back names an index that it never made."""
    with opened(file) as database:
        database.execute("DROP INDEX ix_trials_study_id")
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}", skip_compatibility_check=True)
    command.downgrade(storage._version_manager._create_alembic_config(), OLDER)
    storage.engine.dispose()


@pytest.fixture(scope="module")
def old_home(tmp_path_factory, mlflow_database, _empty_studies):
    """Its databases have earlier schemas, and a study and a run in them."""
    home = Home(tmp_path_factory.mktemp("old"))
    shutil.copy(_empty_studies, home.dir / "studies.db")
    storage = optuna.storages.RDBStorage(f"sqlite:///{home.dir / 'studies.db'}")
    study = optuna.create_study(study_name="old", storage=storage)
    study.set_user_attr("config", {})
    study.add_trial(optuna.trial.create_trial(value=1.5))
    storage.engine.dispose()
    downgrade_studies(home.dir / "studies.db")
    shutil.copy(mlflow_database, home.mlflow_db)
    client(home).create_run("0", run_name="old")
    command.downgrade(_get_alembic_config(f"sqlite:///{home.mlflow_db}"), "-3")
    return home


@pytest.fixture
def old(old_home, tmp_path):
    return Home(Path(shutil.copytree(old_home.dir, tmp_path / "home")))


def test_an_earlier_schema_is_refused_with_the_way_on_and_not_migrated_silently(old):
    before = [(old.dir / name).read_bytes() for name in ("studies.db", "mlflow.db")]
    with pytest.raises(HpoError, match="hpo upgrade"):
        study_names(old.studies_db)
    with pytest.raises(HpoError, match="hpo upgrade"):
        client(old)
    assert [schema.age for schema in schemas_of(old)] == ["older", "older"]
    assert [(old.dir / name).read_bytes() for name in ("studies.db", "mlflow.db")] == before


def test_an_upgrade_keeps_what_was_there_and_a_copy_of_the_old_files(old):
    revision = revision_of(old.mlflow_db)
    done = upgrade_home(old)
    assert [schema.age for schema in schemas_of(old)] == ["current", "current"]
    assert study_names(old.studies_db) == ["old"]
    study = optuna.load_study(study_name="old", storage=f"sqlite:///{old.dir / 'studies.db'}")
    assert study.best_value == 1.5
    assert [run.info.run_name for run in client(old).search_runs(["0"])] == ["old"]
    assert [Path(schema.kept).name for schema in done] == [f"studies-{OLDER}.db", f"mlflow-{revision}.db"]
    assert [revision_of(Path(schema.kept)) for schema in done] == [OLDER, revision]
    assert sorted(path.name for path in old.dir.glob("*.new")) == []
    assert upgrade_home(old) == []


def test_a_home_of_an_earlier_version_can_be_backed_up_and_restored_before_its_upgrade(old, tmp_path):
    make_backup(old, tmp_path / "backup")
    restored = restore_backup(Home(tmp_path / "new"), tmp_path / "backup")
    assert restored.sweeps == ["old"]
    next_steps = [line for line in restored_lines(restored) if line.startswith("  hpo ")]
    begin = f"hpo --home {restored.home} "
    assert [line.partition(begin)[2].split()[0] for line in next_steps] == ["upgrade", "list", "sweep", "fetch"]


def test_nothing_is_upgraded_while_a_sweep_runs_or_a_database_is_open_elsewhere(old):
    with sweep_lock(old.sweep("busy").lock), pytest.raises(UsageError, match="sweeps/busy: running now"):
        upgrade_home(old)
    reader = [sys.executable, "-c", "import sys; file = open(sys.argv[1]); print(flush=True); input()", old.mlflow_db]
    with subprocess.Popen(reader, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UsageError, match=f"process {process.pid}"):
            upgrade_home(old)
        process.communicate(b"\n")
    assert not (old.dir / KEPT).exists()


@pytest.mark.parametrize("name", ["studies.db", "mlflow.db"])
def test_a_later_schema_is_refused_with_the_reason(old_home, tmp_path, name):
    home = Home(tmp_path)
    copy_database(old_home.dir / name, tmp_path / name)
    with opened(tmp_path / name) as database:
        database.execute("UPDATE alembic_version SET version_num = 'from-tomorrow'")
    for refused in (
        upgrade_home,
        lambda h: study_names(h.studies_db) if name == "studies.db" else check_store(h.mlflow_db),
    ):
        with pytest.raises(HpoError, match=r"made by a later (optuna|mlflow) \(schema from-tomorrow"):
            refused(home)


def test_the_newest_migrations_are_those_that_the_libraries_name(database, mlflow_database):
    assert optuna_migrations().head == revision_of(database)
    assert mlflow_migrations().head == revision_of(mlflow_database)
