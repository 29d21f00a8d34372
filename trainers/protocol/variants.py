"""The ONNX variants of a release: one table of what is made of which kind of model, for which target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Target = Literal["cpu", "cuda"]
"""What a release is made for and measured on."""
Variants = Mapping[Target, tuple[str, ...]]
"""For each target; none where no release can be made for it."""

READING: Variants = {"cpu": ("fp32", "int8", "int8-64", "int8-32", "int4"), "cuda": ("fp32", "fp16")}
"""Of models that read a whole text: classifiers, taggers, embeddings."""
WRITING: Variants = {"cpu": ("fp32", "int8", "int4"), "cuda": ()}
"""Of models that continue a text."""
REWRITING: Variants = {"cpu": ("fp32", "int8"), "cuda": ()}
"""Of encoder-decoders."""
