"""One peer in its own process: `worker.py KIND MODEL`, then the worker protocol on standard input and
output (README.md). Started by peers.py, which pins it to a core; one thread, batch 1."""

import json
import os
import sys
import time

import numpy as np


def noise(n):
    """Fixed xorshift sequence, uniform in [-1, 1). tract-bench/src/main.rs has the same."""
    s, out = 0x9E3779B9, np.empty(n, np.float32)
    for i in range(n):
        s = (s ^ (s << 13)) & 0xFFFFFFFF
        s ^= s >> 17
        s = (s ^ (s << 5)) & 0xFFFFFFFF
        out[i] = (s >> 8) / (1 << 23) - 1.0
    return out


def quantised(x, detail):
    """x as the tensor of a quantised LiteRT model wants it."""
    if not np.issubdtype(detail["dtype"], np.integer):
        return x.astype(detail["dtype"])
    i = np.iinfo(detail["dtype"])
    scale, zero = detail["quantization"]
    if not scale:  # a model without parameters: spread over the range
        scale, zero = 2 / (int(i.max) - int(i.min)), (int(i.max) + int(i.min)) // 2
    return np.clip(np.round(x / scale) + zero, i.min, i.max).astype(detail["dtype"])


def ort(path, _kind):
    import onnxruntime

    so = onnxruntime.SessionOptions()
    so.intra_op_num_threads = so.inter_op_num_threads = 1
    so.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    so.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    s = onnxruntime.InferenceSession(path, so, providers=["CPUExecutionProvider"])
    i = s.get_inputs()[0]
    shape = [d if isinstance(d, int) else 1 for d in i.shape]
    x = noise(int(np.prod(shape))).reshape(shape)
    io = s.io_binding()
    io.bind_ortvalue_input(i.name, onnxruntime.OrtValue.ortvalue_from_numpy(x))
    for o in s.get_outputs():
        io.bind_output(o.name, "cpu")

    def run():
        s.run_with_iobinding(io)

    return run, lambda: io.copy_outputs_to_cpu()[0], f"ONNX Runtime {onnxruntime.__version__}"


def openvino(path, kind):
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    shape = [d.get_length() if d.is_static else 1 for d in model.inputs[0].partial_shape]
    if model.inputs[0].partial_shape.is_dynamic:
        model.reshape({model.inputs[0]: shape})
    conf = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if kind == "ov-bf16" else "f32",
    }
    c = core.compile_model(model, "CPU", conf)
    req = c.create_infer_request()
    x = noise(int(np.prod(shape))).reshape(shape)
    t = ov.Tensor(np.ascontiguousarray(x))
    req.set_input_tensor(t)

    def run():
        req.infer(share_outputs=True)

    out = lambda: np.array(req.get_output_tensor(0).data)
    return run, out, f"OpenVINO {ov.__version__.split('-')[0]}"


def litert(path, _kind):
    import importlib.metadata
    from ai_edge_litert.interpreter import Interpreter

    it = Interpreter(model_path=path, num_threads=1)
    it.allocate_tensors()
    d = it.get_input_details()[0]
    shape = [int(v) for v in d["shape"]]
    if len(shape) == 4 and shape[3] in (1, 3):  # the ONNX peers' picture, in this one's layout
        n, h, w, c = shape
        x = noise(n * c * h * w).reshape(n, c, h, w).transpose(0, 2, 3, 1)
    else:
        x = noise(int(np.prod(shape))).reshape(shape)
    it.set_tensor(d["index"], np.ascontiguousarray(quantised(x, d)))
    o = it.get_output_details()[0]

    def out():
        scale, zero = o["quantization"]
        y = it.get_tensor(o["index"])
        return (y.astype(np.float64) - zero) * scale if scale else y

    return it.invoke, out, f"LiteRT {importlib.metadata.version('ai-edge-litert')}"


def main():
    kind, path = sys.argv[1:3]
    real = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not land in the protocol
    run, output, version = {"ort": ort, "ov": openvino, "litert": litert}[kind.split("-")[0]](path, kind)
    run()
    clock = time.perf_counter_ns
    for line in sys.stdin:
        word, *rest = line.split() or [""]
        if word == "run":
            times = []
            for _ in range(int(rest[0])):
                t = clock()
                run()
                times.append(round((clock() - t) / 1e3, 1))
            reply = times
        elif word == "output":
            run()
            reply = np.asarray(output(), np.float64).ravel().tolist()
        elif word == "info":
            reply = {"version": version}
        else:
            continue
        real.write(json.dumps(reply) + "\n")
        real.flush()


if __name__ == "__main__":
    main()
