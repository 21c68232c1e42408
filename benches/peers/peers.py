#!/usr/bin/env python3
"""Single-thread batch-1 latency of Ampoule and its peers on one x86 core, interleaved. README.md explains.

    .venv/bin/python peers.py --onnx float.onnx [--onnx-int8 qdq.onnx] [--amp model.amp]
                              [--tflite LABEL=model.tflite]... [--limit-isa avx2|avx2vnni|avx512vnni|amx]
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

import calibrate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# oneDNN's names. AMX is what an unlimited run picks on a CPU that has it.
ONEDNN = {"avx2": "AVX2", "avx2vnni": "AVX2_VNNI", "avx512vnni": "AVX512_CORE_VNNI", "amx": "AVX512_CORE_AMX"}
FLAGS = "avx2 fma avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16".split()
AMPOULE = "Ampoule int8"


class Peer:
    def __init__(self, label, argv, args, env=None, note=""):
        self.label, self.note, self.times, self.version = label, note, [], ""
        self.medians = []
        env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}

        def child():
            os.sched_setaffinity(0, {args.core})
            if args.nice:
                os.nice(args.nice)

        log = open(args.log, "a") if args.log else subprocess.DEVNULL
        self.p = subprocess.Popen(list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=log, env=env, preexec_fn=child, text=True, bufsize=1)

    def ask(self, line):
        try:
            self.p.stdin.write(line + "\n")
            self.p.stdin.flush()
            reply = self.p.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            raise RuntimeError(f"{self.label}: the worker ended (status {self.p.wait(5)}); --log FILE keeps its messages")
        return json.loads(reply)

    def close(self):
        self.p.stdin.close()
        try:
            self.p.wait(5)
        except subprocess.TimeoutExpired:
            self.p.kill()


def start(args):
    """Starts the workers that can be started: (peers, messages about the others)."""
    peers, skipped = [], []
    py = [sys.executable, HERE / "worker.py"]
    limit = {"ONEDNN_MAX_CPU_ISA": ONEDNN[args.limit_isa]} if args.limit_isa else {}
    free = "not limited" if args.limit_isa else ""
    only = set(args.only.split(",")) if args.only else None

    def add(key, label, argv, env=None, note="", protocol=True):
        if only and key not in only:
            return
        try:
            argv = argv() if callable(argv) else argv
            peer = Peer(label, argv, args, env, note)
            peer.key = key
            if protocol:
                peer.version = peer.ask("info")["version"]
            peer.ask("run 1")
            peers.append(peer)
        except Exception as e:
            skipped.append(f"{label}: {type(e).__name__}: {str(e).splitlines()[0][:200]}")

    if args.amp:
        isa = args.isa or args.limit_isa
        argv = [args.ampoule, "bench", "--worker", args.amp] + (["--isa", isa] if isa else [])
        add("ampoule", AMPOULE, argv, protocol=False)
    else:
        skipped.append(f"{AMPOULE}: no --amp")
    if args.onnx:
        add("ort-f32", "ONNX Runtime f32", [*py, "ort-f32", args.onnx], note=free)
    if args.onnx_int8:
        add("ort-int8", "ONNX Runtime int8 QDQ (given)", [*py, "ort-int8", args.onnx_int8], note=free)
        add("ov-qdq", "OpenVINO int8 QDQ (given)", [*py, "ov-int8", args.onnx_int8], limit)
    if args.onnx:
        add("ort-u8s8", "ONNX Runtime int8 QDQ U8S8", lambda: [*py, "ort-u8s8", calibrate.ort_int8(args.onnx, args)],
            note=free)
        add("ov-f32", "OpenVINO f32", [*py, "ov-f32", args.onnx], limit)
        if args.limit_isa in (None, "amx"):
            add("ov-bf16", "OpenVINO bf16", [*py, "ov-bf16", args.onnx], limit)
        add("ov-int8", "OpenVINO int8 (NNCF)", lambda: [*py, "ov-int8", calibrate.nncf_int8(args.onnx, args)], limit)
    for t in args.tflite:
        label, path = t.split("=", 1)
        add("litert", f"LiteRT {label}", [*py, "litert", path], note=free)
    if not args.tflite:
        skipped.append("LiteRT: no --tflite (LiteRT reads no ONNX; make_tflite.py converts plain networks)")
    tract = HERE / "tract-bench/target/release/tract-bench"
    if args.onnx:
        if tract.exists():
            add("tract", "tract f32", [tract, args.onnx], note=free, protocol=False)
        else:
            skipped.append("tract: not built (setup.sh)")
    for p in peers:
        if p.label == "tract f32":
            p.version = "tract 0.23.9"
    return peers, skipped


def agreement(peers):
    """Cosine of each peer's output to the first f32 peer's on the common input, where it can be asked."""
    ref, out = None, {}
    for p in sorted(peers, key=lambda p: p.key not in ("ort-f32", "ov-f32", "tract")):
        if p.label == AMPOULE:
            continue
        v = np.asarray(p.ask("output"), np.float64)
        if ref is None:
            if p.key not in ("ort-f32", "ov-f32", "tract"):
                continue
            ref = v
        out[p.label] = float(v @ ref / (np.linalg.norm(v) * np.linalg.norm(ref) + 1e-30)) if v.shape == ref.shape else None
    return out


def measure(peers, args):
    rng = random.Random(1)
    end = time.monotonic() + args.seconds if args.seconds else None
    done = 0
    while done < args.rounds and not (end and time.monotonic() > end):
        order = peers[:]
        rng.shuffle(order)
        for p in order:
            t = p.ask(f"run {args.burst + args.warm}")[args.warm :]
            p.times += t
            p.medians.append(float(np.median(t)))
        done += 1
    return done


def machine():
    info = Path("/proc/cpuinfo").read_text()
    field = lambda k: next((l.split(":", 1)[1].strip() for l in info.splitlines() if l.startswith(k)), "?")
    have = set(field("flags").split())
    flags = " ".join(f for f in FLAGS if f in have)
    cpu = f"{field('model name')} (family {field('cpu family')} model {field('model')})"
    virt = ", virtual machine" if "hypervisor" in have else ""
    return f"{cpu}, {os.cpu_count()} cores{virt}, Linux {platform.release().split('-')[0]}\n\nFlags of interest: {flags}"


def table(peers, args, rounds, skipped, cos):
    base = next((p for p in peers if p.label == AMPOULE), None)
    title = f"{args.name or Path(args.onnx or args.amp).stem}, {args.limit_isa or 'best'} ISA"
    lines = [f"### {title}", "",
             f"{rounds} rounds of {args.burst} inferences a peer, interleaved in random order; µs.", ""]
    lines += ["| peer | median | p10 | p99 | " + ("times Ampoule (median) | " if base else "") + "cosine to f32 | |",
              "|---|---|---|---|" + ("---|" if base else "") + "---|---|"]
    for p in sorted(peers, key=lambda p: np.median(p.times)):
        med, p10, p99 = np.median(p.times), np.percentile(p.times, 10), np.percentile(p.times, 99)
        row = f"| {p.label} | {med:.0f} | {p10:.0f} | {p99:.0f} | "
        if base:
            # The ratio per round, then its median: what disturbed a whole round cancels.
            row += f"{np.median(np.array(p.medians) / np.array(base.medians)):.2f} | "
        c = cos.get(p.label)
        lines.append(row + (f"{c:.4f}" if c is not None else "") + f" | {p.note} |")
    lines += [""] + [f"Left out: {s}" for s in skipped]
    return "\n".join(lines).rstrip() + "\n"


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--onnx", help="float model")
    a.add_argument("--onnx-int8", help="the same, quantised in QDQ form, for ONNX Runtime and OpenVINO")
    a.add_argument("--amp", help="Ampoule artifact")
    a.add_argument("--tflite", action="append", default=[], metavar="LABEL=FILE")
    a.add_argument("--ampoule", default=ROOT / "target/release/ampoule", help="the ampoule program")
    a.add_argument("--isa", help="--isa for Ampoule, when other than --limit-isa")
    a.add_argument("--limit-isa", choices=list(ONEDNN), help="limit the peers that can be (OpenVINO)")
    a.add_argument("--only", help="comma-separated: ampoule ort-f32 ort-int8 ort-u8s8 ov-f32 ov-bf16 ov-int8 ov-qdq litert tract")
    a.add_argument("--calib", help="folder of calibration images")
    a.add_argument("--mean", type=float, default=127.0)
    a.add_argument("--std", type=float, default=128.0)
    a.add_argument("--rounds", type=int, default=40)
    a.add_argument("--burst", type=int, default=20)
    a.add_argument("--warm", type=int, default=2, help="inferences dropped at the start of every burst")
    a.add_argument("--seconds", type=float, help="stop after the round that passes this")
    a.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    a.add_argument("--nice", type=int, default=0, help="niceness of the workers; below 0 needs root")
    a.add_argument("--name", help="title of the table")
    a.add_argument("--out", help="append the table to this Markdown file")
    a.add_argument("--json", help="write every time to this file")
    a.add_argument("--log", help="append the workers' messages to this file")
    args = a.parse_args()
    if not (args.onnx or args.amp):
        a.error("give --onnx or --amp")

    peers, skipped = start(args)
    for s in skipped:
        print("left out:", s, file=sys.stderr)
    if not peers:
        sys.exit("no peer could be started")
    try:
        cos = agreement(peers)
        before = os.getloadavg()[0]
        rounds = measure(peers, args)
    finally:
        for p in peers:
            p.close()
    text = table(peers, args, rounds, skipped, cos)
    versions = ", ".join(sorted({p.version for p in peers if p.version}))
    foot = f"\nCore {args.core}, niceness {args.nice}, load average {before:.1f} before and {os.getloadavg()[0]:.1f} after.\n"
    print(text + foot)
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        if not out.exists():
            out.write_text(f"# Peers, {date.today()}\n\n{machine()}\n\nPython {platform.python_version()}, {versions}\n")
        with open(out, "a") as f:
            f.write("\n" + text + foot)
    if args.json:
        Path(args.json).write_text(json.dumps({p.label: p.times for p in peers}))


if __name__ == "__main__":
    main()
