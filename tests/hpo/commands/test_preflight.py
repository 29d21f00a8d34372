"""What is asked of the trial host before anything is written, and what becomes of its answers."""

from __future__ import annotations

from hpo.commands.preflight import inspect, warm_up
from hpo.config.trial_specs import TrialSpecs
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from tests.hpo.builders import INSPECTION, Recording, make_config
from trainers.protocol.events import Loaded


def worker(request):
    yield Loaded(1, 0.0, ["shortcut not used: layers without padding"])


def test_notes_of_the_host_come_after_those_of_the_data(tmp_path):
    specs = warm_up(InlineExecutor(worker), TrialSpecs(make_config(tmp_path), Home(tmp_path), INSPECTION))
    assert specs.prepared.notes == [*INSPECTION.notes, "shortcut not used: layers without padding"]


def test_the_host_imports_before_the_child_that_inspects_and_while_it_does(tmp_path):
    """All is sent at once: the host takes one after the other, but answers an inspection from a child."""

    class Sent(Recording):
        answered_before_the_last = 0

        def wait(self, timeout_s=None):
            self.answered_before_the_last += len(self.others) < 3
            return super().wait(timeout_s)

    executor = Sent()
    inspect(executor, make_config(tmp_path), Home(tmp_path))
    assert [type(request).__name__ for request in executor.others] == ["Import", "Inspect", "Load"]
    assert executor.answered_before_the_last == 0
