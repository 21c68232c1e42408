#!/usr/bin/env python3
"""The weights of `clip-mini/text_encoder.onnx` under the names of the zoo's text tower.

    text_weights.py text_encoder.onnx OUT.safetensors [WIDTH]

Its 384 outputs are a linear function of 128 numbers, so they lie in a space of 128 dimensions (but for the bias):
the head becomes the one into that space (the R of a QR decomposition), which keeps all cosines. With more than
128 dimensions asked for, the rest of the head is 0.
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

source, target = sys.argv[1:3]
width = int(sys.argv[3]) if len(sys.argv) > 3 else 128
graph = onnx.load(source).graph
w = {i.name: numpy_helper.to_array(i).astype(np.float32) for i in graph.initializer}
products = iter(w[name].T for name in sorted(n for n in w if n.startswith("onnx::MatMul")))
out = {"tokens.weight": w["e.weight"], "positions.weight": w["p"], "pool.weight": w["w.weight"]}
for i in range(2):
    for theirs, ours in {"n1": "norm1", "n2": "norm2"}.items():
        for part in ("weight", "bias"):
            out[f"blocks.{i}.{ours}.{part}"] = w[f"b.{i}.{theirs}.{part}"]
    for theirs, ours in {"qkv": "qkv", "o": "proj", "f1": "fc1", "f2": "fc2"}.items():
        out[f"blocks.{i}.{ours}.weight"] = next(products)
        out[f"blocks.{i}.{ours}.bias"] = w[f"b.{i}.{theirs}.bias"]
q, r = np.linalg.qr(w["out.weight"])
out["head.weight"] = np.zeros((width, r.shape[1]), np.float32)
out["head.weight"][: len(r)] = r
out["head.bias"] = np.zeros(width, np.float32)
out["head.bias"][: len(r)] = q.T @ w["out.bias"]
save_file({name: np.ascontiguousarray(v) for name, v in out.items()}, target)
