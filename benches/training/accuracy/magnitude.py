"""What is right after `ampoule prune --magnitude`, without training, share by share.

    python magnitude.py AMPOULE TRAIN.csv TEST.csv STUDENT.onnx …

TRAIN.csv only gives the classes their numbers, as `ampoule` does. Pictures are stretched to the student's input and have
ImageNet's mean and deviation; ONNX Runtime answers. Needs onnxruntime, numpy, pillow.
"""
import argparse
import csv
import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime as ort
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("ampoule", type=pathlib.Path)
parser.add_argument("train", type=pathlib.Path)
parser.add_argument("test", type=pathlib.Path)
parser.add_argument("students", type=pathlib.Path, nargs="+")
args = parser.parse_args()

read = lambda path: list(csv.DictReader(open(path)))
classes = sorted({r["label"] for r in read(args.train)})
rows = read(args.test)
labels = np.array([classes.index(r["label"]) for r in rows])
options = ort.SessionOptions()
options.intra_op_num_threads = 1


def picture(path, size):
    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return ((np.asarray(image, np.float32) / 255 - mean) / deviation).transpose(2, 0, 1)[None]


def right(file):
    session = ort.InferenceSession(str(file), options)
    port = session.get_inputs()[0]
    pictures = (picture(args.test.parent / r["path"], port.shape[2]) for r in rows)
    best = [session.run(None, {port.name: p})[0].argmax() for p in pictures]
    return int((np.array(best) == labels).sum())


with tempfile.TemporaryDirectory() as folder:
    for student in args.students:
        counts = [right(student)]
        for tenths in range(1, 10):
            pruned = pathlib.Path(folder) / "pruned.onnx"
            words = [args.ampoule.resolve(), "prune", student, "--magnitude", str(tenths / 10), "-o", pruned]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            counts.append(right(pruned))
        print(student, "of", len(rows), *(f"{100 * c / len(rows):.1f}" for c in counts), flush=True)
