#!/usr/bin/env bash
# tidy.sh [-diff]: makes go.mod and go.sum of every module tidy; with -diff it only says what is not. The product requires
# gen by a version that may not be published yet, so its tidy run looks for gen in this tree, in a copy of go.mod: a
# replacement in the product's own go.mod would forbid `go install MODULE/cmd/secret-sidecar@VERSION`.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOWORK=off # every go.mod has to be right by itself

for directory in bench client e2e e2e/manifests e2e/monitoring gen scripts; do
  (cd "$directory" && go mod tidy "$@") || { echo "$directory/go.mod is not tidy: run scripts/tidy.sh" >&2; exit 1; }
done

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp go.mod go.sum "$copy"
gen=github.com/secret-sidecar/secret-sidecar/gen
go mod edit -replace "$gen=./gen" "$copy/go.mod"
go mod tidy -modfile "$copy/go.mod" "$@" || { echo "go.mod is not tidy: run scripts/tidy.sh" >&2; exit 1; }
go mod edit -dropreplace "$gen" "$copy/go.mod"
cp "$copy/go.mod" "$copy/go.sum" .
