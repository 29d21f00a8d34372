"""Going on from an earlier adapter: it becomes the base model, and one that does not fit is told before anything."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from hpo.commands import preflight as setup
from hpo.config.file import load_config
from hpo.config.trial_specs import TrialSpecs
from hpo.errors import ConfigError
from hpo.executors.inline import InlineExecutor
from hpo.paths import Home
from tests.conftest import write_jsonl
from tests.hpo.builders import INSPECTION, make_config
from trainers.data.sources import DataProblem
from trainers.host.dispatch import work
from trainers.model.load import draw_new_parameters, load_base, merge
from trainers.model.methods.peft_methods import wrapped
from trainers.model.methods.table import METHODS
from trainers.prepare.inspect import inspect
from trainers.protocol.catalog import FOLDABLE_ADAPTERS
from trainers.protocol.events import TrialResult
from trainers.protocol.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OWN_WEIGHTS, TrialPaths
from trainers.protocol.requests import Inspect
from trainers.training.evaluation import score_model


@pytest.fixture
def trained(make_spec, run_trial, tmp_path):
    """A trial's adapter in a folder of its own, and the trial's result."""

    def train(kind, method="lora", **settings):
        spec = make_spec(kind, method, **{"lora_dropout": 0.0, **settings})
        result, _ = run_trial(spec)
        folder = tmp_path / f"{kind}-{method}"
        shutil.copytree(TrialPaths(Path(spec.dir)).adapter, folder)
        return folder, result

    return train


def on_top_of(spec, folder):
    """The spec as a sweep's that goes on from the adapter in `folder`."""
    model = dataclasses.replace(spec.workload.model, adapter=str(folder))
    return dataclasses.replace(spec, workload=dataclasses.replace(spec.workload, model=model))


@pytest.mark.parametrize(
    ("kind", "method"),
    [("encoder", m) for m in ("lora", "rslora", "dora", "pissa", "olora", "eva", "ia3", "full")]
    + [("chat", "lora"), ("chat", "full")],
)
def test_the_start_is_where_the_adapter_ended(trained, make_spec, inspection, kind, method):
    folder, result = trained(kind, method)
    spec = on_top_of(make_spec(kind), folder)
    base = load_base(spec.workload, inspection(kind).labels)
    draw_new_parameters(base, seed=3)
    metrics = score_model(base, Path(inspection(kind).tokens_dir), "cpu")[0]
    assert metrics == pytest.approx(result.metrics, abs=1e-5)
    assert not [name for name, p in base.model.named_parameters() if p.requires_grad or "lora" in name]
    assert {p.dtype for p in base.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("method", ["lora", "ia3", "adapter", "full", "qlora"])
def test_training_goes_on_from_there_and_comes_back(trained, make_spec, run_trial, inspection, method):
    folder, before = trained("encoder", max_examples=320)
    spec = on_top_of(make_spec("encoder", method, learning_rate=1e-6, evaluations=1), folder)
    result, _ = run_trial(spec)
    assert isinstance(result, TrialResult)
    if method != "qlora":  # on 4 bits it is another model
        assert result.metrics["loss"] == pytest.approx(before.metrics["loss"], abs=1e-2)
    learned = on_top_of(make_spec("encoder", method, evaluations=4, max_examples=320, learning_rate=3e-3), folder)
    result, _ = run_trial(learned)
    losses = [evaluation.metrics["loss"] for evaluation in result.evaluations]
    assert min(losses) < before.metrics["loss"]
    if method in ("lora", "full"):
        base = load_base(learned.workload, inspection("encoder").labels)
        base.model = merge(base, learned, TrialPaths(Path(learned.dir)).adapter)
        again = score_model(base, Path(inspection("encoder").tokens_dir), "cpu")[0]
        assert again["loss"] == pytest.approx(result.metrics["loss"], abs=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_head_that_the_adapter_brings_is_trained_on_not_drawn(trained, make_spec, inspection, method):
    folder, _ = trained("encoder", method)
    spec = on_top_of(make_spec("encoder"), folder)
    base = load_base(spec.workload, inspection("encoder").labels)
    assert (base.new_modules, base.drawn_parameters) == (["classifier"], [])
    before = base.model.classifier.weight.clone()
    draw_new_parameters(base, seed=7)
    assert torch.equal(base.model.classifier.weight, before)
    plain = load_base(make_spec("encoder").workload, inspection("encoder").labels)
    assert plain.drawn_parameters == ["classifier.bias", "classifier.weight"]


CONFIGS = {
    "LORA": lambda: peft.LoraConfig(target_modules=["query"], r=2),
    "IA3": lambda: peft.IA3Config(target_modules=["query"], feedforward_modules=[]),
    "LOHA": lambda: peft.LoHaConfig(target_modules=["query"], r=2),
    "LOKR": lambda: peft.LoKrConfig(target_modules=["query"], r=2),
    "OFT": lambda: peft.OFTConfig(target_modules=["query"], oft_block_size=4),
    "HRA": lambda: peft.HRAConfig(target_modules=["query"], r=2),
}


@pytest.mark.parametrize("kind", FOLDABLE_ADAPTERS)
def test_adapters_of_others_are_folded_in(make_spec, inspection, tmp_path, kind):
    """Whatever PEFT itself computes with the adapter, with a head of the data's labels or without one."""
    spec, ids = make_spec("encoder"), torch.arange(4, 12)[None]
    base = load_base(spec.workload, inspection("encoder").labels)
    model = wrapped(base, CONFIGS[kind]())
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    expected = model.eval().base_model.model.bert(ids)[0]
    METHODS["lora"].save(model, tmp_path / "other")
    folded = load_base(on_top_of(spec, tmp_path / "other").workload, inspection("encoder").labels)
    torch.testing.assert_close(folded.model.bert(ids)[0], expected, rtol=1e-4, atol=1e-5)
    assert folded.drawn_parameters == ["classifier.bias", "classifier.weight"]


# --- identity --------------------------------------------------------------------------------------------


def test_another_content_is_another_model_another_place_is_not(trained, workload, tmp_path):
    folder, _ = trained("encoder")
    shutil.copytree(folder, tmp_path / "moved")
    shutil.copytree(folder, tmp_path / "changed")
    weights = load_file(tmp_path / "changed" / ADAPTER_WEIGHTS)
    first = next(iter(weights))
    save_file({**weights, first: weights[first] + 1e-3}, tmp_path / "changed" / ADAPTER_WEIGHTS)

    def model_of(name):
        given = workload("encoder")
        model = dataclasses.replace(given.model, adapter=name and str(tmp_path / name))
        return inspect(Inspect(dataclasses.replace(given, model=model))).model_fingerprint

    original, moved, changed, none = (model_of(name) for name in (folder.name, "moved", "changed", None))
    assert original == moved
    full, _ = trained("encoder", "full")
    assert len({original, changed, none, model_of(full.name)}) == 4


def test_a_trial_s_identity_is_that_of_its_model_s_content(tmp_path, trained):
    folder, _ = trained("encoder")
    config = make_config(tmp_path, model={"source": "./model", "adapter": f"./{folder.name}"})
    assert config.model.adapter == str(folder)
    assert config.resolved()["model"]["adapter"] == str(folder)

    def identity(config, model_fingerprint):
        found = dataclasses.replace(INSPECTION, model_fingerprint=model_fingerprint)
        return TrialSpecs(config, Home(tmp_path), found).spec(1, {}, TrialPaths(tmp_path)).fingerprint()

    plain = make_config(tmp_path)
    assert identity(config, "a") == identity(plain, "a") != identity(config, "b")


# --- what is refused -------------------------------------------------------------------------------------


def _config(**values):
    return json.dumps({"peft_type": "LORA", **values})


FOLDERS = {
    "gone": ({}, "no folder {folder}; expected one with adapter_config.json and adapter_model.safetensors, or model."),
    "pickled": (
        {ADAPTER_CONFIG: _config(), "adapter_model.bin": ""},
        "{folder} has only adapter_model.bin; expected adapter_model.safetensors; pickled weights are never read",
    ),
    "empty": ({"x": ""}, "{folder} has no adapter_config.json and no adapter_model.safetensors; expected a PEFT"),
    "half": ({ADAPTER_WEIGHTS: ""}, "{folder} has no adapter_config.json; expected a PEFT adapter, or what the"),
    "garbled": ({ADAPTER_WEIGHTS: "", ADAPTER_CONFIG: "{"}, "{folder}/adapter_config.json is not JSON: "),
    "listed": ({ADAPTER_WEIGHTS: "", ADAPTER_CONFIG: "[]"}, "an adapter of type None cannot be folded into weights"),
    "prompt": (
        {ADAPTER_WEIGHTS: "", ADAPTER_CONFIG: _config(peft_type="PROMPT_TUNING")},
        "an adapter of type 'PROMPT_TUNING' cannot be folded into weights; one of LORA, IA3, LOHA, LOKR, OFT, HRA",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_no_adapter_is_refused_with_its_line(tmp_path, name):
    files, problem = FOLDERS[name]
    folder = tmp_path / "earlier"
    for file, content in files.items():
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(content)
    with pytest.raises(ConfigError) as refused:
        make_config(tmp_path, model={"source": "./model", "adapter": "./earlier"})
    (told,) = refused.value.problems
    assert str(told).startswith(f"{tmp_path / 'sweep.yaml'}:1: model.adapter: {problem.format(folder=folder)}")


@pytest.mark.parametrize(
    ("kind", "method", "found"),
    [
        ("encoder", "loftq", "an adapter of loftq belongs on weights of 4 bits"),
        ("chat", "prompt", "an adapter of type 'PROMPT_TUNING' cannot be folded into weights"),
        ("chat", "prefix", "an adapter of type 'PREFIX_TUNING' cannot be folded into weights"),
    ],
)
def test_what_our_other_methods_keep_is_refused_with_the_reason(trained, tmp_path, kind, method, found):
    folder, _ = trained(kind, method)
    with pytest.raises(ConfigError, match=found):
        make_config(tmp_path / "sweep", model={"source": "./model", "adapter": str(folder)})


def test_an_adapter_that_does_not_fit_the_model_or_the_labels_says_where(trained, make_spec, inspection, tmp_path):
    folder, _ = trained("encoder")
    spec = on_top_of(make_spec("encoder"), folder)
    with pytest.raises(DataProblem) as problem:
        load_base(spec.workload, ["a", "b", "c"])
    (finding,) = problem.value.findings
    assert finding.where == "model.adapter"
    head = "classifier.weight [2, 32] where the model has [3, 32] and 1 more"
    assert finding.found == f"has a head for other labels: {head}"
    assert finding.expected == "data with as many labels; this data has 3"
    with pytest.raises(DataProblem, match=r"cannot be loaded: Target modules .* not found"):
        load_base(on_top_of(make_spec("chat"), folder).workload, [])
    weights = load_file(folder / ADAPTER_WEIGHTS)
    a, b, c = [name for name in weights if ".lora_A." in name][:3]
    changed = {**weights, "base_model.model.x": weights[a].clone(), b: weights[b][:, :5].contiguous()}
    del changed[c]
    save_file(changed, folder / ADAPTER_WEIGHTS)
    with pytest.raises(DataProblem) as problem:
        load_base(spec.workload, inspection("encoder").labels)
    told = [finding.found for finding in problem.value.findings]
    assert told[0] == "has weights that the model does not have: base_model.model.x"
    assert told[1] == f"lacks {c}"
    assert told[2].startswith(f"has {b.removeprefix('base_model.model.')} [8, 5] where the model has [8, ")


def test_weights_of_another_model_or_of_bottlenecks_are_told(trained, make_spec, inspection):
    folder, _ = trained("encoder", "full")
    with pytest.raises(DataProblem) as problem:
        load_base(on_top_of(make_spec("encoder"), folder).workload, ["a", "b", "c"])
    (finding,) = problem.value.findings
    assert finding.found.startswith("has a head for other labels: classifier.")
    with pytest.raises(DataProblem, match="has weights that the model does not have: bert"):
        load_base(on_top_of(make_spec("chat"), folder).workload, [])
    folder, _ = trained("encoder", "adapter")
    with pytest.raises(DataProblem, match="bottleneck adapters of method adapter cannot be merged"):
        load_base(on_top_of(make_spec("encoder"), folder).workload, inspection("encoder").labels)


@pytest.mark.parametrize(("method", "file"), [("lora", ADAPTER_WEIGHTS), ("full", OWN_WEIGHTS)])
def test_a_torn_file_is_told_as_such(trained, make_spec, inspection, method, file):
    folder, _ = trained("encoder", method)
    weights = (folder / file).read_bytes()
    (folder / file).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataProblem, match=r"cannot be loaded: .*incomplete"):
        load_base(on_top_of(make_spec("encoder"), folder).workload, inspection("encoder").labels)


def test_a_sweep_ends_at_it_before_any_study_or_run_exists(trained, write_yaml, tiny, tmp_path):
    folder, _ = trained("encoder")
    rows = [json.loads(line) for line in (tiny / "reviews.jsonl").read_text().splitlines()]
    three = write_jsonl(tmp_path / "three.jsonl", [{**rows[n], "label": f"label {n % 3}"} for n in range(len(rows))])
    model = {"source": str(tiny / "encoder"), "adapter": str(folder)}
    home = Home(tmp_path / "home")
    config = load_config(write_yaml(model=model, data={"train": str(three)}), home)
    with pytest.raises(ConfigError, match=r"model\.adapter: has a head for other labels: .*; this data has 3"):
        setup.inspect(InlineExecutor(work), config, home)
    assert not list(home.dir.rglob("*.db"))
