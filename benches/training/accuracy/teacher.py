"""A teacher for a small set of pictures: EfficientNet-Lite0 (ImageNet) with a linear head of our own.

    python teacher.py BACKBONE.onnx TRAIN.csv TEST.csv -o teacher.onnx [--size 128] [--views 3]

The features are the means over the map of the last convolution, and of three maps before it, of pictures
resized to SIZE x SIZE. The head is a logistic regression on the labels of *all* training pictures, on the
plain picture and on random crops and flips of it. Needs onnx, onnxruntime, numpy, scipy, pillow.
"""
import argparse
import csv
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.optimize import minimize

parser = argparse.ArgumentParser()
parser.add_argument("backbone", type=pathlib.Path)
parser.add_argument("train", type=pathlib.Path)
parser.add_argument("test", type=pathlib.Path)
parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--views", type=int, default=3)
parser.add_argument("--no-flip", action="store_true")
parser.add_argument("--decay", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2])
parser.add_argument("--threads", type=int, default=1)
args = parser.parse_args()


def features_model():
    """The backbone up to the pooled features, with any batch."""
    model = onnx.load(args.backbone)
    graph = model.graph
    pool = next(n for n in graph.node if n.op_type == "GlobalAveragePool")
    shapes = onnx.shape_inference.infer_shapes(model).graph.value_info
    channels = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in shapes}
    # The last residual sums with 40, 112 and 192 channels: the ends of three stages.
    sums = [n.output[0] for n in graph.node if n.op_type == "Add"]
    ends = [[s for s in sums if channels.get(s) == c][-1] for c in (40, 112, 192)]
    maps = ends + [pool.input[0]]
    keep = graph.node[: list(graph.node).index(pool)]
    nodes = list(keep)
    for i, m in enumerate(maps):
        nodes.append(helper.make_node("GlobalAveragePool", [m], [f"mean{i}"]))
        nodes.append(helper.make_node("Flatten", [f"mean{i}"], [f"flat{i}"], axis=1))
    nodes.append(helper.make_node("Concat", [f"flat{i}" for i in range(4)], ["features"], axis=1))
    used = {name for n in nodes for name in n.input}
    initial = [i for i in graph.initializer if i.name in used]
    width = sum(channels[m] for m in maps)
    image = helper.make_tensor_value_info(
        graph.input[0].name, TensorProto.FLOAT, ["n", 3, args.size, args.size]
    )
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])
    result = helper.make_model(
        helper.make_graph(nodes, "features", [image], [features], initial),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    return result, width


def read(path):
    with open(path) as file:
        rows = list(csv.DictReader(file))
    # Names are numbered in sorted order, as `ampoule` does.
    classes = sorted({r["label"] for r in rows})
    return [(path.parent / r["path"], classes.index(r["label"])) for r in rows]


def picture(path, random):
    image = Image.open(path).convert("RGB")
    if random is not None:
        w, h = image.size
        share = np.sqrt(random.uniform(0.5, 1.0))
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)) / 2)
        cw, ch = min(w, share * w * ratio), min(h, share * h / ratio)
        x, y = random.uniform(0, w - cw), random.uniform(0, h - ch)
        image = image.crop((round(x), round(y), round(x + cw), round(y + ch)))
        if not args.no_flip and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((args.size, args.size), Image.Resampling.BICUBIC)
    return (np.asarray(image, np.float32).transpose(2, 0, 1) - 127) / 128


def features(session, rows, random):
    out, name = [], session.get_inputs()[0].name
    for start in range(0, len(rows), 32):
        batch = np.stack([picture(p, random) for p, _ in rows[start : start + 32]])
        out.append(session.run(None, {name: batch})[0])
        if start % 3200 == 0:
            print(f"  {start}/{len(rows)}", flush=True)
    return np.concatenate(out)


def fit(x, y, classes, decay):
    """Logistic regression with a penalty on the weights, by L-BFGS."""
    n, width = x.shape
    hot = np.eye(classes)[y]

    def loss(flat):
        w, b = flat[:-classes].reshape(width, classes), flat[-classes:]
        z = x @ w + b
        z -= z.max(1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(1, keepdims=True)
        value = -np.log(p[np.arange(n), y] + 1e-30).mean() + decay / 2 * (w**2).sum()
        g = (p - hot) / n
        return value, np.concatenate([(x.T @ g + decay * w).ravel(), g.sum(0)])

    first = np.zeros(width * classes + classes)
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x[:-classes].reshape(width, classes), found.x[-classes:]


model, width = features_model()
options = ort.SessionOptions()
options.intra_op_num_threads = args.threads
session = ort.InferenceSession(model.SerializeToString(), options)
train, test = read(args.train), read(args.test)
classes = max(label for _, label in train) + 1
random = np.random.default_rng(0)
x = np.concatenate(
    [features(session, train, None)]
    + [features(session, train, random) for _ in range(args.views - 1)]
)
y = np.array([label for _, label in train] * args.views)
tx, ty = features(session, test, None), np.array([label for _, label in test])
mean, std = x.mean(0), x.std(0) + 1e-6
x, tx = ((x - mean) / std).astype(np.float64), (tx - mean) / std

# The penalty is chosen on a tenth of the training pictures, never on the test set.
held = np.arange(len(y)) % len(train) % 10 == 0
best = max(
    args.decay,
    key=lambda d: (lambda w, b: ((x[held] @ w + b).argmax(1) == y[held]).mean())(
        *fit(x[~held], y[~held], classes, d)
    ),
)
w, b = fit(x, y, classes, best)
print(f"decay {best}: train {((x @ w + b).argmax(1) == y).mean():.4f}, test {((tx @ w + b).argmax(1) == ty).mean():.4f}")

weight = (w / std[:, None]).T.astype(np.float32)
bias = (b - mean @ (w / std[:, None])).astype(np.float32)
graph = model.graph
graph.initializer.extend(
    [numpy_helper.from_array(weight, "head.weight"), numpy_helper.from_array(bias, "head.bias")]
)
graph.node.append(
    helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], transB=1)
)
del graph.output[:]
graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes]))
graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
onnx.checker.check_model(model)
onnx.save(model, args.output)
