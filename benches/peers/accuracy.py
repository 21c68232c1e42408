#!/usr/bin/env python3
"""Top-1 of artifacts beside ONNX Runtime's on the same pictures, picture by picture.

    .venv/bin/python accuracy.py --onnx float.onnx --amp float.amp --amp int8.amp --data DIR

DIR has `images/` (256x256) and `labels.csv` (columns file, class). ONNX Runtime sees the central square of the
network's size, decoded by Pillow, as (u8 - mean) / std; the artifacts read the files themselves. A picture on
which the first two logits of ONNX Runtime differ by less than 1 % of their spread counts as a tie.
"""

import argparse
import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

HERE = Path(__file__).resolve().parent
TIE = 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--amp", type=Path, action="append", default=[])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mean", type=float, default=127.0)
    parser.add_argument("--std", type=float, default=128.0)
    parser.add_argument("--ampoule", type=Path, default=HERE.parents[1] / "target/release/ampoule")
    args = parser.parse_args()

    rows = list(csv.DictReader(open(args.data / "labels.csv", newline="")))
    rows = [r for r in rows if (args.data / "images" / r["file"]).exists()]
    truth = np.array([int(r["class"]) for r in rows])
    files = [args.data / "images" / r["file"] for r in rows]
    logits = reference(args, files)
    top = logits.argmax(1)
    print(f"{len(files)} pictures")
    print(f"ONNX Runtime f32      {accuracy(top, truth)}")
    second, first = np.sort(logits, 1)[:, -2:].T
    tie = first - second < TIE * logits.std(1)
    for amp in args.amp:
        ours = artifact(args, amp, files)
        other = ours != top
        print(f"{amp.name:21} {accuracy(ours, truth)}  agrees on {100 * (1 - other.mean()):.2f} %, "
              f"differs on {other.sum()} ({(other & tie).sum()} ties)")


def accuracy(top, truth):
    return f"{100 * (top == truth).mean():.2f} %"


def reference(args, files):
    session = ort.InferenceSession(str(args.onnx))
    port = session.get_inputs()[0]
    size = port.shape[-1]
    out = []
    for file in files:
        image = np.asarray(Image.open(file).convert("RGB"), np.float32)
        at = (image.shape[0] - size) // 2
        image = (image[at : at + size, at : at + size] - args.mean) / args.std
        out.append(session.run(None, {port.name: image.transpose(2, 0, 1)[None]})[0][0])
    return np.array(out)


def artifact(args, amp, files):
    top = []
    for at in range(0, len(files), 100):
        command = [args.ampoule, "run", amp, *files[at : at + 100], "--top", "1", "--json"]
        results = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["results"]
        top += [r["top"][0]["class"] for r in results]
    return np.array(top)


if __name__ == "__main__":
    main()
