"""The model card: every number is one of `hpo show --json`, and text of people stays text."""

from __future__ import annotations

import dataclasses
import re

import pytest
import yaml

from hpo.config.front_matter import front_matter
from hpo.config.space import from_resolved
from hpo.executors.environment import Environment
from hpo.paths import Home
from hpo.release.card_sections import data_section, how_searched
from hpo.release.licences import Licence, licence_of
from hpo.release.manifest import BaseFacts, DataFacts, Manifest, TrainingFacts, base_name, source_name
from hpo.release.model_card import CardFacts, Licences, model_card
from hpo.results.champion import Champion
from hpo.results.markdown import code, paragraphs, plain, table
from hpo.results.released import TorchNumbers, VariantVerdict
from tests.hpo.builders import Sweep
from trainers.protocol.measured import Measurement
from trainers.protocol.trial_spec import ModelRef, SourceRef
from trainers.runtime.card import Card

NASTY = ["a|b", "<script>alert(1)</script>", "# `x` *y* [z](http://w)", "two\nlines", "\x1b[31m", "c" * 300]


def variant(name, value, passed=True, count=None):
    found = Measurement(name, {"f1_macro": value}, 1e-3, 23.7, 4.3, 6.4, rows=count and 32)
    return VariantVerdict(name, found, 0.01, passed, f"f1_macro -1.00% against torch, {name}", count)


@pytest.fixture
def facts(tmp_path):
    """A finished sweep of the fake trainer, whose labels and texts try to be markup."""
    sweep = Sweep(tmp_path, promote={"card": {"intended_use": "For <b>me</b>.\n\nSecond | part.", "licence": "mit"}})
    sweep.search()
    verdicts = [variant("fp32", 0.8), variant("int8 | mixed", 0.79, count=100), variant("int4_<b>", 0.5, passed=False)]
    failed = VariantVerdict("fp16", None, None, False, "no such operator")
    summary = dataclasses.replace(
        sweep.summary(), torch=TorchNumbers({"f1_macro": 0.81}, 9.5), variants=[*verdicts, failed]
    )
    config = sweep.config
    manifest = Manifest(
        sweep=config.name, trial=summary.champion.number, variant="int8 | mixed", sha256={"data": "1" * 64},
        data=DataFacts({"train": NASTY[1]}, {"train": 1000, "validation": 100, "test": 100}, {"train": "a" * 64}, 7,
                       {"train": dict.fromkeys(NASTY, 3)}),
        base=BaseFacts("model"),
        training=TrainingFacts(config.task, "lora", environment=Environment("3.11", {"torch": "2.0"}, cpu=NASTY[0])),
        measured={"metric": "f1_macro", "metrics": {"f1_macro": 0.79}},
    )  # fmt: skip
    card = Card("text-classification", "int8", tuple(NASTY), 128, 0)
    licences = Licences(Licence("apache-2.0", "its README.md"), {"train": Licence()})
    return CardFacts("shared", config, summary, manifest, verdicts[1], card, licences)


def tables_of(text):
    """Every table as rows of cells; Markdown's own rule splits cells at pipes without a backslash."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.splitlines()] for block in blocks]


def test_no_text_of_people_breaks_a_table_or_becomes_a_tag(facts):
    text = model_card(facts)
    for rows in tables_of(text):
        assert len({len(row) for row in rows}) == 1, rows
    front, body = text.split("---\n")[1], text.split("---\n", 2)[2]
    assert "<" not in re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    assert "\x1b" not in text
    assert not re.search(r"^# (?!shared)", body, re.MULTILINE)
    assert max(len(cell) for rows in tables_of(text) for row in rows for cell in row) < 250
    assert yaml.safe_load(front)["license"] == "mit"


def test_the_share_of_a_label_is_of_the_rows_also_where_a_row_has_several(facts):
    data = dataclasses.replace(facts.manifest.data, labels={"train": {"a": 900, "b": 500}})
    config = dataclasses.replace(facts.config, task="multi-label-classification")
    (labels,) = [
        rows for rows in tables_of("\n".join(data_section(data, config, None)) + "\n") if rows[0][0] == " label "
    ]
    assert [[cell.strip() for cell in row] for row in labels[2:]] == [["a", "900 (90.0%)"], ["b", "500 (50.0%)"]]


def test_null_is_a_value_of_the_space_and_a_setting_that_is_not_there_is_none(facts):
    space = from_resolved({"neftune_noise_alpha": {"type": "choice", "values": [None, 5.0]}})
    config = dataclasses.replace(facts.config, space=space)
    champion = dataclasses.replace(facts.summary.champion, params={"neftune_noise_alpha": None})
    baseline = dataclasses.replace(facts.summary.baseline, params={})
    summary = dataclasses.replace(facts.summary, champion=champion, baseline=baseline)
    assert "| neftune_noise_alpha | null, 5 | - | null |" in how_searched(config, summary)


def test_every_number_of_the_variants_is_one_of_the_sweep(facts):
    text = model_card(facts)
    (variants,) = [rows for rows in tables_of(text) if rows[0][0].strip() == "variant"]
    names = [row[0].strip() for row in variants[2:]]
    assert names == ["torch", "fp32", r"int8 \| mixed", "int4\\_&lt;b&gt;", "fp16"]
    values = [row[1].strip() for row in variants[2:]]
    assert values == ["0.8100", "0.8000", "0.7900", "0.5000", ""]
    assert "Released: int8 \\| mixed." in text
    champion, baseline = facts.summary.champion, facts.summary.baseline
    assert f"| this training | validation, 100 | {champion.value:.4f} | - |" in text
    assert f"trial {champion.number}, f1_macro {champion.value:.4f}" in text
    assert f"{baseline.value:.4f}" in text


def test_of_a_trial_that_a_person_chose_the_card_has_its_own_numbers(facts):
    best = facts.summary.champion
    other = next(t for t in facts.summary.trials if t.number != best.number)
    chosen = Champion(other.number, 0.4321, {"f1_macro": 0.4321}, {"learning_rate": 0.0123}, "run")
    summary = dataclasses.replace(facts.summary, chosen_trial=other.number)
    text = model_card(dataclasses.replace(facts, summary=summary.of_release(chosen)))
    assert "| this training | validation, 100 | 0.4321 | - |" in text
    assert f"- chosen by a person: trial {other.number}, f1_macro 0.4321" in text
    assert "| 0.0123 |" in text
    assert f"{best.value:.4f}" not in text.partition("## How it was searched")[0]
    best = dataclasses.replace(best, metrics={**best.metrics, "loss": float("nan")})  # which is not equal to itself
    assert summary.of_release(best) is summary


def test_a_version_that_may_never_be_champion_says_how_to_load_itself(facts):
    text = model_card(facts)
    assert 'load_model("models:/shared/VERSION")' in text
    assert "@champion" not in text
    assert "| git commit at the release |" in text


def test_why_a_variant_was_refused_names_its_gate(facts):
    refused = dataclasses.replace(facts.summary.variants[2], failed_gates=("max_drop",))
    summary = dataclasses.replace(facts.summary, variants=[refused])
    assert "; gate: max_drop" in model_card(dataclasses.replace(facts, summary=summary))


def test_the_front_matter_is_the_hub_s(facts):
    values = yaml.safe_load(model_card(facts).split("---\n")[1])
    assert values["pipeline_tag"] == "text-classification"
    assert "base_model" not in values  # a folder is no hub id
    (result, *_) = values["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "f1_macro", "value": 0.79}]
    hub = dataclasses.replace(facts.config, model=ModelRef("org/base", "v1"))
    assert (
        yaml.safe_load(model_card(dataclasses.replace(facts, config=hub)).split("---\n")[1])["base_model"] == "org/base"
    )


def test_nothing_is_guessed(facts):
    silent = dataclasses.replace(facts, config=dataclasses.replace(facts.config, promote=None))
    text = model_card(silent)
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"
    assert "Its author has not said what it is meant for" in text
    assert "| base model | model | apache-2.0 (says its README.md) |" in text
    assert f"| data: train | {plain(NASTY[1])} | unknown |" in text


def test_what_the_author_says_is_shown_as_text(facts):
    text = model_card(facts)
    assert "For &lt;b&gt;me&lt;/b&gt;.\n\nSecond \\| part.\n" in text


# --- licences ------------------------------------------------------------------------------------------


def test_where_a_licence_is_found(tmp_path):
    home = Home(tmp_path)
    folder = home.cache / "vader-movie"
    folder.mkdir(parents=True)
    assert licence_of(home, folder / "vader-movie.jsonl") == Licence("MIT", "the catalogue of hpo fetch")
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: my|own\n---\n# x")
    assert licence_of(home, folder) == Licence("other, my|own", "its README.md")
    elsewhere = tmp_path / "vader-movie"
    elsewhere.mkdir()
    assert licence_of(home, elsewhere) == Licence()
    (elsewhere / "config.json").write_text('{"license": "apache-2.0"}')
    assert str(licence_of(home, elsewhere)) == "apache-2.0 (says its config.json)"
    (elsewhere / "config.json").write_text('{"license": ["mit", "apache-2.0"]}')
    assert licence_of(home, elsewhere).name == "mit, apache-2.0"


@pytest.mark.parametrize(
    "text", ["", "# no front matter", "---\n: [\n---\n", "---\n- a\n---\n", "---\nlicense: x", "\xff"]
)
def test_a_readme_without_front_matter_says_nothing(tmp_path, text):
    (tmp_path / "README.md").write_text(text, encoding="latin-1")
    assert front_matter(tmp_path / "README.md") == {}
    assert front_matter(tmp_path / "none") == {}


# --- Markdown ------------------------------------------------------------------------------------------


def test_plain_text_in_markdown():
    assert plain("f1_macro of a_b") == "f1_macro of a_b"
    assert plain("_x_ 1. 2") == "\\_x\\_ 1. 2"
    assert paragraphs("1. x\n\n- a\n> b\n\n \n\n-0.5") == ["1\\. x\n", "\\- a &gt; b\n", "\\-0.5\n"]


def test_numbers_stand_to_the_right():
    assert table(["a", "b"], [["x", "1.5"], ["y", "-"]])[1] == "| --- | ---: |"


def test_no_text_closes_its_fence():
    assert code("````\nx", "sh")[0] == "`````sh"


# --- the manifest --------------------------------------------------------------------------------------


def test_a_manifest_of_an_earlier_hpo_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text(
        '{"sweep": "s", "trial": 6, "repeat": 0, "sha256": {"base": "b4"}, "measured": {"metric": "f1"}, "later": 1,'
        '"versions": {"python": "3.11.7", "torch": "2.1"}}'
    )
    found = Manifest.read(tmp_path)
    assert (found.run, found.files, found.training.seed) == ("s#6.0", {}, 0)
    assert found.environment() == Environment("3.11.7", {"torch": "2.1"})
    (difference,) = found.environment().differences(Environment("3.11.7", {"torch": "2.2"}, "x86_64", "cpu", ["avx"]))
    assert str(difference) == "torch: 2.1 -> 2.2"
    assert Manifest().run is None


def test_a_manifest_names_no_folder_of_a_machine():
    assert source_name(SourceRef("/home/ann/data/reviews.jsonl", split="train[:10]")) == "reviews.jsonl train[:10]"
    assert source_name(SourceRef("org/data", "en", "v2", "train")) == "org/data config en @v2 train"
    assert base_name(ModelRef("/home/ann/models/mini")) == "mini"
    assert base_name(ModelRef("org/base", "v1")) == "org/base @v1"
