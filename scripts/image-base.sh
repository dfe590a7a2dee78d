#!/usr/bin/env bash
# image-base.sh STORAGE: puts a stand-in for the Dockerfile's base image into STORAGE, made of this machine's Go, its
# certificates and busybox, under the name that the Dockerfile asks for. With it the Dockerfile builds, unchanged, where
# no registry can be reached. It is made once for each version of Go.
set -euo pipefail
cd "$(dirname "$0")/.."

storage=$(realpath -m "$1")
name=$(sed -n 's/^ARG GO_IMAGE=//p' Dockerfile)
goroot=$(go env GOROOT) version=$(go env GOVERSION)
shell=$(command -v busybox || true)
for program in buildah busybox; do
  command -v $program >/dev/null && continue
  echo "image: $program is missing: apt-get install buildah busybox-static" >&2
  exit 1
done

mkdir -p "$storage/tmp"
export TMPDIR=$storage/tmp
store=(buildah --storage-driver vfs --root "$storage/root" --runroot "$storage/run")
if [ "$("${store[@]}" images --quiet --filter "label=go=$version" "$name" 2>/dev/null | wc -l)" = 1 ]; then
  exit 0
fi

container=$("${store[@]}" from scratch)
trap '"${store[@]}" rm "$container" >/dev/null' EXIT
root=$("${store[@]}" mount "$container")
mkdir -p "$root"/{bin,usr/local,etc/ssl/certs,root,go}
install -d -m 1777 "$root/tmp"
cp "$shell" "$root/bin/busybox"
for applet in sh mkdir; do ln -s busybox "$root/bin/$applet"; done
cp -a "$goroot" "$root/usr/local/go"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
"${store[@]}" umount "$container" >/dev/null
"${store[@]}" config --label "go=$version" --env PATH=/usr/local/go/bin:/bin --env HOME=/root --env GOPATH=/go \
  --env GOTOOLCHAIN=local "$container"
"${store[@]}" commit --quiet "$container" "$name" >/dev/null
echo "image: $name is this machine's $version, put together in $SECONDS s"
