"""The data of a night: the sweep runs on frozen rows, equal nights share everything, and what stops a night does."""

from __future__ import annotations

import datetime
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpo.commands.preflight import inspect
from hpo.config.file import load_config
from hpo.errors import ConfigError
from hpo.executors.inline import InlineExecutor
from hpo.nights.data import FrozenData, certifying_config, freeze, frozen_before, frozen_config, look
from hpo.nights.night import Night
from hpo.nights.record import NightFiles, NightRecord, Step
from hpo.nights.sources import sources_now
from hpo.paths import Home
from tests.conftest import FILLER, GOOD, reviews, write_jsonl
from trainers.host import dispatch
from trainers.protocol.codec import from_json, to_json
from trainers.protocol.trial_spec import SourceRef

ROWS = [{**row, "text": f"{row['text']} {number}"} for number, row in enumerate(reviews(200))]


class Setup:
    """A sweep's file with rows of its own, and its nights."""

    def __init__(self, folder, write_yaml, **changes):
        self.home, self.source = Home(folder / "home"), folder / "rows.jsonl"
        write_jsonl(self.source, ROWS[:160])
        data = {"train": str(self.source), "validation_size": 0.2, "test_size": 0.2}
        self.config = load_config(write_yaml(**{"data": data, **changes}), self.home)
        self.files = NightFiles(self.home.nights(self.config.name))
        self.executor = InlineExecutor(dispatch.work)

    def night(self, day):
        return Night(self.config.name, datetime.date(2026, 11, day))

    def freeze(self, day, stops=None):
        """Freeze one night, and write it down with what a look said."""
        night = self.night(day)
        frozen = freeze(self.executor, self.config, self.home, night)
        steps = [Step("freeze", "", "", "", to_json(frozen)), Step("look", "", "", "", {"stops": stops})]
        self.files.write(NightRecord(night.name, night.date.isoformat(), "UTC", "", steps=steps))
        return frozen


@pytest.fixture
def setup(tmp_path, write_yaml):
    return Setup(tmp_path, write_yaml)


def test_equal_nights_share_rows_tokens_and_fingerprint(setup):
    first = setup.freeze(1)
    write_jsonl(setup.source, ROWS[:160][::-1])
    second = setup.freeze(2)
    assert (second.version, second.since) == ("tiny-encoder@2026-11-02", "tiny-encoder@2026-11-01")
    assert (second.sha256, second.folder) == (first.sha256, first.folder)
    assert sum(second.added.values()) == sum(second.gone.values()) == 0
    prepared = [
        inspect(setup.executor, frozen_config(setup.config, frozen, setup.night(day)), setup.home)
        for day, frozen in enumerate((first, second), 1)
    ]
    assert prepared[0] == prepared[1]
    assert prepared[0].rows == {split: first.rows[split] for split in ("train", "validation", "test")}
    assert len(list(setup.home.tokens.iterdir())) == 1
    assert frozen_config(setup.config, first, setup.night(1)).name == "tiny-encoder-2026-11-01"


def test_certifying_rows_are_none_of_the_sweep_s_and_have_its_labels(setup, tmp_path):
    """Also where no certifying row has one of the labels, and rows would bring the labels in another order."""
    rare = [{"text": f"so so {n}", "label": "a rare one"} for n in range(60)]
    write_jsonl(setup.source, [*ROWS[:160], *rare])
    first = setup.freeze(1)
    file = Path(first.folder, "certify.jsonl")
    common = [line for line in file.read_text().splitlines() if "a rare one" not in line]
    file.write_text("\n".join(common[::-1]))
    sweep, others = (
        inspect(setup.executor, config, setup.home)
        for config in (frozen_config(setup.config, first, setup.night(1)), certifying_config(setup.config, first))
    )
    assert others.labels == sweep.labels == ["a rare one", "negative", "positive"]
    assert (others.rows["validation"], others.split_hashes["train"]) == (len(common), sweep.split_hashes["train"])
    seen = [line for file in Path(sweep.tokens_dir).glob("*.jsonl") for line in file.read_text().splitlines()]
    certify = Path(others.tokens_dir, "validation.jsonl").read_text().splitlines()
    assert not {json.loads(line)["text"] for line in seen} & {json.loads(line)["text"] for line in certify}


def test_a_night_is_looked_at_beside_the_one_before(setup):
    setup.freeze(1)
    extra = [{"text": f"refund refund refund {row['text']}", "label": row["label"]} for row in ROWS[160:]]
    write_jsonl(setup.source, [*ROWS[:150], *extra])
    frozen = freeze(setup.executor, setup.config, setup.home, setup.night(2))
    assert frozen.said().endswith("since tiny-encoder@2026-11-01: 40 added, 10 gone, 0 with another label or answer")
    before = frozen_before(setup.files, setup.night(2))
    looked = look(setup.executor, setup.config, setup.home, frozen, before)
    assert (looked.stops, looked.findings) == (None, [])
    assert any("refund (100.0%, 0.0% of the others)" in line for line in looked.shift)
    assert "10 rows are gone: too few to compare, 25 would do" in looked.shift
    assert look(setup.executor, setup.config, setup.home, frozen, None).shift == []
    assert from_json(FrozenData, json.loads(json.dumps(to_json(frozen)))) == frozen


def test_a_label_that_has_vanished_stops_the_night_until_it_is_back(setup):
    write_jsonl(setup.source, [*ROWS[:150], *({"text": f"so so {n}", "label": "neutral"} for n in range(30))])
    first = setup.freeze(1)
    write_jsonl(setup.source, ROWS[:150])
    for day in (2, 3):
        before = frozen_before(setup.files, setup.night(day))
        frozen = setup.freeze(day, stops="as below")
        looked = look(setup.executor, setup.config, setup.home, frozen, before)
        count = first.labels["train"]["neutral"]
        had = f"labels that rows of tiny-encoder@2026-11-01 have, and no row has now: 'neutral' ({count} training rows)"
        assert looked.stops.startswith(had)


def test_what_a_sweep_would_be_refused_for_stops_the_night(setup):
    frozen = setup.freeze(1)
    too_long = replace(setup.config, settings={**setup.config.settings, "max_length": 4096})
    looked = look(setup.executor, too_long, setup.home, frozen, None)
    assert "got 4096, but the model has 128 positions" in looked.findings[0]
    assert looked.stops.startswith("the rows cannot be trained on: ")
    setup.source.write_text("")
    with pytest.raises(ConfigError, match=r"rows.jsonl.*is empty"):
        setup.freeze(2)


def test_the_rows_of_a_home_that_was_moved_are_found(setup, tmp_path):
    frozen = setup.freeze(1)
    setup.home.dir.rename(tmp_path / "moved")
    files = NightFiles(Home(tmp_path / "moved").nights(setup.config.name))
    assert frozen_before(files, setup.night(2)).folder == str(files.data / frozen.sha256)
    assert frozen_before(files, setup.night(1)) is None
    files.record(setup.night(3)).write_text("{")  # of another night: nothing of it is needed
    assert frozen_before(files, setup.night(2)).sha256 == frozen.sha256


def test_running_text_is_frozen_and_inspected(tmp_path, write_yaml):
    drawn = random.Random(0)
    text = "".join(f"{' '.join(drawn.choices(GOOD + FILLER, k=12))}\n" for _ in range(3000))
    Path(tmp_path, "book.txt").write_text(text)
    data = {"train": str(tmp_path / "book.txt"), "validation_size": 0.2, "test_size": 0.2}
    setup = Setup(tmp_path, write_yaml, kind="chat", task="causal-lm", data=data)
    frozen = setup.freeze(1)
    config = frozen_config(setup.config, frozen, setup.night(1))
    assert config.data.is_running_text
    prepared = inspect(setup.executor, config, setup.home)
    assert all(prepared.rows.values())
    assert prepared.duplicates == 0
    assert look(setup.executor, setup.config, setup.home, frozen, frozen).stops is None


def test_files_that_are_the_same_are_known_without_reading_rows(setup, tmp_path):
    def now(**sources):
        refs = {split: SourceRef(str(source)) for split, source in sources.items()}
        return sources_now(replace(setup.config, data=setup.config.data.with_sources(refs)))

    first = now()
    assert first == now() is not None
    write_jsonl(setup.source, ROWS[:161])
    assert now() not in (first, None)
    folder, elsewhere = tmp_path / "rows", tmp_path / "elsewhere"
    (folder / "deep").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "circle").symlink_to(folder)
    (folder / "linked").symlink_to(elsewhere)
    write_jsonl(folder / "a.jsonl", ROWS[:2])
    for place in (folder, f"{folder}/**/*.jsonl", f"{folder}/*"):
        for new in (folder / "deep" / "b.jsonl", elsewhere / "c.jsonl"):
            before = now(train=place)
            write_jsonl(new, ROWS[:2])
            assert now(train=place) not in (before, None), (place, new)
            new.unlink()
    before = now(train=folder)
    (folder / ".c.swp").touch()  # nobody reads what is hidden
    assert now(train=folder) == before
    assert [now(test="someone/reviews"), now(test=f"{tmp_path}/nothing-*.csv")] == [None, None]


def test_nothing_heavy_is_imported():
    code = "import sys, hpo.nights.data; print({'torch', 'scipy', 'optuna', 'mlflow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
