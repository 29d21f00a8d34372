"""What torch finds of this machine's GPUs, as JSON on the standard output: `python -m trainers.prepare.device_facts`.

In a process of its own: neither the sweep nor its trial host may touch CUDA.
"""

from __future__ import annotations

import json

from trainers.protocol.codec import to_json
from trainers.protocol.device_facts import DeviceFacts, Gpu


def device_facts() -> DeviceFacts:
    """Torch's build, and the GPUs that it can use: each has computed something."""
    import torch

    built_for = torch.version.cuda or torch.version.hip or ""
    if not torch.cuda.is_available():
        return DeviceFacts(torch.__version__, built_for)
    gpus, problem = [], ""
    try:
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            major, minor = torch.cuda.get_device_capability(number)
            torch.ones(1, device=f"cuda:{number}").add_(1).item()  # torch finds GPUs, too, that it has no kernels for
            gpus.append(Gpu(torch.cuda.get_device_name(number), total / 2**20, free / 2**20, f"{major}.{minor}"))
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
    return DeviceFacts(torch.__version__, built_for, gpus, problem)


if __name__ == "__main__":
    print(json.dumps(to_json(device_facts())))
