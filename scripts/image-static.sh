#!/usr/bin/env bash
# image-static.sh PROGRAM: succeeds if PROGRAM is there and needs no other file to run, as in a root without a C library.
set -euo pipefail

program=$(command -v "$1") || exit 1
# ldd names the files that a dynamic program needs by their paths. There are none of a static one, whatever words it has.
[[ $(ldd "$program" 2>/dev/null || true) != */* ]]
