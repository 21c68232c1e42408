#!/usr/bin/env python3
"""Recall of text to picture with the towers that `ampoule distill --pairs` wrote, as ONNX Runtime computes it.

    recall.py towers/ PAIRS.jsonl…

Pictures are read as they are prepared for training: 64×64, −1..1. A picture's text is the first of its captions. Prints recall
at 1, 5 and 10 in percent for each list. Needs numpy, onnxruntime, pillow and tokenizers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

towers = Path(sys.argv[1])
tokens = (towers / "vocab.txt").read_text().split("\n")
tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
image, text = (onnxruntime.InferenceSession(towers / f"{name}.onnx") for name in ["image", "text"])
length = text.get_inputs()[0].shape[1]
tokenizer.enable_truncation(length)
tokenizer.enable_padding(length=length)


def embed(session, values):
    values = session.run(None, {session.get_inputs()[0].name: values[None]})[0].ravel()
    return values / np.linalg.norm(values)


def picture(path):
    found = Image.open(path).convert("RGBA")
    white = Image.new("RGBA", found.size, "white")
    found = Image.alpha_composite(white, found).convert("RGB").resize((64, 64), Image.BILINEAR)
    return (np.asarray(found, np.float32).transpose(2, 0, 1) / 127.5 - 1).astype(np.float32)


for name in sys.argv[2:]:
    rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
    pictures = np.array([embed(image, picture(Path(name).parent / row["path"])) for row in rows])
    texts = [np.array(tokenizer.encode(row["captions"][0]).ids, np.int64) for row in rows]
    texts = np.array([embed(text, ids) for ids in texts])
    scores = texts @ pictures.T
    better = (scores > np.diag(scores)[:, None]).sum(1)
    print(name, len(rows), *(f"{100 * (better < k).mean():.1f}" for k in [1, 5, 10]))
