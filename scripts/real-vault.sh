#!/usr/bin/env bash
# real-vault.sh WANTED BUILT: makes sure that the real Vault server of the tests exists.
# WANTED is the binary that the tests will run. When it is BUILT, it is built there from the nested module
# e2e/realvault, unless that version was built before; any other WANTED must be there already.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$1 built=$2
package=github.com/hashicorp/vault
every=20 # seconds between two lines of progress

if [ "$wanted" != "$built" ]; then
  [ -x "$wanted" ] || { echo "VAULT_BINARY=$wanted is no program; unset it to have one built" >&2; exit 1; }
  echo "real Vault: using $wanted"
  exit 0
fi

# The auth method kubernetes is not in a minimal Vault: it is built as a plugin beside it.
plugin=$(dirname "$built")/vault-plugins/kubernetes
plugin_package=github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/vault-plugin-auth-kubernetes
version=$(sed -n "s|^[[:space:]]*$package \(v[^ ]*\).*|\1|p" e2e/realvault/go.mod)
stamp=.tools/stamps/vault-$version
mkdir -p "$(dirname "$plugin")" .tools/stamps
if [ ! -x "$plugin" ] || [ ! -e "$stamp" ]; then # half a minute
  target=$PWD/$plugin
  [ "${plugin#/}" = "$plugin" ] || target=$plugin
  (cd e2e/realvault && GOWORK=off go build -trimpath -ldflags '-s -w' -o "$target" "$plugin_package")
fi
if [ -x "$built" ] && [ -e "$stamp" ]; then
  exit 0
fi

log=$(mktemp) list=$(mktemp) part=$built.part.$$
ticker=
trap 'kill $ticker 2>/dev/null || true; rm -f "$log" "$list" "$part"' EXIT

# progress WHAT [OF]: says how far the log has grown, every 20 s, until killed. It waits with read, not with
# sleep, so that no child outlives it and keeps the terminal or a pipe open.
progress() {
  local tick
  exec {tick}<> <(:)
  while true; do
    read -rt "$every" -u "$tick" || true
    echo "real Vault $version: $(wc -l <"$log")${2:+ of about $2} $1, $SECONDS s" >&2
  done
}

# watch WHAT OF COMMAND...: runs the command, its standard error in the log, with progress lines on ours.
watch() {
  local what=$1 of=$2 code=0
  shift 2
  : >"$log"
  progress "$what" "$of" &
  ticker=$!
  "$@" 2>"$log" || code=$?
  kill "$ticker" && wait "$ticker" 2>/dev/null || true
  ticker=
  [ "$code" -eq 0 ] || { echo "real Vault $version: this failed: $*" >&2; tail -n 50 "$log" >&2; }
  return "$code"
}

echo "real Vault $version: building it once (about 5 minutes on two cores, 2 GB of modules; a vault on PATH is used instead)"
SECONDS=0
cd e2e/realvault
export GOWORK=off
watch 'modules fetched' '' go list -deps -tags minimal "$package" >"$list"
packages=$(wc -l <"$list")
watch 'packages compiled' "$packages" go build -v -trimpath -ldflags '-s -w' -tags minimal -o "$part" "$package"
cd ../..
mv "$part" "$built"
rm -f .tools/stamps/vault-v*
touch "$stamp"
echo "real Vault $version: built in $SECONDS s"
