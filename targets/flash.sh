#!/bin/sh
# Flash of the least program that runs a model on a Cortex-M4 (targets/cortex-m/src/bin/size.rs), by symbol. The
# model itself is not counted; the vector table and what the compiler brings (memcpy and the like) are.
#
#   sh targets/flash.sh model.amp           after targets/setup.sh thumbv7em-none-eabihf
#
# VERIFY=1 counts the program that verifies the model on the device, as one does that gets models later.
# OPT is the optimisation (default: s). TOOLCHAIN names the toolchain that has the target (default: stable), NM a program that reads ELF symbols.
set -eu
[ $# -eq 1 ] || { sed -n '2,9p' "$0"; exit 2; }
model=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")/cortex-m"
target=thumbv7em-none-eabihf
export AMPOULE_MODEL="$model" BOARD=mps2-an386 RUSTFLAGS=-Ctarget-cpu=cortex-m4 CARGO_TARGET_DIR=target/cortex-m4
export CARGO_PROFILE_RELEASE_OPT_LEVEL="${OPT:-s}"
cargo "+${TOOLCHAIN:-stable}" build --quiet --release --bin size --target $target ${VERIFY:+--features verify}
"${NM:-nm}" --print-size --size-sort --radix=d --demangle target/cortex-m4/$target/release/size | awk '
  $3 ~ /[bB]/ { next }                       # memory, not flash
  $4 ~ /MODEL/ { next }
  $4 ~ /core::fmt/ { formats = 1 }
  { name = $0; sub(/^[0-9]+ [0-9]+ . /, "", name); size[name] += $2; sum += $2 }
  name ~ /ampoule_runtime/ { runtime += $2 }
  name ~ /compiler_builtins|^__aeabi|^mem(cpy|move|set|cmp)/ { builtins += $2 }
  END {
    for (name in size) printf "%7d %s\n", size[name], substr(name, 1, 110) | "sort -n -r"
    close("sort -n -r")
    printf "%7d of these: ampoule-runtime\n%7d of these: compiler_builtins\n", runtime, builtins
    printf "%7d all symbols but the model (padding between them is not counted)\n", sum
    if (formats) { print "core::fmt is linked"; exit 1 }
  }'
