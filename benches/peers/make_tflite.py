#!/usr/bin/env python3
"""Gives LiteRT the same network: turns a plain convolutional ONNX classifier into float and int8 .tflite.

    python3 -m venv /tmp/litert && /tmp/litert/bin/pip install litert-torch ai-edge-quantizer onnx numpy pillow
    /tmp/litert/bin/python make_tflite.py float.onnx        # writes models/STEM-f32.tflite and -int8.tflite

Not part of setup.sh: it pulls in PyTorch (6 GB installed). It knows Conv (2-D), Clip, Relu, Add,
GlobalAveragePool, Flatten and Gemm, which is all EfficientNet-Lite0 is made of, and says so otherwise.
The .tflite takes NHWC, as LiteRT's own models do.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

import calibrate


class Net(nn.Module):
    def __init__(self, path):
        super().__init__()
        g = onnx.load(path).graph
        self.consts = {t.name: numpy_helper.to_array(t) for t in g.initializer}
        for n in g.node:
            if n.op_type == "Constant":
                self.consts[n.output[0]] = numpy_helper.to_array(n.attribute[0].t)
        self.nodes = [n for n in g.node if n.op_type != "Constant"]
        self.i, self.o = g.input[0].name, g.output[0].name
        self.layers = nn.ModuleDict()
        for k, n in enumerate(self.nodes):
            at = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
            if n.op_type == "Conv":
                w = self.consts[n.input[1]]
                p = at.get("pads", [0, 0, 0, 0])
                same = p[0] == p[2] and p[1] == p[3]
                c = nn.Conv2d(w.shape[1] * at.get("group", 1), w.shape[0], w.shape[2:], at.get("strides", 1),
                              tuple(p[:2]) if same else 0, at.get("dilations", 1), at.get("group", 1))
                c.weight.data = torch.tensor(w)
                c.bias.data = torch.tensor(self.consts[n.input[2]]) if len(n.input) > 2 else torch.zeros(w.shape[0])
                pad = [] if same else [nn.ZeroPad2d((p[1], p[3], p[0], p[2]))]
                self.layers[str(k)] = nn.Sequential(*pad, c)
            elif n.op_type == "Gemm":
                w = self.consts[n.input[1]]
                w = w if at.get("transB") else w.T
                l = nn.Linear(w.shape[1], w.shape[0])
                l.weight.data, l.bias.data = torch.tensor(w.copy()), torch.tensor(self.consts[n.input[2]])
                self.layers[str(k)] = l
            elif n.op_type not in ("Clip", "Relu", "Add", "GlobalAveragePool", "Flatten"):
                sys.exit(f"{n.op_type} is not known here")

    def forward(self, x):
        v = {self.i: x.permute(0, 3, 1, 2)}
        for k, n in enumerate(self.nodes):
            a = v[n.input[0]]
            if str(k) in self.layers:
                y = self.layers[str(k)](a)
            elif n.op_type == "Clip":
                lo, hi = (float(self.consts[i]) for i in n.input[1:])
                y = F.relu6(a) if (lo, hi) == (0, 6) else a.clamp(lo, hi)
            elif n.op_type == "Relu":
                y = F.relu(a)
            elif n.op_type == "Add":
                y = a + v[n.input[1]]
            elif n.op_type == "GlobalAveragePool":
                y = a.mean((2, 3), keepdim=True)
            else:
                y = a.flatten(1)
            v[n.output[0]] = y
        return v[self.o]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("onnx")
    p.add_argument("--calib")
    p.add_argument("--mean", type=float, default=127.0)
    p.add_argument("--std", type=float, default=128.0)
    args = p.parse_args()
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    _, shape = calibrate.input_of(args.onnx)
    n, c, h, w = shape
    net = Net(args.onnx).eval()
    calibrate.MODELS.mkdir(exist_ok=True)
    stem = calibrate.MODELS / Path(args.onnx).stem
    f32, int8 = f"{stem}-f32.tflite", f"{stem}-int8.tflite"
    litert_torch.convert(net, (torch.zeros(1, h, w, c),)).export(f32)
    data, origin = calibrate.samples(shape, args.calib, args.mean, args.std)

    from ai_edge_litert.interpreter import Interpreter

    key = next(iter(Interpreter(model_path=f32).get_signature_list().values()))["inputs"][0]
    q = quantizer.Quantizer(f32)
    q.load_quantization_recipe(recipe.static_wi8_ai8())
    stats = q.calibrate({"serving_default": [{key: np.ascontiguousarray(x.transpose(0, 2, 3, 1))} for x in data]})
    Path(int8).unlink(missing_ok=True)
    q.quantize(stats).export_model(int8)
    print(f"{f32}\n{int8} (calibrated on {origin})")


if __name__ == "__main__":
    main()
