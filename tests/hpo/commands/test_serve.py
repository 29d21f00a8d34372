"""`hpo serve`: names and folders to an order for the serving process."""

from __future__ import annotations

import os
import sys

import pytest

from hpo.cli.main import cli
from hpo.commands import serve
from hpo.config.serve_config import LogSpec
from hpo.errors import ConfigError, UsageError
from hpo.paths import Home
from hpo.release.reference import version_named
from hpo.serving.order import Order
from hpo.tracking.mlflow_store import client


@pytest.fixture
def orders(monkeypatch):
    """The orders that would be served."""
    found = []
    monkeypatch.delenv("HPO_API_KEY", raising=False)
    monkeypatch.setattr(os, "execv", lambda program, command: found.append((program, command)))
    return found


@pytest.fixture
def folders(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "release.json").write_text("{}")
    return tmp_path


@pytest.fixture
def registry(tmp_path):
    """A home with two versions of `tone`: `champion` is the second."""
    home = Home(tmp_path / "home")
    store = client(home)
    store.create_registered_model("tone")
    for number in ("1", "2"):
        folder = tmp_path / f"version-{number}" / "artifacts" / "fp32"
        folder.mkdir(parents=True)
        store.create_model_version("tone", (tmp_path / f"version-{number}").as_uri())
    store.set_registered_model_alias("tone", "champion", "2")
    store.set_registered_model_alias("tone", "previous", "1")
    return home


def test_folders_are_served_by_their_names_without_mlflow(folders, orders, tmp_path):
    key_file = folders / "keys"
    key_file.write_text("k" * 20)
    arguments = [str(folders / "first"), str(folders / "second"), "--port", "0", "--host", "0.0.0.0"]  # noqa: S104
    cli(["--home", str(tmp_path), "serve", *arguments, "--key-file", str(key_file)], standalone_mode=False)
    ((program, command),) = orders
    assert (program, command[:3]) == (sys.executable, [sys.executable, "-m", "hpo.serving"])
    models = {"first": folders / "first", "second": folders / "second"}
    assert Order.from_json(command[3]) == Order(models, "0.0.0.0", 0, key_file, home=tmp_path)  # noqa: S104
    assert "k" * 20 not in command[3]


def test_names_are_served_as_they_are_given(registry, orders, tmp_path):
    serve.serve(registry, ["tone", "tone@previous"], "127.0.0.1", 8000, None)
    ((_, command),) = orders
    folder = "version-{}/artifacts/fp32"
    wanted = {"tone": tmp_path / folder.format(2), "tone@previous": tmp_path / folder.format(1)}
    order = Order.from_json(command[3])
    assert (order.models, order.follow_every) == (wanted, None)
    assert order.versions == {"tone": "2", "tone@previous": "1"}


def test_names_and_aliases_are_followed_on_wish(registry, orders, folders):
    given = ["tone", "tone/1", str(folders / "first")]
    serve.serve(registry, given, "127.0.0.1", 8000, None, follow=True)
    ((_, command),) = orders
    assert Order.from_json(command[3]).follow_every == 2
    with pytest.raises(UsageError, match="a folder or a version never changes"):
        serve.serve(registry, given[1:], "127.0.0.1", 8000, None, follow=True)
    assert len(orders) == 1


def test_all_that_is_wrong_is_said_at_once(registry, orders, folders):
    given = ["none", "tone/7", "tone@best", str(folders / "first"), str(folders / "first")]
    with pytest.raises(UsageError) as refused:
        serve.serve(registry, given, "127.0.0.1", 8000, None)
    lines = str(refused.value).splitlines()
    assert len(lines) == 4
    assert lines[0] == "no released model 'none'; there are: tone"
    assert lines[1] == "no released model 'tone/7'; 'tone' has the versions 1, 2, @champion, @previous"
    assert "'tone@best'" in lines[2]
    assert "there is a model 'first' already" in lines[3]
    assert not orders


def test_another_host_needs_a_key(folders, orders):
    with pytest.raises(UsageError, match="others can reach it"):
        serve.serve(Home(folders), [str(folders / "first")], "0.0.0.0", 8000, None)  # noqa: S104
    assert not orders


def test_a_version_is_found_by_alias_or_number(registry, tmp_path):
    for reference, number in [("tone", 2), ("tone@champion", 2), ("tone@previous", 1), ("tone/1", 1)]:
        assert version_named(registry, reference).folder() == tmp_path / f"version-{number}" / "artifacts" / "fp32"
    for reference in ("tone@", "@champion", "tone/x", "tone/1/2", "\ud800", "no@champion"):
        with pytest.raises(UsageError, match="no released model"):
            version_named(registry, reference)


def test_a_configuration_and_a_log_go_with_the_order(folders, orders, registry, tmp_path):
    (tmp_path / "words.txt").write_text("bad\n")
    card = '{"task": "multi-label-classification", "labels": ["toxic"]}'
    (tmp_path / "version-2/artifacts/fp32/release.json").write_text(card)
    (tmp_path / "serve.yaml").write_text("serve: {filter: [words.txt, 'models:/tone@champion'], log_predictions: a}\n")
    arguments = [
        str(folders / "first"),
        "--config",
        str(tmp_path / "serve.yaml"),
        "--log-predictions",
        str(tmp_path / "b"),
    ]
    cli(["--home", str(registry.dir), "serve", *arguments], standalone_mode=False)
    ((_, command),) = orders
    config = Order.from_json(command[3]).config
    assert [one.path for one in config.filters] == [
        str(tmp_path / "words.txt"), str(tmp_path / "version-2/artifacts/fp32"),
    ]  # fmt: skip
    assert config.log == LogSpec(str(tmp_path / "b"))
    (tmp_path / "serve.yaml").write_text("serve: {filter: 'models:/nobody'}\n")
    with pytest.raises(ConfigError, match=r"serve\.yaml:1: serve\.filter\.classifier: no released model 'nobody'"):
        cli(["--home", str(registry.dir), "serve", *arguments], standalone_mode=False)
