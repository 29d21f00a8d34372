"""ONNX: merging, variants, measuring."""
