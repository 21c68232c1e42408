"""Post-training int8 versions of a float ONNX model, made with the peers' own tools and cached in models/.

Images: 128 from DIR (--calib), else from imagenet-samples in the data directory (AMPOULE_DATA or
../shared/data), else seeded noise, which is enough for latency but for nothing else."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODELS = HERE / "models"
COUNT = 128


def image_dir(given):
    if given:
        return Path(given)
    d = Path(os.environ.get("AMPOULE_DATA", ROOT.parent / "shared/data")) / "imagenet-samples/images"
    return d if d.is_dir() else None


def samples(shape, given, mean, std):
    """COUNT arrays of `shape` (NCHW), and a word for where they come from."""
    d = image_dir(given)
    if d is None or len(shape) != 4 or shape[1] != 3:
        rng = np.random.default_rng(1)
        return [rng.normal(0, 0.7, shape).astype(np.float32) for _ in range(COUNT)], "noise"
    from PIL import Image

    files = sorted(p for p in d.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    step = max(1, len(files) // COUNT)
    h, w = shape[2:]
    out = []
    for p in files[::step][:COUNT]:
        im = Image.open(p).convert("RGB")
        k = max(w / im.width, h / im.height)
        if min(im.size) == 256 and (h, w) == (224, 224):
            k = 1.0
        im = im.resize((max(w, round(im.width * k)), max(h, round(im.height * k))), Image.BICUBIC)
        x, y = (im.width - w) // 2, (im.height - h) // 2
        a = np.asarray(im.crop((x, y, x + w, y + h)), np.float32)
        out.append(((a - mean) / std).transpose(2, 0, 1)[None].astype(np.float32))
    return out, f"{len(out)} images of {d.name}"


def input_of(onnx_path):
    import onnx

    g = onnx.load(onnx_path, load_external_data=False).graph
    init = {t.name for t in g.initializer}
    v = next(v for v in g.input if v.name not in init)
    return v.name, [d.dim_value or 1 for d in v.type.tensor_type.shape.dim]


def cached(onnx_path, kind, suffix, args):
    h = hashlib.sha256(Path(onnx_path).read_bytes())
    h.update(f"{kind} {image_dir(args.calib)} {args.mean} {args.std}".encode())
    MODELS.mkdir(exist_ok=True)
    return MODELS / f"{Path(onnx_path).stem}-{kind}-{h.hexdigest()[:12]}{suffix}"


def nncf_int8(onnx_path, args):
    path = cached(onnx_path, "nncf", ".xml", args)
    if not path.exists():
        import nncf
        import openvino as ov

        print(f"quantising with NNCF: {path.name}", file=sys.stderr)
        name, shape = input_of(onnx_path)
        data, _ = samples(shape, args.calib, args.mean, args.std)
        model = ov.Core().read_model(onnx_path)
        if model.inputs[0].partial_shape.is_dynamic:
            model.reshape({model.inputs[0]: shape})
        q = nncf.quantize(
            model,
            nncf.Dataset(data),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(data),
        )
        ov.save_model(q, path, compress_to_fp16=False)
    return path


def ort_int8(onnx_path, args):
    """U8 activations, S8 weights (per channel from opset 13 on): what ONNX Runtime's documentation advises for x86 with VNNI."""
    path = cached(onnx_path, "ort-u8s8", ".onnx", args)
    if not path.exists():
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        print(f"quantising with ONNX Runtime: {path.name}", file=sys.stderr)
        name, shape = input_of(onnx_path)
        data, _ = samples(shape, args.calib, args.mean, args.std)

        class Reader(CalibrationDataReader):
            it = iter(data)

            def get_next(self):
                x = next(self.it, None)
                return None if x is None else {name: x}

        pre = path.with_suffix(".pre.onnx")
        quant_pre_process(onnx_path, str(pre), skip_symbolic_shape=True)
        import onnx

        opset = next(o.version for o in onnx.load(onnx_path).opset_import if o.domain in ("", "ai.onnx"))
        if opset < 13:
            print(f"opset {opset} has no per-channel QDQ: per tensor", file=sys.stderr)
        quantize_static(str(pre), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=opset >= 13,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
        pre.unlink(missing_ok=True)
    return path
