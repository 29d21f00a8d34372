"""Session options that are tried, kept in the card, and used where the cores are as many."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from trainers.export import tuning
from trainers.export.tuning import alternatives, tune
from trainers.protocol.measured import Tuned
from trainers.protocol.requests import Tune
from trainers.runtime import options, overflow
from trainers.runtime.card import Card
from trainers.runtime.options import providers, session_options
from trainers.runtime.release import Release


@pytest.fixture
def tuned(encoder_release, copy_of, tmp_path, monkeypatch):
    """Tune a copy of a release with these gains, by the options that have them."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a quiet wonder", "label": 0}) + "\n")

    def tuned(gains):
        folder = copy_of(encoder_release("bert"))
        monkeypatch.setattr(tuning._Bench, "gain", lambda _, options: gains.get(tuple(sorted(options)), 0.0))
        return tune(Tune(str(folder), str(tmp_path / "rows.jsonl"), 2)), Card.read(folder).session, folder

    return tuned


def test_without_a_gain_the_defaults_stay(tuned):
    found, session, _ = tuned({("spinning",): 0.04})
    assert found == Tuned({}, 0.0)
    assert session == {}


def test_what_is_faster_is_kept_with_the_cores_it_was_measured_on(tuned):
    found, session, folder = tuned({("arena",): 0.2})
    assert found == Tuned({"arena": False}, 0.2)
    assert session == {"arena": False, "cores": 2}
    assert Release.load(folder, 2).predict(["a film"])


def test_options_that_are_worse_together_than_the_best_alone_are_not_kept_together(tuned):
    gains = {("arena",): 0.2, ("spinning",): 0.1}
    assert tuned({**gains, ("arena", "spinning"): 0.1})[1] == {"arena": False, "cores": 2}


def test_options_that_are_better_together_are_kept_together(tuned):
    found, session, _ = tuned({("arena",): 0.2, ("spinning",): 0.1, ("arena", "spinning"): 0.3})
    assert found.gain == 0.3
    assert session == {"arena": False, "spinning": True, "cores": 2}


def test_every_alternative_differs_from_the_default_in_one_option():
    assert all(len(options) == 1 for options in alternatives(8))
    assert [options["threads"] for options in alternatives(8) if "threads" in options] == [1, 4]
    assert not any("threads" in options for options in alternatives(1))


def test_no_alternative_changes_the_graph_that_the_gates_measured():
    assert {name for options in alternatives(8) for name in options} == {"threads", "spinning", "arena"}


def test_the_runtime_uses_them_with_as_many_cores_only():
    session = {"cores": 2, "threads": 1, "arena": False, "level": "basic", "spinning": True}
    options = session_options(2, session)
    assert options.intra_op_num_threads == 1
    assert not options.enable_cpu_mem_arena
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    served = session_options(2, session, calls=1)
    assert served.intra_op_num_threads == 1
    assert served.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    other = session_options(4, session)
    assert other.intra_op_num_threads == 4
    assert other.enable_cpu_mem_arena
    assert other.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert other.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_gain_is_real_time(encoder_release, tmp_path):
    """An option that changes nothing is not faster in each of ten turns, but by a chance of one in a thousand."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a quiet wonder", "label": 0}) + "\n")
    bench = tuning._Bench(encoder_release("bert"), tmp_path / "rows.jsonl", 1)
    assert bench.gain({}) < 0.5


def test_a_release_for_gpus_runs_where_there_is_none(monkeypatch):
    assert providers("cpu") == ["CPUExecutionProvider"]
    for found in (["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]):
        monkeypatch.setattr(ort, "get_available_providers", lambda found=found: found)
        assert providers("cuda") == found


@pytest.mark.parametrize(("cores", "calls", "threads"), [(1, 1, 1), (2, 2, 1), (4, 4, 1), (16, 4, 16), (16, 1, 16)])
def test_calls_at_once_have_a_thread_each_or_share_those_of_all_cores(cores, calls, threads):
    assert session_options(cores, {}, calls).intra_op_num_threads == threads


@pytest.mark.parametrize("are_wrong", [False, True])
def test_only_where_products_overflow_slower_kernels_take_their_place(monkeypatch, are_wrong):
    """Kernels that cannot overflow give the same numbers, but with VNNI or AMX they take up to ten times as long."""
    monkeypatch.setattr(options, "products_overflow", lambda: are_wrong)
    chosen = session_options(1, {}).get_session_config_entry("session.x64quantprecision")
    assert chosen == str(int(are_wrong))


def test_the_graph_that_asks_whether_products_overflow():
    """Of the operator and types that int8 releases run, with the largest numbers of both."""
    graph = onnx.load_from_string(overflow.PRODUCT).graph
    onnx.checker.check_model(onnx.load_from_string(overflow.PRODUCT))
    assert [node.op_type for node in graph.node] == ["MatMulInteger"]
    assert [value.type.tensor_type.elem_type for value in graph.input] == [TensorProto.UINT8, TensorProto.INT8]


def test_only_an_x86_cpu_without_vnni_and_amx_overflows():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    is_exact = platform.machine() != "x86_64" or bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"})
    assert overflow.products_overflow() is not is_exact
