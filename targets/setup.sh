#!/bin/sh
# Makes bare-metal and wasm targets buildable. Idempotent; needs root only where packages are missing.
#
# With rustup's own target downloads at hand this is `rustup target add`. On a machine that reaches
# only Debian's packages, the standard libraries are built once from Debian's rustc-web and
# rust-web-src into a private sysroot, linked as the rustup toolchain "cross".
#
#   sh targets/setup.sh [target...]        default: thumbv7em-none-eabihf wasm32-unknown-unknown
#
# Prints the toolchain to use, as the last line: `toolchain: stable` or `toolchain: cross`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- thumbv7em-none-eabihf wasm32-unknown-unknown
sysroot=${XDG_CACHE_HOME:-$HOME/.cache}/ampoule/cross-sysroot

if command -v rustup >/dev/null; then
  missing=
  installed=$(rustup target list --installed 2>/dev/null || true)
  for t in "$@"; do echo "$installed" | grep -qx "$t" || missing="$missing $t"; done
  # shellcheck disable=SC2086
  if [ -z "$missing" ] || timeout 60 rustup target add $missing >/dev/null 2>&1; then
    echo "toolchain: stable"
    exit 0
  fi
fi

need=
for p in rustc-web rust-web-src; do
  dpkg-query -W -f '${Status}' $p 2>/dev/null | grep -q 'ok installed' || need="$need $p"
done
if [ -n "$need" ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || true # one stale index does not stop the install below
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $need >/dev/null
fi
sh "$here/make-sysroot.sh" "$sysroot" "$@"
echo "toolchain: cross"
