"""Three nights on growing data, of which the last one regresses: something that `hpo nights` and the pages can show.

python -m tests.three_nights HOME       takes some minutes; then: hpo --home HOME nights reviews

Each night appends rows to `HOME/three-nights/reviews.jsonl` and runs `hpo nightly` at one o'clock of its date. The rows
of the third one have the wrong labels, as after a broken export. `signals.jsonl` beside it holds what `notify` sent.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
from pathlib import Path
from zoneinfo import ZoneInfo

from hpo.commands.nightly import run_nightly
from hpo.paths import Home
from hpo.terminal import TerminalView
from tests.tiny import encoder, reviews

ZONE = "Europe/Berlin"
FIRST = datetime.datetime(2026, 11, 26, 1, tzinfo=ZoneInfo(ZONE))
NIGHTS = ((1200, False), (2400, False), (2400, True))
"""Rows that come in each night, and whether their labels are wrong."""
WRONG = {"positive": "negative", "negative": "positive"}
SWEEP = {
    "name": "reviews",
    "task": "text-classification",
    "model": "encoder",
    "data": {"train": "reviews.jsonl", "validation_size": 0.25, "test_size": 0.1},
    "search_strategy": {"num_trials": 4},
    "search_space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 3e-2, "log": True}},
    "training": {"max_epochs": 1, "evaluations": 2, "max_length": 64},
    "nightly": {"tz": ZONE, "notify": {"command": ["tee", "-a", "signals.jsonl"]}},
}


def prepared(folder: Path) -> Path:
    """A folder with a small untrained encoder and the sweep's YAML; returns the YAML."""
    folder.mkdir(parents=True)
    encoder(folder / "encoder")
    file = folder / "reviews.yaml"
    file.write_text(json.dumps(SWEEP, indent=2))  # JSON is YAML
    return file


def append_rows(file: Path, count: int, night: int, *, is_wrong: bool) -> None:
    """Rows that no other night has; one of ten has a label by chance, so no model is perfect."""
    rng = random.Random(night)
    with file.open("a") as data:
        for row in reviews(count, seed=night):
            label = rng.choice(list(WRONG)) if rng.random() < 0.1 else row["label"]
            data.write(json.dumps({**row, "label": WRONG[label] if is_wrong else label}) + "\n")


def main() -> None:
    """Run the three nights one after the other."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("home", type=Path, help="a data folder, which need not exist")
    home = Home.locate(parser.parse_args().home)
    if (folder := home.dir / "three-nights").exists():
        parser.error(f"{folder} has nights already; give another folder")
    file, view = prepared(folder), TerminalView()
    for night, (count, is_wrong) in enumerate(NIGHTS):
        append_rows(file.with_name("reviews.jsonl"), count, night, is_wrong=is_wrong)
        began, real = FIRST + datetime.timedelta(days=night), datetime.datetime.now(datetime.UTC)

        def now(began: datetime.datetime = began, real: datetime.datetime = real) -> datetime.datetime:
            return began + (datetime.datetime.now(datetime.UTC) - real)

        run_nightly([file], home, view=view, now=now)
    view.say(f"\nnext:\n  hpo --home {home.dir} nights reviews\n  open {home.nights('reviews')}/*.html")


if __name__ == "__main__":
    main()
