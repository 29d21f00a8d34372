"""What the trial host says when it has loaded the base model is a note of the sweep."""

from __future__ import annotations

from hpo.commands.preflight import warm_up
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from tests.hpo.builders import INSPECTION, make_config
from trainers.protocol.events import Loaded


def worker(request):
    yield Loaded(1, 0.0, ["shortcut not used: layers without padding"])


def test_notes_of_the_host_come_after_those_of_the_data(tmp_path):
    specs = warm_up(InlineExecutor(worker), TrialSpecs(make_config(tmp_path), Home(tmp_path), INSPECTION))
    assert specs.prepared.notes == [*INSPECTION.notes, "shortcut not used: layers without padding"]
