#!/usr/bin/env bash
# install-test.sh: proves that `go install MODULE/cmd/secret-sidecar@v0.1.0` will work once HEAD has the tags v0.1.0 and
# gen/v0.1.0: it serves both modules, as the tags would make them, from a directory that is laid out as a module proxy.
set -euo pipefail
cd "$(dirname "$0")/.."

module=github.com/secret-sidecar/secret-sidecar version=v0.1.0
proxy=$(mktemp -d)
trap 'rm -rf "$proxy"' EXIT

# publish PATH DIRECTORY EXCEPT...: the module of a directory of HEAD, without the directories that are modules of their own.
publish() {
  local path=$1 directory=$2 to=$proxy/$1/@v
  shift 2
  mkdir -p "$to"
  echo "{\"Version\":\"$version\"}" >"$to/$version.info"
  echo "$version" >"$to/list"
  git show "HEAD:${directory:+$directory/}go.mod" >"$to/$version.mod"
  git archive --format=zip --prefix="$path@$version/" -o "$to/$version.zip" "HEAD${directory:+:$directory}" -- . "$@"
}

publish "$module" "" $(git ls-tree -r --name-only HEAD | sed -n 's|^\(.*\)/go\.mod$|:(exclude)\1|p')
publish "$module/gen" gen
publish "$module/client" client

# Like a machine that has never seen the project: no workspace, and the modules of the project are not cached.
cd "$proxy"
GOWORK=off GOFLAGS="-modcacherw -trimpath" GOBIN=$proxy/bin GOMODCACHE=$proxy/modules GONOSUMDB=$module,$module/gen \
  GOPROXY="file://$proxy,file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" \
  go install "$module/cmd/secret-sidecar@$version"
"$proxy/bin/secret-sidecar" --version
