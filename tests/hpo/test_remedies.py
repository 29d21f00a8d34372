"""What a person is told to do about packages, whether hpo runs from its source or is installed."""

from __future__ import annotations

import pytest

from hpo import remedies
from hpo.commands import doctor
from hpo.databases.migrations import _shipped
from hpo.errors import HpoError
from hpo.paths import Home


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Where the lock of a source checkout would be."""
    monkeypatch.setattr(remedies, "LOCK", tmp_path / "requirements.lock")
    return tmp_path / "requirements.lock"


def test_a_source_checkout_has_a_lock_and_it_is_named_by_its_path(lock):
    lock.touch()
    assert remedies.packages_again() == remedies.packages_again("optuna") == f"pip install -r {lock}"


@pytest.mark.usefixtures("lock")
def test_who_has_installed_hpo_is_sent_to_no_file_of_its_source(tmp_path, monkeypatch):
    with pytest.raises(HpoError, match=r"pip install optuna~=5\.0\.0 installs a version that it knows"):
        _shipped.__wrapped__("optuna", "nowhere")

    def missing():
        raise ModuleNotFoundError("No module named 'msgspec'")

    monkeypatch.setattr(doctor, "_of_machine", missing)
    (broken,) = [f for group in doctor.examine_all(Home(tmp_path)) for f in group.findings if f.what == "packages"]
    assert broken.found == "No module named 'msgspec'; the rest cannot be examined"
    assert broken.remedy.startswith("pip check names what is missing")
