"""What a text of the YAML names."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.nights.sources import sources_now
from tests.hpo.builders import make_config
from trainers.data.source_files import files_of


@pytest.mark.parametrize("folder", ["plain", "[old] data"])
def test_a_pattern_finds_its_files_whatever_the_folder_is_called(tmp_path, folder):
    parts = tmp_path / folder / "parts"
    parts.mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl", "c.csv"):
        (parts / name).write_text("{}\n")
    config = make_config(tmp_path / folder, data={"train": "parts/*.jsonl"})
    assert files_of(Path(config.data.train.source)) == [parts / "a.jsonl", parts / "b.jsonl"]
    before = sources_now(config)
    (parts / "a.jsonl").write_text("{}\n{}\n")
    assert before is not None
    assert sources_now(config) != before
