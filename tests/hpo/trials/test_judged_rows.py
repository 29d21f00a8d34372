"""Validation rows with what champion and baseline made of them: as far as they are kept, wherever the home lies now."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from hpo.commands.report_facts import _rivalry, facts_from
from hpo.errors import HpoError
from hpo.paths import Home
from hpo.results.champion import as_champion
from hpo.results.leaderboard import notes
from hpo.results.summary import summarize
from hpo.trials.judged_rows import judged_rows
from hpo.trials.trial_files import write_result
from tests.hpo.builders import INSPECTION, trial_record, trial_result
from tests.hpo.results.test_row_findings import results
from tests.hpo.results.test_summary import study_view

TRUE = [0, 1] * 30
INPUTS = [{"text": f"row {n}", "label": label} for n, label in enumerate(TRUE)]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    folder = home.tokens / "abc"
    folder.mkdir(parents=True)
    (folder / "validation.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in INPUTS))
    for paths, wrong in ((home.sweep("s").trial(0), 10), (home.sweep("s").trial(1), 4)):
        write_result(trial_result(), paths)
        paths.rows(0).parent.mkdir()
        predicted = [1 - label if n < wrong else label for n, label in enumerate(TRUE)]
        np.save(paths.rows(0), results(TRUE, predicted))
    return home


def study_of(home, **changes):
    """As of a home that lay elsewhere when the data was prepared."""
    data = dataclasses.replace(INSPECTION, tokens_dir="/elsewhere/cache/tokens/abc", **changes)
    return study_view(trial_record(0), trial_record(1), data=dataclasses.asdict(data))


def judged(home, champion=1, **changes):
    view = study_of(home, **changes)
    return view, judged_rows(home, view, as_champion(view.records[champion]))


def test_rows_are_read_as_both_judged_them(home):
    _, found = judged(home)
    assert found.inputs == INPUTS
    assert [int((rows[:, 0] != rows[:, 1]).sum()) for rows in (found.champion, found.baseline)] == [4, 10]
    assert judged(home, champion=0)[1].baseline is None


def test_what_is_not_kept_is_not_looked_at(home):
    home.sweep("s").trial(0).rows(0).unlink()
    assert judged(home)[1].baseline is None
    home.sweep("s").trial(1).rows(0).unlink()
    assert judged(home)[1] is None


def test_token_ids_are_text_where_the_home_has_moved(home):
    """The model's folder lies in the cache, as a fetched one does."""
    tokenizer = Tokenizer(WordLevel({"good": 0}))
    (home.cache / "models/m").mkdir(parents=True)
    tokenizer.save(str(home.cache / "models/m/tokenizer.json"))
    _, found = judged(home, model_dir="/elsewhere/cache/models/m")
    assert found.readable({"input_ids": [0]}) == {"text": "good"}


def test_damaged_rows_are_left_out_of_the_report_which_says_so(home):
    for number in range(2):
        home.sweep("s").trial(number).rows(0).write_bytes(b"no rows")
    with pytest.raises(HpoError, match="per-row results"):
        judged(home)
    view = study_of(home)
    facts = facts_from(home, view, summarize(view, "complete"))
    assert facts.rows is None
    assert any("no findings of rows" in note for note in notes(facts.summary))


def test_two_champions_are_compared_on_the_same_rows_alone(home):
    (study, first), (_, second) = judged(home, champion=0), judged(home)
    found = _rivalry(study, first, study, second)
    assert found.rows == 60
    assert found.challenger > found.champion
    assert found.lead.is_beyond_noise
    others = dataclasses.replace(second, inputs=[*second.inputs[:-1], {"text": "another", "label": 1}])
    assert _rivalry(study, first, study, others) is None
    assert _rivalry(study, None, study, second) is None
