#!/bin/sh
# Instructions of one inference on emulated aarch64, by operator. They are counted, exactly; they are not cycles.
#
#   sh targets/count.sh model.amp neon|dotprod|i8mm|portable      after targets/setup.sh --emulators
#
# TOOLCHAIN names the toolchain that has the target (default: cross).
set -eu
[ $# -eq 2 ] || { sed -n '2,6p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
target=aarch64-unknown-linux-gnu
out=${CARGO_TARGET_DIR:-$here/grid/target}
export CARGO_TARGET_DIR="$out"
cargo build --quiet --release --features v1 --manifest-path "$here/icount/Cargo.toml"
cargo "+${TOOLCHAIN:-cross}" build --quiet --release --bin selftest --features std --target $target \
  --manifest-path "$here/grid/Cargo.toml"
qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu -plugin "$out/release/libicount.so" -d plugin \
  "$out/$target/release/selftest" "$1" --count "$2" 2>&1 | awk '
  /^roi/ { instructions[$2] = $3 }
  /^step/ { name[steps++] = $2 }
  END {
    for (i = 0; i < steps; i++) { count[name[i]]++; sum[name[i]] += instructions[i]; total += instructions[i] }
    for (n in sum) printf "%-12s %4d steps %12d\n", n, count[n], sum[n] | "sort -k4 -n -r"
    close("sort -k4 -n -r")
    printf "%-12s %4d steps %12d\n", "all", steps, total
  }'
