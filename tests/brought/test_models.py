"""What trials and releases ask of a base model is compared with it before the first trial."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.brought.looking import TASK_OF, findings, look, plan, spec_of, workload_of
from tests.command_line import hpo_here as hpo
from tests.conftest import write_jsonl
from tests.test_bad_input import assert_refused
from tests.trainers.families import CONFIGS, trained
from trainers.model.load import load_adapter, load_base, merge, put_adapter_on
from trainers.model.source import positions_of
from trainers.protocol.catalog import METHODS
from trainers.protocol.events import Evaluation
from trainers.protocol.files import ADAPTER_WEIGHTS, TrialPaths
from trainers.protocol.model_folder import folder_problems
from trainers.protocol.trial_spec import Generation, ModelRef, Workload
from trainers.training.evaluation import score_model
from trainers.training.loop import train

# --- names that the model has not ------------------------------------------------------------------------

CLASSIFY = "text-classification"


@pytest.mark.parametrize(
    ("family", "asked", "lines"),
    [
        ("bert", {"target_modules": "q_proj,v_proj"},
         ["training.target_modules: no linear layer is called q_proj, v_proj; there are: dense, key, query, value"]),
        ("bert", {"rank_pattern": "q_proj=4"},
         ["training.rank_pattern: no layer with an adapter is called q_proj; there are"]),
        ("bert", {"modules_to_save": "score"}, ["training.modules_to_save: no module is called score; there are"]),
        ("bert", {"target_modules": "q_proj", "rank_pattern": "k_proj=4", "modules_to_save": "score"},
         ["training.modules_to_save", "training.target_modules"]),
        ("bert", {"target_modules": "classifier"},
         ["training.target_modules: classifier is the head; leave it out: a head is trained in full"]),
        ("bert", {"target_modules": "query", "modules_to_save": "encoder"},
         ["training.target_modules: no linear layer is called query"]),
        ("bert", {"modules_to_save": "layer"}, ["training.modules_to_save: no module is called layer; there are"]),
        ("llama", {"target_modules": "query,value"},
         ["training.target_modules: no linear layer is called query, value; there are: down_proj, gate_proj, k_proj"]),
        ("gpt2", {"modules_to_save": "wte"},
         ["training.modules_to_save: transformer.wte shares its weight with lm_head; name lm_head too"]),
    ],
    ids=["llama-names-on-bert", "ranks", "in-full", "every-name-at-once", "a-fresh-head", "all-in-full",
         "a-list-of-layers", "bert-names-on-llama", "half-of-a-tied-pair"],
)  # fmt: skip
def test_names_are_compared_with_the_model(models, tmp_path, family, asked, lines):
    task = TASK_OF[CONFIGS[family][0]]
    found = findings(workload_of(models(family), task, tmp_path), plan(task, **asked))
    assert len(found) == len(lines), found
    for line, start in zip(found, lines, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize("method", ["lora", "ia3", "adapter"])
def test_a_head_that_the_checkpoint_has_is_trained_in_full_like_a_fresh_one(copy_of, tmp_path, method):
    folder = copy_of("distilbert")
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=2)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(folder)
    work = workload_of(folder, CLASSIFY, tmp_path)
    base = load_base(work, look(work).labels)
    model = put_adapter_on(base, spec_of(work, tmp_path / "trial", method))
    head = [name for name, weight in model.named_parameters() if weight.requires_grad and "classifier" in name]
    assert len(head) == 4, head  # weight and bias of pre_classifier and classifier
    (line,) = findings(work, plan(CLASSIFY, target_modules="q_lin,classifier"))
    assert line == "training.target_modules: classifier is the head; leave it out: a head is trained in full"


def test_each_value_of_a_search_space_is_compared(models, tmp_path):
    plans = [plan(CLASSIFY, target_modules=names) for names in ("attention", "q_proj", "k_proj")]
    found = findings(workload_of(models("bert"), CLASSIFY, tmp_path), *plans, searched=["target_modules"])
    assert [line.split(";")[0] for line in found] == [
        "search_space.target_modules: no linear layer is called q_proj",
        "search_space.target_modules: no linear layer is called k_proj",
    ]


def test_each_method_of_a_search_space_is_asked(tmp_path, models):
    work = workload_of(models("bert"), CLASSIFY, tmp_path)
    plans = [plan(CLASSIFY, method) for method in METHODS]
    able = ", ".join(name for name in METHODS if name not in ("prompt", "prefix"))
    assert findings(work, *plans, searched=["method"]) == [
        f"search_space.method: method {name} goes with causal-lm, instruct, chat, not with {CLASSIFY}; "
        f"expected one of {able}"
        for name in ("prompt", "prefix")
    ]


def test_a_paged_optimizer_needs_a_gpu(models, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    work = workload_of(models("bert"), CLASSIFY, tmp_path)
    assert findings(work, plan(CLASSIFY, optim="paged_adamw_8bit")) == [
        "training.optim: paged_adamw_8bit needs a GPU; without a GPU use adamw_bnb_8bit"
    ]


def test_more_devices_than_there_are_gpus_are_found_where_there_are_any(models, tmp_path, monkeypatch):
    import torch

    work = workload_of(models("bert"), CLASSIFY, tmp_path)
    look(work, plan(CLASSIFY, devices=4))  # processes on the CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert findings(work, plan(CLASSIFY, devices=4)) == ["training.devices: 4, and this machine has 2 GPUs; at most 2"]


@pytest.mark.parametrize(
    ("method", "devices", "found"),
    [
        ("lora", 1, "full, and a trial has one device; devices: 2 or more"),
        ("qlora", 2, "full, and qlora quantizes the frozen layers; auto or off"),
        ("full", 2, "full, and method full has no frozen layers; auto or off"),
    ],
)
def test_what_cannot_be_sharded_is_found(models, tmp_path, method, devices, found):
    work = workload_of(models("bert"), CLASSIFY, tmp_path)
    asked = plan(CLASSIFY, method, shard="full", devices=devices)
    assert findings(work, asked) == [f"training.shard: {found}"]


def test_methods_and_optimizers_of_bitsandbytes_need_it(models, tmp_path, monkeypatch):
    asked = plan(CLASSIFY, "qlora"), plan(CLASSIFY, optim="lion_8bit")
    work = workload_of(models("bert"), CLASSIFY, tmp_path)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as a trial host has it; its children import it
    assert look(work, *asked).rows["train"]
    monkeypatch.setattr("trainers.prepare.model_checks.is_installed", lambda: False)
    assert findings(work, *asked) == [
        "method: qlora needs the package bitsandbytes; install it",
        "training.optim: lion_8bit needs the package bitsandbytes; install it",
    ]


@pytest.mark.usefixtures("requests_here")
@pytest.mark.parametrize("command", ["sweep", "check"])
def test_no_command_begins_with_a_name_that_is_none(write_yaml, home, command):
    """The study, MLflow and trial 0 do not exist then."""
    space = {"target_modules": {"type": "choice", "values": ["attention", ["q_proj", "v_proj"]]}}
    path = write_yaml(search_space=space, training={"max_length": 64, "modules_to_save": ["heads"]})
    assert_refused(
        hpo(command, str(path), home=home), home, "2 problems",
        "search_space.target_modules: no linear layer is called q_proj, v_proj; there are: dense, key, query, value",
        "training.modules_to_save: no module is called heads; there are: LayerNorm",
    )  # fmt: skip


def test_what_no_trial_can_ask_for_is_not_compared(tmp_path):
    """A value that a condition shuts out, and a setting that the method does not read."""
    from hpo.config.intent import intent_of
    from tests.hpo.builders import make_config

    space = {
        "method": {"type": "choice", "values": ["lora", "ia3"]},
        "target_modules": {"type": "choice", "values": ["attention", "q_proj"], "when": {"method": "lora"}},
        "rank_pattern": {"type": "choice", "values": [{"query": 4}], "when": {"target_modules": "attention"}},
        "lora_r": {"type": "int", "low": 4, "high": 64},
    }
    plans = intent_of(make_config(tmp_path, search_space=space, promote={"max_drop": 0.1})).plans
    asked = [(p.method, p.settings.get("target_modules"), p.settings.get("rank_pattern")) for p in plans]
    assert asked == [("lora", "attention", "query=4"), ("lora", "q_proj", None), ("ia3", None, None)]
    assert intent_of(make_config(tmp_path, promote={"max_drop": 0.1})).release == "asked"
    assert intent_of(make_config(tmp_path)).release == "if possible"
    assert intent_of(make_config(tmp_path, promote=False)).release == "no"


def test_what_is_asked_of_the_model_is_no_part_of_a_trial(models, tmp_path):
    work = workload_of(models("bert"), CLASSIFY, tmp_path)
    seen = [look(work), look(work, plan(CLASSIFY, "full"), release="if possible")]
    assert len({(one.fingerprint, one.tokens_dir) for one in seen}) == 1
    assert "intent" not in {field.name for field in dataclasses.fields(Workload)}


# --- an output embedding that shares its weight ------------------------------------------------------------

CHOSEN = {"target_modules": "c_attn,c_proj", "modules_to_save": "ln_f,lm_head", "lora_dropout": 0.0}


@pytest.fixture
def dialogue(copy_of):
    """A GPT-2 as chat models of it are on a hub: tied embeddings, no token to pad with."""
    return copy_of("gpt2", pad_token_id=None)


def test_a_tied_head_that_is_trained_in_full_gets_a_weight_of_its_own(dialogue, tmp_path):
    work = workload_of(dialogue, "causal-lm", tmp_path)
    found = look(work, plan("causal-lm", **CHOSEN))
    assert (
        "modules_to_save: lm_head shares its weight with transformer.wte; trials and the release give it its own weight"
        in found.notes
    )
    spec = spec_of(work, tmp_path / "trial", max_examples=64, **CHOSEN)
    result = trained(spec, found)
    assert result.state == "complete"
    adapter, tokens_dir = TrialPaths(tmp_path / "trial").adapter, Path(found.tokens_dir)
    host = load_base(work, [])
    before = {name: value.clone() for name, value in host.model.state_dict().items()}
    losses = []
    for bring in (load_adapter, merge):
        base = load_base(work, [])
        base.model = bring(base, spec, adapter)
        losses.append(score_model(base, tokens_dir, "cpu")[0]["loss"])
    assert losses == pytest.approx([result.metrics["loss"]] * 2, abs=1e-5)
    assert not torch.equal(base.model.lm_head.weight, before["lm_head.weight"])
    assert torch.equal(base.model.transformer.wte.weight, before["transformer.wte.weight"])
    base.model.save_pretrained(tmp_path / "merged")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "merged")
    assert torch.equal(again.lm_head.weight, base.model.lm_head.weight)


def test_a_trial_with_an_untied_head_goes_on_to_the_same_numbers(dialogue, tmp_path):
    work = workload_of(dialogue, "causal-lm", tmp_path)
    found = look(work, plan("causal-lm", **CHOSEN))
    tokens_dir = Path(found.tokens_dir)

    def run(name: str, *verdicts: str) -> object:
        spec = spec_of(work, tmp_path / name, max_examples=64, evaluations=2, **CHOSEN)
        events = train(load_base(work, []), spec, tokens_dir)
        event, answers = next(events), iter(verdicts)
        while True:
            try:
                event = events.send(next(answers, "go") if isinstance(event, Evaluation) else None)
            except StopIteration:
                return event

    run("undisturbed")
    run("paused", "pause")
    run("paused")
    files = [load_file(TrialPaths(tmp_path / name).adapter / ADAPTER_WEIGHTS) for name in ("undisturbed", "paused")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_a_later_sweep_goes_on_from_an_untied_head(dialogue, tmp_path):
    work = workload_of(dialogue, "causal-lm", tmp_path)
    found = look(work, plan("causal-lm", **CHOSEN))
    spec = spec_of(work, tmp_path / "trial", max_examples=64, **CHOSEN)
    result = trained(spec, found)
    earlier = str(TrialPaths(tmp_path / "trial").adapter)
    base = load_base(dataclasses.replace(work, model=ModelRef(str(dialogue), adapter=earlier)), [])
    loss = score_model(base, Path(found.tokens_dir), "cpu")[0]["loss"]
    assert loss == pytest.approx(result.metrics["loss"], abs=1e-5)
    assert look(base.workload, plan("causal-lm")).rows == found.rows  # looked at without weights, it fits too


@pytest.mark.parametrize("method", ["lora", "full", "adapter"])
def test_an_earlier_training_that_does_not_fit_is_found_before_a_weight_is_read(models, tmp_path, method):
    work = workload_of(models("bert"), CLASSIFY, tmp_path)
    spec = spec_of(work, tmp_path / "trial", method)
    trained(spec, look(work))
    earlier = ModelRef(str(models("distilbert")), adapter=str(TrialPaths(tmp_path / "trial").adapter))
    (line, *_) = findings(dataclasses.replace(work, model=earlier))
    assert line.startswith("model.adapter: ")


def test_both_sides_of_a_tied_pair_may_be_trained_apart(dialogue, tmp_path):
    work = workload_of(dialogue, "causal-lm", tmp_path)
    chosen = {"modules_to_save": "wte,lm_head", "lora_dropout": 0.0}
    found = look(work, plan("causal-lm", **chosen))
    spec = spec_of(work, tmp_path / "trial", max_examples=64, **chosen)
    result = trained(spec, found)
    base = load_base(work, [])
    base.model = merge(base, spec, TrialPaths(tmp_path / "trial").adapter)
    assert not torch.equal(base.model.lm_head.weight, base.model.transformer.wte.weight)
    assert score_model(base, Path(found.tokens_dir), "cpu")[0]["loss"] == pytest.approx(
        result.metrics["loss"], abs=1e-5
    )


# --- what can never be released ----------------------------------------------------------------------------

NO_RELEASE = [
    (
        "olmo",
        "causal-lm",
        "lora",
        "OlmoForCausalLM has no ONNX export with a KV cache; these have one: GPT2LMHeadModel, GPTNeoXForCausalLM",
    ),
    (
        "qwen2",
        "causal-lm",
        "prompt",
        "no route to ONNX keeps what method prompt trains beside the weights of Qwen2ForCausalLM",
    ),
]


@pytest.mark.parametrize(("family", "task", "method", "why"), NO_RELEASE)
def test_a_release_that_cannot_be_is_a_note_or_where_it_is_asked_for_an_error(
    models, tmp_path, family, task, method, why
):
    work, asked = workload_of(models(family), task, tmp_path), plan(task, method)
    (line,) = findings(work, asked, release="asked")
    assert line.startswith(f"promote: {why}")
    assert line.endswith("; write promote: false, or choose another model or method")
    found = look(work, asked, release="if possible")
    assert found.unreleasable[method].startswith(why)
    assert f"there will be no release; the champion stays an adapter: {found.unreleasable[method]}" in found.notes
    assert not any("release" in note for note in look(work, asked, release="no").notes)


def test_where_some_methods_can_be_released_the_others_are_named(models, tmp_path):
    plans = [plan("causal-lm", method) for method in ("lora", "prefix", "dora")]
    found = look(workload_of(models("qwen2"), "causal-lm", tmp_path), *plans, release="asked")
    assert set(found.unreleasable) == {"prefix"}
    told = "no route to ONNX keeps what method prefix trains beside the weights of Qwen2ForCausalLM"
    assert f"only a champion of method dora or lora can be released: {told}" in found.notes


@pytest.mark.parametrize(
    ("family", "plans", "found"),
    [
        ("bert", [("lora", {}), ("ia3", {})], "promote.as: method ia3 is not expressed as thin matrices"),
        ("t5", [("lora", {})], "promote.as: no graph of T5ForConditionalGeneration takes adapters for text-to-text"),
        ("olmo", [("rslora", {})], "promote.as: OlmoForCausalLM has no ONNX export"),
        ("qwen2", [("lora", {})], "promote.as: no graph of Qwen2ForCausalLM takes adapters for causal-lm"),
        ("llama", [("lora", {"modules_to_save": "embed_tokens,lm_head"})],
         "training.modules_to_save: model.embed_tokens is a Embedding; linear layers and norms"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_adapter_beside_its_base_is_refused_before_the_first_trial(
    models, tmp_path, family, plans, found
):
    task = {"bert": "text-classification", "t5": "text-to-text"}.get(family, "causal-lm")
    asked = [plan(task, method, **settings) for method, settings in plans]
    work = workload_of(models(family), task, tmp_path)
    (line,) = findings(work, *asked, release="asked", as_adapters=True)
    assert line.startswith(found)


def test_what_can_be_an_adapter_beside_its_base_is_not(models, tmp_path):
    asked = [plan("text-classification", method) for method in ("lora", "pissa", "olora")]
    work = workload_of(models("bert"), "text-classification", tmp_path)
    assert look(work, *asked, release="asked", as_adapters=True).unreleasable == {}


@pytest.mark.usefixtures("requests_here")
def test_a_sweep_without_promote_ends_well_with_an_adapter(write_yaml, models, home_with_store):
    training = {"max_examples": 16, "evaluations": 1}
    path = write_yaml("chat", model=str(models("qwen2")), method="prompt", search_space={}, training=training)
    done = hpo("sweep", str(path), home=home_with_store)
    assert done.returncode == 0, done.stderr
    why = "no route to ONNX keeps what method prompt trains beside the weights of Qwen2ForCausalLM"
    assert f"note: there will be no release; the champion stays an adapter: {why}" in done.stdout
    assert f"trial 0 cannot be released: {why}" in done.stdout


@pytest.mark.usefixtures("requests_here")
def test_a_sweep_that_asks_for_what_cannot_be_released_does_not_begin(write_yaml, models, home):
    path = write_yaml("chat", model=str(models("qwen2")), method="prompt", search_space={}, promote={"max_drop": 0.2})
    assert_refused(hpo("sweep", str(path), home=home), home, "promote: no route to ONNX keeps", "write promote: false")


# --- positions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "task", "positions"),
    [("roberta", "text-classification", 129), ("bert", "text-classification", 130), ("t5", "text-to-text", None),
     ("bart", "text-to-text", 128), ("gpt2", "causal-lm", 128), ("llama", "causal-lm", 128)],
)  # fmt: skip
def test_unset_lengths_are_what_the_model_allows(models, tmp_path, family, task, positions):
    """RoBERTa keeps the first ones, up to the padding token's number, for itself."""
    work = workload_of(models(family), task, tmp_path, 512, max_length_is_given=False)
    assert look(work).max_length == (positions or 512)
    given = workload_of(models(family), task, tmp_path, 512)
    if positions is None:
        assert look(given).max_length == 512
    else:
        (line,) = findings(given)
        assert line == f"training.max_length: got 512, but the model has {positions} positions; at most {positions}"


def test_every_position_that_is_allowed_can_be_used(tmp_path):
    """514 are 512 where the padding token is 1, as with RoBERTa, XLM-R, CamemBERT and MPNet."""
    for kind in ("Roberta", "XLMRoberta", "Camembert", "MPNet"):
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=34, pad_token_id=1,
        )  # fmt: skip
        model = getattr(transformers, f"{kind}Model")(config).eval()
        longest = positions_of(model)
        assert longest == 32, kind
        with torch.no_grad():
            model(input_ids=torch.full((1, longest), 5))
            with pytest.raises((IndexError, RuntimeError)):  # as the CPU has it
                model(input_ids=torch.full((1, longest + 1), 5))


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_what_is_learned_before_a_row_takes_its_positions(models, tmp_path, method):
    asked = plan("causal-lm", method, num_virtual_tokens=20)
    work = workload_of(models("gpt2"), "causal-lm", tmp_path, 512, max_length_is_given=False)
    found = look(work, asked)
    assert found.max_length == 108
    spec = spec_of(work, tmp_path / "trial", method, num_virtual_tokens=20, max_length=108)
    assert trained(spec, found).state == "complete"
    (line,) = findings(workload_of(models("gpt2"), "causal-lm", tmp_path / "cache", 120), asked)
    assert line.startswith("training.max_length: got 120, but the model has 128 positions, and num_virtual_tokens")
    (line,) = findings(work, plan("causal-lm", method, num_virtual_tokens=128), searched=["num_virtual_tokens"])
    assert line.startswith("search_space.num_virtual_tokens: got 128, but the model has 128 positions")


@pytest.mark.parametrize(("family", "task"), [("gpt2", "instruct"), ("bart", "text-to-text")])
def test_answers_end_where_the_positions_do(models, tmp_path, family, task):
    """Learned positions end in an IndexError, which was the first evaluation's."""
    work = workload_of(models(family), task, tmp_path, 128, metrics=["exact_match"], generation=Generation(8, 200))
    work.data.columns.update({"text_template": "{input} is {output}"} if task == "instruct" else {})
    source = Path(work.data.train.source)
    rows = [{"input": " ".join(["what"] * (n + 40)), "output": f"it is warm {n}"} for n in range(72)]
    write_jsonl(source, rows)
    found = look(work)
    assert trained(spec_of(work, tmp_path / "trial", max_length=128), found).state == "complete"


def test_a_hub_s_name_of_gguf_files_names_the_model_in_full_precision(tmp_path):
    assert folder_problems(tmp_path, "org/Small-1B-GGUF") == [
        ("org/Small-1B-GGUF has no config.json", "expected the model in full precision: org/Small-1B")
    ]
