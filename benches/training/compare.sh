#!/bin/sh
# Training speed of the measured student against PyTorch, interleaved: ROUNDS times each engine in turn.
#
#     PYTHON=/path/to/python benches/training/compare.sh [ROUNDS] [SECONDS]
#
# PYTHON needs torch and numpy. One JSON object a line, then ratios of the medians.
set -e
rounds=${1:-5}
seconds=${2:-4}
python=${PYTHON:-python3}
here=$(dirname "$0")
cargo build --release -p ampoule-distill-kernels --example train_speed >&2
ours=$here/../../target/release/examples/train_speed
results=$(mktemp)
uptime >&2
for round in $(seq "$rounds"); do
    for threads in 2 1; do
        "$ours" "$threads" "$seconds"
        "$python" "$here/student.py" speed "$threads" "$seconds" channels_last
        "$python" "$here/student.py" speed "$threads" "$seconds" default
    done
done | tee "$results"
uptime >&2
"$python" - "$results" <<'END'
import collections, json, statistics, sys
runs = collections.defaultdict(list)
for line in open(sys.argv[1]):
    run = json.loads(line)
    runs[run["threads"], run["engine"]].append(run)
middle = lambda key, name: statistics.median(run[name] for run in runs[key])
for key in runs:
    ours = (key[0], "ampoule")
    print(f"{key[0]} threads {key[1]:22} {middle(key, 'median'):7.1f} images/s  {middle(key, 'cpu_ms'):6.1f} CPU ms/step  "
          f"{middle(key, 'peak_rss_mb'):5.0f} MB  ampoule is {middle(ours, 'median') / middle(key, 'median'):.2f} times as fast")
END
rm "$results"
