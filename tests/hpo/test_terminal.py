"""What a person sees: plain lines in a pipe, a live table on a terminal."""

import dataclasses
import io
import re
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from hpo.commands.fetch import show_assets
from hpo.commands.plan import show_plan
from hpo.commands.show import show_list, show_sweep
from hpo.demo.assets import ASSETS
from hpo.progress_view import Silent
from hpo.results.progress_text import duration, finished_line, params_text
from hpo.results.records import StudySnapshot
from hpo.results.released import Release
from hpo.results.summary import Edge, summarize
from hpo.results.time_left import Ahead
from hpo.study.stored_state import read_state
from hpo.terminal import TerminalView
from tests.hpo.builders import Clock, trial_record, trial_result

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONG = {f"hyperparameter_{i}": 0.000123456 for i in range(9)}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def piped():
    """(view, function that gives its output so far)."""
    output = io.StringIO()
    return TerminalView(Console(file=output, width=80, highlight=False)), output.getvalue


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    output = io.StringIO()
    view = TerminalView(Console(file=output, width=80, height=24, force_terminal=True, highlight=False))
    yield view, output.getvalue
    view.end()


def visible_lines(text):
    return re.split(r"[\r\n]+", ANSI.sub("", text))


def wait_until_shown(output, part):
    """Until the live table, which refreshes by itself four times a second, has it."""
    end = time.monotonic() + 60
    while part not in ANSI.sub("", output()):
        assert time.monotonic() < end, part
        time.sleep(0.01)


def run_three_trials(view):
    view.begin(3, 0, "f1_macro", 2)
    view.trial_started(0, {"lora_r": 8})
    view.trial_started(1, {"lora_r": 16})
    view.step(0, 0.1, 0.7)
    view.evaluated(0, 0.5, 0.25)
    view.trial_finished(0, trial_result("complete", 0.5), 1, is_best=True)
    view.trial_finished(1, trial_result("pruned", 0.4), 2, is_best=False)
    view.trial_started(2, {"lora_r": 32})
    view.trial_finished(2, trial_result("failed", None, cause="oom", message="out of memory"), 3, is_best=False)
    view.tick()
    view.end()


# --- in a pipe -----------------------------------------------------------------------------------------


def test_a_pipe_gets_one_plain_line_per_event(piped):
    view, output = piped
    run_three_trials(view)
    assert output().splitlines() == [
        "3 trials, 2 at a time; metric f1_macro",
        "trial 0 started: lora_r=8",
        "trial 1 started: lora_r=16",
        "trial 0  50%: f1_macro 0.2500",
        "trial 0 done: f1_macro 0.5000 in 1 s  lora_r=8  *best so far*",
        "trial 1 pruned: f1_macro 0.4000 in 1 s  lora_r=16",
        "trial 2 started: lora_r=32",
        "trial 2 failed (oom: out of memory) after 1 s  lora_r=32",
    ]


def test_a_pipe_is_told_that_a_trial_continues(piped):
    view, output = piped
    view.begin(3, 0, "f1_macro", 2)
    view.trial_started(0, {"lora_r": 8})
    view.resumed(0, 40)
    assert output().splitlines()[-1] == "trial 0 continues from its checkpoint at step 40"


def test_a_pipe_gets_no_control_codes(piped):
    view, output = piped
    run_three_trials(view)
    show_sweep(view, sweep_shown(), hints=True)
    assert "\x1b" not in output()
    assert "\r" not in output()


def test_a_long_line_in_a_pipe_is_one_line(piped):
    view, output = piped
    view.trial_started(0, LONG)
    assert len(output().splitlines()) == 1
    assert len(output()) > 200


def test_markup_is_text(piped):
    view, output = piped
    view.say("[bold]a[/bold] [0] :smile:")
    assert output() == "[bold]a[/bold] [0] :smile:\n"


def test_the_default_view_writes_to_standard_output(capsys):
    TerminalView().say("hello")
    assert capsys.readouterr().out == "hello\n"


def test_a_continued_sweep_says_what_is_done(piped):
    view, output = piped
    view.begin(8, 3, "loss", 1)
    assert output() == "8 trials, 3 already done, 1 at a time; metric loss\n"


def test_one_trial_is_singular(piped):
    view, output = piped
    view.begin(1, 0, "loss", 1)
    assert output().startswith("1 trial,")


def test_a_table_in_a_pipe_keeps_each_row_on_one_line(piped):
    view, output = piped
    view.table("t", ["name", "value"], [["a" * 60, "b" * 60], ["c", "d"]])
    assert f"{'a' * 60}  {'b' * 60}" in output()


def test_a_title_is_one_line_however_narrow_its_table_is(piped, terminal):
    title = "ONNX variants: largest diff of logits, median ms of one answer"
    for view, output in (piped, terminal):
        view.table(title, ["name"], [["a"]])
        assert [line.rstrip() for line in visible_lines(output()) if line.strip()] == [title, "name", "a"]


def test_a_row_of_many_long_cells_is_one_line_in_a_pipe(piped):
    view, output = piped
    view.table("t", [f"column {n}" for n in range(8)], [["x" * 300] * 8, ["y"] * 8])
    assert [line.count("x") for line in output().splitlines()].count(2400) == 1


# --- on a terminal -------------------------------------------------------------------------------------


def test_settings_that_do_not_fit_are_one_column_that_folds_between_words(terminal, piped):
    names = ["trial", "perplexity", "state", "seconds", "learning_rate", "target_modules", "num_virtual_tokens"]
    row = ["0 (baseline)", "821.8162", "complete", "9", "0.00324", "all-linear", "-"]
    (view, output), (wide, lines) = terminal, piped
    view.table("t", names, [row], joinable=3)
    assert [line.split() for line in visible_lines(output()) if line.strip()] == [
        ["t"],
        ["trial", "perplexity", "state", "seconds", "settings"],
        ["0", "(baseline)", "821.8162", "complete", "9", "learning_rate=0.00324"],
        ["target_modules=all-linear"],
    ]
    wide.table("t", names, [row], joinable=3)
    assert lines().splitlines()[-1].split()[-3:] == row[-3:]


def test_the_live_table_shows_what_runs(terminal):
    view, output = terminal
    view.begin(2, 0, "f1_macro", 2)
    view.trial_started(0, {"lora_r": 8})
    view.step(0, 0.25, 0.7)
    view.evaluated(0, 0.5, 0.3)
    view.end()
    text = ANSI.sub("", output())
    for part in ("parameters", "lora_r=8", "0.700", "0.3000", "50%", "0/2 done"):
        assert part in text


def test_no_line_is_wider_than_the_terminal(terminal):
    view, output = terminal
    view.begin(20, 0, "f1_macro", 8)
    for number in range(8):
        view.trial_started(number, LONG)
        view.step(number, 0.4, 123456.789)
        view.evaluated(number, 0.5, 1234.56789)
    view.trial_finished(0, trial_result("failed", None, cause="crash", message="x" * 200), 1, is_best=False)
    view.trial_finished(1, trial_result("complete", 0.5), 2, is_best=True)
    wait_until_shown(output, "2/20 done")
    view.end()
    show_sweep(view, whole_sweep(), hints=True)
    show_plan(view, plan())
    assert max(cell_len(line) for line in visible_lines(output())) <= 80


def test_the_live_table_is_taken_away_and_the_lines_stay(terminal):
    view, output = terminal
    run_three_trials(view)
    assert "trial 1 pruned: f1_macro 0.4000" in ANSI.sub("", output())
    assert "\x1b[2K" in output().rpartition("3/3 done")[2]  # the last table is erased
    view.end()  # twice does no harm


def test_the_status_counts_pruned_failed_and_best(terminal):
    view, output = terminal
    view.begin(4, 0, "f1_macro", 1)
    for number, result in enumerate(
        [trial_result("complete", 0.5), trial_result("pruned", 0.4), trial_result("failed", None, cause="oom")]
    ):
        view.trial_started(number, {})
        view.trial_finished(number, result, number + 1, is_best=number == 0)
    view.end()
    assert "3/4 done · 1 pruned · 1 failed · best 0.5000 · about 1 s left" in ANSI.sub("", output())


def test_repeats_of_finalists_are_shown_like_trials_with_the_time_left(terminal):
    view, output = terminal
    view.clock = Clock()
    view.begin_repeats(3, 2, "f1_macro")
    view.repeat_started(1_000_000, "3 with seed 0", {"lora_r": 8})
    view.step(1_000_000, 0.5, 0.7)
    wait_until_shown(output, "50%")
    view.clock.advance(9)
    view.repeat_finished(1_000_000, trial_result("complete", 0.5))
    view.race_stands(2, 2, 2)
    view.end()
    text = ANSI.sub("", output())
    for part in (
        "3 with seed 0",
        "50%",
        "1 of at most 3 repeats done · about 18 s left",
        "trial 3 with seed 0 done: f1_macro 0.5000",
    ):
        assert part in text, part


def test_the_repeats_and_the_release_to_come_are_part_of_what_is_left(terminal):
    view, output = terminal
    view.clock = Clock()
    view.begin(4, 0, "f1_macro", 1, ahead=Ahead(3, 3, promotion_s=30.0))
    for number, result in enumerate((trial_result("complete"), trial_result("pruned", 0.4))):
        view.trial_started(number, {})
        view.clock.advance((9, 3)[number])
        view.trial_finished(number, result, number + 1, is_best=False)
    view.end()  # two trials of 6 s on the mean, one seed of three finalists at 9 s each, the release
    assert "about 1 min 09 s left, with repeats and release" in ANSI.sub("", output())


def test_a_promotion_shows_how_long_all_its_steps_still_take(terminal):
    view, output = terminal
    view.clock = Clock()
    view.begin_promotion(40.0)
    view.clock.advance(10)
    with view.doing("exporting"):
        pass
    view.clock.advance(31)
    with view.doing("measuring"):
        pass
    text = ANSI.sub("", output())
    assert "exporting · 0 s · about 30 s left" in text
    assert text.count("left") == text.count("about 30 s left")  # past its time nothing more is said


def test_what_takes_a_while_is_shown_with_its_time_and_leaves_a_line(terminal, piped):
    view, output = terminal
    view.clock = Clock()
    with view.doing("exporting"):
        view.say("a note")
    text = ANSI.sub("", output())
    assert "exporting · 0 s" in text
    assert text.rstrip().endswith("exporting: 0 s")
    assert "a note" in text
    plain, lines = piped
    with pytest.raises(RuntimeError), plain.doing("exporting"):
        raise RuntimeError
    assert lines() == "exporting\n"


def test_a_trial_that_is_interrupted_leaves_the_table(terminal):
    view, output = terminal
    view.begin(2, 0, "f1_macro", 2)
    view.trial_started(0, {"lora_r": 8})
    view.trial_started(1, {"lora_r": 16})
    view.step(1, 0.6, 0.7)
    view.trial_paused(1)
    view.end()
    lines = visible_lines(output())
    assert "trial 1 paused at 60%" in [line.strip() for line in lines]
    assert list(view._rows) == [0]


# --- lines and numbers ---------------------------------------------------------------------------------


def test_an_early_stop_is_called_so():
    result = trial_result("complete", 0.5, stopped_by="early_stopping")
    assert finished_line(3, result, "loss", "p", is_best=False) == "trial 3 stopped early: loss 0.5000 in 1 s  p"


@pytest.mark.parametrize(
    ("stopped_by", "words"),
    [("trial_minutes", "stopped by trial_minutes"), ("sweep_budget", "stopped by the budget"), ("pruner", "pruned")],
)
def test_what_stopped_a_trial_is_told(stopped_by, words):
    line = finished_line(3, trial_result("pruned", 0.5, stopped_by=stopped_by), "loss", "p", is_best=False)
    assert line == f"trial 3 {words}: loss 0.5000 in 1 s  p"


def test_a_message_of_many_lines_is_one_line():
    result = trial_result("failed", None, cause="crash", message="RuntimeError: bad\nat line 3")
    assert len(finished_line(3, result, "loss", "p", is_best=False).splitlines()) == 1


def test_parameters_are_short():
    assert params_text({"learning_rate": 0.000456789, "lora_r": 8, "s": "linear"}) == (
        "learning_rate=0.000457 lora_r=8 s=linear"
    )
    assert params_text({}) == "default configuration"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"), (9, "9 s"), (59, "59 s"), (59.7, "1 min 00 s"), (60, "1 min 00 s"), (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"), (11400, "3 h 10 min"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


# --- whole sweeps --------------------------------------------------------------------------------------


def contestant(trial, *values, is_baseline=False):
    repeats = [
        {"seed": i, "value": v, "metrics": {"f1_macro": v} if v else {}, "run_id": "r", "cause": None, "seconds": 1.0}
        for i, v in enumerate(values)
    ]
    entry = {"trial": trial, "params": {}, "repeats": repeats, "is_baseline": is_baseline}
    if None not in values:
        entry["interval"] = {"mean": sum(values) / len(values), "low": 0.7512, "high": 0.8923}
    return entry


def finalists():
    against = {"trial": 0, "difference": 0.05, "low": -0.01, "high": 0.11, "p_value": 0.12, "is_beyond_noise": False}
    read = {"trial": 2, "repeat": 0, "metrics": {}, "interval": {"mean": 0.8, "low": 0.7, "high": 0.9}}
    return {
        "identity": "x", "champion": 2, "against_baseline": against, "against_runner_up": {**against, "trial": 3},
        "contestants": [contestant(2, *[0.8, 0.9] * 5), contestant(3, 0.8, None), contestant(0, 0.8, is_baseline=True)],
        "test": {"champion": read, "baseline": {**read, "trial": 0}, "against_baseline": against},
    }  # fmt: skip


def sweep_shown(params=None, **changes):
    records = [
        trial_record(0, value=0.5, params=params or {"lora_r": 8}),
        trial_record(1, "failed", None, {"lora_r": 9}, cause="oom"),
    ]
    measurement = {
        "variant": "int8", "metrics": {"f1_macro": 0.5}, "max_logit_diff": 1e-5, "size_mb": 12.3, "latency_p50_ms": 1.0,
        "latency_p95_ms": 2.0, "tokens_per_second": None,
    }  # fmt: skip
    attrs = {
        "baseline": 0,
        "torch": {"metrics": {"f1_macro": 0.5}, "latency_p50_ms": 3.0},
        "variants": [{"variant": "int8", "measurement": measurement, "drop": 0.0, "passed": True, "reason": "because"}],
        "release": {
            "name": "mine",
            "uri": "models:/mine",
            "version": "2",
            "variant": "int8",
            "trial": 0,
            "run_id": "r",
        },
    }
    config = {
        "task": "text-classification", "constraints": {}, "search_space": {}, "budget": {},
        "objective": [{"metric": "f1_macro", "direction": "maximize"}],
    }  # fmt: skip
    records += changes.pop("records", [])
    return summarize(StudySnapshot("s", read_state({"config": config, **attrs, **changes}), records), "complete")


def whole_sweep():
    """Whatever `hpo show` can have to tell, in numbers and names as long as they get."""
    records = [
        trial_record(n, value=0.5, params=LONG, reused_from="a-sweep-with-a-rather-long-name/17") for n in (2, 3)
    ]
    shown = sweep_shown(LONG, records=records, finalists=finalists(), spent={"seconds": 9e5, "gpu_seconds": 9e5})
    edge = Edge("learning_rate", 1e-2, "high", 1e-2, 0.04)
    return dataclasses.replace(shown, edges=[edge], pareto_front=[0, 2, 3])


def test_a_sweep_ends_with_its_champion_its_release_and_what_to_type_next(piped):
    view, output = piped
    show_sweep(view, sweep_shown(), hints=True)
    for part in ("s (complete)", "0 (baseline)", "failed: oom", "champion: trial 0", "int8", "released: models:/mine",
                 "hpo show s", "hpo predict mine", "hpo serve mine"):  # fmt: skip
        assert part in output()


def test_finalists_their_verdict_and_what_a_person_should_know(piped):
    view, output = piped
    show_sweep(view, whole_sweep(), hints=False)
    lines = [line.rstrip() for line in output().splitlines()]
    assert "finalists, trained again with fresh seeds" in lines
    table = lines[lines.index("finalists, trained again with fresh seeds") + 1 :]
    assert [line.split("  ")[0].strip() for line in table[:4]] == ["trial", "2", "0 (baseline)", "3"]
    assert "out: a repeat failed" in table[3]
    assert sum("within noise: NOT shown to be different" in line for line in lines) == 3
    for part in ("sealed test: f1_macro 0.8000 (0.7000 to 0.9000), baseline 0.8000",
                 "learning_rate 0.01 lies at the edge of the space: try high: 0.04", "Pareto front: trials 0, 2, 3",
                 "spent: 2 trials trained, 250.00 hours, 250.00 GPU hours"):  # fmt: skip
        assert part in lines


def test_in_a_pipe_every_row_and_every_sentence_is_one_line(piped):
    view, output = piped
    show_sweep(view, whole_sweep(), hints=True)
    rows = [line for line in output().splitlines() if "a-sweep-with-a-rather-long-name/17" in line]
    assert len(rows) == 2
    assert all(line.count("0.000123") == len(LONG) for line in rows)


def test_without_a_release_there_is_nothing_to_predict_with(piped):
    view, output = piped
    show_sweep(view, dataclasses.replace(sweep_shown(), release=None, variants=[]), hints=True)
    assert "hpo predict" not in output()
    assert "ONNX" not in output()


def test_show_says_why_nothing_was_released_and_the_end_of_a_sweep_leaves_that_to_its_error(piped):
    view, output = piped
    refused = dataclasses.replace(sweep_shown(), release=None, refusal="the champion is useless")
    show_sweep(view, refused, hints=True)
    assert "useless" not in output()
    show_sweep(view, refused, hints=False)
    assert "\nnot released: the champion is useless\n" in output()


def test_the_reason_why_a_challenger_was_refused_is_said_once(piped):
    view, output = piped
    challenger = Release("s", "2", "models:/s@challenger", "fp32", 1, "f", decision="refused", why="version 1: a tie")
    refused = dataclasses.replace(
        sweep_shown(), challenger=challenger, refusal="models:/s@champion stays version 1: a tie; version 2 is there"
    )
    show_sweep(view, refused, hints=False)
    assert "\nchallenger: models:/s@challenger version 2 (fp32) did not become the champion\n" in output()
    assert output().count("version 1: a tie") == 1


def plan(**changes):
    probe = {
        "point": "baseline", "params": {"learning_rate": 5e-4, "lora_r": 8}, "trainable_parameters": 1234567,
        "seconds_per_example": 0.01, "seconds_per_evaluation": 2.5, "memory_mb": 512.4, "adapter_mb": 4.96,
        "trial_seconds": 130.0, "seconds_per_step": 0.16, "evaluation_share": 0.174,
    }  # fmt: skip
    return {
        "sweep": "s", "strategy": {"type": "gp", "why": "two numeric dimensions without conditions, 20 trials"},
        "trials": 20, "trials_left": 15, "repeats": 12, "points": None, "rows": {"train": 1000, "validation": 500},
        "evaluations": 5, "evaluation_rows": 320,
        "examples_per_trial": 30000, "jobs": 2, "threads": 1, "gpus": 0, "cores": 2, "available_memory_mb": 10240.0,
        "probes": [probe, {**probe, "point": "largest", "params": {"learning_rate": 1e-2}}], "seconds": 3700.0,
        "ends_by": "hours: 2", "ends_at": "2026-01-01 06:00", "cost": 2.5, "notes": ["few rows"], **changes,
    }  # fmt: skip


def test_a_plan_says_what_would_run_what_it_takes_and_when_it_ends(piped):
    view, output = piped
    show_plan(view, plan())
    lines = output().splitlines()
    assert lines[0] == "20 trials (15 to go), 12 repeats of finalists; 30,000 examples per trial"
    assert "2 at a time on 2 cores, 1 thread each; 10.0 GB of memory free" in lines
    assert lines[-1] == "about 1 h 01 min without pruning, until 2026-01-01 06:00 (hours: 2), cost 2.50"
    assert "note: few rows" in lines
    assert "5 evaluations per trial, on 320 of 500 validation rows; on all of them at its end" in lines
    baseline, largest = (line for line in lines if line.startswith(("baseline", "largest")))
    assert baseline.split() == [
        "baseline", "1,234,567", "512", "MB", "5.0", "MB", "0.16", "2.5", "s", "2", "min", "10", "s", "17%", "0.0005",
        "8",
    ]  # fmt: skip
    assert largest.split()[-2:] == ["0.01", "-"]


def test_a_corner_without_a_setting_has_none_of_it(piped):
    view, output = piped
    baseline, largest = plan()["probes"]
    show_plan(view, plan(probes=[baseline, {**largest, "params": {"lora_r": 16, "neftune_noise_alpha": None}}]))
    lines = [line.split() for line in output().splitlines() if line.startswith(("baseline", "largest"))]
    assert [line[-3:] for line in lines] == [["0.0005", "8", "-"], ["-", "16", "null"]]


def test_a_plan_for_gpus_without_a_price(piped):
    view, output = piped
    show_plan(view, plan(gpus=4, cost=None, evaluation_rows=500))
    assert "5 evaluations per trial, on all 500 validation rows" in output()
    assert "2 at a time on 4 GPUs" in output()
    assert "cost" not in output()


def test_the_list_of_sweeps(piped):
    view, output = piped
    show_list(view, [sweep_shown(), dataclasses.replace(sweep_shown(), sweep="t", champion=None, release=None)])
    first, second = output().splitlines()[-2:]
    assert first.split() == ["s", "complete", "2", "f1_macro", "0.5000", "mine", "v2"]
    assert second.split() == ["t", "complete", "2", "f1_macro", "-", "-"]


def test_an_empty_list_says_what_to_try(piped):
    view, output = piped
    show_list(view, [])
    assert output().startswith("no sweeps yet; to begin: hpo init ")


def test_assets_say_whether_they_are_here(piped):
    view, output = piped
    show_assets(view, ASSETS, {name: name == "chitchat" for name in ASSETS})
    for asset in ASSETS.values():
        assert asset.name in output()


def test_silent_says_nothing(capsys):
    run_three_trials(Silent())
    show_sweep(Silent(), sweep_shown(), hints=True)
    assert capsys.readouterr() == ("", "")


def test_what_a_label_holds_neither_moves_the_cursor_nor_is_markup(piped):
    view, told = piped
    view.say("label \x1b[31mred\x1b[0m\r\u202e")
    view.table("title [b]", ["[red]label", "rows"], [["a\x1b]0;title\x07\nb", "1"], ["[/]", "2"], ["x" * 5000, "3"]])
    assert "label \\x1b[31mred\\x1b[0m\\r\\u202e" in told()
    assert "title [b]" in told()
    assert "[red]label" in told()
    assert "a\\x1b]0;title\\x07\\nb" in told()
    assert "[/]" in told()
    assert "x... (5,000 characters)" in told()
    assert not set(told()) & {"\x1b", "\r", "\u202e", "\x07"}
