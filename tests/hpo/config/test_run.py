"""Where a sweep trains, as its file and its command line say it."""

import pytest

from hpo.config.run import Run
from hpo.errors import ConfigError, UsageError
from tests.hpo.builders import make_config


def test_it_is_this_machine_unless_the_file_says_otherwise(tmp_path):
    assert make_config(tmp_path).run == Run("local", "auto", shared_home=False)
    given = {"executor": "ray", "address": "10.0.0.1:6379", "shared_home": True}
    assert make_config(tmp_path, run=given).run == Run(**given)
    assert make_config(tmp_path, run={"executor": "ray"}).run == Run("ray")


def test_it_may_change_from_one_session_to_the_next(tmp_path):
    assert make_config(tmp_path, run={"executor": "ray"}).resolved() == make_config(tmp_path).resolved()


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ({"executor": "rya"}, r"run\.executor.*ray"),
        ({"executor": "ray", "address": "10.0.0.1"}, r"run\.address.*10\.0\.0\.1.*expected HOST:PORT"),
        ({"executor": "ray", "address": "http://head:1"}, r"run\.address.*expected HOST:PORT"),
        ({"address": "10.0.0.1:6379"}, r"run\.address.*is for run\.executor: ray"),
        ({"shared_home": True}, r"run\.shared_home.*is for run\.executor: ray"),
        ({"executor": "ray", "nodes": 2}, r"run\.nodes"),
    ],
)
def test_what_cannot_be_is_a_problem_of_its_key(tmp_path, run, problem):
    with pytest.raises(ConfigError, match=problem):
        make_config(tmp_path, run=run)


def test_the_command_line_decides():
    there = Run("ray", "10.0.0.1:6379", shared_home=True)
    assert there.instead(None, None) == there
    assert there.instead("local", None) == Run()
    assert there.instead(None, "10.0.0.2:6379") == Run("ray", "10.0.0.2:6379", shared_home=True)
    assert Run().instead("ray", None) == Run("ray")
    assert Run().instead(None, "10.0.0.1:6379") == Run("ray", "10.0.0.1:6379")
    for executor, address in (("local", "10.0.0.1:6379"), (None, "head")):
        with pytest.raises(UsageError, match="--address"):
            there.instead(executor, address)
