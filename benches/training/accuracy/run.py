"""Distilled students against the same networks trained on labels alone, and a store against a teacher that
answers meanwhile.

    python run.py AMPOULE TRAIN.csv TEST.csv TEACHER.onnx OUT [--students …] [--seeds 0 1 2] [--modes …]

Modes: `labels` (a tenth of the labels and nothing else), `store` (the teacher's stored answers to all training
pictures, and the same tenth of the labels), `online` (the same with the teacher answering meanwhile). All see
the same number of pictures: `labels` shows its tenth ten times as often. Results are appended to
OUT/results.jsonl, so that a stopped run goes on; `--table` only prints what is there.
"""
import argparse
import collections
import json
import pathlib
import statistics
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("ampoule", type=pathlib.Path)
parser.add_argument("train", type=pathlib.Path)
parser.add_argument("test", type=pathlib.Path)
parser.add_argument("teacher", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--students", nargs="+", default=["tinyvit-mini", "tiny-moat-mini"])
parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
parser.add_argument("--modes", nargs="+", default=["labels", "store", "online"])
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--stored", type=int, default=3, help="epochs of the store")
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--lr", default="2e-3")
parser.add_argument("--fraction", type=float, default=0.1)
parser.add_argument("--labels-weight", default="0.3")
parser.add_argument("--preset", default="lite", help="the teacher's")
parser.add_argument("--flip", default="0.5")
parser.add_argument("--threads", default="2")
parser.add_argument("--table", action="store_true")
args = parser.parse_args()

args.out.mkdir(parents=True, exist_ok=True)
results = args.out / "results.jsonl"
store = args.out / "store"
augment = ["--augment", "light", "--flip", args.flip]


def run(*words):
    print("$", "ampoule", *words, flush=True)
    done = subprocess.run([args.ampoule, *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def known():
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def experiment(student, mode, seed):
    name = f"{student}-{mode}-{seed}"
    epochs, source = args.epochs, []
    match mode:
        case "labels":
            epochs = round(args.epochs / args.fraction)
            source = ["--labels-only", *augment]
        case "store":
            source = ["--store", store, "--labels-weight", args.labels_weight]
        case "online":
            source = ["--teacher", args.teacher, "--teacher-preset", args.preset]
            source += ["--labels-weight", args.labels_weight, *augment]
    words = ["distill", "--student", student, "--size", f"{args.size}x{args.size}", *source]
    words += ["--data", args.train, "--eval", args.test, "--epochs", epochs, "--seed", seed]
    words += ["--label-fraction", args.fraction, "--batch", args.batch, "--lr", args.lr]
    words += ["--eval-every", epochs, "--threads", args.threads, "--json", "-o", args.out / f"{name}.onnx"]
    result = json.loads(run(*words).splitlines()[-1])["result"]
    rows = {r["name"].split()[-1]: r["top1"] for r in result["rows"]}
    top1 = {k: v["hits"] / v["total"] for k, v in rows.items() if v}
    entry = dict(student=student, mode=mode, seed=seed, epochs=epochs, steps=result["steps"],
                 seconds=round(result["seconds"]), samples=result["samples"],
                 labels=result["labels"], measured=result["measured"], top1=top1)
    with open(results, "a") as file:
        file.write(json.dumps(entry) + "\n")
    print(json.dumps(entry), flush=True)


def table():
    groups = collections.defaultdict(list)
    for r in known():
        groups[r["student"], r["mode"]].append(r)
    print("student           mode    seeds  float top-1 (mean, each)                int8 mean  drop")
    for (student, mode), rs in sorted(groups.items()):
        each = [100 * r["top1"]["float"] for r in rs]
        int8 = [100 * r["top1"]["int8"] for r in rs]
        mean, drop = statistics.mean(each), statistics.mean(each) - statistics.mean(int8)
        shown = ", ".join(f"{e:.1f}" for e in each)
        print(f"{student:17} {mode:7} {len(rs):5}  {mean:5.1f}  ({shown:22}) {statistics.mean(int8):12.1f} {drop:6.2f}")
    teachers = {r["top1"]["teacher"] for r in known() if "teacher" in r["top1"]}
    print("teacher:", *(f"{100 * t:.1f} %" for t in teachers))


if not args.table:
    if "store" in args.modes:
        run("teach", "--teacher", args.teacher, "--data", args.train, "--preset", args.preset,
            "--epochs", args.stored, *augment, "--threads", args.threads, "-o", store)
    done = {(r["student"], r["mode"], r["seed"]) for r in known()}
    for seed in args.seeds:
        for student in args.students:
            for mode in args.modes:
                if (student, mode, seed) not in done:
                    experiment(student, mode, seed)
table()
