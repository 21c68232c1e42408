#!/usr/bin/env python3
"""Lists of emoji pictures and captions for `ampoule distill --pairs`, and the pictures beside them.

    emoji_pairs.py DATA/emoji-captions OUT

Two protocols, as the data's README has them:
- `unseen`: trained on the emoji of split=train in four styles; tested on those of split=test, in Noto's style
  (183) and, where they exist in all four, in Noto's and Fluent's (153).
- `style`: trained on the 1562 emoji that exist in all styles, in Noto's, Twemoji's and OpenMoji's; tested on
  the same emoji in Fluent's, which was never seen.

The first caption of a line, label and tags, is what tests ask with. The others are the label alone, OpenMoji's
name, the label with some of the tags, and some of the tags alone.
"""

import gzip
import json
import random
import sys
import tarfile
from pathlib import Path

data, out = map(Path, sys.argv[1:3])
STYLES = ("noto", "twemoji", "openmoji", "fluent")
out.mkdir(parents=True, exist_ok=True)
for style in STYLES:
    with tarfile.open(data / f"{style}.tar.gz") as tar:
        tar.extractall(out, filter="data")
with gzip.open(data / "captions.jsonl.gz", "rt") as file:
    rows = [json.loads(line) for line in file]
rng = random.Random(1)


def captions(row):
    label, tags = row["label"], row["tags"]
    some = lambda least: rng.sample(tags, rng.randint(min(least, len(tags)), len(tags)))
    texts = [", ".join([label, *tags]), label, row["alt"]]
    texts += [", ".join([label, *some(0)]) for _ in range(3)]
    texts += [", ".join(some(1)) or label for _ in range(2)]
    return list(dict.fromkeys(texts))


texts = {row["id"]: captions(row) for row in rows}


def write(name, rows, styles):
    pairs = [(row["id"], style) for row in rows for style in styles if style in row["styles"]]
    lines = [json.dumps({"path": f"{style}/{i}.png", "captions": texts[i]}) for i, style in pairs]
    (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{name:14} {len(lines):5} pictures")


everywhere = [row for row in rows if len(row["styles"]) == len(STYLES)]
test = [row for row in rows if row["split"] == "test"]
write("unseen-train", [row for row in rows if row["split"] == "train"], STYLES)
write("unseen-183", [row for row in test if "noto" in row["styles"]], ["noto"])
write("unseen-153", [row for row in test if row in everywhere], ["noto"])
write("unseen-153f", [row for row in test if row in everywhere], ["fluent"])
write("style-train", everywhere, STYLES[:3])
write("style-1562", everywhere, ["fluent"])
