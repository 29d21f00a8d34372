"""Turns of one conversation are one unit: they choose or certify together, and are read as such from the tokens."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from hpo.executors.base import here
from hpo.search.scoreboard import row_parts
from hpo.trials.row_units import units_of
from tests.hpo.builders import INSPECTION, Sweep

TURNS = 3


@pytest.fixture
def prepared(tmp_path):
    """Prepared data whose validation rows are the turns of conversations; an earlier hpo named no conversation."""

    def prepared(conversations, is_named=True):
        rows = [
            {"input_ids": [number, turn], **({"conversation": f"c{number}"} if is_named else {})}
            for number in range(conversations)
            for turn in range(TURNS)
        ]
        (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return dataclasses.replace(
            INSPECTION, rows={**INSPECTION.rows, "validation": len(rows)}, tokens_dir=str(tmp_path)
        )

    return prepared


def parts_of(tmp_path, inspection):
    given = Sweep(tmp_path, task="chat", finalists=True)
    given.inspection = inspection
    return row_parts(given.running())


def test_all_turns_of_a_conversation_choose_or_all_certify(tmp_path, prepared):
    parts = parts_of(tmp_path, prepared(200))
    choosing, certifying = (set(parts.units[part]) for part in (parts.choosing, parts.certifying))
    assert not choosing & certifying
    assert len(choosing | certifying) == 200
    assert 70 < len(choosing) < 130
    assert list(parts.units_of(parts.choosing)) == list(np.repeat(sorted(choosing), TURNS))


def test_a_conversation_alone_cannot_be_halved(tmp_path, prepared):
    inspection = dataclasses.replace(prepared(1), rows={**INSPECTION.rows, "validation": 200})
    assert not parts_of(tmp_path, inspection).is_split


def test_rows_that_name_no_conversation_are_one_each(tmp_path, prepared):
    assert list(units_of("chat", prepared(2, is_named=False), "validation", here)) == list(range(2 * TURNS))
    assert units_of("instruct", prepared(2), "validation", here) is None  # its rows are one each
    assert units_of("chat", INSPECTION, "validation", here) is None  # the fake trainer's
