"""Raw onnxruntime on texts that a program has at hand: `python -m tests.bench.raw_onnx FOLDER`.

It reads lines of JSON, each a list of texts, and answers with the seconds and the CPU seconds that their logits took:
tokenized at once, sorted by length, in the batches that were fastest, without any server.
"""

from __future__ import annotations

import json
import sys
import time

from trainers.runtime.classify import Classifier
from trainers.runtime.release import Release


def main() -> None:
    release = Release.load(sys.argv[1])
    assert isinstance(release, Classifier)
    for line in sys.stdin:
        texts = json.loads(line)
        began, used = time.perf_counter(), time.process_time()
        release.row_logits(texts)
        print(json.dumps([time.perf_counter() - began, time.process_time() - used]), flush=True)


if __name__ == "__main__":
    main()
