#!/usr/bin/env bash
# image-test.sh DIRECTORY: builds the image of this work tree twice into DIRECTORY, and the program and its SBOM with `make sbom`,
# all without a registry (image-base.sh), and runs the tests of e2e/image on them. Root, buildah, runc and a static
# busybox have to be there: what is missing fails the test. VERSION and REVISION name the build.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=$(realpath -m "$1")
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export VERSION REVISION SOURCE_DATE_EPOCH

[ "$(id -u)" = 0 ] || { echo "image: only root can build and run the image here" >&2; exit 1; }
command -v runc >/dev/null || { echo "image: runc is missing: apt-get install runc" >&2; exit 1; }

scripts/image-base.sh "$directory/storage"
# As the Dockerfile does it: what the product requires, and gen from this tree.
cp go.mod go.sum "$directory"
go mod edit -replace github.com/secret-sidecar/secret-sidecar/gen=./gen "$directory/go.mod"
GOWORK=off go mod download -modfile "$directory/go.mod"
MODULES=$(go env GOMODCACHE)/cache/download
export MODULES
scripts/image.sh "$directory/storage" "$directory/first"
scripts/image.sh "$directory/storage" "$directory/second"
for arch in amd64 arm64; do
  make --no-print-directory -s sbom GOARCH=$arch BIN="$directory/built/$arch" VERSION="$VERSION" REVISION="$REVISION"
done
echo "image: everything is built after $SECONDS s"
SECRET_SIDECAR_IMAGE=$directory SECRET_SIDECAR_REQUIRE_CONTAINERS=1 go test -count=1 ./e2e/image
