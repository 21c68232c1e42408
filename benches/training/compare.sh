#!/bin/sh
# Training speed of the measured student against PyTorch, interleaved: ROUNDS times each engine in turn.
#
#     PYTHON=/path/to/python benches/training/compare.sh [ROUNDS] [SECONDS] [BATCH] [other]
#
# PYTHON needs torch and numpy. One JSON object a line, then ratios. On a busy machine compare processor time on
# one thread (THREADS=1): PyTorch's threads wait spinning, so that its wall time suffers more than ours.
set -e
rounds=${1:-5}
seconds=${2:-4}
batch=${3:-64}
student=$4
python=${PYTHON:-python3}
here=$(dirname "$0")
[ -n "$OURS" ] || cargo build --release -p ampoule-distill-kernels --example train_speed >&2
ours=${OURS:-$here/../../target/release/examples/train_speed}
results=$(mktemp)
uptime >&2
for round in $(seq "$rounds"); do
    for threads in ${THREADS:-2 1}; do
        "$ours" "$threads" "$seconds" "$batch" $student
        "$python" "$here/student.py" speed "$threads" "$seconds" channels_last "$batch" $student
        "$python" "$here/student.py" speed "$threads" "$seconds" default "$batch" $student
    done
done | tee "$results"
uptime >&2
"$python" - "$results" <<'END'
import collections, json, statistics, sys
runs = collections.defaultdict(list)
for line in open(sys.argv[1]):
    run = json.loads(line)
    runs[run["threads"], run["engine"]].append(run)
values = lambda key, name: [run[name] for run in runs[key]]
print("threads, engine             images/s: median   best   CPU ms/step: median   least   MB   "
      "times PyTorch: median, best, CPU median, CPU least")
for key in runs:
    of = lambda key: (statistics.median(values(key, "median")), max(values(key, "best")),
                      statistics.median(values(key, "cpu_ms")), min(values(key, "cpu_ms")))
    a, b = of((key[0], "ampoule")), of(key)
    ratios = (a[0] / b[0], a[1] / b[1], b[2] / a[2], b[3] / a[3])
    print(f"{key[0]} {key[1]:25} {b[0]:16.1f} {b[1]:6.1f} {b[2]:21.1f} {b[3]:7.1f} "
          f"{statistics.median(values(key, 'peak_rss_mb')):4.0f}   " + " ".join(f"{r:.2f}" for r in ratios))
END
rm "$results"
