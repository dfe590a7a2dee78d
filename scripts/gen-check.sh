#!/usr/bin/env bash
# gen-check.sh BUF: fails when the generated code is not exactly what proto/ generates. It compares with a fresh generation
# elsewhere, so it works on a dirty tree and changes nothing in it.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$1" generate --output "$fresh"
for generated in gen client/node/src/gen; do
  if ! diff -ru --exclude=go.mod --exclude=go.sum "$generated" "$fresh/$generated"; then
    echo "$generated is not what proto/ generates: run 'make gen' and commit the result" >&2
    exit 1
  fi
done
echo "gen check: the generated code is current"
