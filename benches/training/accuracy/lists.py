"""Unpacks the emoji set and CIFAR-10 JPEG, and lists their pictures with labels.

    python lists.py DATA OUT [--styles noto twemoji fluent openmoji]

DATA is the folder with `emoji-captions` and `cifar10-jpeg`. Writes OUT/emoji-{train,test}.csv (emoji in
their groups, split by `captions.jsonl`) and OUT/cifar-{train,test}.csv.
"""
import argparse
import csv
import gzip
import json
import pathlib
import tarfile

parser = argparse.ArgumentParser()
parser.add_argument("data", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--styles", nargs="+", default=["noto", "twemoji", "openmoji", "fluent"])
args = parser.parse_args()


def unpack(archive, folder):
    if not folder.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder.parent, filter="data")


def write(name, rows):
    with open(args.out / name, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label"])
        writer.writerows(rows)
    print(name, len(rows), "pictures")


args.out.mkdir(parents=True, exist_ok=True)
for style in args.styles:
    unpack(args.data / f"emoji-captions/{style}.tar.gz", args.out / style)
with gzip.open(args.data / "emoji-captions/captions.jsonl.gz", "rt") as file:
    emoji = [json.loads(line) for line in file]
for split in ["train", "test"]:
    rows = [
        (f"{style}/{e['id']}.png", e["group"])
        for style in args.styles
        for e in emoji
        if e["split"] == split and style in e["styles"] and e["group"] != "component"
    ]
    write(f"emoji-{split}.csv", rows)

for split in ["train", "test"]:
    unpack(args.data / f"cifar10-jpeg/{split}.tar.gz", args.out / split)
    rows = [
        (str(p.relative_to(args.out)), p.parent.name)
        for p in sorted((args.out / split).glob("*/*.jpg"))
    ]
    write(f"cifar-{split}.csv", rows)
