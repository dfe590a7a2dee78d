#!/usr/bin/env bash
# image.sh STORAGE OUT: builds the Dockerfile with buildah, for amd64 and arm64, into OUT, an OCI layout with one index
# for both. STORAGE keeps what buildah needs from one build to the next: images, and the caches of modules and packages.
# VERSION and REVISION name the build. Two builds of one commit give the same digests: every time in the image is
# SOURCE_DATE_EPOCH, the commit's unless it is set.
#
# MODULES=DIRECTORY builds without a network: modules come from a directory that is laid out as a module proxy, as
# GOMODCACHE/cache/download is, and the base image has to be in STORAGE already (image-base.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

storage=$(realpath -m "$1") out=$(realpath -m "$2")
: "${VERSION:?}" "${REVISION:?}"
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
command -v buildah >/dev/null || { echo "image: buildah is missing: apt-get install buildah" >&2; exit 1; }

mkdir -p "$storage/tmp" "$(dirname "$out")"
export TMPDIR=$storage/tmp # buildah's cache mounts are there
store=(buildah --storage-driver vfs --root "$storage/root" --runroot "$storage/run")
flags=(
  # buildah 1.28 looks for a base image of the target's platform unless it is told the machine's own once more.
  --build-arg "BUILDPLATFORM=linux/$(go env GOHOSTARCH)"
  --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION"
  --label "org.opencontainers.image.created=$(date -u -d "@$epoch" +%FT%TZ)"
  --timestamp "$epoch" --identity-label=false
)
if [ -n "${MODULES:-}" ]; then
  # go.sum still says what every module must be.
  flags+=(--pull-never --volume "$MODULES:/modules:ro" --build-arg GOPROXY=file:///modules --build-arg GOSUMDB=off)
fi

# build ARCH: builds one image, and shows what buildah said if that fails.
build() {
  local log=$storage/tmp/build-$1.log
  "${store[@]}" bud --isolation chroot --platform "linux/$1" "${flags[@]}" --tag "secret-sidecar:$1" . >"$log" 2>&1 && return
  cat "$log" >&2
  echo "image: the build for $1 failed" >&2
  return 1
}

# One links while the other compiles.
build amd64 & amd64=$!
build arm64 & arm64=$!
failed=0
wait "$amd64" || failed=1
wait "$arm64" || failed=1
[ "$failed" = 0 ] || exit 1

"${store[@]}" manifest rm secret-sidecar:all >/dev/null 2>&1 || true
"${store[@]}" manifest create secret-sidecar:all >/dev/null
for arch in amd64 arm64; do
  "${store[@]}" manifest add secret-sidecar:all "secret-sidecar:$arch" >/dev/null
done
rm -rf "$out"
"${store[@]}" manifest push --quiet --all secret-sidecar:all "oci:$out:$VERSION" >/dev/null
echo "image: $VERSION for amd64 and arm64 is in $out, built in $SECONDS s"
