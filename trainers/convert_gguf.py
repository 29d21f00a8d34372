"""Converts a `.gguf` file to an ordinary model folder: `python -m trainers.convert_gguf SOURCE TARGET`.

Transformers can read GGUF, but slowly, and it flags the model as quantized: `save_pretrained` and training then
refuse it, although its weights are dense. So the weights are copied once into a clean model of the same config. It is
saved as safetensors and loads in well under a second.

Quantized weights are saved as bfloat16, which takes 269 MB instead of 538 for SmolLM2-135M. This is not exact: a weight
changes by 0.1 % on average, far less than the step between the sixteen levels of 4 bits. Perplexity changes by less
than 0.1 % (29.18 -> 29.16 on chat, 73.45 -> 73.46 on reviews). Weights that were never quantized are saved exactly, as
float32.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

_DENSE = {GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16}


@dataclass(frozen=True)
class GgufHeader:
    """The metadata of a GGUF file, without its weights and vocabulary."""

    licence: str
    pre_tokenizer: str
    context_length: int
    weight_types: tuple[str, ...]
    """Types of the matrices, the most frequent first: `("Q4_1", "Q8_0")`."""
    quantized: bool


def convert_gguf(source: Path, target: Path) -> None:
    """Write the model, the tokenizer and a model card of `source` into the folder `target`.

    Raises `OSError` or `ValueError` when `source` cannot be read as a causal language model, and
    `RuntimeError` when the folder, read back, differs from what was loaded.
    """
    header = read_header(source)
    loaded = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True
    )
    model = clean_copy(loaded, torch.bfloat16 if header.quantized else torch.float32)
    tokenizer = load_tokenizer(source, header)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    # Safetensors files are readable by their owner only, but a server may run as another user.
    for weights in target.glob("*.safetensors"):
        weights.chmod((target / "config.json").stat().st_mode)
    (target / "README.md").write_text(model_card(source, header, model), encoding="utf-8")
    _check(target, model, tokenizer)


def read_header(source: Path) -> GgufHeader:
    """Read the metadata of a GGUF file; missing entries become empty strings or 0.

    Raises `OSError` when there is no such file and `ValueError` when it is not GGUF.
    """
    reader = GGUFReader(source)

    def value(key: str, default: Any) -> Any:
        found = reader.get_field(key)
        return default if found is None else found.contents()

    types = [tensor.tensor_type for tensor in reader.tensors if len(tensor.shape) > 1]
    return GgufHeader(
        licence=value("general.license", ""),
        pre_tokenizer=value("tokenizer.ggml.pre", ""),
        context_length=value(f"{value('general.architecture', '')}.context_length", 0),
        weight_types=tuple(kind.name for kind in sorted(set(types), key=types.count, reverse=True)),
        quantized=not set(types) <= _DENSE,
    )


def clean_copy(loaded: Any, dtype: torch.dtype) -> Any:
    """A copy of the model with the same weights, as `dtype`, and without any trace of GGUF in its config."""
    config = copy.deepcopy(loaded.config)
    for stray in ("quantization_config", "_model_name_or_path", "unk_token_id"):
        if hasattr(config, stray):
            delattr(config, stray)
    if hasattr(config, "rms_norm_eps"):
        # GGUF keeps float32; six digits give back the number that was written (1e-05, not 9.99999974e-06).
        config.rms_norm_eps = float(f"{config.rms_norm_eps:.6g}")
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), strict=True)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return model.to(dtype).eval()


def load_tokenizer(source: Path, header: GgufHeader) -> Any:
    """The tokenizer of a GGUF file, which splits text as in the model's training."""
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    if header.pre_tokenizer == "smollm":
        # Transformers leaves out the digits rule. Without it a line break before a number is split differently from
        # training, and a numbered list costs SmolLM2 a quarter more in log-likelihood (234 nats, not 186).
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if header.context_length:
        tokenizer.model_max_length = header.context_length
    for of_this_call in ("is_local", "local_files_only", "gguf_file"):
        tokenizer.init_kwargs.pop(of_this_call, None)
    return tokenizer


def model_card(source: Path, header: GgufHeader, model: Any) -> str:
    """The text of a README.md that says where the weights come from and how they were converted."""
    kinds = " and ".join(_with_bits(kind) for kind in header.weight_types)
    dtype = str(model.dtype).removeprefix("torch.")
    loss = (
        f"These weights were quantized to {kinds} before the conversion and are now stored as {dtype}. The precision "
        "that quantization lost stays lost: expect results slightly below those of the original checkpoint.\n"
        if header.quantized
        else f"The weights were stored as {kinds} and are now stored as {dtype}, bit for bit.\n"
    )
    front = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    front += [f"license: {header.licence}"] if header.licence else []
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"# {source.name.split('.')[0]}",
            "",
            f"Converted from `{source.name}`. Licence: {header.licence or 'not stated in the file'}.",
            "",
            loss,
        ]
    )


def _with_bits(kind: str) -> str:
    bits = re.match(r"I?Q(\d)", kind)
    return f"{kind} ({bits[1]}-bit)" if bits else kind


def _check(target: Path, model: Any, tokenizer: Any) -> None:
    """Raise `RuntimeError` unless the folder, read back, gives the same weights and tokens."""
    weights = AutoModelForCausalLM.from_pretrained(target, local_files_only=True).state_dict()
    wrong = [name for name, known in model.state_dict().items() if not torch.equal(weights[name], known)]
    if wrong:
        raise RuntimeError(f"{len(wrong)} weights differ after saving, for example {wrong[0]}")
    text = "One line.\n\n2. Another,  with 10 words"
    reread = AutoTokenizer.from_pretrained(target, local_files_only=True)
    if reread(text).input_ids != tokenizer(text).input_ids or reread.chat_template != tokenizer.chat_template:
        raise RuntimeError("the tokenizer differs after saving")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the file that the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainers.convert_gguf", description=convert_gguf.__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the .gguf file")
    parser.add_argument("target", type=Path, metavar="TARGET", help="the folder to write")
    asked = parser.parse_args(arguments)
    if not asked.source.is_file():
        parser.error(f"no file {asked.source}")
    convert_gguf(asked.source, asked.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
