#!/usr/bin/env bash
# gen-check.sh BUF: fails when gen/ is not exactly what proto/ generates. It compares with a fresh generation
# elsewhere, so it works on a dirty tree and changes nothing in it.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$1" generate --output "$fresh"
if ! diff -ru --exclude=go.mod --exclude=go.sum gen "$fresh/gen"; then
  echo "gen/ is not what proto/ generates: run 'make gen' and commit the result" >&2
  exit 1
fi
echo "gen check: gen/ is current"
