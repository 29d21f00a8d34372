"""Where the studies are: which addresses are taken, and no password in any text."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from hpo.databases.studies import StudiesDatabase, without_studies
from hpo.errors import UsageError
from hpo.study.storage import close_storage, open_storage
from tests.postgres import PASSWORD


def test_the_home_s_file_is_the_default(tmp_path):
    database = StudiesDatabase.chosen(tmp_path / "studies.db", {"HPO_STUDIES": " "})
    assert (database.file, str(database)) == (tmp_path / "studies.db", str(tmp_path / "studies.db"))


def test_a_path_may_have_what_an_address_has_to_quote(tmp_path):
    file = tmp_path / "a {home} of 100 %41" / "studies.db"
    file.parent.mkdir()
    database = StudiesDatabase.in_file(file)
    close_storage(open_storage(database, "s"))
    assert file.exists()
    engine = create_engine(database.read_only_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM studies")).scalar() == 0
        with pytest.raises(OperationalError, match="readonly database"):
            connection.execute(text("DELETE FROM studies"))
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_an_address_keeps_its_password_to_itself(scheme, tmp_path):
    address = f"{scheme}://me:s3cret%7B%25%2F%3A%40%20word@db.example:5433/our%20studies?sslmode=require"
    database = StudiesDatabase.chosen(tmp_path, {"HPO_STUDIES": f" {address}\n"})
    url = make_url(database.url)
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg", "me", PASSWORD)
    assert (url.host, url.port, url.database, url.query) == (
        "db.example", 5433, "our studies", {"sslmode": "require"},
    )  # fmt: skip
    assert str(database) == "postgresql://me@db.example:5433/our%20studies"
    assert "s3cret" not in repr(database)
    assert database.without_secrets(f"no route for {PASSWORD}") == "no route for ..."
    assert "{" not in database.url  # Optuna would read it as a field of a template


@pytest.mark.parametrize("address", ["postgresql:///studies?host=/run/postgresql", "postgresql://me@[::1]/studies"])
def test_an_address_need_not_have_everything(address, tmp_path):
    url = make_url(StudiesDatabase.chosen(tmp_path, {"HPO_STUDIES": address}).url)
    assert (url.password, url.database) == (None, "studies")
    assert url.host == "::1" or url.query == {"host": "/run/postgresql"}


def test_options_that_choose_a_database_are_part_of_its_address():
    socket, other = (
        StudiesDatabase.on_server(
            f"postgresql://me:s3cret@/studies?sslmode=disable&host={host}&options=-csearch_path%3Da"
        )
        for host in ("/run/postgresql", "/run/other")
    )
    assert socket.address == "postgresql:///studies?host=%2Frun%2Fpostgresql&options=-csearch_path%3Da" != other.address
    query = make_url(socket.read_only_url).query
    assert query["options"] == "-csearch_path=a -c default_transaction_read_only=on"
    assert (query["host"], query["sslmode"]) == ("/run/postgresql", "disable")
    with pytest.raises(UsageError, match="HPO_STUDIES: has dbname, service after the question mark; expected"):
        StudiesDatabase.on_server("postgresql://me@db/studies?service=a&dbname=other")


WRONG = [
    "studies.db", "sqlite:///studies.db", "mysql://me:s3cret@db/studies", "postgresql://me:s3cret@db",
    # Special characters of a password that end the host where they are not written as %XX.
    "postgresql://me:12/s3cret@db/studies", "postgresql://me:s3cret/4@db/studies", "postgresql://me:s3#cret@db/studies",
    "postgresql://me:12?s3cret@db/studies", "postgresql://me:s3cret?@db/studies", "postgresql://me:s3cret@[db/studies",
]  # fmt: skip


@pytest.mark.parametrize("address", WRONG)
def test_what_is_no_address_is_refused_and_not_shown(address, tmp_path):
    with pytest.raises(UsageError, match=r"^HPO_STUDIES: is not the address of a .*expected postgresql://") as refused:
        StudiesDatabase.chosen(tmp_path, {"HPO_STUDIES": address})
    assert "s3" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_processes_that_run_others_code_do_without():
    opening = {"HPO_STUDIES": "a", "HPO_STUDIES_FILE": "b", "PGPASSWORD": "c", "PGPASSFILE": "d"}
    assert without_studies({"PATH": "e", **opening}) == {"PATH": "e"}


def test_the_address_may_stand_in_a_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text("postgresql://me:s3cret@db/studies\n")
    assert str(StudiesDatabase.chosen(tmp_path, {"HPO_STUDIES_FILE": str(file)})) == "postgresql://me@db/studies"
    with pytest.raises(UsageError, match="both set"):
        StudiesDatabase.chosen(tmp_path, {"HPO_STUDIES_FILE": str(file), "HPO_STUDIES": "postgresql://db/studies"})


@pytest.mark.parametrize(
    ("content", "found"), [(None, "cannot be read: No such file"), (b" ", "is empty"), (b"\xff", "not UTF-8"),
                           (b"x" * 20_000, "larger than 10,000 bytes"), (b"s3cret", "is not the address")],
)  # fmt: skip
def test_a_file_without_an_address_is_refused(tmp_path, content, found):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=found) as refused:
        StudiesDatabase.chosen(tmp_path, {"HPO_STUDIES_FILE": str(file)})
    assert "HPO_STUDIES_FILE" in str(refused.value)
    assert "s3cret" not in str(refused.value)
