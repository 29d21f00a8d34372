"""How long a promotion will take: remembered of each base, and guessed by its size before there is one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hpo.release.promotion_time import note_promotion, promotion_seconds
from tests.hpo.builders import INSPECTION, Sweep

SHAPES = {"__metadata__": {"format": "pt"}, "a": {"shape": [3000, 1000]}, "b": {"shape": []}}


def running(folder, model_dir="", base="0" * 64, **changes):
    sweep = Sweep(folder, **changes)
    sweep.inspection = dataclasses.replace(INSPECTION, model_dir=str(model_dir), model_fingerprint=base)
    return sweep.running()


def test_the_last_one_of_the_same_base_and_target_counts(tmp_path):
    sweep = running(tmp_path, promote=True)
    assert promotion_seconds(sweep) == 15.0
    note_promotion(sweep, 33.0)
    note_promotion(sweep, 34.5)
    assert promotion_seconds(running(tmp_path, promote=True)) == 34.5
    assert promotion_seconds(running(tmp_path, base="1" * 64, promote=True)) == 15.0
    assert promotion_seconds(running(tmp_path, promote=False)) == 0.0
    (note,) = (sweep.home.cache / "promotions").iterdir()
    note.write_text("{")
    assert promotion_seconds(sweep) == 15.0


def test_the_first_one_goes_by_the_size_of_the_base(tmp_path):
    header = json.dumps(SHAPES).encode()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    assert promotion_seconds(running(tmp_path, tmp_path / "base", promote=True)) == pytest.approx(15 + 3.000001)
