"""`hpo reproduce` on a real sweep of the tiny model: equal bits, what it refuses, what it says differs; and nothing of
the record is touched."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from hpo.commands import reproduce as command
from hpo.commands.find_run import find_run
from hpo.commands.reproduce import reproduce
from hpo.commands.sweep import run_sweep
from hpo.config.file import load_config
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError, UsageError
from hpo.executors.environment import environment_here
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from hpo.progress_view import Silent
from hpo.release.manifest import Manifest, TrainingFacts
from hpo.release.versions import versions_of
from hpo.study.revision import open_revision
from hpo.study.store import stored_state, view_study
from hpo.trials.calls import run_alone
from hpo.trials.recorded_run import RecordedRun
from hpo.trials.train_again import train_again
from tests.brought.test_stores import run_main
from tests.hpo.release.rivals import registered
from trainers.host import dispatch
from trainers.protocol.codec import from_json
from trainers.protocol.events import Evaluation, TrialEvent, TrialResult
from trainers.protocol.files import file_fingerprint, file_hash
from trainers.protocol.requests import Inspect, Train

SPACE = {"learning_rate": {"type": "choice", "values": [3e-3, 1e-2]}}


def files_of(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_hash(p) for p in sorted(folder.rglob("*")) if p.is_file()}


CONFIG = {
    "name": "tiny",
    "task": "text-classification",
    "data": {"train": "reviews.jsonl", "validation_size": 40, "test_size": 20},
    "search_strategy": {"type": "grid"},
    "search_space": SPACE,
    "training": {"max_examples": 160, "evaluations": 2, "max_length": 32},
    "finalists": {"top": 1, "seeds": 2},
    "promote": False,
}


@pytest.fixture(scope="module")
def swept(tiny, tmp_path_factory, mlflow_database):
    """A real sweep with finalists, run once: the folder of its home and data."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copy(tiny / "reviews.jsonl", folder)
    (folder / "home").mkdir()
    shutil.copy(mlflow_database, folder / "home")
    (folder / "tiny.yaml").write_text(json.dumps({**CONFIG, "model": str(tiny / "encoder")}))
    run_sweep(folder / "tiny.yaml", Home(folder / "home"), jobs=1, threads=1)
    return folder


@pytest.fixture
def folder(swept, tmp_path):
    """A copy of the home, whose data is in place; the data is put back afterwards."""
    shutil.copytree(swept / "home", tmp_path / "home")
    before = (swept / "reviews.jsonl").read_bytes()
    yield tmp_path
    (swept / "moved.jsonl").unlink(missing_ok=True)
    (swept / "reviews.jsonl").write_bytes(before)


@pytest.fixture
def executor(requests_here):
    """Trains in this process: what is trained again does not depend on where."""
    inline = InlineExecutor(dispatch.work)
    yield inline
    inline.close()


def test_a_champion_and_a_trial_are_reproduced_bit_for_bit(folder):
    home = Home(folder / "home")
    before = files_of(home.dir)
    for name in ("tiny", "tiny#0"):
        found = reproduce(home, name, None, Silent())
        assert (found.outcome, found.weights, found.bound, found.differences) == ("equal", "equal", None, []), name
        assert found.recorded == found.reproduced
    assert files_of(home.dir) == before


def test_other_threads_and_packages_are_named(folder, monkeypatch):
    home = Home(folder / "home")

    def other(gpus):
        here = environment_here(gpus)
        packages = {**here.packages, "torch": "9.9"}
        return dataclasses.replace(here, packages=packages, cpu_flags=[*here.cpu_flags, "avx9"])

    monkeypatch.setattr(command, "environment_here", other)
    found = reproduce(home, "tiny#0", 2, Silent())
    assert found.outcome in ("equal", "within")
    torch = environment_here().packages["torch"]
    assert [str(d) for d in found.differences] == ["threads: 1 -> 2", f"torch: {torch} -> 9.9", "CPU flags: - -> avx9"]


@pytest.mark.usefixtures("requests_here")
def test_changed_data_is_refused_with_what_differs(folder, swept, capsys, monkeypatch):
    rows = (swept / "reviews.jsonl").read_text().splitlines()
    changed = json.dumps({**json.loads(rows[0]), "text": "another one"})
    (swept / "reviews.jsonl").write_text("\n".join([changed, *rows[1:]]))
    home = Home(folder / "home")
    with pytest.raises(ConfigError) as caught:
        reproduce(home, "tiny#0", None, Silent())
    assert {problem.where for problem in caught.value.problems} == {f"data: {swept / 'reviews.jsonl'}"}
    assert "rows are not those of tiny#0" in str(caught.value)
    (swept / "reviews.jsonl").unlink()
    ended = run_main(capsys, monkeypatch, home.dir, "reproduce", "tiny#0")
    assert (ended.code, "reviews.jsonl" in ended.err) == (2, True)


def test_a_changed_base_model_is_refused_with_its_files(folder):
    run = find_run(Home(folder / "home"), "tiny#0")
    now = dataclasses.replace(
        run.prepared, model_fingerprint="0" * 64, model_hashes={**run.prepared.model_hashes, "config.json": "0" * 64}
    )
    (problem,) = run.changed_inputs(now, run.spec)
    assert problem.found == "is not the base model of tiny#0: other content in config.json"
    old = dataclasses.replace(run, prepared=dataclasses.replace(run.prepared, model_hashes={}, split_hashes={}))
    both = old.changed_inputs(dataclasses.replace(now, fingerprint="1" * 64), run.spec)
    assert "180 train, 40 validation, 20 test rows" in both[0].found
    assert both[1].found.endswith("other files")


def test_labels_of_other_names_are_other_data(folder):
    run = find_run(Home(folder / "home"), "tiny#0")
    (problem,) = run.changed_inputs(dataclasses.replace(run.prepared, labels=["bad", "positive"]), run.spec)
    assert problem.found == "its labels are not those of tiny#0: bad, then negative"


def test_code_of_your_own_is_compared(folder, tmp_path):
    run = find_run(Home(folder / "home"), "tiny#0")
    (tmp_path / "loss.py").write_text("def loss(): ...")
    config = {**run.config, "training": {**run.config["training"], "loss": "loss.py:loss"}, "code": ["0" * 12]}
    spec = dataclasses.replace(run.spec, workload=dataclasses.replace(run.spec.workload, code_dir=str(tmp_path)))
    changed = dataclasses.replace(run, config=config)
    (problem,) = changed.changed_inputs(run.prepared, spec)
    assert problem.found == "is not the code that tiny#0 was trained with"
    (tmp_path / "loss.py").unlink()
    assert changed.changed_inputs(run.prepared, spec)[0].found == "is gone"


@pytest.mark.usefixtures("requests_here")
def test_another_result_ends_with_3_and_the_numbers(folder, capsys, monkeypatch):
    home = Home(folder / "home")
    path = home.sweep("tiny").trial(0).result
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "value": stored["value"] - 0.5, "adapter_sha256": "0" * 64}))
    ended = run_main(capsys, monkeypatch, home.dir, "reproduce", "tiny#0")
    assert ended.code == 3
    assert "tiny#0: NOT reproduced" in ended.out
    assert "beyond" in ended.err
    shutil.rmtree(path.parent / "rows")
    found = json.loads(run_main(capsys, monkeypatch, home.dir, "reproduce", "tiny#0", "--json").out)
    assert (found["outcome"], found["weights"], found["bound"]["changed"]) == ("different", "different", None)
    assert "results of them are gone" in found["bound"]["of"]


@pytest.mark.usefixtures("requests_here")
def test_a_value_within_the_bound_is_reproduced(folder):
    """As with other packages: other bits, and the same answers."""
    home = Home(folder / "home")
    path = home.sweep("tiny").trial(0).result
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "value": stored["value"] * (1 + 1e-6), "adapter_sha256": "0" * 64}))
    (path.parent / "environment.json").unlink()
    found = reproduce(home, "tiny#0", None, Silent())
    assert (found.outcome, found.weights, found.bound.changed) == ("within", "different", 0)
    assert found.notes == ["machine and packages of the run were not recorded: an earlier hpo trained it"]


def test_what_names_no_run_is_refused(folder):
    home = Home(folder / "home")
    for given, told in (
        ("unheard", "no sweep 'unheard'; there are: tiny"),
        ("tiny#9", "no trial 9 in sweep 'tiny'; it has the trials 0 to 1"),
        ("tiny#x", "expected SWEEP"),
        ("tiny#0.7", "no run tiny#0.7"),
        ("tiny/1", "no released model 'tiny'"),
        ("tiny@champion", "no released model 'tiny'"),
    ):
        with pytest.raises(UsageError) as caught:
            find_run(home, given)
        assert told in str(caught.value)


def test_a_release_names_the_run_that_it_was_made_of(folder):
    home = Home(folder / "home")
    registered(home, "tiny", 0.9)
    (version,) = versions_of(home, "shared")
    with pytest.raises(UsageError, match="no sweep of hpo released it"):
        find_run(home, "shared/1")
    run = find_run(home, "tiny#1")
    made_of = {"adapter": file_fingerprint(run.paths.adapter.iterdir())}
    Manifest(sweep="tiny", trial=1, sha256=made_of).write(version.folder())
    assert find_run(home, "shared/1") == run
    assert find_run(home, "tiny").name == find_run(home, f"{find_run(home, 'tiny').name}").name
    Manifest(sweep="tiny", trial=0, sha256=made_of).write(version.folder())
    with pytest.raises(UsageError, match="tiny#0 is not what shared/1 was made of: another sweep has that name now"):
        find_run(home, "shared/1")


def test_a_failed_trial_has_nothing_to_compare(folder):
    home = Home(folder / "home")
    path = home.sweep("tiny").trial(0).result
    failed = {**json.loads(path.read_text()), "state": "failed", "value": None, "cause": "diverged"}
    path.write_text(json.dumps(failed))
    with pytest.raises(UsageError, match=r"ended without a result \(diverged\)"):
        find_run(home, "tiny#0")


# --- a file that was edited since ----------------------------------------------------------------------


def edit(folder, swept, model, **changes):
    """Open the revision that an edited file asks for, without a trial of its own."""
    home, file = Home(folder / "home"), swept / "edited.yaml"
    file.write_text(json.dumps({**CONFIG, "model": str(model), **changes}))
    config, data = load_config(file, home), stored_state(home.studies_db, "tiny").data
    open_revision(config, TrialSpecs(config, home, data).fingerprint, home.studies_db)
    file.unlink()
    return home


OTHER_SPACE = {"learning_rate": {"type": "choice", "values": [3e-3, 2e-2]}}


@pytest.mark.usefixtures("requests_here")
def test_a_run_that_an_edit_left_out_is_trained_as_it_was(folder, swept, tiny):
    edited = {**CONFIG["training"], "warmup_ratio": 0.5}
    home = edit(folder, swept, tiny / "encoder", search_space=OTHER_SPACE, training=edited)
    assert view_study(home.studies_db, "tiny").records == []
    found = reproduce(home, "tiny#1.0", None, Silent())
    assert (found.outcome, found.weights, found.differences) == ("equal", "equal", [])
    (note,) = found.notes
    assert note.startswith("trained as revision 1 of the sweep had it; revision 2 left it out (")
    assert "search_space.learning_rate.values: [0.003, 0.01] -> [0.003, 0.02]" in note
    assert "training.warmup_ratio" in note
    assert find_run(home, "tiny#1").notes == found.notes
    with pytest.raises(UsageError, match="no trial 9 in sweep 'tiny'; it has no trial yet"):
        find_run(home, "tiny#9")


@pytest.mark.usefixtures("requests_here")
def test_data_and_model_that_moved_are_read_where_the_edited_file_says(folder, swept, tiny, tmp_path):
    shutil.copytree(tiny / "encoder", tmp_path / "moved")
    (swept / "reviews.jsonl").rename(swept / "moved.jsonl")
    home = edit(folder, swept, tmp_path / "moved", data={**CONFIG["data"], "train": "moved.jsonl"})
    run = find_run(home, "tiny#0")
    workload = run.spec_here(home, tmp_path / "c", tmp_path / "r").workload
    assert workload.data.train.source == str(swept / "moved.jsonl")
    assert workload.model.source == str(tiny / "encoder")  # still where it lay
    gone = dataclasses.replace(run.spec.workload.model, source=str(tmp_path / "gone"))
    spec = dataclasses.replace(run.spec, workload=dataclasses.replace(run.spec.workload, model=gone))
    moved = dataclasses.replace(run, spec=spec)
    assert moved.spec_here(home, tmp_path / "c", tmp_path / "r").workload.model.source == str(tmp_path / "moved")
    assert reproduce(home, "tiny#0", None, Silent()).outcome == "equal"


def test_a_release_of_another_sweep_of_that_name_says_what_differs(folder, swept, tiny):
    home = edit(folder, swept, tiny / "encoder", search_space=OTHER_SPACE)
    registered(home, "tiny", 0.9)
    (version,) = versions_of(home, "shared")
    run = find_run(home, "tiny#1")
    shutil.rmtree(run.paths.adapter)  # as `hpo gc` does with a trial that an edit left out
    facts = TrainingFacts.of(run.spec, run.result, run.params, None, None)
    made_of = {"data": run.prepared.fingerprint, "base": run.prepared.model_fingerprint, "adapter": "0" * 64}
    Manifest(sweep="tiny", trial=1, sha256=made_of, training=facts).write(version.folder())
    assert find_run(home, "shared/1") == run
    other = dataclasses.replace(facts, seed=7, settings={**facts.settings, "learning_rate": 0.5, "unheard": 1})
    Manifest(sweep="tiny", trial=1, sha256={**made_of, "data": "1" * 64}, training=other).write(version.folder())
    with pytest.raises(UsageError) as caught:
        find_run(home, "shared/1")
    was = run.prepared.fingerprint[:12]
    assert str(caught.value) == (
        "tiny#1 is not what shared/1 was made of: another sweep has that name now; "
        f"data: {'1' * 12} -> {was}, seed: 7 -> 0, learning_rate: 0.5 -> 0.01, unheard: 1 -> -"
    )
    Manifest(sweep="deleted", trial=1).write(version.folder())
    gone = "shared/1 was made of deleted#1, which has no record any more: no sweep 'deleted'"
    with pytest.raises(UsageError, match=gone):
        find_run(home, "shared/1")


# --- trials that were tried again ----------------------------------------------------------------------


def attempt(halvings, resumed_from=None):
    return {"cause": "oom", "message": "", "seconds": 1.0, "resumed_from": resumed_from, "halvings": halvings}


@pytest.mark.parametrize(
    ("attempts", "last", "stages"),
    [
        ([], (0, None), [(0, None)]),
        ([attempt(0)], (0, 10), [(0, None)]),  # a crash: the same micro-batch
        ([attempt(0)], (1, None), [(1, None)]),  # before the first checkpoint
        ([attempt(0)], (1, 10), [(0, 10), (1, None)]),
        ([attempt(0), attempt(1, 10)], (2, 10), [(0, 10), (2, None)]),
        ([attempt(0), attempt(1, 10)], (2, 20), [(0, 10), (1, 20), (2, None)]),
    ],
)
def test_which_micro_batch_each_step_had(folder, attempts, last, stages):
    from hpo.results.records import Attempt

    run = find_run(Home(folder / "home"), "tiny#0")
    halvings, resumed_from = last
    run = dataclasses.replace(
        run, spec=dataclasses.replace(run.spec, micro_batch_halvings=halvings), resumed_from=resumed_from,
        attempts=[from_json(Attempt, one) for one in attempts],
    )  # fmt: skip
    assert run.stages() == stages


def test_a_trial_that_ran_out_of_memory_half_way_is_reproduced(folder, executor, tmp_path):
    """The first half of its steps with one micro-batch, the rest with half of it."""
    from hpo.results.records import Attempt

    run = find_run(Home(folder / "home"), "tiny#0")
    first = run.result.evaluations[0]
    spec = run.spec_here(Home(folder / "home"), tmp_path / "cache", tmp_path / "halved")
    prepared = run_alone(executor, Inspect(spec.workload))
    train_to(executor, spec, prepared, first.step)
    halved = dataclasses.replace(spec, micro_batch_halvings=2)
    result = train_to(executor, halved, prepared, None)
    attempts = [Attempt("oom", "", 1.0, None, 0)]
    recorded: RecordedRun = dataclasses.replace(
        run, spec=halved, result=result, attempts=attempts, resumed_from=first.step
    )
    again, notes = train_again(
        executor, recorded, dataclasses.replace(spec, dir=str(tmp_path / "again")), prepared, Silent()
    )
    assert (again.adapter_sha256, again.value, notes) == (result.adapter_sha256, result.value, [])
    elsewhere = dataclasses.replace(recorded, resumed_from=first.step - 1)
    _, notes = train_again(
        executor, elsewhere, dataclasses.replace(halved, dir=str(tmp_path / "other")), prepared, Silent()
    )
    assert notes == ["memory ran out between two evaluations of the run; here all steps have the last micro-batch"]


def train_to(executor, spec, prepared, end):
    """Train until the evaluation at step `end` and pause there; else to the end: its result."""
    request, result = executor.submit(Train((spec,), prepared)), None
    while True:
        message = executor.wait()
        if message is None:
            continue
        event = message[1]
        if not isinstance(event, TrialEvent):
            return result
        if isinstance(event.report, Evaluation):
            executor.reply(request, spec.number, "pause" if event.report.step == end else "go")
        if isinstance(event.report, TrialResult):
            result = event.report


def test_a_pruned_trial_ends_where_it_was_pruned(folder, executor, tmp_path):
    run = find_run(Home(folder / "home"), "tiny#0")
    first = run.result.evaluations[:1]
    pruned = dataclasses.replace(run.result, state="pruned", stopped_by="pruner", evaluations=first)
    spec = run.spec_here(Home(folder / "home"), tmp_path / "cache", tmp_path / "again")
    prepared = run_alone(executor, Inspect(spec.workload))
    again, _ = train_again(executor, dataclasses.replace(run, result=pruned), spec, prepared, Silent())
    assert (again.state, len(again.evaluations), again.value) == ("pruned", 1, first[0].metrics["f1_macro"])


def test_a_home_that_was_moved_finds_its_cache(folder, tmp_path):
    run = find_run(Home(folder / "home"), "tiny#0")
    was = dataclasses.replace(run.spec.workload, cache_dir="/old/home/cache")
    data = was.data.with_sources({"train": dataclasses.replace(was.data.train, source="/old/home/cache/vader/v.jsonl")})
    spec = dataclasses.replace(run.spec, workload=dataclasses.replace(was, data=data))
    (tmp_path / "new/cache/vader").mkdir(parents=True)
    (tmp_path / "new/cache/vader/v.jsonl").touch()
    moved = dataclasses.replace(run, spec=spec).spec_here(Home(tmp_path / "new"), tmp_path / "c", tmp_path / "r")
    assert moved.workload.data.train.source == str(tmp_path / "new/cache/vader/v.jsonl")
    assert (moved.workload.model, moved.dir) == (was.model, str(tmp_path / "r"))
    assert moved.fingerprint() == spec.fingerprint()
