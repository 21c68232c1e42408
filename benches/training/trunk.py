#!/usr/bin/env python3
"""The first layers of an ONNX network, for pictures of another size: a trunk for `ampoule distill --pairs --student`.

    trunk.py NETWORK.onnx VALUE SIZE OUT.onnx

Keeps what VALUE (a name, or the start of one: the last value that begins so) is computed from, and has the
input take SIZE x SIZE pixels.
"""

import sys

import onnx
from onnx import TensorProto, helper

source, wanted, size, target = sys.argv[1:5]
model = onnx.load(source)
graph = model.graph
values = [name for node in graph.node for name in node.output]
value = wanted if wanted in values else [v for v in values if v.startswith(wanted)][-1]
needed, nodes = {value}, []
for node in reversed(graph.node):
    if needed & set(node.output):
        nodes.insert(0, node)
        needed |= set(node.input)
kept = [i for i in graph.initializer if i.name in needed]
inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, int(size), int(size)])]
assert [i.name for i in graph.input] == ["input"], "the network's input is `input`"
outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)]
small = helper.make_model(helper.make_graph(nodes, "trunk", inputs, outputs, kept), opset_imports=model.opset_import)
onnx.save(onnx.shape_inference.infer_shapes(small), target)
print(f"{target}: up to {value}, {sum(onnx.numpy_helper.to_array(i).size for i in kept):,} weights")
