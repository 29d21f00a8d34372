"""How many validation rows evaluations inside a trial use: what they cost decides, counted in tokens."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.config.sweep_config import COST_OF_EVALUATION, FEWEST_EVALUATION_ROWS
from tests.hpo.builders import INSPECTION, make_config


def prepared(validation: int, tokens_a_row: int = 10):
    """1,000 training rows of ten tokens."""
    rows = {**INSPECTION.rows, "validation": validation}
    return dataclasses.replace(INSPECTION, rows=rows, validation_tokens=validation * tokens_a_row)


def rows_of(tmp_path, validation, tokens_a_row=10, **training):
    return make_config(tmp_path, training=training).evaluation_rows(prepared(validation, tokens_a_row))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("evaluations", [2, 5, 20])
@pytest.mark.parametrize("tokens_a_row", [10, 40])
def test_they_take_at_most_their_share_of_the_training(tmp_path, share, evaluations, tokens_a_row):
    some = rows_of(
        tmp_path, 100_000, tokens_a_row, max_examples=32_000, evaluations=evaluations, evaluation_share=share
    )
    cost = evaluations * some * tokens_a_row * COST_OF_EVALUATION / (32_000 * 10)
    assert share * 0.98 < cost <= share


def test_cheap_evaluations_use_all_rows(tmp_path):
    assert rows_of(tmp_path, 100, max_examples=10_000, evaluations=2) is None


def test_where_the_evaluation_at_the_end_would_cost_what_is_saved_all_rows_are_used(tmp_path):
    """Of 5 evaluations on 90 % of the rows and one on all of them nothing is saved."""
    all_rows = 5 * 500 * COST_OF_EVALUATION / 5_000
    assert rows_of(tmp_path, 500, max_examples=5_000, evaluations=5, evaluation_share=0.9 * all_rows) is None
    assert rows_of(tmp_path, 500, max_examples=5_000, evaluations=5, evaluation_share=0.701 * all_rows) == 350


def test_one_evaluation_is_the_last_one_so_it_uses_all_rows(tmp_path):
    assert rows_of(tmp_path, 100_000, max_examples=100, evaluations=1) is None


def test_there_are_never_too_few_to_say_anything(tmp_path):
    assert rows_of(tmp_path, 5_000, max_examples=100, evaluations=5) == FEWEST_EVALUATION_ROWS


def test_a_number_in_the_file_decides(tmp_path):
    assert rows_of(tmp_path, 500, max_examples=100, evaluation_rows=300) == 300
    assert rows_of(tmp_path, 500, max_examples=100, evaluation_rows=500) is None


def test_data_that_was_prepared_before_tokens_were_counted_is_evaluated_whole(tmp_path):
    assert make_config(tmp_path, training={"max_examples": 100}).evaluation_rows(INSPECTION) is None
