#!/usr/bin/env bash
# image-base.sh STORAGE: puts a stand-in for the Dockerfile's base image into STORAGE, made of this machine's Go, its
# certificates and busybox, under the name that the Dockerfile asks for. With it the Dockerfile builds, unchanged, where
# no registry can be reached. It is made once for each version of Go, of busybox, of the certificates and of this script.
set -euo pipefail
cd "$(dirname "$0")/.."

storage=$(realpath -m "$1")
name=$(sed -n 's/^ARG GO_IMAGE=//p' Dockerfile)
goroot=$(go env GOROOT) version=$(go env GOVERSION)
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
command -v buildah >/dev/null || { echo "image: buildah is missing: apt-get install buildah" >&2; exit 1; }
[ -r "$certificates" ] || { echo "image: $certificates is missing: apt-get install ca-certificates" >&2; exit 1; }
if ! scripts/image-static.sh busybox; then
  echo "image: there is no static busybox, and the base has no C library: apt-get install busybox-static" >&2
  exit 1
fi
shell=$(command -v busybox)
parts=$version-$(cat "$shell" "$certificates" scripts/image-base.sh | sha256sum | cut -c1-32)

mkdir -p "$storage/tmp"
export TMPDIR=$storage/tmp
store=(buildah --storage-driver vfs --root "$storage/root" --runroot "$storage/run")
if [ "$("${store[@]}" images --quiet --filter "label=parts=$parts" "$name" 2>/dev/null | wc -l)" = 1 ]; then
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
cp -L "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
"${store[@]}" umount "$container" >/dev/null
"${store[@]}" config --label "parts=$parts" --env PATH=/usr/local/go/bin:/bin --env HOME=/root --env GOPATH=/go \
  --env GOTOOLCHAIN=local "$container"
"${store[@]}" commit --quiet "$container" "$name" >/dev/null
echo "image: $name is this machine's $version, put together in $SECONDS s"
