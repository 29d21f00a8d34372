"""Text classifiers: the graph says what torch says, and the export leaves no trace."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from tests.quick_releases import copy_graph
from tests.trainers.export.conftest import CORPUS, MAX_LENGTH, release, tiny_encoder, wordpiece_tokenizer
from trainers.export import encoder
from trainers.export.encoder import export_encoder
from trainers.export.norms import JOINED
from trainers.export.reading import quantize_reading
from trainers.export.release import ExportError
from trainers.runtime.options import SLOWER_FUSIONS, providers, session_options
from trainers.runtime.release import Release

TEXTS = [*CORPUS[:5], "", "film", " ".join(CORPUS)]


def torch_logits(kind: str, texts: list[str]) -> np.ndarray:
    model, tokenizer = tiny_encoder(kind), wordpiece_tokenizer()
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        if kind == "distilbert":
            del inputs["token_type_ids"]
        with torch.inference_mode():
            rows.append(model(**inputs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_fp32_gives_torchs_logits(kind, encoder_release):
    ours = Release.load(encoder_release(kind), threads=1).row_logits(TEXTS)
    assert ours.shape == (len(TEXTS), 3)
    assert np.abs(ours - torch_logits(kind, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_norms_are_apart_from_their_sums(kind, encoder_release, tmp_path):
    """In the file, and where onnxruntime has optimized it as a release is loaded; by itself it would join them."""
    graph = encoder_release(kind) / "model.onnx"
    norms = {"file": operators(graph)}
    for name, left_out in (("loaded", SLOWER_FUSIONS), ("by itself", ())):
        options = session_options(1, {})
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        ort.InferenceSession(graph, options, providers=providers("cpu"), disabled_optimizers=left_out)
        norms[name] = operators(tmp_path / f"{name}.onnx")
    assert norms["file"][JOINED] == norms["loaded"][JOINED] == 0 < norms["by itself"][JOINED]
    assert norms["loaded"]["LayerNormalization"] == norms["file"]["LayerNormalization"]


def operators(graph):
    return Counter(node.op_type for node in onnx.load(graph, load_external_data=False).graph.node)


def test_int8_is_smaller_and_near(encoder_release):
    fp32, int8 = encoder_release("bert"), encoder_release("bert", "int8")
    weights = "model.onnx.data"
    assert (int8 / weights).stat().st_size < 0.5 * (fp32 / weights).stat().st_size
    expected = torch_logits("bert", TEXTS)
    ours = Release.load(int8, threads=1).row_logits(TEXTS)
    assert 0 < np.abs(ours - expected).max() < 0.2 * np.abs(expected).max()


def test_int8_products_do_not_overflow(encoder_release, tmp_path):
    """On a CPU without VNNI onnxruntime's fastest kernels add them in 16 bits; here they are added in 32."""
    int8 = encoder_release("bert", "int8")
    model = onnx.load(int8 / "model.onnx")
    nodes = [wide for node in model.graph.node for wide in in_32_bits(node)]
    assert len(nodes) > len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "model.onnx")
    exact = release(tiny_encoder("bert"), wordpiece_tokenizer(), tmp_path, variant="int8")
    ours, expected = (Release.load(folder, threads=1).row_logits(TEXTS) for folder in (int8, exact))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def in_32_bits(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What gives a `MatMulInteger`'s output without 8-bit numbers; any other node as it is."""
    if node.op_type != "MatMulInteger":
        return [node]
    make, output = onnx.helper.make_node, node.output[0]
    names = [f"{output}/{name}" for name in node.input]
    left, right, left_zero, right_zero = names
    return [
        *(make("Cast", [old], [new], to=onnx.TensorProto.INT32) for old, new in zip(node.input, names, strict=True)),
        make("Sub", [left, left_zero], [f"{output}/left"]),
        make("Sub", [right, right_zero], [f"{output}/right"]),
        make("MatMul", [f"{output}/left", f"{output}/right"], [output]),
    ]


def test_the_model_and_the_terminal_stay_as_they_were(tmp_path, capfd):
    model = tiny_encoder("bert").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_encoder(model, wordpiece_tokenizer(), tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "model.onnx.data"}
    graph = (tmp_path / "out/model.onnx").read_bytes()
    assert b".py" not in graph, "the graph names source files of this machine"


def test_attention_is_one_operator_in_fp32(encoder_release):
    graph = onnx.load(encoder_release("bert") / "model.onnx", load_external_data=False).graph
    assert [node.op_type for node in graph.node].count("Attention") == 2


def test_a_graph_that_differs_from_torch_is_refused(encoder_release, tmp_path, monkeypatch):
    model, graph = tiny_encoder("bert"), encoder_release("bert") / "model.onnx"
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.mul_(1.1)
    monkeypatch.setattr(encoder, "trace", lambda *given: copy_graph(graph, given[-1].parent))
    with pytest.raises(
        ExportError, match=r"as fp32: its graph differs from torch by 0\.\d+ in a row of 1 tokens; at most"
    ):
        export_encoder(model, wordpiece_tokenizer(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_named(tmp_path):
    model, tokenizer = tiny_encoder("bert"), wordpiece_tokenizer()
    with pytest.raises(ExportError, match="no fp32 graph"):
        quantize_reading(tmp_path / "fp32", tmp_path, "int8")
    model.bert.encoder = torch.nn.Identity()
    with pytest.raises(ExportError, match="BertForSequenceClassification could not be exported as fp32: "):
        export_encoder(model, tokenizer, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_blocks_are_near(kind, encoder_release):
    expected = torch_logits(kind, TEXTS)
    differences = {}
    for variant in ("int8-64", "int8-32", "int4"):
        folder = encoder_release(kind, variant)
        differences[variant] = np.abs(Release.load(folder, threads=1).row_logits(TEXTS) - expected).max()
    assert differences["int8-32"] < 0.1 * np.abs(expected).max()
    assert differences["int8-64"] < 0.1 * np.abs(expected).max()
    assert differences["int4"] < np.abs(expected).max()


def test_neighbours_do_not_change_answers_of_blocks(encoder_release):
    release = Release.load(encoder_release("bert", "int8-32"), threads=1)
    assert release.tokens_per_batch > 0
    alone = np.concatenate([release.row_logits([text]) for text in TEXTS])
    np.testing.assert_allclose(release.row_logits(TEXTS), alone, atol=1e-5)


def test_attention_is_one_operator_in_small_variants_too(encoder_release):
    for variant in ("int8", "int8-32"):
        nodes = onnx.load(encoder_release("bert", variant) / "model.onnx", load_external_data=False).graph.node
        kinds = [node.op_type for node in nodes]
        assert kinds.count("MultiHeadAttention") == 2
        assert "MatMul" not in kinds, "every weight is quantized"
