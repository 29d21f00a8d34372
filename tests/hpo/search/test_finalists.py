"""Who really won, over the fake trainer: repeats with fresh seeds, their judgement, the sealed test read once."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

import hpo.results.statistics
import hpo.search.final_scores
import hpo.search.scoreboard
import tests.hpo.builders
from hpo.progress_view import Silent
from hpo.results.champion import choose_champion
from hpo.results.finalists_text import verdicts
from hpo.results.gaps import gap
from hpo.results.gaps import scores as gap_scores
from hpo.results.race import between_seeds
from hpo.search.contest import contestants_of, repeats_of, repeats_planned
from hpo.search.finalists import run_finalists
from hpo.search.lost_runs import write_lost_runs
from hpo.search.scoreboard import Scoreboard
from hpo.trials.trial_files import read_result
from tests.hpo.builders import (
    INSPECTION,
    RATE,
    Clock,
    Elsewhere,
    Killed,
    Recording,
    Repeated,
    Sweep,
    stopping_after,
    trial_record,
    work,
)  # fmt: skip
from trainers.host import fake
from trainers.metrics.generated import COLUMNS
from trainers.metrics.table import ROW_RESULTS
from trainers.protocol.events import Evaluation, Failed, Resumed, TrialResult
from trainers.protocol.requests import Score

BEST, GOOD, NEXT, FAIR, POOR = 1e-3, 9.6e-4, 8e-4, 5e-4, 1e-4
"""Learning rates and what the fake trainer makes of them: 0.855, 0.85, 0.83, 0.77, 0.61, each give or take 0.005."""


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch):
    monkeypatch.setattr(hpo.results.statistics, "RESAMPLES", 200)


@pytest.fixture
def sweep(tmp_path):
    """A sweep whose search is done: trial 0 is the baseline at the given rate, the others follow."""

    def sweep(baseline, *rates, top=2, seeds=2, worker=work, **changes):
        given = Sweep(
            tmp_path, finalists={"top": top, "seeds": seeds}, pruner={"type": "none"},
            search_strategy={"type": "grid"},
            search_space={"learning_rate": {"type": "choice", "values": [baseline, *rates]}},
            training={"max_examples": 100, "learning_rate": baseline, "lora_r": 16}, **changes,
        )  # fmt: skip
        given.search(Recording(worker))
        return given

    return sweep


def decided(given, executor=None, tracker=None, jobs=1):
    """What the study says after `run_finalists`, as a session of its own; as JSON."""
    running = given.running(executor, tracker, jobs)
    run_finalists(running)
    outcome = given.open().state.finalists
    return outcome and outcome.to_json()


def trained(given):
    return [(spec.settings["learning_rate"], spec.seed) for spec in given.executor.specs]


def scores(given):
    return [request for request in given.executor.others if isinstance(request, Score)]


def said(given):
    return verdicts(given.summary())


# --- who, and how often ---------------------------------------------------------------------------------


def test_the_best_and_the_baseline_are_trained_again_with_fresh_seeds(sweep):
    given = sweep(FAIR, POOR, BEST, NEXT, top=2, seeds=3)
    outcome = decided(given)
    assert [c["trial"] for c in outcome["contestants"]] == [2, 3, 0]
    assert [c["is_baseline"] for c in outcome["contestants"]] == [False, False, True]
    assert trained(given) == [(BEST, 1), (NEXT, 1), (FAIR, 1)]  # best first; then all is clear
    assert repeats_planned(given.config) == 9
    assert all(seed != given.config.seed for _, seed in trained(given))
    assert len(given.records) == 4  # the study has the search's trials alone
    paths = given.home.sweep("sweep").repeat(2, 0)
    assert paths.result.exists()
    assert paths.rows(0).exists()


def test_a_baseline_among_the_best_is_one_contestant_and_not_counted_among_them(sweep):
    given = sweep(BEST, POOR, GOOD, top=1)
    assert [c["trial"] for c in decided(given)["contestants"]] == [2, 0]


def test_a_failed_baseline_is_no_contestant(sweep):
    given = sweep(0.9, POOR, BEST)
    outcome = decided(given)
    assert [c["trial"] for c in outcome["contestants"]] == [2, 1]
    assert outcome["against_baseline"] is None
    assert set(outcome["test"]) == {"champion"}


def test_nothing_is_repeated_where_the_file_asks_for_nothing(sweep):
    given = sweep(FAIR, BEST)
    given.edit(finalists=None)
    assert decided(given) is None
    assert given.executor.specs == []
    assert repeats_planned(given.config) == 0


def test_no_more_are_trained_again_than_there_are_trials(sweep):
    given = sweep(FAIR, BEST, top=3, seeds=3)
    assert repeats_planned(given.config) == 2 * 3
    given.edit(search_strategy={"type": "random", "num_trials": 2}, search_space=RATE)
    assert repeats_planned(given.config) == 2 * 3
    given.edit(search_strategy={"type": "random", "num_trials": 2, "warm_start": ["old"]})
    assert repeats_planned(given.config) == 4 * 3  # those that are taken over may be among them
    given.edit(search_space={"learning_rate": 1e-3})
    assert repeats_planned(given.config) == 3


def test_trials_that_break_a_constraint_are_no_finalists(sweep):
    given = sweep(FAIR, BEST, GOOD)
    given.edit(constraints={"max_seconds": 0.01})
    assert contestants_of(given.running(), 2) == []
    assert decided(given) is None
    assert (given.executor.specs, given.running().champion()) == ([], None)


def test_a_baseline_that_breaks_a_constraint_neither_races_nor_wins(sweep):
    def slow(request):
        is_slow = request.spec.settings["learning_rate"] == BEST
        for event in work(request):
            yield dataclasses.replace(event, seconds=9.0) if is_slow and isinstance(event, TrialResult) else event

    outcome = decided(sweep(BEST, POOR, FAIR, worker=slow, constraints={"max_seconds": 5}))
    assert [c["trial"] for c in outcome["contestants"]] == [2, 1]
    assert outcome["champion"] == 2


def test_repeats_are_trials_of_their_own_in_folders_and_numbers(sweep):
    running = sweep(FAIR, BEST).running()
    repeats = repeats_of(running, contestants_of(running, 1), 2)
    assert len({r.spec.dir for r in repeats}) == len({r.spec.number for r in repeats}) == 4
    assert len({r.spec.fingerprint() for r in repeats}) == 4
    assert min(r.spec.number for r in repeats) > 999_999


def test_rows_that_trainers_left_on_another_machine_are_fetched(sweep, tmp_path):
    expected = decided(sweep(POOR, BEST))
    shutil.rmtree(tmp_path / "home")
    given = sweep(POOR, BEST)
    outcome = decided(given, Elsewhere(tmp_path))
    assert outcome["champion"] == expected["champion"]
    # The search's own rows are not on that machine, so after one seed nothing is known of how seeds vary.
    assert [len(c["repeats"]) for c in expected["contestants"]] == [1, 1]
    assert [len(c["repeats"]) for c in outcome["contestants"]] == [2, 2]
    assert not list((given.home.sweep("sweep").dir / "finalists").rglob("*.npy"))


# --- judging -------------------------------------------------------------------------------------------


def test_the_champion_is_who_has_the_best_mean(sweep):
    outcome = decided(sweep(POOR, FAIR, BEST))
    means = {c["trial"]: c["interval"]["mean"] for c in outcome["contestants"]}
    assert outcome["champion"] == max(means, key=means.get) == 2
    for contestant in outcome["contestants"]:
        found = contestant["interval"]
        assert found["low"] <= found["mean"] <= found["high"]
        assert len(contestant["repeats"]) == 1


def test_a_metric_to_be_minimized_is_won_by_the_smallest_mean(sweep):
    given = sweep(BEST, FAIR, POOR, objective={"metric": "loss"})  # the fake's loss is what its score would be
    outcome = decided(given)
    assert outcome["champion"] == 2
    assert outcome["against_baseline"]["difference"] < 0
    assert outcome["test"]["against_baseline"]["difference"] < 0


def test_luck_in_the_search_is_found_out(sweep):
    """Trial 2 was lucky once: among fresh seeds another one is better."""

    def lucky(request):
        is_lucky = request.spec.settings["learning_rate"] == POOR and request.spec.seed == 0
        for event in work(request):
            if is_lucky and isinstance(event, TrialResult):
                event = dataclasses.replace(event, value=0.99, metrics={"f1_macro": 0.99})
            yield event

    given = sweep(FAIR, BEST, POOR, top=2, worker=lucky)
    assert choose_champion(given.records, given.config.objective, {}, None).params["learning_rate"] == POOR
    outcome = decided(given)
    assert outcome["champion"] == 1
    assert [c["trial"] for c in outcome["contestants"]] == [2, 1, 0]


def test_a_clear_win_is_beyond_noise(sweep):
    given = sweep(POOR, BEST)
    outcome = decided(given)
    assert outcome["against_baseline"]["trial"] == 0
    assert outcome["against_baseline"]["difference"] == pytest.approx(0.25, abs=0.05)
    lines = said(given)
    assert lines[0] == "race: 2 of 4 trainings; trial 0, the baseline, was beaten after 1 seed"
    assert lines[1].startswith("the same 100 validation rows chose the champion and certify its lead")
    assert lines[2].startswith("over the baseline, on validation: f1_macro +0.2")
    assert lines[3] == "claim: this recipe, whatever its seed, is better than the baseline in f1_macro"
    assert outcome["test"]["against_baseline"]["is_beyond_noise"]  # one training each: only rows vary


def test_how_much_seeds_vary_is_estimated_from_all_contestants_together(sweep, monkeypatch):
    """Two seeds of one contestant have one degree of freedom: with it, hardly any true gain is beyond noise."""
    given = sweep(POOR, BEST, GOOD, top=2, seeds=2)
    seen = []

    def spy(*known, **which):
        seen.append(between_seeds(*known, **which))
        return seen[-1]

    monkeypatch.setattr(hpo.search.final_scores, "between_seeds", spy)
    outcome = decided(given)
    assert [found.freedom for found in seen] == [3]  # three contestants, a seed of each and the search's own
    assert outcome["against_baseline"]["is_beyond_noise"]


def test_a_win_within_noise_is_said_plainly(sweep):
    given = sweep(GOOD, BEST)
    outcome = decided(given)
    champion = outcome["champion"]
    against = outcome["against_baseline"] or outcome["against_runner_up"]
    assert not against["is_beyond_noise"]
    assert any("within noise: NOT shown to be different" in line for line in said(given)), champion


def test_a_baseline_that_is_best_stays(sweep):
    given = sweep(BEST, FAIR, POOR)
    outcome = decided(given)
    assert outcome["champion"] == 0
    assert outcome["against_baseline"] is None
    assert outcome["against_runner_up"]["trial"] == 1
    assert said(given)[2] == "no finalist is better than the baseline: the default configuration stays"
    assert set(outcome["test"]) == {"champion"}
    assert len(scores(given)) == 1


def test_a_contestant_of_which_a_repeat_failed_is_out(sweep):
    def breaks(request):
        if request.spec.settings["learning_rate"] == BEST and request.spec.seed == 1:
            yield Failed("diverged", "loss is nan")
            return
        yield from work(request)

    given = sweep(POOR, BEST, FAIR)
    outcome = decided(given, Recording(breaks))
    out = outcome["contestants"][0]
    assert out["trial"] == 1
    assert "interval" not in out
    assert [r["cause"] for r in out["repeats"]] == ["diverged"]
    assert outcome["champion"] == 2


def test_when_every_contestant_has_a_failed_repeat_there_is_no_champion(sweep):
    def breaks(request):
        yield Failed("diverged", "loss is nan")

    given = sweep(POOR, BEST)
    outcome = decided(given, Recording(breaks))
    assert (outcome["champion"], outcome["test"]) == (None, None)
    assert given.running().champion() is None
    assert given.summary().champion is None
    assert json.dumps(given.summary().to_json(), allow_nan=False)


def test_the_released_training_is_the_champion_s_best_repeat(sweep):
    given = sweep(POOR, BEST, seeds=3)
    outcome = decided(given)
    running = given.running()
    champion = running.champion()
    values = [r["value"] for r in outcome["contestants"][0]["repeats"]]
    assert champion.repeat == values.index(max(values))
    assert champion.run_id == f"repeat-1-{champion.repeat}"
    assert running.champion_paths(champion).adapter.exists()


# --- the sealed test -----------------------------------------------------------------------------------


def test_the_test_split_is_read_once_for_champion_and_baseline_after_everything_else(sweep):
    given = sweep(POOR, BEST, FAIR)
    outcome = decided(given)
    requests = scores(given)
    assert [(r.split, r.spec.settings["learning_rate"]) for r in requests] == [("test", BEST), ("test", POOR)]
    assert outcome["test"]["champion"]["trial"] == 1
    assert outcome["test"]["baseline"]["trial"] == 0
    assert outcome["test"]["champion"]["interval"]["mean"] == pytest.approx(
        outcome["test"]["champion"]["metrics"]["f1_macro"]
    )
    assert any(line.startswith("sealed test: f1_macro 0.8") for line in said(given))
    read = [outcome["test"]["champion"]["repeat"], outcome["test"]["baseline"]["repeat"]]
    assert [request.spec.seed for request in requests] == [1 + repeat for repeat in read]


def test_a_sweep_may_leave_the_test_split_sealed(sweep):
    given = sweep(POOR, BEST)
    given.config = dataclasses.replace(given.config, is_certified_later=True)
    outcome = decided(given)
    assert (outcome["champion"], outcome["test"], scores(given)) == (1, None, [])


def test_a_second_run_trains_and_reads_nothing_again(sweep):
    given = sweep(POOR, BEST)
    first = decided(given)
    assert decided(given) == first
    assert (given.executor.specs, given.executor.others) == ([], [])


def test_after_an_edit_a_kill_leaves_no_earlier_outcome_behind(sweep):
    given = sweep(POOR, BEST, GOOD, top=1)
    assert decided(given)["champion"] == 1
    given.edit(finalists={"top": 2, "seeds": 2})
    with pytest.raises(Killed):
        decided(given, stopping_after(0))
    assert given.open().state.finalists is None


# --- going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [0, 1])
def test_after_an_interruption_finished_repeats_are_not_trained_again(sweep, done):
    given = sweep(POOR, BEST)
    with pytest.raises(Killed):
        decided(given, stopping_after(done))
    assert given.open().state.finalists is None
    tracker = Repeated()
    outcome = decided(given, tracker=tracker)
    assert len(given.executor.specs) == 2 - done
    assert outcome["champion"] == 1
    assert len(tracker.started) == len(tracker.ended) == len(tracker.evaluated) == 2
    assert [len(c["repeats"]) for c in outcome["contestants"]] == [1, 1]


def test_what_finished_repeats_took_is_known_after_a_kill(sweep):
    class Slow(Repeated):
        def finish_trial(self, number, result, paths):
            given.clock.advance(60)

    given = sweep(POOR, BEST)
    given.clock = Clock()
    with pytest.raises(Killed):
        decided(given, stopping_after(1), Slow())
    assert given.open().state.spent.seconds == 60


def test_a_repeat_that_goes_on_shows_only_what_is_new(sweep):
    def killed(request):
        for event in work(request):
            if isinstance(event, Evaluation) and event.index == 2:
                raise Killed
            yield event

    class Shown(Silent):
        def evaluated(self, number, fraction, value):
            shown.append(fraction)

    given, shown = sweep(POOR, BEST), []
    with pytest.raises(Killed):
        decided(given, Recording(killed))
    running = dataclasses.replace(given.running(), view=Shown())
    run_finalists(running)
    assert any(isinstance(event, Resumed) for _, event in running.executor.events)
    assert shown[:4] == [0.6, 0.8, 1.0, 0.2]


def test_a_view_hears_how_far_the_race_is(sweep):
    class Shown(Silent):
        def race_stands(self, seed, contestants, trainings):
            stood.append((seed, contestants, trainings))

    given, stood = sweep(POOR, BEST, GOOD, seeds=3), []
    run_finalists(dataclasses.replace(given.running(), view=Shown()))
    assert stood[:3] == [(1, 3, 3), (1, 3, 2), (1, 3, 1)]


def test_results_do_not_depend_on_interruptions_or_on_how_many_run_side_by_side(sweep):
    given = sweep(POOR, BEST, GOOD)
    with pytest.raises(Killed):
        decided(given, stopping_after(2), jobs=2)
    interrupted = decided(given, jobs=3)
    given.open().update_state(finalists=None)
    for folder in given.home.sweep("sweep").dir.glob("finalists/*/result.json"):
        folder.unlink()
    for folder in given.home.sweep("sweep").dir.glob("finalists/*/checkpoints/state.json"):
        folder.unlink()
    assert decided(given) == interrupted


def test_more_seeds_keep_the_repeats_that_there_are(sweep):
    given = sweep(POOR, BEST, seeds=2)
    before = decided(given)
    given.edit(finalists={"top": 2, "seeds": 3})
    after = decided(given)
    assert trained(given) == []
    assert [c["repeats"] for c in after["contestants"]] == [c["repeats"] for c in before["contestants"]]
    assert (after["race"]["trainings"], after["race"]["cap"]) == (2, 6)


def test_a_repeat_that_crashed_is_tried_again(sweep):
    crashed = []

    def crashes_once(request):
        if not crashed and not isinstance(request, Score):
            crashed.append(request.spec.seed)
            raise RuntimeError("broken")
        yield from work(request)

    given = sweep(POOR, BEST)
    outcome = decided(given, Recording(crashes_once))
    assert outcome["champion"] == 1
    assert any("trying again" in line for line in given.said.lines)


def test_what_happens_is_said(sweep):
    given = sweep(POOR, BEST)
    decided(given)
    assert given.said.lines[0] == "finalists: trials 1, 0; a race over at most 2 fresh seeds of each"
    assert given.said.lines[1] == "trial 1 with seed 0 started"
    assert given.said.lines.index("trial 1 with seed 0 ended: complete") > 1
    assert given.said.lines[-1] == "reading the sealed test split, once, for the champion and the baseline"


# --- rows that choose, rows that certify ---------------------------------------------------------------


@pytest.fixture
def many_rows(monkeypatch):
    monkeypatch.setitem(fake.ROWS, "validation", 400)
    rows = {**INSPECTION.rows, "validation": 400}
    monkeypatch.setattr(tests.hpo.builders, "INSPECTION", dataclasses.replace(INSPECTION, rows=rows))


def test_rows_that_choose_the_champion_do_not_certify_it(sweep, many_rows):
    given = sweep(POOR, BEST, FAIR)
    outcome = decided(given)
    race, parts = outcome["race"], Scoreboard(given.running()).parts
    assert (race["is_split"], race["choosing"], race["certifying"]) == (
        True, len(parts.choosing), len(parts.certifying),
    )  # fmt: skip
    assert set(parts.choosing) | set(parts.certifying) == set(range(400))
    assert not set(parts.choosing) & set(parts.certifying)
    assert 150 < race["choosing"] < 250
    board, results = Scoreboard(given.running()), outcome["contestants"][0]["repeats"]
    assert all(repeat["choosing"] != repeat["value"] for repeat in results)
    own = given.home.sweep("sweep").repeat(outcome["contestants"][0]["trial"], 0)
    assert results[0]["choosing"] == board.metric(np.load(own.rows(read_result(own).best_index))[parts.choosing])
    lines = said(given)
    assert any("validation rows chose the champion; means, intervals and differences are of" in line for line in lines)
    assert decided(given) == outcome
    assert given.executor.specs == []


def test_of_generated_text_only_rows_with_an_answer_count(tmp_path, monkeypatch):
    """Four answers of a hundred rows that are all better show no more than four rows can."""
    given = Sweep(
        tmp_path, task="instruct", data={"train": "train.jsonl", "text_template": "{a}", "answer": "b"},
        metrics=["exact_match"], objective={"metric": "exact_match"}, finalists=True,
    )  # fmt: skip
    given.inspection = dataclasses.replace(INSPECTION, labels=[])
    answered, width = [3, 20, 41, 77], ROW_RESULTS["instruct"].width([])

    def rows(value):
        found = np.full((100, width + len(COLUMNS)), np.nan)
        found[:, :width], found[answered, width:] = 1.0, value
        return found

    running = given.running()
    monkeypatch.setattr(type(running.study), "records", lambda _: [trial_record(0)])
    monkeypatch.setattr(Scoreboard, "search_rows", lambda *_: rows(1.0))
    board = Scoreboard(running)
    assert not board.parts.is_split
    assert list(board.parts.certifying) == answered
    better, worse = ([gap_scores(rows(value)[board.counted(rows(value))], board.metric)] for value in (1.0, 0.0))
    assert gap(better, worse, None).p_value() == 2 / 2**4


def test_contestants_are_ranked_on_the_rows_that_choose(sweep, many_rows, monkeypatch):
    given = sweep(POOR, BEST, GOOD, FAIR, top=1)
    monkeypatch.setattr(Scoreboard, "chosen_by", lambda _, record: record.number != 3)
    assert [c["trial"] for c in decided(given)["contestants"]] == [3, 0]


def test_an_outcome_of_before_rows_were_split_stands(sweep, many_rows, monkeypatch):
    given = sweep(POOR, BEST, GOOD, FAIR, top=1)
    with monkeypatch.context() as earlier:
        earlier.setattr(hpo.search.scoreboard, "is_split", lambda config, rows: False)
        before = decided(given)
    monkeypatch.setattr(Scoreboard, "chosen_by", lambda _, record: record.number != 3)  # would rank another one first
    assert decided(given) == before
    assert given.executor.specs == []


# --- adapters ------------------------------------------------------------------------------------------

ADAPTERS = {"top": 2, "seeds": 3, "claim": "adapter"}


def test_adapters_are_compared_without_a_repeat(sweep):
    given = sweep(POOR, BEST, FAIR).edit(finalists=ADAPTERS)
    outcome = decided(given)
    assert (given.executor.specs, repeats_planned(given.config)) == ([], 0)
    assert outcome["champion"] == 1
    assert [r["of_search"] for c in outcome["contestants"] for r in c["repeats"]] == [True] * 3
    assert outcome["against_baseline"]["is_beyond_noise"]
    champion = given.running().champion()
    assert (champion.repeat, champion.run_id) == (None, given.records[1].run_id)
    assert given.running().champion_paths(champion) == given.paths(1)
    assert outcome["test"]["champion"]["repeat"] is None
    lines = said(given)
    assert lines[0] == "adapters were compared, not recipes: 0 repeats were needed"
    assert "claim: this adapter, as it was trained, is better than the baseline in f1_macro" in lines
    assert json.dumps(given.summary().to_json(), allow_nan=False)
    assert decided(given) == outcome


def test_an_adapter_whose_rows_are_gone_is_trained_again(sweep):
    given = sweep(POOR, BEST, FAIR).edit(finalists=ADAPTERS)
    shutil.rmtree(given.paths(1).dir)
    outcome = decided(given)
    assert trained(given) == [(BEST, 1)]
    assert [c["repeats"][0]["of_search"] for c in outcome["contestants"]] == [False, True, True]
    assert given.running().champion().repeat == 0


def test_another_claim_is_another_outcome_and_trains_nothing_twice(sweep):
    given = sweep(POOR, BEST)
    recipe = decided(given)
    given.edit(finalists=ADAPTERS)
    assert decided(given)["identity"] != recipe["identity"]
    given.edit(finalists={"top": 2, "seeds": 2})
    assert [c["interval"] for c in decided(given)["contestants"]] == [c["interval"] for c in recipe["contestants"]]
    assert given.executor.specs == []


def test_an_adapter_s_run_that_was_lost_is_the_one_written_again(sweep):
    given = sweep(POOR, BEST).edit(finalists=ADAPTERS)
    given.open().replace_run(1, "lost")
    decided(given)

    class Lost(Repeated):
        def gone(self, run_ids):
            return {"lost"} & set(run_ids)

        def start_trial(self, spec, record, *, is_baseline):
            return "written-again"

    running = given.running(tracker=Lost())
    write_lost_runs(running)
    assert running.study.state.finalists.of(1).repeats[0].run_id == "written-again"
    assert given.said.lines[-1].startswith("MLflow: 1 run had been deleted and is written again")


# --- data without signal -------------------------------------------------------------------------------


def test_of_20_sweeps_without_signal_at_most_one_ends_better_than_the_baseline(tmp_path, many_rows, monkeypatch):
    """Every training guesses, so whatever a sweep finds is luck. For either claim."""
    monkeypatch.setattr(hpo.results.statistics, "RESAMPLES", 20)  # no claim depends on them
    rates = [index * 1e-10 for index in range(1, 9)]
    better = {"recipe": 0, "adapter": 0}
    for seed in range(20):
        given = Sweep(
            tmp_path / str(seed), pruner={"type": "none"}, seed=seed, search_strategy={"type": "grid"},
            search_space={"learning_rate": {"type": "choice", "values": rates}},
            training={"max_examples": 100, "learning_rate": rates[0], "lora_r": 16, "evaluations": 2},
        )  # fmt: skip
        given.search()
        for claim in better:
            given.edit(finalists={"top": 3, "seeds": 3, "claim": claim})
            decided(given)
            lines = [line for line in said(given) if line.startswith(("claim: ", "no finalist is better"))]
            assert len(lines) == 1
            better[claim] += "is better than the baseline" in lines[0] and lines[0].startswith("claim: ")
    assert max(better.values()) <= 1, better
