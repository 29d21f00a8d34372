"""transformers' Trainer, taking rows in the order in which they are given."""

from __future__ import annotations

from typing import Any

from torch.utils.data import SequentialSampler
from transformers import Trainer


class InOrder(Trainer):
    """Its sampler shuffles; ours has done so already."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)
