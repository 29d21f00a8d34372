"""Folders that are no base model as they stand: each refused by name, with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.brought.looking import edit, findings, look, workload_of
from tests.hpo.builders import make_config
from trainers.protocol.model_folder import folder_problems, full_precision
from trainers.protocol.trial_spec import ModelRef

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 268435456\n"


def only(folder: Path, *names: str) -> None:
    """Take all other files away."""
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def sharded(folder: Path) -> list[str]:
    """The weights in several files, as large models have them; their names."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return sorted(set(index["weight_map"].values()))


def lack_a_shard(folder: Path) -> None:
    (folder / sharded(folder)[1]).unlink()


def name_a_file_elsewhere(folder: Path) -> None:
    sharded(folder)
    edit(folder / "model.safetensors.index.json", weight_map={"a": "../../elsewhere.safetensors"})


def lose_the_index(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


def become_an_adapter(folder: Path) -> None:
    only(folder, "tokenizer.json")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')
    (folder / "adapter_model.safetensors").touch()


def merge_nothing(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')


def become_sentence_transformers(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    shutil.move(folder / "config.json", inner)
    shutil.move(folder / "model.safetensors", inner)
    (folder / "modules.json").write_text('[{"idx": 0, "path": "0_Transformer"}]')


def become_gguf(folder: Path) -> None:
    only(folder)
    for kind in ("Q4_K_M", "Q8_0"):
        (folder / f"small-{kind}.gguf").touch()


def quantize(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def quantize_by_gptq(folder: Path) -> None:
    (folder / "quantize_config.json").write_text('{"bits": 4}')
    (folder / "README.md").write_text(
        "---\nlicense: mit\nbase_model:\n- org/Plain-1B\ntags: [gptq]\n---\n# Plain-1B-GPTQ\n"
    )


def pickle_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def point_to_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text(LFS)
    (folder / "tokenizer.json").write_text(LFS)


def tear_the_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert", ')


FOLDERS = [
    (lack_a_shard, "{folder} lacks 1 of the 6 files that model.safetensors.index.json names: model-00002-of"),
    (name_a_file_elsewhere, "index.json names ../../elsewhere.safetensors; expected files of the same folder"),
    (lose_the_index, "has no weights but model-00001-of-00006.safetensors, model-00002-of-00006.safetensors, "
                     "model-00003-of-00006.safetensors and 3 more; expected model.safetensors, or"),
    (become_an_adapter, "holds an adapter, not a whole model; write model: {{source: org/base, adapter: {folder}}}"),
    (merge_nothing, "holds an adapter beside a model's config; write model: {{source: org/base, adapter: {folder}}}"),
    (become_sentence_transformers, "is a sentence-transformers folder; its model is in {folder}/0_Transformer"),
    (become_gguf, "holds GGUF files (small-Q4_K_M.gguf, small-Q8_0.gguf); convert one once: python -m "
                  "trainers.convert_gguf {folder}/small-Q4_K_M.gguf FOLDER"),
    (quantize, "is quantized already (bitsandbytes); expected weights in full precision (method qlora quantizes them"),
    (quantize_by_gptq, "is quantized already (it has quantize_config.json); expected the model in full precision: "
                       "org/Plain-1B"),
    (pickle_weights, "has no weights but pytorch_model.bin; expected *.safetensors; pickled weights are never read"),
    (point_to_weights, "model.safetensors, tokenizer.json in {folder} hold pointers of Git LFS; the files: run git"),
    (tear_the_config, "{folder}/config.json is not a JSON object; expected a transformers model folder"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), FOLDERS, ids=[change.__name__ for change, _ in FOLDERS])
def test_a_folder_is_refused_at_its_line_and_after_a_hub(copy_of, tmp_path, change, words):
    """The file's own check and the trainer's, which also sees what a hub brought, are one."""
    folder = copy_of("bert")
    change(folder)
    with pytest.raises(Exception, match=r"sweep.yaml:1: model: ") as refused:
        make_config(tmp_path / "sweep", model=str(folder))
    assert words.format(folder=folder) in str(refused.value)
    (line,) = findings(workload_of(folder, "text-classification", tmp_path))
    assert line.startswith("model: ")
    assert words.format(folder=folder) in line


def test_whole_shards_are_read(copy_of, tmp_path):
    folder = copy_of("bert")
    assert len(sharded(folder)) == 6
    assert folder_problems(folder, str(folder)) == []
    assert look(workload_of(folder, "text-classification", tmp_path)).rows["train"]


@pytest.mark.parametrize(
    ("name", "plain"),
    [("org/Llama-3.2-1B-bnb-4bit", "org/Llama-3.2-1B"), ("org/Qwen3-8B-unsloth-bnb-4bit", "org/Qwen3-8B"),
     ("TheBloke/Mistral-7B-v0.1-GPTQ", "TheBloke/Mistral-7B-v0.1"),
     ("org/Qwen2.5-7B-Instruct-AWQ", "org/Qwen2.5-7B-Instruct"),
     ("org/Qwen3-8B-FP8", "org/Qwen3-8B"), ("org/Qwen2-7B-Instruct-GPTQ-Int4", "org/Qwen2-7B-Instruct"),
     ("org/Meta-Llama-3-8B-quantized.w4a16", "org/Meta-Llama-3-8B"), ("/models/tiny-GGUF", "tiny")],
)  # fmt: skip
def test_a_name_tells_the_model_in_full_precision(tmp_path, name, plain):
    assert full_precision(tmp_path, name) == f"the model in full precision: {plain}"


# --- what only opening the files shows --------------------------------------------------------------------


def tear_the_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def have_another_width(folder: Path) -> None:
    edit(folder / "config.json", hidden_size=16)


def have_fewer_layers(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=4)


def need_own_code(folder: Path) -> None:
    edit(folder / "config.json", model_type="newest", auto_map={"AutoConfig": "newest.NewestConfig"})
    (folder / "newest.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")


def be_of_images(folder: Path) -> None:
    vision = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(vision))


def be_unknown(folder: Path) -> None:
    edit(folder / "config.json", model_type="newest")


def have_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")


def have_a_torn_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", ')


OPENED = [
    (tear_the_weights, "{folder} cannot be loaded: Error while deserializing header"),
    (have_another_width, "{folder} cannot be loaded: "),
    (have_fewer_layers, "{folder} lacks weights that its config.json describes: encoder.layer.2, encoder.layer.3; a"),
    (need_own_code, "newest needs the Python code that comes with the model; model: {{source: {folder}"),
    (be_of_images, "vit is a model for images; text-classification needs a language model"),
    (be_unknown, "{folder}: The checkpoint you are trying to load has model type `newest`"),
    (have_no_tokenizer, "{folder} has no tokenizer: tokenizer.json, vocab.txt are missing; expected"),
    (have_a_torn_tokenizer, "{folder} has no readable tokenizer: "),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), OPENED, ids=[change.__name__ for change, _ in OPENED])
def test_files_that_do_not_hold_a_model(copy_of, tmp_path, change, words):
    folder = copy_of("bert")
    change(folder)
    (line,) = findings(workload_of(folder, "text-classification", tmp_path))
    assert line.startswith("model: ")
    assert words.format(folder=folder) in line
    assert not (folder / "ran").exists()


def test_a_vocabulary_as_text_is_a_tokenizer(copy_of, tmp_path):
    """Repositories from before tokenizer.json have vocab.txt: transformers converts it."""
    folder = copy_of("bert")
    only(folder, "config.json", "model.safetensors")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] film warm dull funny boring the a plot"
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words.split()))
    found = look(workload_of(folder, "text-classification", tmp_path))
    assert found.rows["train"]


def test_the_inner_folder_of_sentence_transformers_is_a_model(copy_of, tmp_path):
    folder = copy_of("bert")
    become_sentence_transformers(folder)
    for path in folder.glob("*.json"):
        shutil.copy(path, folder / "0_Transformer")
    work = workload_of(folder / "0_Transformer", "text-classification", tmp_path)
    assert work.model == ModelRef(str(folder / "0_Transformer"))
    assert look(work).rows["train"]
