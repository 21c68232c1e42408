#!/usr/bin/env python3
"""Texts without pictures for `ampoule distill --texts`: lists of words that are near each other for the teacher.

    keyword_texts.py minilm.onnx STUDENT_VOCAB.txt PAIRS.jsonl OUT.txt

Words are the whole words of the student's vocabulary, and the words and tags of the captions that are learnt
from, never those that are measured. Each is written alone, twice before some of its 39 nearest neighbours among
the teacher's embeddings, and once before neighbours and words drawn at random.
"""

import json
import random
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import BertWordPieceTokenizer

teacher, vocabulary, pairs, target = sys.argv[1:5]
rng = random.Random(0)
tokens = Path(vocabulary).read_text().split("\n")
words = [t for t in tokens if re.fullmatch("[a-z]{3,}", t)]
captions = [json.loads(line)["captions"] for line in Path(pairs).read_text().splitlines()]
tags = sorted({part for texts in captions for part in texts[0].split(", ")})
pool = list(dict.fromkeys(words + tags))

tokenizer = BertWordPieceTokenizer(teacher + ".vocab.txt", lowercase=True)
tokenizer.enable_truncation(34)
tokenizer.enable_padding(length=34)
session = onnxruntime.InferenceSession(teacher)
rows = []
for start in range(0, len(pool), 64):
    ids = np.array([e.ids for e in tokenizer.encode_batch(pool[start : start + 64])], np.int64)
    rows.append(session.run(None, {"input_ids": ids})[0])
embeddings = np.concatenate(rows)
embeddings -= embeddings.mean(0)
embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
near = np.argsort(-(embeddings @ embeddings.T), axis=1)[:, 1:40]

texts = []
for i, word in enumerate(pool):
    texts.append(word)
    for mixed in (False, False, True):
        n = rng.randint(1, 8)
        others = [pool[j] for j in rng.sample(list(near[i]), n)]
        if mixed:
            half = max(1, n // 2)
            others = others[:half] + rng.sample(pool, half)
        line = [word, *others]
        if rng.random() < 0.5:
            rng.shuffle(line)
        texts.append(", ".join(line))
texts = list(dict.fromkeys(texts))
Path(target).write_text("\n".join(texts) + "\n")
print(f"{len(pool)} words and tags, {len(texts)} texts")
