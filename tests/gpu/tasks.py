"""Every task on the GPU: losses of some steps and an evaluation, in fp32, against the CPU's."""

from __future__ import annotations

from collections.abc import Iterator

from tests.gpu.place import Place
from tests.gpu.rows import Row, held
from tests.gpu.trials import Prepared, furthest, losses, prepared
from tests.trainers.families import build, write_task
from trainers.protocol.catalog import TASKS

BOUND = 1e-3
FAMILIES = {"encoder": "bert", "decoder": "llama", "encoder-decoder": "t5"}
REHEARSED = ("text-similarity", "text-to-text")


def run(place: Place) -> Iterator[Row]:
    """Each on the first family that it supports."""
    for task in place.size(tuple(TASKS), REHEARSED):
        try:
            yield _row(task, place)
        except Exception as error:  # noqa: BLE001  # the others are looked at all the same
            yield held(task, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _row(task: str, place: Place) -> Row:
    folder = place.folder / task
    family = FAMILIES[TASKS[task].families[0]]
    folder.mkdir()
    columns = dict(TASKS[task].columns)
    if task == "instruct":
        columns["text_template"] = "{input} is {output}"
    given = prepared(task, build(family, folder / family), write_task(task, folder), folder, columns)
    (expected, wanted), (got, value) = (_trained(given, place, device) for device in ("cpu", place.device))
    off = max(furthest(got, expected), furthest([value], [wanted]))
    return held(f"{task} on {family}: losses are the CPU's", off <= BOUND, f"{off:.1e} apart, at most {BOUND:g}",
                apart=off)  # fmt: skip


def _trained(given: Prepared, place: Place, device: str) -> tuple[list[float], float]:
    spec = given.spec(place.folder / "trial", device, batch_size=8)
    trainer = given.trainer(spec)
    taken = losses(trainer, place.size(8, 2))
    return taken, trainer.evaluate()[0][spec.metric]
