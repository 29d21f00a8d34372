"""The numbers of a variant, checked against numbers computed in another way."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainers.export.conftest import (
    CORPUS,
    MAX_LENGTH,
    chat_tokenizer,
    tiny_decoder,
    tiny_encoder,
    wordpiece_tokenizer,
)
from trainers.export.measure import measure
from trainers.runtime.card import ReleaseError
from trainers.runtime.release import Release


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_a_classifier(encoder_release, tmp_path):
    folder = encoder_release()
    texts = [*CORPUS[:5], "rain", "", "A dull\u2028film."]
    labels = [i % 3 for i in range(len(texts))]
    model, tokenizer = tiny_encoder("bert"), wordpiece_tokenizer()
    inputs = tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits
    np.save(tmp_path / "torch.npy", logits[:4].numpy())
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": t, "label": n} for t, n in zip(texts, labels, strict=True)])
    numbers = measure(folder, rows, tmp_path / "torch.npy", threads=1, latency_calls=30)
    assert numbers["accuracy"] == pytest.approx((logits.argmax(1).numpy() == labels).mean())
    assert numbers["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).item(), rel=1e-4
    )
    assert {"f1_macro", "f1/good"} <= set(numbers)
    assert numbers["max_logit_diff"] < 1e-5
    assert 0 < numbers["latency_p50_ms"] <= numbers["latency_p95_ms"]
    assert numbers["size_mb"] == pytest.approx(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6)
    assert all(math.isfinite(value) for value in numbers.values())


def test_a_chat_model(chat_release, tmp_path):
    model = tiny_decoder()
    rows, logits, nll, count = [], [], 0.0, 0
    for text in CORPUS[:4]:
        ids = chat_tokenizer()(text).input_ids[:40]
        mask = [int(i % 3 > 0) for i in range(len(ids))]
        with torch.inference_mode():
            logits.append(model(torch.tensor([ids])).logits[0])
        likelihoods = logits[-1][:-1].log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        nll -= (likelihoods * torch.tensor(mask[1:])).sum().item()
        count += sum(mask[1:])
        rows.append({"input_ids": ids, "loss_mask": mask, "target_bytes": 9})
    np.save(tmp_path / "torch.npy", torch.cat(logits)[:50].numpy())
    numbers = measure(
        chat_release(),
        write_rows(tmp_path / "rows.jsonl", rows),
        tmp_path / "torch.npy",
        threads=1,
        latency_calls=5,
    )
    assert numbers["perplexity"] == pytest.approx(math.exp(nll / count), rel=1e-4)
    assert numbers["loss"] == pytest.approx(nll / count, rel=1e-4)
    assert 0 <= numbers["token_accuracy"] <= 1
    assert numbers["max_logit_diff"] < 1e-4
    assert numbers["tokens_per_second"] > 1
    assert numbers["latency_p50_ms"] > 0


def test_a_row_longer_than_the_context_still_gives_a_prompt(chat_release, tmp_path):
    ids = (chat_tokenizer()(" ".join(CORPUS)).input_ids * 3)[:300]
    short = {"input_ids": ids[:20], "loss_mask": [0] * 10 + [1] * 10, "target_bytes": 9}
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"input_ids": ids[:110], "loss_mask": [0] * 100 + [1] * 10, "target_bytes": 9}, short]
    )
    assert measure(chat_release(), rows, threads=1, latency_calls=2)["tokens_per_second"] > 1
    assert "max_logit_diff" not in measure(chat_release(), rows, threads=1, latency_calls=2)


def test_a_reference_of_a_wrong_shape_is_refused(encoder_release, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "rain", "label": 0}])
    np.save(tmp_path / "torch.npy", np.zeros((1, 7), dtype=np.float32))
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(1, 7\)"):
        measure(encoder_release(), rows, tmp_path / "torch.npy", threads=1, latency_calls=1)


def test_a_folder_that_is_no_release(tmp_path):
    with pytest.raises(ReleaseError):
        measure(tmp_path, tmp_path / "rows.jsonl")


def test_measuring_loads_no_torch(encoder_release):
    code = "import sys, trainers.export.measure; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "onnx", "mlflow"}
    assert Release.load(encoder_release(), threads=1).card.task == "text-classification"
