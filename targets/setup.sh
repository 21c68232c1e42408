#!/bin/sh
# Makes targets buildable and runnable. Idempotent; needs root only where packages are missing.
#
# With rustup's own target downloads at hand this is `rustup target add`. On a machine that reaches
# only Debian's packages, the standard libraries are built once from Debian's rustc-web and
# rust-web-src into a private sysroot, linked as the rustup toolchain "cross".
#
#   sh targets/setup.sh [--emulators] [target...]     default: every target of the list below
#
# --emulators installs what runs the targets too. Prints the toolchain to use, as the last line:
# `toolchain: stable` or `toolchain: cross`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
emulators=
[ "${1:-}" != --emulators ] || { emulators=yes; shift; }
[ $# -gt 0 ] || set -- \
  thumbv6m-none-eabi \
  thumbv7em-none-eabihf \
  thumbv8m.main-none-eabihf \
  riscv32imac-unknown-none-elf \
  wasm32-unknown-unknown
sysroot=${XDG_CACHE_HOME:-$HOME/.cache}/ampoule/cross-sysroot

# install PACKAGE...: those that are missing, where this is Debian and we may.
install() {
  need=
  for p in "$@"; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || need="$need $p"
  done
  [ -n "$need" ] || return 0
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || true # one stale index does not stop the install below
  # shellcheck disable=SC2086
  apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $need >/dev/null
}

if [ -n "$emulators" ]; then
  packages=
  for t in "$@"; do
    case $t in
      thumb*) packages="$packages qemu-system-arm" ;; # 7.2: its plugin interface counts instructions
      aarch64-*-linux-gnu) packages="$packages qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
      armv7-*-linux-gnueabihf) packages="$packages qemu-user gcc-arm-linux-gnueabihf libc6-dev-armhf-cross" ;;
      wasm32-*) command -v node >/dev/null || packages="$packages nodejs" ;;
    esac
  done
  # shellcheck disable=SC2086
  install $packages
fi

if command -v rustup >/dev/null; then
  missing=
  installed=$(rustup target list --installed 2>/dev/null || true)
  for t in "$@"; do echo "$installed" | grep -qx "$t" || missing="$missing $t"; done
  # shellcheck disable=SC2086
  if [ -z "$missing" ] || timeout 120 rustup target add $missing >/dev/null 2>&1; then
    echo "toolchain: stable"
    exit 0
  fi
fi

packages="rustc-web rust-web-src"
case "$*" in *wasip1*) packages="$packages wasi-libc" ;; esac
# shellcheck disable=SC2086
install $packages
sh "$here/make-sysroot.sh" "$sysroot" "$@"
echo "toolchain: cross"
