#!/bin/sh
# Peers' own virtual environment and the tract worker. Nothing is installed outside this folder.
set -eu
cd "$(dirname "$0")"
python3 -m venv .venv
.venv/bin/pip install --quiet --upgrade onnxruntime openvino nncf onnx ai-edge-litert numpy pillow psutil
if command -v cargo >/dev/null; then
    cargo build --release --locked --manifest-path tract-bench/Cargo.toml
else
    echo "no cargo: the tract row will be left out" >&2
fi
.venv/bin/pip list 2>/dev/null | grep -iE '^(onnxruntime|openvino|nncf|onnx|ai-edge-litert|numpy) '
