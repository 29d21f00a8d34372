"""A release can only be measured on what it is made for."""

from __future__ import annotations

import onnxruntime
import pytest

from trainers.prepare.model_checks import _target_findings
from trainers.protocol.requests import Intent


def test_cuda_without_its_onnxruntime_is_found_before_the_first_trial(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    [finding] = _target_findings(Intent(release="asked", target="cuda"))
    assert finding.where == "promote.target"
    assert "no CUDAExecutionProvider" in finding.found
    assert "onnxruntime-gpu" in finding.expected


@pytest.mark.parametrize(
    "intent", [Intent(release="asked"), Intent(release="no", target="cuda"), Intent(release="if possible")]
)
def test_nothing_is_found_where_nothing_is_measured_on_a_gpu(intent):
    assert _target_findings(intent) == []


def test_cuda_with_it_is_fine(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert _target_findings(Intent(release="asked", target="cuda")) == []
