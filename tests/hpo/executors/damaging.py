"""The real trainer, but every exported model is damaged on disk: the gate has to see it by measuring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.host import dispatch
from trainers.protocol.exported import Exported
from trainers.protocol.requests import Export


def work(request: Any) -> Iterator[Any]:
    if not isinstance(request, Export):
        return (yield from dispatch.work(request))
    for event in dispatch.work(request):
        if isinstance(event, Exported):
            for variant in event.variants:
                damage(Path(request.dir, variant, "model.onnx"))
        yield event


def damage(path: Path) -> None:
    """Let the head's bias speak for one label."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path), load_external_data=False)  # the files keep their sizes, which a release checks
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.bias"))
    values = numpy_helper.to_array(bias).copy()
    values[0] += 5
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, str(path))
