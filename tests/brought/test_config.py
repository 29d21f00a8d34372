"""What people type: YAML of other tools and habits, odd paths, own code, and terminals that know ASCII only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpo.config.dimensions import Float
from hpo.config.file import load_config
from hpo.config.finalists import Finalists
from hpo.config.sweep_config import SweepConfig
from hpo.errors import ConfigError
from hpo.paths import Home
from tests.conftest import reviews, write_jsonl
from tests.hpo.builders import write_sweep
from trainers.protocol.settings import MOST

CASES = Path(__file__).parent / "config"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with a model, data, folders of data and own code, for the YAML of a case to stand in."""
    write_sweep(tmp_path)
    (tmp_path / "data" / "reviews").mkdir(parents=True)
    (tmp_path / "sound.py").write_text("def cost(rows):\n    return [0.0 for _ in rows]\n")
    (tmp_path / "broken.py").write_text("import math\n\ndef cost(rows)\n    return math.pi\n")
    return tmp_path


def read(case: str, folder: Path) -> SweepConfig:
    path = folder / "sweep.yaml"
    shutil.copy(CASES / f"{case}.yaml", path)
    return load_config(path, Home(folder / "home"))


REFUSED: dict[str, list[str]] = {
    "empty-type": ["5: search_space.lora_r.type: is empty; known: float, int, choice"],
    "data-without-a-name": ["3: data.train: got ''; expected text"],
    "hours-as-a-clock-shows-them": ["4: budget.hours: got '1:30'; expected a number above 0, e.g. 1.5"],
    "thousands-with-underscores": [
        "4: seed: got '1_000'; expected a whole number from 0: write 1000",
        "5: training.max_steps: got '10_000'; expected a whole number at least 1: write 10000",
    ],
    "switched-on": ["4: promote: got 'on'; write true", "5: finalists: got 'on'; write true"],
    "switched-off": ["4: promote: got 'off'; write false", "5: finalists: got 'no'; write false"],
    "booleans-of-yaml-1.1": [
        "4: training.gradient_checkpointing: got 'off'; expected true or false",
        "4: training.packing: got 'yes'; expected true or false",
    ],
    "keys-left-empty": [
        "4: seed: is empty; expected a whole number from 0",
        "5: method: is empty; known: lora, rslora, dora, pissa, olora, eva, loftq, qlora, ia3, adapter, prompt, "
        "prefix, full",
        "7: training.learning_rate: is empty; expected a number above 0 and at most 1",
        "10: budget.hours: is empty; expected a number above 0",
    ],
    "seed-as-a-time": ["4: seed: got '1:0:0:0:0:0:0:0:0:0:0:0:0:0:0'; expected a whole number from 0"],
    "a-mistake-in-what-is-merged": [
        "2: training.batch_size: got 0; expected a whole number at least 1 and at most 65536"
    ],
    "merge-of-a-text": [
        "5: training.<<: merges something that is not a mapping; expected <<: *NAME of an anchored mapping"
    ],
    "aliases-that-multiply": [
        "10: has more than 100,000 values where its aliases are written out: &a9 is the largest; "
        "expected the YAML of a sweep"
    ],
    "numbers-as-target-modules": [
        "4: training.modules_to_save: got ['']; expected text, or a list of texts",
        "4: training.target_modules: got [1, 2]; expected text, or a list of texts",
    ],
    "far-too-many-trials": ["5: budget.trials: is a number too large for any setting"],
    "a-step-of-nothing": [
        "5: search_space.lora_dropout.step: got 5e-324; "
        "expected at most 1,000,000 steps from low to high: a larger one, or none"
    ],
    "home-of-nobody": [
        "2: model: got '~nosuchuser/model': there is no such user; expected a folder, a hub id or fetch:NAME",
        "3: data.test: got 'data/\\x00.jsonl': it contains a NUL character; expected a file, a hub id or fetch:NAME",
        "3: data.train: got '~nosuchuser/train.jsonl': there is no such user; expected a file, a hub id or fetch:NAME",
        "3: data.validation: no file matches 'a**b': a pattern has * in the name of its files only, and never **; "
        "paths start at {folder}",
        "4: training.loss: got '~nosuchuser/x.py:f': there is no such user; expected a file below {folder}",
    ],
    "half-a-character": [
        "2: model: holds half a character (a lone surrogate such as \\ud83d); whole characters",
        "3: data.text: holds half a character (a lone surrogate such as \\ud83d); whole characters",
        "3: data.train: holds half a character (a lone surrogate such as \\ud83d); whole characters",
    ],
    "mistyped-folders": [
        "2: model: no such folder 'modle': did you mean 'model'?; "
        "paths start at {folder}; if the hub's is meant, write {{source: modle, revision: main}}",
        "3: data.test: no file './dat'; paths start at {folder}",
        "3: data.train: no such folder or file 'dat/reviews': did you mean 'data/reviews'?; "
        "paths start at {folder}; if the hub's is meant, write {{source: dat/reviews, revision: main}}",
        "3: data.validation: no such folder or file 'data/reviws': did you mean 'data/reviews'?; "
        "paths start at {folder}; if the hub's is meant, write {{source: data/reviws, revision: main}}",
    ],
    "no-hub-id": [
        "2: model: no such folder 'my models/bert base'; "
        "paths start at {folder}; an id of the hub is NAME or ORG/NAME",
        "3: data.train: no such folder or file 'C:\\\\data\\\\reviews'; "
        "paths start at {folder}; an id of the hub is NAME or ORG/NAME",
    ],
    "own-code-that-cannot-be": [
        "4: training.loss: no file 'mistyped.py'; paths start at {folder}",
        "5: metrics: broken.py:3 is not Python: expected ':'; correct it",
        "5: metrics: sound.py has no function or class 'costs'; did you mean 'cost'?",
    ],
    "endless-value": [
        f"4: name: got '{'n' * 99}... (3,002 characters); expected letters, digits, '.', '_' and '-'"
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_odd_is_refused_with_its_line(beside, case):
    with pytest.raises(ConfigError) as caught:
        read(case, beside)
    file = f"{beside / 'sweep.yaml'}:"
    told = sorted((str(p).removeprefix(file) for p in caught.value.problems), key=lambda s: (int(s.split(":")[0]), s))
    assert told == [problem.format(folder=beside) for problem in REFUSED[case]]


READ: dict[str, dict[str, Any]] = {
    "until-half-past-ten": {"budget.until": "22:30"},
    "trials-with-a-leading-zero": {"strategy.num_trials": 20},
    "true-and-false": {"finalists": Finalists(3, 3), "promote.name": "sweep", "promote.max_drop": 0.01},
    "an-emoji-as-json-writes-it": {"data.columns": {"text": "\U0001f600", "label": "label"}},
    "merge-keys-and-x-keys": {
        "settings.max_epochs": 1.0,
        "settings.batch_size": 4,
        "space.dimensions": {
            "learning_rate": Float(1e-5, 1e-2, log=True),
            "weight_decay": Float(1e-4, 1e-1, log=True),
        },
    },
}


@pytest.mark.parametrize("case", READ)
def test_what_other_tools_write_is_read(beside, case):
    config = read(case, beside)
    for path, wanted in READ[case].items():
        found: Any = config
        for name in path.split("."):
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        assert found == wanted, path


def test_every_case_is_tried():
    assert {path.stem for path in CASES.iterdir()} == {*REFUSED, *READ}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "is nested too deeply to be read"),
        ("a: " + "1" * 400, "a: is a number too large for any setting"),
        ("a: " + "1" * 400 + ".5", "a: is a number too large for any setting"),
        ('a: "\\Uffffffff"', "is not YAML: an escape that does not name a character"),
        ("a: \x1b[31m", "is not YAML: the character U+001B is not allowed"),
        ("a: " + "1" * (1 << 19), "is larger than 512 KB"),
        ("a: &a {<<: *a}", "a.<<: contains itself"),
        ("? [a]\n: 1\n", "has a key that is not text"),
        ("a: !!python/name:os.system x\n", "a: cannot be read: it has the tag !!python/name:os.system"),
        ("a: 1\n" * 1000, "a: is given twice"),
    ],
    ids=["brackets", "digits", "point", "no-character", "escape", "large", "circle", "list-as-key", "tag", "repeated"],
)  # fmt: skip
def test_a_file_that_is_no_yaml_of_ours_is_one_bounded_message(tmp_path, text, why):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, Home(tmp_path / "home"))
    assert why in str(caught.value)
    assert len(str(caught.value)) < 10_000


BOUNDS = {
    "training: {max_examples: 9000000000000}": f"training.max_examples: got 9000000000000; expected at most {MOST:,}",
    "training: {learning_rate: 5e-324}": "training.learning_rate: got 5e-324; expected at least 1e-30",
    "training: {lora_alpha: 1e308}": f"training.lora_alpha: got 1e+308; expected at most {MOST:,}",
    "search_strategy: {num_trials: 1e308}": "search_strategy.num_trials: got 1e+308; expected at most 1,000,000",
    "budget: {hours: 1e300}": "budget.hours: got 1e+300; expected at most 1,000,000",
    "data: {train: train.jsonl, validation_size: 1e308}": "data.validation_size: got 1e+308; expected at most ",
    "pruner: {min_peers: 1e300}": "pruner.min_peers: got 1e+300; expected at most 1,000,000",
    "trials: {stall_minutes: 1e308}": "trials.stall_minutes: got 1e+308; expected at most 1,000,000",
    "constraints: {max_seconds: 1e308}": "constraints.max_seconds: got 1e+308; expected at most ",
    "seed: 1e300": "seed: got 1e+300; expected at most 9,223,372,036,854,775,807",
}


@pytest.mark.parametrize("line", BOUNDS)
def test_numbers_have_bounds(beside, line):
    head = ["task: text-classification", "model: ./model", "data: train.jsonl"]
    lines = [*(h for h in head if h.split(":")[0] != line.split(":")[0]), line]
    (beside / "sweep.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"1 problem\n") as caught:
        load_config(beside / "sweep.yaml", Home(beside / "home"))
    assert BOUNDS[line] in str(caught.value)


def test_a_link_in_a_circle_is_no_folder(beside):
    (beside / "one").symlink_to("other")
    (beside / "other").symlink_to("one")
    (beside / "sweep.yaml").write_text("task: text-classification\nmodel: one\ndata: other/train.jsonl\n")
    with pytest.raises(ConfigError) as caught:
        load_config(beside / "sweep.yaml", Home(beside / "home"))
    assert str(caught.value).count("its symbolic links form a loop") == 2


def test_a_hub_id_is_one_where_a_revision_says_so(beside):
    """`data/reviws` beside a folder `data` is taken for a path; what only a hub id has settles it."""
    text = "task: text-classification\nmodel: {source: modle, revision: main}\n"
    (beside / "sweep.yaml").write_text(text + "data: {train: {source: data/reviws, config: en}}\n")
    config = load_config(beside / "sweep.yaml", Home(beside / "home"))
    assert (config.model.source, config.data.train.source) == ("modle", "data/reviws")


# --- the command ---------------------------------------------------------------------------------------


def hpo(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HPO_HOME": str(cwd / "home"), **variables}
    command = [sys.executable, "-m", "hpo", *arguments]
    return subprocess.run(command, capture_output=True, cwd=cwd, env=environment, timeout=60, stdin=subprocess.DEVNULL)


def assert_refused(done: subprocess.CompletedProcess[bytes], *words: str) -> str:
    told = done.stderr.decode()
    assert done.returncode == 2, told
    assert "Traceback" not in told
    assert not [word for word in words if word not in told], told
    return told


def test_an_ascii_pipe_gets_escapes(tmp_path):
    (tmp_path / "a.yaml").write_text('task: chat\nmodel: "müdel\u202e \\e[31mred"\ndata: "\\ud83d\\ude00"\n')
    for variables in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "utf-8"}):
        told = assert_refused(hpo("check", "a.yaml", cwd=tmp_path, **variables), "\\u202e \\x1b[31mred")
        assert ("m\\xfcdel" in told) == (variables == {"PYTHONIOENCODING": "ascii"})


def test_a_path_that_is_no_text_is_told_in_any_encoding(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.yaml"
    Path(os.fsdecode(path)).write_text("task: chat\n")
    for encoding in ("ascii", "utf-8"):
        assert_refused(
            hpo("check", os.fsdecode(path), cwd=tmp_path, PYTHONIOENCODING=encoding), "its path is no UTF-8 text"
        )


@pytest.mark.parametrize("name", ["pipe.yaml", "/dev/zero", "/dev/stdin"])
def test_what_never_ends_is_not_read(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert_refused(hpo("check", name, cwd=tmp_path), f"{name}: is not a regular file (a pipe or a device)")


HOMES = {
    "~nosuchuser/x": "there is no such user",
    "n" * 300: "a name in it is longer than 255 bytes",
    "loop": "its symbolic links form a loop",
    "file": "file is a file; expected a folder",
    "file/below": "file is a file; expected a folder",
}


@pytest.mark.parametrize("home", HOMES)
def test_a_home_that_cannot_be_is_refused_by_name(tmp_path, home):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert_refused(hpo("list", cwd=tmp_path, HPO_HOME=home), HOMES[home])
    assert_refused(hpo("--home", home, "list", cwd=tmp_path), HOMES[home])


def test_a_clean_copy_needs_a_place_where_it_can_be(tmp_path):
    write_sweep(tmp_path)
    for place, why in (
        ("train.jsonl/x", "is a file"),
        ("n" * 300, "longer than 255 bytes"),
        ("train.jsonl", "already exists"),
    ):
        assert_refused(hpo("check", "sweep.yaml", "--fix", place, cwd=tmp_path), why)


def test_a_hub_id_that_nobody_has_names_its_line_and_both_readings(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", reviews(20))
    (tmp_path / "a.yaml").write_text("task: text-classification\n\nmodel: nobody/has-this\ndata: train.jsonl\n")
    told = assert_refused(
        hpo("check", "a.yaml", cwd=tmp_path, HF_HUB_OFFLINE="1"), "a.yaml:3: model: nobody/has-this: "
    )
    assert "no such file or folder beside the YAML, and not in the cache of this machine: HF_HUB_OFFLINE is set" in told
