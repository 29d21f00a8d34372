"""A released model: texts in; labels, scores, vectors or answers out.

This folder is copied into every release, and is all the code that a release needs. It imports the standard library,
numpy, tokenizers and onnxruntime, and jinja2 when it renders a chat template. A release's folder contains

    model.onnx, model.onnx.data   the graph and its weights
    tokenizer.json                the tokenizer; for a classifier it truncates texts
    release.json                  everything else (`card.Card`)
    runtime/                      this folder: `python -m runtime "a text"` prints one line of JSON per argument

From Python: `from runtime.release import Release`, then `Release.load(".").predict(["a text"])`. Modules import each
other relatively, because two releases in one process have two copies, each under its own name.
"""
