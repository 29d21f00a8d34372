"""NEFTune: noise on the input embeddings while training (Jain et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch


def add_embedding_noise(model: Any, alpha: float) -> None:
    """Uniform noise of at most alpha / sqrt(tokens * width) on what the model's embedding gives in training."""

    def noisy(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        most = alpha / (output.shape[-2] * output.shape[-1]) ** 0.5
        return output + torch.empty_like(output).uniform_(-most, most)

    model.get_input_embeddings().register_forward_hook(noisy)
