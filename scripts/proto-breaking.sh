#!/usr/bin/env bash
# proto-breaking.sh BUF: fails when the protos of the work tree break clients of those on the main branch.
# On the main branch itself, where that would compare it with itself, they are compared with the commit before.
# It always says what it compared with, or why there was nothing to compare with.
set -euo pipefail
cd "$(dirname "$0")/.."

commit() { git rev-parse --quiet --verify "$1^{commit}" || true; }

nothing() {
  echo "buf breaking: NOT CHECKED: $1"
  exit 0
}

head=$(commit HEAD)
[ "$head" ] || nothing "there is no git commit here"

base=$(commit refs/remotes/origin/main) what=origin/main
[ "$base" ] || { base=$(commit refs/heads/main) what=main; }
if [ -z "$base" ] || [ "$base" = "$head" ]; then
  base=$(commit HEAD~1) what="the commit before HEAD"
fi
[ "$base" ] || nothing "no main branch and no earlier commit (the first commit, or a clone of depth 1)"
git cat-file -e "$base:proto" 2>/dev/null || nothing "$what has no proto directory yet"

old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
git archive "$base" proto buf.yaml | tar -x -C "$old"
"$1" breaking --against "$old" || {
  echo "buf breaking: this breaks clients of $what ($(git rev-parse --short "$base")); add fields, never change or remove them" >&2
  exit 1
}
echo "buf breaking: nothing broken since $what ($(git rev-parse --short "$base"))"
