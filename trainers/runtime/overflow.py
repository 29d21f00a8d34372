"""Whether onnxruntime's fastest products of uint8 and int8 overflow on this CPU: tried, because no flag says it."""

from __future__ import annotations

import base64
import functools

import numpy as np

PRODUCT = base64.b64decode(
    "CAgSADqBAQoYCgFhCgFiEgFjIg1NYXRNdWxJbnRlZ2VyEghwcm9kdWN0c1obCgFhEhYKFAgCEhAKBhIEcm93cwoGEgRzaXplWh4KAWISGQoXCAMS"
    "EwoGEgRzaXplCgkSB2NvbHVtbnNiHgoBYxIZChcIBhITCgYSBHJvd3MKCRIHY29sdW1uc0IECgAQCg=="
)
"""A graph of one node: c = MatMulInteger(a, b), with a uint8 [rows, size], b int8 [size, columns], c int32."""
_SIZE = 64


@functools.cache
def products_overflow() -> bool:
    """Whether the largest products come out wrong: an x86 CPU without VNNI adds two of them in 16 bits."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(PRODUCT, options, providers=["CPUExecutionProvider"])
    a, b = np.full((8, _SIZE), 255, np.uint8), np.full((_SIZE, _SIZE), 127, np.int8)
    sums = [session.run(None, {"a": rows, "b": b})[0] for rows in (a[:1], a)]  # one row has a kernel of its own
    return any((found != 255 * 127 * _SIZE).any() for found in sums)
