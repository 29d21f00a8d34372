"""Many adapters on one base: each answers as its merged model, alone and mixed; what cannot be so is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_jsonl
from tests.quick_releases import copy_graph, traced_once
from tests.trainers.families import rows, trained
from trainers.data.sources import DataProblem
from trainers.export import bundle as bundle_export
from trainers.export.bundle import export_bundle
from trainers.export.bundle_parity import MOST
from trainers.export.release import GRAPH
from trainers.model.load import load_base, merge
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import METRICS, TASKS, canonical_settings, default_settings
from trainers.protocol.events import Finding
from trainers.protocol.exported import BundleExported
from trainers.protocol.files import TrialPaths
from trainers.protocol.requests import BundledTrial, ExportBundle, Inspect
from trainers.protocol.trial_spec import SourceRef, TrialSpec
from trainers.runtime.adapters import Adapter
from trainers.runtime.bundle import ADAPTERS, Bundle
from trainers.runtime.card import ReleaseError
from trainers.runtime.release import Release

TEXTS = ["a fine film", "a dull plot 3", "good and bad", "bad bad bad bad bad bad and one more for the length of it"]


@pytest.fixture(scope="module")
def learned(family_workload, tmp_path_factory):
    """A trial that was trained on a family's tiny model: what a bundle is made of. Equal ones are trained once."""
    home, known = tmp_path_factory.mktemp("learned"), {}

    def train(folder, family, task, method, data, layers, settings):
        workload = family_workload(family, task, layers)
        if data is not None:
            source = SourceRef(str(write_jsonl(folder.with_suffix(".jsonl"), data)))
            workload = replace(workload, data=replace(workload.data, train=source))
        found = inspect(Inspect(workload))
        metric = TASKS[task].metrics[0]
        chosen = {
            **default_settings(task, method), "learning_rate": 1e-2, "batch_size": 8, "evaluations": 2, **settings,
        }  # fmt: skip
        spec = TrialSpec(
            0, workload, method, canonical_settings(method, chosen), metric, METRICS[metric].direction, 80, 80, 0,
            "i", 1, ("cpu",), str(folder),
        )  # fmt: skip
        trained(spec, found)
        return spec, found

    def make(name, family, task, method="lora", data=None, layers=2, **settings):
        given = family, task, method, data, layers, settings
        key = json.dumps(given, sort_keys=True)
        if key not in known:
            known[key] = train(home / str(len(known)), *given)
        return BundledTrial(name, *known[key])

    return make


def three_classes(count):
    return [
        {**row, "label": ["low", "middle", "high"][i % 3]} for i, row in enumerate(rows("text-classification", count))
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, graphs):
    """The folder of a bundle of these trials, made once; it has the answers of its merged models."""
    home, known = tmp_path_factory.mktemp("bundles"), {}

    def make(*trials):
        key = tuple((trial.name, trial.spec.dir) for trial in trials)
        if key not in known:
            known[key] = home / str(len(known))
            with traced_once(graphs, bundle_export):
                made = export_bundle(ExportBundle(trials, str(known[key])))
            assert made.failures == {}
            assert all(adapter.difference <= MOST for adapter in made.adapters)
        return known[key]

    return make


@pytest.fixture
def bundled(exported, tmp_path):
    """A copy of such a bundle, in `tmp_path / "bundle"`."""

    def make(*trials):
        bundle = Release.load(shutil.copytree(exported(*trials), tmp_path / "bundle"), 1)
        assert isinstance(bundle, Bundle)
        return bundle

    return make


def mixed(bundle, texts):
    """The answers to each text by each adapter, all in one batch."""
    batch = [(bundle[name], reading) for name in bundle for reading in bundle[name].read(texts)]
    answers = bundle.answered(batch)
    return {name: answers[i * len(texts) : (i + 1) * len(texts)] for i, name in enumerate(bundle)}


def close_to(answers):
    return json.loads(json.dumps(answers), parse_float=lambda text: pytest.approx(float(text), abs=1e-4))


def test_classifiers_of_other_labels_and_ranks_share_a_batch(learned, bundled, tmp_path):
    trials = [
        learned("two", "bert", "text-classification", lora_r=4),
        learned("three", "bert", "text-classification", "rslora", three_classes(72), lora_r=9),
        learned("pissa", "bert", "text-classification", "pissa", target_modules="attention"),
    ]
    bundle = bundled(*trials)
    assert [bundle[name].card.labels for name in bundle] == [
        ("negative", "positive"),
        ("high", "low", "middle"),
        ("negative", "positive"),
    ]
    answers = mixed(bundle, TEXTS)
    for trial in trials:
        found = bundle[trial.name].predict(TEXTS)
        assert answers[trial.name] == close_to(found)
        base = load_base(trial.spec.workload, trial.inspection.labels)
        merged = merge(base, trial.spec, TrialPaths(Path(trial.spec.dir)).adapter)
        (encoding,) = bundle.tokenizer.encode_batch(TEXTS[:1])
        import torch

        logits = merged(input_ids=torch.tensor([encoding.ids])).logits.detach().numpy()
        assert np.abs(bundle[trial.name].row_logits(TEXTS[:1]) - logits).max() < 1e-4
    asked = [{"adapter": "three", "input": TEXTS[0]}, json.dumps({"adapter": "two", "input": TEXTS[1]})]
    assert bundle.predict(asked) == [bundle["three"].predict(TEXTS[:1])[0], bundle["two"].predict(TEXTS[1:2])[0]]
    for given in (TEXTS[0], {"adapter": "four", "input": "a"}, {"adapter": "two", "text": "a"}):
        with pytest.raises(ValueError, match="adapter"):
            bundle.predict([given])
    said = subprocess.run([sys.executable, "-m", "runtime", "--adapter", "three", TEXTS[0]], cwd=tmp_path / "bundle",
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(said.stdout) == close_to(bundle["three"].predict(TEXTS[:1])[0])


@pytest.mark.parametrize(
    ("family", "task"),
    [("roberta", "multi-label-classification"), ("distilbert", "regression"), ("bert", "token-classification"),
     ("bert", "text-similarity"), ("gpt2", "text-classification")],
)  # fmt: skip
def test_every_task_that_reads_a_whole_text(learned, bundled, family, task):
    a = learned("a", family, task, layers=1, lora_r=4)
    bundle = bundled(a, learned("b", family, task, layers=1, lora_r=7, seed=1))
    texts = ["the film good bad is fine", "dull"]
    answers = mixed(bundle, texts)
    assert {name: close_to(bundle[name].predict(texts)) for name in bundle} == answers


@pytest.mark.parametrize(
    ("family", "layers", "settings"),
    [("llama", 2, {}), ("gpt2", 1, {"modules_to_save": "ln_f,lm_head"}), ("opt", 1, {})],
)
def test_decoders_take_the_adapter_into_each_step(learned, bundled, family, layers, settings):
    a = learned("a", family, "causal-lm", layers=layers, **settings)
    bundle = bundled(a, learned("b", family, "causal-lm", layers=layers, lora_r=3))
    prompt = "the film is"
    assert [len(answer["text"]) > 0 for answer in bundle["a"].predict([prompt], 8)] == [True]
    assert bundle["a"].token_logits([5, 6, 7]).shape == bundle["b"].token_logits([5, 6, 7]).shape


def test_adapters_come_and_go_without_another_session(learned, bundled, tmp_path):
    bundle = bundled(learned("a", "bert", "text-classification"), learned("b", "bert", "text-classification", lora_r=3))
    session, b, before = bundle.session, bundle["b"], bundle["b"].predict(TEXTS)
    reading = b.read(TEXTS[:1])[0]
    bundle.remove("b")
    assert list(bundle) == ["a"]
    with pytest.raises(ValueError, match="unknown adapter 'b'; expected one of a"):
        bundle["b"]
    both = bundle.answered([(bundle["a"], reading), (b, reading)])  # its request had come before
    assert both[1] == close_to(before[0])
    assert not bundle._graph._stacks
    again = bundle.add("c", tmp_path / "bundle" / ADAPTERS / "b")
    assert bundle.session is session
    assert again.predict(TEXTS) == before
    assert again.card.adapter_hash == b.card.adapter_hash


def test_a_damaged_or_foreign_adapter_is_refused(learned, bundled, tmp_path):
    bundle = bundled(learned("a", "bert", "text-classification"), learned("b", "bert", "text-classification", lora_r=3))
    folder = tmp_path / "bundle" / ADAPTERS / "b"
    data = (folder / "adapter.npz").read_bytes()
    (folder / "adapter.npz").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ReleaseError, match="its hash differs"):
        bundle.add("b", folder)
    (folder / "adapter.npz").write_bytes(data)
    known = Adapter.read(folder)
    weights = {name: values for name, values in known.weights.items() if not name.startswith("full.")}
    with pytest.raises(ReleaseError, match=r"not of this base: it has x, .*; it lacks full\."):
        bundle._graph.add(replace(known, weights={**weights, "x": np.zeros((1, 1), np.float32)}))


def test_a_zero_adapter_is_the_plain_base(learned, bundled):
    bundle = bundled(learned("a", "llama", "causal-lm"), learned("b", "llama", "causal-lm"))
    a = bundle["a"].session.adapter
    plain = bundle._graph.add(replace(a, weights={}))
    assert plain.rank == 1
    import torch
    from transformers import AutoModelForCausalLM

    trial = learned("c", "llama", "causal-lm")
    model = AutoModelForCausalLM.from_pretrained(trial.inspection.model_dir).eval()
    ids = [5, 6, 7, 8]
    release = type(bundle["a"])(a.card, bundle.tokenizer, plain)
    with torch.inference_mode():
        wanted = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    assert np.abs(release.token_logits(ids) - wanted).max() < 1e-4


def test_an_adapter_that_answers_otherwise_fails_its_gate(learned, exported, tmp_path, monkeypatch):
    def wrong(folder, one, own, base):
        for part in one.beside.thin.values():
            part["b"][:] *= 1.5
        written(folder, one, own, base)

    right, written = learned("a", "bert", "text-classification"), bundle_export._write_adapter
    traced = exported(right, learned("b", "bert", "text-classification", lora_r=3)) / GRAPH
    monkeypatch.setattr(bundle_export, "_write_graph", lambda *given: copy_graph(traced, given[-1].parent))
    monkeypatch.setattr(bundle_export, "_write_adapter", wrong)
    made = export_bundle(ExportBundle((right,), str(tmp_path / "bundle")))
    assert "differs from its merged model by" in made.failures["a"]


def test_a_runner_up_that_does_not_fit_is_left_out_and_the_champion_is_not(tmp_path, monkeypatch):
    from trainers.export import promotion

    def export(request):
        Path(request.dir).mkdir()
        names = [trial.name for trial in request.trials]
        if "odd" in names:
            raise DataProblem([Finding("odd: training.modules_to_save", "is a Embedding")])
        return BundleExported(names, {name: "differs" for name in names if name == "bad"}, 0.0)

    monkeypatch.setattr(promotion, "export_bundle", export)

    def written(*names):
        trials = [BundledTrial(name, None, None) for name in names]
        return promotion.write_adapters(trials, tmp_path / "-".join(names))

    assert written("best", "odd", "bad", "fine") == (
        ["best", "fine"], {"odd": "odd: training.modules_to_save: is a Embedding", "bad": "bad differs"},
    )  # fmt: skip
    assert written("bad", "fine") == ([], {"bad": "bad differs"})


def test_what_no_graph_can_choose_by_row_is_named(learned, tmp_path):
    trials = tuple(learned(name, "llama", "causal-lm", modules_to_save="embed_tokens,lm_head") for name in ("a", "b"))
    with pytest.raises(DataProblem) as error:
        export_bundle(ExportBundle(trials, str(tmp_path / "bundle")))
    assert [finding.where for finding in error.value.findings] == [
        "a: training.modules_to_save", "b: training.modules_to_save",
    ]  # fmt: skip
    assert "is a Embedding" in error.value.findings[0].found
