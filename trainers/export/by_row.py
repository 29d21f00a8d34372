"""A model whose layers take what each row's adapter has beside them: weights of adapters are inputs of its graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from trainers.model.methods.targets import is_norm


class Chosen:
    """What the layers of one call read: the adapters' weights, and which of them each row takes."""

    def __init__(self) -> None:
        self.rows: torch.Tensor
        """int64 [rows]"""
        self.columns: torch.Tensor
        """float32 [rows, 1, ranks]: 1 where a rank is of the row's adapter"""
        self.lora: Mapping[str, torch.Tensor]
        """`LAYER.a`, float32 [in, ranks], and `LAYER.b`, [ranks, out]: those of all adapters side by side."""
        self.full: Mapping[str, torch.Tensor]
        """`LAYER.weight` and `LAYER.bias`, float32 [adapters, ...]."""

    def of(self, stack: torch.Tensor) -> torch.Tensor:
        """A weight of each row's adapter, float32 [rows, ...]."""
        return torch.index_select(stack, 0, self.rows)


class _ByRow(torch.nn.Module):
    """A layer that reads what each row chose."""

    def __init__(self, layer: Any, name: str, chosen: Chosen) -> None:
        super().__init__()
        self.layer = layer
        self._name = name
        self._chosen = chosen

    @property
    def weight(self) -> torch.Tensor:
        """The layer's weight; T5 reads the dtype of its layers from it."""
        weight: torch.Tensor = self.layer.weight
        return weight


class Beside(_ByRow):
    """A linear layer with two thin matrices beside it. The bias comes last, so that onnxruntime still fuses it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer's own."""
        weight = self.layer.weight.T if isinstance(self.layer, torch.nn.Linear) else self.layer.weight
        ranks = torch.matmul(x, self._chosen.lora[f"{self._name}.a"])
        thin = torch.matmul(self._own(ranks), self._chosen.lora[f"{self._name}.b"])
        output = torch.matmul(x, weight) + thin
        return output if self.layer.bias is None else output + self.layer.bias

    def _own(self, ranks: torch.Tensor) -> torch.Tensor:
        """Only the ranks of each row's adapter: of [rows, tokens, ranks], [rows, ranks] or [rows * tokens, ranks]."""
        columns = self._chosen.columns
        if ranks.dim() == 3:
            return ranks * columns
        return (ranks.reshape(columns.shape[0], -1, ranks.shape[-1]) * columns).flatten(0, 1)


class Linear(_ByRow):
    """A linear layer that each row has of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer's own; where adapters have other labels, with as many outputs as the one with most of them."""
        bias = self._chosen.of(self._chosen.full[f"{self._name}.bias"])
        weight = self._chosen.of(self._chosen.full[f"{self._name}.weight"])
        if x.dim() == 3:
            return torch.bmm(x, weight) + bias[:, None]
        return torch.bmm(x.unsqueeze(1), weight).squeeze(1) + bias


class Norm(_ByRow):
    """A norm whose scale each row has of its own."""

    def __init__(self, layer: Any, name: str, chosen: Chosen) -> None:
        super().__init__(layer, name, chosen)
        with torch.no_grad():
            layer.weight.fill_(1.0)
            if getattr(layer, "bias", None) is not None:
                layer.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer's own."""
        weight, bias = (self._chosen.of(self._chosen.full[f"{self._name}.{part}"]) for part in ("weight", "bias"))
        if x.dim() == 3:
            weight, bias = weight[:, None], bias[:, None]
        normed: torch.Tensor = self.layer(x)
        return normed * weight + bias


class ByRow(torch.nn.Module):
    """A model with the weights of adapters among its inputs: of the layers `thin` beside their own, of the
    layers `full` in place of it."""

    def __init__(
        self, model: torch.nn.Module, inner: torch.nn.Module, thin: Collection[str], full: Collection[str]
    ) -> None:
        """`model` is changed in place. `inner` is called with all other inputs: the model, or what is around it."""
        super().__init__()
        self.inner = inner
        self.config = model.config
        self._chosen = Chosen()
        for name in sorted({*thin, *full}):
            kind = Beside if name not in full else Norm if is_norm(model.get_submodule(name)) else Linear
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, kind(model.get_submodule(name), name, self._chosen))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        adapter: torch.Tensor,
        columns: torch.Tensor,
        lora: Mapping[str, torch.Tensor],
        full: Mapping[str, torch.Tensor] | None = None,
        token_type_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
    ) -> Any:
        """The inner model's output for rows of these adapters; `adapter` and the others are as `Chosen` has them."""
        self._chosen.rows, self._chosen.columns = adapter, columns
        self._chosen.lora, self._chosen.full = lora, full or {}
        given = {"token_type_ids": token_type_ids, "past_key_values": past_key_values}
        return self.inner(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **{name: value for name, value in given.items() if value is not None},
        )
