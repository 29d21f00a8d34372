"""LoRA's further settings on tiny models: modules trained in full, ranks of their own, how the input side begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from tests.trainers.families import build
from trainers.data.sources import DataProblem
from trainers.model.load import load_adapter, load_base, merge, put_adapter_on, save_adapter
from trainers.model.methods.targets import modules_in_full, ranks_of, shared_with
from trainers.protocol.files import ADAPTER_CONFIG, TrialPaths
from trainers.protocol.settings import FIELDS, LORA_METHODS
from trainers.training.evaluation import score_model

PATTERN = "query=2,layer.1.=16"


def adapters_of(model):
    """Layer -> (rank, scale)."""
    return {
        name.removeprefix("base_model.model."): (layer.r["default"], layer.scaling["default"])
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def attach(make_spec, inspection, kind, method="lora", **settings):
    spec = make_spec(kind, method, **settings)
    return put_adapter_on(load_base(spec.workload, inspection(kind).labels), spec)


def assert_comes_back_and_merges(spec, result, found, tolerance=1e-5):
    folder, tokens_dir = TrialPaths(Path(spec.dir)).adapter, Path(found.tokens_dir)
    for bring in (load_adapter, merge):
        base = load_base(spec.workload, found.labels)
        base.model = bring(base, spec, folder)
        loss = score_model(base, tokens_dir, "cpu")[0]["loss"]
        assert loss == pytest.approx(result.metrics["loss"], abs=1e-5 if bring is load_adapter else tolerance)
    return base.model


@pytest.mark.parametrize("method", ["lora", "pissa", "ia3"])
def test_a_saved_adapter_names_its_layers_in_one_order(make_spec, inspection, tmp_path, method):
    """PEFT holds the names in sets: the same training would write another file each time."""
    save_adapter(attach(make_spec, inspection, "encoder", method), make_spec("encoder", method), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())
    named = [config[key] for key in ("target_modules", "feedforward_modules") if config.get(key)]
    assert min(map(len, named)) > 1
    assert named == [sorted(names) for names in named]


# --- ranks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_the_first_name_that_fits_gives_a_layer_its_rank_and_alpha_follows(make_spec, inspection, method):
    plain = adapters_of(attach(make_spec, inspection, "encoder", method, lora_r=4))
    given = adapters_of(attach(make_spec, inspection, "encoder", method, lora_r=4, rank_pattern=PATTERN))
    assert given.keys() == plain.keys()
    for name, (rank, scale) in given.items():
        assert rank == (2 if name.endswith(".query") else 16 if ".layer.1." in name else 4), name
        by_rank = (rank / 4) ** 0.5 if method == "rslora" else 1  # rslora: alpha / sqrt(r)
        assert scale == pytest.approx(plain[name][1] * by_rank)


@pytest.mark.parametrize("rank", [4, 16])
def test_the_scale_of_rslora_falls_with_the_rank_where_alpha_is_given_and_else_grows(make_spec, inspection, rank):
    given = attach(make_spec, inspection, "encoder", "rslora", lora_r=rank, lora_alpha=16.0)
    assert {scale for _, scale in adapters_of(given).values()} == {16 / rank**0.5}
    left_out = attach(make_spec, inspection, "encoder", "rslora", lora_r=rank)
    assert {scale for _, scale in adapters_of(left_out).values()} == {2 * rank**0.5}


@pytest.mark.parametrize("method", FIELDS["rank_pattern"].methods)
def test_every_method_with_a_rank_pattern_learns_comes_back_and_merges(make_spec, run_trial, inspection, method):
    spec = make_spec("encoder", method, rank_pattern=PATTERN, lora_dropout=0.0)
    result, _ = run_trial(spec)
    merged = assert_comes_back_and_merges(spec, result, inspection("encoder"), 0.2 if method == "qlora" else 1e-4)
    assert not adapters_of(merged)


@pytest.mark.parametrize(("method", "rank"), [("pissa", 48), ("olora", 48), ("loftq", 48), ("eva", 48), ("eva", 16)])
def test_a_rank_above_what_an_adapter_can_begin_as_is_lowered(make_spec, run_trial, inspection, method, rank):
    """Layers are 32 or 64 wide. Of eight rows, which EVA begins with, the pooler has eight inputs."""
    spec = make_spec("encoder", method, max_examples=32, lora_r=rank, lora_dropout=0.0)
    result, _ = run_trial(spec)
    assert_comes_back_and_merges(spec, result, inspection("encoder"), 1e-4)


def test_a_rank_pattern_that_fits_no_layer_is_refused_with_those_there_are(make_spec, inspection):
    with pytest.raises(
        DataProblem, match=r"rank_pattern: no layer with an adapter is called key, layer\.7\."
    ) as refused:
        attach(make_spec, inspection, "encoder", target_modules="query,value", rank_pattern="key=4,query=2,layer.7.=3")
    assert refused.value.findings[0].expected == "there are: query, value"


def test_a_part_of_a_name_begins_where_a_part_begins():
    assert ranks_of("layer.1.=4", ["layer.1.a", "layer.11.a", "xlayer.1.a", "b.layer.1.a"]) == {
        "layer.1.a": 4, "b.layer.1.a": 4,
    }  # fmt: skip


# --- how it begins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
def test_gaussian_draws_the_input_side_with_a_spread_of_one_over_the_rank(make_spec, inspection, method):
    def input_sides(**settings):
        model = attach(make_spec, inspection, "encoder", method, lora_r=8, **settings)
        return torch.cat([p.detach().flatten() for name, p in model.named_parameters() if ".lora_A." in name])

    drawn, default = input_sides(init_lora_weights="gaussian"), input_sides()
    assert float(drawn.std()) == pytest.approx(1 / 8, rel=0.05)
    bound = (1 / 32) ** 0.5  # PEFT's own: uniform within 1 / sqrt(width of the input), 32 or 64
    assert float(default.abs().max()) <= bound < float(drawn.abs().max())


# --- modules trained in full -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", LORA_METHODS)
def test_a_named_module_is_trained_in_full_with_every_method(make_spec, run_trial, inspection, method):
    name = "layer.1.output.dense"  # one that the adapter would change otherwise
    spec = make_spec("encoder", method, modules_to_save=name, lora_dropout=0.0)
    result, _ = run_trial(spec)
    folder = TrialPaths(Path(spec.dir)).adapter
    base = load_base(spec.workload, inspection("encoder").labels)
    before = base.model.get_submodule(f"bert.encoder.{name}").weight.clone()
    after = load_adapter(base, spec, folder).base_model.model.get_submodule(f"bert.encoder.{name}")
    assert not isinstance(after.modules_to_save["default"], LoraLayer)
    assert not torch.equal(after.modules_to_save["default"].weight, before)
    assert_comes_back_and_merges(spec, result, inspection("encoder"), 0.2 if method == "qlora" else 1e-4)


def test_embeddings_that_share_their_weight_with_the_output_stay_one(make_spec, run_trial, inspection, tmp_path):
    spec = make_spec("chat", modules_to_save="embed_tokens", lora_dropout=0.0)
    result, _ = run_trial(spec)
    merged = assert_comes_back_and_merges(spec, result, inspection("chat"))
    untouched = load_base(spec.workload, []).model
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert not torch.equal(merged.lm_head.weight, untouched.lm_head.weight)
    trained = attach(make_spec, inspection, "chat", modules_to_save="embed_tokens")
    plain = attach(make_spec, inspection, "chat")
    more = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    assert more - sum(p.numel() for p in plain.parameters() if p.requires_grad) == untouched.lm_head.weight.numel()


@pytest.mark.parametrize(
    ("family", "name", "others"),
    [("gpt2", "wte", "lm_head"), ("t5", "shared", "encoder.embed_tokens, decoder.embed_tokens, lm_head")],
)
def test_a_shared_weight_that_peft_would_part_is_refused(tmp_path, family, name, others):
    import transformers

    auto = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(build(family, tmp_path / family))
    with pytest.raises(DataProblem, match=f"modules_to_save: .*{name} shares its weight with {others}"):
        modules_in_full(name, model, [])


def test_a_name_that_is_no_module_s_is_refused_with_those_there_are(make_spec, inspection):
    with pytest.raises(DataProblem, match="modules_to_save: no module is called heads, pool") as refused:
        attach(make_spec, inspection, "encoder", modules_to_save="heads,pooler,pool")
    assert refused.value.findings[0].expected.startswith("there are: LayerNorm, attention, bert, cl")


def test_of_modules_inside_one_another_the_outermost_is_trained(make_spec, inspection):
    base = load_base(make_spec("encoder").workload, inspection("encoder").labels)
    names = modules_in_full("pooler.dense,pooler,classifier", base.model, base.new_modules)
    assert sorted(names) == ["bert.pooler", "classifier"]
    assert shared_with(base.model, "bert.pooler") == []
