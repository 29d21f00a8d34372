"""bitsandbytes on the GPU: bases in 4 and 8 bits, and optimizers that keep 8 bits or page to the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.gpu.methods import kept_and_loaded
from tests.gpu.place import Place
from tests.gpu.rows import Row, held
from tests.gpu.trials import Prepared, furthest, losses, tiny_decoder

KINDS = ("nf4", "fp4", "int8")
OPTIMIZERS = ("adamw_bnb_8bit", "paged_adamw_8bit", "lion_32bit", "lion_8bit")
BOUND = 5e-2


def run(place: Place) -> Iterator[Row]:
    """On the tiny Llama: 64 x 64 weights are just enough for 8-bit states."""
    given = tiny_decoder(place.folder / "d")
    for kind in place.size(KINDS, KINDS[:1]):
        yield _tried(f"qlora in {kind}", lambda kind=kind: _against_cpu(kind, given, place))
        yield _tried(f"qlora in {kind}, kept and loaded", lambda kind=kind: kept_and_loaded(
            f"qlora in {kind}, kept and loaded", "qlora", given, place, quantization=kind))  # fmt: skip
    if not place.rehearses:
        yield _tried("loftq", lambda: kept_and_loaded("loftq, kept and loaded", "loftq", given, place))
    for optim in place.size(OPTIMIZERS, OPTIMIZERS[:1]):
        yield _tried(f"{optim}, resumed", lambda optim=optim: _resumed(optim, given, place))


def _tried(what: str, look: Any) -> Row:
    try:
        row: Row = look()
    except Exception as error:  # noqa: BLE001  # the others are looked at all the same
        return held(what, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return row


def _against_cpu(kind: str, given: Prepared, place: Place) -> Row:
    steps = place.size(10, 2)
    expected, got = (
        losses(given.trainer(given.spec(place.folder / "t", device, method="qlora", quantization=kind)), steps)
        for device in ("cpu", place.device)
    )
    off = furthest(got, expected)
    return held(
        f"qlora in {kind}: losses are the CPU's", off <= BOUND, f"{off:.1e} apart, at most {BOUND:g}", apart=off
    )


def _resumed(optim: str, given: Prepared, place: Place) -> Row:
    """Three steps, a checkpoint's state put into another trainer, and three steps of both."""
    spec = given.spec(place.folder / "t", place.device, method="full", precision="bf16", optim=optim,
                      learning_rate=1e-3)  # fmt: skip
    one, other = given.trainer(spec), given.trainer(spec)
    first = losses(one, 3)
    state = one.state()
    other.load_state(*state)
    for _ in range(3):
        next(other.batches)
    expected, got = losses(one, 3), losses(other, 3)
    off = furthest(got, expected)
    found = f"loss {first[0]:.3f} to {expected[-1]:.3f}; " + ("to the bit" if got == expected else f"{off:.1e} apart")
    return held(f"{optim}, resumed", off <= 1e-3, found, apart=off)
