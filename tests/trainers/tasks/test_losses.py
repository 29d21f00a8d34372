"""Losses against their definitions, the user's own ones, and what else changes a step but not a metric."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from trainers.model.load import load_base
from trainers.protocol.events import TrialResult
from trainers.tasks.losses import class_weighted, cross_entropy, focal, own_loss, smoothed
from trainers.training.evaluation import own_values
from trainers.training.trainer import Trainer
from trainers.user_code import OwnCodeError

LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(12) % 3


def test_focal_without_a_gamma_is_cross_entropy_and_with_one_cares_less_for_what_is_known():
    torch.testing.assert_close(focal(0.0)(LOGITS, TARGETS), cross_entropy(LOGITS, TARGETS))
    p = LOGITS.softmax(dim=1).gather(1, TARGETS[:, None])[:, 0]
    torch.testing.assert_close(focal(2.0)(LOGITS, TARGETS), -((1 - p) ** 2) * p.log())


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_a_model_is_certain(gamma):
    """With a gamma below 1 that of (1 - p)^gamma is infinite at p = 1."""
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]], requires_grad=True)
    focal(gamma)(logits, torch.tensor([0, 0])).sum().backward()
    assert logits.grad[0].tolist() == [0, 0]
    assert logits.grad[1].isfinite().all()
    assert logits.grad[1].any()


def test_class_weights_make_every_class_as_heavy_as_every_other():
    counts = torch.tensor([8, 2, 2, 0])
    losses = class_weighted(counts)(LOGITS, TARGETS) / cross_entropy(LOGITS, TARGETS)
    torch.testing.assert_close(losses[:3], torch.tensor([12 / 32, 12 / 8, 12 / 8]))


def test_smoothing_is_torch_s():
    wanted = F.cross_entropy(LOGITS, TARGETS, label_smoothing=0.1)
    torch.testing.assert_close(smoothed(0.1)(LOGITS, TARGETS).mean(), wanted)


def test_a_loss_of_one_s_own_is_read_from_its_file(tmp_path):
    (tmp_path / "mine.py").write_text("def tempered(logits, targets):\n    return (logits.sum(dim=1) - targets) ** 2\n")
    loss = own_loss(tmp_path, "mine.py:tempered")
    torch.testing.assert_close(loss(LOGITS, TARGETS), (LOGITS.sum(dim=1) - TARGETS) ** 2)


def test_a_file_of_one_s_own_may_have_dataclasses(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Shifted:\n"
        "    by: float = 2.0\n"
        "    def __call__(self, logits, targets):\n"
        "        return logits.sum(dim=1) - self.by\n"
    )
    torch.testing.assert_close(own_loss(tmp_path, "mine.py:Shifted")(LOGITS, TARGETS), LOGITS.sum(dim=1) - 2)


def test_a_class_of_one_s_own_is_made_and_called(tmp_path):
    """As losses are written for torch."""
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Focal(torch.nn.Module):\n"
        "    def __init__(self, gamma=2.0):\n"
        "        super().__init__()\n"
        "        self.gamma = gamma\n"
        "    def forward(self, logits, targets):\n"
        "        nll = torch.nn.functional.cross_entropy(logits, targets, reduction='none')\n"
        "        return (1 - torch.exp(-nll)) ** self.gamma * nll\n"
    )
    torch.testing.assert_close(own_loss(tmp_path, "mine.py:Focal")(LOGITS, TARGETS), focal(2.0)(LOGITS, TARGETS))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mine.py:Needs", "has a class 'Needs' that needs arguments"),
        ("mine.py:Mute", "has no function 'Mute'"),
        ("mine.py:nothing", "has no function 'nothing'"),
        ("other.py:f", "no file 'other.py'"),
        ("../out.py:f", "no file '../out.py'"),
        ("mine.py:mean", r"gave \[\], expected one number for each of 12"),
        ("mine.py:text", "gave str, expected one number"),
    ],
)
def test_a_loss_that_cannot_be_used_says_why(tmp_path, name, why):
    folder = tmp_path / "sub"
    folder.mkdir()
    (tmp_path / "out.py").write_text("def f(logits, targets):\n    return targets\n")
    (folder / "mine.py").write_text(
        "def mean(logits, targets):\n    return logits.mean()\ndef text(logits, targets):\n    return 'x'\n"
        "class Needs:\n    def __init__(self, margin):\n        pass\nclass Mute:\n    pass\n"
    )
    with pytest.raises(ValueError, match=why):
        own_loss(folder, name)(LOGITS, TARGETS)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def f(logits, targets):\n    x = 1\n    return helper(logits)\ndef helper(x):\n    return x / [0]\n",
         r"^mine\.py:5: TypeError: unsupported operand"),
        ("import torch\ndef f(logits, targets):\n    return torch.cat([logits, targets])\n",
         r"^mine\.py:3: RuntimeError: "),
        ("\nimport nowhere_at_all\n", r"^mine\.py:2: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("x = 1\ndef f(:\n", r"^mine\.py:2: SyntaxError: invalid syntax"),
        ("class f:\n    def __init__(self):\n        raise KeyError('margin')\n", r"^mine\.py:3: KeyError: 'margin'"),
        ("class f:\n    def __init__(self):\n        None + 1\n", r"^mine\.py:3: TypeError: unsupported operand"),
    ],
    ids=["in-a-helper", "in-torch", "import", "syntax", "class", "class-type-error"],
)  # fmt: skip
def test_an_error_inside_a_loss_of_one_s_own_names_its_line(tmp_path, code, why):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(OwnCodeError, match=why):
        own_loss(tmp_path, "mine.py:f")(LOGITS, TARGETS)


def test_an_error_inside_a_metric_of_one_s_own_names_its_line(tmp_path):
    (tmp_path / "mine.py").write_text("def cost(rows):\n    return [row['price'] for row in rows]\n")
    with pytest.raises(OwnCodeError, match=r"^mine\.py:2: KeyError: 'price'"):
        own_values(tmp_path, "mine.py:cost", [{"text": "a"}])


def test_running_out_of_memory_in_a_loss_of_one_s_own_is_no_crash(tmp_path):
    (tmp_path / "mine.py").write_text("def f(logits, targets):\n    raise MemoryError('too large')\n")
    with pytest.raises(MemoryError):
        own_loss(tmp_path, "mine.py:f")(LOGITS, TARGETS)


def trainer_of(spec, found):
    return Trainer(load_base(spec.workload, found.labels), spec, Path(found.tokens_dir))


@pytest.mark.parametrize("loss", ["focal", "class-weighted"])
def test_a_trial_learns_with_a_shipped_loss(make_spec, run_trial, loss):
    result, _ = run_trial(make_spec("encoder", loss=loss, max_examples=320))
    assert isinstance(result, TrialResult)
    assert result.metrics["loss"] < 0.5  # guessing costs 0.69


def test_a_trial_with_a_bad_loss_of_one_s_own_fails_with_its_message(make_spec, run_trial, tmp_path):
    spec = make_spec("encoder", loss="gone.py:f")
    spec = dataclasses.replace(spec, workload=dataclasses.replace(spec.workload, code_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=r"no file 'gone\.py'"):
        run_trial(spec)


@pytest.mark.parametrize("kind", ["encoder", "chat"])
def test_gradient_checkpointing_does_not_change_the_update(make_spec, inspection, kind):
    stepped = []
    for checkpointing in (False, True):
        spec = make_spec(kind, gradient_checkpointing=checkpointing, lora_dropout=0.0, warmup_ratio=0.0)
        trainer = trainer_of(spec, inspection(kind))
        loss, _ = trainer.step(next(trainer.batches))
        stepped.append((loss, torch.cat([p.detach().flatten() for p in trainer.parameters])))
    assert stepped[0][0] == pytest.approx(stepped[1][0])
    torch.testing.assert_close(stepped[0][1], stepped[1][1], rtol=1e-5, atol=1e-6)


def test_noise_on_embeddings_is_bounded_and_only_while_training(make_spec, inspection):
    spec = make_spec("encoder", neftune_noise_alpha=5.0)
    trainer = Trainer(
        load_base(spec.workload, inspection("encoder").labels), spec, Path(inspection("encoder").tokens_dir)
    )
    embedding = trainer.model.get_input_embeddings()
    ids = torch.ones(2, 9, dtype=torch.long)
    quiet = embedding.eval()(ids)
    noise = (embedding.train()(ids) - quiet).abs()
    assert torch.equal(embedding.eval()(ids), quiet)
    assert 0 < float(noise.max()) <= 5.0 / (9 * quiet.shape[-1]) ** 0.5 + 1e-6


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "polynomial", "inverse_sqrt", "cosine_with_restarts"])
def test_every_schedule_warms_up_in_the_steps_asked_for(make_spec, inspection, kind):
    spec = make_spec("encoder", lr_scheduler_type=kind, warmup_steps=3, learning_rate=1e-3)
    trainer = Trainer(
        load_base(spec.workload, inspection("encoder").labels), spec, Path(inspection("encoder").tokens_dir)
    )
    rates = []
    for rows in trainer.batches:
        rates.append(trainer.learning_rate)
        trainer.step(rows)
    assert rates[:4] == pytest.approx([0, 1e-3 / 3, 2e-3 / 3, 1e-3])
    assert max(rates) == pytest.approx(1e-3)
