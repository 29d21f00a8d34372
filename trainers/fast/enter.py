"""The way into this folder: puts on a model the shortcuts that fit it; where anything is unknown, the plain way stays.

A shortcut is imported when it is put on, and whatever it raises costs speed, never a trial.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

from trainers.fast.shortcut import Shortcut, reason

WITHOUT_PADDING = "layers without padding"
SHORTCUTS = {
    "cheap dropout": ("trainers.fast.dropout", "DropoutMadeCheap"),
    "LoRA folded into one product": ("trainers.fast.folded_lora", "AdaptersFolded"),
    WITHOUT_PADDING: ("trainers.fast.padding_free", "LayersWithoutPadding"),
    "attention by row": ("trainers.fast.varlen_attention", "AttentionByRow"),
}
"""Name for people -> module and class, in the order in which they are put on."""
ON_GPUS = ("layers without padding",)
"""Those that are faster on a GPU too; the others are for a CPU's caches and instructions."""
ROUNDED = "frozen layers in bf16"
"""The last one, only for models that compute in bf16. It rounds as autocast does, so its tolerance is wider."""
_ROUNDED = ("trainers.fast.rounded", "FrozenInBf16")


@dataclass(frozen=True)
class Shortcuts:
    """Which shortcuts a model has, and which it has not."""

    used: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Name -> why."""

    def log_lines(self) -> Iterator[str]:
        """For a trial's log: one line for each shortcut that is left out."""
        for name, why in self.left_out.items():
            same = "autocast rounds as much" if name == ROUNDED else "the plain way gives the same numbers"
            yield f"shortcut not used: {name} ({why}); {same}"


def make_fast(model: Any, refused: Mapping[str, str], *, in_bf16: bool = False, device: str = "cpu") -> Shortcuts:
    """Put every shortcut for a kind of device on a model that fits it, in place, but those that `refused` names.

    `in_bf16`: whether the model is to compute in bf16; where `ROUNDED` is used then, it needs no autocast. Raises only
    what is no fault of a shortcut: that memory ran out, or that the process is to end.
    """
    names = names_for(in_bf16=in_bf16, device=device)
    made = Shortcuts(left_out={name: why for name, why in refused.items() if name in names})
    for name in names:
        if name in refused:
            continue
        with ExitStack() as undo:
            try:
                if (why := put_on(name, model, undo)) is None:
                    made.used.append(name)
                    undo.pop_all()
            except Exception as error:  # noqa: BLE001  # whatever a shortcut raises, the plain way is left
                why = reason(error)
        if why is not None:
            made.left_out[name] = why
    return made


def names_for(*, in_bf16: bool, device: str = "cpu") -> list[str]:
    """The shortcuts there are on a kind of device for models that compute in bf16, or in float32."""
    if device != "cpu":
        return list(ON_GPUS)
    return [*SHORTCUTS, ROUNDED] if in_bf16 else list(SHORTCUTS)


def put_on(name: str, model: Any, undo: ExitStack) -> str | None:
    """Put one shortcut on; or why the model has no use for it. Raises whatever the shortcut does."""
    shortcut = shortcut_of(name)
    why = shortcut.fits(model)
    if why is None:
        shortcut.apply(model, undo)
    return why


def shortcut_of(name: str) -> Shortcut:
    """Raises `ImportError` or `AttributeError` where a library lacks what the shortcut is made of."""
    module, kind = _ROUNDED if name == ROUNDED else SHORTCUTS[name]
    return cast("Shortcut", getattr(importlib.import_module(module), kind)())


def notes(refused: Mapping[str, str]) -> list[str]:
    """For a sweep: what is not used, in one note for each reason."""
    names: dict[str, list[str]] = {}
    for name, why in refused.items():
        if name != ROUNDED:
            names.setdefault(why, []).append(name)
    said = [
        f"shortcut not used: {', '.join(those)} ({why}); trials train the plain way: slower, with the same numbers"
        for why, those in names.items()
    ]
    if ROUNDED in refused:
        said.append(f"shortcut not used: {ROUNDED} ({refused[ROUNDED]}); trials in bf16 use autocast, which is slower")
    return said
